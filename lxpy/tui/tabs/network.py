"""What belongs to the selected network: forwards of the host's addresses, and the ACLs that there are."""

from typing import Any
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lxpy.tui.gateway import explain
from lxpy.tui.objects import NetworkRow
from lxpy.tui.tabs.base import Tab
from lxpy.tui.volumerows import users
from lxpy.tui.widgets.table import Column, Part, Table

Rule = dict[str, str]


class ForwardRow:
    """A forward of an address, or one of its ports.

    Attributes:
        port: the port's place in `raw`; -1 for what becomes of all other ports.
    """

    __slots__ = ("key", "last", "listen", "name", "network", "port", "raw")

    def __init__(self, network: str, raw: dict[str, Any], port: int = -1, last: bool = False) -> None:
        self.network, self.raw, self.port, self.last = network, raw, port, last
        self.listen: str = raw["listen_address"]
        self.name = self.listen if port < 0 else f"{self.listen} {self.spec['protocol']} {self.spec['listen_port']}"
        self.key = f"{self.listen} {port:04}"

    @property
    def spec(self) -> Rule:
        """The port."""
        found: Rule = self.raw["ports"][self.port]
        return found

    @property
    def path(self) -> str:
        return f"/1.0/networks/{quote(self.network)}/forwards/{quote(self.listen)}"


def _listen(row: ForwardRow, _: int) -> tuple[Part, ...]:
    if row.port < 0:
        return ((row.listen, "strong"),)
    return (("  └ " if row.last else "  ├ ", "dim"), (f"{row.spec['protocol']} {row.spec['listen_port']}", ""))


def _target(row: ForwardRow, _: int) -> tuple[Part, ...]:
    if row.port < 0:
        target = (row.raw.get("config") or {}).get("target_address", "")
        return ((f"other ports to {target}" if target else "only these ports", "" if target else "dim"),)
    port = row.spec.get("target_port") or row.spec["listen_port"]
    return ((f"{row.spec['target_address']}  port {port}", ""),)


def _about(row: ForwardRow, _: int) -> tuple[Part, ...]:
    return ((row.raw.get("description", "") if row.port < 0 else row.spec.get("description", ""), "dim"),)


class _Verbs(Table):
    """A table whose keys are verbs on the selected row, or on the network."""

    def __init__(self, tab: Tab, columns: list[Column], on_network: tuple[str, ...], **kwargs: Any) -> None:
        self.tab, self._on_network = tab, on_network
        super().__init__(columns, **kwargs)

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is a verb's."""
        subject = self.tab.subject
        if verb in self._on_network:
            self.tab.lxpy.actions.do(verb, [subject])
        elif self.current is not None:
            self.tab.lxpy.actions.do(verb, [self.current, subject])


class ForwardTable(_Verbs):
    BINDINGS = [
        Binding("n", "do('create-forward')", "New", id="forward.create"),
        Binding("a", "do('add-port')", "Add a port", id="forward.port"),
        Binding("e", "do('edit-forward')", "Edit", id="forward.edit"),
        Binding("ctrl+d", "do('delete-forward')", "Delete", key_display="^d", id="forward.delete"),
    ]


class _OfNetwork(Tab):
    """Reads something of the selected managed network."""

    table: Table
    _goal = ""

    @classmethod
    def fits(cls, subject: Any) -> bool:
        return isinstance(subject, NetworkRow) and subject.managed

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.show([])
        if self.seen and (came or other or self.fresh):
            self.read()

    def read(self) -> None:
        """Asks anew."""
        self.soon(self._read)

    def tick(self) -> None:
        self.read()

    async def _read(self) -> None:
        network = self.subject
        if not isinstance(network, NetworkRow):
            return
        try:
            found = await self._rows(network)
            self.table.empty = self._nothing()
        except Exception as error:
            self.table.empty, found = [((explain(error), "bad"),)], []
        if self.subject is not None and self.subject.key == network.key:
            self.table.show(found)
            self.go_to(self._goal)

    def go_to(self, key: str) -> None:
        """Puts the cursor on a row, now or when it has been read."""
        place = next((n for n, row in enumerate(self.table.rows) if row.key == key), -1)
        self._goal = key if place < 0 else ""
        if place >= 0:
            self.table.action_to(place)

    async def _rows(self, network: NetworkRow) -> list[Any]:
        raise NotImplementedError

    def _nothing(self) -> list[tuple[Part, ...]]:
        raise NotImplementedError


class ForwardsTab(_OfNetwork):
    TITLE = "Forwards"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        columns = [
            Column("listen", "LISTEN", _listen, None, 16, 40, 1),
            Column("target", "LEADS TO", _target, None, 18, 50, 1, 1),
            Column("about", "ABOUT", _about, None, 6, 30, 0, 3),
        ]
        self.table = ForwardTable(self, columns, ("create-forward",))
        self.table.sort_key = ""

    def compose(self) -> ComposeResult:
        yield self.table

    def _nothing(self) -> list[tuple[Part, ...]]:
        return [
            (("No forwards", "strong"),),
            (("n", "accent"), (" leads ports of an address of this host to an instance", "dim")),
        ]

    async def _rows(self, network: NetworkRow) -> list[Any]:
        found = await self.lxpy.gateway.call(lambda c: c.get(f"{network.path}/forwards", recursion="1"))
        rows: list[ForwardRow] = []
        for raw in sorted(found, key=lambda one: str(one["listen_address"])):
            ports = raw.get("ports") or []
            rows.append(ForwardRow(network.name, raw))
            rows += [ForwardRow(network.name, raw, n, n + 1 == len(ports)) for n in range(len(ports))]
        return rows


