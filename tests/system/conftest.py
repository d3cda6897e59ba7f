"""Pools of every driver, for the conformance suite of the storage drivers."""

import asyncio
import os
import pathlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from lxpy.api.imagefiles import ImageFiles
from lxpy.storage.drivers import DRIVERS
from tests.support import namespace, projects
from tests.support.daemon import Lxpyd
from tests.support.image_world import World
from tests.support.pools import FINGERPRINT, Lab, image_tree


@pytest.fixture
async def world(tmp_path: pathlib.Path) -> AsyncIterator[World]:
    """An image store alone."""
    it = World(tmp_path)
    await it.manager.start()
    yield it
    await it.manager.close()
    it.store.close()


@pytest.fixture(scope="session")
def images() -> Iterator[dict[str, ImageFiles]]:
    """One small image in each of the three forms."""
    place = namespace.run_dir("images") / str(os.getpid())
    image_tree(place / "rootfs")
    (place / "metadata.yaml").write_text("architecture: x86_64\n")
    quiet = ["-noappend", "-quiet", "-no-progress"]
    command = ["mksquashfs", place / "rootfs", place / "squashfs", *quiet]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    tar = ["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "-cJf"]
    subprocess.run([*tar, place / "tar", "-C", place / "rootfs", "."], check=True)
    subprocess.run([*tar, place / "unified", "-C", place, "metadata.yaml", "rootfs"], check=True)
    yield {
        kind: ImageFiles(fingerprint, kind, str(place / kind), str(place / kind))
        for kind, fingerprint in FINGERPRINT.items()
    }
    shutil.rmtree(place)


@pytest_asyncio.fixture
async def bare() -> AsyncIterator[Lab]:
    root = namespace.run_dir("pools") / f"{os.getpid()}-{time.monotonic_ns()}"
    root.mkdir()
    lab = Lab(root)
    await lab.manager.start()
    yield lab
    await lab.manager.close()
    for name, pool in dict(lab.manager.pools()).items():
        for volume in lab.manager.pool(name).volumes():
            await lab.manager.pool(name).delete_instance(volume)
        for volume in lab.manager.pool(name).custom_volumes():
            await lab.manager.pool(name).delete_volume(volume)
        await lab.manager.delete_pool(name)
        assert pool["config"]["source"].startswith("/")
    lab.store.close()
    assert not [line for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    end = time.monotonic() + 15
    while namespace.loops(str(root)):
        assert time.monotonic() < end, "a loop device stays"
        await asyncio.sleep(0.02)
    shutil.rmtree(root)


@pytest_asyncio.fixture(params=list(DRIVERS))
async def lab(request: pytest.FixtureRequest, bare: Lab) -> Lab:
    config = {"size": "512MiB"} if request.param == "btrfs" else {}
    await bare.manager.create_pool("p", request.param, config, "for a test")
    return bare


@pytest_asyncio.fixture(params=["squashfs", "tar", "unified"])
async def filled(request: pytest.FixtureRequest, lab: Lab, images: dict[str, ImageFiles]) -> Lab:
    """With the volume ``c1`` from an image of each kind."""
    await lab.pool.ensure_image(images[request.param])
    await lab.pool.create_instance("c1", images[request.param].fingerprint)
    return lab


@pytest.fixture(scope="module", params=["default", "plain", "bt"])
def pool(request: pytest.FixtureRequest, lxpyd: Lxpyd) -> Iterator[str]:
    """A pool of each driver."""
    if request.param != "bt":
        yield request.param
        return
    lxpyd.cli("storage", "create", "bt", "btrfs", "size=400MiB")
    yield "bt"
    for name in [one["name"] for one in lxpyd.json("list", "-f", "json")]:
        lxpyd.cli("delete", "-f", name)
    lxpyd.cli("storage", "delete", "bt")


@pytest.fixture(scope="module")
def pools(lxpyd: Lxpyd) -> Iterator[dict[str, str]]:
    """The name of a pool of each driver."""
    lxpyd.cli("storage", "create", "each", "btrfs", "size=768MiB")
    yield {"overlay": "default", "dir": "plain", "btrfs": "each"}
    lxpyd.cli("storage", "delete", "each")


@pytest.fixture
def project(lxpyd: Lxpyd) -> Iterator[str]:
    """A project that uses the images and profiles of ``default``; it goes with all it holds."""
    lxpyd.counter += 1
    chosen = f"pr{lxpyd.counter}"
    lxpyd.cli("project", "create", chosen, *projects.SHARED)
    yield chosen
    projects.remove(lxpyd, chosen)
