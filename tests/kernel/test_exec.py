"""Commands in a running guest: statuses, streams, terminals, and a guest that lies."""

import asyncio
import json
import os
import pathlib
import shutil
import signal

import pytest

from lxpy.api.errors import InternalError
from lxpy.linux import pty
from tests.kernel.conftest import Guest, Lab


async def test_statuses(guest: Guest) -> None:
    assert (await guest.run("true")).status == {"exit": 0}
    assert (await guest.run("sh", "-c", "exit 7")).status == {"exit": 7}
    assert (await guest.run("sh", "-c", "kill -9 $$")).status == {"signal": 9}
    missing = (await guest.run("no-such-command")).status
    assert missing["exit"] == 127 and "no-such-command: command not found" in missing["error"]
    assert (await guest.run("/etc/passwd")).status == {"exit": 126, "error": "/etc/passwd: Permission denied"}
    assert (await guest.run("/no/such/file")).status["exit"] == 127
    await guest.sh("echo rubbish > /tmp/rubbish; chmod 755 /tmp/rubbish")
    assert (await guest.run("/tmp/rubbish")).status == {"exit": 126, "error": "/tmp/rubbish: Exec format error"}
    assert (await guest.run("pwd", cwd="/nowhere")).status["exit"] == 126


async def test_ids_directory_environment(guest: Guest) -> None:
    done = await guest.run("/bin/busybox", "sh", "-c", "id; pwd; /bin/env", user=1000, group=5, cwd="/tmp",
                           environment={"X": "ä=1"})  # fmt: skip
    lines = done.text.splitlines()
    assert lines[0] == "uid=1000(user) gid=5(tty)"
    assert lines[1] == "/tmp"
    assert "X=ä=1" in lines
    assert (await guest.run("pwd", environment={"PATH": "/bin", "HOME": "/root"})).text == "/root\n"
    assert (await guest.run("pwd", environment={"PATH": "/bin", "HOME": "/none"})).text == "/\n"


async def test_streams_end_and_can_be_reopened(guest: Guest) -> None:
    assert (await guest.run("cat")).out == b""
    done = await guest.run("sh", "-c", "cat; echo err >&2; echo again > /proc/self/fd/1", input=b"in\n")
    assert (done.out, done.err) == (b"in\nagain\n", b"err\n")


async def test_64_mib_through_cat(guest: Guest) -> None:
    data = os.urandom(64 * 1024 * 1024)
    assert (await guest.run("cat", input=data)).out == data


async def test_terminal(guest: Guest) -> None:
    files = await guest.files(
        "sh", "-c", "stty size; tty; read x; stty size; sleep 100", interactive=True, width=100, height=30
    )
    assert files.stdin == -1
    out = b""

    async def until(text: bytes) -> None:
        nonlocal out
        while text not in out:
            out += await asyncio.wait_for(asyncio.to_thread(os.read, files.pty, 4096), 20)

    await until(b"30 100")
    await until(b"/dev/pts/0")
    pty.resize(files.pty, 90, 25)
    os.write(files.pty, b"\n")
    await until(b"25 90")
    await asyncio.sleep(0.1)
    os.write(files.pty, b"\x03")
    status = json.loads(await asyncio.wait_for(asyncio.to_thread(os.read, files.status, 4096), 20))
    assert status in ({"signal": 2}, {"exit": 130})
    for fd in (files.pty, files.status, files.pidfd):
        os.close(fd)


async def test_signals_by_pidfd(guest: Guest) -> None:
    files = await guest.files("sleep", "100")
    signal.pidfd_send_signal(files.pidfd, signal.SIGTERM)
    assert json.loads(await asyncio.to_thread(os.read, files.status, 4096)) == {"signal": 15}
    for fd in files:
        if fd >= 0:
            os.close(fd)


async def test_many_at_once(guest: Guest) -> None:
    done = await asyncio.gather(*(guest.run("sh", "-c", f"exit {n}") for n in range(40)))
    assert [d.status for d in done] == [{"exit": n} for n in range(40)]


async def test_ends_with_its_guest(guest: Guest) -> None:
    running = asyncio.create_task(guest.run("sleep", "100"))
    await asyncio.sleep(0.1)
    await guest.stop()
    assert (await running).status == {"signal": 9}
    with pytest.raises(InternalError, match="has just stopped"):
        await guest.run("true")


async def test_hostile_guest_touches_nothing_of_the_host(lab: Lab, work: pathlib.Path) -> None:
    """/proc, /dev and /sbin/init are links out of the tree; later the guest covers what an exec uses."""
    bait = work / "bait"
    bait.mkdir(exist_ok=True)
    tree = work / "hostile"
    shutil.copytree(lab.rootfs, tree, symlinks=True)
    for name in ("proc", "dev"):
        (tree / name).rmdir()
        (tree / name).symlink_to(bait)
        root = {"kind": "dir", "path": str(tree), "lower": "", "upper": "", "work": ""}
        with pytest.raises(InternalError, match=f"mounting /{name}|making /{name}"):
            await lab.start(root=root)
        (tree / name).unlink()
        (tree / name).mkdir()
    assert list(bait.iterdir()) == []
    (tree / "sbin/init").unlink()
    (tree / "sbin/init").write_text("#!/proc/self/exe\n")
    (tree / "sbin/init").chmod(0o755)
    # The interpreter that this runs, if any, is a read-only clone and finds no library: an exit, nothing else.
    try:
        guest = await lab.start(wait=False, root=root)
    except InternalError:
        pass
    else:
        await guest.exited()


async def test_hostile_devpts_and_mounts(guest: Guest) -> None:
    await guest.sh("mount -t tmpfs none /dev/pts; : > /dev/pts/ptmx")
    with pytest.raises(InternalError, match="not a devpts"):
        await guest.files("sh", interactive=True)
    assert (await guest.run("true")).status == {"exit": 0}
    await guest.sh("mount -t tmpfs none /proc")
    assert (await guest.run("true")).status == {"exit": 0}
    # Somebody who enters can be seen but not read.
    peek = "umount /proc; for i in 1 2 3; do ls /proc/[0-9]*/root/var/tmp/lxpykt* 2>/dev/null; done; true"
    assert (await guest.run("sh", "-c", peek)).out == b""
