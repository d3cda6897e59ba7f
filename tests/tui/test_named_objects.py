"""Renaming and copying what has a name, and the log of ACLs, in front of a real daemon."""

import contextlib
import json
import socket
from typing import Any

import pytest
from textual.widgets import Input, Static

from lxpy.tui.screens.form import Form
from lxpy.tui.screens.log import LogScreen
from lxpy.tui.tabs.network import AclsTab
from tests.support.daemon import Lxpyd, until
from tests.tui.test_real_daemon import notices, opened, wait


async def form(pilot: Any, key: str) -> None:
    """Presses a verb's key and waits for its form."""
    await pilot.press(key)
    await wait(pilot, lambda: isinstance(pilot.app.screen, Form))


async def answered(pilot: Any, **answers: str) -> None:
    """Writes into the fields of a form and sends it off."""
    for name, text in answers.items():
        pilot.app.screen.query_one(f"#ask-{name}", Input).value = text
    await pilot.press("ctrl+s")


def fault(app: Any, name: str = "name") -> str:
    line = app.screen.query_one(f"#fault-{name}", Static)
    return str(line.render()) if line.display else ""


async def at(pilot: Any, number: int, key: str) -> Any:
    """A pane with the cursor on an object."""
    app = pilot.app
    app.main.action_pane(number)
    await wait(pilot, lambda: key in [row.key for row in app.main.active.rows])
    app.action_go(number, key)
    await wait(pilot, lambda: app.main.active.current.key == key)
    return app.main.active


