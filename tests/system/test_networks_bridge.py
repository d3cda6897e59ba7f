"""The network manager on the real kernel, without a daemon: guests are bare network namespaces with busybox."""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.layout import Layout
from lxpy.api.objects import NetworkState
from lxpy.linux import libc, namespaces
from lxpy.networks.manager import NetworkManager
from lxpy.networks.watch import Watch
from lxpy.state.store import Store
from tests.support import namespace

BRIDGE = "lxnet0"
SUBNET = "10.98.7"
CONFIG = {
    "ipv4.address": f"{SUBNET}.1/24", "ipv4.nat": "true",
    "ipv6.address": "fd42:98:7::1/64", "ipv6.nat": "true",
}  # fmt: skip
SCRIPT = """#!/bin/sh
case $1 in bound|renew)
  ip addr replace "$ip/$mask" dev "$interface"
  ip route replace default via "$router"
esac
"""


@pytest.fixture(scope="module", autouse=True)
def own_network() -> Iterator[None]:
    """A network of this module's own: what it counts must not be another test's containers."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc.unshare(libc.CLONE_NEWNET)
    namespaces.loopback_up()
    yield
    libc.setns(home, libc.CLONE_NEWNET)
    os.close(home)


class Guest:
    """A network namespace with a nic on the bridge."""

    def __init__(self, lab: "Lab", name: str, hwaddr: str) -> None:
        self.lab, self.name, self.hwaddr = lab, name, hwaddr
        self.netns = _new_netns()
        self.host_name = ""
        self.watch: Watch | None = None
        self.seen = asyncio.Event()

    async def connect(self, ipv4: str = "", ipv6: str = "", **nic: str) -> None:
        manager = self.lab.manager
        manager.nics.reserve(BRIDGE, self.name, self.hwaddr, ipv4, ipv6)
        device = {"type": "nic", "network": BRIDGE, "name": "eth0", "hwaddr": self.hwaddr, **nic}
        self.host_name = await manager.nics.attach(device, "eth0", self.name, self.netns)
        self.watch = manager.nics.watch(self.netns, self._changed)

    @property
    def state(self) -> dict[str, NetworkState]:
        assert self.watch
        return self.watch.state

    def _changed(self, state: dict[str, NetworkState]) -> None:
        if _address(state, "inet"):
            self.seen.set()

    def run(self, *command: str) -> "asyncio.Future[str]":
        line = ["nsenter", f"--net=/proc/self/fd/{self.netns}", *command]

        def work() -> str:
            done = subprocess.run(
                line, pass_fds=[self.netns], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=30
            )
            return done.stdout.decode(errors="replace")

        return asyncio.get_running_loop().run_in_executor(None, work)

    async def dhcp(self, *options: str) -> str:
        """Asks for an address; the one it got."""
        await self.run("busybox", "udhcpc", "-i", "eth0", "-nqf", "-t5", "-T1", "-s", self.lab.script, *options)
        await asyncio.wait_for(self.seen.wait(), 15)
        assert self.watch
        return _address(self.watch.state, "inet")

    async def lookup(self, name: str) -> str:
        return await self.run("busybox", "nslookup", "-type=a", name, f"{SUBNET}.1")

    async def gone(self) -> None:
        if self.watch:
            self.watch.close()
        if self.host_name:
            await self.lab.manager.nics.detach(self.host_name)
        os.close(self.netns)


class Lab:
    """A network manager with its own directory, and its guests."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.layout = Layout(str(directory))
        self.store = Store(self.layout.database)
        self.events: list[str] = []
        self.warnings: list[str] = []
        self.guests: list[Guest] = []
        self.script = str(directory / "udhcpc.sh")
        pathlib.Path(self.script).write_text(SCRIPT)
        pathlib.Path(self.script).chmod(0o755)
        self.manager = self.new_manager()

    def new_manager(self) -> NetworkManager:
        return NetworkManager(
            self.store, self.layout, lambda action, *_: self.events.append(action), self.warnings.append
        )

    async def guest(self, instance: str, ipv4: str = "", ipv6: str = "", **nic: str) -> Guest:
        guest = Guest(self, instance, f"00:16:3e:98:07:{len(self.guests):02x}")
        self.guests.append(guest)
        await guest.connect(ipv4, ipv6, **nic)
        return guest

    @property
    def dnsmasq_pid(self) -> int:
        return int((pathlib.Path(self.layout.networks) / BRIDGE / "dnsmasq.pid").read_text())


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    directory = namespace.run_dir(f"net{time.monotonic_ns() % 10**9}")
    lab = Lab(directory)
    await lab.manager.start()
    try:
        yield lab
    finally:
        for guest in lab.guests:
            await guest.gone()
        for name in lab.store.networks.all():
            await lab.manager.delete(name)
        await lab.manager.close()
        lab.store.close()
    assert not _links("lx") and not _links("veth")
    assert lab.layout.nft_table not in _nft()
    assert not [line for line in _command_lines() if str(directory) in line]


