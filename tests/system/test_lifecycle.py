"""The life of a container, seen from the command line."""

import fcntl
import json
import pathlib
import subprocess
import time

import pytest

from tests.support.daemon import Lxpyd, until


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_a_container_lives_and_leaves_nothing(lxpyd: Lxpyd, name: str, pool: str) -> None:
    before = lxpyd.snapshot()
    lxpyd.cli("launch", "bb", name, "-s", pool)
    assert lxpyd.status(name) == "RUNNING"
    assert lxpyd.sh(name, "hostname; readlink /proc/1/exe").stdout.split() == [name, "/bin/busybox"]
    assert lxpyd.wait_address(name).startswith(lxpyd.address.rpartition(".")[0])

    lxpyd.cli("stop", name)
    assert lxpyd.status(name) == "STOPPED"
    lxpyd.cli("start", name)
    assert lxpyd.status(name) == "RUNNING"
    pid = lxpyd.init_pid(name)
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.status(name) == "RUNNING" and lxpyd.init_pid(name) != pid
    lxpyd.cli("delete", "-f", name)
    until(lambda: lxpyd.snapshot() == before, 3, f"{before} is not {lxpyd.snapshot()}")


def test_a_start_waits_for_the_supervisor_before_it(lxpyd: Lxpyd, busybox: str) -> None:
    """That one removes the cgroups of the name last of all, when the daemon has long been told of the end."""
    lxpyd.cli("stop", "-f", busybox)
    lock = pathlib.Path(lxpyd.layout.instances, f"{busybox}.lock")
    until(lambda: not lock.exists(), 3, "the supervisor leaves its lock behind")
    with lock.open("w") as predecessor:
        fcntl.flock(predecessor, fcntl.LOCK_EX)
        starting = lxpyd.spawn("start", busybox)
        with pytest.raises(subprocess.TimeoutExpired):
            starting.communicate(timeout=0.7)
        lock.unlink()
    starting.communicate(timeout=10)
    assert starting.returncode == 0 and lxpyd.status(busybox) == "RUNNING"
    assert lxpyd.sh(busybox, "true").returncode == 0


