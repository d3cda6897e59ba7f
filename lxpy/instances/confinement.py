"""What holds a guest in beyond what holds every guest: system calls, kernel settings, modules, and ``raw.lxc``."""

import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.api.objects import Config
from lxpy.instances import limits
from lxpy.linux import caps, syscallpolicy
from lxpy.runtime.spec import InstanceSpec

# Settings that belong to a namespace of the instance (ipc/ipc_sysctl.c, ipc/mq_sysctl.c, net/): the rest is the host's.
_OWN = re.compile(r"(net[./].+|kernel[./](msg\w+|sem|shm\w+|domainname)|fs[./]mqueue[./].+)\Z")
_MODULE = re.compile(r"[A-Za-z0-9_-]{1,60}\Z")
_SYSCALLS = "security.syscalls."


# -- system calls ------------------------------------------------------------------------------------------------------


def check_syscalls(key: str, value: str) -> str:
    """Raises `BadRequest` for a list that names what does not exist."""
    try:
        syscallpolicy.parse(value)
        syscallpolicy.program(syscallpolicy.Policy())
    except ValueError as error:
        raise BadRequest(f"Invalid value for {key}: {error}") from None
    return value


def check_together(config: Config) -> None:
    """Raises `BadRequest` for keys that exclude each other, in expanded configuration."""
    if config.get(f"{_SYSCALLS}allow"):
        for name in ("deny", "deny_compat", "deny_default"):
            if config.get(_SYSCALLS + name) and (name == "deny" or _true(config, _SYSCALLS + name)):
                raise BadRequest(f"Both {_SYSCALLS}allow and {_SYSCALLS}{name}: what is not allowed is denied anyway")


def _true(config: Config, key: str, default: str = "false") -> bool:
    return values.boolean(key, config.get(key) or default)


def policy(config: Config) -> syscallpolicy.Policy | None:
    """The filter that the keys ask for; None where they ask for nothing but the usual one."""
    allow, deny = config.get(f"{_SYSCALLS}allow", ""), config.get(f"{_SYSCALLS}deny", "")
    usual = _true(config, f"{_SYSCALLS}deny_default", "true")
    compat = not _true(config, f"{_SYSCALLS}deny_compat")
    if allow:
        return syscallpolicy.Policy(usual=False, allow=frozenset(syscallpolicy.parse(allow)))
    if not deny and usual and compat:
        return None
    return syscallpolicy.Policy(usual=usual, deny=syscallpolicy.parse(deny), compat=compat)


# -- kernel settings and modules ---------------------------------------------------------------------------------------


def check_sysctl(key: str, value: str) -> str:
    """Raises `BadRequest` for a setting that is no instance's own."""
    name = key.removeprefix("linux.sysctl.")
    if ".." in name or name.startswith((".", "/")) or not re.fullmatch(r"[\w./:-]+", name):
        raise BadRequest(f"Invalid configuration key {key!r}: no name of a kernel setting")
    if not _OWN.match(name):
        raise BadRequest(
            f"Configuration key {key!r} is not supported: {name} belongs to the whole host; set it there (sysctl -w). "
            "An instance has net.*, kernel.msg*, kernel.sem, kernel.shm*, kernel.domainname and fs.mqueue.* of its own"
        )
    if "\0" in value or "\n" in value:
        raise BadRequest(f"Invalid value for {key}: it holds more than one line")
    return value