@pytest_asyncio.fixture
async def bridge(lab: Lab) -> Lab:
    await lab.manager.create(BRIDGE, "bridge", dict(CONFIG), "test")
    return lab


async def test_address_arrives_and_names_resolve(bridge: Lab) -> None:
    one = await bridge.guest("one")
    two = await bridge.guest("two", ipv4=f"{SUBNET}.77")
    address = await one.dhcp()
    assert address.startswith(f"{SUBNET}.")
    assert await two.dhcp() == f"{SUBNET}.77"
    assert address in await two.lookup("one")
    assert address in await two.lookup("one.lxpy")
    assert f"{SUBNET}.77" in await one.lookup("two")
    rows = {lease["hostname"]: lease for lease in bridge.manager.leases(BRIDGE)}
    assert rows["one"]["address"] == address and rows["one"]["type"] == "dynamic"
    assert rows["one"]["hwaddr"] == one.hwaddr
    assert rows["two"]["type"] == "static"
    assert rows[f"{BRIDGE}.gw"]["type"] == "gateway"


async def test_watch_sees_an_address_at_once(bridge: Lab) -> None:
    guest = await bridge.guest("quick")
    await guest.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    await asyncio.wait_for(guest.seen.wait(), 10)
    state = guest.state["eth0"]
    assert (state["hwaddr"], state["mtu"], state["state"], state["type"]) == (guest.hwaddr, 1500, "up", "broadcast")
    await guest.run("ip", "addr", "del", "192.0.2.9/24", "dev", "eth0")
    await _until(lambda: not _address(guest.state, "inet"))
    await guest.run("ip", "link", "set", "eth0", "name", "other")
    await _until(lambda: "other" in guest.state and "eth0" not in guest.state)


async def test_watch_recovers_from_lost_notifications(bridge: Lab) -> None:
    guest = await bridge.guest("noisy")
    batch = "\n".join(f"addr add 10.200.{n // 250}.{n % 250 + 1}/32 dev eth0" for n in range(2000))
    path = pathlib.Path(bridge.layout.root) / "batch"
    path.write_text(batch + "\n")
    line = ["nsenter", f"--net=/proc/self/fd/{guest.netns}", "ip", "-batch", str(path)]
    # In this thread, so that the loop cannot read meanwhile and the socket overflows.
    _command(*line, fd=guest.netns)
    await _until(lambda: _count(guest.state) == 2000)


async def test_router_advertisement_gives_ipv6(bridge: Lab) -> None:
    guest = await bridge.guest("six")
    await _until(lambda: any(a["address"].startswith("fd42:98:7:") for a in _all(guest.watch)), seconds=8)


async def test_counters_on_demand(bridge: Lab) -> None:
    guest = await bridge.guest("busy")
    await guest.dhcp()
    assert guest.watch
    guest.watch.refresh()
    assert guest.watch.state["eth0"]["counters"]["bytes_sent"] > 0
    assert bridge.manager.state(BRIDGE)["counters"]["bytes_received"] > 0


async def test_what_attach_makes(bridge: Lab) -> None:
    guest = await bridge.guest("nic", host_name="lxhost0", mtu="1400")
    # Looked at by pyroute2, which knows nothing of our encoder; in a thread, as it brings its own event loop.
    await asyncio.to_thread(_check_by_pyroute2)
    inside = json.loads(await guest.run("ip", "-j", "link", "show", "eth0"))[0]
    assert (inside["address"], inside["mtu"]) == (guest.hwaddr, 1400) and "UP" in inside["flags"]
    assert bridge.manager.state(BRIDGE)["bridge"]["upper_devices"] == ["lxhost0"]
    with pytest.raises(Conflict, match="lxhost0"):
        other = await bridge.guest("nic2", host_name="lxhost0")
        assert other
    await bridge.manager.nics.detach("lxhost0")
    await bridge.manager.nics.detach("lxhost0")
    await _until(lambda: not _links("lxhost"))


