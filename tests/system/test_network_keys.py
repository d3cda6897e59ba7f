"""Keys of a bridge that act on the host or in a guest, changed while a container runs; and kill -9 amid changes."""

import ipaddress
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.outside import Outside


@pytest.fixture
def net(lxpyd: Lxpyd) -> Iterator[str]:
    """A second network, 10.96.N.1/24 and fd42:96:aN::1/64."""
    name, number = f"lxk{lxpyd.number}", lxpyd.number
    lxpyd.cli("network", "create", name, f"ipv4.address=10.96.{number}.1/24", "ipv4.nat=true",
              f"ipv6.address=fd42:96:a{number:x}::1/64", input="")  # fmt: skip
    yield name
    lxpyd.cli("network", "delete", name)


@pytest.fixture
def guest(lxpyd: Lxpyd, net: str, name: str) -> Iterator[str]:
    lxpyd.cli("launch", "bb", name, "-n", net)
    lxpyd.wait_address(name)
    yield name
    lxpyd.sweep(name)


_TELL = "mkdir -p /tmp; printf '#!/bin/sh\\nset\\n' > /tmp/tell; chmod +x /tmp/tell;"


# DHCPv6 in two packets (RFC 8415): Solicit with rapid commit for one address, by the DUID of the nic's MAC.
_DHCP6 = """
import socket, struct, time
from fcntl import ioctl
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
mac = ioctl(s, 0x8927, struct.pack("256s", b"eth0"))[18:24]
option = lambda code, data: struct.pack("!HH", code, len(data)) + data
duid = option(1, b"\\0\\3\\0\\1" + mac)
solicit = b"\\1abc" + duid + option(3, b"\\0\\0\\0\\1" + bytes(8)) + option(14, b"") + option(8, b"\\0\\0")
index = socket.if_nametoindex("eth0")
s.settimeout(1)
for _ in range(30):
    try:
        if s.getsockname()[1] == 0:
            s.bind(("::", 546, 0, index))
        s.sendto(solicit, ("ff02::1:2", 547, 0, index))
        data = s.recv(2000)
    except OSError as error:
        print(error)
        time.sleep(0.2)
        continue
    at = data.find(b"\\0\\5\\0\\x18")
    print(socket.inet_ntop(socket.AF_INET6, data[at + 4 : at + 20]) if at > 0 else data.hex())
    break
"""


