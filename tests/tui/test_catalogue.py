"""Looking through what remotes offer: in front of an imagined daemon."""

import itertools
import statistics
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import Checkbox, Input

from lxpy.api.errors import BadRequest, Unavailable
from lxpy.tui import catalogue
from lxpy.tui.app import LxpyApp
from lxpy.tui.catalogue import counted, lets_through, rows_of, with_choice
from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.panes import catalogue as panes_catalogue
from lxpy.tui.rows import matcher
from lxpy.tui.screens.choose import Choose
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.screens.pick import Pick
from tests.tui import screen
from tests.tui.fake import FakeDaemon, instance, listed, lists
from tests.tui.test_app import SMALL, WIDE, notices, opened
from tests.tui.test_app import daemon as plain
from tests.tui.test_app import wait as wait_for

daemon = plain  # the fixture
LAB = RemoteInfo("lab", "https://10.0.0.7:8444", "simplestreams", True, False)


async def wait(pilot: Any, condition: Callable[[], Any]) -> None:
    await wait_for(pilot, condition, 20)  # a machine that does much else as well


async def browse(pilot: Any, remote: str = "images") -> Any:
    """The pane with what a remote offers."""
    app = pilot.app
    app.main.browse(remote)
    await wait(pilot, lambda: app.main.browsing and app.main.catalogue.source == remote)
    await wait(pilot, lambda: app.focused is app.main.catalogue)
    return app.main.catalogue


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("catalogue", ["down", "down"]),
        ("catalogue-filter", ["slash", *"os:debian cloud arch:any", "enter"]),
        ("catalogue-typing", ["slash", *"cloud os:de"]),
        ("catalogue-detail", ["down", "enter"]),
        ("catalogue-choice", ["D"]),
        ("catalogue-download", ["d"]),
        ("catalogue-nothing", ["slash", *"os:debian release:12 desktop", "enter"]),
        ("catalogue-sources", ["b"]),
    ],
)
async def test_every_screen_looks_as_it_did(
    daemon: FakeDaemon, name: str, keys: list[str], size: tuple[int, int]
) -> None:
    daemon.catalogue = lists()
    daemon.images.append(daemon.catalogue[3])
    async with opened(daemon, size) as pilot:
        Input.cursor_blink = False  # type: ignore[assignment]
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
        await pilot.pause(0.15)
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")


