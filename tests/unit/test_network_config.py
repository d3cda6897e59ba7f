"""The rules of a bridge's configuration: what is refused, what is filled in. No kernel."""

import ipaddress

import pytest

from lxpy.api.errors import BadRequest, Conflict
from lxpy.networks import config as keys
from lxpy.networks import dnsmasq, firewall, leases


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"ipv4.adress": "auto"}, "'ipv4.adress'"),
        ({"ipv4.address": "10.1.2.1"}, "10.1.2.1"),
        ({"ipv4.address": "10.1.2.0/24"}, "the network's own"),
        ({"ipv4.address": "10.1.2.255/24"}, "broadcast"),
        ({"ipv4.address": "10.1.2.1/31"}, "no room"),
        ({"ipv4.address": "fd42::1/64"}, "ipv4.address"),
        ({"ipv4.address": "127.0.0.1/8"}, "cannot be"),
        ({"ipv4.address": "10.1.2.300/24"}, "10.1.2.300"),
        ({"ipv6.address": "10.1.2.1/24"}, "ipv6.address"),
        ({"ipv6.address": "ff02::1/64"}, "cannot be"),
        ({"ipv4.nat": "perhaps"}, "boolean"),
        ({"ipv4.dhcp.expiry": "soon"}, "lease time"),
        ({"ipv4.dhcp.ranges": "10.1.2.3"}, "range"),
        ({"ipv4.dhcp.ranges": "10.1.2.9-10.1.2.3"}, "backwards"),
        ({"ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.3.2-10.1.3.9"}, "not inside"),
        ({"bridge.mtu": "12"}, "MTU"),
        ({"bridge.hwaddr": "01:16:3e:00:00:00"}, "unicast"),
        ({"bridge.hwaddr": "00163e000000"}, "MAC"),
        ({"dns.mode": "magic"}, "managed, dynamic, none"),
        ({"dns.domain": "a..b"}, "domain"),
        ({"dns.search": "ok.example,-bad"}, "domain"),
        ({"ipv4.nat": True}, "not a string"),
    ],
)
def test_bad_configuration(config: dict[str, str], says: str) -> None:
    with pytest.raises(BadRequest) as caught:
        keys.validate(config)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("name", ["", "a" * 16, "br 0", "br/0", "..", "-br", "lo", "br:0", "brücke"])
def test_bad_interface_name(name: str) -> None:
    with pytest.raises(BadRequest):
        keys.interface_name("network name", name)


def test_good_configuration() -> None:
    keys.validate(
        {
            "ipv4.address": "10.1.2.1/24", "ipv4.dhcp.ranges": "10.1.2.10-10.1.2.20, 10.1.2.30-10.1.2.40",
            "ipv6.address": "none", "dns.search": "a.example, b.example", "user.note": "anything", "ipv4.nat": "",
        }
    )  # fmt: skip


def test_create_fills_in_addresses_and_nat() -> None:
    full = keys.filled({}, [], creating=True, ipv6=True)
    four, six = keys.interface4(full), keys.interface6(full)
    assert four and six
    assert four.ip.packed[0] == 10 and four.network.prefixlen == 24 and four.ip == four.network[1]
    assert str(six).startswith("fd42:") and six.network.prefixlen == 64
    assert full["ipv4.nat"] == full["ipv6.nat"] == "true"
    assert keys.filled({}, [], creating=True, ipv6=False)["ipv6.address"] == "none"
    assert keys.filled({}, [], creating=False, ipv6=True) == {}
    assert "ipv4.nat" not in keys.filled({"ipv4.address": "10.1.2.1/24"}, [], creating=True, ipv6=True)


def test_automatic_subnet_avoids_what_is_taken() -> None:
    taken: list[keys.Subnet] = [ipaddress.IPv4Network("10.0.0.0/9"), ipaddress.IPv4Network("10.128.0.0/10")]
    for _ in range(50):
        chosen = keys.subnet4(keys.filled({"ipv4.address": "auto"}, taken, creating=False, ipv6=False))
        assert chosen and not any(chosen.overlaps(one) for one in taken if one.version == 4)
    taken = [ipaddress.IPv4Network("10.0.0.0/8"), ipaddress.IPv4Network("172.16.0.0/12")]
    chosen = keys.subnet4(keys.filled({"ipv4.address": "auto"}, taken, creating=False, ipv6=False))
    assert str(chosen) == "192.168.0.0/24"
    with pytest.raises(Conflict):
        everything: list[keys.Subnet] = [*taken, ipaddress.IPv4Network("192.168.0.0/16")]
        keys.filled({"ipv4.address": "auto"}, everything, creating=False, ipv6=False)


