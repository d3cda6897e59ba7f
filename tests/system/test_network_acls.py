"""Network ACLs on a bridge: what passes its border, what is refused, what is written down."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.outside import Outside, answering, ask


@pytest.fixture
def outside(lxpyd: Lxpyd) -> Iterator[Outside]:
    one = Outside("acl", lxpyd.number + 101)
    yield one
    one.close()


@pytest.fixture
def acl(lxpyd: Lxpyd) -> Iterator[str]:
    lxpyd.cli("network", "acl", "create", "web", "--description", "web servers", input="")
    yield "web"
    lxpyd.cli("network", "unset", lxpyd.bridge, "security.acls", check=False)
    lxpyd.cli("network", "acl", "delete", "web")


def test_rules_of_a_bridge(lxpyd: Lxpyd, outside: Outside, acl: str, busybox: str) -> None:
    address, net = lxpyd.wait_address(busybox), lxpyd.bridge
    for port in (80, 81, 82, 83):
        lxpyd.sh(busybox, answering(f"port{port}", port))
    server = outside.spawn("sh", "-c", "exec busybox nc -ll -p 90 -e echo world")

    def reach(port: int) -> bool:
        return outside.run(*ask(address, port)).stdout == f"port{port}\n"

    def world() -> bool:
        return lxpyd.sh(busybox, f"echo | timeout 2 nc -w 1 {outside.there} 90", check=False).stdout == "world\n"

    def rule(*words: str) -> None:
        lxpyd.cli("network", "acl", "rule", *words)

    try:
        assert reach(80) and world()
        rule("add", acl, "ingress", "action=allow", "protocol=tcp", "destination_port=80,82-83", "state=enabled")
        rule("add", acl, "ingress", "action=drop", "protocol=tcp", "destination_port=83", "state=logged",
             f"source={outside.there}/32")  # fmt: skip
        lxpyd.cli("network", "set", net, f"security.acls={acl}", "security.acls.default.ingress.logged=true")
        # allowed; drops come before allows; not named: refused; not named the other way: refused
        assert [reach(port) for port in (80, 82, 83, 81)] == [True, True, False, False]
        assert not world()
        # the bridge's own services go on, the lease is renewed and names resolve
        assert lxpyd.sh(busybox, f"nslookup -type=a {busybox}.lxpy", check=False).returncode == 0
        lxpyd.sh(busybox, "udhcpc -i eth0 -nq -t3 -T1 >/dev/null 2>&1")
        # the host is a stranger too, to ports and pings
        assert subprocess.run(ask(address, 81), capture_output=True, text=True).stdout == ""
        assert subprocess.run(ask(address, 80), capture_output=True, text=True).stdout == "port80\n"
        # a live change
        rule("add", acl, "egress", "action=allow", "protocol=tcp", f"destination={outside.there}-{outside.there}")
        assert world()
        assert lxpyd.sh(busybox, f"ping -c 1 -W 1 {outside.there}", check=False).returncode == 1
        rule("add", acl, "egress", "action=allow", "protocol=icmp4", "icmp_type=8")
        assert lxpyd.sh(busybox, f"ping -c 1 -W 1 {outside.there}", check=False).returncode == 0

        def logged() -> list[dict[str, str]]:
            return [json.loads(line) for line in lxpyd.out("network", "acl", "show-log", acl).splitlines()]

        drops = until(lambda: [one for one in logged() if one["action"] == "drop"], 3, "the drop is not logged")
        assert (drops[0]["src"], drops[0]["dst"], drops[0]["dst_port"]) == (outside.there, address, "83")
        assert "81" in {one.get("dst_port") for one in logged() if one["action"] == "reject"}
        assert all(one["subject"] == f"network {net}" for one in logged())
        # what a daemon that was killed finds, and one with the rule disabled
        lxpyd.restart(kill=True)
        assert reach(80) and not reach(81)
        shown = lxpyd.json("query", f"/1.0/network-acls/{acl}")
        assert shown["used_by"] == [f"/1.0/networks/{net}"]
        shown["ingress"][0]["state"] = "disabled"
        lxpyd.cli("network", "acl", "edit", acl, input=json.dumps(shown))
        assert not reach(80)
        for verb in (("delete", acl), ("rename", acl, "other")):
            result = lxpyd.cli("network", "acl", *verb, check=False)
            assert result.returncode == 1 and f"in use by networks/{net}" in result.stderr
        lxpyd.cli("network", "set", net, "security.acls.default.ingress.action=allow")
        assert reach(81) and not reach(83)
        lxpyd.cli("network", "unset", net, "security.acls")
        assert reach(83) and world()
        for key in ("logged", "action"):
            lxpyd.cli("network", "unset", net, f"security.acls.default.ingress.{key}")
    finally:
        server.kill()
        server.wait()


def test_acl_refused(lxpyd: Lxpyd, acl: str) -> None:
    cases = [
        ({"action": "permit"}, "not one of allow"),
        ({"action": "allow-stateless"}, "allow-stateless"),
        ({"action": "allow", "state": "on"}, "state"),
        ({"action": "allow", "protocol": "gre"}, "protocol"),
        ({"action": "allow", "destination_port": "80"}, "needs the protocol"),
        ({"action": "allow", "protocol": "tcp", "destination_port": "80-"}, "not a port"),
        ({"action": "allow", "protocol": "udp", "icmp_type": "8"}, "needs the protocol icmp"),
        ({"action": "allow", "protocol": "icmp4", "icmp_type": "300"}, "0 to 255"),
        ({"action": "allow", "source": "@internal"}, "OVN"),
        ({"action": "allow", "source": "10.0.0.9-10.0.0.1"}, "not an address"),
        ({"action": "allow", "source": "10.0.0.0/8", "destination": "fd42::/64"}, "different address families"),
        ({"action": "allow", "source": "fd42::/64", "protocol": "icmp4"}, "different address families"),
        ({"action": "allow", "from": "anywhere"}, "unknown key"),
    ]
    for rule, message in cases:
        data = json.dumps({"ingress": [rule]})
        result = lxpyd.cli("query", "-X", "PUT", "-d", data, f"/1.0/network-acls/{acl}", check=False)
        assert result.returncode == 1 and message in result.stderr, (rule, result.stderr)
    assert lxpyd.json("query", f"/1.0/network-acls/{acl}")["ingress"] == []
    result = lxpyd.cli("network", "set", lxpyd.bridge, "security.acls=web,absent", check=False)
    assert result.returncode == 1 and "'absent' does not exist" in result.stderr
    lxpyd.cli("network", "acl", "rename", acl, "other")
    lxpyd.cli("network", "acl", "set", "other", "user.note=x")
    assert "other,web servers,0" in lxpyd.out("network", "acl", "list", "-f", "csv")
    lxpyd.cli("network", "acl", "rename", "other", acl)
    result = lxpyd.cli("network", "acl", "rule", "remove", acl, "ingress", "action=allow", check=False)
    assert result.returncode == 1 and "No matching" in result.stderr


def test_rules_of_a_nic(lxpyd: Lxpyd, outside: Outside, acl: str, name: str) -> None:
    """Neighbours on one bridge as well; and by a kernel that tracks no connections in frames."""
    one, two = f"{name}-a", f"{name}-b"
    lxpyd.cli("network", "acl", "rule", "add", acl, "ingress", "action=allow", "protocol=tcp", "destination_port=80")
    lxpyd.cli("network", "acl", "rule", "add", acl, "egress", "action=allow", "protocol=tcp",
              f"destination={outside.there},{outside.there6}", "destination_port=90")  # fmt: skip
    lxpyd.cli("launch", "bb", two)
    nic = {"type": "nic", "network": lxpyd.bridge, "name": "eth0", "security.acls": acl,
           "security.acls.default.ingress.action": "drop", "security.acls.default.ingress.logged": "true"}  # fmt: skip
    lxpyd.cli("launch", "bb", one, input=json.dumps({"devices": {"eth0": nic}}))
    address, other = lxpyd.wait_address(one), lxpyd.wait_address(two)  # DHCP passes
    for port in (80, 81):
        lxpyd.sh(one, answering(f"port{port}", port))
    lxpyd.sh(two, answering("neighbour", 80))
    server = outside.spawn("sh", "-c", "exec busybox nc -ll -p 90 -e echo world")

    def from_two(port: int) -> str:
        return lxpyd.sh(two, f"echo | timeout 2 nc -w 1 {address} {port}", check=False).stdout

    def from_one(target: str, port: int) -> str:
        return lxpyd.sh(one, f"echo | timeout 2 nc -w 1 {target} {port}", check=False).stdout

    def filtered() -> bool:
        return (outside.run(*ask(address, 80)).stdout, from_two(80), from_two(81)) == ("port80\n", "port80\n", "")

    try:
        until(filtered, 5, "the servers inside do not answer as they should")
        assert from_one(outside.there, 90) == "world\n" and from_one(other, 80) == ""
        assert lxpyd.sh(one, f"nslookup -type=a {two}.lxpy", check=False).returncode == 0
        until(lambda: from_one(outside.there6, 90) == "world\n", 8, "no IPv6 through the ACL")
        assert lxpyd.sh(two, f"ping -c 1 -W 1 {address}", check=False).returncode == 1

        def logged() -> bool:
            log = [json.loads(line) for line in lxpyd.out("network", "acl", "show-log", acl).splitlines()]
            return any(entry.get("dst_port") == "81" and entry["subject"] == f"{one} eth0" for entry in log)

        until(logged, 5, "the refused port 81 is not in the log")
        # a live change; a flush by somebody; a new daemon
        lxpyd.cli("network", "acl", "rule", "add", acl, "egress", "action=allow", f"destination={other}")
        assert from_one(other, 80) == "neighbour\n"
        subprocess.run(["nft", "delete", "table", "bridge", lxpyd.layout.nft_nic_table], check=True)
        until(filtered, 5, "the rules do not come back")
        lxpyd.restart(kill=True)
        until(filtered, 5, "the rules did not outlive the daemon")
        assert from_one(other, 80) == "neighbour\n"
        lxpyd.cli("network", "acl", "rule", "remove", acl, "egress", f"destination={other}")
        assert from_one(other, 80) == ""
        # who ends while no daemon runs leaves no rules
        pid = lxpyd.init_pid(one)
        lxpyd.kill()
        subprocess.run(["kill", "-9", str(pid)], check=True)
        lxpyd.start()
        lxpyd.wait_status(one, "STOPPED")
        lxpyd.cli("start", one)
        lxpyd.wait_address(one)
        assert from_one(other, 80) == ""
        lxpyd.cli("delete", "-f", one)
        table = lxpyd.layout.nft_nic_table

        def clean() -> bool:
            return table not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout

        until(clean, 3, "the table of the last nic is left")
    finally:
        server.kill()
        server.wait()
        lxpyd.sweep(name)