async def test_from_the_images_and_from_the_remotes_by_keys(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press("2", "b")
        await wait(pilot, lambda: isinstance(app.screen, Pick))
        await pilot.press(*"imag", "enter")
        await wait(pilot, lambda: app.main.browsing and app.main.catalogue.source == "images")
        await wait(pilot, lambda: len(app.main.catalogue.rows) == 7)
        await pilot.press("escape")
        await wait(pilot, lambda: app.focused is app.main.panes[1])
        await pilot.press("3")
        await wait(pilot, lambda: app.focused is app.main.panes[2])
        app.action_go(3, "ubuntu")
        await pilot.press("enter")
        await wait(pilot, lambda: app.main.browsing and app.main.catalogue.source == "ubuntu")
        await pilot.press("escape")
        await wait(pilot, lambda: app.focused is app.main.panes[2])
        app.action_go(3, "local")  # that is this server: its images have a pane
        await pilot.press("enter")
        await wait(pilot, lambda: app.focused is app.main.panes[1])


async def test_by_mouse(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon, SMALL) as pilot:
        app = pilot.app
        await pilot.press("2")

        async def click(words: str) -> None:
            await wait(pilot, lambda: words in screen.text(app))
            await pilot.pause(0.1)
            y, line = [(y, row) for y, row in enumerate(screen.text(app).splitlines()) if words in row][-1]
            await pilot.click(offset=(line.index(words) + len(words) // 2, y))
            await pilot.pause()

        await click("images │")
        await wait(pilot, lambda: app.main.browsing and len(app.main.catalogue.rows) == 7)
        await click("distro any")
        await wait(pilot, lambda: isinstance(app.screen, Pick))
        await click("debian")
        await wait(pilot, lambda: app.on_main and app.main.catalogue.query_text == "os:debian")
        assert len(app.main.catalogue.rows) == 4
        await click("RELEASE")
        await wait(pilot, lambda: app.main.catalogue.sort_key == "release")
        await click("n Launch")
        await wait(pilot, lambda: isinstance(app.screen, LaunchDialog))
        await pilot.press("escape")
        await click("this server")
        await wait(pilot, lambda: app.main.active is app.main.panes[1])


async def test_nothing_is_asked_of_remotes_that_nobody_looks_at(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panes_catalogue, "LINGER", 4.0)  # nor when two keys come slowly
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        app = pilot.app

        def asked() -> list[Any]:
            return [body["server"] for _, path, body in daemon.requests if path == "/1.0/image-servers/catalogue"]

        await pilot.press("2", "3", "2")
        await wait(pilot, lambda: app.focused is app.main.panes[1])
        for _ in range(2):  # past builtin
            await pilot.press("right")
            await wait(pilot, lambda: app.main.browsing)
        assert app.main.catalogue.source == "images" and not asked()
        await wait(pilot, lambda: app.main.catalogue.rows)
        assert asked() == ["https://images.linuxcontainers.org"]
        await pilot.press("left", "left")
        await wait(pilot, lambda: app.main.active is app.main.panes[1])
        await pilot.press("right", "right")
        await wait(pilot, lambda: app.main.catalogue.source == "images" and app.main.catalogue.rows)
        assert len(asked()) == 1, "it is known"
        await pilot.press("r")
        await wait(pilot, lambda: len(asked()) == 2)


async def test_only_this_machine_s_and_the_newest_unless_asked(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        assert {row.arch for row in pane.rows} == {"amd64"} and all(row.newest for row in pane.rows)
        await pilot.press("A")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Pick))
        assert [(o.label, o.note) for o in pilot.app.screen.options] == [
            ("this machine's (amd64)", ""), ("any", "13"), ("amd64", "7"), ("arm64", "6"),
        ]  # fmt: skip
        await pilot.press(*"arm", "enter")
        await wait(pilot, lambda: pane.query_text == "arch:arm64" and len(pane.rows) == 6)
        assert pane.current.reference == "images:alpine/3.20/arm64"
        await pilot.press("n")
        await wait(pilot, lambda: any("is for arm64; this server runs amd64" in n for n in notices(pilot.app)))
        assert pilot.app.on_main
        await pilot.press("escape", "O")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Pick))
        await pilot.press(*"older", "enter")
        await wait(pilot, lambda: pane.query_text == "versions:older")
        assert [row.name for row in pane.rows] == [pane.rows[0].fingerprint[:12]]
        await pilot.press("escape", "R")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Pick))
        assert [o.label for o in pilot.app.screen.options] == [
            "any", "3.20", "3.12", "trixie", "bookworm", "tumbleweed",
        ]  # fmt: skip


async def test_the_keys_work_in_the_detail_as_well(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon, SMALL) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        for key, dialog in (("n", LaunchDialog), ("d", Form)):
            await pilot.press("enter")
            await wait(pilot, lambda: pilot.app.main.detail.has_focus_within)
            await pilot.press(key)
            await wait(pilot, lambda dialog=dialog: isinstance(pilot.app.screen, dialog))  # type: ignore[misc]
            await pilot.press("escape")
            await wait(pilot, lambda: pilot.app.on_main)
            await pilot.press("escape")
            await wait(pilot, lambda: pilot.app.focused is pane)


async def test_launch_what_was_found(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        await pilot.press("slash", *"os:deb release:12 variant:cl", "tab", "enter")
        await wait(pilot, lambda: pane.query_text == "os:deb release:12 variant:cloud" and len(pane.rows) == 1)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(pilot.app.screen, LaunchDialog))
        await wait(pilot, lambda: "$ lxpy launch images:debian/12/cloud" in screen.text(pilot.app))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: any("is running" in n for n in notices(pilot.app)))
        body = next(r[2] for r in daemon.requests if r[:2] == ("POST", "/1.0/instances"))
        assert body["source"]["alias"] == "debian/12/cloud"


async def test_a_download_shows_how_far_it_is_and_can_be_cancelled(daemon: FakeDaemon) -> None:
    daemon.catalogue, daemon.hold = lists(), True
    async with opened(daemon) as pilot:
        app = pilot.app
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        await pilot.press("d")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#ask-alias", Input).value = "mine"
        app.screen.query_one("#ask-update", Checkbox).value = True
        await wait(pilot, lambda: "--alias mine --copy-aliases" in screen.text(app))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and "Downloading image" in screen.text(app))
        body = next(r[2] for r in daemon.requests if r[:2] == ("POST", "/1.0/images"))
        assert (body["source"]["alias"], body["auto_update"], body["source"]["copy_aliases"]) == (
            "alpine/3.20", True, True,
        )  # fmt: skip
        operation = {k: v for k, v in daemon.operations["op-1"].items() if k != "_done"}
        daemon.emit("operation", operation | {"metadata": {"download_progress": "rootfs: 45% (1.2MB/s)"}})
        await wait(pilot, lambda: "◌ 45%" in screen.text(app))
        assert "Downloading image images:alpine/3.20  rootfs: 45% (1.2MB/s)" in screen.text(app)
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: "Cancelled: Download images:alpine/3.20" in notices(app))
        assert "◌ 45%" not in screen.text(app) and "✔" not in screen.text(app)

        await pilot.press("d")  # and once more, to its end
        await wait(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "op-2" in daemon.operations)
        daemon.finish("op-2")
        await wait(pilot, lambda: "Downloaded: images:alpine/3.20" in notices(app))
        await wait(pilot, lambda: "alpine/3.20 ✔" in screen.text(app))
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: any("Nothing to cancel" in n for n in notices(app)))


