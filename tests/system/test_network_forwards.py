"""Forwards: from outside, from the host and from a neighbour on the bridge, by IPv4 and IPv6."""

import ipaddress
import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.outside import Outside, answering, ask, without_br_netfilter


@pytest.fixture
def outside(lxpyd: Lxpyd) -> Iterator[Outside]:
    one = Outside("fwd", lxpyd.number + 1)
    yield one
    one.close()


def test_forward_ports_and_default_target(lxpyd: Lxpyd, outside: Outside, name: str) -> None:
    net, one, two = lxpyd.bridge, f"{name}-a", f"{name}-b"
    lxpyd.cli("launch", "bb", one)
    lxpyd.cli("launch", "bb", two)
    target, other = lxpyd.wait_address(one), lxpyd.wait_address(two)
    target6 = until(lambda: lxpyd.addresses(one, "inet6"), 10, "no IPv6 address")[0]
    for port in (80, 8000, 8001, 9001):
        lxpyd.sh(one, answering(f"{one}:{port}", port))
    lxpyd.sh(one, answering("six", 86))
    lxpyd.sh(two, answering(f"{two}:22", 22))

    lxpyd.cli("network", "forward", "create", net, outside.here, f"target_address={other}", input="")
    lxpyd.cli("network", "forward", "port", "add", net, outside.here, "tcp", "80,8000-8001", target)
    lxpyd.cli("network", "forward", "port", "add", net, outside.here, "tcp", "7000-7001", target, "8001,9001")
    lxpyd.cli("network", "forward", "port", "add", net, outside.here, "tcp", "5000,5005", target, "80")
    lxpyd.cli("network", "forward", "create", net, outside.here6.upper(), input="ports:\n- {protocol: tcp, "
              f"listen_port: '86', target_address: '{target6}'" "}\n")  # fmt: skip
    try:
        for port, answer in (
            (80, f"{one}:80"), (8001, f"{one}:8001"), (7000, f"{one}:8001"), (7001, f"{one}:9001"),
            (5005, f"{one}:80"), (22, f"{two}:22"),
        ):  # fmt: skip
            assert outside.run(*ask(outside.here, port)).stdout.strip() == answer, port
        # (its address is being checked for duplicates in the first second)
        until(lambda: outside.run(*ask(outside.here6, 86)).stdout.strip() == "six", 5, "no answer by IPv6")
        # the host itself and a neighbour; and the target by its own forward, which the bridge cannot send back to the
        # port it came from when br_netfilter rewrites it before the bridge has handed it to the router
        assert subprocess.run(ask(outside.here, 80), capture_output=True, text=True).stdout.strip() == f"{one}:80"
        script = f"echo | timeout 2 nc -w 1 {outside.here} 80"
        assert lxpyd.sh(two, script, check=False).stdout.strip() == f"{one}:80"
        with without_br_netfilter():
            assert lxpyd.sh(two, script, check=False).stdout.strip() == f"{one}:80"
            assert lxpyd.sh(one, script, check=False).stdout.strip() == f"{one}:80"
        shown = lxpyd.json("query", f"/1.0/networks/{net}/forwards/{outside.here}")
        assert shown["config"] == {"target_address": other} and len(shown["ports"]) == 3
        assert f"{outside.here},,{other},3" in lxpyd.out("network", "forward", "list", net, "-f", "csv")
        # a live change, and the restart of a daemon that was killed
        lxpyd.cli("network", "forward", "port", "remove", net, outside.here, "tcp", "80,8000-8001")
        lxpyd.cli("network", "forward", "unset", net, outside.here, "target_address")
        assert outside.run(*ask(outside.here, 80)).stdout == ""
        lxpyd.restart(kill=True)
        assert outside.run(*ask(outside.here, 7000)).stdout.strip() == f"{one}:8001"
    finally:
        for listen in (outside.here, outside.here6):
            lxpyd.cli("network", "forward", "delete", net, listen)
    assert outside.run(*ask(outside.here, 7000)).stdout == ""


def test_forward_refused(lxpyd: Lxpyd) -> None:
    net, inside = lxpyd.bridge, str(ipaddress.ip_address(lxpyd.address) + 9)
    listen = "198.18.200.1"
    lxpyd.cli("network", "forward", "create", net, listen, input="")

    def port(**values: str) -> list[dict[str, str]]:
        return [{"protocol": "tcp", "listen_port": "80", "target_address": inside, **values}]

    cases: list[tuple[str, dict[str, object], str]] = [
        (listen, {}, "already exists"),
        (lxpyd.address, {}, "belongs to network"),
        ("0.0.0.0", {}, "an address of this host"),
        ("nonsense", {}, "not an address"),
        ("198.18.200.2", {"config": {"target_address": "192.0.2.1"}}, "not inside"),
        ("198.18.200.2", {"config": {"nope": "1"}}, "target_address and user"),
        ("198.18.200.2", {"ports": port(protocol="icmp")}, "not tcp or udp"),
        ("198.18.200.2", {"ports": port(listen_port="0")}, "1 to 65535"),
        ("198.18.200.2", {"ports": port(listen_port="90-80")}, "backwards"),
        ("198.18.200.2", {"ports": port(listen_port="80-82", target_port="80-81")}, "3 listen ports"),
        ("198.18.200.2", {"ports": port() + port(listen_port="70-90")}, "forwarded already"),
        ("198.18.200.2", {"ports": port(target_address="fd42::1")}, "not an IPv4 address"),
        ("198.18.200.2", {"ports": port(target="x")}, "unknown key"),
    ]  # fmt: skip
    before = lxpyd.json("query", f"/1.0/networks/{net}/forwards?recursion=1")
    for address, body, message in cases:
        data = json.dumps({"listen_address": address, **body})
        result = lxpyd.cli("query", "-X", "POST", "-d", data, f"/1.0/networks/{net}/forwards", check=False)
        assert result.returncode == 1 and message in result.stderr, (address, body, result.stderr)
    assert lxpyd.json("query", f"/1.0/networks/{net}/forwards?recursion=1") == before
    lxpyd.cli("network", "forward", "set", net, listen, f"target_address={inside}")
    result = lxpyd.cli("network", "set", net, "ipv4.address=10.111.1.1/24", "ipv4.dhcp.ranges=", check=False)
    assert result.returncode == 1 and "forward" in result.stderr
    lxpyd.cli("network", "forward", "delete", net, listen)
    result = lxpyd.cli("network", "forward", "show", net, listen, check=False)
    assert result.returncode == 1 and "no forward" in result.stderr
