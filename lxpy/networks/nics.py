"""The nics of instances: veth pairs into a bridge, their addresses in its DHCP and DNS, and what becomes of them."""

import asyncio
import contextlib
import ipaddress
import os
import random
import time
from collections.abc import Awaitable, Callable

from lxpy.api.errors import ApiError, BadRequest, Conflict
from lxpy.api.notices import NIC, Notice
from lxpy.api.objects import Network
from lxpy.linux.netns import NetnsThread
from lxpy.networks import config as keys
from lxpy.networks import host, leases, routed, uplinks
from lxpy.networks.dnsmasq import Dnsmasq
from lxpy.networks.nicacls import Nic as NicFilter
from lxpy.networks.nicacls import NicAcls
from lxpy.networks.nicextras import KEYS, Extras
from lxpy.networks.uplinks import Uplinks
from lxpy.networks.watch import Changed, Watch, open_socket
from lxpy.state.store import Store

UNBRIDGED = ("p2p", "routed")  # a veth pair whose other end is an interface of the host


class Nics:
    """Connects instances to networks. Every method belongs to the event loop's thread.

    Args:
        network: the network or host interface of a name; raises `NotFound`.
        server: the DHCP and DNS server of a managed network.
        in_kernel: runs what may wait for the kernel off the event loop.
        filters: the network ACLs of nics.
        extras: their filters, limits, isolation and routes.
        keeper: makes the keeper of those that use an interface of the host.
        warn: told of what went wrong in the background.
    """

    def __init__(
        self,
        store: Store,
        network: Callable[[str], Network],
        server: Callable[[str], Dnsmasq],
        in_kernel: Callable[[Callable[[], None]], Awaitable[None]],
        filters: NicAcls,
        extras: Extras,
        keeper: Callable[[NetnsThread], Uplinks],
        warn: Callable[[str], None],
    ) -> None:
        self._store, self._network, self._server = store, network, server
        self._in_kernel, self._filters, self._extras, self._warn = in_kernel, filters, extras, warn
        self._netns = NetnsThread()
        self._uplinks = keeper(self._netns)
        self._leaving: dict[str, asyncio.Future[None]] = {}

    async def close(self) -> None:
        """Waits for interfaces that are on their way out; those of running instances stay."""
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        self._netns.close()

    async def attach(self, nic: dict[str, str], device: str, instance: str, netns_fd: int) -> str:
        """Puts a nic into an instance's network namespace: a veth pair, its other end in the bridge, both up.

        About 1.2 ms, of which the pair itself takes 0.8.

        Args:
            nic: expanded device: `network`, or `nictype` "bridged" and `parent`, or another
                `nictype`; `name` and `hwaddr` are filled in.

        Returns:
            The name of the host's end; of a macvlan or physical nic its `host_name`, which no interface has.

        Raises:
            BadRequest, NotFound, Conflict: the nic cannot be had as asked for.
        """
        nictype = nic.get("nictype", "bridged")
        if nictype in uplinks.NICTYPES:
            return await self._attach_uplink(nic, device, instance, netns_fd)
        if nictype == "routed":
            routed.check_host(nic, device)
        parent, mtu = ("", int(nic.get("mtu") or 0)) if nictype in UNBRIDGED else self._parent(nic, device)
        guest_name = keys.interface_name(f"name of the nic {device}", nic.get("name") or device)
        hwaddr = keys.mac_address(f"hwaddr of the nic {device}", nic.get("hwaddr", ""))
        wanted = nic.get("host_name", "")
        host_name = keys.interface_name(f"host_name of the nic {device}", wanted) if wanted else random_host_name()
        if (leaving := self._leaving.get(host_name)) is not None:
            await asyncio.wait([leaving])

        # Who is filtered or limited sends nothing before that is in place; others are spared the second hop.
        careful = not KEYS.isdisjoint(nic)

        def connect() -> None:
            if nictype == "routed":
                self._netns.inside(netns_fd, lambda: routed.set_up_guest(nic, guest_name))
            else:
                self._netns.inside(netns_fd, lambda: host.up_here(guest_name))

        def work() -> None:
            host.create_veth(parent, host_name, guest_name, hwaddr, mtu, netns_fd, quiet=nictype != "p2p")
            try:
                if nictype == "routed":
                    routed.set_up_host(nic, host_name)
                if not careful:
                    connect()
            except BaseException:
                host.delete_link(host_name)
                raise

        await self._filter(nic, device, instance, host_name)
        made = False
        try:
            await asyncio.wrap_future(self._netns.submit(work))
            made = True
            await self._extras.apply(nic, device, parent, host_name)
            if careful:
                await asyncio.wrap_future(self._netns.submit(connect))
        except BaseException as error:
            # What was not made here is somebody else's: the name may be taken.
            await (self._remove(host_name) if made else self._filters.detach(host_name))
            if not isinstance(error, OSError):
                raise
            raise host.explained(
                f"Connecting the nic {device} of {instance!r} to {parent or 'the host'}", error
            ) from None
        return host_name

    async def _attach_uplink(self, nic: dict[str, str], device: str, instance: str, netns_fd: int) -> str:
        handle = nic["host_name"]
        netns = os.dup(netns_fd)  # the caller may give up waiting
        try:
            await asyncio.wrap_future(
                self._netns.submit(lambda: self._uplinks.connect(nic, device, instance, handle, netns))
            )
        except OSError as error:
            raise host.explained(f"Connecting the nic {device} of {instance!r} to {nic['parent']}", error) from None
        finally:
            os.close(netns)
        return handle

    async def _filter(self, nic: dict[str, str], device: str, instance: str, host_name: str) -> None:
        """Sets the rules of a nic with ACLs before there is anything to pass. Raises `BadRequest`, `InternalError`."""
        names = keys.words(nic, "security.acls")
        if not names:
            return
        document = self._store.networks.get(nic.get("network", "")) or {"config": {}}
        for name in names:
            if self._store.network_acls.get(name) is None:
                raise BadRequest(f"security.acls of the nic {device}: the network ACL {name!r} does not exist")
        gateways = [
            str(one.ip) for one in (keys.interface4(document["config"]), keys.interface6(document["config"])) if one
        ]
        config = {key: value for key, value in {**document["config"], **nic}.items() if key.startswith("security.acls")}
        await self._filters.attach(host_name, NicFilter(names, config, gateways, f"{instance} {device}"))

    async def change(self, nic: dict[str, str], device: str, host_name: str) -> None:
        """Brings filters, limits, isolation and routes of a connected nic to what it asks for now.

        Raises:
            BadRequest, InternalError: it cannot be had.
        """
        bridge = nic.get("network") or (nic.get("parent", "") if nic.get("nictype") == "bridged" else "")
        try:
            await self._extras.apply(nic, device, bridge, host_name)
        except OSError as error:
            raise host.explained(f"Changing the nic {device}", error) from None

    async def rejoin(self, nic: dict[str, str], device: str, instance: str, host_name: str) -> None:
        """Takes the nic of an instance that an earlier daemon started: its rules, and its place in a bridge that was
        made anew meanwhile."""
        try:
            await self._filter(nic, device, instance, host_name)
        except ApiError as error:
            self._warn(Notice(f"The nic {device} of {instance!r} has no ACLs: {error}", NIC))
        if nic.get("nictype") in uplinks.NICTYPES:
            return
        bridge = nic.get("network") or (nic.get("parent", "") if nic.get("nictype") == "bridged" else "")
        if bridge:
            await self._in_kernel(lambda: host.adopt_ports(bridge, {host_name}))
        try:
            await self._extras.apply(nic, device, bridge, host_name)
        except (ApiError, OSError) as error:
            self._warn(Notice(f"The nic {device} of {instance!r} lacks filters, limits or routes: {error}", NIC))

    async def detach(self, host_name: str, pid: int = 0) -> None:
        """Takes a nic away; idempotent. A veth pair goes in the background: the kernel needs 30 ms for it.

        Args:
            pid: the init of the instance, if that goes on without the nic.
        """
        if uplinks.is_handle(host_name):
            await self._detach_uplink(host_name, pid)
            return
        if host_name in self._leaving:
            return
        future = asyncio.ensure_future(self._remove(host_name))
        self._leaving[host_name] = future

        def done(future: "asyncio.Future[None]") -> None:
            self._leaving.pop(host_name, None)
            if not future.cancelled() and (error := future.exception()):
                self._warn(Notice(f"The interface {host_name!r} could not be removed: {error}", NIC))

        future.add_done_callback(done)

    async def _remove(self, host_name: str) -> None:
        await self._in_kernel(lambda: host.delete_link(host_name))
        await self._filters.detach(host_name)
        await self._extras.remove(host_name)

    async def _detach_uplink(self, handle: str, pid: int) -> None:
        netns = -1
        try:
            if pid:
                netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            said = await asyncio.wrap_future(self._netns.submit(lambda: self._uplinks.disconnect(handle, netns)))
        except (ApiError, OSError) as error:
            said = f"The interface {self._uplinks.shown(handle)!r} could not be taken back: {error}"
        finally:
            if netns >= 0:
                os.close(netns)
        if said:
            self._warn(Notice(said, NIC))

    def connected(self, host_name: str, pid: int) -> bool:
        """Whether a nic that an earlier daemon put into the instance of that init is there."""
        if not uplinks.is_handle(host_name):
            return host.link_exists(host_name)
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._netns.submit(lambda: self._uplinks.connected(host_name, netns)).result()
        finally:
            os.close(netns)

    def shown(self, host_name: str) -> str:
        """The interface of the host that is behind a nic, for users."""
        return self._uplinks.shown(host_name)

    async def sweep(self, used: set[str]) -> None:
        """Gives the host back what no running instance uses any more; `used` are host names."""
        for handle in set(self._uplinks.handles()) - used:
            await self.detach(handle)

    async def gone(self, host_name: str) -> None:
        """Waits for an interface that `detach` takes away."""
        if (leaving := self._leaving.get(host_name)) is not None:
            await asyncio.wait([leaving])

    def reserve(
        self, network: str, instance: str, hwaddr: str, ipv4: str = "", ipv6: str = "", device: str = "",
        alone: bool = False,
    ) -> None:  # fmt: skip
        """Gives a nic its name and, where asked for, its addresses in DHCP and DNS.

        Nothing happens for an unmanaged bridge.

        Args:
            instance: as `leases.holder` has it.
            alone: it is known that no other nic has this hwaddr.

        Raises:
            NotFound: no such network.
            BadRequest: an address that is none, or outside the subnet.
            Conflict: another instance has the address.
        """
        document = self._store.networks.get(network)
        if document is None:
            self._network(network)
            return
        config = document["config"]
        hwaddr = keys.mac_address(f"hwaddr of a nic of {instance}", hwaddr)
        server = self._server(network)
        for other, reservations in () if alone else server.reservations().items():
            # Its bare name: written when the project was not yet part of it.
            if other not in (instance, leases.bare(instance)) and any(one.hwaddr == hwaddr for one in reservations):
                raise Conflict(
                    f"hwaddr={hwaddr}: the address belongs to {leases.bare(other)!r} on network {network!r} already"
                )
        for key, value, interface in (
            ("ipv4.address", ipv4, keys.interface4(config)),
            ("ipv6.address", ipv6, keys.interface6(config)),
        ):
            if value and value != "none":
                _check_static(key, value, network, interface)
                self._check_unused(server, instance, hwaddr, key, value, network)
        server.reserve(instance, device, hwaddr, ipv4 if ipv4 != "none" else "", ipv6 if ipv6 != "none" else "")

    def release(self, network: str, instance: str, device: str = "") -> None:
        """Takes name, addresses and leases of an instance (`leases.holder`), or of one nic of it, away; idempotent."""
        document = self._store.networks.get(network)
        if document is None:
            return
        server = self._server(network)
        gateway = keys.interface4(document["config"])
        macs = {one.hwaddr for one in server.release(instance, device)}
        if gateway is None:
            return
        for lease in server.leases.read():
            if lease.hwaddr in macs and ":" not in lease.address:
                with contextlib.suppress(OSError):
                    leases.send_release(network, str(gateway.ip), lease)

    def watch(self, netns_fd: int, changed: Changed) -> Watch:
        """The interfaces inside a network namespace, kept current; `changed` is called with their new state.

        Raises:
            InternalError: the namespace cannot be entered.
        """
        try:
            netlink = self._netns.submit(lambda: self._netns.inside(netns_fd, open_socket)).result()
        except OSError as error:
            raise host.explained("Watching the network of an instance", error) from None
        return Watch(netlink, changed)

    def _parent(self, nic: dict[str, str], device: str) -> tuple[str, int]:
        """The bridge of a nic, and the MTU it asks for (0: the bridge's)."""
        network, parent, nictype = nic.get("network", ""), nic.get("parent", ""), nic.get("nictype", "")
        mtu = nic.get("mtu", "")
        if mtu and (not mtu.isdigit() or not 68 <= int(mtu) <= 65535):
            raise BadRequest(f"Invalid mtu of the nic {device}: {mtu!r} is not 68 to 65535 bytes")
        if network:
            if nictype or (parent and parent != network):
                raise BadRequest(f"The nic {device} has network as well as nictype or parent: keep one of them")
            self._network(network)
            return network, int(mtu or 0)
        if nictype != "bridged":
            raise BadRequest(f"The nic {device} needs network=NAME, or nictype=bridged and parent=BRIDGE")
        if not parent:
            raise BadRequest(f"The nic {device} has nictype=bridged and no parent: name a bridge of the host")
        return keys.interface_name(f"parent of the nic {device}", parent), int(mtu or 0)

    @staticmethod
    def _check_unused(server: Dnsmasq, instance: str, hwaddr: str, key: str, value: str, network: str) -> None:
        wanted = ipaddress.ip_address(value)
        own = {hwaddr}
        for other, reservations in server.reservations().items():
            if other == instance:
                own.update(one.hwaddr for one in reservations)
                if any(one.ipv6 and ipaddress.ip_address(one.ipv6) == wanted for one in reservations):
                    return  # who has the lease need not be told: the DUIDs of systemd-networkd name no MAC address
            elif any(a and ipaddress.ip_address(a) == wanted for one in reservations for a in (one.ipv4, one.ipv6)):
                if other == leases.bare(instance) and all(one.hwaddr == hwaddr for one in reservations):
                    continue  # its own, written when the project was not yet part of the name
                raise Conflict(
                    f"{key}={value}: the address belongs to {leases.bare(other)!r} on network {network!r} already"
                )
        for lease in server.leases.read():
            alive = lease.expires == 0 or lease.expires > time.time()
            ours = lease.hwaddr in own or (not lease.hwaddr and lease.hostname == leases.bare(instance))
            if alive and not ours and ipaddress.ip_address(lease.address) == wanted:
                holder = repr(lease.hostname) if lease.hostname else lease.hwaddr
                raise Conflict(f"{key}={value}: the address is leased to {holder} on network {network!r} at present")


def random_host_name() -> str:
    """A name for the host's end of a veth pair."""
    return f"veth{random.SystemRandom().getrandbits(32):08x}"


def _check_static(
    key: str, value: str, network: str, interface: "ipaddress.IPv4Interface | ipaddress.IPv6Interface | None"
) -> None:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise BadRequest(f"Invalid value for {key}: {value!r} is not an address") from None
    if interface is None:
        raise BadRequest(f"{key}={value}: the network {network!r} has no such address family")
    if address not in interface.network:
        raise BadRequest(f"{key}={value}: the address is outside of {interface.network}, the subnet of {network!r}")
    if address == interface.ip:
        raise BadRequest(f"{key}={value}: that is the address of {network!r} itself")
