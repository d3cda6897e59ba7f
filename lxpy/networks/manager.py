"""The networks: managed bridges with DHCP, DNS and NAT. The nics of instances on them are in `nics`."""

import asyncio
import concurrent.futures
import contextlib
import os
import shutil
from collections.abc import Callable
from typing import Any, TypeVar

from lxpy.api.errors import ApiError, BadRequest, Conflict, InternalError, NotFound
from lxpy.api.layout import Layout
from lxpy.api.notices import ACLS, FIREWALL, LEFTOVERS, NETWORK_UNAVAILABLE, Notice
from lxpy.api.objects import Config, Lease, Network
from lxpy.linux import rtnetlink
from lxpy.networks import config as keys
from lxpy.networks import firewall, forwards, host, leases, resolved
from lxpy.networks.acllog import AclLog
from lxpy.networks.acls import Acls
from lxpy.networks.dnsmasq import Dnsmasq
from lxpy.networks.firewalld import Firewalld
from lxpy.networks.mender import Mender
from lxpy.networks.nicacls import NicAcls
from lxpy.networks.nicextras import Extras
from lxpy.networks.nics import Nics
from lxpy.networks.proxynat import ProxyNat
from lxpy.networks.uplinks import Uplinks
from lxpy.networks.watch import api_addresses, link_type
from lxpy.state.store import Store

Emit = Callable[[str, str, str, dict[str, Any] | None], None]
Warn = Callable[[str], None]
Subnets = list[keys.Subnet]
Documents = dict[str, dict[str, Any]]
FullForwards = list[dict[str, Any]]
Indexes = list[int]
Leases = list[Lease]  # in the class, `list` is the method
_T = TypeVar("_T")

_STATE_COUNTERS = ("bytes_received", "bytes_sent", "packets_received", "packets_sent")


