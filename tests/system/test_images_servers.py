"""Fetching from simplestreams servers that behave, and from ones that do not."""

import asyncio
import hashlib
import os
import pathlib
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from lxpy.api.errors import BadRequest, NotFound, Unavailable
from tests.support.image_world import World
from tests.support.streams import StreamServer, age_documents
from tests.support.tarballs import metadata_tar, squashfs, unified_tar


@pytest.fixture
async def server() -> AsyncIterator[StreamServer]:
    it = StreamServer()
    it.add("Alpine", "3.9", metadata_tar(), squashfs(), serial="20250101_00:00")
    it.add("Alpine", "3.20", metadata_tar(), squashfs(3_000_000))
    it.add("Alpine", "3.20", metadata_tar(), squashfs(), variant="cloud")
    it.add("Alpine", "edge", metadata_tar(), squashfs())
    it.add("Alpine", "3.20", metadata_tar(), squashfs(), arch="riscv64")
    it.add("Void", "current", metadata_tar(), unified_tar("xz"), prefix="incus", ftype="root.tar.xz")
    it.add("Whole", "1", unified_tar(), None)
    await it.start()
    yield it
    await it.stop()


async def test_fetches_by_the_newest_release_and_keeps_it(world: World, server: StreamServer) -> None:
    said: list[tuple[str, str]] = []
    fingerprint = await world.manager.ensure(
        world.source(server, "alpine"), "default", lambda k, t: said.append((k, t))
    )
    image = world.manager.get("default", fingerprint[:12])
    assert (image["properties"]["release"], image["cached"], image["auto_update"]) == ("3.20", True, True)
    assert image["update_source"]["alias"] == "alpine"
    stored = world.manager.files("default", fingerprint)
    content = pathlib.Path(stored.metadata).read_bytes() + pathlib.Path(stored.rootfs).read_bytes()
    assert hashlib.sha256(content).hexdigest() == fingerprint
    assert stored.kind == "squashfs"
    assert said[-1][0] == "download_progress" and said[-1][1].startswith("rootfs: 100% (")
    assert world.parts() == []
    assert ("image-created", f"/1.0/images/{fingerprint}") in world.events
    # Again: the cached one, and the server is not even asked.
    server.requests.clear()
    assert await world.manager.ensure(world.source(server, "alpine"), "default") == fingerprint
    assert server.requests == []
    # In another project: the same files, no download.
    assert await world.manager.ensure(world.source(server, "alpine"), "other") == fingerprint
    assert [path for path, _ in server.requests if not path.startswith("/streams/")] == []
    await world.manager.delete("default", fingerprint)
    assert fingerprint in world.stored()
    await world.manager.delete("other", fingerprint)
    assert world.stored() == []


@pytest.mark.parametrize(("alias", "kind"), [("void", "tar"), ("whole/1", "unified"), ("alpine/cloud", "squashfs")])
async def test_every_kind(world: World, server: StreamServer, alias: str, kind: str) -> None:
    fingerprint = await world.manager.ensure(world.source(server, alias), "default")
    assert world.manager.files("default", fingerprint).kind == kind
    assert world.manager.metadata("default", fingerprint)["creation_date"] == 1700000000


async def test_a_cut_line_resumes(world: World, server: StreamServer) -> None:
    server.faults.cut = 3
    await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    assert any(path.endswith("rootfs.squashfs") and sent for path, sent in server.requests)


async def test_a_server_without_ranges_starts_over(world: World, server: StreamServer) -> None:
    server.faults.cut, server.faults.no_ranges = 3, True
    await world.manager.ensure(world.source(server, "alpine/3.20"), "default")


async def test_a_line_that_keeps_dying_ends_in_one_line_and_goes_on_next_time(
    world: World, server: StreamServer
) -> None:
    server.faults.cut = 10_000
    with pytest.raises(Unavailable, match=r"failed 5 times") as caught:
        await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    assert "\n" not in str(caught.value)
    assert world.parts() and world.stored() == []
    server.faults.cut = 0
    server.requests.clear()
    await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    assert any(sent for _, sent in server.requests)


