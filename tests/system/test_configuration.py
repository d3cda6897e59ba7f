"""config, profiles, limits: what the kernel has is what was asked for, also while it runs."""

import os
import re

import pytest
import yaml

from lxpy.linux import cgroups
from tests.support.daemon import Lxpyd, until


def _limit(lxpyd: Lxpyd, name: str, controller: str, v1: str, v2: str) -> str:
    """The value of a limit as the kernel has it, in whichever hierarchy holds the controller."""
    group = f"{lxpyd.layout.cgroup_prefix}.payload.{name}"
    found = cgroups.hierarchies()
    root, file = (found.unified, v2) if found.has_v2(controller) else (found.v1[controller], v1)
    with open(f"{root}/{group}/{file}", encoding="utf-8") as value:
        return value.read().strip()


def test_get_set_unset_show(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    lxpyd.cli("config", "set", name, "user.a=1", "user.b=two words")
    lxpyd.cli("config", "set", name, "user.c", "old form")
    assert [lxpyd.out("config", "get", name, f"user.{k}") for k in "abc"] == ["1", "two words", "old form"]
    lxpyd.cli("config", "unset", name, "user.b")
    assert lxpyd.out("config", "get", name, "user.b") == ""
    shown = lxpyd.out("config", "show", name)
    assert "user.a: " in shown and "user.b" not in shown and "eth0" not in shown
    assert "eth0" in lxpyd.out("config", "show", "-e", name)


def test_edit_from_standard_input(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name, "-c", "user.a=1")
    shown = yaml.safe_load(lxpyd.out("config", "show", name))
    shown["config"]["user.a"] = "2"
    text = yaml.safe_dump(shown)
    lxpyd.cli("config", "edit", name, input=text)
    assert lxpyd.out("config", "get", name, "user.a") == "2"
    before = lxpyd.instance(name)["config"]
    assert lxpyd.cli("config", "edit", name, input="config: [nonsense", check=False).returncode == 1
    assert lxpyd.instance(name)["config"] == before


def test_memory_limit_lives(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=64MiB")
    assert int(_limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max")) == 64 << 20
    lxpyd.cli("config", "set", name, "limits.memory=128MiB")
    assert int(_limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max")) == 128 << 20
    lxpyd.cli("config", "set", name, "limits.memory=32MiB")
    assert int(_limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max")) == 32 << 20
    lxpyd.cli("config", "unset", name, "limits.memory")
    value = _limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max")
    assert value == "max" or int(value) > 1 << 60


def test_cpu_limits_live(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.cpu=1")
    assert lxpyd.sh(name, "nproc").stdout.strip() == "1"
    last = os.cpu_count() - 1  # type: ignore[operator]
    lxpyd.cli("config", "set", name, f"limits.cpu=0-{last}")
    assert lxpyd.sh(name, "nproc").stdout.strip() == str(last + 1)
    lxpyd.cli("config", "set", name, f"limits.cpu={last}-{last}")
    assert lxpyd.sh(name, "grep Cpus_allowed_list /proc/self/status").stdout.split()[1] == str(last)
    lxpyd.cli("config", "unset", name, "limits.cpu")
    assert lxpyd.sh(name, "nproc").stdout.strip() == str(os.cpu_count())

    lxpyd.cli("config", "set", name, "limits.cpu.allowance=25ms/100ms")
    found = cgroups.hierarchies()
    if found.has_v2("cpu"):
        assert _limit(lxpyd, name, "cpu", "", "cpu.max") == "25000 100000"
    else:
        assert _limit(lxpyd, name, "cpu", "cpu.cfs_quota_us", "") == "25000"
        assert _limit(lxpyd, name, "cpu", "cpu.cfs_period_us", "") == "100000"
    lxpyd.cli("config", "set", name, "limits.cpu.allowance=50%")
    value = _limit(lxpyd, name, "cpu", "cpu.shares", "cpu.weight")
    assert int(value) == (512 if not found.has_v2("cpu") else 50) or int(value) in range(15, 60)


def test_process_limit_holds_and_lives(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.processes=20")
    script = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo made it"
    result = lxpyd.sh(name, script, check=False, timeout=60)
    assert "made it" not in result.stdout, result
    assert _limit(lxpyd, name, "pids", "pids.max", "pids.max") == "20"
    lxpyd.cli("config", "set", name, "limits.processes=200")
    assert _limit(lxpyd, name, "pids", "pids.max", "pids.max") == "200"


def test_profiles_change_what_runs(lxpyd: Lxpyd, name: str) -> None:
    profile = f"{name}-p"
    lxpyd.cli("profile", "create", profile)
    lxpyd.cli("launch", "bb", name, "-p", "default", "-p", profile)
    lxpyd.cli("profile", "set", profile, "limits.memory=96MiB")
    read = lambda: int(_limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max"))  # noqa: E731
    until(lambda: read() == 96 << 20, 3, "the profile's limit did not arrive")
    assert profile in lxpyd.out("profile", "list", "-f", "csv")
    assert "limits.memory" in lxpyd.out("profile", "show", profile)
    assert lxpyd.cli("profile", "delete", profile, check=False).returncode == 1  # in use
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("profile", "delete", profile)


def test_a_refused_change_changes_nothing(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=64MiB")
    before = lxpyd.instance(name)["config"]
    for pair in ("limits.memory=lots", "limits.cpu=1000-2000", "limits.cpu=0", "limits.processes=-1", "no.such=1"):
        result = lxpyd.cli("config", "set", name, pair, check=False)
        assert result.returncode == 1 and re.match(r"Error: .+\n\Z", result.stderr), (pair, result.stderr)
    assert lxpyd.instance(name)["config"] == before
    assert int(_limit(lxpyd, name, "memory", "memory.limit_in_bytes", "memory.max")) == 64 << 20


def test_an_etag_that_is_old_is_refused(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    from lxpy.api.errors import PreconditionFailed
    from lxpy.client import connect

    os.environ["LXPY_DIR"] = str(lxpyd.dir)
    try:
        client = connect()
        document, etag = client.get_etag(f"/1.0/instances/{name}")
        lxpyd.cli("config", "set", name, "user.now=1")
        with pytest.raises(PreconditionFailed):
            client.wait(client.put(f"/1.0/instances/{name}", document, etag=etag))
        client.close()
    finally:
        del os.environ["LXPY_DIR"]


def test_an_empty_option_of_a_device_is_not_set(lxpyd: Lxpyd, name: str) -> None:
    """As in LXD: neither kept, nor held to be a value; so a copy can do without what its source has."""
    lxpyd.cli("init", "bb", name, "-d", "root,size=", "-d", "eth0,type=none")
    devices = lxpyd.json("query", f"/1.0/instances/{name}")["devices"]
    assert "size" not in devices["root"] and devices["eth0"] == {"type": "none"}
    lxpyd.cli("config", "device", "add", name, "etc", "disk", "source=/etc", "path=/mnt", "readonly=")
    assert lxpyd.json("query", f"/1.0/instances/{name}")["devices"]["etc"].keys() == {"type", "source", "path"}
    lxpyd.cli("config", "device", "set", name, "etc", "readonly=true")
    lxpyd.cli("config", "device", "set", name, "etc", "readonly=")
    assert "readonly" not in lxpyd.json("query", f"/1.0/instances/{name}")["devices"]["etc"]
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "device", "add", name, "etc", "disk", "source=/etc", "path=/srv", "readonly=")
    assert "readonly" not in lxpyd.json("query", f"/1.0/profiles/{name}")["devices"]["etc"]
    lxpyd.cli("profile", "delete", name)


def test_volatile_keys_are_written_with_care_and_can_go(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    before = lxpyd.instance(name)["config"]
    for key, value, said in (
        ("volatile.x", "y", "Unknown configuration key 'volatile.x'"),
        ("volatile.eth0.hwaddr", "junk", "'junk' is not a"),
        ("volatile.root.size", "junk", "'junk' is not a size"),
    ):
        for refused in (
            lxpyd.cli("config", "set", name, f"{key}={value}", check=False),
            lxpyd.cli("init", "bb", f"{name}2", "-c", f"{key}={value}", check=False),
        ):
            assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1
    assert lxpyd.instance(name)["config"] == before
    # Another address from the next start on.
    lxpyd.cli("config", "unset", name, "volatile.eth0.hwaddr")
    assert "volatile.eth0.hwaddr" not in lxpyd.instance(name)["config"]
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.instance(name)["config"]["volatile.eth0.hwaddr"] != before["volatile.eth0.hwaddr"]


def test_properties_are_set_as_what_they_are_and_others_refused(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("config", "set", "-p", name, "ephemeral=true", "description=two words")
    assert lxpyd.out("config", "get", "-p", name, "ephemeral") == "true" and lxpyd.instance(name)["ephemeral"] is True
    lxpyd.cli("config", "unset", "-p", name, "ephemeral")
    lxpyd.cli("config", "unset", "-p", name, "description")
    assert lxpyd.instance(name)["ephemeral"] is False and lxpyd.instance(name)["description"] == ""
    lxpyd.cli("snapshot", name, "s")
    lxpyd.cli("storage", "volume", "create", "plain", name)
    for words, said in (
        (("config", "set", "-p", name, "ephemeral=maybe"), "Invalid value for ephemeral: 'maybe'"),
        (("config", "set", "-p", name, "name=x"), "no property 'name' that could be set; there are: description"),
        (("config", "set", "-p", name, "architecture=riscv64"), "no property 'architecture' that could be set"),
        (("config", "set", "-p", f"{name}/s", "name=x"), "no property 'name' that could be set; there are: expires_at"),
        (("config", "set", "-p", "user.x=y"), "--property is for instances"),
        (("config", "get", "-p", name, "nonsense"), "no property 'nonsense'"),
        (("profile", "set", "-p", "default", "name=x"), "no property 'name' that could be set; there are: description"),
        (("network", "unset", "-p", lxpyd.bridge, "type"), "no property 'type' that could be set"),
        (("storage", "volume", "set", "-p", "plain", name, "type=x"), "no property 'type' that could be set"),
    ):
        refused = lxpyd.cli(*words, check=False)
        assert refused.returncode == 1 and said in refused.stderr and refused.stderr.count("\n") == 1, words
    lxpyd.cli("storage", "volume", "delete", "plain", name)


def test_what_is_piped_into_edit_stays_as_it_is_written(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    text = "config: {user.a: 0755, environment.VERSION: 1.10, user.c: yes}\nprofiles: [default]\n"
    lxpyd.cli("config", "edit", name, input=text)
    config = lxpyd.instance(name)["config"]
    assert (config["user.a"], config["environment.VERSION"], config["user.c"]) == ("0755", "1.10", "yes")
