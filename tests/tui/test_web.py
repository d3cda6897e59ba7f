"""The app in a browser: who is let in, what is served, and a browser that clicks its way to a shell."""

import asyncio
import contextlib
import http.client
import os
import pathlib
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web as aiohttp_web

from lxpy.api.errors import ApiError
from lxpy.tui import web
from lxpy.tui.shells import own_command
from tests.support.browser import Browser
from tests.support.daemon import Lxpyd, until


@contextlib.asynccontextmanager
async def served(command: list[str]) -> AsyncIterator[web.Guard]:
    with contextlib.closing(web.listen(0)) as sock:
        guard = web.Guard(sock.getsockname()[1])
        runner = aiohttp_web.AppRunner(await web.application(guard, command), access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await aiohttp_web.SockSite(runner, sock).start()
            yield guard
        finally:
            await runner.cleanup()


async def get(guard: web.Guard, path: str, **headers: str) -> http.client.HTTPResponse:
    def ask() -> http.client.HTTPResponse:
        with contextlib.closing(http.client.HTTPConnection(guard.host, timeout=10)) as connection:
            connection.request("GET", path, headers={"Host": guard.host} | headers)
            answer = connection.getresponse()
            answer.read()
            return answer

    return await asyncio.to_thread(ask)


async def test_only_who_has_the_address_is_let_in_and_only_once() -> None:
    async with served(["true"]) as guard:
        entry = guard.url.removeprefix(f"http://{guard.host}")
        for path in ("/", "/?token=", "/?token=guessed", "/ws", "/static/js/textual.js", "/download/x"):
            assert (await get(guard, path)).status == 403, path
        assert (await get(guard, entry, Host="lxpy.example:80")).status == 403
        answer = await get(guard, entry)
        assert (answer.status, answer.headers["Location"]) == (303, "/")
        given = answer.headers["Set-Cookie"]
        assert "HttpOnly" in given and "SameSite=Strict" in given
        cookie = given.partition(";")[0]
        assert (await get(guard, entry)).status == 403
        assert (await get(guard, "/?token=")).status == 403  # the token that is no more is not an empty one
        page = await get(guard, "/", Cookie=cookie)
        assert page.status == 200
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "https:" not in policy
        assert (await get(guard, "/static/js/textual.js", Cookie=cookie)).status == 200
        assert (await get(guard, "/", Cookie=cookie, Host=f"localhost:{guard.host[10:]}")).status == 403
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        upgrade["Sec-WebSocket-Key"] = "AAAAAAAAAAAAAAAAAAAAAA=="
        assert (await get(guard, "/ws", **upgrade)).status == 403
        assert (await get(guard, "/ws", Cookie=cookie, Origin="http://elsewhere.example", **upgrade)).status == 403
        other = cookie[:-1] + ("A" if cookie[-1] != "A" else "B")
        assert (await get(guard, "/", Cookie=other)).status == 403


def test_it_listens_on_loopback_alone_and_says_why_it_cannot() -> None:
    with contextlib.closing(web.listen(0)) as sock:
        sock.listen()
        address, port = sock.getsockname()
        assert address == "127.0.0.1"
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
        with pytest.raises(ApiError, match=rf"Cannot listen on 127.0.0.1:{port}: Address already in use .--port"):
            web.listen(port)


async def test_without_textual_serve_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual_serve.server", None)
    with pytest.raises(ApiError, match=r"-m pip install textual-serve$"):
        await web.application(web.Guard(1), ["true"])


def _children(pid: int) -> set[str]:
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


async def _screen(ws: Any, wanted: str, seconds: float = 30) -> None:
    """Reads until `wanted` has been drawn."""
    seen, end = "", time.monotonic() + seconds
    while wanted not in seen:
        message = await ws.receive(timeout=max(0.1, end - time.monotonic()))
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), (message, seen[-2000:])
        if message.type == aiohttp.WSMsgType.BINARY:
            seen += re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", message.data.decode(errors="replace"))