@pytest.mark.parametrize("fault", ["wrong", "longer", "missing"])
async def test_nothing_wrong_is_kept(world: World, server: StreamServer, fault: str) -> None:
    setattr(server.faults, fault, True if fault != "wrong" else 10_000)
    with pytest.raises((Unavailable, NotFound)):
        await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    assert world.stored() == [] and world.manager.list("default") == []
    setattr(server.faults, fault, False if fault != "wrong" else 0)
    await world.manager.ensure(world.source(server, "alpine/3.20"), "default")


async def test_a_server_that_lies_about_the_fingerprint(world: World, server: StreamServer) -> None:
    items = server.products["alpine:3.9:amd64:default"]["versions"]["20250101_00:00"]["items"]
    items["m"]["combined_squashfs_sha256"] = "ab" * 32
    with pytest.raises(Unavailable, match="contradicts itself"):
        await world.manager.ensure(world.source(server, "alpine/3.9"), "default")
    assert world.stored() == [] and world.parts() == []


async def test_many_waiters_one_download(world: World, server: StreamServer) -> None:
    server.faults.slow = 0.01
    said: list[list[str]] = [[], [], []]
    tasks = [
        asyncio.create_task(
            world.manager.ensure(world.source(server, "alpine/3.20"), "default", lambda k, t, i=i: said[i].append(t))
        )
        for i in range(3)
    ]
    await asyncio.sleep(0.25)
    tasks[0].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == results[2] and isinstance(results[1], str)
    assert len([path for path, _ in server.requests if path.endswith("rootfs.squashfs")]) == 1
    assert said[1] and said[2]


async def test_the_last_waiter_takes_the_download_with_it(world: World, server: StreamServer) -> None:
    server.faults.slow = 0.05
    tasks = [
        asyncio.create_task(world.manager.ensure(world.source(server, "alpine/3.20"), "default")) for _ in range(2)
    ]
    await asyncio.sleep(0.4)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert world.manager.list("default") == [] and world.stored() == []
    server.faults.slow = 0
    await world.manager.ensure(world.source(server, "alpine/3.20"), "default")


async def test_lists_are_kept_checked_by_etag_and_outlive_the_server(world: World, server: StreamServer) -> None:
    first = await world.manager.catalogue(server.url, "simplestreams", "default")
    assert {image["architecture"] for image in first} == {"x86_64", "riscv64"}
    count = len(server.requests)
    await world.manager.catalogue(server.url, "simplestreams", "default")
    assert len(server.requests) == count
    age_documents(world.path / "cache", 7200)
    assert await world.manager.catalogue(server.url, "simplestreams", "default") == first
    assert len(server.requests) == count + 2
    await world.manager.catalogue(server.url, "simplestreams", "default")
    assert len(server.requests) == count + 2, "an answer 304 makes the list fresh again"
    age_documents(world.path / "cache", 7200)
    await server.stop()
    assert await world.manager.catalogue(server.url, "simplestreams", "default") == first
    assert "using its list of 2 hours ago" in world.warnings[0]


async def test_a_server_that_is_away(world: World) -> None:
    source = {"type": "image", "protocol": "simplestreams", "server": "http://127.0.0.1:9/x/", "alias": "alpine"}
    with pytest.raises(Unavailable) as caught:
        await world.manager.ensure(source, "default")
    text = str(caught.value)
    assert text.startswith("Image server http://127.0.0.1:9/x cannot be reached: ")
    assert '"builtin:" offers: ' in text and "debian/12" in text and "\n" not in text


async def test_one_bad_answer_is_asked_again(world: World, server: StreamServer) -> None:
    server.faults.error = 1
    assert await world.manager.catalogue(server.url, "simplestreams", "default")


