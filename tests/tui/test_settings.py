"""Settings: what is wrong with them and where, changing them without touching the rest of the file, live preview."""

import os
import pathlib
import stat
from typing import Any

import pytest
import yaml
from textual.widgets import Checkbox, Input, Select, Static

from lxpy.tui import keymap, settings
from lxpy.tui.app import LxpyApp
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.settings import SettingsScreen
from lxpy.tui.screens.themes import ThemeScreen
from lxpy.tui.settings import Settings, SettingsError, checked, read
from lxpy.tui.settingsfile import changed, save
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, WIDE, daemon, notices, opened, wait

__all__ = ["daemon"]


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The user's file, which is not there yet."""
    place = tmp_path / "conf" / "config.yaml"
    monkeypatch.setattr("lxpy.tui.settings.path", lambda: str(place))
    return place


def test_every_fault_has_its_line_and_the_rest_is_used(file: pathlib.Path) -> None:
    file.parent.mkdir()
    file.write_text(
        "# mine\ntheme: lxpy-light\nrefresh: often\ncolour: blue\ncolumns:\n  - name\n  - size\n"
        "confirm:\n  stop: yes\n  launch: no\nshell: [bash, -l]\nread_only: 3\n"
    )
    with pytest.raises(SettingsError) as caught:
        settings.load()
    lines = [line.removeprefix(f"{file}: ") for line in str(caught.value).splitlines()]
    assert [line.partition(" must")[0].partition(" never")[0].partition(": there")[0] for line in lines] == [
        "line 3: refresh: it", "line 4: colour: unknown setting", "line 5: columns: it",
        "line 10: confirm: 'launch'", "line 12: read_only: it",
    ]  # fmt: skip
    assert caught.value.settings == Settings(theme="lxpy-light", shell=("bash", "-l"))


@pytest.mark.parametrize(
    ("text", "fault"),
    [("theme: [", "line 1"), ("- a\n", "line 1: it must be a mapping"), ("a: b\n\tc: d", "line 2"),
     ("shell: 'bash \"'", "command line (no closing")],
)  # fmt: skip
def test_a_file_that_is_none(text: str, fault: str) -> None:
    found, faults = read(text)
    assert found == Settings() and fault in str(faults[0])


def test_what_asks_first() -> None:
    usual, more = Settings(), checked({"confirm": "changes"})
    assert usual.asks("delete") and not usual.asks("stop") and usual.asks("stop", many=True)
    assert more.asks("stop") and not more.asks("start", many=True)
    own = checked({"confirm": {"level": "changes", "stop": False, "delete": False, "start": True}})
    assert not own.asks("stop", many=True) and not own.asks("delete") and own.asks("start") and own.asks("restart")
    for wrong in ({"stop": "perhaps"}, {"fly": True}, {"level": "never"}):
        with pytest.raises(SettingsError):
            checked({"confirm": wrong})


MINE = """\
# my settings
refresh: 5      # slow line

theme: lxpy-light # for the day
# what I look at:
columns:
  - name   # always
  - state

keys: {instance.stop: X}
"""


@pytest.mark.parametrize(
    ("text", "name", "value", "wanted"),
    [
        (MINE, "theme", "nord", MINE.replace("lxpy-light", "nord")),
        (MINE, "refresh", 2.0, MINE.replace("5", "2", 1)),
        (MINE, "columns", ["name", "age"], MINE.replace("\n  - name   # always\n  - state", " [name, age]")),
        (MINE, "theme", None, MINE.replace("theme: lxpy-light # for the day\n", "")),
        (MINE, "read_only", True, MINE + "read_only: true\n"),
        (MINE, "shell", "bash -l", MINE + 'shell: "bash -l"\n'),
        (MINE, "confirm", {"level": "changes", "stop": False}, MINE + "confirm: {level: changes, stop: false}\n"),
        ("", "theme", "nord", "theme: nord\n"),
        ("# nothing yet", "theme", "nord", "# nothing yet\ntheme: nord\n"),
        ("theme:\n", "theme", "nord", "theme: nord\n"),
        ("{theme: a, refresh: 3}", "theme", "nord", "{theme: nord, refresh: 3}"),
        ("{refresh: 3}\n", "theme", "nord", "{refresh: 3, theme: nord}\n"),
        ("theme: a", "refresh", 3, "theme: a\nrefresh: 3\n"),
        ("theme: a  # one\n# the end\n", "refresh", 3, "theme: a  # one\nrefresh: 3\n# the end\n"),
        ('"theme": \'a b\'\n', "theme", "nord", '"theme": nord\n'),
        ("theme: no\n", "theme", "yes", 'theme: "yes"\n'),
    ],
)  # fmt: skip
def test_only_the_value_changes(text: str, name: str, value: Any, wanted: str) -> None:
    now = changed(text, name, value)
    assert now == wanted
    assert yaml.safe_load(now).get(name) == value


