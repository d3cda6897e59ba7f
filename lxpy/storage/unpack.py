"""Unpacking images nobody has vouched for.

Tarballs go through our own extractor: it works on directory descriptors, never follows a link, drops device nodes
and the attributes that mean something to the host (``trusted.*``, ``user.overlay.*``). Squashfs goes through
unsquashfs into an empty 0700 directory and is scrubbed of the same afterwards. Everything here blocks: call it in
a thread. A wrong archive is `BadRequest` with one line; a full or failing disk is the `OSError` itself.
"""

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import subprocess
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import TypeVar

from lxpy.api.errors import BadRequest
from lxpy.linux import safe_path
from lxpy.storage import acl, compression, tarstream
from lxpy.storage.owners import Owners
from lxpy.storage.tarstream import Member, TarError, TarStream

_NOBODY = 65534
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031

_T = TypeVar("_T")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_OPEN_DIRS = 64
# The machine's fault, not the archive's.
_HOST_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


def unpack_tar(archive: str, target: str, what: str, prefix: str = "") -> None:
    """Unpack a tarball (plain, xz, gzip, zstd, bzip2, lzma) into the empty directory `target`.

    Owners are taken as numbers, modes and times kept.

    Args:
        what: begins every error message, e.g. ``Cannot unpack image 0123456789ab``.
        prefix: take only what lies below this directory of the archive (``rootfs`` of a unified image).

    Raises:
        BadRequest: damaged, cut off, or a member tries to leave the directory. The caller discards `target`.
        OSError: the disk is full or fails.
    """
    with Tree(target, what, prefix) as tree, _plain(archive, what) as read:
        stream = TarStream(read)
        try:
            for member in stream:
                tree.add(member, stream)
            stream.drain()
        except TarError as error:
            raise BadRequest(f"{what}: {error}") from None
        if not tree.used:
            raise BadRequest(f"{what}: the archive holds no {prefix or 'file'}")
        tree.finish()


def unpack_squashfs(archive: str, target: str, what: str) -> None:
    """Unpack a squashfs into the empty directory `target`. As `unpack_tar`."""
    if not shutil.which("unsquashfs"):
        raise BadRequest(f"{what}: unsquashfs is missing (install squashfs-tools)")
    # Unless told, the queues may hold 256 MiB each: too much beside containers on a small host.
    done = subprocess.run(
        ["unsquashfs", "-q", "-n", "-f", "-da", "48", "-fr", "48", "-d", target, archive],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}, check=False,
    )  # fmt: skip
    if done.returncode:
        text = done.stderr.decode(errors="replace")
        if "No space left on device" in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        raise BadRequest(f"{what}: unsquashfs: {(text.strip() or 'failed').splitlines()[0]}")
    scrub(target)


def scrub(root: str) -> None:
    """Removes device nodes, and attributes an image has no business with, from a tree nobody else can reach.

    Directories keep their times.
    """
    root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        todo = [b"."]
        while todo:
            here = todo.pop()
            fd = safe_path.openat2(root_fd, here, os.O_RDONLY | os.O_DIRECTORY, resolve=safe_path.NO_LINKS)
            try:
                _scrub_attributes(b"/proc/self/fd/%d" % fd, True)
                was = os.fstat(fd)
                dropped = False
                with os.scandir(fd) as entries:
                    for entry in entries:
                        mode = entry.stat(follow_symlinks=False).st_mode
                        name = os.fsencode(entry.name)
                        if stat.S_ISDIR(mode):
                            todo.append(here + b"/" + name)
                        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                            os.unlink(name, dir_fd=fd)
                            dropped = True
                        elif stat.S_ISREG(mode):
                            _scrub_attributes(b"/proc/self/fd/%d/%s" % (fd, name), False)
                if dropped:
                    os.utime(fd, ns=(was.st_atime_ns, was.st_mtime_ns))
            finally:
                os.close(fd)
    finally:
        os.close(root_fd)


def _scrub_attributes(path: bytes, follow: bool) -> None:
    for name in os.listxattr(path, follow_symlinks=follow):
        if not _kept(name):
            os.removexattr(path, name, follow_symlinks=follow)


def _kept(attribute: str) -> bool:
    # user.overlay.* steers an overlay made inside a user namespace as trusted.overlay.* steers the host's.
    if attribute.startswith("user."):
        return not attribute.startswith("user.overlay.")
    return attribute == "security.capability" or attribute in _ACLS


@contextlib.contextmanager
def _plain(archive: str, what: str) -> Iterator[Callable[[int], bytes]]:
    """A function that reads the decompressed archive, see `plain`."""
    with open(archive, "rb", buffering=0) as file:
        start = file.read(compression.MAGIC_LENGTH)
        file.seek(0)
        with plain(file.fileno(), start, what) as read:
            yield read