def check_modules(key: str, value: str) -> str:
    """Raises `BadRequest`."""
    for name in _listed(value):
        if not _MODULE.match(name):
            raise BadRequest(f"Invalid value for {key}: {name!r} is no name of a kernel module")
    return value


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def load_modules(config: Config) -> None:
    """Loads what ``linux.kernel_modules`` names into the host's kernel; blocking.

    Raises:
        BadRequest: one that cannot be loaded.
    """
    for name in _listed(config.get("linux.kernel_modules", "")):
        if os.path.isdir(f"/sys/module/{name.replace('-', '_')}"):
            continue
        program = shutil.which("modprobe", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if program is None:
            raise BadRequest(f"linux.kernel_modules={name} cannot be loaded: this host has no modprobe (package kmod)")
        done = subprocess.run(
            [program, "-b", "--", name],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:] or [f"modprobe ended with {done.returncode}"]
            raise BadRequest(f"linux.kernel_modules={name} cannot be loaded: {said[0]}")


# -- raw.lxc -----------------------------------------------------------------------------------------------------------

_INSTEAD = {
    "lxc.apparmor.": "raw.apparmor adds rules to its profile",
    "lxc.aa_": "raw.apparmor adds rules to its profile",
    "lxc.cgroup.devices.": "give the device file by a unix-char or unix-block device",
    "lxc.cgroup2.devices.": "give the device file by a unix-char or unix-block device",
    "lxc.cgroup.": "use the limits.* keys",
    "lxc.cgroup2.": "use the limits.* keys",
    "lxc.hook.": "no programs of the host are run for an instance; lxpy monitor tells of what happens to it",
    "lxc.id_map": "use raw.idmap",
    "lxc.idmap": "use raw.idmap",
    "lxc.mount.": "use a disk device",
    "lxc.net.": "use a nic device",
    "lxc.network.": "use a nic device",
    "lxc.rootfs.": "the pool says where and how the root lies",
    "lxc.seccomp.": "use security.syscalls.deny or security.syscalls.allow",
    "lxc.selinux.": "lxpy sets no SELinux labels",
    "lxc.signal.": "systemd is stopped by SIGRTMIN+3 and every other init by SIGPWR",
    "lxc.start.": "use boot.autostart",
    "lxc.uts.name": "the host name is the instance's name",
}


@dataclass(frozen=True)
class Raw:
    """What a ``raw.lxc`` comes to.

    Attributes:
        config: the same by keys of lxpy.
        drop: numbers of capabilities that it has not.
        init: the program to start; empty for the usual one.
    """

    config: Config = field(default_factory=dict)
    drop: list[int] = field(default_factory=list)
    init: list[str] = field(default_factory=list)


def raw_lxc(value: str) -> Raw:
    """Translates what has a meaning here. Raises `BadRequest` for the rest, with what to use instead."""
    config: Config = {}
    drop: list[int] = []
    init: list[str] = []
    for line in value.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        key, equals, wanted = (part.strip() for part in line.partition("="))
        if not equals:
            raise BadRequest(f"Invalid value for raw.lxc: {line!r} is no line of the form lxc.KEY = VALUE")
        if key.startswith("lxc.prlimit."):
            config[f"limits.kernel.{key.removeprefix('lxc.prlimit.')}"] = wanted
            limits.check_rlimit(f"limits.kernel.{key.removeprefix('lxc.prlimit.')}", wanted)
        elif key.startswith("lxc.sysctl."):
            config[f"linux.sysctl.{key.removeprefix('lxc.sysctl.')}"] = wanted
            check_sysctl(f"linux.sysctl.{key.removeprefix('lxc.sysctl.')}", wanted)
        elif key == "lxc.environment" and "=" in wanted:
            name, _, text = wanted.partition("=")
            config[f"environment.{name.strip()}"] = text
        elif key == "lxc.cap.drop":
            drop += _capabilities(wanted)
        elif key in ("lxc.init.cmd", "lxc.init_cmd"):
            init = shlex.split(wanted)
            if not init or not init[0].startswith("/"):
                raise BadRequest(f"Invalid value for raw.lxc: {key} needs the whole path of a program inside")
        else:
            hint = next((words for name, words in _INSTEAD.items() if key.startswith(name)), "")
            raise BadRequest(
                f"{key} in raw.lxc is not supported: {hint or 'lxpy does without liblxc'} (raw.lxc may have "
                "lxc.prlimit.*, lxc.sysctl.*, lxc.environment, lxc.cap.drop and lxc.init.cmd)"
            )
    return Raw(config, drop, init)


def _capabilities(text: str) -> list[int]:
    found = []
    for name in text.split():
        try:
            found.append(caps.NAMES.index(name.lower().removeprefix("cap_")))
        except ValueError:
            raise BadRequest(f"Invalid value for raw.lxc: there is no capability {name!r}") from None
    return found


def check_raw(key: str, value: str) -> str:
    """Raises `BadRequest` for a ``raw.lxc`` that cannot be translated whole."""
    del key
    raw_lxc(value)
    return value


def effective(config: Config) -> Config:
    """Expanded configuration with what its ``raw.lxc`` says, which comes last as in LXD."""
    return {**config, **raw_lxc(config["raw.lxc"]).config} if config.get("raw.lxc") else config


def prepare(config: Config, spec: InstanceSpec) -> None:
    """Puts into a spec what the (effective) configuration asks for."""
    confine = spec.setdefault("confine", {})
    if wanted := policy(config):
        confine["seccomp"] = syscallpolicy.program(wanted).hex()
        confine["refuses"] = syscallpolicy.described(wanted)
    if config.get("raw.lxc"):
        raw = raw_lxc(config["raw.lxc"])
        if raw.drop:
            confine["drop"] = raw.drop
        spec["init"] = raw.init or spec["init"]
    if (idmap := spec["idmap"]) and "uids" in idmap:
        confine["uids"], confine["gids"] = idmap["uids"], idmap["gids"]
    if not confine:
        del spec["confine"]
    prefix = "linux.sysctl."
    if sysctls := {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}:
        spec["sysctls"] = sysctls