@pytest.mark.parametrize("text", ["theme: |\n  a\nrefresh: 2\n", "- a\n", "theme: [\n", "base: &x nord\ntheme: *x\n"])
def test_what_cannot_be_changed_safely_is_left_alone(text: str) -> None:
    try:
        assert yaml.safe_load(changed(text, "theme", "b")) == yaml.safe_load(text) | {"theme": "b"}
    except SettingsError as error:
        assert str(error)


def test_saving_is_whole_and_keeps_mode_and_link(file: pathlib.Path, tmp_path: pathlib.Path) -> None:
    assert save({"theme": "nord"}).theme == "nord" and file.read_text() == "theme: nord\n"
    real = tmp_path / "dotfiles.yaml"
    real.write_text(MINE)
    real.chmod(0o640)
    file.unlink()
    file.symlink_to(real)
    assert save({"refresh": 3.0, "theme": "nord"}).refresh == 3
    assert file.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o640
    assert real.read_text() == MINE.replace("5", "3", 1).replace("lxpy-light", "nord")
    before = real.read_text()
    with pytest.raises(SettingsError, match="1 to 60"):
        save({"refresh": 100})
    assert real.read_text() == before and sorted(os.listdir(tmp_path)) == ["conf", "dotfiles.yaml"]


def test_a_map_of_keys_tells_its_conflicts() -> None:
    def told(**keys: str) -> list[str]:
        return [str(one) for one in keymap.faults({name.replace("__", "."): key for name, key in keys.items()})]

    assert told(instance__stop="ctrl+t, f9") == []
    assert told(instance__stop="f9", instance__start="x") == [], "x is free when stop has gone from it"
    assert "no binding has the id 'instance.fly'" in told(instance__fly="w")[0]
    assert "'nokey' is no key" in told(instance__stop="nokey")[0]
    (fault,) = told(instance__stop="u")
    assert fault == "keys: u is instance.stop and instance.start: one of them has no key then"
    (fault,) = told(instance__stop="q")
    assert "app.quit" in fault
    (fault,) = told(instance__stop="slash")
    assert "pane.filter" in fault
    assert told(instance__stop="/") == told(instance__stop="slash")
    assert told(instance__stop="hyper+ctrl+f5") == [] and told(instance__stop="é") == []
    assert told(snapshot__take="x") == [], "it is where the instances' keys are not"


async def test_faults_of_theme_and_keys_have_their_lines(
    daemon: FakeDaemon, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.parent.mkdir()
    file.write_text("refresh: 60\ntheme: pink\nkeys:\n  # comment\n  instance.start: X\n  instance.stop: u\n")
    app = LxpyApp(daemon.gateway(), settings.load())
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: len(notices(app)) >= 1)
        assert any("line 2: theme: 'pink' is none of" in n for n in notices(app))


async def test_a_theme_is_seen_before_it_is_chosen(daemon: FakeDaemon, file: pathlib.Path) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        before = app.theme
        app.action_change_theme()
        await wait(pilot, lambda: isinstance(app.screen, ThemeScreen) and app.screen.query("#themes"))
        await wait(pilot, lambda: app.screen.query_one("#themes").current)
        await pilot.press("down")
        await wait(pilot, lambda: app.theme != before)
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main and app.theme == before)
        assert not file.exists()
        app.action_change_theme()
        await wait(pilot, lambda: isinstance(app.screen, ThemeScreen) and app.screen.query("#themes"))
        await wait(pilot, lambda: app.screen.query_one("#themes").current)
        await pilot.press("down", "enter")
        await wait(pilot, lambda: app.on_main)
        assert app.theme != before and file.read_text() == f"theme: {app.theme}\n"


