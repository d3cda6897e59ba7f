"""Starts, ends and what survives what."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from lxpy.api.errors import BadRequest, InternalError
from lxpy.runtime import attach
from lxpy.runtime.spawner_client import Exit, Spawner, Supervisor, adopt
from tests.kernel.conftest import Guest, Lab, kill, leftovers


async def test_reasons(lab: Lab) -> None:
    for script, reason, code in (
        ("sleep 0.05; exit 3", "exit", 3),
        ("poweroff -f", "halt", signal.SIGINT),
        ("reboot -f", "reboot", signal.SIGHUP),
    ):
        guest = await lab.start(wait=False, init=["/bin/sh", "-c", script])
        before = time.time()
        result = await guest.exited()
        assert result[:2] == (reason, code), script
        assert abs(result.at - before) < 5
        record = json.loads(pathlib.Path(guest.spec["run_dir"], "exit.json").read_text())
        assert Exit(**record) == result
    guest = await lab.start()
    guest.supervisor.signal(signal.SIGKILL)
    assert (await guest.exited())[:2] == ("signal", 9)


async def test_clean_halt_by_signal(guest: Guest) -> None:
    number = await guest.supervisor.halt_signal()
    assert number == signal.SIGPWR
    guest.supervisor.signal(number)
    assert (await guest.exited()).reason == "halt"


async def test_init_that_takes_systemds_signal(lab: Lab) -> None:
    guest = await lab.start(
        wait=False, init=["/bin/sh", "-c", "trap 'exit 9' 37; touch /run/booted; while :; do sleep 0.05; done"]
    )
    for _ in range(200):
        if await guest.supervisor.halt_signal() == signal.SIGRTMIN + 3:
            break
        await asyncio.sleep(0.01)
    assert await guest.supervisor.halt_signal() == signal.SIGRTMIN + 3


async def test_out_of_memory(lab: Lab) -> None:
    script = "x=a; while :; do x=$x$x; done"
    guest = await lab.start(wait=False, limits={"memory": 8 << 20, "swap": False}, init=["/bin/sh", "-c", script])
    assert (await guest.exited(30)).reason == "oom"


async def test_failed_starts_say_why_and_leave_nothing(lab: Lab) -> None:
    spec = lab.spec(init=["/no/such/init"])
    with pytest.raises(InternalError, match="starting /no/such/init: No such file"):
        await lab.launch(spec)
    spec = lab.spec()
    spec["root"]["lower"] = "/nonexistent"
    with pytest.raises(InternalError, match=r"mounting its root file system: No such file.*nonexistent"):
        await lab.launch(spec)
    disk = {"source": "/gone", "target": "/x", "readonly": False, "shift": False, "recursive": False, "required": True}
    spec = lab.spec(mounts=[disk])
    with pytest.raises(InternalError, match="mounting /gone at /x"):
        await lab.launch(spec)

    async def refuse(netns: int, pid: int) -> None:
        raise BadRequest("no such bridge")

    with pytest.raises(BadRequest, match="no such bridge"):
        await lab.spawner.launch(lab.spec(), refuse)


async def test_network_is_put_in_before_init_runs(lab: Lab) -> None:
    async def connect(netns: int, pid: int) -> None:
        for command in ("add kt0 type veth peer name kt1", f"set kt0 netns {pid}"):
            await asyncio.to_thread(subprocess.run, ["ip", "link", *command.split()], check=True)
        await asyncio.sleep(0.2)
        assert os.readlink(f"/proc/self/fd/{netns}") == os.readlink(f"/proc/{pid}/ns/net")

    spec = lab.spec(init=["/bin/sh", "-c", "[ -e /sys/class/net/kt0 ] && exit 0; exit 1"])
    supervisor = await lab.spawner.launch(spec, connect)
    assert (await asyncio.wait_for(supervisor.exited, 20))[:2] == ("exit", 0)


async def test_twenty_at_once(lab: Lab) -> None:
    guests = await asyncio.gather(*(lab.start(wait=False) for _ in range(20)))
    assert len({guest.supervisor.init_pid for guest in guests}) == 20
    await asyncio.gather(*(guest.stop() for guest in guests))


async def test_restart_at_once_and_second_start_refused(lab: Lab) -> None:
    guest = await lab.start()
    await guest.sh("echo kept > /kept")
    for _ in range(5):
        await guest.stop()
        guest = await lab.launch(guest.spec)
    assert await guest.sh("cat /kept") == "kept"


async def test_console(lab: Lab) -> None:
    shell = ["/bin/sh", "-c", 'echo hello console; while read line; do echo "got $line"; stty size; done']
    guest = await lab.start(wait=False, init=shell)
    await asyncio.sleep(0.2)
    await guest.supervisor.resize_console(77, 33)
    loop = asyncio.get_running_loop()
    for _ in range(2):  # a second one sees the ring buffer too
        sock = await guest.supervisor.console()
        sock.setblocking(False)
        await loop.sock_sendall(sock, b"there\n")
        seen = b""
        while seen.count(b"33 77") < 1 or b"hello console" not in seen:
            seen += await asyncio.wait_for(loop.sock_recv(sock, 4096), 20)
        sock.close()
    log = pathlib.Path(guest.spec["console_log"]).read_bytes()
    assert log.startswith(b"hello console\r\n") and b"got there" in log


async def test_console_log_is_bounded(lab: Lab) -> None:
    guest = await lab.start(
        wait=False, init=["/bin/sh", "-c", "yes 0123456789 | head -c 3000000; echo END; sleep 1000"]
    )
    path = pathlib.Path(guest.spec["console_log"])
    for _ in range(500):
        if path.read_bytes().endswith(b"END\r\n"):
            break
        await asyncio.sleep(0.01)
    assert path.read_bytes().endswith(b"END\r\n")
    assert 400_000 < path.stat().st_size <= 1_200_000


CHILD = """
import asyncio, json, os, sys
from lxpy.runtime.spawner_client import Spawner
async def main():
    spec, request = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    spawner = await Spawner.start()
    async def connect(netns, pid): pass
    supervisor = await spawner.launch(spec, connect)
    files = await spawner.exec(supervisor, request)
    os.set_inheritable(files.status, True)
    print(json.dumps({"spawner": spawner.pid, "init": supervisor.init_pid, "status": files.status}), flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_everything_outlives_the_daemon(lab: Lab) -> None:
    """The client process is killed: its guest, its supervisor and its exec go on, and the exec's status arrives."""
    spec = lab.spec()
    request = {"command": ["sh", "-c", "sleep 0.7; exit 5"], "environment": {"PATH": "/bin"}, "cwd": "", "user": 0,
               "group": 0, "interactive": False}  # fmt: skip
    child = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", CHILD, json.dumps(spec), json.dumps(request)],
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    told = json.loads(await asyncio.to_thread(child.stdout.readline))
    status = os.open(f"/proc/{child.pid}/fd/{told['status']}", os.O_RDONLY)  # what a local client would hold
    kill(child.pid)
    child.wait()
    child.stdout.close()
    assert os.path.exists(f"/proc/{told['spawner']}")
    assert json.loads(await asyncio.to_thread(os.read, status, 4096)) == {"exit": 5}
    os.close(status)
    for _ in range(200):
        if (
            not os.path.exists(f"/proc/{told['spawner']}")
            or "Z" in pathlib.Path(f"/proc/{told['spawner']}/stat").read_text()
        ):
            break
        await asyncio.sleep(0.01)
    else:
        raise AssertionError("the spawner outlives its last command")
    adopted = await adopt(spec["run_dir"])
    assert isinstance(adopted, Supervisor)
    assert adopted.init_pid == told["init"]
    guest = Guest(lab, spec, adopted)
    lab.guests.append(guest)
    assert await guest.sh("echo alive") == "alive"
    await adopted.close()
    again = await adopt(spec["run_dir"])
    assert isinstance(again, Supervisor)
    guest.supervisor = again


async def test_adopting_what_ended_or_never_was(lab: Lab) -> None:
    guest = await lab.start()
    result = await guest.stop()
    assert await adopt(guest.spec["run_dir"]) == result
    assert await adopt(str(lab.work / "never")) is None


async def test_killed_supervisor_is_lost_and_nothing_stays(lab: Lab) -> None:
    guest = await lab.start()
    state = json.loads(pathlib.Path(guest.spec["run_dir"], "state.json").read_text())
    kill(state["supervisor"])
    assert (await guest.exited()).reason == "lost"
    assert (
        not os.path.exists(f"/proc/{state['init']}") or "Z" in pathlib.Path(f"/proc/{state['init']}/stat").read_text()
    )
    assert leftovers(guest.spec["name"]) == []
    # The same, found by a daemon that was away.
    guest = await lab.start()
    state = json.loads(pathlib.Path(guest.spec["run_dir"], "state.json").read_text())
    await guest.supervisor.close()
    kill(state["supervisor"])
    await asyncio.sleep(0.05)
    result = await adopt(guest.spec["run_dir"])
    assert isinstance(result, Exit) and result.reason == "lost"
    guest.supervisor.exited.set_result(result)


async def test_spawner_is_replaced_when_it_dies(lab: Lab) -> None:
    guest = await lab.start()
    first = lab.spawner.pid
    kill(first)
    await asyncio.sleep(0.05)
    assert await guest.sh("echo on") == "on"
    assert lab.spawner.pid != first


async def test_files_of_a_running_guest(guest: Guest) -> None:
    await guest.sh("mount -t tmpfs none /mnt; echo hidden > /mnt/file")
    fd = attach.open_guest_root(guest.supervisor)
    with open(os.open("mnt/file", os.O_RDONLY, dir_fd=fd)) as file:
        assert file.read() == "hidden\n"

    def push() -> None:
        with attach.as_guest(guest.supervisor.idmap_base, 1000, 1000):
            os.close(os.open("root/pushed", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=fd))
        with open("/proc/thread-self/status") as status:
            assert "Uid:\t0\t0\t0\t0\n" in status.read()

    await asyncio.to_thread(push)
    os.close(fd)
    assert await guest.sh("stat -c %u:%g /root/pushed") == "1000:1000"


async def test_processes_are_lean_and_named(lab: Lab) -> None:
    guests = [await lab.start() for _ in range(3)]
    private = []
    for guest in guests:
        state = json.loads(pathlib.Path(guest.spec["run_dir"], "state.json").read_text())
        pid = state["supervisor"]
        title = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()
        assert title == f"lxpy supervisor: {guest.spec['name']}"
        assert f".supervisor.{guest.spec['name']}" in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
        rollup = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
        private.append(int(next(line for line in rollup.splitlines() if line.startswith("Private_Dirty:")).split()[1]))
    # Few share the interpreter here; what is its own is what counts with many.
    assert max(private) <= 2200, private
    title = pathlib.Path(f"/proc/{lab.spawner.pid}/cmdline").read_bytes().rstrip(b"\0")
    assert title == b"lxpy spawner"


LINUX = "apparmor libc mounts namespaces caps seccomp devices cgroups pidfd pty uevents"
RUNTIME = "binds wire limiting cgroup container supervisor execute hotdisk hotnode spawner"


def test_spawner_imports_only_what_it_may() -> None:
    def modules(code: str) -> set[str]:
        code += "; import sys; print(' '.join(sys.modules))"
        return set(subprocess.check_output([sys.executable, "-I", "-S", "-c", code], text=True).split())

    allowed = "os, sys, socket, ctypes, struct, errno, signal, json, select, fcntl, termios, time, array, gc, stat"
    ours = modules(f"import sys; sys.path.append({os.getcwd()!r}); import lxpy.runtime.spawner")
    assert {name for name in ours if not name.startswith("lxpy")} <= modules(f"import {allowed}")
    assert {name for name in ours if name.startswith("lxpy.")} <= {
        "lxpy.linux",
        "lxpy.runtime",
        *(f"lxpy.linux.{name}" for name in LINUX.split()),
        *(f"lxpy.runtime.{name}" for name in RUNTIME.split()),
    }


def test_a_proxy_imports_only_what_it_may() -> None:
    """As the spawner, of which it is forked, and the two modules of its own."""
    code = f"import sys; sys.path.append({os.getcwd()!r}); import lxpy.runtime.{{}}; print(' '.join(sys.modules))"

    def modules(name: str) -> set[str]:
        run = [sys.executable, "-I", "-S", "-c", code.format(name)]
        return set(subprocess.check_output(run, text=True).split())

    assert modules("proxy") - modules("spawner") <= {"lxpy.runtime.proxy", "lxpy.runtime.relay"}


def test_a_file_process_brings_next_to_nothing() -> None:
    """It is forked of the spawner, which imports none of this; the daemon does not either."""
    code = f"import sys; sys.path.append({os.getcwd()!r}); import {{}}; print(' '.join(sys.modules))"

    def modules(*names: str) -> set[str]:
        run = [sys.executable, "-I", "-S", "-c", code.format(", ".join(names))]
        return set(subprocess.check_output(run, text=True).split())

    ours = modules("lxpy.runtime.spawner", "lxpy.runtime.filework", "lxpy.runtime.sftp")
    new = ours - modules("lxpy.runtime.spawner", "contextlib")
    assert new == {
        "lxpy.linux.safe_path", "lxpy.runtime.filework", "lxpy.runtime.filetree", "lxpy.runtime.sftp",
    }  # fmt: skip


async def test_whoever_starts_may_go_at_any_moment(lab: Lab) -> None:
    """What was begun ends by itself, and the name can be started again at once."""

    async def connect(netns: int, pid: int) -> None:
        await asyncio.sleep(60)

    spec = lab.spec()
    for milliseconds in range(16):
        start = asyncio.create_task(lab.spawner.launch(spec, connect))
        await asyncio.sleep(milliseconds / 1000)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
    began = time.monotonic()
    guest = await lab.launch(spec)
    assert time.monotonic() - began < 30
    await guest.stop()


async def test_closing_ends_the_spawner(lab: Lab) -> None:
    other = await Spawner.start()
    pid = other.pid
    await asyncio.sleep(0.1)
    await other.close()
    assert not os.path.exists(f"/proc/{pid}")
