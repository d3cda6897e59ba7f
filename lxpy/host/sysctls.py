"""The host's limits that many containers run into, and raising them: what `doctor --fix` and the wizard share."""

import contextlib
import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

CONF = "/etc/sysctl.d/60-lxpy.conf"  # read at boot by systemd-sysctl and by procps
_HEADER = "# Limits that lxpy raised. `# was` is what was found; deleting this file takes them back at the next boot.\n"


class Sysctl(NamedTuple):
    """Attributes:
    name: as `sysctl` spells it.
    wanted: below this it is worth raising.
    why: what runs out.
    """

    name: str
    wanted: int
    why: str


class Found(NamedTuple):
    """A sysctl and its value now; None where this kernel (or this namespace) has no such limit."""

    sysctl: Sysctl
    value: int | None

    @property
    def low(self) -> bool:
        return self.value is not None and self.value < self.sysctl.wanted


class Change(NamedTuple):
    """What was done to one sysctl; `error` is the kernel's reason where it refused (then nothing was changed)."""

    name: str
    before: int
    after: int
    error: str = ""


# Numbers: LXD's production guide for keys, neighbours and maps; what 100 Debian containers use (8 inotify instances and
# 13 keys each, charged to the user id that owns them) with room for ten times that.
WANTED = (
    Sysctl("fs.inotify.max_user_instances", 1024, "systemd takes 8 inotify instances per container"),
    Sysctl("fs.inotify.max_user_watches", 524288, "files watched by all containers of one user id"),
    Sysctl("kernel.keys.maxkeys", 2000, "systemd takes 13 kernel keys per container"),
    Sysctl("kernel.keys.maxbytes", 2000000, "the contents of those keys"),
    Sysctl("kernel.pid_max", 131072, "processes of the host and all containers together"),
    Sysctl("kernel.pty.max", 4096, "consoles and interactive execs"),
    Sysctl("net.ipv4.neigh.default.gc_thresh3", 8192, "IPv4 neighbours of all bridges and containers together"),
    Sysctl("net.ipv6.neigh.default.gc_thresh3", 8192, "IPv6 neighbours of all bridges and containers together"),
    Sysctl("vm.max_map_count", 262144, "memory maps of one process (databases and search engines)"),
)


def read(name: str) -> int | None:
    """The value now; None where there is no such number."""
    try:
        with open(_path(name), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def found(table: Iterable[Sysctl] = WANTED) -> list[Found]:
    """Each sysctl with its value; well under a millisecond."""
    return [Found(one, read(one.name)) for one in table]


def raise_low(table: Iterable[Sysctl] = WANTED, conf: str = CONF) -> list[Change]:
    """Raises what is below the wanted value, now and for the boots to come. Nothing is ever lowered. Needs root.

    Args:
        table: what to look at.
        conf: the file of sysctl.d that keeps what was changed; what it holds already stays.

    Returns:
        One entry per sysctl that was low, those the kernel refused among them (with its reason).

    Raises:
        OSError: `conf` cannot be written; the values are as they were before.
    """
    changes: list[Change] = []
    with contextlib.ExitStack() as undo:
        for sysctl, value in found(table):
            if value is None or value >= sysctl.wanted:
                continue
            try:
                _write(sysctl.name, sysctl.wanted)
            except OSError as error:
                changes.append(Change(sysctl.name, value, value, error.strerror or str(error)))
                continue
            undo.callback(_write, sysctl.name, value)
            changes.append(Change(sysctl.name, value, sysctl.wanted))
        if done := {one.name: (one.before, one.after) for one in changes if not one.error}:
            kept = _kept(conf)
            # The oldest value is the one that was there before lxpy.
            _save(conf, kept | {name: (kept.get(name, both)[0], both[1]) for name, both in done.items()})
        undo.pop_all()
    return changes


def state(table: Iterable[Sysctl] = WANTED, conf: str = CONF) -> dict[str, Any]:
    """What `raise_low` would change, as it is now, for `restore`; it can be kept as JSON."""
    try:
        with open(conf, encoding="utf-8") as file:
            text: str | None = file.read()
    except FileNotFoundError:
        text = None
    return {"values": {one.sysctl.name: one.value for one in found(table) if one.low}, "conf": text}


def restore(state: dict[str, Any], table: Iterable[Sysctl] = WANTED, conf: str = CONF) -> None:
    """Takes one `raise_low` back: values that are still what it sets, and its file.

    Raises:
        OSError: the kernel or the file system refuses.
    """
    wanted = {one.name: one.wanted for one in table}
    for name, value in state["values"].items():
        if read(name) == wanted.get(name):
            _write(name, value)
    if state["conf"] is not None:
        with open(f"{conf}.new", "w", encoding="utf-8") as file:
            file.write(state["conf"])
        os.rename(f"{conf}.new", conf)
    else:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(conf)


def undo(conf: str = CONF) -> list[Change]:
    """Takes back what `raise_low` did: the file goes, and each value that is still ours becomes what it was.

    Raises:
        OSError: the file cannot be removed.
    """
    changes = []
    for name, (before, after) in _kept(conf).items():
        if read(name) == after:
            try:
                _write(name, before)
                changes.append(Change(name, after, before))
            except OSError as error:
                changes.append(Change(name, after, after, error.strerror or str(error)))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(conf)
    return changes


def _kept(conf: str) -> dict[str, tuple[int, int]]:
    """Of our file: name to (value before, value set)."""
    try:
        with open(conf, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    lines = re.findall(r"^([\w.]+) = (\d+)\n# was (\d+)$", text, re.MULTILINE)
    return {name: (int(before), int(after)) for name, after, before in lines}


def _save(conf: str, values: dict[str, tuple[int, int]]) -> None:
    os.makedirs(os.path.dirname(conf), exist_ok=True)
    with open(f"{conf}.new", "w", encoding="utf-8") as file:
        file.write(_HEADER)
        file.writelines(f"{name} = {after}\n# was {before}\n" for name, (before, after) in sorted(values.items()))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{conf}.new", conf)


def _path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def _write(name: str, value: int) -> None:
    # Unbuffered: a refusal must come from here, not from the closing of the file.
    with open(_path(name), "wb", buffering=0) as file:
        file.write(b"%d" % value)