async def test_every_theme_that_is_offered_can_be_shown(daemon: FakeDaemon) -> None:
    async with opened(daemon, SMALL) as pilot:
        app = pilot.app
        for name in app.available_themes:
            app.show_theme(name)
            await pilot.pause()
            style = app.main.panes[0]._tone("dim")
            assert style.color != style.bgcolor, f"{name}: dim text cannot be read"
            assert "web1" in screen.text(app)


async def test_a_theme_that_cannot_be_kept_says_why(daemon: FakeDaemon, file: pathlib.Path) -> None:
    file.parent.mkdir()
    file.write_text("refresh: [\n")
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_change_theme()
        await wait(pilot, lambda: isinstance(app.screen, ThemeScreen) and app.screen.query("#themes"))
        await pilot.press("enter")
        await wait(pilot, lambda: any("not kept" in n and "line 2" in n for n in notices(app)))
        assert file.read_text() == "refresh: [\n"


async def settings_screen(pilot: Any) -> SettingsScreen:
    await pilot.press("comma")
    await wait(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen) and pilot.app.screen._ready)
    found: SettingsScreen = pilot.app.screen
    return found


async def test_the_settings_screen(daemon: FakeDaemon, file: pathlib.Path) -> None:
    file.parent.mkdir()
    file.write_text("# mine\nshell: zsh\n")
    async with opened(daemon) as pilot:
        app = pilot.app
        app.settings = settings.load()
        form = await settings_screen(pilot)
        form.query_one("#set-refresh", Input).value = "often"
        form.query_one("#set-columns", Input).value = "name state size"
        form.query_one("#set-asked", Input).value = "stop: perhaps"

        def wrong(name: str) -> str:
            fault = form.query_one(f"#fault-{name}", Static)
            return str(fault.render()) if fault.display else ""

        await wait(pilot, lambda: "1 to 60" in wrong("refresh") and "some of name" in wrong("columns"))
        assert "yes or no" in wrong("asked") and not wrong("shell")
        fault, field = form.query_one("#fault-refresh"), form.query_one("#set-refresh")
        await wait(pilot, lambda: fault.region.y == field.region.y + 1)
        await pilot.press("ctrl+s")
        await pilot.pause()
        assert app.screen is form and file.read_text() == "# mine\nshell: zsh\n"
        form.query_one("#set-refresh", Input).value = "7"
        form.query_one("#set-columns", Input).value = "name, memory"
        form.query_one("#set-asked", Input).value = "stop: yes"
        form.query_one("#set-theme", Select).value = "lxpy-light"
        form.query_one("#set-read_only", Checkbox).value = True
        await wait(pilot, lambda: app.theme == "lxpy-light")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main)
        assert file.read_text().startswith("# mine\nshell: zsh\n")
        assert yaml.safe_load(file.read_text()) == {
            "shell": "zsh", "theme": "lxpy-light", "columns": ["name", "memory"], "read_only": True, "refresh": 7,
            "confirm": {"level": "deletes", "stop": True},
        }  # fmt: skip
        assert app.settings == settings.load() and app.read_only
        assert [c.key for c in app.main.panes[0].columns] == ["name", "memory"]
        form = await settings_screen(pilot)
        form.query_one("#set-read_only", Checkbox).value = False
        form.query_one("#set-theme", Select).value = "nord"
        await wait(pilot, lambda: app.theme == "nord")
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main and app.theme == "lxpy-light" and app.read_only)
        form = await settings_screen(pilot)
        form.query_one("#set-read_only", Checkbox).value = False
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and not app.read_only)
        app.action_go(1, "web1")
        await pilot.press("x")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["settings", "settings-faults", "themes"])
async def test_screens_look_as_they_did(
    daemon: FakeDaemon, file: pathlib.Path, monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    async with opened(daemon, size) as pilot:
        Input.cursor_blink = False  # type: ignore[assignment]
        monkeypatch.setattr("lxpy.tui.screens.settings.settings.path", lambda: "~/.config/lxpy/config.yaml")
        if name == "themes":
            pilot.app.action_change_theme()
            await wait(pilot, lambda: isinstance(pilot.app.screen, ThemeScreen))
        else:
            form = await settings_screen(pilot)
            if name != "settings":
                form.query_one("#set-refresh", Input).value = "often"
                form.query_one("#set-columns", Input).value = "name size"
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")
