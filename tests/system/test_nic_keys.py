"""Filters, limits, isolation and routes of bridged nics, seen from both sides of the cable."""

import json
import os
import signal
import socket
import subprocess
import time

import pytest

from tests.support.daemon import Lxpyd, until


def _host(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _table(lxpyd: Lxpyd) -> str:
    """The daemon's own rules of nics; "" when there is no such table."""
    command = ["nft", "list", "table", "netdev", lxpyd.layout.nft_nics_table]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _answers(address: str) -> bool:
    return subprocess.run(["busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0


def test_filters_drop_what_is_not_the_guests_own(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.wait_address(busybox)
    subnet = lxpyd.address.rpartition(".")[0]
    own, other = f"{subnet}.91", f"{subnet}.92"
    nic = ("nic", f"network={lxpyd.bridge}", "name=eth1", f"ipv4.address={own}", "security.ipv4_filtering=true")
    lxpyd.cli("config", "device", "add", busybox, "x", *nic)
    lxpyd.sh(busybox, f"ip addr flush dev eth0; ip addr add {own}/24 dev eth1; ip addr add {other}/24 dev eth1")
    until(lambda: _answers(own), 5, "its own address is filtered")
    assert not _answers(other)
    lxpyd.restart(kill=True)
    assert _answers(own) and not _answers(other)
    lxpyd.sh(busybox, "ip link set eth1 down; ip link set eth1 address 00:16:3e:99:99:99; ip link set eth1 up")
    _host("ip", "neigh", "flush", "dev", lxpyd.bridge)
    assert not _answers(own)
    lxpyd.cli("config", "device", "remove", busybox, "x")
    until(lambda: not _table(lxpyd), 5, "the table stayed")


def test_ipv6_filters(lxpyd: Lxpyd, busybox: str) -> None:
    """Its own address and its link-local one pass; another address, another MAC and router advertisements do not."""
    net = f"fd42:97:{lxpyd.number:x}:"
    own, other = f"{net}:91", f"{net}:92"
    nic = ("nic", f"network={lxpyd.bridge}", "name=eth1", "hwaddr=00:16:3e:0a:0b:0c", f"ipv6.address={own}")
    lxpyd.cli("config", "device", "add", busybox, "x", *nic, "security.ipv6_filtering=true")
    host_name = lxpyd.instance(busybox)["config"]["volatile.x.host_name"]
    lxpyd.sh(busybox, "ip link set eth0 down")
    for address in (own, other):
        netns = f"--net=/proc/{lxpyd.init_pid(busybox)}/ns/net"
        _host("nsenter", netns, "ip", "addr", "add", f"{address}/64", "dev", "eth1", "nodad")
    local = f"fe80::216:3eff:fe0a:b0c%{lxpyd.bridge}"
    until(lambda: _answers(own), 5, "its own address is filtered")
    until(lambda: _answers(local), 5, "its link-local address is filtered")
    assert not _answers(other)
    assert "nd-router-advert drop" in _table(lxpyd) and host_name in _table(lxpyd)
    lxpyd.cli("config", "device", "unset", busybox, "x", "security.ipv6_filtering")
    until(lambda: _answers(other), 5, "still filtered")
    lxpyd.cli("config", "device", "set", busybox, "x", "security.ipv6_filtering=true", "ipv6.address=none")
    assert not _answers(own) and not _answers(local)


def test_limits_by_the_bytes_that_arrive(lxpyd: Lxpyd, busybox: str) -> None:
    address = lxpyd.wait_address(busybox)
    lxpyd.cli("config", "device", "override", busybox, "eth0", "limits.egress=8Mbit", "limits.ingress=16Mbit")
    host_name = lxpyd.instance(busybox)["config"]["volatile.eth0.host_name"]
    lxpyd.sh(busybox, f"ip addr add {address}/24 dev eth0 2>/dev/null; true")
    until(lambda: _answers(address), 5, "no answer")

    def seconds(script: str, count: int, *, to_guest: bool) -> float:
        with socket.create_server((lxpyd.address, 0)) as server:
            server.settimeout(10)
            port = server.getsockname()[1]
            guest = lxpyd.spawn("exec", busybox, "-n", "-T", "--", "sh", "-c", script.format(f"{lxpyd.address} {port}"))
            connection, _ = server.accept()
            begun, seen = time.monotonic(), 0
            with connection:
                connection.settimeout(20)
                if to_guest:
                    connection.sendall(bytes(count))
                    connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(1 << 16):
                    seen += len(data)
                if to_guest:
                    out, err = guest.communicate(timeout=30)
            taken = time.monotonic() - begun
        if not to_guest:
            out, err = guest.communicate(timeout=30)
        assert (int(out) if to_guest else seen) == count, (out, err, seen)
        return taken

    # Sent: 4 MiB at 1 MB/s, less the burst (nft adds a second's worth to it), take 3 s. Received: 4 MiB at 2 MB/s
    # take 2 s. Without a limit: some milliseconds.
    sending = seconds("dd if=/dev/zero bs=64k count=64 2>/dev/null | nc {}", 4 << 20, to_guest=False)
    receiving = seconds("nc {} </dev/null | wc -c", 4 << 20, to_guest=True)
    assert 2.5 < sending < 15 and 1.8 < receiving < 8, (sending, receiving)
    assert "tbf" in _host("tc", "qdisc", "show", "dev", host_name)


def test_isolated_ports_do_not_meet(lxpyd: Lxpyd, busybox: str) -> None:
    other = f"{busybox}-o"
    lxpyd.cli("launch", "bb", other)
    for one in (busybox, other):
        lxpyd.cli("config", "device", "override", one, "eth0", "security.port_isolation=true")
    subnet = lxpyd.address.rpartition(".")[0]
    for number, one in ((93, busybox), (94, other)):
        lxpyd.sh(one, f"ip addr add {subnet}.{number}/24 dev eth0")
    for number in (93, 94):
        until(lambda number=number: _answers(f"{subnet}.{number}"), 5, "the host is cut off")  # type: ignore[misc]
    ping = ("exec", busybox, "-n", "-T", "--", "ping", "-c1", "-W1", f"{subnet}.94")
    assert lxpyd.cli(*ping, check=False).returncode == 1
    # In place: the guest keeps its interface, and so its address.
    lxpyd.cli("config", "device", "set", busybox, "eth0", "security.port_isolation=false", "limits.max=50Mbit")
    host_name = lxpyd.instance(busybox)["config"]["volatile.eth0.host_name"]
    assert "tbf" in _host("tc", "qdisc", "show", "dev", host_name)
    lxpyd.cli("config", "device", "unset", busybox, "eth0", "limits.max")
    assert "tbf" not in _host("tc", "qdisc", "show", "dev", host_name)
    until(lambda: lxpyd.cli(*ping, check=False).returncode == 0, 5, "they do not meet")


def test_routes_and_queue(lxpyd: Lxpyd, name: str) -> None:
    four, six = f"10.55.{lxpyd.number}.0/24", f"fd55:{lxpyd.number:x}::/64"
    keys = (f"ipv4.routes={four}", f"ipv6.routes={six}", "queue.tx.length=77", "limits.priority=5")
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("config", "device", "override", name, "eth0", *keys)
    lxpyd.cli("start", name)
    host_name = lxpyd.instance(name)["config"]["volatile.eth0.host_name"]
    assert f"dev {lxpyd.bridge}" in _host("ip", "route", "show", four)
    assert f"dev {lxpyd.bridge}" in _host("ip", "-6", "route", "show", six)
    assert "qlen 77" in _host("ip", "link", "show", host_name)
    assert "meta priority set" in _table(lxpyd)
    pid = lxpyd.init_pid(name)
    lxpyd.kill()  # the container ends while nobody looks; the next daemon clears up after it
    os.kill(pid, signal.SIGKILL)
    lxpyd.start()
    until(lambda: not _host("ip", "route", "show", four), 5, "the route stayed")
    until(lambda: not _table(lxpyd), 5, "the table stayed")


def test_vlans(lxpyd: Lxpyd, busybox: str) -> None:
    """Where the kernel knows them in bridges: who has another than the rest hears nobody. Elsewhere: a clear line."""
    lxpyd.wait_address(busybox)
    keys = ("nic", f"network={lxpyd.bridge}", "name=eth1", "vlan=5", "vlan.tagged=7,9-10")
    added = lxpyd.cli("config", "device", "add", busybox, "v", *keys, check=False)
    if "CONFIG_BRIDGE_VLAN_FILTERING" in added.stderr:
        assert added.returncode == 1 and len(added.stderr.splitlines()) == 1
        assert "v" not in lxpyd.instance(busybox)["devices"]
        return
    assert added.returncode == 0, added.stderr
    host_name = lxpyd.instance(busybox)["config"]["volatile.v.host_name"]
    shown = json.loads(_host("bridge", "-j", "vlan", "show", "dev", host_name))[0]["vlans"]
    ranges = {(one["vlan"], one.get("vlanEnd", one["vlan"]), "PVID" in one.get("flags", [])) for one in shown}
    assert ranges == {(5, 5, True), (7, 7, False), (9, 10, False)}
    assert lxpyd.sh(busybox, "udhcpc -i eth1 -nq -t2 -T1 -s /bin/true 2>/dev/null", check=False).returncode != 0
    assert _answers(lxpyd.addresses(busybox)[0])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("vlan=4095",), "'4095' is not a VLAN"),
        (("vlan.tagged=7-5",), "'7-5' runs backwards"),
        (("vlan=5", "vlan.tagged=4-6"), "name 5"),
        (("nictype=sriov",), "sriov"),
        (("limits.max=1Mbit", "limits.egress=1Mbit"), "limits.max"),
        (("limits.ingress=fast",), "'fast' is not a rate"),
        (("security.ipv6_filtering=true",), "needs ipv6.address"),
        (("ipv4.routes=10.0.0.300/24",), "10.0.0.300"),
    ],
)
def test_refused(lxpyd: Lxpyd, keys: tuple[str, ...], said: str) -> None:
    nic = ("nic", f"network={lxpyd.bridge}", *keys)
    refused = lxpyd.cli("profile", "device", "add", "default", "bad", *nic, check=False)
    assert refused.returncode == 1 and said in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert "bad" not in lxpyd.json("query", "/1.0/profiles/default")["devices"]
