"""Device nodes of the host in instances: unix-char, unix-block, unix-hotplug, usb, gpu; plugged, unplugged, told of."""

import contextlib
import fcntl
import os
import pathlib
import stat
from collections.abc import Iterator

import pytest

from lxpy.host import hardware
from lxpy.linux import cgroups, uevents
from tests.support import peers
from tests.support.daemon import Lxpyd, until

_VT_DISALLOCATE = 0x5608  # include/uapi/linux/vt.h


def _stat(lxpyd: Lxpyd, name: str, path: str) -> str:
    """Kind, numbers (hexadecimal), owner and mode of a node inside; empty when there is nothing."""
    return lxpyd.sh(name, f"stat -c '%F %t:%T %u:%g %a' {path}", check=False).stdout.strip()


def _rules(lxpyd: Lxpyd, name: str) -> list[str]:
    root = cgroups.hierarchies().v1["devices"]
    return pathlib.Path(f"{root}/{lxpyd.layout.cgroup_prefix}.payload.{name}/devices.list").read_text().splitlines()


def _add(lxpyd: Lxpyd, name: str, device: str, keys: str) -> None:
    lxpyd.cli("config", "device", "add", name, device, *keys.split())


@pytest.fixture
def zram() -> Iterator[pathlib.Path]:
    """Where a block device will be once it is made by writing to nothing: see `_make`."""
    control = pathlib.Path("/sys/class/zram-control")
    number = int((control / "hot_add").read_text())
    (control / "hot_remove").write_text(str(number))
    path = pathlib.Path(f"/dev/zram{number}")
    yield path
    if path.exists():
        (control / "hot_remove").write_text(str(number))


def _make(zram: pathlib.Path) -> None:
    while not zram.exists():  # another test may have taken, and given back, a number meanwhile
        pathlib.Path("/sys/class/zram-control/hot_add").read_text()


def _unmake(zram: pathlib.Path) -> None:
    pathlib.Path("/sys/class/zram-control/hot_remove").write_text(zram.name.removeprefix("zram"))


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_a_node_at_the_start_and_while_running(lxpyd: Lxpyd, name: str, privileged: str) -> None:
    lxpyd.cli("init", "bb", name, "-c", f"security.privileged={privileged}")
    _add(lxpyd, name, "z", "unix-char source=/dev/zero path=/dev/sub/zeros uid=7 gid=8 mode=0604")
    _add(lxpyd, name, "n", "unix-char path=/opt/numbers major=1 minor=9")
    lxpyd.cli("start", name)
    assert _stat(lxpyd, name, "/dev/sub/zeros") == "character special file 1:5 7:8 604"
    assert len(lxpyd.sh(name, "head -c 4 /opt/numbers | od -An -tx1").stdout.split()) == 4
    # What was plugged in opens, with the owner that was asked for; its rule is there as long as it is.
    assert "c 10:237 rwm" not in _rules(lxpyd, name)
    _add(lxpyd, name, "k", "unix-char source=/dev/loop-control path=/dev/control")
    assert "c 10:237 rwm" in _rules(lxpyd, name)
    assert lxpyd.sh(name, "exec 3<> /dev/control").returncode == 0
    lxpyd.cli("config", "device", "set", name, "k", "mode=0600", "uid=3")
    assert _stat(lxpyd, name, "/dev/control") == "character special file a:ed 3:0 600"
    lxpyd.cli("restart", "-f", name)
    assert _stat(lxpyd, name, "/dev/control") == "character special file a:ed 3:0 600"
    lxpyd.sh(name, "sleep 1000 3< /dev/control > /dev/null 2>&1 &")  # open inside: it goes all the same
    lxpyd.cli("config", "device", "remove", name, "k")
    assert _stat(lxpyd, name, "/dev/control") == ""
    assert "c 10:237 rwm" not in _rules(lxpyd, name)
    assert _stat(lxpyd, name, "/dev/sub/zeros").startswith("character")
    lxpyd.cli("stop", "-f", name)
    config = lxpyd.json("query", f"/1.0/instances/{name}")["config"]
    assert not [key for key in config if key.endswith(".nodes")]
    lxpyd.cli("rename", name, f"{name}-b")
    lxpyd.cli("start", f"{name}-b")
    assert _stat(lxpyd, f"{name}-b", "/dev/sub/zeros") == "character special file 1:5 7:8 604"


