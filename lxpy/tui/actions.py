"""The verbs: what a key or a palette entry does to instances and images."""

import asyncio
import importlib
import shlex
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lxpy.tui.bulk import Batch, Skipped
from lxpy.tui.gateway import explain
from lxpy.tui.rows import ImageRow, InstanceRow
from lxpy.tui.shells import own_command, run_own
from lxpy.tui.verbs import VERBS
from lxpy.tui.widgets.table import Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp
    from lxpy.tui.screens.launch import LaunchRequest
    from lxpy.tui.screens.results import ResultsScreen

# verb -> (state action, forced, "Cannot ...", statuses it makes sense in)
STATE_VERBS: dict[str, tuple[str, bool, str, tuple[str, ...]]] = {
    "start": ("start", False, "start", ("Stopped", "Error")),
    "stop": ("stop", False, "stop", ("Running", "Ready", "Error")),
    "kill": ("stop", True, "force-stop", ("Running", "Ready", "Frozen", "Error")),
    "restart": ("restart", False, "restart", ("Running", "Ready")),
    "freeze": ("freeze", False, "pause", ("Running", "Ready")),
    "unfreeze": ("unfreeze", False, "resume", ("Frozen",)),
}


_AT_ONCE = 0.7  # seconds
# The status that an action leads to, where there is one.
REACHED = {"start": "Running", "stop": "Stopped", "freeze": "Frozen", "unfreeze": "Running"}
# What may be done in a read-only app.
HARMLESS = frozenset({"log", "log-acl", "pull", "doctor", "results", "test-remote", "switch-remote", "export-image"})
AT_LEISURE = 0.5  # seconds; work on many that takes longer is watched


