"""Custom volumes in the app in front of a real daemon: one by one and all that are marked, with what goes wrong."""

import contextlib
import pathlib
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from textual.widgets import Static

from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.results import ResultsScreen
from lxpy.tui.tabs.volumes import VolumesTab
from tests.support.daemon import Lxpyd
from tests.tui.test_real_daemon import notices, opened, wait


def volumes(tab: Any) -> list[str]:
    """What the table shows of custom volumes."""
    return [row.name for row in tab.table.rows if row.custom]


async def at_volumes(pilot: Any, pool: str) -> Any:
    """The tab with a pool's volumes, with the keyboard in it."""
    app = pilot.app
    app.main.action_pane(4)
    await wait(pilot, lambda: any(row.name == pool for row in app.main.active.rows))
    app.action_go(4, pool)
    app.main.action_open_detail()
    tab = app.main.detail.find(VolumesTab)
    app.main.detail.choose(tab)
    await wait(pilot, lambda: tab.display)
    app.main.detail.focus_inside()
    await wait(pilot, lambda: app.focused is tab.inside())
    return tab


async def on(pilot: Any, tab: Any, row: str) -> None:
    """Puts the cursor on a volume."""
    await wait(pilot, lambda: row in volumes(tab))
    tab.table.action_to([one.name for one in tab.table.rows].index(row))


async def asked(pilot: Any, key: str, **answers: Any) -> None:
    """Opens a verb's form, answers, and says do it."""
    app = pilot.app
    await pilot.press(key)
    await wait(pilot, lambda: isinstance(app.screen, Form) and app.screen.query("#yes"))
    await again(pilot, **answers)


async def again(pilot: Any, **answers: Any) -> None:
    """Answers in the form that is open, and says do it."""
    for name, text in answers.items():
        pilot.app.screen.query_one(f"#ask-{name}").value = text
    await pilot.press("ctrl+s")


async def refused(pilot: Any, text: str) -> None:
    """The form is still there and says why."""
    app = pilot.app

    def said() -> str:
        shown = [line for line in app.screen.query(".fault, #form-fault").results(Static) if line.display]
        return " ".join(str(line.render()) for line in shown)

    with contextlib.suppress(AssertionError):
        await wait(pilot, lambda: isinstance(app.screen, Form) and not app.screen.busy and text in said())
    assert text in said()


async def sure(pilot: Any) -> str:
    """Says yes; what the question was about."""
    app = pilot.app
    await wait(pilot, lambda: isinstance(app.screen, Confirm))
    text = str(app.screen.query_one("#confirm-list", Static).render())
    await pilot.press("y")
    await wait(pilot, lambda: app.on_main)
    return text


def in_pool(lxpyd: Lxpyd, pool: str) -> list[str]:
    """The custom volumes of a pool and their snapshots, as the command line has them."""
    found = lxpyd.json("storage", "volume", "list", pool, "type=custom", "-f", "json")
    return sorted(one["name"] for one in found)


@pytest.fixture
def kept(lxpyd: Lxpyd, name: str) -> Iterator[list[str]]:
    """Names of three volumes of the pool ``plain`` (a directory) that are there; whatever begins so goes."""
    names = [f"{name}-v{n}" for n in (1, 2, 3)]
    for one in names:
        lxpyd.cli("storage", "volume", "create", "plain", one)
    yield names
    lxpyd.sweep(name)  # what has them
    for pool in ("plain", "default"):
        for one in in_pool(lxpyd, pool):
            if one.startswith(name) and "/" not in one:
                lxpyd.cli("storage", "volume", "delete", pool, one)