@contextlib.contextmanager
def plain(source: int, start: bytes, what: str) -> Iterator[Callable[[int], bytes]]:
    """A function that reads the decompressed data of a descriptor, up to so many bytes, b"" at the end.

    Leaving the block checks that the decompressor was content.

    Args:
        source: a file at its beginning, or a pipe.
        start: the first bytes that will come from it.

    Raises:
        BadRequest: the data is damaged or cut off; the message begins with `what`.
    """
    command = compression.decompressor(start, what)
    if not command:
        yield lambda count: os.read(source, count)
        return
    # Decompressors chew on bytes from strangers and need no rights for it: two descriptors will do.
    nobody = _NOBODY if os.geteuid() == 0 else None
    process = subprocess.Popen(
        command, stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        user=nobody, group=nobody, extra_groups=None if nobody is None else [],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    output = process.stdout.fileno()
    with contextlib.suppress(OSError):
        fcntl.fcntl(output, _F_SETPIPE_SZ, _PIPE_SIZE)
    damaged: BadRequest | None = None
    try:
        try:
            yield lambda count: os.read(output, count)
        except BadRequest as error:
            damaged = error
        # It may be the decompressor that stopped in the middle, and it knows better why.
        ended = damaged is None or not os.read(output, 1)
        if ended and process.wait() > 0:
            text = process.stderr.read(4096).decode(errors="replace").strip()
            raise BadRequest(f"{what}: {(text or command[0] + ' failed').splitlines()[0]}") from None
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
    if damaged is not None:
        raise damaged


class Tree:
    """The directory being filled. Paths are resolved below its descriptor, by the kernel, with links forbidden.

    Args:
        target: an empty directory.
        what, prefix: see `unpack_tar`; the prefix may be several directories deep.
        owners: where the archive's owners are those of another's disk.
    """

    def __init__(self, target: str, what: str, prefix: str, owners: Owners | None = None) -> None:
        self._what = what
        self._prefix = [part for part in os.fsencode(prefix).split(b"/") if part]
        self._owners = owners
        self._root = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self._open: OrderedDict[bytes, int] = OrderedDict()  # directory descriptors, most recent last
        self._directories: dict[bytes, Member] = {}  # their times and attributes are set when all is in
        self._dropped: set[bytes] = set()  # device nodes, which hard links may name
        self.used = False

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open.values():
            os.close(fd)
        os.close(self._root)

    def add(self, member: Member, stream: TarStream) -> None:
        """Makes one member; `stream` stands at its data."""
        try:
            path = self._inside(member.name, "name")
            if path is not None:
                self.used = True
                if self._owners:
                    member.uid, member.gid = self._owners.user(member.uid), self._owners.group(member.gid)
                self._add(path, member, stream)
        except TarError as error:
            raise self._refuse(member, str(error)) from None
        except OSError as error:
            if error.errno in _HOST_ERRORS:
                raise
            reasons = {errno.ELOOP: "goes through a symbolic link", errno.ENOTDIR: "goes through a file or link"}
            raise self._refuse(member, reasons.get(error.errno or 0, error.strerror or "failed")) from None

    def finish(self) -> None:
        """Sets what later members would have changed or been changed by: times and attributes of directories."""
        for path, member in self._directories.items():
            fd = safe_path.openat2(self._root, path or b".", os.O_RDONLY | os.O_DIRECTORY, resolve=safe_path.NO_LINKS)
            try:
                _attributes(fd, member, self._owners)
                os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
            finally:
                os.close(fd)
        if self._prefix and b"" not in self._directories:
            os.fchmod(self._root, 0o755)

    def _refuse(self, member: Member, why: str) -> BadRequest:
        return BadRequest(f"{self._what}: member {os.fsdecode(member.name[:300])!r}: {why}")

    def _inside(self, name: bytes, which: str) -> bytes | None:
        """The path below the root, normal form, b"" for the root itself; None when outside the prefix."""
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in name:
            raise TarError(f"its {which} leads out of the archive")
        depth = len(self._prefix)
        if parts[:depth] != self._prefix:
            return None
        return b"/".join(parts[depth:])

    def _add(self, path: bytes, member: Member, stream: TarStream) -> None:
        kind = member.kind
        if kind == tarstream.DIRECTORY:
            self._add_directory(path, member)
            return
        if kind not in b"01236" and kind != tarstream.BLOCK_DEVICE:
            return  # volume labels and the like
        if not path:
            raise TarError("takes the place of the root directory")
        if kind in (tarstream.CHARACTER, tarstream.BLOCK_DEVICE):
            self._dropped.add(path)
            return
        parent, _, name = path.rpartition(b"/")
        dir_fd = self._directory(parent)
        if kind == tarstream.REGULAR:
            self._add_file(dir_fd, name, member, stream)
        elif kind == tarstream.HARD_LINK:
            self._add_hard_link(dir_fd, name, member)
        else:
            if kind == tarstream.SYMLINK:
                _replacing(lambda: os.symlink(member.link, name, dir_fd=dir_fd), name, dir_fd)
            else:
                _replacing(lambda: os.mkfifo(name, 0o600, dir_fd=dir_fd), name, dir_fd)
            os.chown(name, member.uid, member.gid, dir_fd=dir_fd, follow_symlinks=False)
            if kind == tarstream.FIFO:
                os.chmod(name, member.mode, dir_fd=dir_fd)  # we made it; nobody else reaches this tree
            os.utime(name, ns=(member.mtime_ns, member.mtime_ns), dir_fd=dir_fd, follow_symlinks=False)

    def _add_directory(self, path: bytes, member: Member) -> None:
        if path:
            parent, _, name = path.rpartition(b"/")
            dir_fd = self._directory(parent)
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=dir_fd)
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
        else:
            fd = os.dup(self._root)
        try:
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode)
        finally:
            os.close(fd)
        self._directories[path] = member

    def _add_file(self, dir_fd: int, name: bytes, member: Member, stream: TarStream) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        fd = _replacing(lambda: os.open(name, flags, 0o600, dir_fd=dir_fd), name, dir_fd)
        try:
            stream.copy(member, lambda data: os.write(fd, data), lambda offset: os.lseek(fd, offset, os.SEEK_SET))
            if member.sparse is not None:
                os.ftruncate(fd, member.size)
            # In this order: a change of owner clears set-uid bits and file capabilities.
            os.fchown(fd, member.uid, member.gid)
            os.fchmod(fd, member.mode)
            if member.pax:
                _attributes(fd, member, self._owners)
            os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))
        finally:
            os.close(fd)

    def _add_hard_link(self, dir_fd: int, name: bytes, member: Member) -> None:
        if member.link.startswith(b"/"):
            raise TarError("a hard link to an absolute path")
        source = self._inside(member.link, "hard link")
        if not source:
            raise TarError("a hard link out of the archive's tree")
        if source in self._dropped:
            return
        parent, _, source_name = source.rpartition(b"/")
        source_fd = os.dup(self._directory(parent))  # the second look-up may push it out of the cache
        try:

            def link() -> None:
                os.link(source_name, name, src_dir_fd=source_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

            _replacing(link, name, dir_fd)
        except FileNotFoundError:
            raise TarError(f"a hard link to {os.fsdecode(member.link[:200])!r}, which is missing") from None
        finally:
            os.close(source_fd)

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory, made with its parents where missing (0755 root). Ours; valid for a while."""
        if not path:
            return self._root
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        try:
            fd = safe_path.openat2(self._root, path, os.O_PATH | os.O_DIRECTORY, resolve=safe_path.NO_LINKS)
        except FileNotFoundError:
            for end in [i for i, byte in enumerate(path + b"/") if byte == 0x2F]:
                parent, _, name = path[:end].rpartition(b"/")
                parent_fd = safe_path.openat2(
                    self._root, parent or b".", os.O_PATH | os.O_DIRECTORY, resolve=safe_path.NO_LINKS
                )
                try:
                    os.mkdir(name, 0o755, dir_fd=parent_fd)
                    os.chmod(name, 0o755, dir_fd=parent_fd)
                except FileExistsError:
                    pass
                finally:
                    os.close(parent_fd)
            fd = safe_path.openat2(self._root, path, os.O_PATH | os.O_DIRECTORY, resolve=safe_path.NO_LINKS)
        self._open[path] = fd
        if len(self._open) > _OPEN_DIRS:
            os.close(self._open.popitem(last=False)[1])
        return fd


def _replacing(make: Callable[[], _T], name: bytes, dir_fd: int) -> _T:
    """`make`, and once more without the file in its place: of two members with one name the later counts."""
    try:
        return make()
    except FileExistsError:
        try:
            os.unlink(name, dir_fd=dir_fd)
        except (IsADirectoryError, PermissionError):
            raise TarError("takes the place of a directory") from None
        return make()


def _attributes(fd: int, member: Member, owners: Owners | None) -> None:
    for key, value in member.pax.items():
        text = key.decode(errors="replace")
        if text.startswith("SCHILY.xattr."):
            name, packed = text.removeprefix("SCHILY.xattr."), value
            if not _kept(name):
                continue
        elif text in ("SCHILY.acl.access", "SCHILY.acl.default"):
            name, found = f"system.posix_acl_{text.rpartition('.')[2]}", acl.from_text(value.decode(errors="replace"))
            if found is None:
                continue
            packed = found
        else:
            continue
        if owners and name in _ACLS:
            packed = owners.acl(packed)
        elif owners and name == "security.capability":
            shifted = owners.capability(packed)
            if shifted is None:
                continue
            packed = shifted
        _set_attribute(fd, name, packed)


def _set_attribute(fd: int, name: str, value: bytes) -> None:
    try:
        os.setxattr(fd, name, value)
    except OSError as error:
        # A file system without ACLs or user attributes: the modes still hold. A lost capability would break ping.
        if error.errno != errno.EOPNOTSUPP or name == "security.capability":
            raise
