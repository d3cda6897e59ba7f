"""User namespaces with a written map, and which file systems can be mounted with one."""

import os

from lxpy.linux import libc, mounts, namespaces

_probed: dict[int, bool] = {}


def user_namespace(base: int, size: int) -> int:
    """A descriptor of a new user namespace that maps 0 .. `size` to `base` and up. Forks: for a single thread.

    Its creator's effective user is the mapped root, so that its inotify and key counters are its own.
    """
    ready_r, ready_w = os.pipe()
    end_r, end_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(end_w)
            os.setresgid(base, base, base)
            os.setresuid(base, base, base)
            libc.unshare(libc.CLONE_NEWUSER)
            os.write(ready_w, b"x")
            os.read(end_r, 1)
        finally:
            os._exit(0)
    os.close(ready_w)
    os.close(end_r)
    try:
        if not os.read(ready_r, 1):
            raise OSError(1, "the kernel makes no user namespace (see user.max_user_namespaces)", str(base))
        namespaces.write_map(pid, [[0, base, size]], [[0, base, size]])
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.close(end_w)
        os.waitpid(pid, 0)


def try_mount(path: str) -> bool:
    """Whether the file system at `path` takes an id-mapped mount, tried out in this (single-threaded) process."""
    fd = user_namespace(100000, 65536)
    try:
        os.close(mounts.idmapped(path, fd))
        return True
    except OSError:
        return False
    finally:
        os.close(fd)


def supports_idmap(path: str) -> bool:
    """Whether the file system of `path` can be mounted id-mapped. Asked once per file system; 20 ms the first time.

    A process of its own tries it, so that a daemon with threads may ask.
    """
    device = os.stat(path).st_dev
    if device not in _probed:
        import subprocess
        import sys

        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        code = (
            "import sys; sys.path.append(sys.argv[1]); from lxpy.linux import idmap; "
            "sys.exit(not idmap.try_mount(sys.argv[2]))"
        )
        command = [sys.executable, "-I", "-S", "-c", code, root, path]
        done = subprocess.run(command, stderr=subprocess.DEVNULL, check=False)
        _probed[device] = done.returncode == 0
    return _probed[device]
