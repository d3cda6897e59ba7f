"""What containers get from the bridge: addresses, names, each other."""

import ipaddress
import json
import subprocess

from tests.support.daemon import Lxpyd, until


def test_names_resolve_from_other_containers(lxpyd: Lxpyd, name: str) -> None:
    one, two = f"{name}-a", f"{name}-b"
    lxpyd.cli("launch", "bb", one)
    lxpyd.cli("launch", "bb", two)
    address = lxpyd.wait_address(one)
    lxpyd.wait_address(two)
    for asked in (one, f"{one}.lxpy"):
        until(lambda asked=asked: address in _lookup(lxpyd, two, asked), 5, f"{asked} does not resolve")  # type: ignore[misc]
    assert lxpyd.sh(two, f"ping -c 1 -W 2 {one}", check=False).returncode == 0
    lxpyd.cli("delete", "-f", one)
    until(lambda: address not in _lookup(lxpyd, two, one), 5, "the name outlives it")


def _lookup(lxpyd: Lxpyd, inside: str, name: str) -> str:
    return lxpyd.sh(inside, f"nslookup {name}", check=False).stdout


def test_ipv6_by_router_advertisement(lxpyd: Lxpyd, busybox: str) -> None:
    found = until(lambda: lxpyd.addresses(busybox, "inet6"), 10, "no IPv6 address")
    prefix = ipaddress.ip_network(f"fd42:97:{lxpyd.number:x}::/64")
    assert ipaddress.ip_address(found[0]) in prefix


def test_static_address_and_mac(lxpyd: Lxpyd, name: str) -> None:
    address = lxpyd.address.rpartition(".")[0] + ".77"
    device = {"type": "nic", "network": lxpyd.bridge, "name": "eth0"}
    device |= {"ipv4.address": address, "hwaddr": "00:16:3e:aa:bb:cc"}
    lxpyd.cli("launch", "bb", name, input=json.dumps({"devices": {"eth0": device}}))
    assert lxpyd.wait_address(name) == address
    assert lxpyd.sh(name, "cat /sys/class/net/eth0/address").stdout.strip() == "00:16:3e:aa:bb:cc"
    assert f"00:16:3e:aa:bb:cc,{address},STATIC" in lxpyd.out("network", "list-leases", lxpyd.bridge, "-f", "csv")


def test_addresses_and_macs_stay_over_restarts(lxpyd: Lxpyd, busybox: str) -> None:
    address = lxpyd.wait_address(busybox)
    mac = lxpyd.sh(busybox, "cat /sys/class/net/eth0/address").stdout
    lxpyd.cli("restart", "-f", busybox)
    assert lxpyd.wait_address(busybox) == address
    assert lxpyd.sh(busybox, "cat /sys/class/net/eth0/address").stdout == mac


def test_the_host_end_goes_with_the_container(lxpyd: Lxpyd, name: str) -> None:
    def ports() -> str:
        return subprocess.run(
            ["ip", "-o", "link", "show", "master", lxpyd.bridge], capture_output=True, text=True
        ).stdout

    lxpyd.cli("launch", "bb", name)
    own = lxpyd.instance(name)["config"]["volatile.eth0.host_name"]
    assert own in ports()
    lxpyd.cli("stop", "-f", name)
    until(lambda: own not in ports(), 2, "the host's end of the link is left")


def test_network_commands(lxpyd: Lxpyd) -> None:
    assert lxpyd.bridge in lxpyd.out("network", "list", "-f", "csv")
    assert lxpyd.address in lxpyd.out("network", "show", lxpyd.bridge)
    assert lxpyd.bridge in lxpyd.out("network", "info", lxpyd.bridge)
    result = lxpyd.cli("network", "delete", lxpyd.bridge, check=False)
    assert result.returncode == 1 and "use" in result.stderr  # the default profile names it


def test_a_random_subnet_is_free(bare_lxpyd: Lxpyd) -> None:
    bare_lxpyd.cli("network", "create", bare_lxpyd.bridge)
    shown = bare_lxpyd.json("query", f"/1.0/networks/{bare_lxpyd.bridge}")["config"]
    assert shown["ipv4.address"].startswith("10.") and shown["ipv4.address"].endswith(".1/24")
    assert shown["ipv6.address"].startswith("fd42:") and shown["ipv6.address"].endswith("::1/64")


def test_the_guest_owns_its_nic_in_sys(lxpyd: Lxpyd, busybox: str) -> None:
    """Else its udev cannot ask for the nic's event, and systemd-networkd waits for that before it sets anything up."""
    assert lxpyd.out("exec", busybox, "--", "stat", "-c", "%u", "/sys/class/net/eth0/uevent").strip() == "0"
