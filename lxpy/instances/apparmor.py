"""AppArmor profiles of instances: one for each kind of instance, not one for each instance.

A profile's name is a hash of its text, so that instances which want the same rules share it (pid and user namespaces
keep them apart), and only a ``raw.apparmor`` makes another. It is compiled once (a tenth of a second), kept in the
cache directory, loaded by writing the binary to the kernel: no launch forks for it.
"""

import asyncio
import contextlib
import functools
import hashlib
import os
import re
import subprocess
from collections.abc import AsyncIterator, Iterable

from lxpy.api import values
from lxpy.api.errors import BadRequest, InternalError
from lxpy.api.layout import Layout
from lxpy.api.objects import Config
from lxpy.host import probes
from lxpy.linux import apparmor

_COMPILE_SECONDS = 120  # an emulated machine needs 10

# Anything a whole system needs is allowed: it is meant to be one. What is denied belongs to the host, whoever asks:
# knobs of the kernel that no namespace has of its own. Most are refused to mapped users by their owners, too.
_RULES = """
  capability,
  dbus,
  file,
  network,
  umount,
  unix,
  pivot_root,
  mount,

  # From anywhere (the host's root stops and traces), to its own kind only.
  signal (receive),
  signal (send) peer="@NAME@",
  ptrace (readby, tracedby),
  ptrace (read, trace) peer="@NAME@",

  deny capability mac_admin,
  deny capability mac_override,
  deny capability sys_module,
  deny capability sys_rawio,
  deny capability sys_time,

  # The worst by their last names, so that mounting procfs or sysfs elsewhere is no way around.
  deny /{,**/}sysrq-trigger rwklx,
  deny /{,**/}proc/kcore rwklx,
  deny /{,**/}sys/kernel/{core_pattern,hotplug,modprobe,poweroff_cmd} wl,
  deny /{,**/}kernel/uevent_helper wl,
  deny /dev/{kmem,mem,port} rwklx,

  deny /proc/{acpi,bus,driver,irq,mtrr,scsi}{,/**} wl,
  deny /proc/{kmem,mem} rwklx,
  deny /proc/sys/{abi,debug,dev,vm}/** wl,
  # Not binfmt_misc and mqueue, which have namespaces.
  deny /proc/sys/fs/{[^bm]**,mount-max} wl,
  # Not domainname, hostname, msg*, ns_last_pid, pid_max, sem*, shm*, which have.
  deny /proc/sys/kernel/[^dhmnps]** wl,
  deny /proc/sys/kernel/{debug,dmesg,hard,hung,hw,max_,mod,ngroups,nmi,numa}* wl,
  deny /proc/sys/kernel/{panic,perf,print,prove}* wl,
  deny /proc/sys/kernel/{pty,seccomp}/** wl,
  deny /proc/sys/kernel/{sched,soft,spin,split,stack,sysctl,sysrq}* wl,
  deny /sys/{block,bus,dev,firmware,hypervisor,module,power}/** wl,
  deny /sys/fs/{btrfs,erofs,ext4,f2fs,pstore,resctrl,xfs}/** wl,
  deny /sys/kernel/** wl,
"""
# Root of a privileged instance is the host's: file systems of the kernel's inside must not appear. (The new mount
# calls are seen by AppArmor from Linux 6.7 on only.)
_PRIVILEGED = """
  deny mount fstype=debugfs,
  deny mount fstype=tracefs,
  deny mount fstype=securityfs,
  deny mount fstype=configfs,
  deny mount fstype=efivarfs,
  deny mount fstype=pstore,
"""
# Without nesting, /proc and /sys stay the only ones of their kind, as they were made. (`deny remount` does nothing with
# the parser of Debian 12.)
_NOT_NESTED = """
  deny mount fstype=proc -> /{[^p]**,p[^r]**,pr[^o]**,pro[^c]**,proc?*/**,proc[^/]*,proc/?**},
  deny mount fstype=sysfs -> /{[^s]**,s[^y]**,sy[^s]**,sys[^/]*,sys/?**},
  deny mount -> /proc/sys/,
  deny mount -> /proc/sysrq-trigger,
  deny mount -> /sys/,
"""


def text(config: Config, name: str) -> str:
    """The profile of an instance in AppArmor's language.

    Args:
        config: expanded configuration.
        name: of the profile.
    """
    rules = _RULES
    if values.boolean("security.privileged", config.get("security.privileged") or "false"):
        rules += _PRIVILEGED
        if not values.boolean("security.nesting", config.get("security.nesting") or "false"):
            rules += _NOT_NESTED
    if raw := config.get("raw.apparmor"):
        rules += f"\n  # raw.apparmor\n{raw.rstrip()}\n"
    # Mounts that came from outside its mount namespace have paths without a beginning: taken for /...
    head = f'profile "{name}" flags=(attach_disconnected, mediate_deleted) {{'
    return f"{head}{rules}}}\n".replace("@NAME@", name)


def check_raw(key: str, value: str) -> str:
    """Raises `BadRequest` when a ``raw.apparmor`` cannot be honoured: no AppArmor, or rules that do not parse."""
    if reason := probes.apparmor_off():
        raise BadRequest(f"{key} cannot be honoured: {reason}")
    if said := _fault(value):
        raise BadRequest(f"Invalid value for {key}: {said}")
    return value