async def test_a_network_gets_another_name(lxpyd: Lxpyd, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = f"{name}br", f"{name}other"
    lxpyd.cli("network", "create", old, "ipv4.address=none", "ipv6.address=none")
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app
            pane = await at(pilot, 5, old)
            await form(pilot, "R")
            await answered(pilot, name=lxpyd.bridge)
            await wait(pilot, lambda: "already" in fault(app))
            await answered(pilot, name="with blanks")
            await wait(pilot, lambda: "with blanks" in fault(app))
            await answered(pilot, name=new)
            await wait(pilot, lambda: app.on_main and pane.current is not None and pane.current.name == new)
            assert old not in [row.name for row in pane.rows]
            assert {old, new} & {one["name"] for one in lxpyd.json("network", "list", "-f", "json")} == {new}
            # one in use stays as it is, and the form says by what
            await at(pilot, 5, lxpyd.bridge)
            await form(pilot, "R")
            await answered(pilot, name=f"{name}br")
            await wait(pilot, lambda: app.screen.query_one("#form-fault").display)
            assert "in use" in str(app.screen.query_one("#form-fault", Static).render())
            await pilot.press("escape")
            await wait(pilot, lambda: app.on_main)
            await at(pilot, 5, "lo")
            await pilot.press("R")
            await wait(pilot, lambda: any("Nothing to rename" in one for one in notices(app)))
    finally:
        lxpyd.cli("network", "delete", old, check=False)
        lxpyd.cli("network", "delete", new, check=False)


async def test_a_profile_is_copied(lxpyd: Lxpyd, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source, project = f"{name}-small", f"{name}-lab"
    lxpyd.cli("profile", "create", source)
    lxpyd.cli("profile", "set", source, "limits.memory=64MiB")
    lxpyd.cli("project", "create", project)
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app
            pane = await at(pilot, 6, source)
            await form(pilot, "c")
            await answered(pilot, name="default")
            await wait(pilot, lambda: "already" in fault(app))
            await answered(pilot, name=f"{source}-copy")
            await wait(pilot, lambda: app.on_main and pane.current.name == f"{source}-copy")
            await form(pilot, "c")
            line = app.screen.query_one("#form-line", Static)
            await answered(pilot, name="there", project=f"{project}x")
            await wait(pilot, lambda: app.screen.query_one("#form-fault").display)  # there is no such project
            app.screen.query_one("#ask-project", Input).value = project
            await wait(pilot, lambda: f"copy {source}-copy there --target-project {project}" in str(line.render()))
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: any(project in one for one in notices(app)))
        for words in ((f"{source}-copy",), ("there", "--project", project)):
            assert lxpyd.out("profile", "get", *words[:1], "limits.memory", *words[1:]) == "64MiB"
    finally:
        lxpyd.cli("profile", "delete", "there", "--project", project, check=False)
        lxpyd.cli("project", "delete", project)
        lxpyd.cli("profile", "delete", source, f"{source}-copy", check=False)


async def test_an_acl_gets_another_name_and_its_log_follows(
    lxpyd: Lxpyd, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, net = f"{name}-a", f"{name}-b", f"{name}net"
    for acl in (old, f"{name}-c"):
        lxpyd.cli("network", "acl", "create", acl)
    lxpyd.cli("network", "acl", "rule", "add", old, "ingress", "action=reject", "protocol=tcp",
              "destination_port=81", "state=logged")  # fmt: skip
    lxpyd.cli("network", "create", net, "ipv6.address=none")
    try:
        lxpyd.cli("launch", "bb", name, "--network", net)
        address = lxpyd.wait_address(name)
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app
            await at(pilot, 5, lxpyd.bridge)
            app.main.action_open_detail()
            tab = app.main.detail.find(AclsTab)
            app.main.detail.choose(tab)
            await wait(pilot, lambda: old in [row.name for row in tab.table.rows])
            app.main.detail.focus_inside()
            tab.table.action_to([row.name for row in tab.table.rows].index(old))
            await wait(pilot, lambda: app.focused is tab.table)
            await form(pilot, "R")
            await answered(pilot, name=f"{name}-c")
            await wait(pilot, lambda: "already exists" in fault(app))
            await answered(pilot, name=new)
            await wait(pilot, lambda: app.on_main and tab.table.current.name == new)
            await pilot.press("l")
            await wait(pilot, lambda: isinstance(app.screen, LogScreen))
            log = app.screen
            assert not log.view.lines
            lxpyd.cli("network", "set", net, f"security.acls={new}")

            def knock() -> list[dict[str, str]]:
                with contextlib.suppress(OSError):
                    socket.create_connection((address, 81), 1).close()
                return [json.loads(one) for one in lxpyd.out("network", "acl", "show-log", new).splitlines()]

            first = until(knock, 10, "nothing is logged")[0]
            await wait(pilot, lambda: log.view.lines)
            for word in (first["time"], "reject", "ingress.0", "tcp", f"→ {address}:81", first["subject"]):
                assert word in log.view.lines[0]
            before = len(log.view.lines)
            knock()
            await wait(pilot, lambda: len(log.view.lines) > before)
            await pilot.press("escape")
            await wait(pilot, lambda: app.on_main)
    finally:
        lxpyd.cli("delete", "-f", name, check=False)
        lxpyd.cli("network", "delete", net, check=False)
        lxpyd.cli("network", "acl", "delete", new, f"{name}-c", check=False)
        lxpyd.cli("network", "acl", "delete", old, check=False)


async def test_one_key_is_explained_completed_and_judged(
    lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        await wait(pilot, lambda: busybox in app.model.instances)
        app.action_go(1, busybox)
        await form(pilot, "=")
        await pilot.press(*"security.nest")
        field = app.screen.query_one("#ask-key", Input)
        await wait(pilot, lambda: field._suggestion == "security.nesting")
        await pilot.press("right", "tab", *"perhaps")
        explanation = (await app.rules.keys("instance"))["security.nesting"].text
        await wait(pilot, lambda: explanation in str(app.screen.query_one(".note", Static).render()))
        await wait(pilot, lambda: "perhaps" in fault(app, "value"))
        await pilot.press("ctrl+s")  # nothing is sent before it is right
        await wait(pilot, lambda: not app.screen.busy)
        assert isinstance(app.screen, Form) and "security.nesting" not in lxpyd.instance(busybox)["config"]
        await pilot.press("ctrl+u", *"tr")
        value = app.screen.query_one("#ask-value", Input)
        await wait(pilot, lambda: value._suggestion == "true")
        await pilot.press("right", "enter")
        await wait(pilot, lambda: app.on_main)
        assert lxpyd.instance(busybox)["config"]["security.nesting"] == "true"
        await wait(pilot, lambda: "security.nesting" in app.model.instances[busybox].raw["config"])
        await form(pilot, "=")
        await answered(pilot, key="security.nestling")
        await wait(pilot, lambda: "security.nesting" in fault(app, "key"))  # did you mean
        await answered(pilot, key="security.nesting", value="")
        await wait(pilot, lambda: app.on_main)
        assert "security.nesting" not in lxpyd.instance(busybox)["config"]
