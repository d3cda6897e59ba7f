"""The daemon's side of the runtime: starts the spawner, launches instances, runs commands in them."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from lxpy.api.errors import ApiError, Conflict, InternalError
from lxpy.linux import libc, pidfd
from lxpy.runtime import wire
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.spec import ExecRequest, InstanceSpec, Mount, Node, ProxySpec
from lxpy.runtime.supervisor_client import Channel, Exit, Supervisor, adopt

__all__ = ["ExecFiles", "ExecRequest", "Exit", "FileWorker", "Spawner", "Supervisor", "adopt"]

_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_CODE = "import sys; sys.path.append(sys.argv[1]); from lxpy.runtime.spawner import main; main(3)"
_TITLE_ROOM = " " * 64  # an argument that only makes room for the titles ps shows


class ExecFiles(NamedTuple):
    """Descriptors of a running command, owned by the caller; -1 where not applicable.

    `status` is a pipe: one line of JSON ``{"exit": 0}``, ``{"signal": 9}`` or ``{"error": "...", "exit": 126 | 127}``,
    then the end. `pidfd` takes signals for the command.
    """

    pty: int
    stdin: int
    stdout: int
    stderr: int
    status: int
    pidfd: int


class FileWorker:
    """A process that works on the files of one instance until its user hangs up.

    Attributes:
        ended: resolved once it is gone, and its hold on the instance's mounts with it.
    """

    def __init__(self, channel: Channel, pidfd: int) -> None:
        self._channel, self._pidfd = channel, pidfd
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = loop.create_future()
        loop.add_reader(pidfd, self._end, loop)

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._channel.close()
        self._pidfd = -1
        if not self.ended.done():
            self.ended.set_result(None)

    def kill(self) -> None:
        """Ends it; what it was writing does not count."""
        if self._pidfd >= 0:
            pidfd.send(self._pidfd, signal.SIGKILL)


class Spawner:
    """The connection to the spawner; one that died is replaced at the next request."""

    def __init__(self) -> None:
        self._channel: Channel | None = None
        self.pid = 0

    @classmethod
    async def start(cls) -> "Spawner":
        """Starts the process and does not wait for it to be up: requests queue."""
        spawner = cls()
        spawner._spawn()
        return spawner

    def _spawn(self) -> None:
        ours, theirs = wire.pair()
        # The interpreter runs from a read-only clone of its mount: whatever a privileged guest opens by
        # /proc/PID/exe, it cannot be written to (CVE-2019-5736).
        try:
            program = libc.open_tree(sys.executable, libc.OPEN_TREE_CLONE)
            libc.mount_setattr(program, libc.MOUNT_ATTR_RDONLY)
            path = f"/proc/self/fd/{program}"
        except OSError:
            program, path = -1, sys.executable
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_RDWR, 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
        ]
        arguments = [sys.executable, "-I", "-S", "-c", _CODE, _PACKAGE_ROOT, _TITLE_ROOM]
        try:
            self.pid = os.posix_spawn(path, arguments, dict(os.environ), file_actions=actions, setsid=True)
        finally:
            theirs.close()
            if program >= 0:
                os.close(program)
        self._channel = Channel(ours)

    async def _send(self, message: wire.Message, fds: list[int]) -> None:
        for _ in range(2):
            if self._channel is None:
                self._spawn()
            assert self._channel is not None
            if await self._channel.send(message, fds):
                return
            self._drop()
        raise InternalError("The spawner process does not start: see the daemon's log")

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            self._reap()

    async def launch(self, spec: InstanceSpec, connect: Callable[[int, int], Awaitable[None]]) -> Supervisor:
        """Starts an instance; back once its init runs.

        Args:
            spec: what to start.
            connect: awaited with the network namespace's descriptor (closed afterwards) and init's pid once the
                namespace exists and before init runs. When it raises, everything is undone and the error comes out.

        Raises:
            InternalError: one line with the step that failed.
        """
        ours, theirs = wire.pair()
        channel = Channel(ours)
        done = False
        fds: list[int] = []
        try:
            try:
                fds = [theirs.fileno(), *_supervisor_cgroup(spec["cgroup_prefix"], spec["name"])]
                await self._send({"op": "launch", "spec": spec}, fds)
            finally:
                theirs.close()
                for fd in fds[1:]:
                    os.close(fd)
            raised: BaseException | None = None
            while True:
                message, fds = await channel.receive()
                event = message.get("event") if message else ""
                if message is None:
                    raise raised or InternalError(f"Failed to start {spec['name']}: its supervisor was killed")
                if event == "started":
                    done = True
                    return Supervisor(channel, message, fds[0], spec["run_dir"])
                if event == "error":
                    raise raised or InternalError(message["message"])
                if event == "netns":
                    try:
                        await connect(fds[0], message["pid"])
                    except Exception as error:
                        raised = error
                        text = error.message if isinstance(error, ApiError) else str(error)
                        await channel.send({"op": "abort", "message": text})
                    else:
                        await channel.send({"op": "go"})
                    finally:
                        os.close(fds[0])
        finally:
            # A cancelled start closes the socket, and the supervisor undoes everything.
            if not done:
                channel.close()

    async def exec(self, target: Supervisor, request: ExecRequest) -> ExecFiles:
        """Runs a command in a running instance.

        Raises:
            InternalError: the guest could not be entered. A command that cannot be run is no error here: its
                status says 126 or 127.
        """
        if target.init_pidfd < 0 or target.exited.done():
            raise InternalError(f"Instance {target.name} has just stopped")
        ours, theirs = wire.pair()
        channel = Channel(ours)
        message = {
            "op": "exec", "request": request, "name": target.name, "prefix": target.prefix,
            "base": target.idmap_base, "apparmor": target.apparmor, "confine": target.confine,
        }  # fmt: skip
        try:
            try:
                await self._send(message, [theirs.fileno(), target.init_pidfd])
            finally:
                theirs.close()
            answer, fds = await channel.receive()
        finally:
            channel.close()
        if answer is None:
            raise InternalError(f"Failed to enter {target.name}: killed on the way in (is its memory used up?)")
        if "error" in answer:
            raise InternalError(answer["error"])
        if len(fds) == 3:
            return ExecFiles(fds[0], -1, -1, -1, fds[1], fds[2])
        return ExecFiles(-1, *fds)

    async def plug_disk(self, target: Supervisor, mount: Mount) -> None:
        """Mounts a disk in a running guest.

        Raises:
            InternalError: one line with what the kernel had against it; then nothing is mounted.
        """
        await self._disk("plug", target, mount)

    async def unplug_disk(self, target: Supervisor, mount: Mount) -> str:
        """Takes exactly that disk away; one that the guest has unmounted itself is no error.

        Returns:
            "busy" when processes inside still have files of it open, "" otherwise.

        Raises:
            Conflict: the guest has mounted something else over it.
        """
        answer = await self._disk("unplug", target, mount)
        if answer.get("covered"):
            raise Conflict(
                f"The disk at {mount['target']} cannot be taken away: something else is mounted over it in "
                f"{target.name}; unmount that inside first"
            )
        return "busy" if answer.get("busy") else ""

    async def change_nodes(self, target: Supervisor, plug: list[Node], unplug: list[Node]) -> None:
        """Takes device nodes out of a running guest and puts others in; the cgroup's rules are not its business.

        Raises:
            InternalError: one line with what the kernel had against it; then none is plugged in.
        """
        answer = await self._enter(target, {"op": "node", "plug": plug, "unplug": unplug})
        if "error" in answer:
            raise InternalError(f"Failed to change the device nodes of {target.name}: {answer['error']}")

    async def _disk(self, action: str, target: Supervisor, mount: Mount) -> wire.Message:
        answer = await self._enter(target, {"op": "disk", "action": action, "mount": mount})
        if "error" in answer:
            raise InternalError(f"Failed to {action} the disk at {mount['target']} of {target.name}: {answer['error']}")
        return answer

    async def _enter(self, target: Supervisor, request: wire.Message) -> wire.Message:
        """The answer of a helper that enters the guest."""
        if target.init_pidfd < 0 or target.exited.done():
            raise InternalError(f"Instance {target.name} has just stopped")
        ours, theirs = wire.pair()
        channel = Channel(ours)
        message = {**request, "pid": target.init_pid, "base": target.idmap_base, "run_dir": target.run_dir}
        try:
            try:
                await self._send(message, [theirs.fileno(), target.init_pidfd])
            finally:
                theirs.close()
            answer, _ = await channel.receive()
        finally:
            channel.close()
        if answer is None:
            raise InternalError(f"Failed to change the devices of {target.name}: the helper was killed")
        return answer

    async def proxy(self, target: Supervisor, proxy: ProxySpec, listening: Callable[[int, int], None]) -> None:
        """Starts the process of a proxy device; it ends with the instance.

        Args:
            listening: told its pid and start time once it listens, and before it serves: what it raises ends it.

        Raises:
            InternalError: one line with what was against it.
        """
        if target.init_pidfd < 0 or target.exited.done():
            raise InternalError(f"Instance {target.name} has just stopped")
        ours, theirs = wire.pair()
        channel = Channel(ours)
        try:
            fds = [theirs.fileno(), target.init_pidfd]
            try:
                fds += _supervisor_cgroup(proxy["prefix"], proxy["instance"])
                await self._send({"op": "proxy", "proxy": proxy, "base": target.idmap_base}, fds)
            finally:
                theirs.close()
                for fd in fds[2:]:
                    os.close(fd)
            answer, _ = await channel.receive()
            if answer is None or "error" in answer:
                why = answer["error"] if answer else "its process was killed"
                raise InternalError(f"Failed to start the proxy {proxy['device']!r} of {target.name}: {why}")
            listening(answer["pid"], answer["start"])
            await channel.send({"go": True})
        finally:
            channel.close()

    async def remove_socket(self, target: Supervisor, path: str) -> None:
        """Takes away a unix socket in a running guest on which nobody listens; another is left alone."""
        answer = await self._enter(target, {"op": "unsocket", "path": path})
        if "error" in answer:
            raise InternalError(f"Failed to remove {path} in {target.name}: {answer['error']}")

    async def files(self, place: "Supervisor | int", work: int, *, sftp: bool = False) -> FileWorker:
        """Starts a process that works on an instance's files; filework.py says what can be asked of it.

        Args:
            place: a running instance, or a descriptor of the root directory of a stopped one.
            work: the process's end of a socket: SEQPACKET, or a stream with `sftp`. Still the caller's.

        Raises:
            InternalError: the instance could not be entered.
        """
        message: wire.Message = {"op": "files", "running": not isinstance(place, int), "sftp": sftp}
        if isinstance(place, Supervisor):
            if place.init_pidfd < 0 or place.exited.done():
                raise InternalError(f"Instance {place.name} has just stopped")
            message |= {"pid": place.init_pid, "base": place.idmap_base}
        ours, theirs = wire.pair()
        channel = Channel(ours)
        try:
            try:
                fd = place.init_pidfd if isinstance(place, Supervisor) else place
                await self._send(message, [work, theirs.fileno(), fd])
            finally:
                theirs.close()
            answer, fds = await channel.receive()
            if answer is None or "error" in answer:
                raise InternalError(f"Failed to enter the files: {answer['error'] if answer else 'killed on the way'}")
        except BaseException:
            channel.close()
            raise
        return FileWorker(channel, fds[0])

    async def close(self) -> None:
        """Lets the spawner end, which it does after its last command. Instances run on."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
            # Without commands it is gone in a moment; then it leaves no zombie to a long-lived caller.
            for _ in range(50):
                if self._reap():
                    break
                await asyncio.sleep(0.002)

    def _reap(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True


def _supervisor_cgroup(prefix: str, name: str) -> list[int]:
    """The cgroup that a supervisor, or a process beside it, is to be born in, if there is a unified hierarchy."""
    try:
        fd = InstanceCgroup(prefix, name).open_supervisor()
    except OSError:
        return []  # it finds its way in later, and says what is wrong
    return [fd] if fd >= 0 else []
