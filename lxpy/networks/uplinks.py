"""Nics made of an interface of the host: macvlan, which stands on it, and physical, which is it.

A physical interface must never be lost. Its network namespace is pinned by a bind mount, which outlives container and
daemon: else the kernel would delete a virtual interface with the namespace, and give a real one back under whatever
name the guest chose. A file says, before anything is done, what is where; from it the next daemon finishes or undoes
what this one did not. On its way the interface is called as the nic's `handle`, a random name that nobody else has.

Everything here runs in the thread that may enter namespaces.
"""

import contextlib
import errno
import json
import os
import random
from typing import TypedDict

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.objects import Config
from lxpy.linux import libc, links, rtnetlink
from lxpy.linux.netns import NetnsThread
from lxpy.linux.rtnetlink import Link, Rtnetlink
from lxpy.networks import host

NICTYPES = ("macvlan", "physical")
_MARK = "_"  # begins every handle; `host_name` of other nics cannot, nor does the kernel make such names
_MS_BIND, _MNT_DETACH = 0x1000, 2


def new_handle(nictype: str) -> str:
    """A name for the host's side of a nic, which no interface there has but on its way."""
    return f"{_MARK}{nictype[:4]}{random.getrandbits(32):08x}"


def is_handle(host_name: str) -> bool:
    return host_name.startswith(_MARK)


class _Record(TypedDict):
    """What is to be given back.

    Attributes:
        link: the interface used: the parent, or a VLAN of it.
        made: it is a VLAN made for this.
        guest: its name inside; `index` there, 0 until it is known.
        whole: it is connected, and nobody has begun to take it back.
        before: of a physical one: what it was on the host.
    """

    kind: str
    instance: str
    device: str
    link: str
    made: bool
    guest: str
    index: int
    whole: bool
    before: "_Before | None"


class _Before(TypedDict):
    mtu: int
    hwaddr: str
    up: bool
    kind: str
    peer: int
    permanent: str