async def test_the_life_of_a_volume(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made, attached, seen inside, snapshotted, restored, copied, sized, detached, deleted: all in the app."""
    volume = f"{busybox}-data"
    lxpyd.cli("storage", "create", f"{busybox}-p", "btrfs", "size=512MiB")
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app
            tab = await at_volumes(pilot, f"{busybox}-p")

            async def do(key: str, row: str = "", **answers: str) -> None:
                if row:
                    await wait(pilot, lambda: row in volumes(tab))
                    tab.table.action_to([one.name for one in tab.table.rows].index(row))
                await pilot.press(key)
                await wait(pilot, lambda: not app.on_main)
                if isinstance(app.screen, Confirm):
                    await pilot.press("y")
                else:
                    for name, text in answers.items():
                        app.screen.query_one(f"#ask-{name}").value = text
                    await pilot.press("ctrl+s")
                await wait(pilot, lambda: app.on_main and not app.model.running())

            await do("n", name=volume, size="64MiB")
            await do("t", volume, instance=busybox, path="/data")
            assert lxpyd.sh(busybox, "echo one > /data/note; df -m /data | tail -1").returncode == 0
            await do("a", volume, name="first")
            await do("c", f"{volume}/first", name=f"{volume}-2")
            await wait(pilot, lambda: volumes(tab) == [volume, f"{volume}/first", f"{volume}-2"])
            lxpyd.sh(busybox, "echo two > /data/note")
            await do("T", volume)
            await wait(pilot, lambda: next(row for row in tab.table.rows if row.name == volume).users == [])
            assert lxpyd.sh(busybox, "ls /data").stdout == ""
            await do("r", f"{volume}/first")
            await do("z", volume, size="32MiB")
            await wait(pilot, lambda: next(row for row in tab.table.rows if row.name == volume).total == 32 << 20)
            await do("t", volume, instance=busybox, path="/data")
            assert lxpyd.sh(busybox, "cat /data/note").stdout == "one\n"
            too_much = lxpyd.sh(busybox, "dd if=/dev/zero of=/data/big bs=1M count=40", check=False)
            assert too_much.returncode != 0
            await do("T", volume)
            await do("R", f"{volume}-2", name=f"{volume}-3")
            await do("ctrl+d", f"{volume}-3")
            await do("ctrl+d", f"{volume}/first")
            await do("ctrl+d", volume)
            await wait(pilot, lambda: volumes(tab) == [])
            assert not any("Cannot" in notice for notice in notices(app)), notices(app)
        assert [one for one in lxpyd.json("storage", "volume", "list", f"{busybox}-p", "-f", "json")
                if one["type"] == "custom"] == []  # fmt: skip
    finally:
        lxpyd.cli("config", "device", "remove", busybox, volume, check=False)
        lxpyd.cli("storage", "volume", "delete", f"{busybox}-p", volume, f"{volume}-2", f"{volume}-3", check=False)
        lxpyd.cli("storage", "delete", f"{busybox}-p")


async def test_a_volume_goes_to_a_file_and_comes_back(
    lxpyd: Lxpyd, busybox: str, kept: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, copy, file = kept[0], f"{busybox}-new", tmp_path / "v.tar.gz"
    lxpyd.cli("storage", "volume", "attach", "plain", volume, busybox, "/data")
    lxpyd.sh(busybox, "echo one > /data/note")
    lxpyd.cli("storage", "volume", "snapshot", "plain", volume, "first")
    (tmp_path / "letter").write_text("no backup\n" * 99)
    async with opened(lxpyd, monkeypatch) as pilot:
        app, tab = pilot.app, await at_volumes(pilot, "plain")
        await on(pilot, tab, volume)
        await asked(pilot, "E", file=f"{tmp_path}/nowhere/v.tar.gz")
        await refused(pilot, "nowhere")
        await again(pilot, file=str(tmp_path / "letter"))
        await refused(pilot, "exists already")
        assert (tmp_path / "letter").read_text() == "no backup\n" * 99
        await again(pilot, file=str(file))
        await wait(pilot, lambda: app.on_main)
        assert any(str(file) in notice for notice in notices(app))
        with tarfile.open(file) as tar:
            assert {"backup/volume/note", "backup/volume-snapshots/first/note"} <= set(tar.getnames())
        assert sorted(one.name for one in tmp_path.iterdir()) == ["letter", "v.tar.gz"]

        await asked(pilot, "i", file=str(tmp_path / "letter"))
        await refused(pilot, "it is no backup")
        await again(pilot, file=str(tmp_path / "none"))
        await refused(pilot, "none")
        await again(pilot, file=str(file))
        await refused(pilot, f"{volume}' already exists")
        await again(pilot, name=copy)
        await wait(pilot, lambda: app.on_main and f"{copy}/first" in volumes(tab))
    lxpyd.cli("storage", "volume", "detach", "plain", volume, busybox)
    lxpyd.cli("storage", "volume", "attach", "plain", copy, busybox, "/data")
    assert lxpyd.sh(busybox, "cat /data/note").stdout == "one\n"
    lxpyd.cli("storage", "volume", "detach", "plain", copy, busybox)


async def test_an_export_and_an_import_are_broken_off(
    lxpyd: Lxpyd, busybox: str, kept: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume, whole, file = kept[0], tmp_path / "whole.tar", tmp_path / "part.tar"
    lxpyd.cli("storage", "volume", "attach", "plain", volume, busybox, "/data")
    lxpyd.sh(busybox, "mkdir /data/a; cd /data/a; for i in $(seq 500); do echo $i > $i; done; cd ..; "
                      "for i in $(seq 60); do cp -r a b$i; done", timeout=120)  # fmt: skip
    lxpyd.cli("storage", "volume", "detach", "plain", volume, busybox)
    lxpyd.cli("storage", "volume", "export", "plain", volume, str(whole), "--compression", "none")
    async with opened(lxpyd, monkeypatch) as pilot:
        app, tab = pilot.app, await at_volumes(pilot, "plain")
        await on(pilot, tab, volume)
        await asked(pilot, "E", file=str(file))
        await wait(pilot, lambda: any(one.stat().st_size for one in tmp_path.glob("part.tar.*.part")))
        assert not file.exists()
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main and not list(tmp_path.glob("part.tar*")) and not app.model.running())
        before = in_pool(lxpyd, "plain")
        await asked(pilot, "i", file=str(whole), name=f"{busybox}-new")
        await wait(pilot, lambda: app.model.running())
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main and not app.model.running())
        await wait(pilot, lambda: not [one for one in app.workers if one.group == "verbs" and not one.is_finished])
        assert in_pool(lxpyd, "plain") == before == volumes(tab)
        assert not [notice for notice in notices(app) if "Imported" in notice or "Exported" in notice]


async def test_marked_volumes(
    lxpyd: Lxpyd, name: str, kept: list[str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All into a profile and out of it, into files (one of which cannot be), to another pool, and deleted."""
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("storage", "volume", "snapshot", "plain", kept[0], "first")
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app, tab = pilot.app, await at_volumes(pilot, "plain")

            async def mark() -> None:
                await wait(pilot, lambda: set(kept) <= set(volumes(tab)) and app.focused is tab.table)
                tab.table.marks = {f"custom {one}" for one in kept}
                tab.table.remark()
                await pilot.pause()

            def devices() -> dict[str, Any]:
                return dict(lxpyd.json("query", f"/1.0/profiles/{name}")["devices"])

            await mark()
            await asked(pilot, "p", profile=name, path="/srv")
            await refused(pilot, "write {name}")
            await again(pilot, path="/srv/{name}")
            await wait(pilot, lambda: app.on_main and not tab.table.marks)
            assert devices() == {
                one: {"type": "disk", "pool": "plain", "source": one, "path": f"/srv/{one}"} for one in kept
            }
            await wait(pilot, lambda: all(row.users == [f"profile {name}"] for row in tab.table.rows
                                          if row.name in kept))  # fmt: skip
            await on(pilot, tab, kept[1])
            await pilot.press("T")
            await wait(pilot, lambda: any(f"profile {name} has it: P detaches" in notice for notice in notices(app)))
            await pilot.press("P")
            assert await sure(pilot) == f"{name}: device {kept[1]}"
            await wait(pilot, lambda: sorted(devices()) == [kept[0], kept[2]])
            await asked(pilot, "p", profile=name, path="/else", device=kept[0])
            await refused(pilot, f"{name} has a device {kept[0]!r} already")
            await pilot.press("escape")
            await mark()
            await pilot.press("P")
            assert (await sure(pilot)).splitlines() == [f"{name}: device {one}" for one in (kept[0], kept[2])]
            await wait(pilot, lambda: devices() == {})

            (tmp_path / f"3-{kept[2]}").mkdir()
            await mark()
            await asked(pilot, "E", file=f"{tmp_path}/{{n}}-{{name}}", compression="none", replace=True)
            await wait(pilot, lambda: isinstance(app.screen, ResultsScreen) and app.screen.work.ended)
            assert [item.state for item in app.screen.work.items] == ["done", "done", "failed"]
            assert "is a directory" in app.screen.work.items[2].text
            await pilot.press("escape")
            assert tab.table.marks == {f"custom {kept[2]}"}, "what has failed stays marked"
            assert sorted(one.name for one in tmp_path.iterdir()) == [f"{n}-{one}" for n, one in enumerate(kept, 1)]

            await mark()
            await asked(pilot, "m")
            await refused(pilot, "It is there already")
            await again(pilot, pool="default", name="{name}-x")
            await wait(pilot, lambda: not set(kept) & set(in_pool(lxpyd, "plain")))
            moved = [f"{one}-x" for one in kept]
            assert set(moved) | {f"{moved[0]}/first"} <= set(in_pool(lxpyd, "default"))
            await wait(pilot, lambda: app.on_main)
            tab = await at_volumes(pilot, "default")
            await wait(pilot, lambda: set(moved) <= set(volumes(tab)))
            tab.table.marks = {f"custom {one}" for one in moved} | {f"custom {moved[0]}/first"}
            await pilot.press("ctrl+d")
            assert (await sure(pilot)).splitlines() == moved, "a snapshot goes with its volume"
            await wait(pilot, lambda: not set(moved) & set(in_pool(lxpyd, "default")))
            assert not any("Cannot" in notice for notice in notices(app)), notices(app)
    finally:
        lxpyd.cli("profile", "delete", name)


async def test_a_volume_moves_to_another_pool_and_project(
    lxpyd: Lxpyd, name: str, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lxpyd.cli("project", "create", name, "-c", "features.storage.volumes=true")
    lxpyd.cli("profile", "device", "add", "default", name, "disk", "pool=plain", f"source={kept[1]}", "path=/mnt/x")
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app, tab = pilot.app, await at_volumes(pilot, "plain")
            await on(pilot, tab, kept[0])
            await asked(pilot, "m", name=kept[1])
            await refused(pilot, f"{kept[1]!r} already exists")
            await again(pilot, pool="default", project=name, name="")
            await wait(pilot, lambda: app.on_main and kept[0] not in volumes(tab))
            assert any(f"Moved: default/{kept[0]} of {name}" in notice for notice in notices(app))
            await on(pilot, tab, kept[1])
            await asked(pilot, "m", pool="default")
            await refused(pilot, "in use by")
            await pilot.press("escape")
            app.read_only = True
            for key in ("p", "P", "m", "E", "i"):
                app.clear_notifications()
                await pilot.press(key)
                await wait(pilot, lambda: any("read-only" in notice for notice in notices(app)))
                assert app.on_main
        assert lxpyd.json("query", f"/1.0/storage-pools/default/volumes/custom/{kept[0]}?project={name}")
    finally:
        lxpyd.cli("profile", "device", "remove", "default", name)
        lxpyd.cli("--project", name, "storage", "volume", "delete", "default", kept[0], check=False)
        lxpyd.cli("project", "delete", name)
