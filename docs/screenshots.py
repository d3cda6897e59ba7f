"""Makes the pictures of the app in this folder: a daemon of its own, containers, the app by its own keys.

Run as root from the checkout: ``.venv/bin/python docs/screenshots.py``. It works in a namespace of its own, as the
tests do, with their images (``python -m tests.support.images`` fetches them).
"""

import asyncio
import os
import pathlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.support import images, namespace  # noqa: E402
from tests.support.daemon import Lxpyd  # noqa: E402

SIZE = (150, 42)
# What a busy server does: some of the CPU, now more, now less, some memory, some disk, some network.
WORK = """
(i=1; while :; do
    i=$(( (i * 7 + 5) % 31 ))
    n=0; while [ $n -lt $((i * 9000)) ]; do n=$((n + 1)); done
    head -c $((i * 90000 + 1)) /dev/zero > /tmp/spool; sync
    PING
    sleep 0.2
done) > /dev/null 2>&1 &
"""


def world(lxpyd: Lxpyd) -> None:
    """What there is to see."""
    lxpyd.bridge = "lxpybr0"
    lxpyd.cli("init", "--preseed", input=lxpyd.preseed())
    for recipe, alias in (("busybox", "busybox"), ("debian/12", "debian/12")):
        metadata, rootfs = images.files(recipe)
        lxpyd.cli("image", "import", str(metadata), str(rootfs), "--alias", alias)
    lxpyd.cli("launch", "debian/12", "web", "-c", "limits.memory=512MiB", "-c", "limits.cpu=2")
    for name in ("cache", "db", "queue"):
        lxpyd.cli("launch", "busybox", name, "-c", "limits.memory=64MiB")
    lxpyd.cli("init", "busybox", "build")
    lxpyd.cli("pause", "queue")
    lxpyd.cli("snapshot", "web", "before-upgrade")
    lxpyd.sh("web", WORK.replace("PING", ""))
    lxpyd.sh("cache", WORK.replace("PING", f"ping -c 2 -i 0.2 -s $((i * 400)) {lxpyd.wait_address('web')}"))


async def pictures(folder: pathlib.Path) -> None:
    from lxpy.tui.app import LxpyApp
    from lxpy.tui.gateway import local_gateway

    app = LxpyApp(local_gateway())
    app.theme = "lxpy-dark"
    async with app.run_test(size=SIZE) as pilot:

        async def until(condition: Callable[[], Any]) -> None:
            end = time.monotonic() + 60
            while not condition():
                assert time.monotonic() < end, "the app does not get there"
                await pilot.pause(0.05)

        def shoot(name: str) -> None:
            picture = app.export_screenshot(title="lxpy")
            # No fonts of other servers: the reader's own monospace one does.
            picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
            (folder / f"screenshot-{name}.svg").write_text(picture)
            print(f"screenshot-{name}.svg", flush=True)

        async def tab(title: str) -> None:
            detail = app.main.detail
            detail.choose(next(t for t in detail.fitting() if t.title == title))
            await pilot.pause(1.5)

        await until(lambda: app.model.loaded and app.model.images)
        app.action_go(1, "web")
        await pilot.pause(75)  # the graphs fill
        shoot("main")
        await pilot.press("n", *"deb")
        await pilot.pause(1)
        shoot("launch")
        await pilot.press("escape")
        await tab("Files")
        app.main.detail.focus_inside()
        await pilot.press("backspace")
        await pilot.pause(1)
        shoot("files")
        await tab("Isolation")
        await pilot.press("plus")
        await pilot.pause(1)
        shoot("isolation")
        await pilot.press("plus", "escape", "s")
        await until(lambda: app.in_shell)
        await pilot.pause(2)
        for line in ("head -3 /etc/os-release", "ls -C --color=always /", "systemctl is-system-running; hostname -I"):
            await pilot.press(*(character if character.isalnum() else NAMES[character] for character in line), "enter")
            await pilot.pause(2)
        shoot("shell")


NAMES = {
    " ": "space", "-": "minus", "/": "slash", ";": "semicolon", "=": "equals_sign", ".": "full_stop",
}  # fmt: skip


def main() -> None:
    if os.geteuid() != 0:
        raise SystemExit("Error: containers need root: sudo .venv/bin/python docs/screenshots.py")
    if not namespace.inside():
        raise SystemExit(namespace.enter([sys.executable, __file__], network=True))
    lxpyd = Lxpyd("pictures", 240)
    lxpyd.start()
    try:
        world(lxpyd)
        os.environ |= {key: lxpyd.environment[key] for key in ("LXPY_DIR", "HOME", "XDG_CONFIG_HOME", "LXPY_ACTIVATE")}
        asyncio.run(pictures(HERE))
    finally:
        lxpyd.destroy()


if __name__ == "__main__":
    main()
