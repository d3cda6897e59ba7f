"""Verbs on one, on the marked, on many: forms, patterns, results, confirmations; and that no verb is missing."""

import importlib
import pathlib
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from textual.widgets import Button, Static

from lxpy.api.errors import BadRequest
from lxpy.api.expiry import NEVER, typed
from lxpy.cli.main import COMMANDS
from lxpy.tui import settings
from lxpy.tui.actions import HARMLESS, STATE_VERBS
from lxpy.tui.app import LxpyApp, binding_ids
from lxpy.tui.bulk import Batch
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.results import ResultsScreen
from lxpy.tui.screens.text import TextScreen
from lxpy.tui.verbs import PALETTE, VERBS
from lxpy.tui.widgets.paths import completed
from tests.tui import screen
from tests.tui.covered import COVERED, LEFT_OUT
from tests.tui.fake import FakeDaemon, instance
from tests.tui.test_app import SMALL, WIDE, daemon, notices, opened, wait

__all__ = ["daemon"]


def cli_verbs() -> set[str]:
    """``network acl rule add``, and so on: all there are."""

    def walk(path: str, found: Any) -> Iterator[str]:
        if isinstance(found, dict):
            for name, one in found.items():
                yield from walk(f"{path} {name}", one)
        else:
            yield path

    groups = ((name, importlib.import_module(f"lxpy.cli.{module}")) for name, (module, _) in COMMANDS.items())
    return {verb for name, module in groups for verb in walk(name, module.COMMANDS[name])}


def test_no_verb_of_the_command_line_is_missing() -> None:
    verbs, known = cli_verbs(), COVERED.keys() | LEFT_OUT.keys()
    assert verbs - known == set(), "give the app a verb for it, or a reason in tests/tui/covered.py"
    assert known - verbs == set(), "the command line has no such verb any more"
    assert not COVERED.keys() & LEFT_OUT.keys()
    bindings = binding_ids()
    for verb, means in COVERED.items():
        assert means in bindings or means.removeprefix("palette ") in PALETTE, f"{verb}: {means}"
    told = pathlib.Path(__file__).parents[2].joinpath("docs/app.md").read_text()
    for verb in LEFT_OUT:
        names = verb.split()
        prefixes = [" ".join(names[:n]) for n in range(1, len(names) + 1)]
        assert any(f"`{one}`" in told for one in prefixes), f"docs/app.md does not say that {verb} is left out"


def test_every_verb_can_be_reached() -> None:
    source = "".join(p.read_text() for p in pathlib.Path("lxpy/tui").rglob("*.py"))
    bound = set(re.findall(r"""(?:verb|do)\('([\w-]+)'\)""", source))
    for verb in (*VERBS, *STATE_VERBS):
        assert verb in bound | PALETTE.keys() | {"freeze", "unfreeze"}, verb
    for verb, (module, name) in VERBS.items():
        assert callable(getattr(importlib.import_module(f"lxpy.tui.verbs.{module}"), name)), verb


