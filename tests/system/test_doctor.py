"""``lxpy doctor``, with the daemon alive and dead, and with things broken on purpose."""

import contextlib
import json
import os
import pathlib
import subprocess
from typing import Any

import pytest

from lxpy.host import sysctls
from tests.support.daemon import BIN, Lxpyd, until


def _findings(daemon: Lxpyd, *args: str, status: int = 0) -> dict[str, dict[str, Any]]:
    result = daemon.cli("doctor", "-f", "json", *args, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    found = json.loads(result.stdout)
    assert len({one["id"] for one in found}) == len(found)
    return {one["id"]: one for one in found}


def test_a_host_that_works(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    found = _findings(daemon)
    good = ("daemon", "kernel.namespaces", "kernel.seccomp", "fs.idmap", "fs.overlay", "tool.dnsmasq", "leftovers")
    assert {one: found[one]["status"] for one in (*good, f"bridge.{daemon.bridge}")} == dict.fromkeys(
        (*good, f"bridge.{daemon.bridge}"), "ok"
    )
    assert "answers DNS" in found[f"bridge.{daemon.bridge}"]["seen"]
    assert {"tool.xdelta3", "tool.openssl", "fs.squashfs", "cgroups.layout", "ids", "disk", "clock"} - found.keys() <= {
        "fs.squashfs"  # told only where it is missing
    }
    text = daemon.out("doctor")
    assert "✔ all seven kinds of namespaces can be made" in text and "lxpy works here" in text
    assert "\033" not in text
    # Dead: the same host, and nobody is woken.
    daemon.kill()
    found = _findings(daemon)
    assert found["daemon"]["seen"] == "lxpyd does not answer (Connection refused)"
    assert found["daemon"]["status"] == "note" and found[f"bridge.{daemon.bridge}"]["status"] == "ok"
    daemon.start()


def test_file_systems_of_pools(own_lxpyd: Lxpyd) -> None:
    """Each is tried and measured once, wherever it lies; one that is full stops only itself."""
    daemon = own_lxpyd
    daemon.cli("storage", "create", "bt", "btrfs", "size=300MiB")
    disk, place = daemon.dir / "away.img", daemon.dir / "away"
    with disk.open("wb") as file:
        file.truncate(200 << 20)
    subprocess.run(["mkfs.btrfs", "-q", disk], check=True)
    place.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    (place / "pool").mkdir()
    try:
        daemon.cli("storage", "create", "away", "dir", f"source={place / 'pool'}")
        found = _findings(daemon)
        assert found["disk.bt"]["status"] == found["fs.idmap.bt"]["status"] == "ok"
        assert str(place) in found["disk.away"]["seen"] and "fs.idmap.plain" not in found
        with contextlib.suppress(OSError), (place / "full").open("wb") as file:
            file.write(os.urandom(200 << 20))
        full = _findings(daemon)["disk.away"]
        assert full["status"] == "warning" and "lxpy storage info away" in full["todo"]
        daemon.kill()
        assert "disk.bt" in _findings(daemon)
        daemon.start()
        daemon.cli("storage", "delete", "away")
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()
        disk.unlink()


def test_what_is_broken_is_told(own_network: None, own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.kill()
    table = f"inet {daemon.layout.nft_table}"
    subprocess.run(["nft", f"delete table {table}"], check=True)
    _nft(
        "add table ip docker", "add chain ip docker DOCKER-USER",
        "add chain ip docker f { type filter hook forward priority 0; policy drop; }",
        "add rule ip docker f jump DOCKER-USER",
    )  # fmt: skip
    try:
        found = _findings(daemon)
        assert found["firewall.table"]["status"] == "warning"
        assert "DOCKER-USER" in found["firewall.forward"]["todo"]
        subprocess.run(["ip", "link", "delete", daemon.bridge], check=True)
        assert _findings(daemon)[f"bridge.{daemon.bridge}"]["status"] == "warning"
    finally:
        subprocess.run(["nft", "delete table ip docker"], check=True)
        daemon.start()
    until(lambda: _findings(daemon)[f"bridge.{daemon.bridge}"]["status"] == "ok", 5, "the bridge is not mended")


def test_what_stops_lxpy_gives_status_1(lxpyd: Lxpyd) -> None:
    """Without dnsmasq; as nobody; and with words that mean nothing."""
    hide = ["unshare", "--mount", "sh", "-c", 'mount --bind /dev/null "$(command -v dnsmasq)"; exec "$@"', "sh"]
    result = subprocess.run(
        [*hide, BIN / "lxpy", "doctor"], env=lxpyd.environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "✘ dnsmasq is missing" in result.stdout and "apt install dnsmasq-base" in result.stdout
    assert "One of these keeps lxpy from working" in result.stdout
    wrong = lxpyd.cli("doctor", "-f", "xml", check=False)
    assert wrong.returncode == 1 and "unknown format 'xml'" in wrong.stderr


def test_ids_that_belong_to_somebody_else(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    first = int(lxpyd.environment["LXPY_IDMAP"].partition(":")[0])
    (tmp_path / "subuid").write_text(
        f"root:{first}:65536\nsomeone:{first + 65536}:65536\nother:{first - 65536}:65536\n"
    )
    script = f'mount --bind {tmp_path}/subuid /etc/subuid; exec "$@" doctor -f json'
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", BIN / "lxpy"], env=lxpyd.environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    found = next(one for one in json.loads(result.stdout) if one["id"] == "ids")
    assert found["status"] == "warning" and "someone:" in found["seen"] and "other:" not in found["seen"]


def test_as_a_user_without_rights(lxpyd: Lxpyd) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    result = subprocess.run(
        [*nobody, BIN / "lxpy", "doctor", "--fix"],
        env={**lxpyd.environment, "HOME": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Only root can mend the host" in result.stderr


def _nft(*commands: str) -> None:
    subprocess.run(["nft", "-f", "-"], input="\n".join(commands) + "\n", text=True, check=True)


_UFW = (
    "add table ip filter", "add chain ip filter ufw-user-input", "add chain ip filter ufw-user-forward",
    "add chain ip filter INPUT { type filter hook input priority 0; policy drop; }",
    "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
    "add rule ip filter INPUT jump ufw-user-input", "add rule ip filter FORWARD jump ufw-user-forward",
)  # fmt: skip
_FIREWALLD = (
    "add table inet firewalld",
    "add chain inet firewalld filter_INPUT { type filter hook input priority 10; }",
)
_OWN = ("add table inet own", "add chain inet own f { type filter hook forward priority 5; policy drop; }")


@pytest.mark.parametrize(
    ("others", "expected", "chains"),
    [
        (_UFW,
         {"firewall.forward": ("ufw does this", "ufw route allow in on {}"),
          "firewall.input": ("drops what comes in", "ufw allow in on {}")},
         ("ip filter ufw-user-input", "ip filter ufw-user-forward")),
        (_FIREWALLD, {"firewall.firewalld": ("firewalld runs", "--zone=trusted --add-interface={}")},
         ("inet firewalld filter_INPUT",)),
        (_OWN, {"firewall.forward": ("inet own f drops", 'insert rule inet own f iifname "{}" accept')},
         ("inet own f",)),
    ],
    ids=["ufw", "firewalld", "own"],
)  # fmt: skip
def test_other_firewalls(
    own_network: None,
    own_lxpyd: Lxpyd,
    others: tuple[str, ...],
    expected: dict[str, tuple[str, str]],
    chains: tuple[str, ...],
) -> None:
    daemon = own_lxpyd
    _nft(*others)
    found = _findings(daemon)
    for finding, (seen, todo) in expected.items():
        assert found[finding]["status"] == "warning" and seen in found[finding]["seen"]
        assert todo.format(daemon.bridge) in found[finding]["todo"]
    # A rule that names the bridge, where the chain leads to it, is all that is asked for.
    _nft(*(f'add rule {chain} iifname "{daemon.bridge}" accept' for chain in chains))
    assert _findings(daemon)["firewall"]["status"] == "ok"


def test_the_older_iptables_and_docker(own_network: None, own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """`--fix` opens what it may, on the real firewall; of the limits it sees copies, which are all it can change."""
    daemon = own_lxpyd
    daemon.kill()  # its guard would have opened Docker's chain already
    for command in ("-P FORWARD DROP", "-P INPUT DROP", "-N DOCKER-USER", "-A FORWARD -j DOCKER-USER"):
        subprocess.run(["iptables-legacy", *command.split()], check=True)
    _nft(
        "add table ip filter", "add chain ip filter DOCKER-USER",
        "add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }",
        "add rule ip filter FORWARD jump DOCKER-USER",
    )  # fmt: skip
    found = _findings(daemon)
    assert "iptables-legacy FORWARD drops" in found["firewall.forward.2"]["seen"]
    assert f"iptables-legacy -I INPUT -i {daemon.bridge} -j ACCEPT" in found["firewall.input"]["todo"]
    binds = []
    for sysctl in sysctls.WANTED:
        path = pathlib.Path("/proc/sys", *sysctl.name.split("."))
        if path.exists():
            copy = tmp_path / sysctl.name
            copy.write_text("100\n")
            binds.append(f"mount --bind {copy} {path}")
    script = " && ".join([*binds, "mkdir -p /etc/sysctl.d", f"mount --bind {tmp_path} /etc/sysctl.d", 'exec "$@"'])
    fixed = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", BIN / "lxpy", "doctor", "--fix", "-f", "json"],
        env=daemon.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert fixed.returncode == 0, fixed.stderr
    assert f"kernel.pid_max: 100 -> 131072 (kept in {sysctls.CONF})" in fixed.stderr
    assert "kernel.pid_max = 131072\n# was 100" in (tmp_path / pathlib.Path(sysctls.CONF).name).read_text()
    for chain in ("ip filter FORWARD", "iptables-legacy FORWARD"):
        assert f"{daemon.bridge}: {chain} lets it pass now" in fixed.stderr
    after = {one["id"] for one in json.loads(fixed.stdout)}
    assert "firewall.input" in after and "firewall.forward" not in after and "limits" in after
    # The daemon takes the rules for its own: they are not there twice.
    daemon.start()
    listing = subprocess.check_output(["nft", "list", "chain", "ip", "filter", "DOCKER-USER"], text=True)
    assert listing.count(f'iifname "{daemon.bridge}"') == 1


def test_dns_that_does_not_answer(own_network: None, own_lxpyd: Lxpyd) -> None:
    _nft(
        "add table inet deaf",
        "add chain inet deaf i { type filter hook input priority -5; }",
        "add rule inet deaf i udp dport 53 drop",
    )
    found = _findings(own_lxpyd)[f"dns.{own_lxpyd.bridge}"]
    assert found["status"] == "warning" and "nothing answers DNS" in found["seen"]
    _nft("delete table inet deaf")
    assert "answers DNS" in _findings(own_lxpyd)[f"bridge.{own_lxpyd.bridge}"]["seen"]


def test_leftovers_are_found_and_the_daemon_clears_them(own_network: None, own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.kill()
    layout = daemon.layout
    pool = pathlib.Path(layout.pools) / "default"
    (pool / "tmp" / "half").mkdir(parents=True, exist_ok=True)
    run = pathlib.Path(layout.instances) / "4711"
    run.mkdir(parents=True)
    (run / "state.json").write_text(json.dumps({"supervisor": 999999999, "init": 999999999, "start": 1}))
    subprocess.run(["ip", "link", "add", "lxstray", "type", "veth", "peer", "name", "lxstray2"], check=True)
    subprocess.run(["ip", "link", "set", "lxstray", "master", daemon.bridge], check=True)
    found = _findings(daemon)
    for what in (f"1 in {pool}/tmp", f"the run directory {run}"):
        assert what in found["leftovers"]["seen"]
    assert "lxstray in" in found["leftovers.strangers"]["seen"]
    assert found["leftovers.strangers"]["todo"] == "ip link delete lxstray"
    subprocess.run(["ip", "link", "delete", "lxstray"], check=True)
    daemon.start()
    until(lambda: _findings(daemon)["leftovers"]["status"] == "ok", 5, "the daemon has not cleared them")


def test_a_table_of_no_network_is_left_over(own_network: None, bare_lxpyd: Lxpyd) -> None:
    daemon = bare_lxpyd
    daemon.kill()
    _nft(f"add table inet {daemon.layout.nft_table}")
    found = _findings(daemon)["leftovers.strangers"]
    assert "of no network" in found["seen"]
    subprocess.run(found["todo"].split(), check=True)
    assert _findings(daemon)["leftovers"]["status"] == "ok"
    daemon.start()
