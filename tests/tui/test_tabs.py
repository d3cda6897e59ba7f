"""The tabs of the detail area in front of a real daemon: snapshots, files, configuration, processes, isolation."""

import pathlib
import shlex
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from lxpy.tui.tabs import Tab
from lxpy.tui.tabs.config import ConfigTab
from lxpy.tui.tabs.files import FilesTab
from lxpy.tui.tabs.isolation import IsolationTab, ProcessesTab
from lxpy.tui.tabs.snapshots import SnapshotsTab
from tests.support.daemon import Lxpyd
from tests.tui.test_real_daemon import notices, opened, wait


async def at(pilot: Pilot[Any], name: str, kind: type[Tab]) -> Any:
    """The tab of an instance, with the keyboard in it."""
    app = pilot.app
    app.action_go(1, name)
    app.main.action_open_detail()
    tab = app.main.detail.find(kind)
    app.main.detail.choose(tab)
    await wait(pilot, lambda: tab.display)
    app.main.detail.focus_inside()
    await wait(pilot, lambda: app.focused is tab.inside())
    return tab


def names(tab: Any) -> list[str]:
    return [row.name for row in tab.table.rows]


async def test_snapshots(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lxpyd.sh(busybox, "echo before > /root/state")
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await at(pilot, busybox, SnapshotsTab)
        await pilot.press("a")
        await wait(pilot, lambda: app.screen.query("#ask-name"))
        await pilot.press(*"first", "ctrl+s")
        await wait(pilot, lambda: app.on_main and names(tab) == ["first", "now"])
        await wait(pilot, lambda: app.model.instances[busybox].snapshots == 1)
        lxpyd.sh(busybox, "echo after > /root/state")
        lxpyd.cli("config", "set", busybox, "user.colour=blue")
        await wait(pilot, lambda: app.model.instances[busybox].raw["config"].get("user.colour"))
        await pilot.press("D")
        await wait(pilot, lambda: not app.on_main and "+  user.colour: blue" in app.screen.view.lines)
        await pilot.press("escape", "r")
        await wait(pilot, lambda: app.screen.query("#confirm-names"))
        await pilot.press("y")
        await wait(pilot, lambda: any("is as in first" in n for n in notices(app)), 40)
        lxpyd.wait_status(busybox, "RUNNING")
        assert lxpyd.sh(busybox, "cat /root/state").stdout == "before\n"
        await pilot.press("R")
        await wait(pilot, lambda: app.screen.query("#ask-name"))
        await pilot.press("ctrl+a", "ctrl+k", *"second", "ctrl+s")
        await wait(pilot, lambda: app.on_main and names(tab) == ["second", "now"])
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: not app.on_main)
        await pilot.press("y")
        await wait(pilot, lambda: app.on_main and names(tab) == [])


async def test_files(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lxpyd.sh(busybox, "mkdir -p /root/deep/er; echo hello there > /root/deep/note; ln -s deep/er /root/way")
    (tmp_path / "mine").write_text("pushed\n")
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await at(pilot, busybox, FilesTab)
        await wait(pilot, lambda: {"..", "deep", "way"} <= set(names(tab)))
        tab.table.action_to(names(tab).index("deep"))
        await pilot.press("enter")
        await wait(pilot, lambda: names(tab) == ["..", "er", "note"])
        tab.table.action_to(2)
        await pilot.press("v")
        await wait(pilot, lambda: not app.on_main and app.screen.view.lines == ["hello there"])
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await pilot.press("p")
        await wait(pilot, lambda: app.screen.query("#ask-file"))
        app.screen.query_one("#ask-file").value = str(tmp_path / "nothing")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "No such file" in str(app.screen.query_one("#form-fault", Static).render()))
        app.screen.query_one("#ask-file").value = str(tmp_path / "mine")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and "mine" in names(tab))
        assert lxpyd.sh(busybox, "cat /root/deep/mine").stdout == "pushed\n"
        tab.table.action_to(names(tab).index("note"))
        await pilot.press("g")
        await wait(pilot, lambda: app.screen.query("#ask-file"))
        app.screen.query_one("#ask-file").value = str(tmp_path)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and (tmp_path / "note").exists())
        assert (tmp_path / "note").read_text() == "hello there\n"
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: not app.on_main)
        await pilot.press("y")
        await wait(pilot, lambda: app.on_main and "note" not in names(tab))
        await pilot.press("backspace")
        await wait(pilot, lambda: tab.path == "/root" and tab.table.current and tab.table.current.name == "deep")