def test_what_the_guest_has_done_at_its_place(lxpyd: Lxpyd, busybox: str) -> None:
    """Nothing outside is touched by links inside, and a file of the guest's own is not taken for the node's."""
    lxpyd.sh(busybox, "ln -s /proc/1/root/etc /dev/out; mkdir /d; echo mine > /d/f; ln -s /nowhere/at/all /d/l")
    _add(lxpyd, busybox, "a", "unix-char source=/dev/zero path=/d/f")
    assert _stat(lxpyd, busybox, "/d/f").startswith("character special file 1:5")
    lxpyd.cli("config", "device", "remove", busybox, "a")
    assert lxpyd.sh(busybox, "cat /d/f").stdout == "mine\n"
    failed = lxpyd.cli(
        "config", "device", "add", busybox, "a", "unix-char", "source=/dev/zero", "path=/d/l", check=False
    )
    assert failed.returncode == 1
    assert "link" in failed.stderr
    assert not lxpyd.json("query", f"/1.0/instances/{busybox}")["devices"]
    # Taken away inside, it can still be removed; and a second one in the same place is refused.
    _add(lxpyd, busybox, "a", "unix-char source=/dev/zero path=/dev/a")
    lxpyd.sh(busybox, "umount /dev/a; rm /dev/a")
    again = lxpyd.cli(
        "config", "device", "add", busybox, "b", "unix-char", "path=/dev/./a", "major=1", "minor=3", check=False
    )
    assert again.returncode == 1
    assert "both be mounted at /dev/a" in again.stderr
    lxpyd.cli("config", "device", "remove", busybox, "a")


def test_a_block_device_that_comes_and_goes(lxpyd: Lxpyd, busybox: str, zram: pathlib.Path) -> None:
    missing = lxpyd.cli("config", "device", "add", busybox, "d", "unix-block", f"source={zram}", check=False)
    assert missing.returncode == 1
    assert f"Missing {zram}" in missing.stderr
    assert "required=false" in missing.stderr
    _add(lxpyd, busybox, "d", f"unix-block source={zram} path=/dev/disk required=false")
    assert _stat(lxpyd, busybox, "/dev/disk") == ""
    _make(zram)
    until(lambda: _stat(lxpyd, busybox, "/dev/disk").startswith("block special file"), 10, "it did not come")
    assert lxpyd.sh(busybox, "dd if=/dev/disk of=/dev/null count=0").returncode == 0
    _unmake(zram)
    until(lambda: _stat(lxpyd, busybox, "/dev/disk") == "", 10, "it did not go")
    # While no daemon runs it comes, too: the next one looks.
    lxpyd.kill()
    _make(zram)
    lxpyd.start()
    until(lambda: _stat(lxpyd, busybox, "/dev/disk").startswith("block special file"), 10, "it did not come")
    lxpyd.cli("restart", "-f", busybox)
    assert _stat(lxpyd, busybox, "/dev/disk").startswith("block special file")
    lxpyd.cli("stop", "-f", busybox)
    _unmake(zram)
    lxpyd.cli("start", busybox)
    assert _stat(lxpyd, busybox, "/dev/disk") == ""


