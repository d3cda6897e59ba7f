"""A stop never hangs: it asks, escalates within its time, and says what it waited for."""

import pathlib
import time

import pytest

from tests.support import hungfs
from tests.support.daemon import Lxpyd, until


def _stop(lxpyd: Lxpyd, name: str, *options: str) -> tuple[float, str]:
    begun = time.monotonic()
    result = lxpyd.cli("stop", name, *options)
    return time.monotonic() - begun, result.stderr


def test_busybox_goes_when_it_is_asked(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.wait_address(busybox)
    took, said = _stop(lxpyd, busybox)
    assert took < 8 and said == ""


def test_an_init_that_ignores_everything(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    lxpyd.cli("start", name)
    script = "#!/bin/sh\\ntrap : 1 2 3 15 30 10 12 37\\nwhile :; do sleep 1; done\\n"
    lxpyd.sh(name, f"rm /sbin/init; printf '{script}' > /sbin/init; chmod 755 /sbin/init")
    lxpyd.cli("restart", "-f", name)
    took, said = _stop(lxpyd, name, "--timeout", "1")
    assert took < 8 and f"{name} did not shut down within 1 s (still running: init (" in said, said
    assert lxpyd.status(name) == "STOPPED"


def test_its_own_time_limit(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "boot.host_shutdown_timeout=1")
    lxpyd.sh(name, "echo '::shutdown:/bin/sleep 60' >> /etc/inittab; kill -HUP 1; sleep 0.3")
    took, said = _stop(lxpyd, name)
    assert took < 8 and "within 1 s" in said


@pytest.mark.parametrize("force", [False, True])
def test_a_frozen_one(lxpyd: Lxpyd, busybox: str, force: bool) -> None:
    lxpyd.cli("pause", busybox)
    took, said = _stop(lxpyd, busybox, *(["-f"] if force else []))
    assert took < 8 and said == "" and lxpyd.status(busybox) == "STOPPED"


def test_what_waits_in_the_kernel(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    """A file server that does not answer holds a process where no signal reaches it."""
    point = tmp_path / "hung"
    point.mkdir()
    with hungfs.mounted(point):
        lxpyd.cli("launch", "bb", name)
        lxpyd.cli("config", "device", "add", name, "h", "disk", f"source={point}", "path=/h", "shift=false")
        lxpyd.sh(name, "cat /h/file >/dev/null 2>&1 </dev/null & sleep 0.3")
        begun = time.monotonic()
        result = lxpyd.cli("stop", name, "--timeout", "1", check=False)
        assert result.returncode == 1 and time.monotonic() - begun < 20
        assert result.stderr.startswith(f"Error: {name} has been killed and is not gone after 10 s"), result.stderr
        assert "on behalf of cat (" in result.stderr and result.stderr.count("\n") == 1
    until(lambda: lxpyd.status(name) == "STOPPED", 10, "it does not end when it could")
    lxpyd.cli("start", name, check=False)
    lxpyd.cli("delete", "-f", name)


@pytest.mark.timeout(120)
def test_systemd_goes_when_it_is_asked(lxpyd: Lxpyd, name: str, debian_image: str) -> None:
    lxpyd.cli("launch", debian_image, name)
    time.sleep(0.2)  # in the middle of its boot
    took, said = _stop(lxpyd, name)
    assert took < 30 and said == "", said
