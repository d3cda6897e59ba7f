"""What every command is handed: remotes, clients, progress, output."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError
from lxpy.client import remotes as remotes_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client
    from lxpy.client.remotes import Remote
else:
    import _signal  # signal itself costs an enum


class Context:
    """One run of the command line."""

    def __init__(self, project: str = "", quiet: bool = False, force_local: bool = False) -> None:
        self.project = project
        self.quiet = quiet
        self.force_local = force_local
        self._clients: dict[str, Client] = {}
        self._remotes: remotes_module.Remotes | None = None
        self._line = 0  # length of the progress line on the terminal

    @property
    def remotes(self) -> remotes_module.Remotes:
        if self._remotes is None:
            self._remotes = remotes_module.load()
        return self._remotes

    def client(self, remote: str = "") -> Client:
        """The client of a remote; commands of one run share it."""
        return self.client_of(self.remotes.get("local" if self.force_local and not remote else remote))

    def client_of(self, remote: Remote) -> Client:
        from lxpy.client.client import connect_to

        client = self._clients.get(remote.name)
        if client is None:
            client = self._clients[remote.name] = connect_to(remote)
            if self.project:
                client.project = self.project
        return client

    def resolve(self, ref: str) -> tuple[Client, str]:
        """``remote:name`` as client and name; the name is "" for a bare ``remote:``."""
        remote, colon, name = ref.partition(":")
        return (self.client(remote), name) if colon else (self.client(), ref)

    # Progress

    def show(self, text: str) -> None:
        """Replace the progress line (standard output, terminals only)."""
        if self.quiet or not sys.stdout.isatty():
            return
        if not text:
            return self.clear()
        pad = " " * max(0, self._line - len(text))
        sys.stdout.write(f"\r{text}{pad}")
        sys.stdout.flush()
        self._line = len(text)

    def clear(self) -> None:
        """Take the progress line away."""
        if self._line:
            sys.stdout.write("\r" + " " * self._line + "\r")
            sys.stdout.flush()
            self._line = 0

    def say(self, text: str) -> None:
        """A line for people; ``-q`` silences it."""
        self.clear()
        if not self.quiet:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def begin(self, client: Client, path: str, body: Any, **query: str) -> Any:
        """POST what may take long. Ctrl-C meanwhile waits for the answer, to know what to cancel."""
        operation, pressed = steady(lambda: client.post(path, body, **query))
        if pressed:
            print(_interrupted(client, operation), file=sys.stderr)
            raise KeyboardInterrupt
        return operation

    def wait(self, client: Client, operation: Any, label: str = "") -> dict[str, Any]:
        """The ended operation; its progress is shown as it comes. Ctrl-C cancels it where that can be done."""
        watch = None
        if not self.quiet and sys.stdout.isatty():

            def progress(op: dict[str, Any]) -> None:
                for key, value in (op.get("metadata") or {}).items():
                    if key.endswith("_progress"):
                        self.show(f"{label}: {value}" if label else str(value))

            watch = progress
        try:
            ended = client.wait(operation, watch)
            # What had to be done beyond what was asked, or was waited for in vain.
            if isinstance(ended, dict) and (note := (ended.get("metadata") or {}).get("note")) and not self.quiet:
                self.clear()
                print(note, file=sys.stderr)
            return ended
        except KeyboardInterrupt:
            self.clear()
            print(_interrupted(client, operation), file=sys.stderr)
            raise
        finally:
            self.clear()

    def wait_all(self, client: Client, names: list[str], results: list[Any], verb: str) -> int:
        """Wait for what `Client.many` started; every failure is one line. The exit status."""
        failed = 0
        for name, result in zip(names, results, strict=True):
            try:
                if isinstance(result, ApiError):
                    raise result
                self.wait(client, result)
            except KeyboardInterrupt:
                for other in results[names.index(name) + 1 :]:
                    if not isinstance(other, ApiError):
                        client.cancel(other, 0)
                raise
            except ApiError as error:
                failed += 1
                where = f"{name}: " if len(names) > 1 else ""
                print(f"Error: {where}{error}", file=sys.stderr)
        if failed and len(names) > 1:
            print(f"Error: Some instances failed to {verb}", file=sys.stderr)
        return 1 if failed else 0


def _interrupted(client: Client, operation: dict[str, Any]) -> str:
    """Ctrl-C was pressed while `operation` ran: cancel it, and say what came of that."""
    what = str(operation.get("description") or "The operation")
    print("Cancelling (Ctrl-C again leaves at once)", file=sys.stderr)
    ended = client.cancel(operation)
    if ended is None:
        return f"{what} cannot be cancelled and goes on (see lxpy operation list)"
    if ended["status_code"] == 401:
        return f"{what}: cancelled, what had been done of it is undone"
    if ended["status_code"] == 200:
        return f"{what}: it was done already"
    if ended["status_code"] == 400:
        return f"{what}: it had failed already: {ended.get('err')}"
    return f"{what} is still being undone (see lxpy operation list)"


def steady(work: Callable[[], Any]) -> tuple[Any, bool]:
    """What `work` gives, and whether Ctrl-C was pressed meanwhile: it waits for its end, a second one does not."""
    pressed: list[int] = []

    def press(number: int, _frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    before = _signal.getsignal(_signal.SIGINT)
    if before is _signal.default_int_handler:
        _signal.signal(_signal.SIGINT, press)
    try:
        return work(), bool(pressed)
    finally:
        _signal.signal(_signal.SIGINT, before)


def write(text: str) -> None:
    """To standard output."""
    sys.stdout.write(text)


def pairs(words: list[str], what: str = "configuration key") -> dict[str, str]:
    """``key=value`` words as a dictionary. Raises `UsageError`."""
    from lxpy.cli.args import UsageError

    result = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"Bad {what} {word!r}: expected key=value")
        result[key] = value
    return result


def settings(words: list[str]) -> dict[str, str]:
    """The arguments of ``set``: ``key=value...``, or LXD's old ``key value``; a value ``-`` is read from stdin."""
    result = {words[0]: words[1]} if len(words) == 2 and "=" not in words[0] else pairs(words)
    for key, value in result.items():
        if value == "-" and not sys.stdin.isatty():
            result[key] = sys.stdin.read()
    return result