@pytest.fixture
def own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Our own command line, stood in for by a script: it writes down its words, and fails where `fail` says."""
    log, fail = tmp_path / "commands", tmp_path / "fail"

    class Own:
        script = 'echo "said by $last"'

        def lines(self) -> list[list[str]]:
            return [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []

        def refuse(self, name: str, why: str) -> None:
            with fail.open("a") as file:
                file.write(f"{name}\t{why}\n")

    found = Own()

    def command(words: list[str], terminal: bool = False) -> list[str]:
        script = (
            f'printf "%s\\n" {shlex.quote(shlex.join(words))} >> {log}\n'
            f'for last; do why=$(grep -s "^$last\t" {fail} | cut -f2); '
            '[ -z "$why" ] || { echo "Error: $why"; exit 1; }; done\n' + found.script
        )
        return ["sh", "-c", script, "lxpy", *words]

    monkeypatch.setattr("lxpy.tui.shells.own_command", command)
    return found


async def mark(pilot: Any, *names: str) -> None:
    pane = pilot.app.main.panes[0]
    pane.marks = set(names)
    pane.remark()
    await pilot.pause()


async def fill(pilot: Any, **answers: Any) -> None:
    app = pilot.app
    wanted = ["#yes", *(f"#ask-{name}" for name in answers)]
    await wait(pilot, lambda: isinstance(app.screen, Form) and all(app.screen.query(one) for one in wanted))
    for name, value in answers.items():
        app.screen.query_one(f"#ask-{name}").value = value
    await pilot.pause()


def fault(app: Any) -> str:
    return str(app.screen.query_one("#form-fault", Static).render())


LONG = "an-instance-with-a-rather-long-name-that-goes-on"
# verb's key, what is typed, the command line of web1 and of web2
FORMS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("c", {"name": "{name}-b", "pool": "fast"}, ["copy NAME NAME-b -s fast"]),
    ("c", {"name": "{name}", "server": "far:"}, ["copy NAME far:NAME"]),
    ("c", {"project": "lab", "only": True, "refresh": True},
     ["copy NAME NAME-copy --target-project lab --instance-only --refresh"]),
    ("m", {"pool": "fast"}, ["move NAME -s fast"]),
    ("m", {"project": "lab", "name": "x-{name}"}, ["move NAME x-NAME --target-project lab"]),
    ("P", {"alias": "{name}/v1", "public": True, "force": True},
     ["publish NAME --alias NAME/v1 --compression gzip --public --force"]),
    ("E", {"file": "/tmp/none/{name}.tar"}, ["export NAME /tmp/none/NAME.tar --compression gzip"]),
    ("greater_than_sign", {"file": "/etc/hostname", "to": "/srv/", "owner": "1000"},
     ["file push -r -p /etc/hostname NAME/srv/ --uid 1000 --gid 1000"]),
    ("less_than_sign", {"file": "/etc/hostname", "to": "/tmp/{name}-x"},
     ["file pull -r -p NAME/etc/hostname /tmp/NAME-x"]),
    ("equals_sign", {"key": "limits.cpu", "value": "2"}, ["config set NAME limits.cpu=2"]),
    ("equals_sign", {"key": "limits.cpu"}, ["config unset NAME limits.cpu"]),
    ("F", {"profiles": "default, small"}, ["profile assign NAME default,small"]),
]  # fmt: skip


async def test_the_line_that_is_shown_is_the_one_that_is_run(daemon: FakeDaemon, own: Any) -> None:
    """For one instance, and for two that are marked."""
    async with opened(daemon) as pilot:
        app = pilot.app
        for key, answers, wanted in FORMS:
            for names in (["web1"], ["web1", "web2"]):
                before, after = len(own.lines()), len(own.lines()) + len(names)
                await mark(pilot, *names)
                await pilot.press(key)
                await fill(pilot, **answers)
                line = str(app.screen.query_one("#form-line", Static).render())
                await pilot.press("ctrl+s")
                await wait(pilot, lambda after=after: len(own.lines()) == after and app.on_main)  # type: ignore[misc]
                lines = [shlex.split(w.replace("NAME", name)) for name in names for w in wanted]
                assert sorted(own.lines()[before:]) == sorted(lines)
                assert line.startswith(f"$ {shlex.join(['lxpy', *lines[0]])}")
                assert ("and so for 1 more" in line) == (len(names) == 2)
                await wait(pilot, lambda: app.on_main and not app.main.panes[0].marks)


FAULTS: list[tuple[str, dict[str, Any], str]] = [
    ("c", {"name": "same"}, "the same for all 2"),
    ("R", {"name": "same"}, "the same for all 2"),
    ("m", {}, "It is there already"),
    ("P", {"alias": "one"}, "the same for all 2"),
    ("E", {"file": ""}, "Name the file"),
    ("greater_than_sign", {"file": "/no/such"}, "no such file"),
    ("less_than_sign", {"file": "/"}, "Name the file or directory inside"),
    ("equals_sign", {"value": "3"}, "Name the key"),
    ("exclamation_mark", {}, "Write the command"),
    ("B", {}, "Name the image"),
    ("a", {"kept": "soon"}, "no time to keep it"),
    ("a", {"kept": "2019-01-01"}, "past"),
]


async def test_a_faulty_answer_is_told_in_the_form(daemon: FakeDaemon, own: Any) -> None:
    async with opened(daemon) as pilot:
        for key, answers, why in FAULTS:
            await mark(pilot, "web1", "web2")
            await pilot.press(key)
            await fill(pilot, **answers)
            await pilot.press("ctrl+s")
            await wait(pilot, lambda why=why: why in fault(pilot.app))  # type: ignore[misc]
            await pilot.press("escape")
            await wait(pilot, lambda: pilot.app.on_main)
        assert not own.lines() and not [r for r in daemon.requests if r[0] != "GET"]


async def test_an_export_never_writes_over_a_file(daemon: FakeDaemon, own: Any, tmp_path: pathlib.Path) -> None:
    (tmp_path / "web2.tar.gz").write_text("precious")
    async with opened(daemon) as pilot:
        await mark(pilot, "web1", "web2")
        await pilot.press("E")
        await fill(pilot, file=f"{tmp_path}/{{name}}.tar.gz")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "web2.tar.gz exists already" in fault(pilot.app))
        await fill(pilot, replace=True)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: len(own.lines()) == 2)


async def test_one_that_fails_is_told_in_the_form_and_can_be_tried_again(daemon: FakeDaemon, own: Any) -> None:
    own.refuse("web1-copy", "Instance 'web1-copy' already exists")
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("c")
        await fill(pilot)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "already exists" in fault(pilot.app))
        await fill(pilot, name="web1-c")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: pilot.app.on_main)


async def test_several_have_a_result_each_and_the_failed_stay_marked(daemon: FakeDaemon, own: Any) -> None:
    own.refuse("db", "db is busy with a backup: wait for it to end")
    async with opened(daemon) as pilot:
        app = pilot.app
        await mark(pilot, "web1", "db", "build")
        await pilot.press("equals_sign")
        await fill(pilot, key="user.a", value="1")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(app.screen, ResultsScreen))
        await wait(pilot, lambda: app.screen.work.ended)
        states = {item.name: item.state for item in app.screen.work.items}
        assert states == {"web1": "done", "db": "failed", "build": "done"}
        await wait(pilot, lambda: "2 done, 1 failed" in screen.text(app) and "wait for it to end" in screen.text(app))
        assert app.main.panes[0].marks == {"db"}
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await pilot.press("b")
        await wait(pilot, lambda: isinstance(app.screen, ResultsScreen))


async def test_the_failed_are_tried_again(daemon: FakeDaemon) -> None:
    daemon.fail["PUT", "/1.0/instances/web2"] = BadRequest("web2 is locked: wait for its backup to end")
    async with opened(daemon) as pilot:
        app = pilot.app
        await mark(pilot, "web1", "web2", "build")
        await pilot.press("x")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, ResultsScreen) and app.screen.work.ended)
        assert [i.state for i in app.screen.work.items] == ["skipped", "done", "failed"]
        await wait(pilot, lambda: "is locked: wait" in (now := screen.text(app)) and "already stopped" in now)
        del daemon.fail["PUT", "/1.0/instances/web2"]
        await pilot.press("r")
        await wait(pilot, lambda: app.on_main and daemon.instances["web2"]["status"] == "Stopped")
        assert len([r for r in daemon.requests if r[0] == "PUT"]) == 3


async def test_the_rest_can_be_left(daemon: FakeDaemon) -> None:
    daemon.instances = {f"c{i:02}": instance(f"c{i:02}", ip=i + 1) for i in range(20)}
    daemon.hold = True
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press("asterisk", "x")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        text = screen.text(app)
        assert len(app.screen.names) == 20 and "and 12 more (v names all)" in text
        await pilot.press("v")
        await wait(pilot, lambda: "more (v" not in screen.text(app))
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, ResultsScreen))
        work = app.screen.work
        await wait(pilot, lambda: len(daemon.operations) == 8 and work.count("running") == 8)
        await wait(
            pilot,
            lambda: (
                app.screen.query("#stop")
                and app.screen.query_one("#stop").region.area
                and "waiting" in screen.text(app)
            ),
        )
        await pilot.click("#stop")
        await wait(pilot, lambda: work.count("left") == 12)
        assert not app.screen.query_one("#again", Button).display
        for ident in list(daemon.operations):
            daemon.finish(ident)
        await wait(pilot, lambda: work.ended)
        assert work.count("done") == 8 and len(daemon.operations) == 8, "what was under way has ended, no more began"


async def test_a_command_that_is_broken_off(daemon: FakeDaemon, own: Any) -> None:
    own.script = "exec sleep 30"
    async with opened(daemon) as pilot:
        app = pilot.app
        await mark(pilot, "web1", "web2")
        await pilot.press("exclamation_mark")
        await fill(pilot, command="sleep 30")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(app.screen, ResultsScreen) and len(own.lines()) == 2)
        await pilot.press("c")
        await wait(pilot, lambda: app.screen.work.ended)
        assert [item.text for item in app.screen.work.items] == ["broken off"] * 2


async def test_marks_outlive_refreshes_and_filters(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app, pane = pilot.app, pilot.app.main.panes[0]
        await mark(pilot, "build")
        await pilot.press("slash", *"web", "enter")
        await wait(pilot, lambda: len(pane.rows) == 2)
        await pilot.press("asterisk")
        await wait(pilot, lambda: pane.marks == {"build", "web1", "web2"})
        assert "3 marked, 1 of them not shown" in str(pane.border_subtitle)
        assert [row.name for row in app.main.targets()] == ["web1", "web2", "build"]
        await pilot.press("asterisk")
        assert pane.marks == {"build"}
        daemon.instances["late"] = instance("late")
        daemon.lifecycle("instance-created", "late")
        await wait(pilot, lambda: "late" in app.model.instances)
        assert pane.marks == {"build"}
        del daemon.instances["build"]
        daemon.lifecycle("instance-deleted", "build")
        await wait(pilot, lambda: not pane.marks)


async def test_restore_from_the_list(daemon: FakeDaemon) -> None:
    for name, taken in (("web1", ["snap0", "old"]), ("web2", ["snap0"])):
        daemon.instances[name]["snapshots"] = [
            {"name": s, "created_at": f"2020-01-0{n + 1}T00:00:00Z"} for n, s in enumerate(taken)
        ]
    async with opened(daemon) as pilot:
        app = pilot.app
        await mark(pilot, "build")
        await pilot.press("z")
        await wait(pilot, lambda: any("a takes one" in n for n in notices(app)))
        await mark(pilot, "web1", "web2")
        await pilot.press("z")
        await wait(pilot, lambda: app.screen.query("#choose"))
        assert "2 of 2 have it" in screen.text(app) and "1 of 2 have it" in screen.text(app)
        await pilot.press("enter")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        assert app.screen.names == ["web1/old", "web2/old"]
        await pilot.press("y")
        await wait(pilot, lambda: app.actions.batches and app.actions.batches[-1].ended)
        work = app.actions.batches[-1]
        assert [(i.state, i.text) for i in work.items] == [("done", "as in old"), ("skipped", "it has no snapshot old")]
        puts = [r for r in daemon.requests if r[0] == "PUT"]
        assert puts == [("PUT", "/1.0/instances/web1", {"restore": "old"})]


async def test_rebuild_asks_by_name(daemon: FakeDaemon, own: Any) -> None:
    async with opened(daemon) as pilot:
        await mark(pilot, "web1", "web2")
        await pilot.press("B")
        await fill(pilot, image="bb", force=True)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert pilot.app.screen.names == ["web1", "web2"] and not own.lines()
        await pilot.press("y")
        await wait(pilot, lambda: len(own.lines()) == 2)
        assert sorted(own.lines()) == [["rebuild", "bb", name, "--force"] for name in ("web1", "web2")]


@pytest.mark.parametrize(
    ("verb", "answers", "line"),
    [
        ("import", {"file": "/tmp/b.tar", "name": "again", "pool": "fast"}, "import /tmp/b.tar again -s fast"),
        ("share", {"path": "/srv", "inside": "data", "readonly": True}, "share /srv web1:/data --readonly"),
    ],
)
async def test_verbs_of_the_palette(
    daemon: FakeDaemon, own: Any, verb: str, answers: dict[str, Any], line: str
) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        pilot.app.action_verb(verb)
        await fill(pilot)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "Name the" in fault(pilot.app))
        await fill(pilot, **answers)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: own.lines() == [shlex.split(line)])


async def test_what_is_lost_is_shown_before_it_is_recovered(daemon: FakeDaemon, own: Any) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        own.script = 'echo "Nothing is to be recovered"'
        app.action_verb("recover")
        await wait(pilot, lambda: any("Nothing to recover" in n for n in notices(app)))
        own.script = 'echo "Found:"; echo " - instance lost on pool default"'
        app.action_verb("recover")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        assert app.screen.names[-1] == " - instance lost on pool default"
        await pilot.press("y")
        await wait(pilot, lambda: own.lines()[-1:] == [["recover", "--yes"]])
        own.refuse("--dry-run", "the pool fast is away: attach its disk")
        app.action_verb("recover")
        await wait(pilot, lambda: any("attach its disk" in n for n in notices(app)))


async def test_a_file_s_plan_is_shown_before_it_is_applied(daemon: FakeDaemon, own: Any) -> None:
    own.script = 'echo "+ create instance web"; echo "Plan: 1 to create"'
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_verb("apply")
        await fill(pilot)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "Name the file" in fault(app))
        await fill(pilot, file="/tmp/stack.yaml")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        assert app.screen.names == ["+ create instance web", "Plan: 1 to create"]
        await pilot.press("n")
        await wait(pilot, lambda: app.on_main)
        assert own.lines() == [["apply", "-f", "/tmp/stack.yaml", "--dry-run"]]
        app.action_verb("apply")
        await fill(pilot, file="/tmp/stack.yaml")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: own.lines()[-1:] == [["apply", "-f", "/tmp/stack.yaml", "--yes"]])
        own.refuse("--dry-run", "line 3: an instance has no image")
        app.action_verb("apply")
        await fill(pilot, file="/tmp/stack.yaml")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "line 3: an instance" in fault(app))


async def test_a_doctor_with_findings_is_read_all_the_same(daemon: FakeDaemon, own: Any) -> None:
    own.script = 'echo "cgroup v2: yes"; echo "inotify: 128, too few"; exit 1'
    async with opened(daemon) as pilot:
        pilot.app.action_verb("doctor")
        await wait(pilot, lambda: isinstance(pilot.app.screen, TextScreen))
        assert "inotify: 128, too few" in pilot.app.screen.text


async def test_unshare_picks_among_what_is_shared(daemon: FakeDaemon, own: Any) -> None:
    daemon.instances["web1"]["devices"] = {"srv": {"type": "disk", "source": "/srv", "path": "/data"}}
    async with opened(daemon) as pilot:
        app = pilot.app
        await mark(pilot, "build")
        app.action_verb("unshare")
        await wait(pilot, lambda: any("shares no directory" in n for n in notices(app)))
        await mark(pilot, "web1")
        app.action_verb("unshare")
        await wait(pilot, lambda: app.screen.query("#choose"))
        await pilot.press("enter")
        await wait(pilot, lambda: own.lines() == [["unshare", "web1:/data"]])


async def test_what_concerns_this_machine_is_not_done_from_another(daemon: FakeDaemon, own: Any) -> None:
    app = LxpyApp(daemon.gateway("lab"), settings.Settings(refresh=3600.0))
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[0].rows)
        for verb in ("doctor", "recover"):
            app.action_verb(verb)
        await wait(pilot, lambda: len([n for n in notices(app) if "run it there" in n]) == 2)
        assert not own.lines()


async def test_a_form_that_is_closed_loses_no_failure(daemon: FakeDaemon, own: Any) -> None:
    """What can be broken off is; what cannot goes on, and what becomes of it is told."""
    own.script = "exec sleep 30"
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_go(1, "web1")
        await pilot.press("c")
        await fill(pilot)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: own.lines() and "breaks it off" in str(app.screen.query_one("#form").border_subtitle))
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        daemon.instances["broken"] = instance("broken", "Stopped")
        daemon.hold = True
        await pilot.press("a")
        await fill(pilot, name="s")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: len(daemon.operations) == 1)
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        (op,) = daemon.operations.values()

        def fails() -> None:
            raise BadRequest("the pool is full: delete something")

        op["_done"] = fails
        daemon.finish(op["id"])
        await wait(pilot, lambda: any("the pool is full" in n for n in notices(app)))


async def test_a_read_only_app_has_no_verb_that_changes(daemon: FakeDaemon, own: Any) -> None:
    app = LxpyApp(daemon.gateway(), settings.Settings(refresh=3600.0), read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[0].rows)
        for verb in {*VERBS, *STATE_VERBS, "delete", "shell"} - HARMLESS:
            app.action_verb(verb)
            await pilot.pause()
            assert app.on_main, verb
        assert not own.lines() and not [r for r in daemon.requests if r[0] != "GET"]


async def test_in_a_project_of_another_server_the_lines_say_so(daemon: FakeDaemon, own: Any) -> None:
    app = LxpyApp(daemon.gateway("lab"), settings.Settings(refresh=3600.0))
    app.gateway.project = "web"
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[0].rows)
        await mark(pilot, "web1")
        await pilot.press("equals_sign")
        await fill(pilot, key="user.a", value="1")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: own.lines() == [["--project", "web", "config", "set", "lab:web1", "user.a=1"]])


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["results", "restore", "move", "push"])
async def test_screens_of_verbs_look_as_they_did(
    daemon: FakeDaemon, own: Any, monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    monkeypatch.chdir("/tmp")
    daemon.instances[LONG] = instance(LONG, ip=50)
    for one in ("web1", "web2"):
        daemon.instances[one]["snapshots"] = [{"name": "before-upgrade", "created_at": "2020-01-01T00:00:00Z"}]
    daemon.fail["PUT", "/1.0/instances/web2"] = BadRequest("web2 is locked: wait for its backup to end, or cancel it")
    async with opened(daemon, size) as pilot:
        await mark(pilot, "web1", "web2", "build", LONG)
        if name == "results":
            await pilot.press("x")
            await wait(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press("y")
            await wait(pilot, lambda: isinstance(pilot.app.screen, ResultsScreen) and pilot.app.screen.work.ended)
            await wait(pilot, lambda: pilot.app.main.panes[0].marks == {"web2"})
            await pilot.press("down")
        else:
            await pilot.press({"restore": "z", "move": "m", "push": "greater_than_sign"}[name])
            await wait(pilot, lambda: not pilot.app.on_main)
        await screen.settled(pilot, f"verbs-{name}-{size[0]}x{size[1]}")


def test_paths_are_completed(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "backup.tar").touch()
    (tmp_path / "backups").mkdir()
    (tmp_path / ".hidden").touch()
    assert completed(f"{tmp_path}/back") == f"{tmp_path}/backup.tar"
    assert completed(f"{tmp_path}/backups") == f"{tmp_path}/backups/"
    assert completed(f"{tmp_path}/") == f"{tmp_path}/backup.tar"
    assert completed(f"{tmp_path}/.h") == f"{tmp_path}/.hidden"
    assert completed(f"{tmp_path}/no") is None and completed("") is None and completed("/no/such/x") is None
    monkeypatch.setenv("HOME", str(tmp_path))
    assert completed("~/back") == "~/backup.tar"
    monkeypatch.chdir(tmp_path)
    assert completed("backup.") == "backup.tar"


def test_how_long_a_snapshot_is_kept() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert typed("2w 3d", now) == "2026-02-17T12:00:00Z"
    assert typed("1m", now) == "2026-02-28T12:00:00Z" and typed("1y 30M", now) == "2027-01-31T12:30:00Z"
    assert typed("2027-01-31", now) == "2027-01-31T00:00:00Z"
    assert typed("2026-02-01T02:00:00+02:00", now) == "2026-02-01T00:00:00Z"
    assert typed("never", now) == NEVER
    for text in ("tomorrow", "3", "3x", "999999y", "2026-13-01", "2026-01-01"):
        with pytest.raises(BadRequest):
            typed(text, now)


async def test_a_batch_of_nothing_ends() -> None:
    batch = Batch("Nothing", [], lambda row: None)  # type: ignore[arg-type, return-value]
    await batch.run()
    assert batch.ended and not batch.again()


# What each verb is told where it asks; a verb of these modules that is not here fails the test below.
ANSWERS: dict[str, dict[str, Any]] = {
    **{verb: {} for verb in (*STATE_VERBS, "delete", "snapshot", "restore", "copy-instance", "unshare", "recover",
                             "publish")},
    "rename": {"name": "x-{name}"}, "move": {"pool": "fast"}, "export": {"file": "/tmp/none/{name}.tar"},
    "import": {"file": "/tmp/b.tar"}, "push": {"file": "/etc/hostname"},
    "pull": {"file": "/etc/hostname", "to": "/tmp/{name}-x"}, "rebuild": {"image": "bb"},
    "configure": {"key": "limits.cpu", "value": "2"}, "profiles": {"profiles": "small"},
    "share": {"path": "/srv", "inside": "data"}, "execute": {"command": "uptime"}, "apply": {"file": "/tmp/stack.yaml"},
    "doctor": {},
}  # fmt: skip
WHY = "the pool default is full: delete something"


@pytest.mark.parametrize("many", [False, True], ids=["one", "several"])
async def test_every_verb_tells_why_it_failed(daemon: FakeDaemon, own: Any, many: bool) -> None:
    """From the registry: whatever the daemon or our own command line refuses is on the screen, with what to do."""
    verbs = [verb for verb, (module, _) in VERBS.items() if module in ("instances", "transfer", "change", "server")]
    shares = {"srv": {"type": "disk", "source": "/srv", "path": "/data"}}
    for name in ("web1", "web2"):
        daemon.instances[name]["devices"] = shares
        daemon.instances[name]["snapshots"] = [{"name": "before", "created_at": "2020-01-01T00:00:00Z"}]
    for method in ("PUT", "POST", "PATCH", "DELETE"):
        daemon.fail[method, "/"] = BadRequest(WHY)
    own.script = f'echo "Error: {WHY}"; exit 1'
    fitting = {"start": "Stopped", "unfreeze": "Frozen"}
    async with opened(daemon) as pilot:
        app = pilot.app
        for verb in {*verbs, *STATE_VERBS, "delete"} - {"results"}:
            status = fitting.get(verb, "Running")
            for name in ("web1", "web2"):
                app.model.instances[name].status = status
            await mark(pilot, *(("web1", "web2") if many else ("web1",)))
            app.clear_notifications()
            await wait(pilot, lambda: app.on_main and not notices(app))
            app.action_verb(verb)

            def told() -> bool:
                return any(WHY in n for n in notices(app)) or WHY in " ".join(screen.text(app).split())

            for _ in range(60):
                await pilot.pause(0.05)
                if told():
                    break
                if isinstance(app.screen, Form) and app.screen.query("#yes") and not app.screen.busy:
                    await fill(pilot, **ANSWERS[verb])
                    await pilot.press("ctrl+s")
                elif isinstance(app.screen, Confirm):
                    await pilot.press("y")
                elif app.screen.query("#choose"):
                    await pilot.press("enter")
            assert told(), f"{verb}: {notices(app)}\n{screen.text(app)}"
            while not app.on_main or any(not one.is_finished for one in app.workers if one.group == "verbs"):
                await pilot.press("escape")
                await pilot.pause(0.05)
