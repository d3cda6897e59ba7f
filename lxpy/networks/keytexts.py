"""What the configuration keys of a bridge are for, for ``GET /1.0/metadata/configuration``; the rules: `config`."""

from lxpy.api.keytexts import Key

_ACTION = ("allow", "reject", "drop")


def _family(version: int, example: str) -> dict[str, Key]:
    name = f"IPv{version}"
    return {
        "address": Key("string", f"The bridge's {name} address with its prefix ({example}), auto or none", "auto"),
        "dhcp": Key("bool", f"Serve {name} addresses", "true"),
        "dhcp.expiry": Key("string", "How long an address is lent: 1h, 30m, infinite", "1h"),
        "dhcp.ranges": Key("string", "Ranges of addresses to lend, separated by commas: FIRST-LAST", "the subnet"),
        "firewall": Key("bool", "Rules that let DHCP, DNS and routed traffic through", "true"),
        "nat": Key("bool", "Hide the subnet behind this host", "true where the address was chosen for you"),
        "nat.address": Key("string", "The source address of what goes out", "the outgoing interface's"),
        "nat.order": Key("string", "Before or after the rules of others", "before", ("before", "after")),
        "routes": Key("string", f"Further {name} subnets behind the bridge, separated by commas"),
        "routing": Key("bool", "Route to and from the bridge", "true"),
    }


BRIDGE: dict[str, Key] = {
    "bridge.driver": Key("string", "Always native: a bridge of the kernel", "native", ("native",)),
    "bridge.external_interfaces": Key("string", "Interfaces of this host, without addresses, that become ports"),
    "bridge.hwaddr": Key("string", "MAC address of the bridge", "chosen"),
    "bridge.mode": Key("string", "Always standard", "standard", ("standard",)),
    "bridge.mtu": Key("integer", "MTU of the bridge, 1280 to 65535", "1500"),
    "dns.domain": Key("string", "Domain of the instances", "lxpy"),
    "dns.mode": Key("string", "Names from lxpy (managed), from the guests (dynamic), or none", "managed",
                    ("managed", "dynamic", "none")),
    "dns.nameservers": Key("string", "DNS servers that DHCP tells of, separated by commas", "the bridge"),
    "dns.search": Key("string", "Search domains that DHCP tells of, separated by commas", "the domain"),
    **{f"ipv4.{name}": key for name, key in _family(4, "10.1.2.1/24").items()},
    "ipv4.dhcp.gateway": Key("string", "Another router than the bridge", "the bridge"),
    **{f"ipv6.{name}": key for name, key in _family(6, "fd42:1:2:3::1/64").items()},
    "ipv6.dhcp.stateful": Key("bool", "Addresses by DHCPv6 rather than SLAAC", "false"),
    "raw.dnsmasq": Key("string", "Further lines for dnsmasq's configuration"),
    "security.acls": Key("string", "Network ACLs for all nics, separated by commas"),
    "security.acls.default.egress.action": Key("string", "What becomes of sent traffic no rule names", "reject",
                                               _ACTION),
    "security.acls.default.egress.logged": Key("bool", "Log that", "false"),
    "security.acls.default.ingress.action": Key("string", "What becomes of received traffic no rule names", "reject",
                                                _ACTION),
    "security.acls.default.ingress.logged": Key("bool", "Log that", "false"),
    "user.NAME": Key("string", "Yours: only kept"),
}  # fmt: skip
