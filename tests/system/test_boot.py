"""Order: what starts by itself, what a start waits for, what a shutdown stops first."""

import signal
import time

import pytest

from tests.support import guest
from tests.support.daemon import Lxpyd, until


def _started(lxpyd: Lxpyd, *names: str) -> list[str]:
    """The names in the order they were started last."""
    return sorted(names, key=lambda name: str(lxpyd.instance(name)["last_used_at"]))


def _warnings(lxpyd: Lxpyd) -> str:
    return "\n".join(one["last_message"] for one in lxpyd.json("query", "/1.0/warnings?recursion=1"))


def test_a_start_starts_what_is_required_and_waits_for_its_address(lxpyd: Lxpyd, name: str) -> None:
    db, cache, web = f"{name}-db", f"{name}-cache", f"{name}-web"
    lxpyd.cli("create", "bb", db)
    lxpyd.cli("create", "bb", cache, "-c", f"boot.requires={db}:running")
    lxpyd.cli("create", "bb", web, "-c", f"boot.requires={db}, {cache}")
    result = lxpyd.cli("start", web)
    assert result.stderr == "" and _started(lxpyd, db, cache, web) == [db, cache, web]
    assert lxpyd.addresses(db) and lxpyd.addresses(cache)  # waited for, with no patience of ours
    lxpyd.cli("stop", "-f", db)
    assert lxpyd.status(web) == "RUNNING"


def test_several_at_once_are_no_error(lxpyd: Lxpyd, name: str) -> None:
    db, web = f"{name}-db", f"{name}-web"
    lxpyd.cli("create", "bb", db)
    lxpyd.cli("create", "bb", web, "-c", f"boot.requires={db}")
    lxpyd.cli("start", web, db)
    assert {lxpyd.status(one) for one in (web, db)} == {"RUNNING"}


def test_ready_is_what_the_guest_says(lxpyd: Lxpyd, name: str) -> None:
    db, web = f"{name}-db", f"{name}-web"
    lxpyd.cli("create", "bb", db)
    lxpyd.cli("create", "bb", web, "-c", f"boot.requires={db}:ready")
    starting = lxpyd.spawn("start", web)
    lxpyd.wait_status(db, "RUNNING")
    time.sleep(0.7)
    assert starting.poll() is None and lxpyd.status(web) == "STOPPED"
    assert guest.ask(lxpyd, db, "/1.0", "PATCH", {"state": "Ready"})[0] == 200
    assert starting.communicate(timeout=20)[1] == b"" and lxpyd.status(web) == "RUNNING"


def test_what_is_not_ready_in_time_is_told(lxpyd: Lxpyd, name: str) -> None:
    db, web = f"{name}-db", f"{name}-web"
    lxpyd.cli("create", "bb", db)
    lxpyd.cli("create", "bb", web, "-c", f"boot.requires={db}:ready", "-c", "boot.requires.timeout=1")
    begun = time.monotonic()
    result = lxpyd.cli("start", web)
    assert 1 <= time.monotonic() - begun < 15
    text = f"{web}: waited 1 s in vain for '{db}' to be ready"
    assert text in result.stdout + result.stderr and text in _warnings(lxpyd)
    assert lxpyd.status(web) == "RUNNING"
    keys = ["-c", f"boot.requires={db}:ready", "-c", "boot.requires.timeout=1"]
    assert "waited 1 s in vain" in lxpyd.cli("launch", "bb", f"{name}-other", *keys).stderr