async def test_attach_to_a_bridge_of_the_host(bridge: Lab) -> None:
    _command("ip", "link", "add", "lxforeign", "type", "bridge")
    try:
        guest = await bridge.guest("own", network="", nictype="bridged", parent="lxforeign")
        assert bridge.manager.state("lxforeign")["bridge"]["upper_devices"] == [guest.host_name]
        assert bridge.manager.get("lxforeign")["managed"] is False
        bridge.manager.nics.reserve("lxforeign", "own", guest.hwaddr, "", "")
        names = {network["name"]: network["type"] for network in bridge.manager.list()}
        assert names["lxforeign"] == "bridge" and names["lo"] == "loopback" and guest.host_name not in names
    finally:
        _command("ip", "link", "del", "lxforeign")


@pytest.mark.parametrize(
    ("nic", "error"),
    [
        ({"network": "absent"}, NotFound),
        ({"network": "", "nictype": "bridged", "parent": "absent"}, NotFound),
        ({"network": "", "nictype": "bridged", "parent": "eth9/.."}, BadRequest),
        ({"network": "", "nictype": "bridged", "parent": "ifless", "mtu": "x"}, BadRequest),
        ({"network": "", "nictype": "ipvlan", "parent": BRIDGE}, BadRequest),
        ({"network": "", "nictype": "bridged"}, BadRequest),
        ({"name": "far-too-long-a-name"}, BadRequest),
        ({"hwaddr": "nonsense"}, BadRequest),
        ({"host_name": "a/b"}, BadRequest),
    ],
)
async def test_bad_nic(bridge: Lab, nic: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        await bridge.guest("bad", **nic)
    assert "\n" not in str(caught.value)
    assert not _links("veth")


async def test_static_addresses_are_checked(bridge: Lab) -> None:
    reserve = bridge.manager.nics.reserve
    reserve(BRIDGE, "one", "00:16:3e:00:00:01", f"{SUBNET}.50", "fd42:98:7::50")
    for address in (f"{SUBNET}.1", "10.1.1.1", "nonsense"):
        with pytest.raises(BadRequest):
            reserve(BRIDGE, "two", "00:16:3e:00:00:02", address, "")
    with pytest.raises(Conflict, match="one"):
        reserve(BRIDGE, "two", "00:16:3e:00:00:02", f"{SUBNET}.50", "")
    with pytest.raises(Conflict, match="one"):
        reserve(BRIDGE, "two", "00:16:3e:00:00:02", "", "fd42:98:7:0::50")
    bridge.manager.nics.release(BRIDGE, "one")
    bridge.manager.nics.release(BRIDGE, "one")
    reserve(BRIDGE, "two", "00:16:3e:00:00:02", f"{SUBNET}.50", "")


async def test_release_gives_the_lease_back(bridge: Lab) -> None:
    guest = await bridge.guest("brief")
    address = await guest.dhcp()
    bridge.manager.nics.release(BRIDGE, "brief")
    await _until(lambda: address not in {lease["address"] for lease in bridge.manager.leases(BRIDGE)})
    again = await bridge.guest("brief", ipv4=address)
    assert await again.dhcp() == address
    assert address in await again.lookup("brief")


async def test_a_guest_cannot_take_another_name(bridge: Lab) -> None:
    honest = await bridge.guest("honest")
    address = await honest.dhcp()
    liar = await bridge.guest("liar")
    await liar.dhcp("-x", "hostname:honest")
    answer = await liar.lookup("honest")
    assert address in answer and _address(liar.state, "inet") not in answer
    await liar.dhcp("-x", "hostname:invented")
    assert "NXDOMAIN" in await liar.lookup("invented.lxpy")


async def test_rules_are_there_and_come_back(bridge: Lab) -> None:
    table = bridge.layout.nft_table
    assert f"ip saddr {SUBNET}.0/24 ip daddr != {SUBNET}.0/24 masquerade" in _nft()
    before = _nft()
    await bridge.manager.start()
    assert _nft() == before
    _command("nft", "delete", "table", "inet", table)
    await bridge.manager.start()
    assert _nft() == before
    assert pathlib.Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    assert not bridge.warnings


async def test_docker_is_told_to_let_us_through(lab: Lab) -> None:
    docker = "table ip filter {\n chain DOCKER-USER {\n counter return\n }\n}\n"
    _command("nft", "-f", "-", text=docker)
    try:
        await lab.manager.create(BRIDGE, "", dict(CONFIG), "")
        for _ in range(2):
            rules = _command("nft", "list", "chain", "ip", "filter", "DOCKER-USER")
            assert rules.count(BRIDGE) == 4 and rules.index("accept") < rules.index("return")  # name and comment
            await lab.manager.start()
        await lab.manager.delete(BRIDGE)
        assert BRIDGE not in _nft()
    finally:
        _command("nft", "delete", "table", "ip", "filter")


async def test_dnsmasq_is_adopted(bridge: Lab) -> None:
    guest = await bridge.guest("stays")
    pid = bridge.dnsmasq_pid
    # What a killed daemon leaves: everything runs, nobody looks after it.
    await bridge.manager.close()
    bridge.manager = bridge.new_manager()
    await bridge.manager.start()
    assert bridge.dnsmasq_pid == pid
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: _pid_or_zero(bridge) not in (0, pid))
    assert len(bridge.warnings) == 1 and BRIDGE in bridge.warnings[0]
    assert (await guest.dhcp()).startswith(SUBNET)


