"""boot.autorestart: what ended by itself is started again, later each time, and given up."""

import datetime
import os
import signal
import time

from tests.support.daemon import Lxpyd, until


def _count(lxpyd: Lxpyd, name: str) -> int:
    return int(lxpyd.out("config", "get", name, "volatile.autorestart.count") or 0)


def _crash(lxpyd: Lxpyd, name: str) -> None:
    os.kill(lxpyd.init_pid(name), signal.SIGKILL)


def _warnings(lxpyd: Lxpyd) -> str:
    return "\n".join(one["last_message"] for one in lxpyd.json("query", "/1.0/warnings?recursion=1"))


def test_it_is_started_again_and_given_up(lxpyd: Lxpyd, name: str) -> None:
    keys = ["-c", "boot.autorestart=true", "-c", "boot.autorestart.delay=0", "-c", "boot.autorestart.limit=2"]
    lxpyd.cli("launch", "bb", name, *keys)
    for number in (1, 2):
        pid = lxpyd.init_pid(name)
        _crash(lxpyd, name)
        until(lambda pid=pid: lxpyd.init_pid(name) not in (0, pid), 10, "not started again")  # type: ignore[misc]
        assert _count(lxpyd, name) == number
    assert "Restarts: 2 in a row" in lxpyd.out("info", name)
    assert lxpyd.cli("exec", name, "--", "poweroff", check=False).returncode in (0, 143)  # counts as well
    until(lambda: "3 times in a row" in _warnings(lxpyd), 10, "no warning")
    assert lxpyd.status(name) == "STOPPED" and "given up" in lxpyd.out("info", name)
    lxpyd.cli("start", name)
    assert _count(lxpyd, name) == 0 and "Restarts" not in lxpyd.out("info", name)
    lxpyd.cli("stop", "-f", name)
    time.sleep(0.5)
    assert lxpyd.status(name) == "STOPPED"


def test_it_waits_longer_each_time_and_a_stop_ends_the_waiting(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "boot.autorestart=true")
    _crash(lxpyd, name)
    lxpyd.wait_status(name, "STOPPED", 5)
    begun = time.monotonic()
    lxpyd.wait_status(name, "RUNNING", 10)
    assert 0.3 < time.monotonic() - begun < 5
    lxpyd.cli("config", "set", name, "boot.autorestart.delay=2")
    ended = datetime.datetime.now(datetime.UTC)
    _crash(lxpyd, name)
    lxpyd.wait_status(name, "STOPPED", 5)
    assert "the next one at" in lxpyd.out("info", name)
    due = datetime.datetime.fromisoformat(lxpyd.out("config", "get", name, "volatile.autorestart.due"))
    assert 4 <= (due - ended).total_seconds() < 8  # twice
    result = lxpyd.cli("stop", name)
    assert "waiting to be started again" in result.stdout + result.stderr
    time.sleep(max(0.0, (due - datetime.datetime.now(datetime.UTC)).total_seconds()) + 1)
    assert lxpyd.status(name) == "STOPPED" and _count(lxpyd, name) == 0


def test_without_the_key_it_stays_as_it_ended(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    _crash(lxpyd, name)
    lxpyd.wait_status(name, "STOPPED", 5)
    time.sleep(1.3)
    assert lxpyd.status(name) == "STOPPED"


def test_the_daemon_may_end_meanwhile(own_lxpyd: Lxpyd) -> None:
    lxpyd = own_lxpyd
    keys = ["-c", "boot.autorestart=true", "-c", "boot.autorestart.delay=2"]
    for name in ("a", "b", "c"):
        lxpyd.cli("launch", "bb", name, *keys)
    pid = lxpyd.init_pid("b")
    _crash(lxpyd, "a")
    lxpyd.wait_status("a", "STOPPED", 5)
    lxpyd.kill()  # "a" waits for its restart
    os.kill(pid, signal.SIGKILL)  # "b" ends while nobody looks
    time.sleep(0.5)
    lxpyd.start()
    for name in ("a", "b"):
        lxpyd.wait_status(name, "RUNNING", 10)
        assert _count(lxpyd, name) == 1
    assert _count(lxpyd, "c") == 0
    # One that was asked to stop when the daemon ended has not ended by itself.
    lxpyd.sh("c", "echo '::shutdown:/bin/sleep 3' >> /etc/inittab; kill -HUP 1")
    time.sleep(0.3)
    stopping = lxpyd.spawn("stop", "c")
    until(lambda: "Stopping" in lxpyd.out("operation", "list"), 10, "it does not stop")
    lxpyd.kill()
    stopping.communicate(timeout=10)
    lxpyd.start()
    lxpyd.wait_status("c", "STOPPED", 10)
    time.sleep(2.5)
    assert lxpyd.status("c") == "STOPPED"
