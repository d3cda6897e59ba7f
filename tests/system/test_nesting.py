"""Containers inside containers: Docker, podman and lxpy itself. First: ``python -m tests.support.images nested``."""

import pathlib
import sysconfig

import pytest

from tests.support.daemon import Lxpyd, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

# An image for the inner ones, made on the spot: no registry is asked.
_IMAGE = """\
mkdir -p /root/r/bin && cp /bin/busybox /root/r/bin/
for name in sh id cat mount; do ln -sf busybox /root/r/bin/$name; done
tar -C /root/r -cf /root/image.tar .
"""


@pytest.fixture(scope="session")  # workers take tests from one another: the module may begin twice
def nested(lxpyd: Lxpyd) -> str:
    lxpyd.import_image("nested", "nested")
    return "nested"


def _boot(lxpyd: Lxpyd, name: str, image: str, volumes: dict[str, str], *options: str) -> None:
    lxpyd.cli("launch", image, name, "-c", "security.nesting=true", *options)
    for volume, path in volumes.items():
        lxpyd.cli("storage", "volume", "create", "plain", volume)
        lxpyd.cli("config", "device", "add", name, volume, "disk", "pool=plain", f"source={volume}", f"path={path}")

    def up() -> bool:
        state = lxpyd.cli("exec", name, "--", "systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    until(up, 60, "it does not boot")
    lxpyd.sh(name, _IMAGE)


def _gone(lxpyd: Lxpyd, name: str, *volumes: str) -> None:
    lxpyd.cli("delete", "-f", name)
    for volume in volumes:
        lxpyd.cli("storage", "volume", "delete", "plain", volume)


@pytest.mark.parametrize("driver", ["vfs", "overlay2"])
def test_docker(lxpyd: Lxpyd, name: str, nested: str, driver: str) -> None:
    """Unprivileged; `overlay2` on a directory volume, since an overlay takes no other as its upper layer."""
    _boot(lxpyd, name, nested, {f"{name}-v": "/var/lib/docker"})
    lxpyd.sh(name, f"setsid dockerd --storage-driver {driver} >/root/log 2>&1 </dev/null &")
    until(lambda: lxpyd.sh(name, "docker info", check=False).returncode == 0, 60, "dockerd does not answer")
    lxpyd.sh(name, "docker import /root/image.tar local/bb")
    text = lxpyd.sh(name, "docker run --rm local/bb /bin/sh -c 'id; cat /proc/net/dev; mount'").stdout
    assert "uid=0" in text and "eth0" in text and ("overlay on / " in text) == (driver == "overlay2")
    assert driver in lxpyd.sh(name, "docker info --format '{{.Driver}}'").stdout
    lxpyd.sh(name, "docker run -d --name keeps local/bb /bin/sh -c 'exec cat /dev/zero > /dev/null'")
    lxpyd.sh(name, "docker stop -t 1 keeps")
    _gone(lxpyd, name, f"{name}-v")


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_podman(lxpyd: Lxpyd, name: str, nested: str, driver: str) -> None:
    """Without a limit of processes, which needs a controller that guests of a hybrid cgroup host do not have."""
    _boot(lxpyd, name, nested, {f"{name}-v": "/var/lib/containers"})
    config = f'[storage]\\ndriver="{driver}"\\nrunroot="/run/c"\\ngraphroot="/var/lib/containers/storage"\\n'
    lxpyd.sh(name, f"printf '{config}' > /etc/containers/storage.conf")
    lxpyd.sh(name, "podman import /root/image.tar local/bb")
    text = lxpyd.sh(name, "podman run --rm --pids-limit 0 local/bb /bin/sh -c 'id; cat /proc/net/dev; mount'").stdout
    assert "uid=0" in text and "eth0" in text and ("overlay on / " in text) == (driver == "overlay")
    _gone(lxpyd, name, f"{name}-v")


def _inner(name: str, lxpyd: Lxpyd, checkout: pathlib.Path, command: str, check: bool = True) -> str:
    paths = f"{checkout}:{sysconfig.get_path('purelib')}"
    setting = f"cd /; export PYTHONPATH={paths} PYTHONDONTWRITEBYTECODE=1 LXPY_ACTIVATE=0"
    result = lxpyd.sh(name, f"{setting}; {command}", check=check)
    return result.stdout + result.stderr


def test_lxpy(lxpyd: Lxpyd, name: str, nested: str, checkout: pathlib.Path) -> None:
    """In a privileged one; the containers inside have id maps of their own again."""
    _boot(lxpyd, name, nested, {f"{name}-v": "/var/lib/lxpy"}, "-c", "security.privileged=true")
    shares = {"source": str(checkout), "packages": sysconfig.get_path("purelib")}
    for device, path in shares.items():
        options = [f"source={path}", f"path={path}", "readonly=true", "recursive=true"]
        lxpyd.cli("config", "device", "add", name, device, "disk", *options)
    lxpy = "python3 -m lxpy.cli.main"
    _inner(name, lxpyd, checkout, "setsid python3 -m lxpy.daemon.main >/root/log 2>&1 </dev/null & sleep 1")
    until(lambda: "auth: trusted" in _inner(name, lxpyd, checkout, f"{lxpy} info", check=False), 30, "no daemon inside")
    _inner(name, lxpyd, checkout, f"{lxpy} init --auto && {lxpy} launch builtin:busybox in1")
    assert "uid=0" in _inner(name, lxpyd, checkout, f"{lxpy} exec in1 -- id")
    first, base, _ = _inner(name, lxpyd, checkout, f"{lxpy} exec in1 -- cat /proc/self/uid_map").split()[:3]
    assert first == "0" and int(base) > 65536  # not the root of the container around it
    until(lambda: "eth0" in _inner(name, lxpyd, checkout, f"{lxpy} list"), 20, "no address inside")
    _inner(name, lxpyd, checkout, f"{lxpy} stop in1 && {lxpy} delete in1")
    _gone(lxpyd, name, f"{name}-v")


def test_lxpy_in_an_unprivileged_one_says_why_not(lxpyd: Lxpyd, name: str, nested: str, checkout: pathlib.Path) -> None:
    _boot(lxpyd, name, nested, {})
    for device, path in {"source": str(checkout), "packages": sysconfig.get_path("purelib")}.items():
        lxpyd.cli("config", "device", "add", name, device, "disk", f"source={path}", f"path={path}", "readonly=true")
    text = _inner(name, lxpyd, checkout, "python3 -m lxpy.daemon.main", check=False)
    assert text.count("\n") == 1 and "security.privileged=true" in text
    lxpyd.cli("delete", "-f", name)
