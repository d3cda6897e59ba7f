"""Nics of type macvlan and physical: the host's own interfaces, which must never get lost."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.outside import Outside

MAC = "02:00:5e:10:00:01"


@pytest.fixture
def outside(lxpyd: Lxpyd) -> Iterator[Outside]:
    """A link of the host that is up, has an MTU and a MAC address of its own, and no address."""
    one = Outside("up", lxpyd.number + 171)
    _host("ip", "addr", "flush", "dev", one.link)
    _host("ip", "link", "set", one.link, "address", MAC, "mtu", "1490")
    yield one
    one.close()


def _host(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _link(name: str) -> dict[str, Any]:
    shown = subprocess.run(["ip", "-j", "link", "show", "dev", name], capture_output=True, text=True, check=False)
    found: dict[str, Any] = json.loads(shown.stdout)[0] if shown.returncode == 0 else {}
    return found


def _is_back(name: str) -> bool:
    link = _link(name)
    return bool(link) and (link["address"], link["mtu"], "UP" in link["flags"]) == (MAC, 1490, True)


def _clean(lxpyd: Lxpyd) -> bool:
    pins = f"{lxpyd.layout.run}/netns"
    record = f"{lxpyd.layout.networks}/uplinks.json"
    with open(record, encoding="utf-8") as file:
        return json.load(file) == {} and not (os.path.isdir(pins) and os.listdir(pins))


def _reached(lxpyd: Lxpyd, name: str, target: str) -> bool:
    return lxpyd.sh(name, f"ping -c1 -W1 {target}", check=False).returncode == 0


def test_macvlan(lxpyd: Lxpyd, outside: Outside, name: str) -> None:
    nic = ("nic", "nictype=macvlan", f"parent={outside.link}", "name=eth1", "hwaddr=00:16:3e:01:02:03", "mtu=1400")
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("config", "device", "add", name, "m", *nic)
    lxpyd.cli("start", name)
    seen = lxpyd.sh(name, f"cat /sys/class/net/eth1/address /sys/class/net/eth1/mtu; {_address(outside)}").stdout
    assert seen.split() == ["00:16:3e:01:02:03", "1400"]
    until(lambda: _reached(lxpyd, name, outside.there), 5, "the neighbour is not reached")
    assert lxpyd.json("query", f"/1.0/instances/{name}/state")["network"]["eth1"]["host_name"] == outside.link
    twice = lxpyd.cli("config", "device", "add", name, "n", *nic, check=False)
    assert twice.returncode == 1 and "'eth1'" in twice.stderr and len(twice.stderr.splitlines()) == 1
    lxpyd.cli("config", "device", "add", name, "n", *nic[:3], "name=eth2", "mode=bridge")
    lxpyd.restart(kill=True)
    assert _reached(lxpyd, name, outside.there)
    lxpyd.sh(name, "ip link set eth2 down; ip link set eth2 name other")  # a guest's whim
    lxpyd.cli("config", "device", "remove", name, "n")
    assert lxpyd.sh(name, "ls /sys/class/net").stdout.split() == ["eth0", "eth1", "lo"]
    lxpyd.cli("stop", "-f", name)
    assert _clean(lxpyd)
    lxpyd.cli("start", name)
    assert "eth1" in lxpyd.sh(name, "ls /sys/class/net").stdout


def _address(outside: Outside) -> str:
    return f"ip addr add {outside.here.rpartition('.')[0]}.9/24 dev eth1"


def test_a_physical_interface_comes_back(lxpyd: Lxpyd, outside: Outside, name: str) -> None:
    """At stop, when it is unplugged, after the end of the container, and when nobody looked: as it was."""
    link = outside.link
    nic = ("nic", "nictype=physical", f"parent={link}", "name=eth1", "hwaddr=02:00:5e:10:00:02", "mtu=1300")
    lxpyd.cli("launch", "bb", name)
    lxpyd.cli("config", "device", "add", name, "p", *nic)
    seen = lxpyd.sh(name, f"cat /sys/class/net/eth1/address /sys/class/net/eth1/mtu; {_address(outside)}").stdout
    assert seen.split() == ["02:00:5e:10:00:02", "1300"] and not _link(link)
    until(lambda: _reached(lxpyd, name, outside.there), 5, "the neighbour is not reached")
    other = f"{name}-o"
    lxpyd.cli("init", "bb", other)
    lxpyd.cli("config", "device", "add", other, "p", *nic)
    refused = lxpyd.cli("start", other, check=False)
    assert refused.returncode == 1 and f"in the instance {name!r}" in refused.stderr
    lxpyd.restart(kill=True)
    assert _reached(lxpyd, name, outside.there)
    lxpyd.sh(name, "ip link set eth1 down; ip link set eth1 name mine")
    lxpyd.cli("config", "device", "remove", name, "p")
    assert _is_back(link) and _clean(lxpyd)
    lxpyd.cli("config", "device", "add", name, "p", *nic)
    lxpyd.cli("restart", "-f", name)
    assert "eth1" in lxpyd.sh(name, "ls /sys/class/net").stdout
    lxpyd.cli("stop", "-f", name)
    assert _is_back(link) and _clean(lxpyd)
    # the container crashes
    lxpyd.cli("start", name)
    os.kill(lxpyd.init_pid(name), signal.SIGKILL)
    until(lambda: _is_back(link), 5, "it is not back after a crash")
    # with the daemon dead, and its supervisor too
    for both in (False, True):
        until(lambda: lxpyd.status(name) == "STOPPED", 5, "not stopped")
        lxpyd.cli("start", name)
        pid = lxpyd.init_pid(name)
        supervisor = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        lxpyd.kill()
        if both:
            os.kill(supervisor, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: not os.path.exists(f"/proc/{pid}"), 5, "it lives on")  # type: ignore[misc]
        assert not _link(link)
        lxpyd.start()
        until(lambda: _is_back(link) and _clean(lxpyd), 5, "it is lost")


def test_a_guest_cannot_foist_another_interface_on_the_host(lxpyd: Lxpyd, outside: Outside, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.cli("config", "device", "add", name, "p", "nic", "nictype=physical", f"parent={outside.link}", "name=eth1")
    netns = f"--net=/proc/{lxpyd.init_pid(name)}/ns/net"
    index = json.loads(_host("nsenter", netns, "ip", "-j", "link", "show", "eth1"))[0]["ifindex"]
    _host("nsenter", netns, "ip", "link", "del", "eth1")
    _host("nsenter", netns, "ip", "link", "add", "eth1", "index", str(index), "type", "veth", "peer",
          "name", "trap", "index", "900")  # fmt: skip
    lxpyd.cli("stop", "-f", name)
    assert not _link(outside.link) and _clean(lxpyd)
    warnings = lxpyd.json("query", "/1.0/warnings?recursion=1")
    assert any(f"{outside.link!r} did not come back" in one["last_message"] for one in warnings)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("nictype=macvlan",), "Missing parent"),
        (("nictype=macvlan", "parent=lxnone"), "'lxnone' of the nic bad does not exist"),
        (("nictype=macvlan", "parent=lo"), "loopback"),
        (("nictype=macvlan", "parent=LINK", "mtu=1500"), "more than the 1490"),
        (("nictype=macvlan", "parent=LINK", "mode=l3"), "Invalid mode 'l3'"),
        (("nictype=macvlan", "parent=LINK", "gvrp=true"), "announces no VLANs"),
        (("nictype=macvlan", "parent=LINK", "limits.max=1Mbit"), "'limits.max'"),
        (("nictype=physical", "parent=LINK", "host_name=x"), "'host_name'"),
        (("nictype=physical", "parent=BRIDGE"), "is a bridge"),
        (("nictype=physical", "parent=LINK", "name=eth0"), "'eth0'"),
    ],
)
def test_refused(lxpyd: Lxpyd, outside: Outside, busybox: str, keys: tuple[str, ...], said: str) -> None:
    changed = [key.replace("LINK", outside.link).replace("BRIDGE", lxpyd.bridge) for key in keys]
    refused = lxpyd.cli("config", "device", "add", busybox, "bad", "nic", *changed, check=False)
    assert refused.returncode == 1 and said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert "bad" not in lxpyd.instance(busybox)["devices"] and _is_back(outside.link)
    assert not [key for key in lxpyd.instance(busybox)["config"] if "bad" in key]


def test_an_interface_the_host_uses_is_refused(lxpyd: Lxpyd, outside: Outside, busybox: str) -> None:
    nic = ("nic", "nictype=physical", f"parent={outside.link}", "name=eth1")
    _host("ip", "addr", "add", "198.18.255.1/32", "dev", outside.link)
    refused = lxpyd.cli("config", "device", "add", busybox, "bad", *nic, check=False)
    assert refused.returncode == 1 and "has addresses of the host" in refused.stderr
    _host("ip", "addr", "flush", "dev", outside.link)
    _host("ip", "link", "set", outside.link, "master", lxpyd.bridge)
    refused = lxpyd.cli("config", "device", "add", busybox, "bad", *nic, check=False)
    assert refused.returncode == 1 and "is a port of another interface" in refused.stderr


def test_killed_amid_plugging(own_lxpyd: Lxpyd) -> None:
    """At eight moments of plugging in and out: the interface is whole on one side, and the next change works."""
    daemon = own_lxpyd
    link = f"lxq{daemon.number}"
    _host("ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}p")
    _host("ip", "link", "set", link, "address", MAC, "mtu", "1490", "up")
    nic = ("nic", "nictype=physical", f"parent={link}", "name=eth1", "mtu=1300")
    try:
        daemon.cli("launch", "bb", "a")
        begun = time.monotonic()
        daemon.cli("config", "device", "add", "a", "p", *nic)
        whole = time.monotonic() - begun
        for n in range(8):
            there = "p" in daemon.instance("a")["devices"]
            command = ("remove", "a", "p") if there else ("add", "a", "p", *nic)
            process = daemon.spawn("config", "device", *command)
            time.sleep(whole * (0.3 + n * 0.09))
            daemon.kill()
            assert b"Traceback" not in process.communicate(timeout=30)[1]
            daemon.start()
            inside = "eth1" in daemon.sh("a", "ls /sys/class/net").stdout.split()
            recorded = "p" in daemon.instance("a")["devices"]
            assert inside == recorded, (
                command,
                daemon.json("query", "/1.0/warnings?recursion=1"),
                daemon.log.read_text()[-2000:],
            )
            assert inside != _is_back(link)
            if not inside:
                assert _clean(daemon)
        # and killed when the interface has its name again, and is not up
        if "p" not in daemon.instance("a")["devices"]:
            daemon.cli("config", "device", "add", "a", "p", *nic)
        pid = daemon.init_pid("a")
        daemon.kill()
        for change in ("eth1 down", f"eth1 name {link}", f"{link} netns {os.getpid()}"):
            _host("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "link", "set", *change.split())
        assert not _is_back(link)
        daemon.start()
        daemon.cli("config", "device", "remove", "a", "p")
        assert _is_back(link) and _clean(daemon)
        daemon.cli("delete", "-f", "a")
        assert _is_back(link)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            _host("ip", "link", "del", f"{link}p")
