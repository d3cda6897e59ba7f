"""File work in a running guest, from outside its namespaces."""

import contextlib
import os
from collections.abc import Iterator

from lxpy.api.errors import InternalError
from lxpy.linux import caps, libc, pidfd, safe_path
from lxpy.runtime.supervisor_client import Supervisor


def open_guest_root(supervisor: Supervisor) -> int:
    """A directory descriptor (``O_PATH``) of the running guest's ``/``, the guest's own mounts included.

    To be used with ``linux/safe_path.py`` only: links in there are the guest's. Owners read as host ids; to create
    files, see `as_guest`.

    Raises:
        InternalError: the guest has ended.
    """
    try:
        fd = os.open(f"/proc/{supervisor.init_pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise InternalError(f"Instance {supervisor.name} has just stopped") from None
    # Init alive after the open means that the pid was its own all the while.
    if supervisor.init_pidfd < 0 or not pidfd.alive(supervisor.init_pidfd):
        os.close(fd)
        raise InternalError(f"Instance {supervisor.name} has just stopped")
    return fd


@contextlib.contextmanager
def guest_path(supervisor: Supervisor, path: str) -> Iterator[int]:
    """A descriptor (``O_PATH``) of what is at a path of the running guest.

    Raises:
        InternalError: the guest has ended. OSError: of the path.
    """
    root = open_guest_root(supervisor)
    try:
        fd = safe_path.openat2(root, path, os.O_PATH)
    finally:
        os.close(root)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def as_guest(idmap_base: int | None, user: int = 0, group: int = 0) -> Iterator[None]:
    """This thread makes files as `user` and `group` of the guest, and is still stopped by no permission.

    Host root itself is not mapped in an id-mapped root file system: creating there as uid 0 gives EOVERFLOW.
    """
    base = idmap_base or 0
    libc.setfsgid(base + group)
    try:
        libc.setfsuid(base + user)
        caps.raise_all()  # the kernel lowers the file capabilities with the id
        yield
    finally:
        libc.setfsuid(0)
        libc.setfsgid(0)
        caps.raise_all()
