"""AppArmor: which profiles the kernel holds, loading and removing compiled ones, and entering one at an exec.

The files are those of securityfs (security/apparmor/apparmorfs.c) and of ``/proc/PID/attr/apparmor``.
"""

import os

_CONTROL = "/sys/kernel/security/apparmor"
_PROFILES = f"{_CONTROL}/policy/profiles"


def enabled() -> bool:
    """Whether the kernel confines by AppArmor (true inside another system's container, too)."""
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as file:
            return file.read().strip() == "Y"
    except OSError:
        return False


def controllable() -> bool:
    """Whether profiles can be loaded from here: securityfs is mounted and its files may be written."""
    return os.access(f"{_CONTROL}/.replace", os.W_OK) and os.path.isdir(_PROFILES)


def loaded(prefix: str) -> dict[str, str]:
    """The profiles whose names begin with `prefix`, each with the directory that exists for as long as it is loaded."""
    try:
        entries = os.listdir(_PROFILES)
    except OSError:
        return {}
    # The kernel makes a directory's name of the profile's and a number: lxpy_1a2b.37
    return {name.rpartition(".")[0]: f"{_PROFILES}/{name}" for name in entries if name.startswith(prefix)}


def load(binary: bytes) -> None:
    """Loads what apparmor_parser has compiled, in the place of a profile of the same name."""
    _control(".replace", binary)


def remove(name: str) -> None:
    """Removes a profile; processes that run under it become unconfined. None of that name is no error."""
    try:
        # The kernel wants the name as C writes it.
        _control(".remove", name.encode() + b"\0")
    except FileNotFoundError:
        pass


def _control(name: str, data: bytes) -> None:
    # One write, unbuffered: the kernel takes a whole profile at once and refuses it there.
    fd = os.open(f"{_CONTROL}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, data)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{_CONTROL}/{name}") from None
    finally:
        os.close(fd)


def label(pid: int) -> str:
    """The profile that a process runs under; empty when it is unconfined, gone, or there is no AppArmor."""
    try:
        with open(f"/proc/{pid}/attr/apparmor/current", encoding="utf-8", errors="replace") as file:
            text = file.read().strip("\n\0")
    except OSError:
        return ""
    name = text.rpartition(" (")[0] if text.endswith(")") else text
    return "" if name == "unconfined" else name


def open_exec(proc: int) -> int:
    """What `at_exec` writes to.

    Args:
        proc: descriptor of a directory of procfs that shows this process; never the guest's own, which may be a fake.
    """
    return os.open("thread-self/attr/apparmor/exec", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)


def at_exec(fd: int, profile: str) -> None:
    """The next exec of this process puts it under `profile`. Raises `OSError` ENOENT when that is not loaded."""
    try:
        os.write(fd, f"exec {profile}".encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"the AppArmor profile {profile}") from None
    finally:
        os.close(fd)