@functools.lru_cache(64)
def _fault(raw: str) -> str:
    # The daemon waits for it, once for each value that is ever tried.
    try:
        compiled(text({"raw.apparmor": raw}, "lxpy_check"), "lxpy_check")
    except InternalError as error:
        return error.message
    return ""


class Profiles:
    """The profiles of one daemon's instances in the kernel."""

    def __init__(self, layout: Layout) -> None:
        self._prefix = f"{layout.cgroup_prefix}_"
        self._cache = f"{layout.cache}/apparmor"
        self._places: dict[str, str] = {}  # name to the directory that shows that the kernel has it
        self._locks: dict[str, asyncio.Lock] = {}
        self._starting: list[str] = []
        self.off: str | None = None  # why, once it has been looked at

    def name(self, config: Config) -> str:
        """Of the profile that an instance gets."""
        return self._prefix + hashlib.sha256(text(config, self._prefix).encode()).hexdigest()[:12]

    @contextlib.asynccontextmanager
    async def ready(self, config: Config) -> AsyncIterator[str]:
        """The loaded profile for a start, kept at least as long as the body runs; empty when there is no AppArmor.

        Raises:
            BadRequest: the configuration has a ``raw.apparmor`` and there is no AppArmor.
            InternalError: it cannot be compiled or loaded; the line says how to do without.
        """
        if self.off is None:
            self.off = probes.apparmor_off()
        if self.off:
            if config.get("raw.apparmor"):
                raise BadRequest(f"raw.apparmor cannot be honoured: {self.off}")
            yield ""
            return
        name = self.name(config)
        self._starting.append(name)
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                if not os.path.exists(self._places.get(name, "")):
                    await self._load(name, config)
            yield name
        finally:
            self._starting.remove(name)

    async def _load(self, name: str, config: Config) -> None:
        self._places = apparmor.loaded(self._prefix)
        if name in self._places:  # by an earlier daemon: the name is the text
            return
        path = f"{self._cache}/{name}.{_host_key()}"
        try:
            with open(path, "rb") as file:
                apparmor.load(file.read())
        except OSError:  # not there, or the kernel does not want it any more
            binary = await asyncio.to_thread(compiled, text(config, name), name)
            await asyncio.to_thread(self._keep, path, binary)
            try:
                apparmor.load(binary)
            except OSError as error:
                raise InternalError(f"The kernel refuses the AppArmor profile {name}: {error.strerror}{_WAY}") from None
        self._places = apparmor.loaded(self._prefix)

    def _keep(self, path: str, binary: bytes) -> None:
        os.makedirs(self._cache, mode=0o700, exist_ok=True)
        with open(f"{path}.new", "wb") as file:
            file.write(binary)
            file.flush()
            os.fsync(file.fileno())
        os.rename(f"{path}.new", path)

    def sweep(self, wanted: Iterable[Config]) -> None:
        """Removes profiles of ours that no instance wants and no process has, from the kernel and from the cache.

        Args:
            wanted: the configurations of all instances.
        """
        if probes.apparmor_off():
            return
        used = {*self._starting, *(self.name(config) for config in wanted)}
        if stale := apparmor.loaded(self._prefix).keys() - used:
            # To remove one that a process runs under would set it free.
            labels = [apparmor.label(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()]
            for name in stale:
                if not any(name in label for label in labels):
                    with contextlib.suppress(OSError):
                        apparmor.remove(name)
        with contextlib.suppress(FileNotFoundError):
            key = _host_key()
            for entry in os.listdir(self._cache):
                name, _, made_for = entry.partition(".")
                if name not in used or made_for != key:
                    os.unlink(f"{self._cache}/{entry}")


_WAY = "; LXPY_SECURITY_APPARMOR=false for lxpyd does without"


def compiled(source: str, name: str) -> bytes:
    """The binary for this kernel. Raises `InternalError` with the parser's own line."""
    parser = probes.which("apparmor_parser")
    if not parser:
        raise InternalError(f"apparmor_parser is missing (apt install apparmor){_WAY}")
    command = [parser, "--skip-kernel-load", "--skip-cache", "--stdout"]
    try:
        done = subprocess.run(
            command, input=source.encode(), capture_output=True, timeout=_COMPILE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise InternalError(f"apparmor_parser took more than {_COMPILE_SECONDS} s for {name}{_WAY}") from None
    if done.returncode != 0 or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        # The line number is of a text that nobody has seen.
        raise InternalError(f"apparmor_parser refuses it: {re.sub('^AppArmor.* line [0-9]+: ', '', lines[-1])}")
    return done.stdout


def _host_key() -> str:
    """What a compiled profile depends on beside its text: kernel and parser."""
    parser = probes.which("apparmor_parser")
    stamp = os.stat(parser) if parser else None
    facts = (
        f"{os.uname().release} {os.uname().version} {stamp.st_size if stamp else 0} {stamp.st_mtime if stamp else 0}"
    )
    return hashlib.sha256(facts.encode()).hexdigest()[:12]