class Uplinks:
    """The macvlan and physical nics of one daemon.

    Args:
        path: the file that remembers them.
        pins: the directory of pinned network namespaces; empty after a reboot of the host.
        netns: the thread in which all of this runs.
    """

    def __init__(self, path: str, pins: str, netns: NetnsThread) -> None:
        self._path, self._pins, self._netns = path, pins, netns
        self._records: dict[str, _Record] = {}
        with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
            self._records = json.load(file)

    def handles(self) -> list[str]:
        return list(self._records)

    def connected(self, handle: str, netns_fd: int) -> bool:
        """Whether the nic of that handle was put into its instance wholly, and is in there."""
        record = self._records.get(handle)
        if record is None or not record["whole"]:
            return False

        def inside() -> bool:
            with Rtnetlink() as there:
                return any(link.ifindex == record["index"] for link in there.links(counters=False))

        return self._netns.inside(netns_fd, inside)

    def shown(self, handle: str) -> str:
        """The host's interface behind a nic, for users."""
        return self._records[handle]["link"] if handle in self._records else handle

    # -- there ---------------------------------------------------------------------------------------------------------

    def connect(self, nic: Config, device: str, instance: str, handle: str, netns_fd: int) -> None:
        """Puts a nic into a network namespace, up.

        Raises:
            BadRequest, NotFound, Conflict: it cannot be had; nothing has changed.
            OSError: the kernel refused; nothing has changed.
        """
        self.disconnect(handle)  # of a start that was cut short
        kind, parent, guest = nic["nictype"], nic["parent"], nic["name"]
        with Rtnetlink() as netlink:
            self._check(netlink, nic, device)
            vlan = int(nic.get("vlan") or 0)
            link_name = f"{parent}.{vlan}" if vlan else parent
            made = bool(vlan) and netlink.link(link_name) is None
            if kind == "physical" and not made:
                self._check_free(netlink, link_name, device)
            record = _Record(
                kind=kind, instance=instance, device=device, link=link_name, guest=guest, index=0, whole=False,
                before=None,
                made=made or any(one["made"] and one["link"] == link_name for one in self._records.values()),
            )  # fmt: skip
            self._remember(handle, record)
            try:
                if made:
                    _make_vlan(netlink, parent, link_name, vlan, device)
                link = netlink.link(link_name)
                assert link is not None
                if kind == "macvlan":
                    self._connect_macvlan(netlink, nic, link, handle, netns_fd)
                else:
                    self._connect_physical(netlink, nic, link, handle, netns_fd)
            except BaseException:
                self.disconnect(handle, netns_fd)
                raise

    def _check(self, netlink: Rtnetlink, nic: Config, device: str) -> None:
        parent = nic["parent"]
        link = netlink.link(parent)
        if link is None:
            holder = next((one for one in self._records.values() if one["link"] == parent and one["before"]), None)
            if holder is not None:
                raise Conflict(
                    f"The parent {parent!r} of the nic {device} is in the instance {holder['instance']!r} at present"
                )
            raise NotFound(f"The parent {parent!r} of the nic {device} does not exist on this host")
        if (mtu := int(nic.get("mtu") or 0)) > link.mtu and nic["nictype"] == "macvlan":
            raise BadRequest(f"mtu={mtu} of the nic {device} is more than the {link.mtu} of its parent {parent!r}")

    def _check_free(self, netlink: Rtnetlink, name: str, device: str) -> None:
        """An interface that moves takes nothing of the host's with it."""
        link = netlink.link(name)
        assert link is not None
        if link.kind in ("bridge", "openvswitch"):
            raise BadRequest(f"The parent {name!r} of the nic {device} is a bridge: use nictype=bridged")
        if link.master:
            raise Conflict(f"The parent {name!r} of the nic {device} is a port of another interface: take it out first")
        if any(one.ifindex == link.ifindex and one.scope < 253 for one in netlink.addresses()):
            raise Conflict(
                f"The parent {name!r} of the nic {device} has addresses of the host, which would lose them: take them "
                "away first, or use nictype=macvlan"
            )
        for other in netlink.links(counters=False):
            if other.peer == link.ifindex and other.peer_netns is None and other.kind in ("macvlan", "vlan"):
                raise Conflict(f"The parent {name!r} of the nic {device} carries {other.name!r}: remove that first")

    def _connect_macvlan(self, netlink: Rtnetlink, nic: Config, link: Link, handle: str, netns_fd: int) -> None:
        guest = nic["name"]
        mtu, mode = int(nic.get("mtu") or 0), nic.get("mode") or "bridge"
        try:
            netlink.call(
                f"macvlan of {link.name}",
                links.new_macvlan(link.ifindex, guest, nic["hwaddr"], mtu, mode, netns_fd),
            )
        except FileExistsError:
            raise Conflict(
                f"An interface {guest!r} in the instance exists already: choose another name for the nic"
            ) from None
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise BadRequest("This kernel has no macvlan (CONFIG_MACVLAN): use a bridge") from None
            if error.errno == errno.EBUSY:
                raise Conflict(
                    f"The parent {link.name!r} is a port of a bridge or carries a macvlan of another mode: use "
                    "nictype=bridged, or another parent"
                ) from None
            raise

        def inside() -> int:
            with Rtnetlink() as there:
                there.call(f"interface {guest}", rtnetlink.link_up(guest))
                found = there.link(guest)
                assert found is not None
                return found.ifindex

        if not link.up:
            netlink.call(f"interface {link.name}", rtnetlink.link_up(link.name))
        index = self._netns.inside(netns_fd, inside)
        self._remember(handle, {**self._records[handle], "index": index, "whole": True})

    def _connect_physical(self, netlink: Rtnetlink, nic: Config, link: Link, handle: str, netns_fd: int) -> None:
        guest = nic["name"]
        before = _Before(
            mtu=link.mtu, hwaddr=link.hwaddr, up=link.up, kind=link.kind, peer=link.peer, permanent=link.permanent
        )
        self._remember(handle, {**self._records[handle], "before": before})
        self._pin(handle, netns_fd)
        netlink.call(
            f"interface {link.name}", rtnetlink.set_link(link.ifindex, up=False), links.rename(link.ifindex, handle)
        )
        try:
            netlink.call(f"interface {link.name}", links.move(link.ifindex, netns_fd))
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise BadRequest(f"The kernel does not let {link.name!r} leave the host's network") from None
            raise

        def inside() -> int:
            with Rtnetlink() as there:
                found = there.link(handle)
                assert found is not None
                hwaddr, mtu = nic.get("hwaddr", ""), int(nic.get("mtu") or 0)
                try:
                    there.call(
                        f"interface {guest}",
                        links.rename(found.ifindex, guest),
                        rtnetlink.set_link(found.ifindex, hwaddr=hwaddr, mtu=mtu),
                        rtnetlink.set_link(found.ifindex, up=True),
                    )
                except FileExistsError:
                    raise Conflict(
                        f"An interface {guest!r} in the instance exists already: choose another name for the nic"
                    ) from None
                return found.ifindex

        index = self._netns.inside(netns_fd, inside)
        self._remember(handle, {**self._records[handle], "index": index, "whole": True})

    # -- and back ------------------------------------------------------------------------------------------------------

    def disconnect(self, handle: str, netns_fd: int = -1) -> str:
        """Gives back what a nic took; idempotent.

        Args:
            netns_fd: the instance's network namespace where it lives on; a physical interface is found without.

        Returns:
            What the user has to know, else "".
        """
        record = self._records.get(handle)
        if record is None:
            return ""
        said = ""
        self._remember(handle, {**record, "whole": False})
        if record["kind"] == "macvlan":
            if netns_fd >= 0:
                self._netns.inside(netns_fd, lambda: _delete_macvlan(record))
        elif record["before"] is not None:
            said = self._take_back(handle, record, record["before"])
            self._unpin(handle)
        if record["made"] and not any(
            one["link"] == record["link"] for name, one in self._records.items() if name != handle
        ):
            host.delete_link(record["link"])
        self._remember(handle, None)
        return said

    def _take_back(self, handle: str, record: _Record, before: _Before) -> str:
        name = record["link"]
        with Rtnetlink() as netlink:
            link = netlink.link(handle)
            if link is None:
                self._fetch(handle, record, before)
                link = netlink.link(handle)
            if link is None and before["permanent"] and netlink.link(name) is None:
                # Real hardware whose namespace ended elsewhere, say in a container of the guest's: the kernel gave it
                # back by a name of its own.
                every = netlink.links(counters=False)
                link = next((one for one in every if one.permanent == before["permanent"] and not one.kind), None)
            if link is None:
                link = netlink.link(name)
                if link is None:
                    return (
                        f"The interface {name!r} did not come back: the instance {record['instance']!r} has deleted it"
                    )
                # It never left, or is back already, but perhaps not as it was: a kill comes between two changes.
                same = (link.kind, link.peer, link.permanent) == (before["kind"], before["peer"], before["permanent"])
                if not same or (link.hwaddr, link.mtu, link.up) == (before["hwaddr"], before["mtu"], before["up"]):
                    return ""
            netlink.call(
                f"interface {name}",
                rtnetlink.set_link(link.ifindex, up=False),
                rtnetlink.set_link(link.ifindex, hwaddr=before["hwaddr"], mtu=before["mtu"]),
            )
            said = ""
            try:
                if link.name != name:
                    netlink.call(f"interface {name}", links.rename(link.ifindex, name))
            except FileExistsError:
                said = f"The interface {name!r} is back as {link.name!r}: another interface has its name by now"
            if before["up"]:
                netlink.call(f"interface {name}", rtnetlink.set_link(link.ifindex, up=True))
            return said

    def _fetch(self, handle: str, record: _Record, before: _Before) -> None:
        """Brings the interface from the pinned namespace to the host, named as the handle."""
        try:
            pinned = os.open(self._pin_path(handle), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return

        def inside() -> None:
            with Rtnetlink() as there:
                for link in there.links(counters=False):
                    if link.ifindex == record["index"] or link.name in (handle, record["guest"]):
                        # The guest's root may have put something of its own in that place.
                        same = (link.kind, link.peer, link.permanent) == (
                            before["kind"], before["peer"], before["permanent"],
                        )  # fmt: skip
                        if not same or (link.kind and link.peer and link.peer_netns is None):
                            continue
                        there.call(
                            f"interface {record['link']}",
                            rtnetlink.set_link(link.ifindex, up=False),
                            *([links.rename(link.ifindex, handle)] if link.name != handle else []),
                        )
                        there.call(f"interface {record['link']}", links.move(link.ifindex, self._netns.home))

        try:
            # Else it is the empty file, whose mount a reboot or a kill before the mount took away.
            if os.fstat(pinned).st_dev == os.stat("/proc/self/ns/net").st_dev:
                self._netns.inside(pinned, inside)
        finally:
            os.close(pinned)

    # -- pins and records ----------------------------------------------------------------------------------------------

    def _pin_path(self, handle: str) -> str:
        return f"{self._pins}/{handle}"

    def _pin(self, handle: str, netns_fd: int) -> None:
        os.makedirs(self._pins, mode=0o700, exist_ok=True)
        with open(self._pin_path(handle), "w", encoding="ascii"):
            pass
        libc.mount(f"/proc/self/fd/{netns_fd}", self._pin_path(handle), "", _MS_BIND)

    def _unpin(self, handle: str) -> None:
        with contextlib.suppress(OSError):
            libc.umount2(self._pin_path(handle), _MNT_DETACH)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._pin_path(handle))

    def _remember(self, handle: str, record: _Record | None) -> None:
        if record is not None:
            self._records[handle] = record
        else:
            self._records.pop(handle, None)
        with open(f"{self._path}.new", "w", encoding="utf-8") as file:
            json.dump(self._records, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{self._path}.new", self._path)


def _make_vlan(netlink: Rtnetlink, parent: str, name: str, vlan: int, device: str) -> None:
    base = netlink.link(parent)
    assert base is not None
    if len(name) > 15:
        raise BadRequest(f"vlan={vlan} of the nic {device}: {name!r} is too long for the name of an interface")
    try:
        if not base.up:
            netlink.call(f"interface {parent}", rtnetlink.link_up(parent))
        netlink.call(f"VLAN {name}", links.new_vlan(base.ifindex, name, vlan))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            raise BadRequest(
                f"vlan={vlan} of the nic {device}: this kernel has no VLANs (CONFIG_VLAN_8021Q, module 8021q)"
            ) from None
        raise


def _delete_macvlan(record: _Record) -> None:
    with Rtnetlink() as there:
        for link in there.links(counters=False):
            known = link.ifindex == record["index"] if record["index"] else link.name == record["guest"]
            if known and link.kind == "macvlan":
                there.call(f"interface {link.name}", rtnetlink.delete_link(link.name))