def test_lease_file() -> None:
    held = leases.parse(
        "1795476229 00:16:3E:00:00:00 10.60.141.16 c0 01:00:16:3e:00:00:00\n"
        "0 00:16:3e:00:00:01 10.60.141.77 * *\n"
        "duid 00:01:00:01:32:97:79:75:00:16:3e:72:be:cd\n"
        "1795476229 12345 fd42::16 c0 00:01:00:01:32:97:79:75:00:16:3e:00:00:00\n"
        "garbage\n"
    )
    assert [(one.expires, one.hwaddr, one.address, one.hostname) for one in held] == [
        (1795476229, "00:16:3e:00:00:00", "10.60.141.16", "c0"),
        (0, "00:16:3e:00:00:01", "10.60.141.77", ""),
        (1795476229, "00:16:3e:00:00:00", "fd42::16", "c0"),
    ]
    reserved = {"c1": [leases.Reservation("00:16:3e:00:00:01", "10.60.141.77", "", "c1")]}
    rows = leases.table(held, reserved, [("br.gw", "00:16:3e:72:be:cd", "10.60.141.1")])
    assert [(row["hostname"], row["address"], row["type"]) for row in rows] == [
        ("br.gw", "10.60.141.1", "gateway"),
        ("c1", "10.60.141.77", "static"),
        ("c0", "10.60.141.16", "dynamic"),
        ("c0", "fd42::16", "dynamic"),
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("00:16:3e:00:00:01,c1\n", ("00:16:3e:00:00:01", "", "", "c1")),
        ("00:16:3e:00:00:01,10.1.2.3,[fd42::3],c1\n", ("00:16:3e:00:00:01", "10.1.2.3", "fd42::3", "c1")),
        ("00:16:3e:00:00:01,10.1.2.3\n", ("00:16:3e:00:00:01", "10.1.2.3", "", "")),
    ],
)
def test_reservation_line(line: str, expected: tuple[str, str, str, str]) -> None:
    assert leases.parse_reservation(line) == expected


def test_dnsmasq_arguments() -> None:
    base = {"ipv4.address": "10.1.2.1/24", "ipv6.address": "fd42:1:2:3::1/64"}
    line = dnsmasq.arguments("br0", "/", base)
    assert "--dhcp-range=10.1.2.2,10.1.2.254,255.255.255.0,1h" in line
    assert "--dhcp-range=::,constructor:br0,ra-stateless,ra-names" in line
    line = dnsmasq.arguments(
        "br0", "/",
        {**base, "ipv4.dhcp": "false", "ipv6.dhcp.stateful": "true", "dns.mode": "none", "ipv6.dhcp.expiry": "5m"},
    )  # fmt: skip
    assert "--dhcp-range=fd42:1:2:3::2,fd42:1:2:3:ffff:ffff:ffff:ffff,64,5m" in line
    assert not any("10.1.2.254" in one or one.startswith("--domain") for one in line)
    assert dnsmasq.arguments("br0", "/", {"ipv4.address": "none", "ipv6.address": "none"}) == []


def test_ruleset() -> None:
    text = firewall.ruleset("lxpy_x", {"br0": {"config": {"ipv4.address": "10.1.2.1/24", "ipv4.nat": "true"}}}, {}, 5)
    assert text.startswith("add table inet lxpy_x\ndelete table inet lxpy_x\n")
    assert "ip saddr 10.1.2.0/24 ip daddr != 10.1.2.0/24 masquerade" in text
    off = firewall.ruleset("t", {"br0": {"config": {"ipv4.address": "10.1.2.1/24", "ipv4.firewall": "false"}}}, {}, 5)
    assert "br0" not in off
    closed = firewall.ruleset("t", {"br0": {"config": {"ipv4.address": "10.1.2.1/24", "ipv4.routing": "false"}}}, {}, 5)
    assert 'iifname "br0" meta nfproto ipv4 drop' in closed
    assert firewall.ruleset("t", {}, {}, 5) == "add table inet t\ndelete table inet t\n"
