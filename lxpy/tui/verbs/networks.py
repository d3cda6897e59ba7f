"""Forwards of networks, and network ACLs."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.tabs.network import AclRow, AclsTab, ForwardRow, ForwardsTab
from lxpy.tui.verbs.objects import ask_name, edit_document

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_FORWARD = ("config", "description", "ports")
_ACL = ("config", "description", "egress", "ingress")
Document = dict[str, Any]


async def _done(app: "LxpyApp", method: str, path: str, body: Any = None) -> None:
    """One request, and what it changed read anew. Raises what it says."""
    await app.model.follow(await app.gateway.call(lambda c: getattr(c, method)(path, body)))
    _read(app)


def _read(app: "LxpyApp") -> None:
    app.model.changed_kind("networks")
    for kind in (ForwardsTab, AclsTab):
        tab = app.main.detail.find(kind)
        if tab.seen:
            tab.read()


async def _change(app: "LxpyApp", path: str, keys: Sequence[str], edit: Callable[[Document], None]) -> None:
    """Edits an object's document as it is now."""
    found, etag = await app.gateway.call(lambda c: c.get_etag(path))
    document = {key: found[key] for key in keys if key in found}
    edit(document)
    await app.model.follow(await app.gateway.call(lambda c: c.put(path, document, etag)))
    _read(app)


def _words(**pairs: str) -> list[str]:
    return [f"{key}={value}" for key, value in pairs.items() if value]


def _sure(app: "LxpyApp", question: str, names: list[str], note: str, work: Callable[[], Any]) -> None:
    async def one(_: Any) -> None:
        await work()

    def answer(yes: bool | None) -> None:
        if yes:
            app.actions.each("Cannot delete", [_Named(names[0])], one)

    app.push_screen(Confirm(question, names, "delete", note), answer)


class _Named:
    def __init__(self, name: str) -> None:
        self.name = name


# -- forwards ----------------------------------------------------------------------------------------------------------

_PORT = (
    Question("protocol", "Protocol", choices=("tcp", "udp")),
    Question("listen_port", "Ports", "such as 80,443,8000-8010"),
    Question("target_address", "To", "the instance's address"),
    Question("target_port", "Its ports", "left empty: the same"),
    Question("about", "About", "what it is for"),
)


def _port(answers: Answers) -> dict[str, str]:
    found = {key: answers[key] for key in ("protocol", "listen_port", "target_address", "target_port") if answers[key]}
    return found | ({"description": answers["about"]} if answers["about"] else {})


async def _judge(
    app: "LxpyApp", network: str, forward: Document, keys: Sequence[str], there: bool = False
) -> Mapping[str, str]:
    faults = await app.rules.faults("network-forward", {}, network=network, forward=forward, there=there)
    return {key if key in keys else "": text for key, text in faults.items()}


