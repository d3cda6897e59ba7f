"""``lxpy doctor``, with the daemon alive and dead, and with things broken on purpose."""

import json
import subprocess
from typing import Any

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
    text = daemon.out("doctor")
    assert "✔ all seven kinds of namespaces can be made" in text and "lxpy works here" in text
    assert "\033" not in text
    # Dead: the same host, and nobody is woken.
    daemon.kill()
    found = _findings(daemon)
    assert found["daemon"]["status"] == "note" and found[f"bridge.{daemon.bridge}"]["status"] == "ok"
    daemon.start()


def test_what_is_broken_is_told(own_network: None, own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.kill()
    table = f"inet {daemon.layout.nft_table}"
    subprocess.run(["nft", f"delete table {table}"], check=True)
    subprocess.run(
        ["nft", "add table ip docker; add chain ip docker f { type filter hook forward priority 0; policy drop; }"],
        check=True,
    )
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
    assert "1 of these keep lxpy from working" in result.stdout
    wrong = lxpyd.cli("doctor", "-f", "xml", check=False)
    assert wrong.returncode == 1 and "unknown format 'xml'" in wrong.stderr


def test_as_a_user_without_rights(lxpyd: Lxpyd) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    result = subprocess.run(
        [*nobody, BIN / "lxpy", "doctor", "--fix"],
        env={**lxpyd.environment, "HOME": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 1 and "Only root can mend the host" in result.stderr