async def test_wrong_names(world: World, server: StreamServer) -> None:
    with pytest.raises(NotFound, match=r"nearest: alpine/3\.20"):
        await world.manager.ensure(world.source(server, "alpin/3.20"), "default")
    with pytest.raises(NotFound, match=r"nearest: .*alpine/3\.9"):
        await world.manager.ensure(world.source(server, "alpine/2.1"), "default")
    with pytest.raises(BadRequest, match="is no http or https address"):
        await world.manager.ensure(world.source(server, "x") | {"server": "ftp://127.0.0.1/"}, "default")


async def test_refresh_moves_to_the_newer_version(world: World, server: StreamServer) -> None:
    old = await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    world.manager.create_alias("default", "a", old, "mine")
    assert await world.manager.refresh("default", old) == old
    fresh = server.add("Alpine", "3.20", metadata_tar(creation_date=1800000000), squashfs(), serial="20260301_00:00")
    age_documents(world.path / "cache", 7200)
    dropped: list[str] = []

    async def drop(fingerprint: str) -> None:
        dropped.append(fingerprint)

    world.manager.on_delete.append(drop)
    await world.manager.auto_update()
    assert world.warnings == []
    assert world.manager.get_alias("default", "a")["target"] == fresh
    assert [image["fingerprint"] for image in world.manager.list("default")] == [fresh]
    assert dropped == [old] and old not in world.stored()
    assert world.manager.get("default", fresh)["update_source"]["alias"] == "alpine/3.20"


async def test_a_copy_asked_for_by_name_stays(world: World, server: StreamServer) -> None:
    fingerprint = await world.manager.ensure(world.source(server, "alpine/3.9"), "default")
    again = await world.manager.ensure(world.source(server, "alpine/3.9"), "default", cached=False, public=True)
    image = world.manager.get("default", again)
    assert again == fingerprint
    assert (image["cached"], image["public"], image["auto_update"]) == (False, True, False)


async def test_unused_cached_images_expire(world: World, server: StreamServer) -> None:
    fingerprint = await world.manager.ensure(world.source(server, "alpine/3.9"), "default")
    assert await world.manager.expire() == []
    doc = world.store.images.all("default")[fingerprint]
    old = doc | {"uploaded_at": "2020-01-01T00:00:00Z"}
    world.store.images.put("default", fingerprint, old)
    world.manager.touch("default", fingerprint)
    assert await world.manager.expire() == []
    world.store.images.put("default", fingerprint, old)
    world.store.config.replace({"images.remote_cache_expiry": "0"})
    assert await world.manager.expire() == []
    world.store.config.replace({})
    assert await world.manager.expire() == [fingerprint]
    assert world.stored() == []


async def test_upkeep_acts_when_its_hour_has_come(world: World, server: StreamServer) -> None:
    old = await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
    fresh = server.add("Alpine", "3.20", metadata_tar(creation_date=1800000000), squashfs(), serial="20260301_00:00")
    age_documents(world.path / "cache", 7200)

    def here() -> list[str]:
        return [image["fingerprint"] for image in world.manager.list("default")]

    now, hour = time.time(), 3600
    await world.manager.upkeep.tick(now + 5 * hour)
    assert here() == [old]
    world.store.config.replace({"images.auto_update_interval": "0"})
    await world.manager.upkeep.tick(now + 100 * hour)
    assert here() == [old]
    world.store.config.replace({})
    await world.manager.upkeep.tick(now + 6 * hour)
    assert here() == [fresh]
    await world.manager.upkeep.tick(now + 11 * 24 * hour)
    assert here() == [] and world.warnings == []


async def test_start_sweeps_what_a_crash_left(world: World, server: StreamServer) -> None:
    fingerprint = await world.manager.ensure(world.source(server, "alpine/3.9"), "default")
    lost = await world.manager.ensure(world.source(server, "alpine/edge"), "default")
    images = world.path / "images"
    (images / ("0" * 64)).write_bytes(b"x")
    (images / f"{'1' * 64}.rootfs").write_bytes(b"x")
    (images / f"{fingerprint}.123.tmp").write_bytes(b"x")
    (world.path / "cache" / "build" / "x").mkdir(parents=True)
    (images / f"{lost}.rootfs").unlink()
    await world.manager.close()
    await world.manager.start()
    assert world.stored() == [fingerprint, f"{fingerprint}.json", f"{fingerprint}.rootfs"]
    assert not (world.path / "cache" / "build").exists()
    assert [image["fingerprint"] for image in world.manager.list("default")] == [fingerprint]
    assert "lost its files" in world.warnings[0]


