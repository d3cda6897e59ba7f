"""Snapshots as a tree: how it is drawn, and every verb of the tab, in front of an imagined and of a real daemon."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Static

from lxpy.api.errors import BadRequest
from lxpy.tui import lineage
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.tabs.snapshots import SnapshotsTab
from tests.support.daemon import Lxpyd
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, WIDE, daemon, notices, opened, wait
from tests.tui.test_real_daemon import opened as really_opened
from tests.tui.test_real_daemon import wait as wait_long
from tests.tui.test_tabs import at, names
from tests.tui.test_verbs import fault, fill, own

__all__ = ["daemon", "own"]


def shot(name: str, day: int, base: str = "", **config: str) -> dict[str, Any]:
    return {
        "name": name, "created_at": f"2019-12-{day:02}T00:00:00Z", "expires_at": "0001-01-01T00:00:00Z",
        "size": day << 20, "config": config | ({lineage.BASE: base} if base else {}), "devices": {}, "profiles": [],
        "ephemeral": False,
    }  # fmt: skip


def now(base: str = "") -> dict[str, Any]:
    return {"config": {lineage.BASE: base} if base else {}}


def drawn(snapshots: list[dict[str, Any]], instance: dict[str, Any] | None) -> list[str]:
    return [
        f"{n.lead}{'●' if n.line else '○'} {n.name or 'now'}{' ?' if n.guessed else ''}"
        for n in lineage.tree(snapshots, instance)
    ]


def test_a_straight_line() -> None:
    line = [shot("a", 1), shot("b", 2, "a"), shot("c", 3, "b")]
    assert drawn(line, now("c")) == ["● a", "● b", "● c", "● now"]
    assert drawn(line, None) == ["● a", "● b", "● c"]
    assert drawn([], now()) == ["● now"]


def test_branches_where_one_was_restored() -> None:
    tree = [shot("a", 1), shot("b", 2, "a"), shot("c", 3, "b"), shot("d", 4, "a"), shot("e", 5, "b"), shot("f", 6, "d")]
    assert drawn(tree, now("f")) == ["● a", "├─○ b", "│ ├─○ c", "│ ○ e", "● d", "● f", "● now"]
    assert drawn(tree, now("c")) == ["● a", "├─○ d", "│ ○ f", "● b", "├─○ e", "● c", "● now"]


def test_what_is_not_recorded_is_said_to_be_guessed() -> None:
    assert drawn([shot("a", 1), shot("b", 2), shot("c", 3, "b")], now("gone")) == ["● a", "● b ?", "● c", "● now ?"]
    # Its base has gone: a root of its own.
    assert drawn([shot("a", 1), shot("b", 2, "lost")], now("b")) == ["○ a", "● b", "● now"]


@given(st.lists(st.integers(-2, 30), max_size=30), st.integers(-1, 30))
def test_any_bases_give_every_snapshot_once(bases: list[int], current: int) -> None:
    shots = [shot(f"s{n}", n % 28 + 1, f"s{base}" if base >= 0 else "") for n, base in enumerate(bases)]
    for n, one in enumerate(shots):
        one["created_at"] = f"2020-01-01T00:00:{n:02}Z"
    found = [node.name for node in lineage.tree(shots, now(f"s{current}" if current >= 0 else ""))]
    assert sorted(found) == sorted([*(f"s{n}" for n in range(len(bases))), ""])


def test_a_thousand_in_a_row() -> None:
    shots = [shot(f"s{n}", 1, f"s{n - 1}" if n else "") for n in range(1000)]
    for n, one in enumerate(shots):
        one["created_at"] = f"2020-01-01T00:00:00.{n:06}Z"
    assert len(lineage.tree(shots, now("s999"))) == 1001


@pytest.fixture
def tree(daemon: FakeDaemon) -> FakeDaemon:
    daemon.instances["web1"]["config"][lineage.BASE] = "good"
    daemon.instances["web1"]["config"]["user.colour"] = "green"
    daemon.snapshots["web1"] = [
        shot("base", 1), shot("try", 10, "base", **{"limits.cpu": "1"}), shot("broken", 12, "try"),
        shot("good", 20, "base", **{"user.colour": "blue"}),
    ]  # fmt: skip
    daemon.snapshots["web1"][2]["expires_at"] = "2020-01-01T09:00:00Z"
    return daemon


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["tree", "compare", "marked"])
async def test_the_tab_looks_as_it_did(
    tree: FakeDaemon, monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    monkeypatch.setattr("lxpy.tui.tabs.snapshots.time.time", lambda: 1577836800 + 3 * 3600)
    async with opened(tree, size) as pilot:
        tab = await at(pilot, "web1", SnapshotsTab)
        await wait(pilot, lambda: names(tab) == ["base", "try", "broken", "good", "now"])
        if name != "tree":
            await pilot.press("down", "space", "down", "space")
        if name == "compare":
            await pilot.press("D")
            await wait(pilot, lambda: not pilot.app.on_main)
        await screen.settled(pilot, f"snapshots-{name}-{size[0]}x{size[1]}")


async def test_compare_with_now_and_between_two(tree: FakeDaemon) -> None:
    async with opened(tree) as pilot:
        app = pilot.app
        tab = await at(pilot, "web1", SnapshotsTab)
        await wait(pilot, lambda: len(names(tab)) == 5)
        tab.table.action_to(3)
        await pilot.press("D")
        await wait(pilot, lambda: not app.on_main)
        assert "-  user.colour: blue" in app.screen.text and "+  user.colour: green" in app.screen.text
        await pilot.press("escape")
        tab.table.marks = {"try", "good", "base"}
        await pilot.press("D")
        await wait(pilot, lambda: any("Mark two" in n for n in notices(app)))
        tab.table.marks = {"try", "good"}
        await pilot.press("D")
        await wait(pilot, lambda: not app.on_main)
        assert app.screen.text.splitlines()[:2] == ["--- try", "+++ good"]


async def test_verbs_of_the_tab(tree: FakeDaemon, own: Any) -> None:
    async with opened(tree) as pilot:
        app = pilot.app
        tab = await at(pilot, "web1", SnapshotsTab)
        await wait(pilot, lambda: len(names(tab)) == 5)

        def sent(method: str) -> list[Any]:
            return [r[1:] for r in tree.requests if r[0] == method]

        # The instance as it is now is no snapshot.
        tab.table.action_to(4)
        for key in ("r", "R", "e", "ctrl+d", "space"):
            await pilot.press(key)
        await wait(pilot, lambda: any("choose a snapshot" in n for n in notices(app)))
        assert app.on_main and not tab.table.marks
        tab.table.action_to(1)
        await pilot.press("R")
        await fill(pilot, name="attempt")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main)
        assert sent("POST") == [("/1.0/instances/web1/snapshots/try", {"name": "attempt"})]
        tab.table.marks = {"base", "try"}
        await pilot.press("e")
        await fill(pilot, kept="sometime")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "no time to keep it" in fault(app))
        await fill(pilot, kept="2099-01-01")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: len(sent("PUT")) == 2)
        assert {body["expires_at"] for _, body in sent("PUT")} == {"2099-01-01T00:00:00Z"}
        await wait(pilot, lambda: app.on_main and not tab.table.marks)
        await pilot.press("P")
        await fill(pilot)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: own.lines() == [["publish", "web1/try", "--alias", "web1/try"]] and app.on_main)
        await pilot.press("c")
        await fill(pilot, name="other")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: own.lines()[1:] == [["copy", "web1/try", "other"]] and app.on_main)
        await pilot.press("asterisk", "ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        assert len(app.screen.names) == 4
        tree.fail["DELETE", "/1.0/instances/web1/snapshots/base"] = BadRequest("base is being exported: wait for it")
        await pilot.press("y")
        await wait(pilot, lambda: len(sent("DELETE")) == 4 and not app.on_main)
        assert "wait for it" in screen.text(app)
        await pilot.press("escape")
        await wait(pilot, lambda: tab.table.marks == {"base"})


async def test_a_daemon_that_cannot_tell_says_why(tree: FakeDaemon) -> None:
    tree.fail["GET", "/1.0/instances/web1/snapshots"] = BadRequest("the pool fast is away: attach its disk")
    async with opened(tree) as pilot:
        await at(pilot, "web1", SnapshotsTab)
        await wait(pilot, lambda: "attach its disk" in screen.text(pilot.app))


async def test_a_tree_of_a_real_instance(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lxpyd.cli("stop", "-f", busybox)
    for words in (["snapshot", busybox, "a"], ["snapshot", busybox, "b"], ["restore", busybox, "a"]):
        lxpyd.cli(*words)
    async with really_opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await at(pilot, busybox, SnapshotsTab)
        await wait_long(pilot, lambda: names(tab) == ["a", "b", "now"])
        assert [row.node.lead for row in tab.table.rows] == ["", "├─", ""]
        assert "now goes on from a" in str(tab.query_one("#snapshots-note", Static).render())
        await pilot.press("a")
        await wait_long(pilot, lambda: app.screen.query("#yes"))
        app.screen.query_one("#ask-name").value = "c"
        app.screen.query_one("#ask-kept").value = "2w"
        await pilot.press("ctrl+s")
        await wait_long(pilot, lambda: names(tab) == ["a", "b", "c", "now"])
        assert "13d more" in screen.text(app)
        tab.table.action_to(0)
        await pilot.press("P")
        await wait_long(pilot, lambda: app.screen.query("#yes"))
        await pilot.press("ctrl+s")
        await wait_long(pilot, lambda: any(f"{busybox}/a" in i.aliases for i in app.model.images), 40)
        lxpyd.cli("image", "delete", f"{busybox}/a")
