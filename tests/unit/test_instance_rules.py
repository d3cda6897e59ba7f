"""What users may write in an instance's configuration, and what becomes of it."""

import os

import pytest

from lxpy.api import values
from lxpy.api.errors import BadRequest, Unavailable
from lxpy.instances import cpus, idmaps, keys, limits, names
from lxpy.instances import devices as device_rules

NIC = {"type": "nic", "network": "lxpybr0"}
ROOT = {"type": "disk", "path": "/", "pool": "default"}


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"limits.memroy": "1GiB"}, "did you mean 'limits.memory'"),
        ({"limits.memory": "lots"}, "not a size"),
        ({"limits.memory": "0%"}, "1% and 100%"),
        ({"limits.memory": "4kB"}, "below 1MiB"),
        ({"limits.cpu": "0"}, "at least 1"),
        ({"limits.cpu": "3-1"}, "backwards"),
        ({"limits.cpu": "x"}, "not a CPU set"),
        ({"limits.cpu.allowance": "200%"}, "neither a share"),
        ({"limits.cpu.allowance": "20ms"}, "neither a share"),
        ({"limits.cpu.allowance": "20ms/5000ms"}, "neither a share"),
        ({"limits.processes": "-1"}, "whole number"),
        ({"security.privileged": "maybe"}, "not a boolean"),
        ({"raw.lxc": "lxc.mount.auto = proc"}, "use a disk device"),
        ({"nvidia.runtime": "true"}, "unix-char"),
        ({"linux.sysctl.vm.swappiness": "1"}, "belongs to the whole host"),
        ({"foo": "bar"}, "Unknown configuration key 'foo'"),
        ({"environment.A=B": "x"}, "plain name"),
        ({"user.x": "a\0b"}, "NUL"),
        ({"user.x": 3}, "must be a string"),
    ],
)
def test_faulty_configuration_is_refused_with_the_reason(config: dict[str, str], word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        keys.validate_config(config)


@pytest.mark.parametrize(
    ("device", "word"),
    [
        ({}, "Missing type"),
        ({"type": "tpm"}, "type=tpm on device"),
        ({"type": "usbx"}, "Unsupported type 'usbx'"),
        (NIC | {"parent": "br1"}, "Both network and parent"),
        ({"type": "nic"}, "Missing network"),
        (NIC | {"name": "an-interface-name"}, "1 to 15 characters"),
        (NIC | {"name": "../x"}, "1 to 15 characters"),
        (NIC | {"hwaddr": "01:00:5e:00:00:01"}, "unicast MAC"),
        (NIC | {"ipv4.address": "10.0.0.0/24"}, "without prefix"),
        (NIC | {"ipv4.adress": "10.0.0.2"}, "did you mean 'ipv4.address'"),
        (NIC | {"mtu": "20"}, "68 to 65535"),
        (ROOT | {"size": "big"}, "is not a size"),
        ({"type": "disk", "path": "/"}, "needs a storage pool"),
        ({"type": "disk", "path": "/", "pool": "p", "readonly": "true"}, "this is the root disk"),
        ({"type": "disk", "path": "/", "source": "/srv"}, "cover the root"),
        ({"type": "disk", "path": "/a/../b", "source": "/srv"}, "without .."),
        ({"type": "disk", "path": "/a", "source": "srv"}, "absolute path on the host"),
    ],
)
def test_faulty_devices_are_refused_with_the_reason(device: dict[str, str], word: str) -> None:
    with pytest.raises(BadRequest, match=word):
        device_rules.validate({"d0": device})


def test_an_instance_has_exactly_one_root_disk() -> None:
    device_rules.validate({"root": ROOT, "eth0": NIC}, expanded=True)
    with pytest.raises(BadRequest, match="No root device"):
        device_rules.validate({"eth0": NIC}, expanded=True)
    with pytest.raises(BadRequest, match="More than one root disk: a, b"):
        device_rules.validate({"a": ROOT, "b": ROOT}, expanded=True)


def test_limits_in_the_kernels_units() -> None:
    config = {
        "limits.memory": "512MiB",
        "limits.memory.swap": "false",
        "limits.cpu": "0",
        "limits.cpu.allowance": "25ms/100ms",
        "limits.processes": "50",
    }
    assert limits.from_config(config) == {
        "memory": 512 << 20,
        "memory_soft": False,
        "swap": False,
        "cpu_quota": (25_000, 100_000),
        "processes": 50,
    }
    assert limits.from_config({"limits.cpu.allowance": "50%"}) == {"cpu_shares": 512}
    half = limits.from_config({"limits.memory": "50%"})["memory"]
    assert half == limits.host_memory() // 2


def test_resource_limits_that_nobody_may_have_are_told() -> None:
    found, less = limits.rlimits({"limits.kernel.nofile": "5:99999999999", "limits.kernel.core": "unlimited"})
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        assert found["nofile"][0] == 5 and found["nofile"][1] <= int(file.read())
    assert "fs.nr_open" in less[0]


def test_a_cpu_count_takes_the_least_used_cpus() -> None:
    online = sorted(os.sched_getaffinity(0))
    assert cpus.choose(1, range(4), {}, "") == "0"
    assert cpus.choose(1, range(4), {0: 1}, "") == "1"
    assert cpus.choose(2, range(4), {0: 1, 1: 2, 2: 1}, "") == "0,3"
    # Nobody is moved who need not be.
    assert cpus.choose(2, range(4), {}, "2-3") == "2,3"
    assert cpus.choose(1, range(4), {3: 1}, "3") == "0"
    # As many as there are, or more, are all of them.
    assert cpus.wanted({"limits.cpu": "1000"}) == (",".join(map(str, online)), 0, ())
    with pytest.raises(BadRequest, match="CPU 4000 is not on this host"):
        cpus.wanted({"limits.cpu": "0,4000"})
    with pytest.raises(BadRequest, match="no NUMA node 700"):
        cpus.wanted({"limits.cpu.nodes": "700"})


def test_id_maps_never_overlap_and_end_with_a_clear_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LXPY_IDMAP", f"5000000:{3 * 65536}")
    taken: set[int] = set()
    for expected in (5000000, 5065536, 5131072):
        base = idmaps.allocate(taken)["base"]
        assert base == expected
        taken.add(base)
    with pytest.raises(Unavailable, match="All 3 id maps"):
        idmaps.allocate(taken)
    taken.remove(5065536)
    assert idmaps.allocate(taken)["base"] == 5065536


def test_generated_names_are_valid_and_new() -> None:
    taken: set[str] = set()
    for _ in range(200):
        name = names.generate(taken)
        assert name not in taken
        taken.add(values.instance_name(name))


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "a_b", "a/b", "..", "a" * 64, "a b", "ä", "a\n"])
def test_names_that_no_instance_may_have(name: str) -> None:
    with pytest.raises(BadRequest, match="Invalid instance name"):
        values.instance_name(name)


@pytest.mark.parametrize(
    ("text", "count"), [("1", 1), ("1kB", 1000), ("1KiB", 1024), ("2GB", 2 * 10**9), ("3GiB", 3 << 30)]
)
def test_sizes(text: str, count: int) -> None:
    assert values.size_bytes("size", text) == count