async def test_marked_ones_are_fetched_together_and_failures_are_told(daemon: FakeDaemon) -> None:
    daemon.catalogue, daemon.hold = lists(), True
    async with opened(daemon) as pilot:
        app = pilot.app
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        await pilot.press("space", "space", "d")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        assert not app.screen.query("#ask-alias")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: len(daemon.operations) == 2)
        daemon.finish("op-1")

        def broken() -> None:
            raise BadRequest("Image server https://images.linuxcontainers.org cannot be reached: the line was cut")

        daemon.operations["op-2"]["_done"] = broken
        daemon.finish("op-2")
        await wait(pilot, lambda: len(notices(app)) == 2)
        assert any(n.startswith("Downloaded: ") for n in notices(app))
        assert any(n.startswith("Cannot download ") and "the line was cut" in n for n in notices(app))


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Unavailable("Image server https://x cannot be reached: no route"), "no route"),
        (BadRequest("Image server https://x: its streams/v1/index.json is no simplestreams index"), "no simple"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
async def test_a_remote_that_fails_says_why(
    daemon: FakeDaemon, fault: Exception, told: str, size: tuple[int, int]
) -> None:
    daemon.fail["GET", "/1.0/image-servers"] = fault
    async with opened(daemon, size) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: "No images from images" in screen.text(pilot.app))
        assert told in " ".join(screen.text(pilot.app).replace("│", " ").split())
        if "no route" in told:
            await screen.settled(pilot, f"catalogue-fault-{size[0]}x{size[1]}")
        daemon.fail.clear()
        daemon.catalogue = lists()
        await pilot.press("r")
        await wait(pilot, lambda: pane.rows)


async def test_a_list_of_nonsense_is_told(daemon: FakeDaemon) -> None:
    daemon.catalogues["https://images.linuxcontainers.org"] = {"images": "none"}
    async with opened(daemon) as pilot:
        await browse(pilot)
        await wait(pilot, lambda: "something else than a list of images" in screen.text(pilot.app))