def test_a_node_made_by_hand_is_waited_for(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "dir" / "node"
    _add(lxpyd, busybox, "h", f"unix-char source={place} path=/dev/hand required=false mode=0644")
    place.parent.mkdir()
    os.mknod(place, 0o600 | stat.S_IFCHR, os.makedev(1, 5))
    until(lambda: _stat(lxpyd, busybox, "/dev/hand") == "character special file 1:5 0:0 644", 10, "it did not come")
    place.unlink()
    until(lambda: _stat(lxpyd, busybox, "/dev/hand") == "", 10, "it did not go")


def test_hotplug_by_subsystem_and_by_ids(lxpyd: Lxpyd, busybox: str) -> None:
    """Virtual consoles have nodes that come and go; the machine's disk has a vendor and a product."""
    number = 40 + lxpyd.number % 20
    inside = f"/dev/vcs{number}"
    _add(lxpyd, busybox, "v", "unix-hotplug subsystem=vc mode=0640 gid=5")
    assert _stat(lxpyd, busybox, inside) == ""
    heard = peers.inside(lxpyd.init_pid(busybox), uevents.listen)  # as udev inside would
    os.close(os.open(f"/dev/tty{number}", os.O_RDWR | os.O_NOCTTY))
    wanted = f"character special file 7:{number:x} 0:5 640"
    until(lambda: _stat(lxpyd, busybox, inside) == wanted, 10, "it did not come")
    console = os.open("/dev/tty1", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(console, _VT_DISALLOCATE, number)
    os.close(console)
    until(lambda: _stat(lxpyd, busybox, inside) == "", 10, "it did not go")
    told: list[str] = []

    def both() -> bool:
        with contextlib.suppress(BlockingIOError):
            event = uevents.parse(heard.recv(8192))
            if event.get("DEVNAME") == f"vcs{number}" and event["SUBSYSTEM"] == "vc" and event["SEQNUM"]:
                told.append(event["ACTION"])
        return told == ["add", "remove"]

    until(both, 10, "the instance was not told", every=0.001)
    heard.close()
    ids = {(vendor, product) for path in pathlib.Path("/sys/block").glob("*/device")
           if (vendor := _hex(path / "vendor")) and (product := _hex(path / "device"))}  # fmt: skip
    assert ids, "no disk of this machine has a vendor: nothing to match"
    vendor, product = sorted(ids)[0]
    _add(lxpyd, busybox, "d", f"unix-hotplug vendorid={vendor.upper()} productid={product} required=true mode=0400")
    for node in hardware.by_ids(vendor, product):
        assert _stat(lxpyd, busybox, f"/dev/{node.name}").endswith(f" {node.major:x}:{node.minor:x} 0:0 400")
    lxpyd.cli("config", "device", "remove", busybox, "d")
    assert not lxpyd.sh(busybox, "find /dev -type b").stdout


def _hex(path: pathlib.Path) -> str:
    text = path.read_text().strip() if path.exists() else ""
    return f"{int(text, 16):04x}" if text.startswith("0x") else ""


def test_what_this_host_has_not(lxpyd: Lxpyd, busybox: str) -> None:
    """No USB and no graphics card here: not required it waits, required it is refused."""
    _add(lxpyd, busybox, "u", "usb vendorid=1d6b productid=ffff")
    assert not lxpyd.sh(busybox, "find /dev/bus", check=False).stdout
    for keys, word in (
        ("usb vendorid=1d6b productid=ffff required=true", "USB device"),
        ("gpu vendorid=ffff", "graphics card"), ("unix-hotplug subsystem=nosuch required=true", "device"),
    ):  # fmt: skip
        failed = lxpyd.cli("config", "device", "add", busybox, "g", *keys.split(), check=False)
        assert failed.returncode == 1
        assert f"No {word} of this host" in failed.stderr
    lxpyd.cli("stop", "-f", busybox)
    _add(lxpyd, busybox, "g", "gpu gputype=physical vendorid=ffff")  # stopped, it may be written; it does not start
    failed = lxpyd.cli("start", busybox, check=False)
    assert failed.returncode == 1
    assert "No graphics card of this host is what device 'g' asks for" in failed.stderr
    assert lxpyd.status(busybox) == "STOPPED"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ("unix-char", "Missing source or path"),
        ("unix-char source=dev/zero", "absolute path"),
        ("unix-char source=/dev/../etc/passwd", "absolute path"),
        ("unix-char source=/dev/zero path=/", "absolute path"),
        ("unix-char source=/etc/passwd", "not a device node"),
        ("unix-block source=/dev/zero", "use type=unix-char"),
        ("unix-char source=/dev/zero mode=0999", "octal"),
        ("unix-char source=/dev/zero mode=4755", "octal"),
        ("unix-char source=/dev/zero uid=-1", "whole number"),
        ("unix-char source=/dev/zero uid=70000", "has the ids 0 to 65535"),
        ("unix-char source=/dev/zero gid=x", "whole number"),
        ("unix-char path=/dev/x major=1", "both major and minor"),
        ("unix-char path=/dev/x major=99999 minor=1", "whole number up to"),
        ("unix-char source=/dev/zero required=maybe", "boolean"),
        ("unix-char source=/dev/zero requird=true", "did you mean 'required'"),
        ("unix-hotplug", "Missing vendorid, productid or subsystem"),
        ("unix-hotplug vendorid=1d6", "four hexadecimal digits"),
        ("unix-hotplug subsystem=../x", "kernel's name"),
        ("usb productid=zzzz", "four hexadecimal digits"),
        ("usb busnum=0x1", "whole number"),
        ("usb devnum=300", "whole number"),
        ("gpu gputype=mdev", "virtual machines"),
        ("gpu gputype=sriov", "SR-IOV"),
        ("gpu gputype=mig", "MIG"),
        ("gpu mig.ci=1", "MIG"),
        ("gpu id=0 pci=0000:01:00.0", "Both id and pci"),
        ("gpu id=card0", "number of a card"),
        ("gpu pci=1:0.0", "address such as"),
        ("tpm path=/dev/tpm0", "type=unix-char"),
        ("pci address=0000:01:00.0", "virtual machines"),
        ("infiniband nictype=physical parent=ib0", "InfiniBand"),
        ("none source=/dev/zero", "Unknown key"),
    ],
)
def test_bad_input(lxpyd: Lxpyd, bad_target: str, keys: str, reason: str) -> None:
    before = lxpyd.json("query", f"/1.0/instances/{bad_target}")
    failed = lxpyd.cli("config", "device", "add", bad_target, "x", *keys.split(), check=False)
    assert failed.returncode == 1
    assert reason in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    after = lxpyd.json("query", f"/1.0/instances/{bad_target}")
    assert (after["devices"], after["config"]) == (before["devices"], before["config"])