async def test_dnsmasq_killed_while_nobody_looked(bridge: Lab) -> None:
    pid = bridge.dnsmasq_pid
    await bridge.manager.close()
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: not any(bridge.layout.root in line for line in _command_lines()))
    bridge.manager = bridge.new_manager()
    await bridge.manager.start()
    assert bridge.dnsmasq_pid != pid
    # A start that was cut short before the pid file was written.
    await bridge.manager.close()
    (pathlib.Path(bridge.layout.networks) / BRIDGE / "dnsmasq.pid").unlink()
    bridge.manager = bridge.new_manager()
    await bridge.manager.start()
    assert not bridge.warnings
    assert (await (await bridge.guest("works")).dhcp()).startswith(SUBNET)


async def test_everything_returns_after_a_reboot(bridge: Lab) -> None:
    hwaddr = bridge.manager.state(BRIDGE)["hwaddr"]
    pid = bridge.dnsmasq_pid
    await bridge.manager.close()
    os.kill(pid, signal.SIGKILL)
    await _until(lambda: not any(bridge.layout.root in line for line in _command_lines()))
    _command("ip", "link", "del", BRIDGE)
    _command("nft", "delete", "table", "inet", bridge.layout.nft_table)
    bridge.manager = bridge.new_manager()
    await bridge.manager.start()
    assert bridge.manager.state(BRIDGE)["hwaddr"] == hwaddr
    assert (await (await bridge.guest("back")).dhcp()).startswith(SUBNET)
    assert "masquerade" in _nft()


async def test_automatic_subnet_avoids_routes(lab: Lab) -> None:
    routes = [f"route add blackhole 10.{n}.0.0/16" for n in range(256) if n != 123]
    _command("ip", "-batch", "-", text="\n".join(routes) + "\n")
    try:
        await lab.manager.create(BRIDGE, "", {}, "")
        config = lab.manager.get(BRIDGE)["config"]
        assert config["ipv4.address"].startswith("10.123.")
        assert config["ipv4.nat"] == "true" and config["ipv6.address"].startswith("fd42:")
        assert set(config) == {"ipv4.address", "ipv4.nat", "ipv6.address", "ipv6.nat"}
    finally:
        routes = [line.replace("add", "del") for line in routes]
        _command("ip", "-batch", "-", text="\n".join(routes) + "\n")


async def test_create_refused_changes_nothing(bridge: Lab) -> None:
    _command("ip", "link", "add", "lxtaken", "type", "veth", "peer", "name", "lxtaken1")
    before = (_links("lx"), _nft())
    cases: list[tuple[str, dict[str, str], type[Exception]]] = [
        ("a-name-that-is-too-long", {}, BadRequest),
        (BRIDGE, {}, Conflict),
        ("lxtaken", {}, Conflict),
        ("lxnew", {"no.such": "key"}, BadRequest),
        ("lxnew", {"ipv4.address": f"{SUBNET}.9/25"}, Conflict),
        ("lxnew", {"raw.dnsmasq": "no-such-option"}, BadRequest),
    ]
    try:
        for name, config, error in cases:
            with pytest.raises(error) as caught:
                await bridge.manager.create(name, "bridge", config, "")
            assert "\n" not in str(caught.value)
            assert (_links("lx"), _nft()) == before, name
        with pytest.raises(BadRequest):
            await bridge.manager.create("lxnew", "ovn", {}, "")
        assert [*bridge.store.networks.all()] == [BRIDGE]
        assert os.listdir(bridge.layout.networks).count("lxnew") == 0
    finally:
        _command("ip", "link", "del", "lxtaken")


async def test_create_cut_short_by_a_crash(lab: Lab) -> None:
    for by_start in (True, False):
        await lab.manager.create(BRIDGE, "", dict(CONFIG), "")
        pid = lab.dnsmasq_pid
        await lab.manager.close()
        lab.store.networks.delete(BRIDGE)  # the row is written last
        lab.manager = lab.new_manager()
        if by_start:
            await lab.manager.start()
            assert not _links(BRIDGE) and len(lab.warnings) == 1
        await lab.manager.create(BRIDGE, "", dict(CONFIG), "")
        assert lab.dnsmasq_pid != pid
        await lab.manager.delete(BRIDGE)


