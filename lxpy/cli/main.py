"""``lxpy``: finds the command, runs it, and turns whatever goes wrong into one line."""

from __future__ import annotations

import os
import sys

import lxpy
from lxpy.api.errors import ApiError
from lxpy.cli.args import Command, UsageError, help_text, nearest, parse
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal  # signal itself costs an enum

# name -> (module under lxpy.cli, summary). A module's COMMANDS holds the Command, or a dict of them for a group.
COMMANDS: dict[str, tuple[str, str]] = {
    "admin": ("admin", "Set up or recover the server"),
    "apply": ("apply", "Bring the server to what a file describes"),
    "config": ("config", "Manage instance and server configuration options"),
    "console": ("run", "Attach to instance consoles"),
    "copy": ("copy", "Copy instances, within a server"),
    "create": ("create", "Create instances from images"),
    "delete": ("lifecycle", "Delete instances and snapshots"),
    "doctor": ("doctor", "Look at this host: what is there, what is missing, what to do"),
    "exec": ("run", "Execute commands in instances"),
    "export": ("backup", "Export instance backups"),
    "file": ("file", "Manage files in instances"),
    "image": ("image", "Manage images"),
    "import": ("backup", "Import instance backups"),
    "info": ("info", "Show instance or server information"),
    "init": ("setup", "Set up the server, or create an instance"),
    "launch": ("create", "Create and start instances from images"),
    "list": ("list", "List instances"),
    "monitor": ("system", "Monitor the server"),
    "move": ("copy", "Move instances to another name, pool or project"),
    "network": ("network", "Manage networks"),
    "operation": ("system", "List, show and delete background operations"),
    "pause": ("lifecycle", "Pause instances"),
    "profile": ("profile", "Manage profiles"),
    "project": ("project", "Manage projects"),
    "publish": ("publish", "Publish instances as images"),
    "query": ("system", "Send a raw query to the server"),
    "recover": ("recover", "Bring back instances and volumes that are not known any more"),
    "rebuild": ("rebuild", "Rebuild instances"),
    "remote": ("remote", "Manage the list of remote servers"),
    "rename": ("lifecycle", "Rename instances and snapshots"),
    "restart": ("lifecycle", "Restart instances"),
    "restore": ("snapshot", "Restore instances from snapshots"),
    "resume": ("lifecycle", "Resume paused instances"),
    "share": ("share", "Share directories of the host with instances"),
    "shell": ("run", "Open a login shell in an instance"),
    "snapshot": ("snapshot", "Create snapshots of instances"),
    "start": ("lifecycle", "Start instances"),
    "stop": ("lifecycle", "Stop instances"),
    "storage": ("storage", "Manage storage pools"),
    "top": ("top", "Show what running instances use, live"),
    "tui": ("tui", "Open the full-screen app"),
    "unshare": ("share", "Stop sharing a directory with an instance"),
    "version": ("system", "Show local and remote versions"),
    "warning": ("warning", "Manage warnings"),
}
_ALIASES = {"ls": "list", "rm": "delete", "ack": "acknowledge"}