@pytest.fixture(scope="module")
def bad_target(lxpyd: Lxpyd) -> Iterator[str]:
    lxpyd.cli("launch", "bb", "nodes-bad")
    yield "nodes-bad"
    lxpyd.cli("delete", "-f", "nodes-bad")


def test_none_masks_a_node_of_a_profile(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "device", "add", name, "z", "unix-char", "source=/dev/zero", "path=/dev/z")
    lxpyd.cli("launch", "bb", f"{name}-a", "-p", "default", "-p", name)
    lxpyd.cli("launch", "bb", f"{name}-b", "-p", "default", "-p", name)
    try:
        assert _stat(lxpyd, f"{name}-b", "/dev/z").startswith("character")
        lxpyd.cli("config", "device", "add", f"{name}-b", "z", "none")
        assert _stat(lxpyd, f"{name}-b", "/dev/z") == ""
        lxpyd.cli("profile", "device", "set", name, "z", "mode=0604")
        assert _stat(lxpyd, f"{name}-a", "/dev/z").endswith(" 604")
        assert _stat(lxpyd, f"{name}-b", "/dev/z") == ""
        lxpyd.cli("config", "device", "remove", f"{name}-b", "z")
        assert _stat(lxpyd, f"{name}-b", "/dev/z").endswith(" 604")
    finally:
        lxpyd.sweep(name)
        lxpyd.cli("profile", "delete", name)


def test_projects_that_forbid_nodes(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("project", "create", name, "-c", "features.images=false", "-c", "features.profiles=false")
    try:
        lxpyd.cli("project", "set", name, "restricted=true", "restricted.devices.nic=allow")
        lxpyd.cli("init", "bb", name, "--project", name)
        for kind, keys in (
            ("unix-char", "source=/dev/zero path=/dev/z"), ("unix-block", "source=/dev/loop0"),
            ("usb", "vendorid=1d6b"), ("unix-hotplug", "subsystem=vc"), ("gpu", "id=0"),
        ):  # fmt: skip
            line = ("config", "device", "add", name, kind, kind, *keys.split(), "--project", name)
            failed = lxpyd.cli(*line, check=False)
            assert failed.returncode == 1
            assert f"restricted.devices.{kind}" in failed.stderr
            lxpyd.cli("project", "set", name, f"restricted.devices.{kind}=allow")
            lxpyd.cli(*line)
    finally:
        lxpyd.cli("delete", "-f", name, "--project", name)
        lxpyd.cli("project", "delete", name)