async def test_update_and_failed_update(bridge: Lab) -> None:
    guest = await bridge.guest("moves")
    new = {**CONFIG, "ipv4.address": "10.98.8.1/24", "dns.domain": "corp.example", "ipv6.address": "none"}
    await bridge.manager.update(BRIDGE, new, "moved")
    addresses = {one["address"] for one in bridge.manager.state(BRIDGE)["addresses"]}
    assert addresses == {"10.98.8.1"}
    assert (await guest.dhcp()).startswith("10.98.8.")
    assert "moves.corp.example" in await guest.run("busybox", "nslookup", "-type=a", "moves.corp.example", "10.98.8.1")
    with pytest.raises(BadRequest, match=r"raw\.dnsmasq"):
        await bridge.manager.update(BRIDGE, {**new, "ipv4.address": "10.98.9.1/24", "raw.dnsmasq": "nonsense"}, "")
    assert bridge.manager.get(BRIDGE)["config"]["ipv4.address"] == "10.98.8.1/24"
    assert {one["address"] for one in bridge.manager.state(BRIDGE)["addresses"]} == {"10.98.8.1"}
    assert "10.98.9" not in _nft() and "10.98.8.0/24" in _nft()
    assert os.path.exists(f"/proc/{bridge.dnsmasq_pid}")
    assert not bridge.warnings


async def test_delete(bridge: Lab) -> None:
    bridge.manager.used_by = lambda name: ["/1.0/profiles/default"] if name == BRIDGE else []
    with pytest.raises(Conflict, match="profiles/default"):
        await bridge.manager.delete(BRIDGE)
    bridge.manager.used_by = lambda _name: []
    await bridge.manager.delete(BRIDGE)
    with pytest.raises(NotFound):
        await bridge.manager.delete(BRIDGE)
    with pytest.raises(BadRequest, match="not managed"):
        await bridge.manager.delete("lo")
    assert bridge.events == ["network-created", "network-deleted"]


async def test_twenty_at_once(bridge: Lab) -> None:
    guests = await asyncio.gather(*(bridge.guest(f"many{n}") for n in range(20)))
    assert len(_links("veth")) == 20
    addresses = await asyncio.gather(*(guest.dhcp() for guest in guests))
    assert len(set(addresses)) == 20


def _check_by_pyroute2() -> None:
    from pyroute2.iproute import IPRoute

    with IPRoute() as route:
        bridge = route.link_lookup(ifname=BRIDGE)[0]
        ours = route.get_links(ifname="lxhost0")[0]
        assert ours.get("master") == bridge
        assert ours["flags"] & 1 and ours.get("mtu") == 1400
        assert not list(route.get_addr(index=ours["index"]))
        addresses = {one.get("address") for one in route.get_addr(index=bridge)}
        assert {f"{SUBNET}.1", "fd42:98:7::1"} <= addresses


def _command(*line: str, text: str = "", fd: int = -1) -> str:
    """Runs a command and blocks the event loop meanwhile, which some tests want."""
    return subprocess.run(
        line, input=text, text=True, stdout=subprocess.PIPE, check=True, pass_fds=[fd] if fd >= 0 else []
    ).stdout


def _new_netns() -> int:
    """A new network namespace, its lo up, by a thread of its own (it ends there)."""
    import concurrent.futures

    from lxpy.linux.namespaces import loopback_up

    def work() -> int:
        libc.unshare(libc.CLONE_NEWNET)
        loopback_up()
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


async def _until(condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(0.01)


def _address(state: dict[str, NetworkState], family: str) -> str:
    found = state["eth0"]["addresses"] if "eth0" in state else []
    return next((address["address"] for address in found if address["family"] == family), "")


def _all(watch: Watch | None) -> list[Any]:
    return [address for one in watch.state.values() for address in one["addresses"]] if watch else []


def _count(state: dict[str, NetworkState]) -> int:
    return sum(1 for address in state["eth0"]["addresses"] if address["family"] == "inet")


def _links(prefix: str) -> list[str]:
    links = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)
    return sorted(link["ifname"] for link in links if link["ifname"].startswith(prefix))


def _nft() -> str:
    return subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def _command_lines() -> list[str]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return [line for line in found if line.startswith("dnsmasq")]


def _pid_or_zero(lab: Lab) -> int:
    try:
        return lab.dnsmasq_pid
    except (OSError, ValueError):
        return 0