class Actions:
    """What the app does; every failure becomes a message with its reason."""

    def __init__(self, app: "LxpyApp") -> None:
        self.app = app
        self.batches: list[Batch] = []  # the last ones, oldest first
        self._turns: dict[str, asyncio.Lock] = {}

    def do(self, verb: str, rows: Sequence[Any]) -> None:
        """`verb` on `rows`: asks first where much or something irreplaceable is meant."""
        if self.app.read_only and verb not in HARMLESS:
            self.refuse(verb)
            return
        instances = [row for row in rows if isinstance(row, InstanceRow)]
        images = [row for row in rows if isinstance(row, ImageRow) and not row.remote]
        if verb in VERBS:
            module, name = VERBS[verb]
            getattr(importlib.import_module(f"lxpy.tui.verbs.{module}"), name)(self.app, rows)
            return
        if verb == "delete":
            self._confirm_delete(instances, images)
            return
        if not instances:
            self.app.notify("Select an instance first, or press n to launch one", title=f"Nothing to {verb}")
            return
        if verb == "shell":
            self.shell(instances[0])
        elif verb == "console":
            self.shell(instances[0], console=True)
        elif verb == "fullshell":
            self.full_shell(instances[0])
        elif verb == "log":
            self._log(instances)
        elif verb == "pause":
            # All the same way: what runs is paused; where nothing does, what is paused goes on.
            pausing = any(row.status in STATE_VERBS["freeze"][3] for row in instances)
            self.do("freeze" if pausing else "unfreeze", instances)
        else:
            word = STATE_VERBS[verb][2]
            what = instances[0].name if len(instances) == 1 else f"{len(instances)} instances"
            self.ask(
                word, f"{word.capitalize()} {what}?", [row.name for row in instances], word, "",
                lambda: self._state(verb, instances), many=len(instances) > 1,
            )  # fmt: skip

    def refuse(self, verb: str) -> None:
        """The app is only to be looked at."""
        self.app.notify(f"{verb}: this app is read-only", title="Not done", severity="warning", timeout=4, markup=False)

    # Instances

    def _state(self, verb: str, rows: Sequence[InstanceRow]) -> None:
        action, force, word, fitting = STATE_VERBS[verb]
        if not any(row.status in fitting for row in rows):
            names = ", ".join(row.name for row in rows[:3]) + (" …" if len(rows) > 3 else "")
            states = ", ".join(sorted({row.status.lower() for row in rows}))
            self.app.notify(f"{names}: already {states}", title=f"Nothing to {word}", markup=False)
            return
        body = {"action": action, "timeout": 30 if not force else -1, "force": force, "stateful": False}

        async def one(row: InstanceRow) -> None:
            if row.status not in fitting:
                reached = row.status == REACHED.get(action, "")
                raise Skipped(f"{'already' if reached else 'it is'} {row.status.lower()}")
            path = f"/1.0/instances/{quote(row.name)}/state"
            await self.app.model.follow(await self.app.gateway.call(lambda c: c.put(path, body)))

        self.each(f"Cannot {word}", rows, one)

    def _confirm_delete(self, instances: Sequence[InstanceRow], images: Sequence[ImageRow]) -> None:
        if instances:
            names = [
                f"{r.name}" + (f"  ({r.status.lower()}: it is stopped by force)" if r.status != "Stopped" else "")
                for r in instances
            ]
            what = f"instance {instances[0].name}" if len(instances) == 1 else f"{len(instances)} instances"
            note = (
                "Their file systems are deleted with them."
                if len(instances) > 1
                else "Its file system is deleted with it."
            )
        elif images:
            names = [f"{r.title}  {r.description}" for r in images]
            what = f"image {images[0].title}" if len(images) == 1 else f"{len(images)} images"
            note = "Instances made from it stay."
        else:
            self.app.notify("Only instances and images can be deleted here", title="Nothing to delete")
            return

        def go() -> None:
            if instances:
                self.each("Cannot delete", instances, self._delete_instance)
            else:
                self.each("Cannot delete", images, self._delete_image)

        self.ask("delete", f"Delete {what}?", names, "delete", note, go, many=len(names) > 1)

    async def _delete_instance(self, row: InstanceRow) -> None:
        path = f"/1.0/instances/{quote(row.name)}"
        if row.status != "Stopped":
            body = {"action": "stop", "timeout": -1, "force": True, "stateful": False}
            stopped = await self.app.gateway.call(lambda c: c.put(f"{path}/state", body))
            await self.app.model.follow(stopped)
            if (row.raw.get("ephemeral")) is True:
                return  # it went with its stop
        await self.app.model.follow(await self.app.gateway.call(lambda c: c.delete(path)))

    async def _delete_image(self, row: ImageRow) -> None:
        path = f"/1.0/images/{row.fingerprint}"
        await self.app.model.follow(await self.app.gateway.call(lambda c: c.delete(path)))

    async def launch(self, request: "LaunchRequest") -> None:
        """Asks for what the launch dialog says; what becomes of it is told.

        Raises:
            ApiError, OSError: it is refused; nothing was made.
        """
        another = request.remote is not None and request.remote.protocol == "lxd"
        if another:
            making = asyncio.ensure_future(self._of_another_server(request))
        else:
            created = await self.app.gateway.call(lambda c: c.post("/1.0/instances", request.body()))
            making = asyncio.ensure_future(self.app.model.follow(created))
        # What cannot be made is mostly found out at once: then the dialog is still there to mend it.
        await asyncio.wait({making}, timeout=_AT_ONCE)
        if making.done():
            making.result()

        async def work() -> None:
            try:
                done = await making
                name = request.name
                for source in (done.get("resources") or {}).get("instances") or []:
                    name = name or str(source).partition("?")[0].rsplit("/", 1)[-1]
                body = {"action": "start", "timeout": -1, "force": False, "stateful": False}
                path = f"/1.0/instances/{quote(name)}/state"
                if not another:
                    await self.app.model.follow(await self.app.gateway.call(lambda c: c.put(path, body)))
            except Exception as error:
                self.app.fail(f"Cannot launch {request.name or request.image}", error)
                return
            self.app.notify(f"{name} is running", title="Launched", timeout=4, markup=False)
            for _ in range(200):  # its row comes with an event
                if any(row.name == name for row in self.app.main.panes[0].all_rows):
                    break
                await asyncio.sleep(0.05)
            if self.app.on_main and self.app.focused is self.app.main.panes[0]:  # not out of a filter being typed
                self.app.action_go(1, name)

        self.app.run_worker(work(), group="verbs", exit_on_error=False)

    async def _of_another_server(self, request: "LaunchRequest") -> dict[str, Any]:
        """Launches here what another server has, by our own command line: that knows how the image comes here."""
        home = f"{self.app.gateway.remote}:" if self.app.gateway.remote else ""
        _, verb, image, *rest = request.words()
        if request.name:
            rest.pop(0)
        project = ["--project", self.app.gateway.project] if self.app.gateway.project else []
        said = await run_own([*project, verb, image, *([home + request.name] if home or request.name else []), *rest])
        name = request.name or next((line.rpartition(" ")[2] for line in said.splitlines() if "name is" in line), "")
        return {"resources": {"instances": [f"/1.0/instances/{name}"] if name else []}}

    # Work on many

    def each(
        self, title: str, rows: Sequence[Any], one: Callable[[Any], Awaitable[Any]], *, interruptible: bool = False,
        table: Table | None = None,
    ) -> None:  # fmt: skip
        """`one` of each row; what fails is told under `title`, with its reason. Several rows have a result each.

        Args:
            title: begins with "Cannot".
            one: gives the text of its result, or nothing; raises `Skipped` where there is nothing to do.
            interruptible: whether stopping breaks off what is under way.
            table: whose marks go when all is done; by default that of the rows.
        """
        table = table or self.table(rows)
        if len(rows) > 1:
            doing = f"{title.removeprefix('Cannot ').capitalize()} {len(rows)} {getattr(rows[0], 'kind', 'objects')}"
            self.start(Batch(doing, rows, one, interruptible=interruptible), table)
            return

        async def work() -> None:
            for row in rows:
                try:
                    await one(row)
                except Skipped as nothing:
                    self.app.notify(f"{_name(row)}: {nothing}", title="Nothing to do", markup=False)
                except Exception as error:
                    self.app.fail(title, error, _name(row))
                    return
            table.action_unmark()

        self.app.run_worker(work(), group="verbs", exit_on_error=False)

    def start(self, batch: Batch, table: Table | None = None) -> None:
        """Begins a batch. Its results are shown when it takes longer than a blink, or something has failed."""
        self.batches = [*[one for one in self.batches if one is not batch][-9:], batch]
        table = table or self.table([item.row for item in batch.items])
        self.app.run_worker(self._run(batch, table), group="verbs", exit_on_error=False)

    def turn(self, path: str) -> asyncio.Lock:
        """Held while the object that lies there is read, changed and written back."""
        return self._turns.setdefault(path, asyncio.Lock())

    def table(self, rows: Sequence[Any]) -> Table:
        """Where rows are marked: the list with the keyboard where they are in it, otherwise the active pane."""
        focused = self.app.main.focused
        if isinstance(focused, Table):
            meant = {(type(row), getattr(row, "key", "")) for row in rows}
            if any((type(row), row.key) in meant for row in focused.everything()):
                return focused
        return self.app.main.active

    async def _run(self, batch: Batch, table: Table) -> None:
        batch.changed = lambda: self._redraw(batch)
        work = asyncio.ensure_future(batch.run())
        try:
            done, _ = await asyncio.wait([work], timeout=AT_LEISURE)
            if not done and self.app.on_main:
                self.results(batch)
            await work
        finally:
            work.cancel()
        failed, shown = batch.failed, self._shown(batch)
        # Those that failed stay marked, to be tried again when the reason is gone.
        table.marks = {item.key for item in failed} & {row.key for row in table.everything()}
        table.remark()
        if failed or batch.keep:
            if shown is None and self.app.on_main:
                self.results(batch)
            elif shown is None:
                text = "\n".join(f"{item.name}: {item.text}" for item in failed[:4])
                text += f"\nand {len(failed) - 4} more" if len(failed) > 4 else ""
                severity: Any = "error" if failed else "information"
                self.app.notify(
                    text or batch.summary(), title=f"{batch.title}: b shows all", severity=severity, timeout=12,
                    markup=False,
                )  # fmt: skip
        else:
            if shown is not None and shown is self.app.screen:
                shown.dismiss(None)
            self.app.notify(batch.summary(), title=batch.title, timeout=3, markup=False)

    def _shown(self, batch: Batch) -> "ResultsScreen | None":
        """The screen that shows a batch, if one does."""
        from lxpy.tui.screens.results import ResultsScreen

        found = (s for s in self.app.screen_stack if isinstance(s, ResultsScreen) and s.work is batch)
        return next(found, None)

    def _redraw(self, batch: Batch) -> None:
        if (shown := self._shown(batch)) is not None:
            shown.update()

    def results(self, batch: Batch | None = None) -> None:
        """Shows the results of a batch; of the last one by default."""
        from lxpy.tui.screens.results import ResultsScreen

        if batch is None and not self.batches:
            self.app.notify("Mark several rows with space, then press a verb's key", title="No work on many yet")
            return
        self.app.push_screen(ResultsScreen(batch or self.batches[-1], self.start))

    def ask(
        self, verb: str, question: str, names: list[str], word: str, note: str, go: Callable[[], None], *,
        many: bool = False,
    ) -> None:  # fmt: skip
        """`go`, after a question that names the objects where the settings want one.

        Args:
            verb: as `settings.ASKABLE` has it.
            many: whether it is about several objects, which is asked about more readily.
        """
        if not self.app.settings.asks(verb, many):
            go()
            return
        from lxpy.tui.screens.confirm import Confirm

        self.app.push_screen(Confirm(question, names, word, note), lambda yes: go() if yes else None)

    # Looking inside

    def _log(self, rows: Sequence[InstanceRow]) -> None:
        from lxpy.tui.screens.log import InstanceLogs

        self.app.push_screen(InstanceLogs(self.app.gateway, [row.name for row in rows]))

    def shell(self, row: InstanceRow, console: bool = False) -> None:
        """A shell in a tab beside everything else, or the console."""
        if self._can_shell(row):
            self.app.main.add_class("-detail")
            self.app.main.detail.open_shell(row, console=console)

    def _can_shell(self, row: InstanceRow) -> bool:
        if not row.running:
            verb = "p resumes it" if row.status == "Frozen" else "u starts it"
            self.app.notify(
                f"{row.name} is {row.status.lower()}: {verb}", title="No shell", severity="warning", markup=False
            )
        return row.running

    def full_shell(self, row: InstanceRow) -> None:
        """Gives the terminal to a shell in the instance; the app comes back when it ends."""
        if not self._can_shell(row):
            return
        if self.app.is_web:
            self.app.notify(
                "In a browser there is no terminal to hand over: s opens the shell in a tab, + gives it the width",
                title="No full-screen shell here", severity="warning",
            )  # fmt: skip
            return
        remote = self.app.gateway.remote
        target = f"{remote}:{row.name}" if remote else row.name
        failure = ""
        try:
            with self.app.suspend(), self.app.model.paused():
                # Nothing may leave this block as an exception: `suspend` would not resume the app.
                failure = _shell(target)
        except Exception as error:  # terminals that cannot suspend
            failure = explain(error) or f"{type(error).__name__}"
        if failure:
            self.app.notify(failure, title=f"The shell in {row.name} ended", severity="warning", markup=False)


def _name(row: Any) -> str:
    return getattr(row, "name", "") or str(row.title)


def _shell(target: str) -> str:
    try:
        print(
            f"\x1b[2J\x1b[H\x1b[2m# lxpy shell {shlex.quote(target)}   (exit or ctrl+d returns to lxpy)\x1b[0m",
            flush=True,
        )
        began = time.monotonic()
        status = subprocess.run(own_command(["shell", target]), check=False).returncode
        if status and time.monotonic() - began < 1.0:
            # It never came to a shell: its message would vanish with the screen.
            print("\x1b[2m# press enter to return to lxpy\x1b[0m", flush=True)
            sys.stdin.readline()
            return f"It ended at once with status {status}"
    except KeyboardInterrupt:
        pass
    except Exception as error:
        return explain(error)
    return ""
