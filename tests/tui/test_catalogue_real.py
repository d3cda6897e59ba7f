"""A served catalogue in front of a real daemon: looked through, fetched, launched; and a server's certificate."""

import asyncio
import hashlib
import io
import os
import tarfile
from typing import Any

import pytest
from textual.widgets import Input, Select

from lxpy.client import https
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.launch import LaunchDialog
from tests.support import images
from tests.support.daemon import Lxpyd
from tests.support.streams import StreamServer, serving
from tests.tui import screen
from tests.tui.test_real_daemon import notices, opened, status, wait


def of_its_own(server: StreamServer) -> str:
    """The busybox image with another description, so that it is not here yet; gives its fingerprint."""
    metadata, rootfs = images.files("busybox")
    packed = io.BytesIO()
    with tarfile.open(metadata) as old, tarfile.open(fileobj=packed, mode="w:xz") as new:
        for member in old:
            data = old.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
            if member.name.endswith("metadata.yaml"):
                data += b"\n# from the lab\n"
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    return server.add("Busybox", "1.35", packed.getvalue(), rootfs.read_bytes(), aliases="busybox/1.35,busybox")


def many(server: StreamServer, versions: int) -> None:
    """Products that are only listed, so many versions in all."""
    item = {"ftype": "squashfs", "path": "images/x/rootfs.squashfs", "size": 1 << 20, "sha256": "0" * 64}
    for number in range(versions // 6):
        for arch in ("amd64", "arm64"):
            key = f"os{number % 30:02}:{number // 30}:{arch}:cloud"
            product: dict[str, Any] = {
                "aliases": f"os{number % 30:02}/{number // 30}/cloud", "arch": arch, "os": f"Os{number % 30:02}",
                "release": str(number // 30), "variant": "cloud", "versions": {},
            }  # fmt: skip
            for serial in ("20260101_00:00", "20260102_00:00", "20260103_00:00"):
                combined = hashlib.sha256(f"{key}{serial}".encode()).hexdigest()
                meta = {**item, "ftype": "lxd.tar.xz", "path": "images/x/lxd.tar.xz"}
                meta["combined_squashfs_sha256"] = combined
                product["versions"][serial] = {"items": {"m": meta, "r": item}}
            server.products[key] = product


async def test_from_a_remote_to_a_running_instance(lxpyd: Lxpyd, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server = StreamServer()
    many(server, 6000)
    fingerprint = of_its_own(server)
    server.add("Slow", "1", b"no metadata", os.urandom(6 << 20), aliases="slow")
    with serving(server):
        lxpyd.cli("remote", "add", "lab", server.url, "--protocol", "simplestreams")
        try:
            async with opened(lxpyd, monkeypatch) as pilot:
                await _looked_through(pilot, server, fingerprint, name)
        finally:
            lxpyd.cli("remote", "remove", "lab")
            lxpyd.cli("delete", "-f", name, check=False)
            lxpyd.cli("image", "delete", fingerprint, check=False)


async def _looked_through(pilot: Any, server: StreamServer, fingerprint: str, name: str) -> None:
    app = pilot.app
    await pilot.press("3")
    await wait(pilot, lambda: app.focused is app.main.panes[2])
    app.action_go(3, "lab")
    assert not server.requests
    await pilot.press("t")
    await wait(pilot, lambda: "● answers" in screen.text(app) and " ms" in screen.text(app))
    assert server.requests == [("/streams/v1/index.json", "")]
    await pilot.press("enter")
    pane = app.main.catalogue
    await wait(pilot, lambda: pane.rows)
    assert len(pane.all_rows) == 6002 and {row.arch for row in pane.rows} == {"amd64"}

    # A download that is cancelled, and one of damaged files
    await pilot.press("slash", *"os:slow", "enter")
    await wait(pilot, lambda: len(pane.rows) == 1 and app.focused is pane)
    server.faults.slow = 0.15
    await pilot.press("d")
    await wait(pilot, lambda: isinstance(app.screen, Form))
    await pilot.press("ctrl+s")
    await wait(pilot, lambda: "◌ " in screen.text(app) and "%" in screen.text(app))
    await pilot.press("ctrl+d")
    await wait(pilot, lambda: "Cancelled: Download lab:slow" in notices(app))
    server.faults.slow, server.faults.wrong = 0.0, 99
    await pilot.press("d")
    await wait(pilot, lambda: isinstance(app.screen, Form))
    await pilot.press("ctrl+s")
    await wait(pilot, lambda: any(n.startswith("Cannot download lab:slow: ") for n in notices(app)), 60)
    server.faults.wrong = 0
    assert not [image for image in app.model.images if "slow" in image.aliases]

    await pilot.press("slash", *(["backspace"] * 8), *"os:busy release:1.3", "enter")
    await wait(pilot, lambda: [row.fingerprint for row in pane.rows] == [fingerprint] and app.focused is pane)
    await pilot.press("n")
    await wait(pilot, lambda: isinstance(app.screen, LaunchDialog))
    app.screen.query_one("#name", Input).value = name
    await wait(pilot, lambda: f"lxpy launch lab:busybox {name}" in screen.text(app), 30)
    await pilot.press("ctrl+s")
    await wait(pilot, lambda: status(app, name) == "Running", 40)
    await wait(pilot, lambda: app.on_main and "busybox ✔" in screen.text(app))


async def test_a_server_is_trusted_by_its_certificate(
    lxpyd: Lxpyd, own_lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, here = lxpyd, own_lxpyd
    there.cli("config", "set", "core.https_address=127.0.0.1:19641")
    try:
        token = there.out("config", "trust", "add", "-q", "--name", "app")
        found = https.fingerprint(https.server_certificate("https://127.0.0.1:19641"))
        async with opened(here, monkeypatch) as pilot:
            app = pilot.app

            async def ask(name: str, secret: str) -> None:
                await pilot.press("3")
                await wait(pilot, lambda: app.focused is app.main.panes[2])
                await pilot.press("a")
                await wait(pilot, lambda: isinstance(app.screen, Form) and app.focused is not None)
                app.screen.query_one("#ask-name", Input).value = name
                app.screen.query_one("#ask-url", Input).value = "https://127.0.0.1:19641"
                app.screen.query_one("#ask-protocol", Select).value = "lxd"
                app.screen.query_one("#ask-secret", Input).value = secret
                await pilot.press("ctrl+s")

            await ask("peer", "wrong")
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            assert "".join(app.screen.names[2:]).replace(" ", "") == found
            await pilot.press("escape")
            await wait(pilot, lambda: "its certificate is not trusted" in screen.text(app))
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await wait(pilot, lambda: isinstance(app.screen, Form) and "not authorized" in screen.text(app).lower(), 30)
            await pilot.press("escape")
            await wait(pilot, lambda: app.on_main)

            await ask("peer", token)  # the token says whose certificate it is: nothing to ask
            await wait(pilot, lambda: app.on_main and any(r.name == "peer" for r in app.main.panes[2].rows), 30)
            app.action_go(3, "peer")
            await pilot.press("t")
            await wait(pilot, lambda: "● answers" in screen.text(app))
            await pilot.press("enter")
            await wait(pilot, lambda: "bb" in [row.name for row in app.main.catalogue.rows])
            app.main.catalogue.action_to([row.name for row in app.main.catalogue.rows].index("bb"))
            await asyncio.to_thread(here.cli, "image", "delete", "bb")
            await wait(pilot, lambda: not app.model.images)
            await pilot.press("d")
            await wait(pilot, lambda: isinstance(app.screen, Form))
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: "bb ✔" in screen.text(app), 30)
            await asyncio.to_thread(here.cli, "image", "delete", "bb")
            await wait(pilot, lambda: not app.model.images)
            await pilot.press("n")
            await wait(pilot, lambda: isinstance(app.screen, LaunchDialog))
            app.screen.query_one("#name", Input).value = "pulled"
            await wait(pilot, lambda: "lxpy launch peer:bb pulled" in screen.text(app), 30)
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: status(app, "pulled") == "Running", 40)
            assert here.status("pulled") == "RUNNING"
            await wait(pilot, lambda: app.on_main)
            await pilot.press("escape")
            await wait(pilot, lambda: app.focused is app.main.panes[2])
            app.action_go(3, "peer")
            await pilot.press("s")
            await wait(pilot, lambda: app.gateway.remote == "peer" and app.model.loaded and app.model.images)
            await wait(pilot, lambda: app.main.active is app.main.panes[0])
    finally:
        there.cli("config", "unset", "core.https_address")
        for one in there.json("config", "trust", "list", "-f", "json"):
            there.cli("config", "trust", "remove", one["fingerprint"])


async def test_a_token_in_place_of_an_address(lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says where the server is and whose certificate that has; protocol and secret are left as they are."""
    lxpyd.cli("config", "set", "core.https_address=127.0.0.1:19643")
    try:
        token = lxpyd.out("config", "trust", "add", "-q", "--name", "app")
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app

            async def ask(name: str, url: str) -> None:
                if not isinstance(app.screen, Form):
                    await pilot.press("3", "a")
                    await wait(pilot, lambda: isinstance(app.screen, Form) and app.focused is not None)
                app.screen.query_one("#ask-name", Input).value = name
                app.screen.query_one("#ask-url", Input).value = url
                await pilot.press("ctrl+s")

            def remote() -> Any:
                return next((one for one in app.model.remotes if one.name == "mine"), None)

            await ask("mine", token[: len(token) // 2])
            await wait(pilot, lambda: "An image server has an http:// or https:// address" in screen.text(app))
            await ask("local", token)
            await wait(pilot, lambda: "There is a remote local already" in screen.text(app))
            await ask("mine", token)
            await wait(pilot, lambda: app.on_main and remote())
            assert (remote().protocol, remote().url) == ("lxd", "https://127.0.0.1:19643")
            app.action_go(3, "mine")
            await pilot.press("t")
            await wait(pilot, lambda: "● answers" in screen.text(app))
    finally:
        lxpyd.cli("remote", "remove", "mine", check=False)
        lxpyd.cli("config", "unset", "core.https_address")
        for one in lxpyd.json("config", "trust", "list", "-f", "json"):
            lxpyd.cli("config", "trust", "remove", one["fingerprint"])
