"""file: push, pull, edit, delete, create, mount."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, run_editor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.client.client import Client
    from lxpy.client.files import Files, Owner

_PLACE = "[<remote>:]<instance>/<path>"
_OWNER = (
    Option("--uid", "UID", "Owner inside the instance"),
    Option("--gid", "GID", "Group inside the instance"),
    Option("--mode", "MODE", "Permissions, in octal"),
)
_PARENTS = Option("-p --create-dirs", help="Create any directories necessary")
_RECURSIVE = Option("-r --recursive", help="Recursively transfer files")
_MUCH = 8 << 20  # bytes from which on progress is worth showing


def place(context: Context, ref: str) -> tuple[Client, str, str]:
    """``[remote:]instance/path`` as client, instance and absolute path. Raises `UsageError`."""
    client, rest = context.resolve(ref)
    name, slash, path = rest.partition("/")
    if not name or not slash:
        raise UsageError(f"{ref!r} names no file of an instance: write {_PLACE}")
    return client, name, f"/{path}"


class _Opened:
    """The files of the instances of one command, each opened once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._files: dict[tuple[str, str], Files] = {}

    def at(self, ref: str) -> tuple[Files, str]:
        from lxpy.client.files import open_files

        client, name, path = place(self._context, ref)
        key = (client.remote.name, name)
        if key not in self._files:
            self._files[key] = open_files(client, name)
        return self._files[key], path


def _owner(args: Args) -> Owner:
    from lxpy.client.files import Owner

    def number(key: str, base: int, high: int) -> int | None:
        text = args.value(key)
        if not text or text == "-1":
            return None
        try:
            value = int(text, base)
        except ValueError:
            value = -1
        if not 0 <= value < high:
            what = "a mode in octal, such as 0644" if key == "mode" else "the number of a user or group"
            raise UsageError(f"--{key} takes {what}, not {text!r}")
        return value

    return Owner(number("uid", 10, (1 << 32) - 1), number("gid", 10, (1 << 32) - 1), number("mode", 8, 0o10000))


class _Meter:
    """Shows how much has been moved, once that is much."""

    def __init__(self, context: Context, label: str) -> None:
        self._context, self._label, self._moved, self._next = context, label, 0, _MUCH

    def __call__(self, count: int) -> None:
        self._moved += count
        if self._moved >= self._next:
            self._next = self._moved + _MUCH
            self._context.show(f"{self._label}: {self._moved >> 20} MiB")


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _push(context: Context, args: Args) -> None:
    from lxpy.client.files import Owner

    *sources, target = args.rest
    owner = _owner(args)
    files, path = _Opened(context).at(target)
    meter = _Meter(context, "Pushing")
    recursive, parents = args.flag("recursive"), args.flag("create-dirs")
    folder = path.endswith("/")
    kind = files.kind(path)
    into = recursive or folder or len(sources) > 1 or kind == "directory"
    if kind not in ("directory", "") and into:
        raise BadRequest(f"{files.name}{path} is no directory")
    if into and not kind:
        if not parents:
            raise NotFound(f"{files.name}{path} is not there: -p makes the directories that are missing")
        files.mkdir(path, Owner(owner.uid, owner.gid), parents=True)
    elif not into and parents and (above := path.rpartition("/")[0]):
        files.mkdir(above, Owner(owner.uid, owner.gid), parents=True)
    try:
        _push_all(sources, files, path, into, recursive, owner, meter)
        files.settle()
    except NotFound as error:
        if into or parents or files.kind(path.rpartition("/")[0] or "/"):
            raise
        raise NotFound(f"{error}: -p makes the directories that are missing") from None
    context.clear()


def _push_all(
    sources: list[str], files: Files, path: str, into: bool, recursive: bool, owner: Owner, meter: _Meter
) -> None:  # fmt: skip
    from lxpy.client.files import push_tree

    for source in sources:
        if source == "-":
            if into:
                raise UsageError("standard input has no name: give the whole path of the file that it becomes")
            files.write(path, 0, owner, meter)
            continue
        inner = f"{path.rstrip('/')}/{_base(os.path.abspath(source))}" if into else path
        with _Ours(source) as fd:
            status = os.fstat(fd)
            if os.path.isdir(f"/proc/self/fd/{fd}"):
                if not recursive:
                    raise BadRequest(f"{source} is a directory: -r pushes it with all that is in it")
                push_tree(files, source, inner, owner, _tell, meter)
            else:
                files.write(inner, fd, owner.like(status), meter)