async def test_a_remote_that_hangs_hangs_nothing(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PATIENCE", 5.0)
    daemon.slow = threading.Event()
    try:
        async with opened(daemon) as pilot:
            app = pilot.app
            await browse(pilot)
            await wait(pilot, lambda: "Reading what images offers" in screen.text(app))
            await pilot.press("1", "down")
            await wait(pilot, lambda: app.focused is app.main.panes[0])
            await browse(pilot)
            await wait(pilot, lambda: "did not answer within" in screen.text(app))
            began = time.monotonic()
        assert time.monotonic() - began < 2, "nor does it keep the app from quitting"
    finally:
        daemon.slow.set()


async def test_read_only(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    app = LxpyApp(daemon.gateway(), read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[2].rows)
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        for key in ("n", "d", "ctrl+d"):
            await pilot.press(key)
            await pilot.pause()
            assert app.on_main, key
        assert not [r for r in daemon.requests if r[0] != "GET"]


async def test_the_reference_is_copied(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Choose))
        await pilot.press("enter")
        await wait(pilot, lambda: pilot.app.clipboard == "images:alpine/3.20")


async def test_another_machine_s_list_is_its_own(daemon: FakeDaemon) -> None:
    """What one server read is nothing that another one can reach."""
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        pilot.app.model.look_elsewhere("other", "")
        assert pilot.app.model.catalogues.get("images") is None


def thousands() -> list[dict[str, Any]]:
    """6000 versions of 2000 products."""
    found = []
    for system, release in itertools.product(range(25), range(10)):
        for variant, arch in itertools.product(("default", "cloud"), ("amd64", "arm64", "ppc64el", "s390x")):
            for serial in ("20191203_05:24", "20191202_05:24", "20191201_05:24"):
                alias = (f"os{system:02}/{release}.{system}/{variant}",) if serial.startswith("20191203") else ()
                found.append(listed(f"Os{system:02}", f"{release}.{system}", variant, arch, *alias, serial=serial))
    return found


async def test_six_thousand_versions_stay_smooth(daemon: FakeDaemon) -> None:
    daemon.catalogue = thousands()
    async with opened(daemon) as pilot:
        app = pilot.app
        began = time.process_time()  # our own work: the machine may have other work as well
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        open_ = time.process_time() - began
        pane.filter("arch:any versions:any")
        assert len(pane.rows) == 6000

        async def each(keys: list[str]) -> float:
            """The median time from a key to the picture, in ms."""
            times = []
            for key in keys:
                began = time.process_time()
                await pilot.press(key)
                screen.text(app)
                times.append(time.process_time() - began)
            return statistics.median(times) * 1000

        moved, paged = await each(["down"] * 15), await each(["pagedown"] * 15)
        await pilot.press("slash")
        typed = await each(list(" os:os1 release:1"))
        print(
            f"6000 versions: open {open_:.2f} s; ms: down {moved:.0f}, page {paged:.0f}, a key of a filter {typed:.0f}"
        )
        assert open_ < 3 and moved < 150 and paged < 150 and typed < 250


async def test_another_server_is_looked_at_meanwhile(daemon: FakeDaemon) -> None:
    daemon.catalogue = lists()
    async with opened(daemon) as pilot:
        app = pilot.app
        pane = await browse(pilot)
        await wait(pilot, lambda: pane.rows)
        daemon.catalogue = lists()[:1]
        app.model.look_elsewhere("other", "")
        await wait(pilot, lambda: app.model.loaded and len(pane.rows) == 1)


# The grammar


def references(query: str) -> list[str]:
    rows = rows_of(lists(), LAB)
    test = lets_through(query, {"amd64"})
    return [f"{row.title} {row.arch}" for row in rows if test(row)]


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("", 7), ("os:debian", 4), ("os:DEB release:12", 2), ("release:bookworm variant:cloud", 1), ("release:12", 2),
        ("release:3.", 2), ("os:debian arch:any", 8), ("arch:arm64", 6), ("arch:x86_64", 7), ("!os:debian", 3),
        ("debian/13", 2), ("~^opensuse", 1), ("versions:any", 8), ("os:any", 7), ("os:=deb", 0),
        ("os:opensuse-日本", 1),
        ("variant=cloud", 2), ("release:trixie arch:any versions:any os:debian", 4),
    ],
)  # fmt: skip
def test_queries(query: str, count: int) -> None:
    assert len(references(query)) == count, references(query)


def test_instances_are_asked_in_the_same_words() -> None:
    from lxpy.tui.rows import ImageRow, InstanceRow

    row = InstanceRow(instance("web1"))
    assert matcher("os:debian release:tri state:run")(row) and not matcher("os:alpine")(row)
    ready = InstanceRow({**instance("web1"), "status": "Ready"})
    assert matcher("state:running")(ready) and matcher("state:ready")(ready) and not matcher("state:ready")(row)
    image = ImageRow(lists()[0])
    assert matcher("os:debian release:bookworm variant:cloud arch:amd64")(image) and not matcher("arch:arm64")(image)


def test_choices_with_counts() -> None:
    rows = rows_of(lists(), LAB)
    assert counted(rows, "os", "release:13", {"amd64"}) == [("debian", 2)]
    assert counted(rows, "release", "os:debian", {"amd64"}) == [("trixie", 2), ("bookworm", 2)]
    assert counted(rows, "arch", "arch:arm64", {"amd64"}) == [("amd64", 7), ("arm64", 6)]
    assert with_choice("os:debian cloud", "os", "alpine", ["alpine"]) == "cloud os:alpine"
    assert with_choice("os:debian cloud", "os", "", []) == "cloud"
    assert with_choice("", "release", "9", ["9", "9-stream"]) == "release:=9"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("os:de", "os:debian"), ("rel", "release:"), ("cloud os:al", "cloud os:alpine"), ("!v", "!variant:"),
        ("os:zz", ""), ("", ""), ("os:", ""), ("word", ""), ("arch:=ar", "arch:=arm64"),
    ],
)  # fmt: skip
def test_completion(typed: str, found: str) -> None:
    assert catalogue.completed(rows_of(lists(), LAB), typed) == found


def test_odd_entries_are_survived() -> None:
    rows = rows_of(
        [{}, "x", {"aliases": None, "properties": None}, listed("A B", "", "", "", serial=""), {"size": "12"}], LAB
    )
    assert len(rows) == 4 and all(row.reference.startswith("lab:") for row in rows)
    assert sorted(rows, key=lambda row: row.order)
