"""A headless Chromium driven by the WebDriver protocol, without a library for it."""

import base64
import json
import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

# --no-sandbox because tests run as root; the rest keeps it from asking anybody anything.
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


class Browser:
    """One window; `close` ends it and its driver."""

    def __init__(self, folder: pathlib.Path, width: int = 1400, height: int = 900) -> None:
        program = shutil.which("chromedriver")
        assert program, "chromedriver is not installed: apt-get install chromium chromium-driver"
        self._driver = subprocess.Popen([program, "--port=0"], stdout=subprocess.PIPE, text=True)
        assert self._driver.stdout is not None
        line = ""
        while "started successfully on port" not in line:
            line = self._driver.stdout.readline()
            assert line, "chromedriver ended"
        self._base = f"http://127.0.0.1:{line.split()[-1].rstrip('.')}"
        flags = [*FLAGS, f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": flags}}
        found = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._base += f"/session/{found['sessionId']}"

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, url: str) -> None:
        self._ask("POST", "/url", {"url": url})

    def script(self, code: str) -> Any:
        return self._ask("POST", "/execute/sync", {"script": code, "args": []})

    def click(self, x: float, y: float, count: int = 1) -> None:
        """Clicks at a point of the page, in CSS pixels."""
        press = [
            {"type": "pointerDown", "button": 0},
            {"type": "pause", "duration": 30},
            {"type": "pointerUp", "button": 0},
        ]
        move = {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)}
        mouse = {"type": "pointer", "id": "mouse", "actions": [move, *press * count]}
        self._ask("POST", "/actions", {"actions": [mouse]})

    def type(self, text: str) -> None:
        text = text.replace("\n", "\ue007")  # as the protocol calls the enter key
        keys = [{"type": kind, "value": c} for c in text for kind in ("keyDown", "keyUp")]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def tab(self) -> None:
        """Opens a second tab, and looks at it from now on."""
        self._first = self._ask("GET", "/window")
        self._ask("POST", "/window", {"handle": self._ask("POST", "/window/new", {"type": "tab"})["handle"]})

    def close_tab(self) -> None:
        """Closes that tab; back to the first."""
        self._ask("DELETE", "/window")
        self._ask("POST", "/window", {"handle": self._first})

    def screenshot(self, path: pathlib.Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def wait(self, condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {seconds} s: {what}"
            time.sleep(0.1)
        return found

    def close(self) -> None:
        try:
            self._ask("DELETE", "")
        finally:
            self._driver.terminate()
            self._driver.wait(10)
            assert self._driver.stdout is not None
            self._driver.stdout.close()
