"""`images:` through our own `image serve`: the remote's URL is set to it, and both images start on both drivers."""

import signal
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until


@pytest.fixture(scope="module")
def served(lxpyd: Lxpyd, debian_image: str) -> Iterator[Lxpyd]:
    """A second daemon whose remote `images` is the first one's `image serve`."""
    for name, alias in (("bb", "busybox/1"), (debian_image, "debian/12")):
        fingerprint = lxpyd.json("query", f"/1.0/images/aliases/{name}")["target"]
        lxpyd.cli("image", "alias", "create", alias, fingerprint)
        image = lxpyd.json("query", f"/1.0/images/{fingerprint}")
        lxpyd.api("PUT", f"/1.0/images/{fingerprint}", {**image, "public": True})
    server = lxpyd.spawn("image", "serve", "--address", "127.0.0.1", "--port", "0")
    assert server.stdout
    url = server.stdout.readline().decode().split()[-1]
    other = Lxpyd("v", lxpyd.number + 50)
    try:
        other.start()
        other.initialise()
        other.cli("remote", "set-url", "images", url)
        yield other
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=10)
        other.destroy()
        for alias in ("busybox/1", "debian/12"):
            fingerprint = lxpyd.json("query", f"/1.0/images/aliases/{alias}")["target"]
            lxpyd.api("PATCH", f"/1.0/images/{fingerprint}", {"public": False})
            lxpyd.cli("image", "alias", "delete", alias)


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_busybox(served: Lxpyd, pool: str) -> None:
    name = f"b-{pool}"
    served.cli("launch", "images:busybox/1", name, "-s", pool)
    served.wait_address(name)
    served.cli("delete", "-f", name)


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_debian(served: Lxpyd, pool: str) -> None:
    name = f"d-{pool}"
    served.cli("launch", "images:debian/12", name, "-s", pool)
    until(lambda: served.sh(name, "test -S /run/systemd/private", check=False).returncode == 0, 20, "no systemd")
    state = served.cli(
        "exec", name, "--", "systemctl", "is-system-running", "--wait", check=False, timeout=60
    ).stdout.strip()
    failed = served.cli("exec", name, "--", "systemctl", "--failed", "--no-legend", "--plain", check=False).stdout
    assert (state, failed) == ("running", "")
    served.wait_address(name)
    assert served.sh(name, "hostname; cat /etc/hostname").stdout.split() == [name, name]
    served.cli("stop", name)
    served.cli("delete", name)


def test_without_a_release_the_newest_is_meant(served: Lxpyd) -> None:
    served.cli("create", "images:debian", "newest")
    assert served.instance("newest")["config"]["image.release"] in ("bookworm", "12")


def test_a_wrong_alias_names_the_nearest(served: Lxpyd) -> None:
    result = served.cli("launch", "images:debain/12", "x1", check=False)
    assert result.returncode == 1 and "debian/12" in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_a_server_that_is_away(served: Lxpyd) -> None:
    """Nothing listens there and nothing is cached: one line, which names what `builtin:` offers."""
    served.cli("remote", "add", "away", "http://127.0.0.1:1", "--protocol", "simplestreams")
    result = served.cli("launch", "away:alpine", "x1", check=False)
    assert result.returncode == 1 and result.stderr.count("\n") == 1, result.stderr
    assert "builtin:" in result.stderr
    served.cli("remote", "remove", "away")
