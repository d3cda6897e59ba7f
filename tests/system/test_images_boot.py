"""What the recipes make is a system: it boots, has an address and a name, and nothing in it has failed."""

import json
import time

from tests.support.daemon import Lxpyd


def _until(lxpyd: Lxpyd, name: str, *command: str, want: str, seconds: float = 30) -> str:
    end, out = time.monotonic() + seconds, ""
    while time.monotonic() < end:
        out = lxpyd.cli("exec", name, "--", *command, check=False).stdout
        if want in out:
            return out
        time.sleep(0.1)
    raise AssertionError(f"{command} never said {want!r}: {out}")


def test_busybox_has_its_name_and_an_address(lxpyd: Lxpyd, busybox: str) -> None:
    assert lxpyd.cli("exec", busybox, "--", "hostname").stdout.strip() == busybox
    assert busybox in lxpyd.cli("exec", busybox, "--", "cat", "/etc/hosts").stdout
    _until(lxpyd, busybox, "ip", "-4", "addr", "show", "eth0", want="inet 10.97.")
    _until(lxpyd, busybox, "ip", "-6", "addr", "show", "eth0", want="inet6 fd42:")
    _until(lxpyd, busybox, "cat", "/etc/resolv.conf", want=f"nameserver {lxpyd.address}")
    lxpyd.cli("stop", busybox, "--timeout", "10")


def test_debian_reaches_running_with_no_failed_unit(lxpyd: Lxpyd, debian_image: str, name: str) -> None:
    lxpyd.cli("launch", debian_image, name)
    # Right after the launch there may be no bus yet to ask.
    end, state = time.monotonic() + 60, ""
    while state in ("", "offline", "initializing", "starting") and time.monotonic() < end:
        state = lxpyd.cli("exec", name, "--", "systemctl", "is-system-running", check=False).stdout.strip()
        time.sleep(0.05)
    failed = lxpyd.cli("exec", name, "--", "systemctl", "--failed", "--plain", "--no-legend", check=False).stdout
    assert (state, failed) == ("running", "")
    assert lxpyd.cli("exec", name, "--", "hostname").stdout.strip() == name
    assert len(lxpyd.cli("exec", name, "--", "cat", "/etc/machine-id").stdout.strip()) == 32
    _until(lxpyd, name, "ip", "-4", "addr", "show", "eth0", want="inet 10.97.")
    _until(lxpyd, name, "ip", "-6", "addr", "show", "eth0", want="inet6 fd42:")
    # The bridge's DNS, through resolved.
    _until(lxpyd, name, "getent", "hosts", name, want=name)
    _until(lxpyd, name, "resolvectl", "dns", "eth0", want=lxpyd.address)
    lxpyd.cli("exec", name, "--", "su", "-", "nobody", "-s", "/bin/sh", "-c", f"ping -c1 -W2 {lxpyd.address}")
    units = json.loads(lxpyd.cli("exec", name, "--", "systemctl", "list-units", "-o", "json").stdout)
    assert not [unit["unit"] for unit in units if unit["sub"] == "auto-restart"]
    lxpyd.cli("stop", name, "--timeout", "20")