def test_what_could_not_start_again_is_not_stopped(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    lxpyd.cli("config", "device", "add", busybox, "d", "disk", f"source={place}", "path=/d")
    pid = lxpyd.init_pid(busybox)
    place.rmdir()
    for flags in ((), ("-f",)):
        said = lxpyd.cli("restart", busybox, *flags, check=False)
        assert said.returncode == 1 and said.stderr == f"Error: Missing source path '{place}' for the disk at /d\n"
        assert lxpyd.init_pid(busybox) == pid
    lxpyd.cli("config", "set", busybox, "security.protection.start=true")
    assert "is protected" in lxpyd.cli("restart", "-f", busybox, check=False).stderr
    assert lxpyd.init_pid(busybox) == pid


def test_files_survive_a_restart(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.sh(busybox, "echo kept > /root/file; mkdir /srv; chown 1000:1000 /root/file")
    lxpyd.cli("restart", busybox)
    assert lxpyd.sh(busybox, "cat /root/file; stat -c %u:%g /root/file").stdout.split() == ["kept", "1000:1000"]


def test_create_does_not_start(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    assert lxpyd.status(name) == "STOPPED"
    lxpyd.cli("init", "bb", f"{name}-2")
    assert lxpyd.status(f"{name}-2") == "STOPPED"
    lxpyd.cli("delete", name, f"{name}-2")


def test_a_name_is_made_up(lxpyd: Lxpyd) -> None:
    before = {i["name"] for i in lxpyd.json("list", "-f", "json")}
    text = lxpyd.out("create", "bb")
    (made,) = {i["name"] for i in lxpyd.json("list", "-f", "json")} - before
    assert made in text
    lxpyd.cli("delete", made)


def test_several_names_at_once(lxpyd: Lxpyd, name: str) -> None:
    names = [f"{name}-{n}" for n in range(3)]
    for each in names:
        lxpyd.cli("create", "bb", each)
    lxpyd.cli("start", *names)
    assert {lxpyd.status(each) for each in names} == {"RUNNING"}
    lxpyd.cli("pause", *names[:2])
    assert [lxpyd.status(each) for each in names] == ["FROZEN", "FROZEN", "RUNNING"]
    lxpyd.cli("resume", *names[:2])
    lxpyd.cli("stop", "-f", *names)
    assert {lxpyd.status(each) for each in names} == {"STOPPED"}
    lxpyd.cli("delete", *names)
    assert not [i for i in lxpyd.json("list", "-f", "json") if i["name"] in names]


def test_one_bad_name_among_several_does_not_keep_the_others(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    result = lxpyd.cli("start", name, f"{name}-nothing", check=False)
    assert result.returncode == 1 and f"{name}-nothing" in result.stderr
    assert lxpyd.status(name) == "RUNNING"


def test_pause_stops_every_process(lxpyd: Lxpyd, busybox: str) -> None:
    # The guest writes the time all the while; frozen, the file stands still.
    lxpyd.sh(busybox, "(while :; do cat /proc/uptime > /tmp/now; sleep 0.02; done) >/dev/null 2>&1 </dev/null &")
    lxpyd.cli("pause", busybox)
    groups = [p for p in _groups(lxpyd, busybox) if (p / "cgroup.freeze").exists()]
    assert "frozen 1" in (groups[0] / "cgroup.events").read_text()
    lxpyd.cli("resume", busybox)
    assert "frozen 0" in (groups[0] / "cgroup.events").read_text()
    assert lxpyd.status(busybox) == "RUNNING"
    lxpyd.cli("pause", busybox)
    lxpyd.cli("stop", "-f", busybox)
    assert lxpyd.status(busybox) == "STOPPED"


def _groups(lxpyd: Lxpyd, name: str) -> list:  # type: ignore[type-arg]
    from tests.support.namespace import cgroups

    return [path for path in cgroups(lxpyd.layout.cgroup_prefix) if path.name.endswith(f"payload.{name}")]


def test_rename_moves_everything(lxpyd: Lxpyd, busybox: str) -> None:
    new = f"{busybox}-new"
    assert lxpyd.cli("rename", busybox, new, check=False).returncode == 1  # it runs
    lxpyd.sh(busybox, "echo here > /root/file")
    lxpyd.cli("stop", "-f", busybox)
    lxpyd.cli("rename", busybox, new)
    lxpyd.cli("start", new)
    assert lxpyd.sh(new, "cat /root/file; hostname").stdout.split() == ["here", new]
    lxpyd.wait_address(new)


def test_an_ephemeral_one_goes_when_it_stops(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "-e", "bb", name)
    lxpyd.cli("stop", name)
    until(lambda: name not in {i["name"] for i in lxpyd.json("list", "-f", "json")}, 5, f"{name} is still there")


def test_launch_options(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("profile", "create", f"{name}-p")
    lxpyd.cli("profile", "set", f"{name}-p", "user.colour", "red")
    options = ["-p", "default", "-p", f"{name}-p", "-s", "plain", "-n", lxpyd.bridge, "-c", "limits.memory=64MiB"]
    lxpyd.cli("launch", "bb", name, *options, "-c", "user.size=big")
    instance = lxpyd.instance(name)
    assert instance["profiles"] == ["default", f"{name}-p"]
    assert instance["expanded_config"]["user.colour"] == "red"
    assert instance["config"]["user.size"] == "big" and instance["config"]["limits.memory"] == "64MiB"
    assert instance["expanded_devices"]["root"]["pool"] == "plain"
    assert [d["network"] for d in instance["expanded_devices"].values() if d["type"] == "nic"] == [lxpyd.bridge]
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("profile", "delete", f"{name}-p")


def test_configuration_from_standard_input(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name, input="config:\n  user.note: from yaml\ndescription: of yaml\n")
    assert lxpyd.instance(name)["config"]["user.note"] == "from yaml"
    assert lxpyd.instance(name)["description"] == "of yaml"


def test_poweroff_inside_is_noticed(lxpyd: Lxpyd, busybox: str) -> None:
    assert lxpyd.cli("exec", busybox, "--", "poweroff", check=False).returncode in (0, 143)
    lxpyd.wait_status(busybox, "STOPPED", 10)
    lxpyd.cli("start", busybox)
    assert lxpyd.status(busybox) == "RUNNING"


def test_reboot_inside_starts_it_again(lxpyd: Lxpyd, busybox: str) -> None:
    address = lxpyd.wait_address(busybox)
    pid = lxpyd.init_pid(busybox)
    # Init ends every process, this one perhaps before it has exited: 0 or 128+15.
    assert lxpyd.cli("exec", busybox, "--", "reboot", check=False).returncode in (0, 143)
    until(lambda: lxpyd.init_pid(busybox) not in (pid, 0), 15, "it did not reboot")
    assert lxpyd.wait_address(busybox) == address


def test_a_crash_of_init_is_shown_with_its_reason(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    import os
    import signal

    os.kill(lxpyd.init_pid(name), signal.SIGSEGV)
    os.kill(lxpyd.init_pid(name), signal.SIGKILL)
    lxpyd.wait_status(name, "STOPPED", 10)
    text = lxpyd.out("info", name).lower()
    assert "signal 9" in text or "sigkill" in text, text


def test_an_oom_kill_is_shown(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=32MiB", "-c", "limits.memory.swap=false")
    result = lxpyd.sh(name, "head -c 200m /dev/zero | tail -c 199m | wc -c", check=False)
    assert result.returncode != 0 or "Killed" in result.stderr
    assert "oom" in lxpyd.out("info", name).lower() or "out of memory" in lxpyd.out("info", name).lower()
    assert lxpyd.status(name) in ("RUNNING", "STOPPED")


def test_the_console_log_survives(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.sh(busybox, "echo first words > /dev/console")
    until(lambda: "first words" in lxpyd.cli("console", busybox, "--show-log").stdout, 3, "not in the console log")
    lxpyd.cli("stop", "-f", busybox)
    assert "first words" in lxpyd.cli("console", busybox, "--show-log").stdout


def test_stop_escalates_at_the_time_limit(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(
        name,
        "printf '#!/bin/sh\\nsleep 60\\n' > /sbin/slow; echo '::shutdown:/bin/sleep 60' >> /etc/inittab; kill -HUP 1",
    )
    time.sleep(0.5)
    begun = time.monotonic()
    result = lxpyd.cli("stop", name, "--timeout", "2", check=False)
    assert time.monotonic() - begun < 15
    assert result.returncode == 0 and "did not shut down within 2 s (still running: " in result.stderr
    assert "sleep (" in result.stderr
    assert lxpyd.status(name) == "STOPPED"


def test_state_errors_are_one_line(lxpyd: Lxpyd, busybox: str) -> None:
    for args in (("start", busybox), ("delete", busybox), ("resume", busybox)):
        result = lxpyd.cli(*args, check=False)
        assert result.returncode == 1, args
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    lxpyd.cli("stop", "-f", busybox)
    for args in (("stop", busybox), ("pause", busybox), ("exec", busybox, "--", "true")):
        result = lxpyd.cli(*args, check=False)
        assert result.returncode == 1, args
        assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr


def test_a_protected_one_is_not_deleted(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name, "-c", "security.protection.delete=true")
    assert lxpyd.cli("delete", "-f", name, check=False).returncode == 1
    lxpyd.cli("config", "unset", name, "security.protection.delete")
    lxpyd.cli("delete", name)


def test_privileged(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "security.privileged=true")
    assert lxpyd.sh(name, "cat /proc/self/uid_map").stdout.split() == ["0", "0", "4294967295"]
    lxpyd.wait_address(name)
    assert lxpyd.cli("config", "set", name, "security.privileged=false", check=False).returncode == 1  # it runs
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("config", "set", name, "security.privileged=false")
    lxpyd.cli("start", name)
    base = int(lxpyd.sh(name, "cat /proc/self/uid_map").stdout.split()[1])
    assert base >= 65536


def test_twenty_at_once(lxpyd: Lxpyd, name: str) -> None:
    names = [f"{name}-{n}" for n in range(20)]
    running = [lxpyd.spawn("launch", "bb", each) for each in names]
    failed = [err for process in running if (err := process.communicate(timeout=120)[1]) or process.returncode]
    assert not failed
    assert {i["status"] for i in lxpyd.json("list", "-f", "json", name)} == {"Running"}
    maps = {lxpyd.sh(each, "awk '{print $2}' /proc/self/uid_map").stdout for each in names}
    assert len(maps) == 20, "two containers share an id map"
    addresses = [lxpyd.wait_address(each) for each in names]
    assert len(set(addresses)) == 20
    assert json.loads(lxpyd.cli("list", "-f", "json", f"{name}-3").stdout)
    lxpyd.cli("delete", "-f", *names)