async def test_the_command_serves_the_app_and_ends_with_it(lxpyd: Lxpyd, busybox: str) -> None:
    process = lxpyd.spawn("tui", "--web")
    try:
        assert process.stdout is not None
        line = (await asyncio.to_thread(process.stdout.readline)).decode()
        found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
        assert found, line
        jar = aiohttp.CookieJar(unsafe=True)  # what it calls unsafe is a cookie of an address without a name
        async with aiohttp.ClientSession(cookie_jar=jar) as session:
            async with session.get(found[0]) as page:
                assert page.status == 200 and "xterm" in await page.text()
            base = found[0].partition("/?")[0]
            async with session.ws_connect(f"{base}/ws?width=140&height=40") as ws:
                await _screen(ws, busybox)
                await ws.send_json(["stdin", "S"])
                await _screen(ws, "browser")
                first = _children(process.pid)
                async with session.ws_connect(f"{base}/ws?width=100&height=30") as other:
                    await _screen(other, busybox)  # another tab, another app
                    assert len(_children(process.pid)) == 2 * len(first) > 0
                # It goes with its tab; the first one stays.
                await asyncio.to_thread(until, lambda: _children(process.pid) == first, 10, "the second app is there")
                await ws.send_json(["stdin", "?"])
                await _screen(ws, "Keys here")
                children = _children(process.pid)
                process.send_signal(signal.SIGINT)
                assert await asyncio.to_thread(process.wait, 20) == 0
        for child in children:
            until(lambda pid=child: not pathlib.Path(f"/proc/{pid}").exists(), 10, "the app outlived its server")
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.mark.slow
async def test_a_browser_clicks_its_way_to_a_shell(
    lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from textual_serve.app_service import AppService

    for key in ("LXPY_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(key, lxpyd.environment[key])
    monkeypatch.setenv("LXPY_ACTIVATE", "0")
    sizes: list[tuple[int, int]] = []
    drawn = bytearray()
    resize, draw = AppService.set_terminal_size, AppService.on_data

    async def resized(self: Any, width: int, height: int) -> None:
        sizes.append((width, height))
        await resize(self, width, height)

    async def drew(self: Any, payload: bytes) -> None:
        drawn.extend(payload)
        await draw(self, payload)

    monkeypatch.setattr(AppService, "set_terminal_size", resized)
    monkeypatch.setattr(AppService, "on_data", drew)
    before = _children(os.getpid())
    async with served(own_command(["tui"])) as guard:

        def user() -> None:
            browser = Browser(tmp_path)
            try:
                browser.open(guard.url)
                browser.wait(lambda: sizes and busybox.encode() in drawn, "the app with its instance")
                assert "token" not in browser.script("return location.href")
                width, height = sizes[-1]
                box = browser.script(
                    "const r = document.querySelector('.xterm-screen').getBoundingClientRect();"
                    "return [r.x, r.y, r.width, r.height]"
                )

                def click(column: int, row: int) -> None:
                    browser.click(box[0] + (column + 0.5) * box[2] / width, box[1] + (row + 0.5) * box[3] / height)

                click(5, 3)  # the first row of the instances
                click(" / Filter  n New  s Shell".index("Shell"), height - 1)
                browser.wait(lambda: b"leaves the shell" in drawn, "the shell")
                browser.type("touch /root/clicked\n")
                until(lambda: lxpyd.sh(busybox, "ls /root").stdout == "clicked\n", 20, "the shell did nothing")
                count = len(_children(os.getpid()) - before)
                drawn.clear()
                browser.tab()
                browser.open(guard.url)  # the address has been used, the cookie has not
                assert "has been used" in browser.script("return document.body.textContent")
                browser.open(f"http://{guard.host}/")
                browser.wait(lambda: busybox.encode() in drawn, "a second app, in a second tab")
                assert len(_children(os.getpid()) - before) > count
                browser.close_tab()
                until(lambda: len(_children(os.getpid()) - before) == count, 20, "the second app outlived its tab")
            finally:
                browser.screenshot(tmp_path / "browser.png")
                browser.close()

        await asyncio.to_thread(user)
        await asyncio.to_thread(until, lambda: _children(os.getpid()) <= before, 20, "processes are left")