def test_what_cannot_be_required(lxpyd: Lxpyd, name: str) -> None:
    a, b, c = f"{name}-a", f"{name}-b", f"{name}-c"
    lxpyd.cli("create", "bb", a, "-c", f"boot.requires={b}")
    lxpyd.cli("create", "bb", b, "-c", f"boot.requires={c}")
    lxpyd.cli("profile", "create", f"{name}-p")
    for args, word in (
        (("create", "bb", c, "-c", f"boot.requires={a}"), f"circle: {c} -> {a} -> {b} -> {c}"),
        (("config", "set", b, f"boot.requires={a}"), "circle"),
        (("config", "set", b, f"boot.requires={b}"), "circle"),
        (("config", "set", b, f"boot.requires={c}:soon"), "none of running, address, ready"),
        (("config", "set", b, "boot.requires=a b"), "boot.requires"),
        (("config", "set", b, "boot.requires=,"), "boot.requires"),
        (("config", "set", b, "boot.requires.timeout=soon"), "whole number"),
        (("start", a), f"could not be started: Instance '{b}' requires '{c}', which is not there"),
    ):
        result = lxpyd.cli(*args, check=False)
        assert result.returncode == 1 and word in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert {lxpyd.status(one) for one in (a, b)} == {"STOPPED"}
    lxpyd.cli("profile", "set", f"{name}-p", f"boot.requires={a}")
    assert lxpyd.cli("profile", "assign", a, f"default,{name}-p", check=False).returncode == 0  # its own key wins
    lxpyd.cli("config", "unset", a, "boot.requires", check=False)
    assert lxpyd.out("config", "get", a, "boot.requires") == b  # the profile's would be a circle
    lxpyd.cli("delete", a)
    lxpyd.cli("profile", "delete", f"{name}-p")


def test_a_protected_one_is_not_started(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name, "-c", "security.protection.start=true")
    result = lxpyd.cli("start", name, check=False)
    assert result.returncode == 1 and "security.protection.start" in result.stderr
    lxpyd.cli("config", "unset", name, "security.protection.start")
    lxpyd.cli("start", name)
    lxpyd.cli("config", "set", name, "security.protection.start=true")
    lxpyd.cli("stop", "-f", name)


def test_the_host_comes_and_goes(own_lxpyd: Lxpyd) -> None:
    """A shutdown of the daemon with its instances, and a start of it: priorities, delays, requirements, last state."""
    lxpyd = own_lxpyd
    keys = {
        "late": ["boot.autostart=true"],
        "early": ["boot.autostart=true", "boot.autostart.priority=10", "boot.autostart.delay=1"],
        "web": ["boot.autostart.priority=20", "boot.requires=db"],
        "db": ["boot.autostart=true"],
        "never": ["boot.autostart=false"],
        "guarded": ["boot.autostart=true", "security.protection.start=true"],
        "off": [],
    }
    for name, options in keys.items():
        lxpyd.cli("create", "bb", name, *(word for option in options for word in ("-c", option)))
    lxpyd.cli("start", "web", "never")
    lxpyd.kill(signal.SIGPWR)  # stops them all
    lxpyd.start()
    for name in ("late", "early", "db", "web"):
        lxpyd.wait_status(name, "RUNNING", 30)
    order = _started(lxpyd, "late", "early", "db", "web")
    assert order.index("early") < order.index("late") and order.index("db") < order.index("web")
    assert [lxpyd.status(name) for name in ("never", "guarded", "off")] == ["STOPPED"] * 3
    ended = {}
    lxpyd.kill(signal.SIGPWR)
    lxpyd.start()
    for name in ("db", "web"):
        lxpyd.wait_status(name, "RUNNING", 30)
        ended[name] = lxpyd.out("config", "get", name, "volatile.last_state.at")
    text = lxpyd.layout.log
    assert text and "could not be started" not in _warnings(lxpyd)


@pytest.mark.slow
def test_a_systemd_guest_is_ready_when_systemd_says_so(lxpyd: Lxpyd, name: str, debian_image: str) -> None:
    lxpyd.cli("create", debian_image, f"{name}-db")
    lxpyd.cli("create", "bb", f"{name}-web", "-c", f"boot.requires={name}-db:ready")
    assert lxpyd.cli("start", f"{name}-web").stderr == ""
    state = lxpyd.cli("exec", f"{name}-db", "--", "systemctl", "is-system-running", check=False).stdout
    assert state in ("running\n", "degraded\n")
    until(lambda: lxpyd.status(f"{name}-web") == "RUNNING", 5, "not started")