class NetworkManager:
    """All networks of one daemon. Every method belongs to the event loop's thread.

    Args:
        warn: told of what went wrong in the background.

    Attributes:
        used_by: the URLs of what uses a network; the daemon sets it. A network in use is not deleted.
        allow: takes how many networks there would be with a new one, and raises `Forbidden` when those are too many;
            set by the daemon, too.
    """

    def __init__(self, store: Store, layout: Layout, emit: Emit, warn: Warn) -> None:
        self._store, self._layout, self._emit, self._warn = store, layout, emit, warn
        self.used_by: Callable[[str], list[str]] = lambda _name: []
        self.allow: Callable[[int], None] = lambda _count: None
        self._dnsmasq: dict[str, Dnsmasq] = {}
        self._lock = asyncio.Lock()
        # The kernel waits some 30 ms for every reader when it takes a link away: not on the event loop.
        self._kernel = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="rtnetlink")
        self._firewalld = Firewalld(store.networks.all, warn)
        self._mender = Mender(
            store, layout, self._lock, self._mend, self._load_all, lambda: self._extras.mend(),
            lambda name: self._extras.answer_again(name), self._firewalld.changed, warn,
        )  # fmt: skip
        self._log: AclLog | None = None
        self.acls = Acls(store, self._lock, self._load_acls, emit)
        self._filters = NicAcls(
            layout.nft_nic_table, layout.nflog_group, store.network_acls.all, self._logged_change, warn
        )
        self._extras = Extras(
            layout.nft_nics_table, f"{layout.networks}/nics.json", self._mender.own_change,
            lambda name: store.networks.get(name) is not None,
        )  # fmt: skip
        self.proxies = ProxyNat(layout.nft_proxy_table, f"{layout.run}/proxy-nat", self._mender.own_change)
        self.nics = Nics(
            store, self.get, self._server, self._in_kernel, self._filters, self._extras,
            lambda netns: Uplinks(f"{layout.networks}/uplinks.json", f"{layout.run}/netns", netns), warn,
        )  # fmt: skip

    # -- the daemon comes and goes -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Makes or adopts what every network needs. A network that fails is reported, and the others come up."""
        async with self._lock:
            os.makedirs(self._layout.networks, mode=0o711, exist_ok=True)
            documents = self._store.networks.all()
            for entry in os.scandir(self._layout.networks):
                if entry.is_dir() and entry.name not in documents:
                    await self._sweep(entry.name)
                    self._warn(
                        Notice(
                            f"Network {entry.name!r} was half made or half deleted: what was left of it is removed",
                            LEFTOVERS,
                            f"/1.0/networks/{entry.name}",
                        )
                    )
            for name, document in documents.items():
                try:
                    made = await self._in_kernel(
                        lambda name=name, document=document: host.ensure_bridge(  # type: ignore[misc]
                            name, document["config"], document["volatile"]["hwaddr"]
                        )
                    )
                    await self._server(name).ensure(document["config"], fresh=made)
                    await resolved.register(name, document["config"], self._warn)
                except (ApiError, OSError) as error:
                    self._warn(
                        Notice(
                            f"Network {name!r} could not be started: {_line(error)}",
                            NETWORK_UNAVAILABLE,
                            f"/1.0/networks/{name}",
                        )
                    )
            if documents:
                self._forward()
                try:
                    await self._load_firewall(documents)
                except ApiError as error:
                    self._warn(Notice(error.message, FIREWALL))
            if self._store.network_acls.all():
                with contextlib.suppress(ApiError):
                    await self._filters.sweep({link.name for link in host.snapshot()[0]})
            with contextlib.suppress(ApiError):
                await self._extras.sweep({link.name for link in host.snapshot()[0]})
            self._mender.start()
            self._open_log()

    async def close(self) -> None:
        """Lets go of everything and leaves it running."""
        self._mender.close()
        self._firewalld.close()
        if self._log is not None:
            self._log.close()
            self._log = None
        await self.nics.close()
        for server in self._dnsmasq.values():
            server.forget()
        self._kernel.shutdown(wait=False)

    # -- networks ------------------------------------------------------------------------------------------------------

    def list(self) -> list[Network]:
        """The managed networks, then the host's other interfaces (no veths: those are the instances' own)."""
        managed = [self._document(name, document) for name, document in self._store.networks.all().items()]
        names = {network["name"] for network in managed}
        links, _ = host.snapshot()
        return managed + [_unmanaged(link) for link in links if link.name not in names and link.kind != "veth"]

    def get(self, name: str) -> Network:
        """Raises `NotFound`."""
        document = self._store.networks.get(name)
        if document is not None:
            return self._document(name, document)
        with rtnetlink.Rtnetlink() as netlink:
            link = netlink.link(name) if len(name) <= 15 else None
        if link is None or link.kind == "veth":
            raise NotFound(f"Network {name!r} not found")
        return _unmanaged(link)

    async def create(self, name: str, type: str, config: Config, description: str) -> None:
        """A managed bridge.

        Raises:
            BadRequest: a name, key or value that cannot be; nothing has changed.
            Conflict: the network or an interface of that name exists, or its subnet is taken.
        """
        if type not in ("", "bridge"):
            raise BadRequest(f"Network type {type!r} is not supported: lxpy makes networks of type bridge")
        keys.interface_name("network name", name)
        keys.validate(config)
        async with self._lock, contextlib.AsyncExitStack() as undo:
            if self._store.networks.get(name) is not None:
                raise Conflict(f"The network {name!r} already exists")
            self.allow(len(self._store.networks.all()) + 1)
            await self._sweep(name)
            with rtnetlink.Rtnetlink() as netlink:
                if netlink.link(name) is not None:
                    raise Conflict(
                        f"An interface {name!r} exists on this host already: choose another network name, "
                        f"or give it to instances as it is by nictype=bridged and parent={name}"
                    )
            full = keys.filled(config, self._taken(), creating=True, ipv6=host.has_ipv6())
            keys.validate(full)
            self._check_subnets(name, full)
            self.acls.check(full)
            document = {
                "type": "bridge", "description": description, "config": full,
                "volatile": {"hwaddr": full.get("bridge.hwaddr") or keys.random_mac()},
            }  # fmt: skip
            directory = self._directory(name)
            undo.callback(self._dnsmasq.pop, name, None)
            undo.callback(shutil.rmtree, directory, ignore_errors=True)
            undo.push_async_callback(self._reload_firewall)
            undo.push_async_callback(self._in_kernel, lambda: host.delete_link(name))
            undo.push_async_callback(self._server(name).stop)
            await self._apply(name, document, {**self._store.networks.all(), name: document})
            self._store.networks.put(name, document)
            undo.pop_all()
        self._emit("network-created", f"/1.0/networks/{name}", "default", None)

    async def update(self, name: str, config: Config, description: str) -> None:
        """Replaces configuration and description. A failure brings the old configuration back.

        Raises:
            NotFound, BadRequest, Conflict: as `create`.
        """
        keys.validate(config)
        async with self._lock, contextlib.AsyncExitStack() as undo:
            old = self._managed(name)
            full = keys.filled(config, self._taken(apart_from=name), creating=False, ipv6=host.has_ipv6())
            keys.validate(full)
            self._check_subnets(name, full)
            self.acls.check(full)
            volatile = {"hwaddr": full.get("bridge.hwaddr") or old["volatile"]["hwaddr"]}
            document = {**old, "description": description, "config": full, "volatile": volatile}
            forwards.check_targets(old.get("forwards", {}), full)
            if full != old["config"]:
                documents = self._store.networks.all()
                undo.push_async_callback(self._restore, name, old, documents)
                await self._apply(name, document, {**documents, name: document}, old["config"])
            self._store.networks.put(name, document)
            undo.pop_all()
        self._emit("network-updated", f"/1.0/networks/{name}", "default", None)

    async def delete(self, name: str) -> None:
        """Raises `NotFound`, or `Conflict` while anything uses it."""
        async with self._lock:
            self._managed(name)
            if users := self.used_by(name):
                more = f" and {len(users) - 1} more" if len(users) > 1 else ""
                raise Conflict(f"The network {name!r} is in use by {users[0]}{more}: remove it from there first")
            # The bridge first and the row last: cut short anywhere, the delete can be repeated.
            await self._take_away(name)
            documents = self._store.networks.all()
            del documents[name]
            await self._load_firewall(documents)
            await self._firewalld.forget(name)
            self._store.networks.delete(name)
        self._emit("network-deleted", f"/1.0/networks/{name}", "default", None)

    async def rename(self, name: str, new: str) -> None:
        """A new name for a network that nothing uses. Raises `NotFound`, `BadRequest`, `Conflict`."""
        keys.interface_name("network name", new)
        async with self._lock:
            document = self._managed(name)
            if users := self.used_by(name):
                raise Conflict(f"The network {name!r} is in use by {users[0]}: only an unused one can be renamed")
            with rtnetlink.Rtnetlink() as netlink:
                if self._store.networks.get(new) is not None or netlink.link(new) is not None:
                    raise Conflict(f"A network or interface {new!r} exists already: choose another name")
            # Nothing uses it, so it may go and come again. Cut short before the row has the new name, the next start
            # makes the old bridge again; after it, the new one, and sweeps the old directory.
            documents = self._store.networks.all()
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(self._restore, name, document, documents)
                await self._take_away(name)
                self._store.networks.rename(name, new)
                undo.callback(self._store.networks.rename, new, name)
                documents = self._store.networks.all()
                undo.push_async_callback(self._take_away, new)
                await self._apply(new, document, documents)
                undo.pop_all()
        self._emit("network-renamed", f"/1.0/networks/{new}", "default", {"old_name": name})

    async def _take_away(self, name: str) -> None:
        """Bridge, server and directory of a network; its row and rules are the caller's."""
        await self._server(name).stop()
        try:
            await self._in_kernel(lambda: host.delete_link(name))
        except OSError as error:
            raise host.explained(f"Deleting the bridge {name!r}", error) from None
        shutil.rmtree(self._directory(name), ignore_errors=True)
        self._dnsmasq.pop(name, None)

    # -- forwards ------------------------------------------------------------------------------------------------------

    def list_forwards(self, name: str) -> FullForwards:
        """The forwards of a network in LXD's shape, by address. Raises `NotFound`."""
        found = self._managed(name).get("forwards", {})
        return [forwards.api(listen, found[listen]) for listen in sorted(found)]

    def get_forward(self, name: str, listen: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        return forwards.api(*forwards.find(name, self._managed(name), listen))

    async def create_forward(self, name: str, body: dict[str, Any]) -> str:
        """Gives the listen address. Raises `NotFound`, `BadRequest`, `Conflict`; nothing has changed then."""
        listen = forwards.listen_address(str(body.get("listen_address") or ""))
        async with self._lock:
            document = self._managed(name)
            forwards.check_free(listen, name, self._store.networks.all())
            checked = forwards.checked(listen, body, document["config"])
            await self._set_forwards(name, document, {**document.get("forwards", {}), listen: checked})
        self._emit("network-forward-created", f"/1.0/networks/{name}/forwards/{listen}", "default", None)
        return listen

    async def update_forward(self, name: str, listen: str, body: dict[str, Any]) -> None:
        """Replaces description, configuration and ports. Raises `NotFound`, `BadRequest`."""
        async with self._lock:
            document = self._managed(name)
            listen, _ = forwards.find(name, document, listen)
            checked = forwards.checked(listen, body, document["config"])
            await self._set_forwards(name, document, {**document["forwards"], listen: checked})
        self._emit("network-forward-updated", f"/1.0/networks/{name}/forwards/{listen}", "default", None)

    async def delete_forward(self, name: str, listen: str) -> None:
        """Raises `NotFound`."""
        async with self._lock:
            document = self._managed(name)
            listen, _ = forwards.find(name, document, listen)
            rest = {key: value for key, value in document["forwards"].items() if key != listen}
            await self._set_forwards(name, document, rest)
        self._emit("network-forward-deleted", f"/1.0/networks/{name}/forwards/{listen}", "default", None)

    async def _set_forwards(self, name: str, document: dict[str, Any], found: dict[str, forwards.Forward]) -> None:
        new = {**document, "forwards": found}
        # The rules change in one transaction; a start after a crash brings them to what the row says.
        await self._load_firewall({**self._store.networks.all(), name: new})
        self._store.networks.put(name, new)

    def state(self, name: str) -> dict[str, Any]:
        """LXD's network state of a managed network or a host interface. Raises `NotFound`."""
        if len(name) > 15 and self._store.networks.get(name) is None:
            raise NotFound(f"Network {name!r} not found")
        links, addresses = host.snapshot()
        link = next((link for link in links if link.name == name), None)
        if link is None:
            if self._store.networks.get(name) is None:
                raise NotFound(f"Network {name!r} not found")
            raise NotFound(f"The bridge of network {name!r} is gone: restart the daemon to make it again")
        counters = link.counters or (0,) * 8
        values = (counters[2], counters[3], counters[0], counters[1])
        bridge = None
        if link.kind == "bridge":
            ports = sorted(one.name for one in links if one.master == link.ifindex)
            bridge = {**rtnetlink.bridge_details(link), "upper_devices": ports}
        return {
            **({"leases": self._counted(name)} if self._store.networks.get(name) else {}),
            "addresses": api_addresses(one for one in addresses if one.ifindex == link.ifindex),
            "counters": dict(zip(_STATE_COUNTERS, values, strict=True)),
            "hwaddr": link.hwaddr,
            "mtu": link.mtu,
            "state": "up" if link.up else "down",
            "type": link_type(link),
            "bond": None,
            "bridge": bridge,
            "vlan": None,
            "ovn": None,
        }

    def _counted(self, name: str) -> dict[str, int]:
        kinds = [lease["type"] for lease in self.leases(name)]
        return {kind: kinds.count(kind) for kind in ("dynamic", "static")}

    def leases(self, name: str) -> Leases:
        """Gateway, static and dynamic addresses, as LXD lists them. Raises `NotFound`."""
        document = self._managed(name)
        config, server = document["config"], self._server(name)
        gateway = [
            (f"{name}.gw", document["volatile"]["hwaddr"], str(one.ip))
            for one in (keys.interface4(config), keys.interface6(config))
            if one
        ]
        return leases.table(server.leases.read(), server.reservations(), gateway)

    # -- inner parts ---------------------------------------------------------------------------------------------------

    async def _sweep(self, name: str) -> None:
        """Takes away what a create cut short by a crash left: a directory that the store knows nothing of."""
        directory = self._directory(name)
        if not os.path.isdir(directory):
            return
        await self._server(name).stop()
        self._dnsmasq.pop(name, None)
        with rtnetlink.Rtnetlink() as netlink:
            link = netlink.link(name)
        if link is not None and link.kind == "bridge":
            await self._in_kernel(lambda: host.delete_link(name))
        shutil.rmtree(directory, ignore_errors=True)

    async def _in_kernel(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._kernel, work)

    def _directory(self, name: str) -> str:
        return f"{self._layout.networks}/{name}"

    def _server(self, name: str) -> Dnsmasq:
        if name not in self._dnsmasq:
            self._dnsmasq[name] = Dnsmasq(name, self._directory(name), self._warn)
        return self._dnsmasq[name]

    def _managed(self, name: str) -> dict[str, Any]:
        document = self._store.networks.get(name)
        if document is None:
            if self.get(name)["managed"] is False:
                raise BadRequest(f"The network {name!r} is not managed by lxpy: it is an interface of the host")
            raise NotFound(f"Network {name!r} not found")
        return document

    def _document(self, name: str, document: dict[str, Any]) -> Network:
        return {
            "name": name,
            "type": document["type"],
            "managed": True,
            "status": "Created",
            "locations": ["none"],
            "description": document["description"],
            "config": document["config"],
            "used_by": self.used_by(name),
        }

    def _configs(self) -> dict[str, Config]:
        return {name: document["config"] for name, document in self._store.networks.all().items()}

    def _taken(self, apart_from: str = "") -> Subnets:
        found = host.taken_subnets(apart_from)
        for name, config in self._configs().items():
            if name != apart_from:
                found += [one for one in (keys.subnet4(config), keys.subnet6(config)) if one]
        return found

    def _check_subnets(self, name: str, config: Config) -> None:
        """No overlap with another network of ours; on the host only the very same subnet: wider routes are routine."""
        others = {other: found for other, found in self._configs().items() if other != name}
        present = host.taken_subnets(name)
        for key, subnet in (("ipv4.address", keys.subnet4(config)), ("ipv6.address", keys.subnet6(config))):
            if subnet is None:
                continue
            for other, found in others.items():
                if any(one and one.overlaps(subnet) for one in (keys.subnet4(found), keys.subnet6(found))):
                    raise Conflict(f"{key}: the subnet {subnet} overlaps that of network {other!r}: choose another one")
            if subnet in present:
                raise Conflict(f"{key}: the subnet {subnet} is in use on this host already: choose another one")

    async def _apply(
        self, name: str, document: dict[str, Any], documents: Documents, old: Config | None = None
    ) -> None:
        config, hwaddr = document["config"], document["volatile"]["hwaddr"]
        directory = self._directory(name)
        os.makedirs(self._layout.networks, mode=0o711, exist_ok=True)
        os.makedirs(directory, mode=0o711, exist_ok=True)
        ports = set(keys.words(config, "bridge.external_interfaces"))
        given_back = sorted(set(keys.words(old or {}, "bridge.external_interfaces")) - ports)
        try:
            made = await self._in_kernel(lambda: host.ensure_bridge(name, config, hwaddr))
            if given_back:
                await self._in_kernel(lambda: host.release_ports(name, given_back))
        except OSError as error:
            raise host.explained(f"Setting up the bridge {name!r}", error) from None
        self._forward(documents)
        await self._load_firewall(documents)
        try:
            await self._server(name).ensure(config, fresh=made)
            await resolved.register(name, config, self._warn)
        except InternalError as error:
            if config.get("raw.dnsmasq"):
                raise BadRequest(f"{error.message} (see raw.dnsmasq)") from None
            raise

    async def _restore(self, name: str, document: dict[str, Any], documents: Documents) -> None:
        try:
            await self._apply(name, document, documents)
        except (ApiError, OSError) as error:
            self._warn(
                Notice(
                    f"Network {name!r} could not be brought back to its old configuration: {_line(error)}",
                    NETWORK_UNAVAILABLE,
                    f"/1.0/networks/{name}",
                )
            )

    async def _load_firewall(self, documents: Documents) -> None:
        with self._mender.own_change() as count:
            acls = self._store.network_acls.all()
            self._open_log()
            count.append(await firewall.apply(self._layout.nft_table, documents, acls, self._layout.nflog_group))
        await self._firewalld.trust(documents)

    def _logged_change(self) -> contextlib.AbstractContextManager[Indexes]:
        """A change of rules that may log: somebody listens from the first packet on."""
        self._open_log()
        return self._mender.own_change()

    def _open_log(self) -> None:
        if self._log is None and self._store.network_acls.all():
            os.makedirs(self._layout.logs, mode=0o700, exist_ok=True)
            try:
                self._log = AclLog(self._layout.acl_log, self._layout.nflog_group, self._warn)
            except OSError as error:
                self._warn(
                    Notice(f"Nothing that network ACLs log can be read: {error.strerror} ({error.filename})", ACLS)
                )

    async def _load_all(self, _documents: Documents) -> None:
        await self._load_acls(self._store.network_acls.all())

    async def _load_acls(self, acls: Documents) -> None:
        self._open_log()
        with self._mender.own_change() as count:
            documents = self._store.networks.all()
            count.append(await firewall.apply(self._layout.nft_table, documents, acls, self._layout.nflog_group))
            count.append(await self._filters.load(acls))
        await self.proxies.reload()

    async def _mend(self, name: str, document: dict[str, Any], ports: Indexes) -> str:
        """Brings back what somebody took of a network; says what it was, or nothing."""
        config, hwaddr = document["config"], document["volatile"]["hwaddr"]
        if await self._in_kernel(lambda: host.intact(name, config, hwaddr)):
            return ""
        made = await self._in_kernel(lambda: host.ensure_bridge(name, config, hwaddr))
        if not made:
            await self._server(name).ensure(config, fresh=True)  # its sockets may have lost their address
            return "addresses of the bridge were removed by somebody and are back"
        await self._in_kernel(lambda: host.adopt_ports(name, ports))
        await self._extras.reapply(name)
        await self._server(name).ensure(config, fresh=True)
        await resolved.register(name, config, self._warn)
        return f"the bridge was removed by somebody and is back, with {len(ports)} of its ports"

    async def _reload_firewall(self) -> None:
        with contextlib.suppress(ApiError):
            await self._load_firewall(self._store.networks.all())

    def _forward(self, documents: Documents | None = None) -> None:
        chosen = self._store.networks.all() if documents is None else documents
        configs = [one["config"] for one in chosen.values()]
        host.enable_forwarding(configs, f"{self._layout.networks}/sysctls.json", self._warn)


def _unmanaged(link: rtnetlink.Link) -> Network:
    if link.flags & rtnetlink.IFF_LOOPBACK:
        kind = "loopback"
    else:
        kind = {"": "physical", "bridge": "bridge", "vlan": "vlan", "bond": "bond"}.get(link.kind, "unknown")
    return {
        "name": link.name,
        "type": kind,
        "managed": False,
        "status": "",
        "locations": [],
        "description": "",
        "config": {},
        "used_by": [],
    }


def _line(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}"
    return str(error)