def text_of(path: str, what: str) -> str:
    """The text of a file, or of standard input for "" and ``-``. Raises `UsageError` where that is a terminal."""
    if path and path != "-":
        with open(path, encoding="utf-8") as file:
            return file.read()
    if sys.stdin.isatty():
        from lxpy.cli.args import UsageError

        raise UsageError(f"missing {what}: name a file, or write to standard input")
    return sys.stdin.read()


def edit(text: str, suffix: str = ".yaml") -> str:
    """`text` as the user leaves it: from standard input when that is no terminal, else from $EDITOR."""
    if not sys.stdin.isatty():
        return sys.stdin.read()
    import tempfile

    with tempfile.NamedTemporaryFile("w+", suffix=suffix, prefix="lxpy-") as file:
        file.write(text)
        file.flush()
        run_editor(file.name)
        with open(file.name, encoding="utf-8") as changed:  # by name: editors replace the file
            return changed.read()


def run_editor(path: str) -> None:
    """Has the user change a file. Raises `ApiError`: there is no editor, or it ended with an error."""
    import shlex
    import subprocess

    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        code = subprocess.call([*shlex.split(editor), path])
    except OSError as error:
        raise ApiError(f"Cannot start the editor {editor!r} ({error.strerror}): set EDITOR") from None
    if code:
        raise ApiError(f"The editor {editor!r} ended with status {code}: nothing was changed")


def known_only(document: dict[str, Any], known: Any) -> None:
    """Raises `ApiError` for a key of a user's YAML that is none of `known`: it would be lost without a word."""
    for key in document:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(str(key), list(known), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ApiError(f"Unknown key {key!r}: {hint}")


def edit_document(text: str, apply: Any, known: Any = ()) -> None:
    """Edit YAML until `apply(document)` accepts it; on a terminal the user may go back to the editor.

    There the text is as it was left, with what was wrong with it on top.

    Args:
        known: the keys that the document may have; any where there are none.
    """
    from lxpy.cli.render import parse_yaml

    wrong = ""
    while True:
        text = edit(wrong + text).removeprefix(wrong)
        try:
            document = parse_yaml(text, "The text")
            if not isinstance(document, dict):
                raise ApiError("The text is not a YAML mapping: nothing was changed")
            if known:
                known_only(document, known)
            apply(document)
            return
        except ApiError as error:
            if not sys.stdin.isatty():
                raise
            wrong = f"### Error: {error}\n".replace("\n", " ").rstrip() + "\n"
            print(f"Error: {error}", file=sys.stderr)
            print("Press enter to open the editor again or ctrl+c to abort change", file=sys.stderr)
            sys.stdin.readline()
