"""Loop devices that free themselves, and those that must not just now."""

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from lxpy.linux import loop, mounts
from lxpy.storage.backing import Backing
from tests.support import namespace


@pytest.fixture
def backing() -> Iterator[Backing]:
    """A btrfs in a file, mounted."""
    place = namespace.run_dir("loop") / str(os.getpid())
    place.mkdir(exist_ok=True)
    found = Backing(f"{place}/disk.img", f"{place}/mnt", "", "")
    found.make("loop", 300 << 20, wipe=False)
    found.mount()
    yield found
    found.remove()


def test_a_device_that_is_held_outlives_its_mount(backing: Backing) -> None:
    with loop.held(backing.source) as device:
        assert (
            pathlib.Path(f"/sys/block/{device.removeprefix('/dev/')}/loop/backing_file")
            .read_text()
            .startswith(backing.source)
        )
        backing.unmount()
        with open(device, "rb") as file:
            file.seek(64 << 10)
            assert file.read(4096)[0x40:0x48] == b"_BHRfS_M"
        fd = mounts.new("btrfs", {}, 0, device)  # and it can be mounted again
        os.close(fd)
    with loop.held(backing.source) as device:
        assert device == ""
    with pytest.raises(ZeroDivisionError), loop.held(backing.source):
        1 / 0  # noqa: B018


def test_a_disk_is_seen_while_it_is_being_unmounted(backing: Backing) -> None:
    end = time.monotonic() + 3
    while time.monotonic() < end:
        backing.mount()
        unmount = subprocess.Popen(["umount", backing.point])
        for _ in range(3):
            with backing.look() as place:
                assert os.listdir(place) == []
        assert unmount.wait() == 0