def create_forward(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """An address of the host, with what becomes of all its ports or of some."""
    network = rows[0].name

    def body(answers: Answers) -> Document:
        found: Document = {"listen_address": answers["listen_address"], "description": "", "config": {}, "ports": []}
        if answers["listen_port"]:
            found["ports"] = [_port(answers)]
        else:
            found["description"] = answers["about"]
            if answers["target_address"]:
                found["config"] = {"target_address": answers["target_address"]}
        return found

    async def check(answers: Answers) -> Mapping[str, str]:
        if not answers["listen_port"] and not answers["target_address"]:
            return {"target_address": "Where is it to lead? Ports may be left empty: then all go there"}
        keys = ("listen_address", *(question.name for question in _PORT))
        return await _judge(app, network, body(answers), keys)

    async def submit(answers: Answers) -> None:
        await _done(app, "post", f"/1.0/networks/{network}/forwards", body(answers))

    def line(answers: Answers) -> str:
        words = ["lxpy", "network", "forward", "create", network, answers["listen_address"] or "ADDRESS"]
        if answers["listen_port"]:
            add = ["lxpy", "network", "forward", "port", "add", network, answers["listen_address"] or "ADDRESS",
                   answers["protocol"], answers["listen_port"], answers["target_address"] or "ADDRESS",
                   answers["target_port"]]  # fmt: skip
            return f"{shlex.join(words)} && {shlex.join(word for word in add if word)}"
        return shlex.join(words + _words(target_address=answers["target_address"]))

    questions = [Question("listen_address", "Listen", "an address of this host, or one routed to it"), *_PORT]
    app.push_screen(Form(f"New forward of {network}", questions, submit, line, "Create", check=check))


def add_port(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = rows[0]
    if not isinstance(row, ForwardRow):
        return

    async def check(answers: Answers) -> Mapping[str, str]:
        forward = {key: row.raw[key] for key in _FORWARD if key in row.raw}
        forward |= {"listen_address": row.listen, "ports": [*(row.raw.get("ports") or []), _port(answers)]}
        return await _judge(app, row.network, forward, [question.name for question in _PORT], there=True)

    async def submit(answers: Answers) -> None:
        await _change(app, row.path, _FORWARD, lambda document: document["ports"].append(_port(answers)))

    def line(answers: Answers) -> str:
        words = [row.network, row.listen, answers["protocol"], answers["listen_port"] or "PORTS",
                 answers["target_address"] or "ADDRESS", answers["target_port"]]  # fmt: skip
        return shlex.join(["lxpy", "network", "forward", "port", "add", *(word for word in words if word)])

    app.push_screen(Form(f"Another port of {row.listen}", list(_PORT), submit, line, "Add", check=check))


def edit_forward(app: "LxpyApp", rows: Sequence[Any]) -> None:
    if isinstance(rows[0], ForwardRow):
        edit_document(app, f"{rows[0].listen} · forward of {rows[0].network}", rows[0].path, _FORWARD,
                      lambda: _read(app))  # fmt: skip


def delete_forward(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """One port, or the whole forward."""
    row = rows[0]
    if not isinstance(row, ForwardRow):
        return
    if row.port < 0:
        names = [row.listen, *(f"{port['protocol']} {port['listen_port']}" for port in row.raw.get("ports") or [])]
        _sure(app, f"Delete forward {row.listen}?", names, "", lambda: _done(app, "delete", row.path))
        return
    spec = dict(row.spec)

    def without(document: Document) -> None:
        document["ports"] = [port for port in document["ports"] if port != spec]

    _sure(app, f"Delete {row.spec['protocol']} port {row.spec['listen_port']}?", [row.name], "",
          lambda: _change(app, row.path, _FORWARD, without))  # fmt: skip


# -- ACLs --------------------------------------------------------------------------------------------------------------


def create_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    del rows

    async def check(answers: Answers) -> Mapping[str, str]:
        faults = await app.rules.faults("network-acl", {}, name=answers["name"])
        return faults

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "description": answers["about"], "config": {}, "ingress": [], "egress": []}
        await _done(app, "post", "/1.0/network-acls", body)

    def line(answers: Answers) -> str:
        about = ["--description", answers["about"]] if answers["about"] else []
        return shlex.join(["lxpy", "network", "acl", "create", answers["name"] or "NAME", *about])

    app.push_screen(
        Form("New network ACL", [Question("name", "Name", "web"), Question("about", "About", "what it is for")],
             submit, line, "Create", "It refuses everything until it has rules: a adds them.", check=check)
    )  # fmt: skip


_RULE = ("action", "protocol", "source", "source_port", "destination", "destination_port", "state", "description")


def add_rule(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = rows[0]
    if not isinstance(row, AclRow):
        return

    def rule(answers: Answers) -> dict[str, str]:
        found = {key: answers[key] for key in _RULE if answers.get(key)}
        if found.get("protocol") == "any":
            del found["protocol"]
        return found

    async def check(answers: Answers) -> Mapping[str, str]:
        acl = {answers["direction"]: [rule(answers)]}
        faults = await app.rules.faults("network-acl", {}, acl=acl)
        return {key if key in answers else "": text for key, text in faults.items()}

    async def submit(answers: Answers) -> None:
        await _change(app, row.path, _ACL, lambda document: document[answers["direction"]].append(rule(answers)))

    def line(answers: Answers) -> str:
        return shlex.join(["lxpy", "network", "acl", "rule", "add", row.name, answers["direction"],
                           *_words(**rule(answers))])  # fmt: skip

    app.push_screen(
        Form(
            f"Another rule of {row.name}",
            [
                Question("direction", "Direction", choices=("ingress", "egress")),
                Question("action", "Action", choices=("allow", "reject", "drop")),
                Question("protocol", "Protocol", choices=("any", "tcp", "udp", "icmp4", "icmp6")),
                Question("source", "From", "address, subnet or range; left empty: any"),
                Question("destination", "To", "address, subnet or range; left empty: any"),
                Question("destination_port", "Ports", "such as 80,443; for tcp and udp"),
                Question("state", "State", choices=("enabled", "logged", "disabled")),
                Question("description", "About", "what it is for"),
            ],
            submit, line, "Add", check=check,
        )
    )  # fmt: skip


def use_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """On the selected network, or no longer."""
    row, network = rows[0], rows[1]
    if not isinstance(row, AclRow):
        return

    def edit(document: Document) -> None:
        config = document["config"]
        names = [one.strip() for one in config.get("security.acls", "").split(",") if one.strip()]
        names = [one for one in names if one != row.name] if row.here else [*names, row.name]
        config["security.acls"] = ",".join(names)

    async def one(_: Any) -> None:
        await _change(app, network.path, ("config", "description"), edit)

    app.actions.each("Cannot use it here" if not row.here else "Cannot take it away", [row], one)


def edit_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    if isinstance(rows[0], AclRow):
        edit_document(app, f"{rows[0].name} · network ACL", rows[0].path, _ACL, lambda: _read(app))


def rename_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = rows[0]
    if not isinstance(row, AclRow):
        return

    async def renamed(name: str) -> None:
        await _done(app, "post", row.path, {"name": name})
        app.main.detail.find(AclsTab).go_to(name)

    async def check(name: str) -> str:
        return (await app.rules.faults("network-acl", {}, name=name)).get("name", "")

    ask_name(app, row.name, ("network", "acl"), renamed, check)


def log_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """What rules that log have let through or refused; it follows."""
    from lxpy.client import logs
    from lxpy.tui.logs import Source, acl_line
    from lxpy.tui.screens.log import LogScreen

    row = rows[0]
    if isinstance(row, AclRow):
        empty = "Nothing has been logged yet: rules with the state logged do"
        app.push_screen(LogScreen(app.gateway, [Source(row.name, logs.acl(row.name), acl_line)], "ACL log", empty))


def delete_acl(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = rows[0]
    if isinstance(row, AclRow):
        names = [row.name, *(f"used by {user}" for user in row.users)]
        _sure(app, f"Delete network ACL {row.name}?", names, "", lambda: _done(app, "delete", row.path))
