"""kill -9 at bad moments: nothing inside notices, and the next daemon finishes, undoes or reports."""

import contextlib
import os
import pathlib
import random
import signal
import sqlite3
import subprocess
import time

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.namespace import cgroups


def test_containers_and_local_execs_outlive_the_daemon(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    daemon.cli("launch", "bb", "b", "-s", "plain")
    addresses = {name: daemon.wait_address(name) for name in ("a", "b")}
    pids = {name: daemon.init_pid(name) for name in ("a", "b")}
    script = "i=0; while [ $i -lt 30 ]; do echo $i; sleep 0.1; i=$((i+1)); done; read x; echo got $x; exit 6"
    running = daemon.spawn("exec", "a", "--", "sh", "-c", script)
    assert running.stdout and running.stdout.readline() == b"0\n"

    daemon.kill(signal.SIGKILL)
    assert os.path.exists(f"/proc/{pids['a']}") and os.path.exists(f"/proc/{pids['b']}")
    time.sleep(0.5)
    daemon.start()

    assert {name: daemon.status(name) for name in ("a", "b")} == {"a": "RUNNING", "b": "RUNNING"}
    assert {name: daemon.init_pid(name) for name in ("a", "b")} == pids
    assert {name: daemon.wait_address(name, 2) for name in ("a", "b")} == addresses
    out, err = running.communicate(b"word\n", timeout=20)
    assert out.decode().split() == [*map(str, range(1, 30)), "got", "word"], err
    assert running.returncode == 6
    # and they can be worked with
    assert daemon.sh("a", "ping -c 1 -W 2 b").returncode == 0
    daemon.sh("a", "echo after > /dev/console")
    until(lambda: "after" in daemon.out("console", "a", "--show-log"), 3, "the console is lost")
    daemon.cli("restart", "-f", "a")
    daemon.cli("stop", "b")
    assert daemon.status("b") == "STOPPED"


def test_an_orderly_restart_of_the_daemon_is_the_same(own_lxpyd: Lxpyd) -> None:
    own_lxpyd.cli("launch", "bb", "a")
    pid = own_lxpyd.init_pid("a")
    own_lxpyd.restart()
    assert own_lxpyd.init_pid("a") == pid and own_lxpyd.status("a") == "RUNNING"


def test_what_ends_while_the_daemon_is_away_is_noticed(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    for name in ("off", "again", "dead"):
        daemon.cli("launch", "bb", name)
    daemon.cli("launch", "-e", "bb", "brief")
    pids = {name: daemon.init_pid(name) for name in ("off", "again", "dead", "brief")}
    daemon.sh("off", "(sleep 1; poweroff) >/dev/null 2>&1 </dev/null &")
    daemon.sh("brief", "(sleep 1; poweroff) >/dev/null 2>&1 </dev/null &")
    daemon.sh("again", "(sleep 1; reboot) >/dev/null 2>&1 </dev/null &")
    daemon.kill(signal.SIGKILL)
    os.kill(pids["dead"], signal.SIGKILL)
    time.sleep(3)
    daemon.start()
    daemon.wait_status("off", "STOPPED", 10)
    daemon.wait_status("dead", "STOPPED", 10)
    until(lambda: "brief" not in {i["name"] for i in daemon.json("list", "-f", "json")}, 10, "the ephemeral one stays")
    daemon.wait_status("again", "RUNNING", 10)  # the reboot was asked for: it is done now


@pytest.mark.timeout(600)
def test_killed_anywhere_in_launch_and_delete(own_lxpyd: Lxpyd) -> None:
    """Twelve kills spread over the time of a launch and of a delete; afterwards all names can be used again."""
    daemon = own_lxpyd
    begun = time.monotonic()
    daemon.cli("launch", "bb", "measure")
    launching = time.monotonic() - begun
    begun = time.monotonic()
    daemon.cli("delete", "-f", "measure")
    deleting = time.monotonic() - begun
    rng = random.Random(1)
    for n in range(12):
        name = f"k{n}"
        if n % 2:
            daemon.cli("launch", "bb", name)
        command = ("delete", "-f", name) if n % 2 else ("launch", "bb", name)
        process = daemon.spawn(*command)
        time.sleep(rng.uniform(0.2, 1.0) * (deleting if n % 2 else launching))
        daemon.kill(signal.SIGKILL)
        _, err = process.communicate(timeout=30)
        assert b"Traceback" not in err, err.decode()
        daemon.start()
        states = {i["name"]: i["status"] for i in daemon.json("list", "-f", "json")}
        if name in states:  # finished or reported: it must be usable
            assert states[name] in ("Running", "Stopped"), states
            daemon.cli("delete", "-f", name)
        daemon.cli("launch", "bb", name)
        assert daemon.sh(name, "echo fine").stdout == "fine\n"
        daemon.cli("delete", "-f", name)
    assert daemon.json("list", "-f", "json") == []
    volumes = list((daemon.dir / "storage-pools").glob("*/instances/*"))
    assert volumes == []
    until(lambda: not cgroups(daemon.layout.cgroup_prefix), 2, "cgroups are left")


def test_a_supervisor_that_dies_is_noticed(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    init = daemon.init_pid("a")
    parent = int(_stat(init)[1])
    os.kill(parent, signal.SIGKILL)
    # Its init has lost its parent; whatever lxpy makes of that, the state must settle and the name stay usable.
    until(lambda: daemon.status("a") in ("STOPPED", "RUNNING", "ERROR"), 10, "no state")
    daemon.cli("stop", "-f", "a", check=False)
    daemon.wait_status("a", "STOPPED", 10)
    assert _stat(init)[0] in ("Z", "gone")
    daemon.cli("start", "a")
    assert daemon.sh("a", "echo up").stdout == "up\n"


def _stat(pid: int) -> list[str]:
    """State, parent and so on of a process; ``gone`` when there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["gone"]


def test_the_spawner_that_dies_is_replaced(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    assert daemon.process
    children = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(daemon.process.pid)], capture_output=True, text=True, check=True
    ).stdout
    spawners = [int(line.split()[0]) for line in children.splitlines() if "spawner" in line]
    assert spawners, children
    os.kill(spawners[0], signal.SIGKILL)
    time.sleep(0.3)
    assert daemon.status("a") == "RUNNING"
    result = daemon.sh("a", "echo alive", check=False)
    if result.returncode:
        result = daemon.sh("a", "echo alive")
    assert result.stdout == "alive\n"
    daemon.cli("launch", "bb", "b")


def test_an_image_whose_record_has_gone_leaves_the_pool(own_lxpyd: Lxpyd) -> None:
    """The daemon ended between deleting the record and telling the pool; an instance of the image keeps it."""
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "user")
    place = daemon.dir / "storage-pools/default/images"
    daemon.kill(signal.SIGKILL)
    with contextlib.closing(sqlite3.connect(daemon.layout.database)) as database, database:
        database.execute("DELETE FROM image_aliases")
        database.execute("DELETE FROM images")
    daemon.start()
    assert daemon.sh("user", "echo fine").stdout == "fine\n"
    assert list(place.glob("*.dropped"))
    daemon.cli("delete", "-f", "user")
    until(lambda: list(place.iterdir()) == [], 5, "the image stays on the pool")