async def test_a_full_disk(world: World, server: StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real full disk: the download directory is a 1 MiB tmpfs."""
    downloads = world.path / "cache" / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(
        subprocess.run, ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(downloads)], check=True
    )
    try:
        with pytest.raises(Unavailable, match="make room and try again"):
            await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
        # What the check beforehand cannot see: room that goes while the file comes.
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("U", (), {"free": 1 << 40})())
        with pytest.raises(Unavailable, match=r"no space left in .*make room"):
            await world.manager.ensure(world.source(server, "alpine/3.20"), "default")
        assert not any(name.endswith(".rootfs.part") for name in world.parts())
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(downloads)], check=True)


async def test_a_hostile_list(world: World, server: StreamServer) -> None:
    good: Callable[[], dict[str, Any]] = lambda: server.products["alpine:3.9:amd64:default"]  # noqa: E731
    items = good()["versions"]["20250101_00:00"]["items"]
    items["m"]["path"] = "../../etc/passwd"
    server.products["nonsense"] = {"versions": [], "arch": 5}
    server.products["more"] = {"arch": "amd64", "versions": {"x": None, "20250101": {"items": {"a": None, "b": {}}}}}
    names = {
        alias["name"]
        for image in await world.manager.catalogue(server.url, "", "default")
        for alias in image["aliases"]
    }
    assert "alpine/3.9" not in names and "alpine/3.20" in names


@pytest.mark.parametrize("fault", ["", "truncated", "to another image"])
async def test_deltas(world: World, server: StreamServer, tmp_path: pathlib.Path, fault: str) -> None:
    """From the version that is here only the difference is fetched; a wrong difference costs nothing but time."""
    before = squashfs(2_000_000)
    after = before + b"\0" * 4096
    server.add("Delta", "1", metadata_tar(), before, serial="20260101_00:00")
    await world.manager.ensure(world.source(server, "delta/1"), "default", cached=False)
    (tmp_path / "old").write_bytes(before)
    (tmp_path / "new").write_bytes(after if fault != "to another image" else before + os.urandom(4096))
    files = [tmp_path / "old", tmp_path / "new", tmp_path / "delta"]
    await asyncio.to_thread(subprocess.run, ["xdelta3", "-e", "-f", "-s", *files], check=True)
    delta = files[2].read_bytes()[: -20 if fault == "truncated" else None]
    fresh = server.add("Delta", "1", metadata_tar(creation_date=1800000000), after, serial="20260201_00:00")
    path = "images/delta.vcdiff"
    server.files[f"/{path}"] = delta
    server.products["delta:1:amd64:default"]["versions"]["20260201_00:00"]["items"]["d"] = {
        "ftype": "squashfs.vcdiff", "path": path, "size": len(delta), "delta_base": "20260101_00:00",
        "sha256": hashlib.sha256(delta).hexdigest(),
    }  # fmt: skip
    age_documents(world.path / "cache", 7200)
    server.requests.clear()
    found = await world.manager.ensure(
        world.source(server, "delta/1") | {"fingerprint": fresh}, "default", cached=False
    )
    assert found == fresh
    fetched = [name for name, _ in server.requests if "20260201" in name or name.endswith(".vcdiff")]
    whole = [name for name in fetched if name.endswith("rootfs.squashfs")]
    assert f"/{path}" in fetched and bool(whole) == bool(fault)
    assert pathlib.Path(world.manager.files("default", fresh).rootfs).read_bytes() == after
    assert world.parts() == []