class _Ours:
    """A file of ours, open to be read."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


def _pull(context: Context, args: Args) -> None:
    from lxpy.client.files import pull_file, pull_tree

    *sources, target = args.rest
    opened, recursive = _Opened(context), args.flag("recursive")
    meter = _Meter(context, "Pulling")
    into = os.path.isdir(target) or target.endswith("/") or len(sources) > 1
    if into and not os.path.isdir(target):
        if not args.flag("create-dirs"):
            raise NotFound(f"{target} is no directory: -p makes the directories that are missing")
        os.makedirs(target)
    elif args.flag("create-dirs") and target != "-":
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    for source in sources:
        files, path = opened.at(source)
        if target == "-":
            sys.stdout.flush()
            files.read(path, 1)
            continue
        if recursive and files.stat(path, follow=True).type == "directory":
            # As LXD: below a directory that is there, in one that is made otherwise.
            name = _base(path)
            base = target.rstrip("/") or "/"
            pull_tree(files, path, f"{base}/{name}" if into and name else base, _tell, meter)
            continue
        place_of_ours = f"{target.rstrip('/') or ''}/{_base(path)}" if into else target
        try:
            pull_file(files, path, place_of_ours, meter)
        except BadRequest:
            if files.kind(path) == "directory":
                raise BadRequest(f"{files.name}{path} is a directory: -r pulls it with all that is in it") from None
            raise
    context.clear()


def _delete(context: Context, args: Args) -> None:
    opened = _Opened(context)
    for ref in args.rest:
        files, path = opened.at(ref)
        try:
            files.delete(path, args.flag("force"))
        except Conflict:
            if not args.flag("force"):
                raise Conflict(f"{files.name}{path} is not empty: -f deletes it with all that is in it") from None
            raise


def _create(context: Context, args: Args) -> None:
    files, path = _Opened(context).at(args.rest[0])
    owner, kind = _owner(args), args.value("type") or ("directory" if path.endswith("/") else "file")
    if kind not in ("file", "directory", "symlink"):
        raise UsageError(f"--type takes file, directory or symlink, not {kind!r}")
    if (kind == "symlink") != (len(args.rest) == 2):
        raise UsageError("a symlink, and nothing else, takes a second argument: where it leads")
    path = path.rstrip("/")
    if not path:
        raise UsageError("/ is there already")
    from lxpy.client.files import Owner

    if args.flag("create-dirs") and (above := path.rpartition("/")[0]):
        files.mkdir(above, Owner(owner.uid, owner.gid), parents=True)
    if not args.flag("force"):
        try:
            there = files.stat(path).type
        except NotFound:
            there = ""
        if there:
            raise Conflict(f"{files.name}{path} is there already ({there}): -f replaces a file or link")
    if kind == "directory":
        files.mkdir(path, owner)
    elif kind == "symlink":
        files.symlink(path, args.rest[1], owner)
    else:
        files.write(path, b"", owner)
    files.settle()


def _edit(context: Context, args: Args) -> None:
    from lxpy.client.files import Owner

    files, path = _Opened(context).at(args.rest[0])
    if not sys.stdin.isatty():
        files.stat(path, follow=True)
        files.write(path, 0, Owner())
        files.settle()
        return
    import tempfile

    suffix = "." + _base(path).rpartition(".")[2] if "." in _base(path) else ""
    with tempfile.NamedTemporaryFile("w+b", suffix=suffix, prefix="lxpy-") as file:
        files.read(path, file.fileno())
        before = os.stat(file.name).st_mtime_ns
        run_editor(file.name)
        with _Ours(file.name) as fd:  # by name: editors replace the file
            if os.fstat(fd).st_mtime_ns != before:
                files.write(path, fd, Owner())
                files.settle()


def _mount(context: Context, args: Args) -> int:
    from lxpy.client import sftp

    client, name, path = place(context, args.rest[0] if "/" in args.rest[0] else f"{args.rest[0]}/")
    if len(args.rest) == 2:
        for option in ("listen", "no-auth", "auth-user"):
            if args.flag(option):
                raise UsageError(f"--{option} is for serving over SSH: leave the target path out")
        target = args.rest[1]
        if not os.path.isdir(target):
            raise NotFound(f"{target} is no directory: it is where the files are to appear")
        sftp.find_path(client, name, path)
        context.say(f"Mounted {name}{path} on {target}; Ctrl-C, or umount, ends it")
        return sftp.mount(client, name, path, target)
    if path != "/":
        raise UsageError(f"{path} has no target path to appear at: over SSH the whole instance is served, named alone")
    return _serve(context, args, client, name)


def _serve(context: Context, args: Args, client: Client, name: str) -> int:
    import secrets

    from lxpy.client import sftp, sshd
    from lxpy.client.files import open_files

    host, _, port = (args.value("listen") or "127.0.0.1:0").rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen takes ADDRESS:PORT, not {args.value('listen')!r}")
    if args.flag("no-auth") and args.flag("auth-user"):
        raise UsageError("--no-auth lets everybody in, whatever the name: leave --auth-user out")
    open_files(client, name).close()  # an error now, not at the first login
    user = args.value("auth-user") or secrets.token_hex(4)
    password = None if args.flag("no-auth") else secrets.token_urlsafe(12)

    def ready(port: int) -> None:
        context.say(f"SSH SFTP listening on {host}:{port}")
        if password is None:
            context.say("Everybody who can reach it may log in, as root of the instance's files")
        else:
            context.say(f"Login with username {user!r} and password {password!r}")

    host = host.removeprefix("[").removesuffix("]")
    sshd.serve(lambda: sftp.connect(client, name), host, int(port), user, password, ready)
    return 0


def _command(
    run: Callable[[Context, Args], int | None], usage: str, summary: str, options: tuple[Option, ...], low: int,
    high: int | None, text: str = "",
) -> Command:  # fmt: skip
    return Command(run, usage, summary, options, low, high, text)


_FILE = {
    "create": _command(
        _create, f"{_PLACE} [<symlink target>]", "Create files and directories in instances",
        (Option("--type", "TYPE", "file, directory or symlink (a path that ends in / is a directory)"),
         _PARENTS, Option("-f --force", help="Replace a file or link that is there"), *_OWNER), 1, 2,
    ),
    "delete": _command(
        _delete, f"{_PLACE}...", "Delete files in instances",
        (Option("-f --force", help="Delete directories with all that is in them"),), 1, None,
    ),
    "edit": _command(
        _edit, _PLACE, "Edit files in instances", (), 1, 1,
        "Opens the file in $EDITOR; with standard input that is no terminal, that is its new content.",
    ),
    "mount": _command(
        _mount, "[<remote>:]<instance>[/<path>] [<target path>]", "Mount files from instances",
        (Option("--listen", "ADDRESS:PORT", "Serve SFTP over SSH there (default 127.0.0.1, any port)"),
         Option("--no-auth", help="Let everybody in who can reach it"),
         Option("--auth-user", "NAME", "Name to log in with (made up by default)")), 1, 2,
        "With a target path the files are mounted there by sshfs until Ctrl-C. Without, they are served as SFTP\n"
        "over SSH, for which the Python package asyncssh has to be installed beside lxpy.",
    ),
    "pull": _command(
        _pull, f"{_PLACE}... <target path>", "Pull files from instances", (_PARENTS, _RECURSIVE), 2, None,
        "The target - is standard output.",
    ),
    "push": _command(
        _push, f"<source path>... {_PLACE}", "Push files into instances", (_PARENTS, _RECURSIVE, *_OWNER), 2, None,
        "The source - is standard input. A new file takes owner and mode of the source,\n"
        "one that is there keeps its own; --uid, --gid and --mode hold for both.",
    ),
}  # fmt: skip

COMMANDS = {"file": _FILE}
