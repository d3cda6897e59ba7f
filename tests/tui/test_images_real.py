"""Images that the app takes from files, a directory or an address, in front of a real daemon; and what goes wrong."""

import hashlib
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.daemon import Lxpyd
from tests.support.proxy import authority
from tests.support.streams import StreamServer, serving
from tests.support.tarballs import METADATA, metadata_tar, squashfs, unified_tar
from tests.tui.test_real_daemon import notices, opened, wait
from tests.tui.test_volumes_real import again, asked, refused


def images(lxpyd: Lxpyd) -> dict[str, Any]:
    """All there are, by fingerprint."""
    return {one["fingerprint"]: one for one in lxpyd.json("image", "list", "-f", "json")}


@pytest.fixture
def before(lxpyd: Lxpyd) -> Iterator[set[str]]:
    """The fingerprints of the images there are; what comes beside them goes again."""
    found = set(images(lxpyd))
    yield found
    for one in set(images(lxpyd)) - found:
        lxpyd.cli("image", "delete", one)


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory that is an image."""
    place = tmp_path / "tree"
    (place / "rootfs/etc").mkdir(parents=True)
    (place / "metadata.yaml").write_text(yaml.safe_dump({**METADATA, "templates": {}}))
    return place


async def imported(pilot: Any, alias: str) -> None:
    app = pilot.app
    await wait(pilot, lambda: app.on_main and any(alias in row.aliases for row in app.model.images))
    await wait(pilot, lambda: any(f"Image imported: {alias}" in notice for notice in notices(app)))


async def broken_off(pilot: Any, lxpyd: Lxpyd, before: set[str]) -> None:
    """Escape while it is being done: nothing of it is left."""
    app = pilot.app
    assert app.screen.busy
    await pilot.press("escape")
    await wait(pilot, lambda: app.on_main)
    await wait(pilot, lambda: not [one for one in app.workers if one.group == "verbs" and not one.is_finished])
    await wait(pilot, lambda: not app.model.running() and not uploads(lxpyd))
    assert set(images(lxpyd)) == before
    assert not any("Image imported" in notice for notice in notices(app))


def uploads(lxpyd: Lxpyd) -> list[pathlib.Path]:
    """What has come of images that are not whole yet."""
    return list(pathlib.Path(lxpyd.layout.images).glob(".upload-*"))


async def test_of_files_and_a_directory(
    lxpyd: Lxpyd, before: set[str], tree: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, meta, root, letter = (tmp_path / one for one in ("whole.tar.gz", "meta.tar.xz", "root.squashfs", "letter"))
    whole.write_bytes(unified_tar())
    meta.write_bytes(metadata_tar())
    root.write_bytes(squashfs())
    letter.write_text("no image\n" * 99)
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        await pilot.press("2")
        await asked(pilot, "i", file=f"{tmp_path}/none", more="description")
        await refused(pilot, "There is no file or directory")
        await refused(pilot, "'description' is not key=value")
        await again(pilot, file="http://example.org/x", more="")
        await refused(pilot, "Only https://")
        await again(pilot, file=str(tmp_path))
        await refused(pilot, "metadata.yaml")
        await again(pilot, file=str(tree), root=str(root))
        await refused(pilot, "the whole image")
        await again(pilot, file=str(meta), root=f"{tmp_path}/none")
        await refused(pilot, "There is no file")
        await again(pilot, file=str(letter), root="")
        await refused(pilot, "The file is neither a tarball")
        assert set(images(lxpyd)) == before and not uploads(lxpyd)
        await again(pilot, file=str(whole), alias="imp imp/two, bb")
        await refused(pilot, "bb is an image's already")
        await again(pilot, alias="imp, imp/two", public=True, more='description="my own" colour=red')
        await imported(pilot, "imp")
        first = images(lxpyd)[hashlib.sha256(whole.read_bytes()).hexdigest()]
        assert {alias["name"] for alias in first["aliases"]} == {"imp", "imp/two"} and first["public"]
        assert (first["properties"]["description"], first["properties"]["colour"]) == ("my own", "red")

        await asked(pilot, "i", file=str(whole))
        await refused(pilot, "already exists")
        await again(pilot, file=str(meta), root=str(root), alias="imp", reuse=True)
        await wait(pilot, lambda: app.on_main and any(row.aliases == ["imp"] for row in app.model.images))
        second = images(lxpyd)[hashlib.sha256(meta.read_bytes() + root.read_bytes()).hexdigest()]
        assert not second["public"] and second["properties"]["os"] == "Test"
        await asked(pilot, "i", file=str(tree), alias="imp/tree")
        await imported(pilot, "imp/tree")

        app.read_only = True
        await pilot.press("i")
        await wait(pilot, lambda: any("read-only" in notice for notice in notices(app)))
        assert app.on_main


async def test_an_upload_is_broken_off(
    lxpyd: Lxpyd, before: set[str], tree: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory, which is packed on its way: that takes long enough to be in the middle."""
    with (tree / "rootfs/big").open("wb") as file:
        for _ in range(256):
            file.write(os.urandom(1 << 20))
    async with opened(lxpyd, monkeypatch) as pilot:
        await pilot.press("2")
        await asked(pilot, "i", file=str(tree), alias="imp")
        await wait(pilot, lambda: any(one.stat().st_size for one in uploads(lxpyd)))
        await broken_off(pilot, lxpyd, before)


async def test_of_an_address(
    lxpyd: Lxpyd, before: set[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its progress is told; broken off once, then to the end."""
    server, data = StreamServer(), unified_tar("tar", 8 << 20)
    server.files, server.headers = {"/image.tar": data}, {"/image.tar": {}}
    server.faults.slow = 0.1
    context = authority(tmp_path, "images.invalid")
    own = lxpyd.dir / "ca.pem"
    own.write_bytes((tmp_path / "ca.pem").read_bytes())
    try:
        with serving(server, context):
            async with opened(lxpyd, monkeypatch) as pilot:
                app = pilot.app
                await pilot.press("2")
                await asked(pilot, "i", file=f"{server.url}/none", alias="imp")
                await refused(pilot, f"{server.url}/none")
                await again(pilot, file=f"{server.url}/image.tar")

                def progress() -> str:
                    told = [one.get("metadata") or {} for one in app.model.running()]
                    return " ".join(str(value) for one in told for value in one.values())

                await wait(pilot, lambda: "%" in progress())
                await broken_off(pilot, lxpyd, before)
                server.faults.slow = 0
                await asked(pilot, "i", file=f"{server.url}/image.tar", alias="imp", more="os=Afar")
                await imported(pilot, "imp")
    finally:
        own.unlink()
    image = images(lxpyd)[hashlib.sha256(data).hexdigest()]
    assert (image["filename"], image["properties"]["os"]) == ("image.tar", "Afar")
