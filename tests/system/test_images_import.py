"""Uploads: every format, everything hostile; aliases, properties, records."""

import asyncio
import hashlib
import os
import pathlib
import tarfile

import pytest

from lxpy.api.errors import BadRequest, Conflict, NotFound
from tests.support.image_world import World
from tests.support.tarballs import COMPRESS, metadata_tar, squashfs, tarball, unified_tar


@pytest.mark.parametrize("compression", list(COMPRESS))
async def test_unified(world: World, compression: str) -> None:
    data = unified_tar(compression)
    headers = {"X-LXD-filename": "x.tar", "X-LXD-public": "1", "X-LXD-properties": "os=Mine&note=a%20b"}
    fingerprint = await world.manager.import_upload("default", world.upload("up", data), None, headers)
    assert fingerprint == hashlib.sha256(data).hexdigest()
    image = world.manager.get("default", fingerprint)
    assert image["public"] and image["filename"] == "x.tar" and image["size"] == len(data)
    assert image["properties"] == {"os": "Mine", "note": "a b", "release": "1", "description": "A test"}
    assert image["created_at"] == "2023-11-14T22:13:20Z" and not image["cached"]
    stored = world.manager.export("default", fingerprint)
    assert stored.kind == "unified" and stored.rootfs == stored.metadata
    assert pathlib.Path(stored.rootfs).read_bytes() == data
    assert world.stored() == [fingerprint, f"{fingerprint}.json"]
    assert not (world.path / "up").exists()


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("kind", ["squashfs", "tar"])
async def test_split(world: World, compression: str, kind: str) -> None:
    meta = metadata_tar(compression)
    root = squashfs() if kind == "squashfs" else COMPRESS[compression](tarball({"etc/": b"", "etc/x": b"x"}))
    paths = world.upload("m", meta), world.upload("r", root)
    fingerprint = await world.manager.import_upload("default", *paths, {"X-Incus-fingerprint": ""})
    assert fingerprint == hashlib.sha256(meta + root).hexdigest()
    assert world.manager.files("default", fingerprint).kind == kind
    assert world.manager.hashes("default", fingerprint)["rootfs"] == hashlib.sha256(root).hexdigest()


def _device() -> tarfile.TarInfo:
    info = tarfile.TarInfo("metadata.yaml")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 5
    return info


def _link() -> tarfile.TarInfo:
    info = tarfile.TarInfo("metadata.yaml")
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


BOMB = b"a: &a [x, x]\nb: &b [*a, *a]\narchitecture: x86_64\ncreation_date: 1\n"
BAD_UPLOADS = {
    "empty": (b"", "is empty"),
    "garbage": (b"nothing of the sort" * 100, "neither a tarball"),
    "gzip of garbage": (COMPRESS["gz"](b"garbage" * 1000), "corrupt|no metadata"),
    "truncated gzip": (unified_tar("gz")[:-5000], "corrupt or truncated"),
    "truncated xz": (unified_tar("xz")[:-5000], "corrupt or truncated"),
    "truncated bzip2": (unified_tar("bz2")[:-5000], "corrupt or truncated"),
    "truncated zstd": (unified_tar("zst")[:-5000], "corrupt or truncated"),
    "truncated plain": (unified_tar("tar")[:-50000], "corrupt or truncated"),
    "bits flipped": (unified_tar("gz").replace(b"\x00", b"\x01", 40), "corrupt"),
    "no metadata": (COMPRESS["gz"](tarball({"rootfs/": b""})), "no metadata.yaml"),
    "no rootfs": (metadata_tar("gz"), "no rootfs directory"),
    "no architecture": (unified_tar(architecture=None), "no architecture"),
    "odd architecture": (unified_tar(architecture="pdp11"), "'pdp11' is unknown"),
    "no date": (unified_tar(creation_date=None), "creation_date"),
    "odd date": (unified_tar(creation_date="yesterday"), "creation_date"),
    "endless date": (unified_tar(creation_date=10**30), "creation_date"),
    "device": (tarball({"metadata.yaml": _device(), "rootfs/": b""}), "no regular file"),
    "link": (tarball({"metadata.yaml": _link(), "rootfs/": b""}), "no regular file"),
    "no yaml": (tarball({"metadata.yaml": b"{[", "rootfs/": b""}), "cannot be read"),
    "a list": (tarball({"metadata.yaml": b"- 1\n", "rootfs/": b""}), "no mapping"),
    "python yaml": (tarball({"metadata.yaml": b"!!python/object/apply:os.system [id]", "rootfs/": b""}), "cannot be"),
    "yaml bomb": (tarball({"metadata.yaml": BOMB, "rootfs/": b""}), "aliases"),
    "huge metadata": (tarball({"metadata.yaml": b"#" * (2 << 20), "rootfs/": b""}), "1 MiB"),
    "huge template": (tarball({"templates/x": b"#" * (1 << 20), "rootfs/": b""}), "too long"),
    "odd trigger": (unified_tar(templates={"/x": {"when": ["never"], "template": "t"}}), "unknown trigger"),
    "relative template": (unified_tar(templates={"x": {"when": ["start"], "template": "t"}}), "not absolute"),
    "odd templates": (unified_tar(templates=[1]), "no mapping"),
    "lone squashfs": (squashfs(), "upload both"),
}


