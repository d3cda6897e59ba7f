"""Building the recipes for real, and publishing what is stored to real clients."""

import asyncio
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

import aiohttp
import pytest

from lxpy.api.errors import InternalError, Unavailable
from lxpy.images import tools
from lxpy.images.serve import ImageServer
from tests.support import images
from tests.support.image_world import World
from tests.support.tarballs import COMPRESS, METADATA, metadata_tar, squashfs, tarball, unified_tar

BUSYBOX = {"type": "image", "protocol": "builtin", "alias": "busybox"}


async def _run(*command: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ | environment
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


async def _unpack(rootfs: str, into: pathlib.Path) -> pathlib.Path:
    status, said = await _run("unsquashfs", "-quiet", "-no-progress", "-d", str(into), rootfs)
    assert status == 0, said
    return into


async def test_busybox(world: World, tmp_path: pathlib.Path) -> None:
    said: list[tuple[str, str]] = []
    fingerprint = await world.manager.ensure(BUSYBOX, "default", lambda k, t: said.append((k, t)))
    stored = world.manager.files("default", fingerprint)
    assert stored.kind == "squashfs" and os.stat(stored.rootfs).st_size < 2_000_000
    assert ("build_progress", "busybox: packing the root file system") in said
    tree = await _unpack(stored.rootfs, tmp_path / "tree")
    assert os.readlink(tree / "sbin/init") == "../bin/busybox"
    status, out = await _run(
        "chroot", str(tree), "/bin/sh", "-c", "ls / && command -v udhcpc ip awk && sh -n /etc/init.d/rcS"
    )
    assert status == 0, out
    assert sorted(world.manager.metadata("default", fingerprint)["templates"]) == ["/etc/hostname", "/etc/hosts"]
    assert not list((world.path / "cache" / "build").iterdir())
    # Asked for again it is there; built anew it is the same, bit for bit.
    said.clear()
    assert await world.manager.ensure(BUSYBOX, "default", lambda k, t: said.append((k, t))) == fingerprint
    assert said == []
    assert await world.manager.build("busybox", "default", lambda k, t: None, ["bb"]) == fingerprint
    assert world.manager.get_alias("default", "bb")["target"] == fingerprint
    assert await world.manager.refresh("default", fingerprint) == fingerprint


async def test_one_build_for_many(world: World) -> None:
    results = await asyncio.gather(*(world.manager.ensure(BUSYBOX, project) for project in ("default", "other") * 3))
    assert len(set(results)) == 1 and world.manager.list("other")
    assert [event for event, _ in world.events].count("image-created") == 2


async def test_catalogue(world: World) -> None:
    before = {image["aliases"][0]["name"]: image for image in await world.manager.catalogue("", "builtin", "default")}
    assert set(before) >= {"busybox", "debian/12", "debian/13", "alpine/3.20"}
    assert before["busybox"]["properties"]["lxpy.built"] == "false"
    assert before["alpine/3.20"]["properties"]["lxpy.untested"]
    pseudo = before["busybox"]["fingerprint"]
    real = await world.manager.ensure(BUSYBOX | {"alias": "", "fingerprint": pseudo[:12]}, "default")
    after = {image["aliases"][0]["name"]: image for image in await world.manager.catalogue("", "builtin", "default")}
    assert after["busybox"]["fingerprint"] == real != pseudo
    assert "lxpy.built" not in after["busybox"]["properties"]


async def test_a_shared_cache(world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LXPY_BUILD_CACHE", str(tmp_path / "shared"))
    one = await world.manager.ensure(BUSYBOX, "default")
    await world.manager.delete("default", one)
    said: list[str] = []
    assert await world.manager.ensure(BUSYBOX, "default", lambda k, t: said.append(t)) == one
    assert said == []


async def test_what_cannot_be_built(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match=r"untested.*LXPY_ALPINE_MIRROR"):
        await world.manager.ensure({"protocol": "builtin", "alias": "alpine"}, "default")
    monkeypatch.setenv("PATH", "/nonexistent")
    recipes = world.path / "recipes"
    recipes.mkdir()
    (recipes / "own.yaml").write_text(
        "name: own\nkind: mmdebstrap\nos: Own\nrelease: nosuch\narchitectures: [s390x]\npackages: []\n"
    )
    with pytest.raises(Unavailable, match="recipe is for s390x"):
        await world.manager.build("own/s390x", "default")


async def test_a_failing_tool_says_its_last_lines() -> None:
    with pytest.raises(InternalError, match=r"^Testing: sh failed \(3\): one \| two$"):
        await tools.run("Testing", ["sh", "-c", "echo one; echo two >&2; exit 3"])


async def test_cancelling_ends_every_process_of_a_build(tmp_path: pathlib.Path) -> None:
    marker = f"86{os.getpid()}"
    task = asyncio.create_task(tools.run("Testing", [*tools.WALLS, "sh", "-c", f"sleep {marker} & sleep {marker}"]))

    def sleepers() -> list[str]:
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if path.read_bytes() == f"sleep\0{marker}\0".encode():
                    found.append(path.parent.name)
            except OSError:
                pass
        return found

    for _ in range(100):
        await asyncio.sleep(0.05)
        if len(sleepers()) == 2:
            break
    assert len(sleepers()) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(100):
        if not sleepers():
            break
        await asyncio.sleep(0.02)
    assert sleepers() == []


async def test_the_debian_tree(tmp_path: pathlib.Path) -> None:
    """Sanity of the tree; that it boots is the system suite's business."""
    metadata, rootfs = await asyncio.to_thread(images.files, "debian/12")
    tree = await _unpack(str(rootfs), tmp_path / "tree")
    try:
        assert (tree / "etc/machine-id").read_bytes() == b"" and not (tree / "var/lib/dbus/machine-id").exists()
        assert (tree / "sbin/init").resolve().name == "systemd" or os.readlink(tree / "sbin/init").endswith("systemd")
        assert not list((tree / "dev").iterdir()) and not list((tree / "run").iterdir())
        assert not list((tree / "var/cache/apt").glob("*.bin")) and not list((tree / "var/lib/apt/lists").glob("*_*"))
        conf = sorted(path.name for path in (tree / "etc/apt/apt.conf.d").iterdir())
        assert not [name for name in conf if "mmdebstrap" in name]
        sources = (tree / "etc/apt/sources.list.d/debian.sources").read_text()
        assert "Suites: bookworm bookworm-updates" in sources and "@" not in sources
        assert not (tree / "etc/apt/sources.list").exists()
        wants = tree / "etc/systemd/system"
        assert os.path.lexists(wants / "multi-user.target.wants/systemd-networkd.service")
        for unit in (
            "network-online.target.wants/systemd-networkd-wait-online.service",
            "timers.target.wants/fstrim.timer",
        ):
            assert not os.path.lexists(wants / unit)
        assert os.getxattr(tree / "usr/bin/ping", "security.capability")
        status, out = await _run("chroot", str(tree), "dpkg-query", "-W", "-f", "${Package} ${Status}\n")
        assert status == 0
        there = {line.split()[0] for line in out.splitlines() if line.endswith("install ok installed")}
        assert there >= {"systemd", "systemd-sysv", "dbus", "iproute2", "udev", "procps", "iputils-ping", "netbase"}
        assert all(line.endswith("install ok installed") for line in out.splitlines())
        document = await asyncio.to_thread(lambda: __import__("tarfile").open(metadata).getnames())
        assert document[0] == "metadata.yaml"
    finally:
        await asyncio.to_thread(shutil.rmtree, tree)


# -- publishing --------------------------------------------------------------------------------------------------


async def test_serving_to_another_manager(world: World, tmp_path: pathlib.Path) -> None:
    """What is published comes back the same through our own client: every kind, by alias."""
    manager = world.manager
    split = await manager.import_upload("default", world.upload("m", metadata_tar()), world.upload("r", squashfs()), {})
    tar_root = COMPRESS["xz"](tarball({"etc/": b""}))
    tar = await manager.import_upload(
        "default", world.upload("m", metadata_tar(creation_date=5)), world.upload("r", tar_root), {}
    )
    whole = await manager.import_upload("default", world.upload("u", unified_tar()), None, {"x-lxd-public": "true"})
    hidden = await manager.import_upload(
        "default", world.upload("m", metadata_tar("gz")), world.upload("r", squashfs()), {}
    )
    for fingerprint, alias in ((split, "s"), (tar, "t"), (whole, "w")):
        manager.update("default", fingerprint, properties=METADATA["properties"] | {"variant": alias})
        manager.create_alias("default", alias, fingerprint)
    server = ImageServer(manager, str(tmp_path))
    url = await server.start("127.0.0.1", 0, tls=False)
    other = World(tmp_path / "other") if (tmp_path / "other").mkdir() is None else None
    assert other is not None
    await other.manager.start()
    try:
        for fingerprint, alias in ((split, "s"), (tar, "t"), (whole, "w")):
            source = {"server": url, "protocol": "simplestreams", "alias": alias}
            assert await other.manager.ensure(source, "default") == fingerprint
        listed = {image["fingerprint"] for image in await other.manager.catalogue(url, "simplestreams", "default")}
        assert listed == {split, tar, whole} and hidden not in listed
        async with aiohttp.ClientSession() as session:
            path = f"{url}/images/{split}/rootfs.squashfs"
            async with session.get(path, headers={"Range": "bytes=10-19"}) as answer:
                body = await answer.read()
                assert answer.status == 206
                assert body == pathlib.Path(manager.files("default", split).rootfs).read_bytes()[10:20]
                etag = answer.headers["ETag"]
            async with session.get(path, headers={"If-None-Match": etag}) as answer:
                assert answer.status == 304
            async with session.get(f"{url}/streams/v1/images.json") as answer:
                etag = answer.headers["ETag"]
            async with session.get(f"{url}/streams/v1/images.json", headers={"If-None-Match": etag}) as answer:
                assert answer.status == 304
            for wrong in (
                f"images/{split}/../../lxpy.db",
                f"images/{split}/x",
                f"images/{'0' * 64}/lxd.tar.xz",
                "lxpy.db",
            ):
                async with session.get(aiohttp.client.URL(f"{url}/{wrong}", encoded=True)) as answer:
                    assert answer.status == 404
        server._public = True
        assert [i["fingerprint"] for i in await _fresh(other, url)] == [whole]
    finally:
        await server.stop()
        await other.manager.close()
        other.store.close()


async def _fresh(world: World, url: str) -> list[Any]:
    shutil.rmtree(world.path / "cache" / "streams")
    return await world.manager.catalogue(url, "simplestreams", "default")


async def test_serving_over_tls_to_the_stock_client(world: World, tmp_path: pathlib.Path) -> None:
    """`lxc image list` and `lxc image info` of the distribution read what we publish, over HTTPS."""
    fingerprint = await world.manager.ensure(BUSYBOX, "default")
    world.manager.create_alias("default", "bb/1", fingerprint)
    server = ImageServer(world.manager, str(tmp_path))
    url = await server.start("127.0.0.1", 0)
    try:
        environment = {
            "HOME": str(tmp_path), "LXD_CONF": str(tmp_path / "conf"),
            "SSL_CERT_FILE": str(tmp_path / "image-server.crt"), "https_proxy": "", "HTTPS_PROXY": "",
        }  # fmt: skip
        (tmp_path / "conf").mkdir()
        assert os.stat(tmp_path / "image-server.key").st_mode & 0o777 == 0o600
        status, out = await _run("lxc", "remote", "add", "ours", url, "--protocol", "simplestreams", **environment)
        assert status == 0, out
        status, out = await _run("lxc", "image", "list", "ours:", "-f", "json", **environment)
        assert status == 0, out
        (image,) = json.loads(out[out.index("[") :])
        assert image["fingerprint"] == fingerprint and image["aliases"][0]["name"] == "bb/1"
        status, out = await _run("lxc", "image", "export", "ours:bb/1", str(tmp_path / "out"), **environment)
        assert status == 0, out
        parts = sorted(tmp_path.glob("out*"))
        assert [path.name for path in parts] == ["out", "out.root"], out
        meta, root = (path.read_bytes() for path in parts)
        assert hashlib.sha256(meta + root).hexdigest() == fingerprint
    finally:
        await server.stop()


async def test_an_address_that_is_taken(world: World, tmp_path: pathlib.Path) -> None:
    one, two = ImageServer(world.manager, str(tmp_path)), ImageServer(world.manager, str(tmp_path))
    url = await one.start("127.0.0.1", 0, tls=False)
    try:
        with pytest.raises(Unavailable, match="cannot be served on 127"):
            await two.start("127.0.0.1", int(url.rsplit(":", 1)[1]), tls=False)
    finally:
        await one.stop()
    task = asyncio.create_task(two.serve("127.0.0.1", 0, tls=False))
    await asyncio.sleep(0.2)
    assert two.url
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert two._runner is None


def test_the_tools_are_there() -> None:
    assert subprocess.run(["mksquashfs", "-version"], capture_output=True, check=False).stdout