async def test_a_file_in_the_users_editor(
    lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal to suspend the refusal is readable; the write itself is tried by what the editor gives."""
    lxpyd.sh(busybox, "umask 077; echo one > /root/note")
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await at(pilot, busybox, FilesTab)
        await wait(pilot, lambda: "note" in names(tab))
        tab.table.action_to(names(tab).index("note"))
        await pilot.press("e")
        await wait(pilot, lambda: any("Cannot edit" in n for n in notices(app)))
        monkeypatch.setattr("lxpy.tui.editing.in_editor", lambda app, text, suffix: (text + "two\n", ""))
        await pilot.press("e")
        await wait(pilot, lambda: any("Written" in n for n in notices(app)))
        assert lxpyd.sh(busybox, "cat /root/note; stat -c %a /root/note").stdout == "one\ntwo\n600\n"


async def test_configuration_says_where_it_comes_from(
    lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lxpyd.cli("config", "set", busybox, "limits.processes=77")
    async with opened(lxpyd, monkeypatch) as pilot:
        tab = await at(pilot, busybox, ConfigTab)
        await wait(pilot, lambda: "profile default" in str(tab.body.render()))
        lines = {line.split(":")[0].strip(): line for line in str(tab.body.render()).splitlines()}
        assert lines["limits.processes"].split() == ["limits.processes:", "77", "own"]
        assert lines["root"].split() == ["root:", "profile", "default"]


async def test_processes_and_isolation(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(lxpyd, monkeypatch) as pilot:
        tab = await at(pilot, busybox, ProcessesTab)
        await wait(pilot, lambda: tab.table.rows)
        init = next(row for row in tab.table.rows if row.inside == 1)
        assert init.pid == lxpyd.init_pid(busybox) and init.uid_inside == 0 < init.uid
        tab = await at(pilot, busybox, IsolationTab)
        await wait(pilot, lambda: "Namespaces" in str(tab.body.render()))
        text = str(tab.body.render())
        said = lxpyd.cli("info", "--isolation", busybox).stdout
        inodes = [line.split()[1] for line in said.splitlines() if line.startswith(("  user ", "  net "))]
        assert len(inodes) == 2 and all(inode in text for inode in inodes)
        lxpyd.cli("stop", "-f", busybox)
        await wait(pilot, lambda: "does not run" in str(tab.body.render()))


async def test_an_export_by_the_form(
    lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lxpyd.cli("stop", "-f", busybox)
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        app.action_go(1, busybox)
        await pilot.press("P")
        await wait(pilot, lambda: app.screen.query("#ask-alias"))
        line = str(app.screen.query_one("#form-line", Static).render())
        assert shlex.split(line)[1:4] == ["lxpy", "publish", busybox]
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and any(busybox in i.aliases for i in app.model.images), 60)
        lxpyd.cli("image", "delete", busybox)


async def test_remotes_come_and_go(lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        await pilot.press("3", "a")
        await wait(pilot, lambda: app.screen.query("#ask-url"))
        app.screen.query_one("#ask-name").value = "again"
        app.screen.query_one("#ask-url").value = "nonsense://x"
        app.screen.query_one("#ask-protocol").value = "lxd"
        await pilot.press("ctrl+s")
        fault = app.screen.query_one("#form-fault", Static)
        await wait(pilot, lambda: str(fault.render()))
        assert "Traceback" not in str(fault.render())
        app.screen.query_one("#ask-url").value = f"unix://{lxpyd.layout.socket}"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and any(row.name == "again" for row in app.main.panes[2].rows))
        app.action_go(3, "again")
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: not app.on_main)
        await pilot.press("y")
        await wait(pilot, lambda: not any(row.name == "again" for row in app.main.panes[2].rows))