class AclRow:
    """A network ACL. `here`: the selected network uses it."""

    __slots__ = ("description", "here", "key", "name", "raw", "users")

    def __init__(self, raw: dict[str, Any], here: bool) -> None:
        self.raw, self.here = raw, here
        self.key = self.name = raw["name"]
        self.description: str = raw.get("description", "")
        self.users = users(raw.get("used_by") or [])

    @property
    def path(self) -> str:
        return f"/1.0/network-acls/{quote(self.name)}"


class AclTable(_Verbs):
    BINDINGS = [
        Binding("n", "do('create-acl')", "New", id="acl.create"),
        Binding("a", "do('add-rule')", "Add a rule", id="acl.rule"),
        Binding("u", "do('use-acl')", "Use it here or not", id="acl.use"),
        Binding("e", "do('edit-acl')", "Edit", id="acl.edit"),
        Binding("l", "do('log-acl')", "Log", id="acl.log"),
        Binding("R", "do('rename-acl')", "Rename", id="acl.rename"),
        Binding("ctrl+d", "do('delete-acl')", "Delete", key_display="^d", id="acl.delete"),
    ]


class AclsTab(_OfNetwork):
    TITLE = "ACLs"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

        def name(row: AclRow, _: int) -> tuple[Part, ...]:
            return (("● " if row.here else "○ ", "ok" if row.here else "dim"), (row.name, "strong"))

        def rules(direction: str) -> Any:
            return lambda row, _: ((str(len(row.raw.get(direction) or []) or "–"), ""),)

        columns = [
            Column("name", "ACL", name, lambda r: r.name, 12, 30),
            Column("ingress", "IN", rules("ingress"), None, 3, 3, 0, 1, True),
            Column("egress", "OUT", rules("egress"), None, 3, 3, 0, 1, True),
            Column("users", "USED BY", lambda r, w: ((", ".join(r.users), "dim"),), None, 7, 40, 1, 2),
            Column("about", "ABOUT", lambda r, w: ((r.description, "dim"),), None, 6, 30, 0, 4),
        ]
        self.table = AclTable(self, columns, ("create-acl",), id="acls-table")
        self.body = Static(classes="yaml")

    def compose(self) -> ComposeResult:
        yield self.table
        with VerticalScroll(can_focus=False, id="acl-facts"):
            yield self.body

    def _nothing(self) -> list[tuple[Part, ...]]:
        return [(("No network ACLs", "strong"),), (("n", "accent"), (" makes one; nics and networks name them", "dim"))]

    async def _rows(self, network: NetworkRow) -> list[Any]:
        found = await self.lxpy.gateway.call(lambda c: c.get("/1.0/network-acls", recursion="1"))
        here = [one.strip() for one in (network.raw.get("config") or {}).get("security.acls", "").split(",")]
        self.table.styles.height = max(5, min(len(found) + 1, max(5, self.size.height // 2)))
        return [AclRow(raw, raw["name"] in here) for raw in found]

    def on_table_highlighted(self) -> None:
        row: AclRow | None = self.table.current
        if row is None:
            self.body.update("")
            return
        lines = [Content.assemble(("\n" + row.name, "bold $primary"), ("  used here" if row.here else "", "$success"))]
        for direction, word in (("ingress", "In "), ("egress", "Out")):
            for rule in row.raw.get(direction) or []:
                tone = {"allow": "$success", "drop": "$error", "reject": "$error"}.get(rule.get("action", ""), "")
                lines.append(
                    Content.assemble((f"{word}  ", "$faint"), (f"{rule.get('action', ''):<7}", tone), *_rule(rule))
                )
        if len(lines) == 1:
            lines.append(Content.assemble(("no rules yet: everything is refused where it is used; ", "$faint"),
                                          ("a", "$accent"), (" adds one", "$faint")))  # fmt: skip
        self.body.update(Content("\n").join(lines))


def _rule(rule: Rule) -> list[tuple[str, str]]:
    """What a rule is about, in words."""
    parts: list[tuple[str, str]] = []
    if rule.get("state", "enabled") != "enabled":
        parts.append((f"{rule['state']} ", "$warning"))
    parts.append((f"{rule.get('protocol') or 'anything'} ", ""))
    for word, address, port in (("from", "source", "source_port"), ("to", "destination", "destination_port")):
        if rule.get(address) or rule.get(port):
            where = rule.get(address, "") + (f" port {rule[port]}" if rule.get(port) else "")
            parts += [(f"{word} ", "$faint"), (f"{where.strip()} ", "")]
    if rule.get("icmp_type"):
        parts.append((f"type {rule['icmp_type']} ", ""))
    if rule.get("description"):
        parts.append((f" {rule['description']}", "$faint"))
    return parts