def _run(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout


def test_live_changes_leave_the_guest_alone(lxpyd: Lxpyd, net: str, guest: str) -> None:
    address = lxpyd.addresses(guest)[0]
    lxpyd.cli("network", "set", net, "ipv4.dhcp.expiry=2h", "dns.search=corp.example,lab.example",
              "ipv4.routes=192.0.2.0/25,192.0.2.192/26", "ipv6.routes=2001:db8:7::/64", "bridge.mtu=1400",
              "dns.nameservers=10.96.0.53", "ipv4.dhcp.gateway=10.96." + f"{lxpyd.number}.9")  # fmt: skip
    shown = _run("ip", "route", "show", "dev", net) + _run("ip", "-6", "route", "show", "dev", net)
    assert all(route in shown for route in ("192.0.2.0/25", "192.0.2.192/26", "2001:db8:7::/64"))
    assert "mtu 1400" in _run("ip", "link", "show", net)
    assert lxpyd.addresses(guest) == [address]
    offer = lxpyd.sh(
        guest, f"{_TELL} udhcpc -i eth0 -nqf -O search -O mtu -s /tmp/tell 2>/dev/null", check=False
    ).stdout
    for line in ("search=corp.example lab.example", "mtu=1400", "lease=7200", "dns=10.96.0.53", f"ip={address}"):
        assert line in offer.replace("'", ""), (line, offer)
    assert f"router=10.96.{lxpyd.number}.9" in offer.replace("'", "")
    lxpyd.cli("network", "set", net, "ipv4.routes=192.0.2.192/26")
    lxpyd.cli("network", "unset", net, "ipv6.routes")
    shown = _run("ip", "route", "show", "dev", net) + _run("ip", "-6", "route", "show", "dev", net)
    assert "192.0.2.192/26" in shown and "192.0.2.0/25" not in shown and "2001:db8" not in shown
    lxpyd.cli("network", "set", net, "ipv4.address=none")
    assert "10.96." not in _run("ip", "addr", "show", net)
    result = lxpyd.cli("network", "set", net, "bgp.peers.x.asn=65000", check=False)
    assert result.returncode == 1 and "routing daemon" in result.stderr


def test_dns_modes(lxpyd: Lxpyd, net: str, guest: str) -> None:
    server = f"10.96.{lxpyd.number}.1"

    def known(name: str) -> bool:
        return lxpyd.sh(guest, f"nslookup -type=a {name}.lxpy {server}", check=False).returncode == 0

    def ask_as(name: str) -> None:
        lxpyd.sh(guest, f"udhcpc -i eth0 -nqf -x hostname:{name} -s /bin/true 2>/dev/null", check=False)

    until(lambda: known(guest), 3, "no name")
    lxpyd.cli("network", "set", net, "dns.mode=dynamic")
    ask_as("chosen")
    until(lambda: known("chosen"), 3, "the guest's own name is not taken")
    lxpyd.cli("network", "set", net, "dns.mode=none")
    ask_as("chosen")
    assert not known("chosen") and not known(guest)
    lxpyd.cli("network", "set", net, "dns.mode=managed")
    until(lambda: known(guest), 3, "the name did not come back")
    assert not known("chosen")


def test_stateful_dhcp6_and_reserved_leases(lxpyd: Lxpyd, net: str, name: str) -> None:
    prefix = f"fd42:96:a{lxpyd.number:x}:"
    lxpyd.cli("network", "set", net, "ipv6.dhcp.stateful=true", f"ipv6.dhcp.ranges={prefix}:100-{prefix}:1ff")
    nic = {"type": "nic", "network": net, "name": "eth0", "ipv6.address": f"{prefix}:77"}
    lxpyd.cli("launch", "bb", name, input=json.dumps({"devices": {"eth0": nic}}))
    lxpyd.cli("launch", "bb", f"{name}-b", "-n", net)
    try:
        for one, wanted in ((name, f"{prefix}:77"), (f"{name}-b", f"{prefix}:1")):
            line = ["nsenter", f"--net=/proc/{lxpyd.init_pid(one)}/ns/net", sys.executable, "-c", _DHCP6]
            got = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20).stdout
            assert wanted in got, (one, got)
        leases = lxpyd.out("network", "list-leases", net, "-f", "csv")
        assert f"{prefix}:77,STATIC" in leases and f"{prefix}:1" in leases
        info = lxpyd.out("network", "info", net)
        assert "Leases:" in info and "Upper devices: veth" in info
    finally:
        lxpyd.sweep(name)


@pytest.mark.timeout(120)
def test_debian_takes_dhcp6(lxpyd: Lxpyd, net: str, name: str, debian_image: str) -> None:
    """A guest with systemd-networkd: the reserved address by stateful DHCPv6; else one of its own."""
    prefix = f"fd42:96:a{lxpyd.number:x}:"
    own = str(ipaddress.ip_address(f"{prefix}:77"))
    lxpyd.cli("network", "set", net, "ipv6.dhcp.stateful=true")
    nic = {"type": "nic", "network": net, "name": "eth0", "ipv6.address": own}
    lxpyd.cli("launch", debian_image, name, input=json.dumps({"devices": {"eth0": nic}}))
    until(lambda: own in lxpyd.addresses(name, "inet6"), 40, "no address by DHCPv6")
    assert lxpyd.addresses(name, "inet6") == [own]
    default = lxpyd.sh(name, "ip -6 route show default").stdout
    assert "via fe80::" in default and "proto ra" in default
    until(lambda: lxpyd.sh(name, f"ping -6 -c1 -W1 {prefix}:1", check=False).returncode == 0, 5, "no answer")
    lxpyd.cli("network", "set", net, "ipv6.dhcp.stateful=false")
    lxpyd.cli("restart", name)
    found = until(lambda: lxpyd.addresses(name, "inet6"), 40, "no address by router advertisement")
    assert own not in found and all(ipaddress.ip_address(one) in ipaddress.ip_network(f"{prefix}:/64") for one in found)