def main() -> int:
    """The console script. Never raises: errors are a line on stderr and status 1."""
    _open_standard()
    try:
        if _signal.getsignal(_signal.SIGINT) is _signal.SIG_DFL:  # the launcher's, for the time of the imports
            _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        code = run(sys.argv[1:])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _silence_stdout()
        return 141  # as the shell has it: 128 + SIGPIPE
    except KeyboardInterrupt:
        return 130
    except UsageError as error:
        print(f"Error: {error.message}", file=sys.stderr)
        return 1
    except ApiError as error:
        print(f"Error: {error}", file=sys.stderr)
        return int(getattr(error, "code", 1))
    except OSError as error:
        _settle_stdout()
        where = f"{error.filename}: " if error.filename else ""
        print(f"Error: {where}{error.strerror or error}", file=sys.stderr)
        return 1
    except UnicodeError as error:
        print(f"Error: the data is not text in the expected encoding ({error})", file=sys.stderr)
        return 1
    except RecursionError:
        print("Error: the document is nested too deeply", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("LXPY_DEBUG"):
            raise
        print(
            f"Error: unexpected {type(error).__name__} in lxpy ({error}): please report it; LXPY_DEBUG=1 shows more",
            file=sys.stderr,
        )
        return 1


def run(words: list[str]) -> int:
    """Run one command line and give its exit status. Raises `ApiError`."""
    leading: list[str] = []
    while words and words[0].startswith("-"):
        word = words[0]
        if word in ("-h", "--help"):
            sys.stdout.write(overview())
            return 0
        if word == "--version":
            sys.stdout.write(f"{lxpy.__version__}\n")
            return 0
        takes = 2 if word == "--project" else 1
        if takes > len(words):
            raise UsageError(f"flag needs an argument: {word}: try lxpy --help")
        if word.partition("=")[0] not in ("--project", "-q", "--quiet", "-v", "--verbose", "--debug", "--force-local"):
            raise UsageError(f"unknown flag: {word}: try lxpy --help")
        leading += words[:takes]
        words = words[takes:]
    if not words:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from lxpy.cli.tui import open_app

            return open_app()
        sys.stdout.write(overview())
        return 0
    if words[0] == "help":
        words = [*words[1:], "--help"]
        if len(words) == 1:
            sys.stdout.write(overview())
            return 0
    name = _ALIASES.get(words[0], words[0])
    if name not in COMMANDS:
        close = nearest(name, list(COMMANDS))
        hint = f"did you mean {' or '.join(close)}?" if close else "lxpy --help lists the commands"
        raise UsageError(f'unknown command "{words[0]}": {hint}')
    module = __import__(f"lxpy.cli.{COMMANDS[name][0]}", fromlist=["COMMANDS"])  # importlib itself costs 1 ms
    found = module.COMMANDS[name]
    path, rest = name, words[1:]
    while isinstance(found, dict):
        word = _ALIASES.get(rest[0], rest[0]) if rest else "--help"
        if word in ("-h", "--help", "help"):
            sys.stdout.write(_group_help(path, found))
            return 0
        if word not in found:
            close = nearest(word, list(found))
            hint = f"did you mean {' or '.join(close)}?" if close else f"try lxpy {path} --help"
            raise UsageError(f'unknown command "{word}" for "lxpy {path}": {hint}')
        found, path, rest = found[word], f"{path} {word}", rest[1:]
    return _invoke(found, path, [*leading, *rest])


def _invoke(command: Command, path: str, words: list[str]) -> int:
    try:
        args = parse(command, words)
        if args.flag("help"):
            sys.stdout.write(help_text(path, command))
            return 0
        context = Context(args.value("project"), args.flag("quiet"), args.flag("force-local"))
        return command.run(context, args) or 0
    except UsageError as error:
        error.message += f" (try lxpy {path} --help)"
        raise


def overview() -> str:
    """The list of commands."""
    width = max(map(len, COMMANDS))
    lines = ["lxpy manages system containers", "", "Usage:", "  lxpy COMMAND [flags]", "  lxpy", "", "Commands:"]
    lines += [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "Without a command, on a terminal, the full-screen app opens.", "lxpy COMMAND --help says more.", ""]
    return "\n".join(lines)


def _group_help(path: str, group: dict[str, Command]) -> str:
    width = max(map(len, group))
    lines = [COMMANDS[path][1] if path in COMMANDS else f"Commands of lxpy {path}", ""]
    lines += ["Usage:", f"  lxpy {path} COMMAND [flags]", "", "Commands:"]
    for name, command in group.items():
        summary = f"Commands of lxpy {path} {name}" if isinstance(command, dict) else command.summary
        lines.append(f"  {name:<{width}}  {summary}")
    return "\n".join([*lines, "", f"lxpy {path} COMMAND --help says more.", ""])


def _open_standard() -> None:
    """Closed standard descriptors become /dev/null: a socket of ours must never be taken for one of them."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Standard output is opened for reading: what is written to it is a fault, not lost in silence.
            null = os.open("/dev/null", os.O_WRONLY if number == 2 else os.O_RDONLY)
            if null != number:
                os.dup2(null, number)
                os.close(null)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)


def _settle_stdout() -> None:
    """What cannot be written (a full disk) is told of once, not again by the interpreter's end."""
    try:
        sys.stdout.flush()
    except OSError:
        _silence_stdout()


def _silence_stdout() -> None:
    # The interpreter flushes at exit and would complain once more.
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