@pytest.mark.parametrize("name", list(BAD_UPLOADS))
async def test_bad_uploads_change_nothing(world: World, name: str) -> None:
    data, reason = BAD_UPLOADS[name]
    with pytest.raises(BadRequest, match=reason) as caught:
        await world.manager.import_upload("default", world.upload("up", data), None, {})
    assert "\n" not in str(caught.value)
    assert world.stored() == [] and world.manager.list("default") == [] and not (world.path / "up").exists()


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (b"", "is empty"),
        (squashfs()[:5000], "truncated squashfs: 5000 of 200000"),
        (squashfs()[:50], "truncated squashfs"),
        (squashfs().replace(b"\x04\x00\x00\x00", b"\x03\x00\x01\x00", 1), "only 4.0"),
        (b"garbage" * 99, "neither a tarball"),
        (unified_tar("xz")[:-5000], "root file system is corrupt or truncated"),
    ],
)
async def test_bad_root_file_systems(world: World, root: bytes, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        paths = world.upload("m", metadata_tar()), world.upload("r", root)
        await world.manager.import_upload("default", *paths, {})
    assert world.stored() == [] and list(world.path.glob("[mr]")) == []


async def test_another_machines_image_is_kept_but_not_launched(world: World) -> None:
    path = world.upload("up", unified_tar(architecture="s390x"))
    fingerprint = await world.manager.import_upload("default", path, None, {})
    assert world.manager.get("default", fingerprint)["architecture"] == "s390x"
    source = {"type": "image", "fingerprint": fingerprint}
    with pytest.raises(BadRequest, match=f"is for s390x; this machine runs {os.uname().machine}"):
        await world.manager.ensure(source, "default")
    assert await world.manager.ensure(source, "default", cached=False) == fingerprint


async def test_the_same_again_and_the_wrong_fingerprint(world: World) -> None:
    data = unified_tar()
    fingerprint = await world.manager.import_upload("default", world.upload("a", data), None, {})
    with pytest.raises(Conflict, match=r"^Image with same fingerprint already exists$"):
        await world.manager.import_upload("default", world.upload("a", data), None, {})
    assert world.manager.get("default", fingerprint)
    with pytest.raises(BadRequest, match="the upload is damaged"):
        await world.manager.import_upload(
            "default", world.upload("a", unified_tar()), None, {"x-lxd-fingerprint": "ab" * 32}
        )
    # Another project has its own record of the same files.
    assert await world.manager.import_upload("other", world.upload("a", data), None, {}) == fingerprint
    await world.manager.delete("default", fingerprint)
    assert pathlib.Path(world.manager.files("other", fingerprint).rootfs).exists()


async def test_looking_up_by_prefix(world: World) -> None:
    known = [
        await world.manager.import_upload("default", world.upload("a", unified_tar(size=100)), None, {})
        for _ in range(20)
    ]
    assert world.manager.get("default", known[0][:14])["fingerprint"] == known[0]
    shared = {f[0] for f in known if sum(g[0] == f[0] for g in known) > 1}.pop()
    with pytest.raises(BadRequest, match="More than one"):
        world.manager.get("default", shared)
    for wrong in ("", "zz", "../x", "f" * 64):
        with pytest.raises(NotFound, match=r"^Image not found$"):
            world.manager.get("default", wrong)
    with pytest.raises(NotFound, match="not found among the local images"):
        await world.manager.ensure({"type": "image", "alias": "nothing"}, "default")


async def test_aliases(world: World) -> None:
    manager = world.manager
    one, two = [
        await manager.import_upload("default", world.upload("a", unified_tar(size=n)), None, {}) for n in (100, 200)
    ]
    manager.create_alias("default", "a/b", one[:12], "first")
    assert manager.get_alias("default", "a/b") == {
        "name": "a/b", "description": "first", "target": one, "type": "container",
    }  # fmt: skip
    assert await manager.ensure({"type": "image", "alias": "a/b"}, "default") == one
    assert manager.get("default", one)["aliases"] == [{"name": "a/b", "description": "first"}]
    with pytest.raises(Conflict, match="already exists"):
        manager.create_alias("default", "a/b", two)
    with pytest.raises(NotFound, match="Image not found"):
        manager.create_alias("default", "c", "ab" * 32)
    for wrong in ("", "a b", "a//b", "../a", "a:b", "x" * 256, "a\n"):
        with pytest.raises(BadRequest, match="Invalid image alias"):
            manager.create_alias("default", wrong, one)
    manager.create_alias("default", "c", two)
    with pytest.raises(Conflict):
        manager.rename_alias("default", "a/b", "c")
    manager.rename_alias("default", "a/b", "d")
    manager.update_alias("default", "d", target=two, description="")
    assert [alias["name"] for alias in manager.list_aliases("default")] == ["c", "d"]
    with pytest.raises(NotFound, match=r"^Image alias not found$"):
        manager.delete_alias("default", "a/b")
    manager.delete_alias("default", "c")
    await manager.delete("default", two)
    assert manager.list_aliases("default") == []
    assert [event for event, _ in world.events if "alias" in event] == [
        *["image-alias-created"] * 2, "image-alias-renamed", "image-alias-updated", "image-alias-deleted",
    ]  # fmt: skip


async def test_update(world: World) -> None:
    fingerprint = await world.manager.import_upload("default", world.upload("a", unified_tar()), None, {})
    world.manager.update("default", fingerprint, public=True, properties={"x": "y"}, expires_at="2030-01-01T00:00:00Z")
    image = world.manager.get("default", fingerprint)
    assert (image["public"], image["properties"], image["auto_update"]) == (True, {"x": "y"}, False)
    with pytest.raises(BadRequest, match="Invalid expiry"):
        world.manager.update("default", fingerprint, expires_at="soon")
    world.manager.touch("default", fingerprint)
    assert world.manager.get("default", fingerprint)["last_used_at"] > "2026"


async def test_deleting_waits_for_the_pools_and_a_new_import_for_the_deletion(world: World) -> None:
    data = unified_tar()
    fingerprint = await world.manager.import_upload("default", world.upload("a", data), None, {})
    release = asyncio.Event()

    async def busy(_: str) -> None:
        await release.wait()

    world.manager.on_delete.append(busy)
    deleting = asyncio.create_task(world.manager.delete("default", fingerprint))
    await asyncio.sleep(0.05)
    importing = asyncio.create_task(world.manager.import_upload("default", world.upload("b", data), None, {}))
    await asyncio.sleep(0.2)
    assert not deleting.done() and not importing.done()
    release.set()
    await deleting
    assert await importing == fingerprint
    assert pathlib.Path(world.manager.files("default", fingerprint).rootfs).read_bytes() == data
