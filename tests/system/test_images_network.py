"""How images are fetched: through proxies, from servers with certificates of their own authority, by address."""

import hashlib
import json
import pathlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from lxpy.api.errors import ApiError, BadRequest, NotFound, Unavailable
from tests.support.image_world import World
from tests.support.proxy import authority, proxying
from tests.support.streams import StreamServer
from tests.support.tarballs import metadata_tar, squashfs, unified_tar

NAME = "images.invalid"  # no resolver knows it: only a proxy gets there


@pytest_asyncio.fixture
async def world(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for variable in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    (tmp_path / "w").mkdir()
    world = World(tmp_path / "w")
    await world.manager.start()
    yield world
    await world.manager.close()
    world.store.close()


def _filled() -> StreamServer:
    server = StreamServer()
    server.add("Alpine", "3.20", metadata_tar(), squashfs())
    return server


def _source(url: str) -> dict[str, str]:
    return {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": url, "alias": "alpine/3.20"}


@pytest.mark.parametrize("how", ["configured", "configured without scheme", "environment"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_proxies(
    world: World, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, scheme: str, how: str
) -> None:
    server = _filled()
    await server.start(authority(tmp_path, NAME) if scheme == "https" else None)
    (world.path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes() if scheme == "https" else b"")
    if scheme == "http":
        (world.path / "ca.pem").unlink()
    async with proxying(int(server.url.rpartition(":")[2])) as proxy:
        if how == "environment":
            monkeypatch.setenv(f"{scheme}_proxy", proxy.url)
        else:
            value = proxy.url if how == "configured" else proxy.url.removeprefix("http://")
            world.store.config.replace({f"core.proxy_{scheme}": value})
        fingerprint = await world.manager.ensure(_source(f"{scheme}://{NAME}"), "default")
        assert world.manager.get("default", fingerprint)["properties"]["os"] == "Alpine"
        wanted = f"CONNECT {NAME}:443" if scheme == "https" else f"GET http://{NAME}/images/"
        assert any(line.startswith(wanted) for line in proxy.asked), proxy.asked
        await world.manager.close()
    await server.stop()


@pytest.mark.parametrize("how", ["configured", "environment"])
async def test_hosts_that_no_proxy_is_for(world: World, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    server = _filled()
    await server.start()
    async with proxying(1) as proxy:
        if how == "environment":
            monkeypatch.setenv("http_proxy", proxy.url)
            monkeypatch.setenv("no_proxy", "example.org,127.0.0.1")
        else:
            # The environment's proxy is not for them either.
            monkeypatch.setenv("http_proxy", proxy.url)
            world.store.config.replace({"core.proxy_http": proxy.url, "core.proxy_ignore_hosts": "x.org, 127.0.0.1"})
        await world.manager.ensure(_source(server.url), "default")
        assert proxy.asked == []
        await world.manager.close()
    await server.stop()


async def test_a_proxy_that_is_away(world: World) -> None:
    world.store.config.replace({"core.proxy_http": "http://127.0.0.1:1"})
    with pytest.raises(Unavailable, match=r"cannot be reached: .*; without it") as caught:
        await world.manager.ensure(_source(f"http://{NAME}"), "default")
    assert "\n" not in str(caught.value)


async def test_an_authority_of_the_users_own(world: World, tmp_path: pathlib.Path) -> None:
    """No restart: the file counts from the next request on, and once it is gone it counts no more."""
    server = _filled()
    await server.start(authority(tmp_path, NAME))
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await world.manager.ensure(_source(server.url), "default")
    (world.path / "ca.pem").write_text("nonsense")
    with pytest.raises(Unavailable, match="certificate verify failed"):
        await world.manager.ensure(_source(server.url), "default")
    assert any("ca.pem cannot be used" in str(warning) for warning in world.warnings)
    (world.path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    await world.manager.ensure(_source(server.url), "default")
    await server.stop()


async def test_an_address_as_lxd_has_it(world: World, tmp_path: pathlib.Path) -> None:
    """The address says which image it is and where it lies; a refresh asks it again."""
    server, first, second = StreamServer(), unified_tar(), unified_tar(properties={"os": "Second"})
    await server.start(authority(tmp_path, NAME))
    (world.path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    server.files = {"/one.tar.gz": first, "/two.tar.gz": second}

    def point(name: str, data: bytes, **changes: str) -> None:
        server.headers["/image"] = {
            "LXD-Image-Hash": hashlib.sha256(data).hexdigest(), "LXD-Image-URL": f"{server.url}/{name}"
        } | changes  # fmt: skip

    async def take() -> str:
        return await world.manager.import_address(
            f"{server.url}/image", "default", lambda key, text: None, True, True, {"mine": "yes"}
        )

    point("one.tar.gz", second)
    with pytest.raises(BadRequest, match="the upload is damaged"):
        await take()
    point("one.tar.gz", first, **{"LXD-Image-URL": "http://elsewhere/x"})
    with pytest.raises(BadRequest, match="names no https address"):
        await take()
    assert world.stored() == []
    point("one.tar.gz", first)
    fingerprint = await take()
    assert fingerprint == hashlib.sha256(first).hexdigest() == await take()
    image = world.manager.get("default", fingerprint)
    assert image["public"] and image["auto_update"] and image["properties"]["mine"] == "yes"
    assert image["filename"] == "one.tar.gz"
    assert await world.manager.refresh("default", fingerprint) == fingerprint
    world.manager.create_alias("default", "mine", fingerprint)
    point("two.tar.gz", second)
    new = await world.manager.refresh("default", fingerprint)
    assert new == hashlib.sha256(second).hexdigest()
    assert [one["name"] for one in world.manager.get("default", new)["aliases"]] == ["mine"]
    assert [image["fingerprint"] for image in world.manager.list("default")] == [new]
    await server.stop()


async def test_an_address_that_is_the_image_itself(world: World, tmp_path: pathlib.Path) -> None:
    server, data = StreamServer(), unified_tar("bz2")
    await server.start(authority(tmp_path, NAME))
    (world.path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    server.files, server.headers = {"/a.tar.bz2": data, "/no": b"<html>"}, {"/a.tar.bz2": {}, "/no": {}}

    async def take(url: str) -> str:
        return await world.manager.import_address(url, "default", lambda key, text: None, False, True, {})

    wrong: list[tuple[str, type[ApiError], str]] = [
        (f"{server.url}/no", BadRequest, "neither a tarball"),
        (f"{server.url}/nothing", NotFound, "does not exist"),
        (server.url.replace("https", "http"), BadRequest, "https addresses only"),
    ]
    for url, kind, reason in wrong:
        with pytest.raises(kind, match=reason):
            await take(url)
    assert world.stored() == []
    fingerprint = await take(f"{server.url}/a.tar.bz2")
    image = world.manager.get("default", fingerprint)
    assert fingerprint == hashlib.sha256(data).hexdigest()
    assert not image["auto_update"] and "update_source" not in image  # there is nothing to ask
    await server.stop()


def _peer(server: StreamServer, data: bytes, **changes: Any) -> None:
    """Lets `server` answer as another LXD would that has a unified image with the alias x, or has it wrong."""
    fingerprint = hashlib.sha256(data).hexdigest()
    image = {
        "fingerprint": fingerprint, "size": len(data), "type": "container", "architecture": "x86_64", "public": True,
        "properties": {"os": "Peer"}, "aliases": [{"name": "x"}], "expires_at": "2031-01-01T00:00:00Z",
    } | changes  # fmt: skip
    document = {key: value for key, value in image.items() if value is not None}
    server.files = {
        "/1.0/images/aliases/x": json.dumps({"metadata": {"target": fingerprint}}).encode(),
        f"/1.0/images/{fingerprint}": json.dumps({"type": "sync", "metadata": document}).encode(),
        f"/1.0/images/{document.get('fingerprint')}/export": data,
    }


WRONG_PEERS: dict[str, tuple[dict[str, Any], str]] = {
    "no size": ({"size": None}, "does not describe its image"),
    "properties that are none": ({"properties": ["a"]}, "does not describe its image"),
    "aliases that are none": ({"aliases": [1]}, "does not describe its image"),
    "an odd fingerprint": ({"fingerprint": "../../x"}, "does not describe its image"),
    "another image's files": ({"fingerprint": "0" * 64}, "came with the fingerprint"),
    "a machine": ({"type": "virtual-machine"}, "is a virtual machine's"),
    "more than it said": ({"size": 1000}, "sends more than it promised"),
    "more than fits": ({"size": 1 << 60}, "make room"),
}


async def test_a_peer_whose_line_is_cut(world: World, tmp_path: pathlib.Path) -> None:
    """It goes on where it stopped, or anew where the server cannot; also for an image at an address."""
    server = StreamServer()
    await server.start(authority(tmp_path, NAME))
    (world.path / "ca.pem").write_bytes((tmp_path / "ca.pem").read_bytes())
    source = {"type": "image", "protocol": "lxd", "server": server.url, "alias": "x"}
    for ranges in (True, False):
        data = unified_tar(size=3_000_000)
        _peer(server, data)
        server.faults.cut, server.faults.no_ranges, server.requests = 3, not ranges, []
        found = await world.manager.ensure(source, "default", cached=False)
        assert found == hashlib.sha256(data).hexdigest()
        begins = [asked for path, asked in server.requests if path.endswith("/export")]
        assert len(begins) == 4 and begins[0] == "" and all(one.startswith("bytes=") for one in begins[1:])
        assert len(set(begins)) == (4 if ranges else 2)  # each further on than the one before
    server.faults.cut, server.faults.no_ranges, data = 3, False, unified_tar("bz2", size=3_000_000)
    server.files, server.headers = {"/a.tar.bz2": data}, {"/a.tar.bz2": {}}
    found = await world.manager.import_address(
        f"{server.url}/a.tar.bz2", "default", lambda key, text: None, False, True, {}
    )
    assert found == hashlib.sha256(data).hexdigest()
    assert not [name for name in world.stored() if name.startswith(".")]
    await server.stop()


@pytest.mark.parametrize("name", [*WRONG_PEERS, "a cut line", "another certificate", "no JSON", "nothing wrong"])
async def test_peers_that_are_wrong(world: World, tmp_path: pathlib.Path, name: str) -> None:
    """One line each, and nothing is kept."""
    server, data = StreamServer(), unified_tar(size=200_000)
    await server.start(authority(tmp_path, NAME))
    changes, reason = WRONG_PEERS.get(name, ({}, ""))
    _peer(server, data, **changes)
    source = {"type": "image", "protocol": "lxd", "server": server.url, "alias": "x"}
    source["certificate"] = (tmp_path / "server.crt").read_text()
    if name == "a cut line":
        server.faults.cut, reason = 99, "Fetching the image from .* failed"
    if name == "another certificate":
        source["certificate"], reason = (
            (tmp_path / "ca.pem").read_text(),
            "shows another certificate than the one known",
        )
    if name == "no JSON":
        server.files = dict.fromkeys(server.files, b"<html>")
        reason = "does not answer as LXD"
    if reason:
        with pytest.raises(ApiError, match=reason) as caught:
            await world.manager.ensure(source, "default", cached=False)
        assert "\n" not in str(caught.value)
        assert world.stored() == [] and world.manager.list("default") == []
    else:
        image = world.manager.get("default", await world.manager.ensure(source, "default", cached=False))
        assert (image["properties"], image["expires_at"]) == ({"os": "Peer"}, "2031-01-01T00:00:00Z")
    await server.stop()