def test_nat_address_and_external_interfaces(lxpyd: Lxpyd, net: str, guest: str) -> None:
    outside = Outside("nat", lxpyd.number + 151)
    try:
        extra = outside.here.rpartition(".")[0] + ".77"
        _run("ip", "addr", "add", f"{extra}/32", "dev", outside.link)
        lxpyd.cli("network", "set", net, f"ipv4.nat.address={extra}", "ipv4.nat.order=after")
        # a server that tells who asked
        script = (
            "import socket; s = socket.create_server(('', 99))\n"
            "while True: c, a = s.accept(); c.sendall(a[0].encode()); c.close()"
        )
        listening = outside.spawn(sys.executable, "-c", script)

        def source() -> str:
            return lxpyd.sh(guest, f"echo | timeout 2 nc -w 1 {outside.there} 99", check=False).stdout

        assert until(source, 3, "no way out") == extra
        table = _run("nft", "list", "table", "inet", lxpyd.layout.nft_table)
        assert f"snat ip to {extra}" in table and f"pstrtlate.{net}" in table
        listening.kill()
        listening.wait()
        result = lxpyd.cli("network", "set", net, f"bridge.external_interfaces={outside.link}", check=False)
        assert result.returncode == 1 and "has addresses of the host" in result.stderr
        assert "bridge.external" not in lxpyd.out("network", "show", net)
    finally:
        outside.close()
    _run("ip", "link", "add", "lxext", "type", "veth", "peer", "name", "lxext1")
    try:
        lxpyd.cli("network", "set", net, "bridge.external_interfaces=lxext")
        assert f"master {net}" in _run("ip", "link", "show", "lxext")
        lxpyd.cli("network", "unset", net, "bridge.external_interfaces")
        assert "master" not in _run("ip", "link", "show", "lxext")
    finally:
        _run("ip", "link", "del", "lxext")


def test_rename_attach_detach(lxpyd: Lxpyd, net: str, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.cli("network", "attach", net, name, "eth1", "inner1")
    assert lxpyd.sh(name, "cat /sys/class/net/inner1/operstate").returncode == 0
    result = lxpyd.cli("network", "rename", net, "lxnew0", check=False)
    assert result.returncode == 1 and "in use" in result.stderr
    lxpyd.cli("network", "detach", net, name)
    result = lxpyd.cli("network", "detach", net, name, check=False)
    assert result.returncode == 1 and "not attached" in result.stderr
    before = lxpyd.json("query", f"/1.0/networks/{net}")["config"]
    lxpyd.cli("network", "rename", net, "lxnew0")
    assert lxpyd.json("query", "/1.0/networks/lxnew0")["config"] == before
    assert net not in _run("nft", "list", "ruleset") and net not in _run("ip", "link")
    lxpyd.cli("network", "rename", "lxnew0", net)


def test_a_bridge_without_addresses(lxpyd: Lxpyd) -> None:
    """Only a switch: made, renamed, and mended when it is lost."""
    lxpyd.cli("network", "create", "lxsw0", "ipv4.address=none", "ipv6.address=none")
    lxpyd.cli("network", "rename", "lxsw0", "lxsw1")
    assert "inet" not in _run("ip", "addr", "show", "lxsw1")
    _run("ip", "link", "del", "lxsw1")
    until(lambda: "lxsw1" in _run("ip", "link"), 5, "the bridge does not come back")
    lxpyd.cli("network", "delete", "lxsw1")


@pytest.mark.timeout(300)
def test_killed_anywhere_in_changes(own_lxpyd: Lxpyd) -> None:
    """kill -9 at sixteen moments of create, update, rename and delete: afterwards all is one of the two, and usable."""
    daemon, rng = own_lxpyd, random.Random(3)
    create = ("network", "create", "lxc0", "ipv4.address=10.95.0.1/24", "ipv6.address=none")
    steps = [
        (create, ()),
        (("network", "set", "lxc0", "ipv4.address=10.95.1.1/24", "dns.domain=x.example"), create),
        (("network", "rename", "lxc0", "lxc1"), create),
        (("network", "delete", "lxc0"), create),
    ]
    for n in range(16):
        command, before = steps[n % 4]
        if before:
            daemon.cli(*before, input="")
        process = daemon.spawn(*command)
        assert process.stdin
        process.stdin.close()
        process.stdin = None
        time.sleep(0.012 + rng.uniform(0.0, 0.07))
        daemon.kill()
        _, err = process.communicate(timeout=30)
        assert b"Traceback" not in err
        daemon.start()
        ours = {one["name"]: one for one in daemon.json("query", "/1.0/networks?recursion=1") if one["managed"]}
        del ours[daemon.bridge]
        assert len(ours) <= 1
        links = {link["ifname"] for link in json.loads(_run("ip", "-j", "link")) if link["ifname"].startswith("lxc")}
        assert links == set(ours), command
        rules = _run("nft", "list", "table", "inet", daemon.layout.nft_table)
        for name in ("lxc0", "lxc1"):
            assert (f"in.{name}" in rules) == (name in ours), (command, name)
        for name, one in ours.items():
            assert one["config"]["ipv4.address"] in _run("ip", "addr", "show", name).replace("inet ", "")
            daemon.cli("network", "delete", name)
    assert not list((daemon.dir / "networks").glob("lxc*"))
