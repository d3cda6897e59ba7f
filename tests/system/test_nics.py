"""Nic devices of running containers."""

import subprocess
import time

from tests.support.daemon import Lxpyd, until


def _links(bridge: str) -> set[str]:
    shown = subprocess.run(["ip", "-o", "link", "show", "master", bridge], capture_output=True, text=True, check=True)
    return {line.split(": ")[1].partition("@")[0] for line in shown.stdout.splitlines()}


def test_a_nic_comes_and_goes_while_the_container_runs(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.wait_address(busybox)
    eth0 = lxpyd.instance(busybox)["config"]["volatile.eth0.host_name"]
    address = lxpyd.address.rpartition(".")[0] + ".78"
    nic = ("nic", f"network={lxpyd.bridge}", "name=eth1", f"ipv4.address={address}")
    lxpyd.cli("config", "device", "add", busybox, "extra", *nic)
    extra = lxpyd.instance(busybox)["config"]["volatile.extra.host_name"]
    assert {extra, eth0} <= _links(lxpyd.bridge)
    lxpyd.sh(busybox, f"ip addr add {address}/24 dev eth1")
    state = lxpyd.json("query", f"/1.0/instances/{busybox}/state")["network"]["eth1"]
    assert state["host_name"] == extra
    assert state["state"] == "up"
    until(
        lambda: subprocess.run(["busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0,
        5,
        "no answer",
    )

    # A second nic of that name inside is refused, and nothing has changed.
    refused = lxpyd.cli("config", "device", "add", busybox, "third", *nic[:-1], check=False)
    assert refused.returncode == 1 and "eth1" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert "third" not in lxpyd.instance(busybox)["devices"]
    assert not any("third" in key for key in lxpyd.instance(busybox)["config"])

    lxpyd.restart(kill=True)
    lxpyd.cli("config", "device", "remove", busybox, "extra")
    assert eth0 in _links(lxpyd.bridge) and extra not in _links(lxpyd.bridge)
    config = lxpyd.instance(busybox)["config"]
    assert "volatile.extra.host_name" not in config and config["volatile.eth0.host_name"] == eth0
    assert lxpyd.sh(busybox, "ls /sys/class/net").stdout.split() == ["eth0", "lo"]


def test_a_profile_gives_its_nic_to_running_containers(lxpyd: Lxpyd, busybox: str) -> None:
    profile = f"{busybox}-p"
    lxpyd.cli("profile", "create", profile)
    lxpyd.cli("profile", "add", busybox, profile)
    lxpyd.cli("profile", "device", "add", profile, "extra", "nic", f"network={lxpyd.bridge}", "name=eth7")
    assert "eth7" in lxpyd.sh(busybox, "ls /sys/class/net").stdout
    lxpyd.cli("profile", "device", "remove", profile, "extra")
    assert "eth7" not in lxpyd.sh(busybox, "ls /sys/class/net").stdout
    lxpyd.cli("profile", "remove", busybox, profile)
    lxpyd.cli("profile", "delete", profile)


def test_killed_amid_plugging(own_lxpyd: Lxpyd) -> None:
    """The next daemon has the nic plugged in if the record has it, and else nothing of it."""
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    begun = time.monotonic()
    daemon.cli("config", "device", "add", "a", "extra", "nic", f"network={daemon.bridge}", "name=eth1")
    whole = time.monotonic() - begun
    for n in range(8):
        there = "extra" in daemon.instance("a")["devices"]
        command = ("remove", "a", "extra") if there else ("add", "a", "extra", "nic", f"network={daemon.bridge}")
        process = daemon.spawn("config", "device", *command, *(() if there else ("name=eth1",)))
        time.sleep(whole * (0.3 + n * 0.09))
        daemon.kill()
        assert b"Traceback" not in process.communicate(timeout=30)[1]
        daemon.start()
        there = "extra" in daemon.instance("a")["devices"]
        links = 2 if there else 1
        until(lambda links=links: len(_links(daemon.bridge)) == links, 2, f"not {links} links")  # type: ignore[misc]
        seen = daemon.sh("a", "ls /sys/class/net").stdout.split()
        assert seen == (["eth0", "eth1", "lo"] if there else ["eth0", "lo"])


def test_two_running_ones_do_not_have_one_mac_address(lxpyd: Lxpyd, busybox: str) -> None:
    """They would get one IP address, too."""
    mac, name = "00:16:3e:5a:5b:5c", f"{busybox}2"
    lxpyd.cli("config", "device", "override", busybox, "eth0", f"hwaddr={mac}")
    lxpyd.cli("init", "bb", name, "-d", f"eth0,hwaddr={mac.upper()}")
    refused = lxpyd.cli("start", name, check=False)
    said = f"hwaddr={mac}: the address belongs to '{busybox}' on network '{lxpyd.bridge}' already"
    assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1
    lxpyd.cli("config", "device", "set", name, "eth0", "hwaddr=00:16:3e:5a:5b:5d")
    lxpyd.cli("start", name)
    before = lxpyd.instance(name)["devices"]
    assert said in lxpyd.cli("config", "device", "set", name, "eth0", f"hwaddr={mac}", check=False).stderr
    assert lxpyd.instance(name)["devices"] == before
    # One's own address is no other's; and what an earlier daemon allowed goes on.
    hosts = lxpyd.dir / "networks" / lxpyd.bridge / "dnsmasq.hosts"
    (hosts / "another.eth0").write_text(f"{mac},another\n")
    lxpyd.restart(kill=True)
    assert lxpyd.status(busybox) == lxpyd.status(name) == "RUNNING" and lxpyd.wait_address(busybox)
    (hosts / "another.eth0").unlink()
    # Given up by a stopped one, others may have it at once.
    lxpyd.cli("stop", "-f", busybox)
    lxpyd.cli("config", "device", "unset", busybox, "eth0", "hwaddr")
    lxpyd.cli("config", "device", "set", name, "eth0", f"hwaddr={mac}")
    lxpyd.cli("delete", "-f", name)
    assert not [file.name for file in hosts.iterdir() if mac in file.read_text()]


def test_instances_of_one_name_in_two_projects_have_their_own_addresses(lxpyd: Lxpyd, name: str) -> None:
    project, static = f"{name}.p", lxpyd.address.rpartition(".")[0]
    hosts = lxpyd.dir / "networks" / lxpyd.bridge / "dnsmasq.hosts"

    def reserved() -> set[str]:
        return {file.read_text().strip().split(",")[1] for file in hosts.glob(f"*{name}.eth0")}

    def leases() -> set[tuple[str, str, str]]:
        found = lxpyd.json("network", "list-leases", lxpyd.bridge, "-f", "json")
        return {(one["hostname"], one["address"], one["type"]) for one in found if one["hostname"] == name}

    lxpyd.cli("project", "create", project, "-c", "features.images=false", "-c", "features.profiles=false")
    try:
        lxpyd.cli("launch", "bb", name, "-d", f"eth0,ipv4.address={static}.191")
        refused = lxpyd.cli(
            "launch", "bb", name, "--project", project, "-d", f"eth0,ipv4.address={static}.191", check=False
        )
        assert f"ipv4.address={static}.191: the address belongs to '{name}' on network" in refused.stderr
        lxpyd.cli("config", "device", "set", name, "eth0", f"ipv4.address={static}.192", "--project", project)
        lxpyd.cli("start", name, "--project", project)
        assert reserved() == {f"{static}.191", f"{static}.192"}
        assert leases() >= {(name, f"{static}.191", "static"), (name, f"{static}.192", "static")}
        lxpyd.cli("delete", "-f", name, "--project", project)
        assert reserved() == {f"{static}.191"}
        lxpyd.cli("delete", "-f", name)
        assert reserved() == set()
    finally:
        lxpyd.cli("delete", "-f", name, "--project", project, check=False)
        lxpyd.cli("project", "delete", project)
