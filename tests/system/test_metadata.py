"""Which configuration keys there are, over the API, and what is said of values before they are sent."""

import os
import pathlib
from typing import Any

import pytest

from tests.support.daemon import Lxpyd

_FORWARD = {"kind": "network-forward", "network": "BRIDGE"}
_POOL = {"kind": "storage-pool", "name": "p1"}


def check(lxpyd: Lxpyd, **body: Any) -> Any:
    return lxpyd.api("POST", "/1.0/metadata/check", body)


def test_the_keys_in_lxds_shape(lxpyd: Lxpyd) -> None:
    configs = lxpyd.json("query", "/1.0/metadata/configuration")["configs"]
    (memory,) = (
        one["limits.memory"] for one in configs["instance"]["resource-limits"]["keys"] if "limits.memory" in one
    )
    assert memory["type"] == "string" and {"shortdesc", "longdesc", "defaultdesc"} <= set(memory)
    assert {"network-bridge", "device-disk", "device-nic-bridged", "device-proxy", "storage-btrfs"} <= set(configs)
    for groups in configs.values():
        for one in groups.values():
            names = [name for entry in one["keys"] for name in entry]
            assert names == sorted(set(names))


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        ({"kind": "instance", "config": {"limits.cpu": "2", "volatile.x": "1"}}, {}),
        (
            {"kind": "instance", "config": {"limits.cpu": "0", "limit.memory": "1GiB", "user.x": "y"}},
            {"limits.cpu": "at least 1", "limit.memory": "did you mean 'limits.memory'"},
        ),
        (
            {"kind": "profile", "config": {"security.syscalls.allow": "read", "security.syscalls.deny": "mount"}},
            {"security.syscalls.allow": "what is not allowed is denied anyway"},
        ),
        ({"kind": "instance", "name": "a_b"}, {"name": "Invalid instance name"}),
        ({"kind": "network", "config": {"ipv4.address": "10.0.0.0/24"}}, {"ipv4.address": "broadcast address"}),
        (
            {
                "kind": "network", "name": "x/y",
                "config": {"ipv4.address": "10.9.0.1/24", "ipv4.dhcp.ranges": "1.1.1.1-1.1.1.2"},
            },
            {"name": "Invalid network name", "ipv4.dhcp.ranges": "is not inside 10.9.0.0/24"},
        ),
        ({"kind": "storage-volume", "pool": "default", "config": {"size": "lots"}}, {"size": "not a size"}),
        ({"kind": "storage-pool", "pool": "default", "config": {"size": "1GiB"}}, {"size": "cannot be set on a"}),
        ({**_POOL, "driver": "btrfs", "config": {"size": "1MiB"}}, {"size": "at least 256MiB"}),
        ({**_POOL, "driver": "dir", "config": {"source": "/nowhere"}}, {"source": "existing, empty"}),
        ({**_POOL, "driver": "nfs"}, {"": "'nfs' is not supported"}),
        ({"kind": "network-acl", "name": "a/b"}, {"name": "Invalid network ACL name"}),
        ({"kind": "network-acl", "acl": {"ingress": [{"action": "allow"}]}}, {}),
        ({"kind": "network-acl", "acl": {"egress": [{"action": "drop", "source": "x"}]}}, {"source": "not an address"}),
        ({**_FORWARD, "forward": {"listen_address": "127.0.0.1"}}, {"listen_address": "an address of this host"}),
        (
            {**_FORWARD, "forward": {"listen_address": "192.0.2.9", "config": {"target_address": "192.0.2.1"}}},
            {"target_address": "the network's subnet"},
        ),
        ({**_FORWARD, "forward": {"listen_address": "192.0.2.9"}}, {}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_of_its_key(lxpyd: Lxpyd, body: dict[str, Any], faults: dict[str, str]) -> None:
    if "network" in body:
        body = {**body, "network": lxpyd.bridge}
    told = check(lxpyd, **body)["config"]
    assert told.keys() == faults.keys()
    for key, words in faults.items():
        assert words in told[key]


def test_devices_one_by_one_and_together(lxpyd: Lxpyd) -> None:
    good = {"type": "disk", "source": "/srv", "path": "/mnt"}
    bad = {"type": "proxy", "listen": "tcp:localhost:80", "connect": "tcp:127.0.0.1:80"}
    told = check(lxpyd, kind="instance", devices={"good": good, "bad": bad, "worse": {"type": "disk", "paht": "/x"}})
    assert told["devices"].keys() == {"bad", "worse"}
    assert "an IP address, not a name" in told["devices"]["bad"]["listen"]
    assert "did you mean 'path'" in told["devices"]["worse"]["paht"]
    root = {"type": "disk", "path": "/", "pool": "default"}
    together = {"root": root, "good": good, "again": {**good, "source": "/opt"}}
    told = check(lxpyd, kind="instance", devices={"again": together["again"]}, expanded_devices=together)
    assert "would both be mounted at /mnt" in told["devices"]["again"][""]
    told = check(lxpyd, kind="instance", devices={"good": good}, expanded_devices={"good": good})
    assert "No root device" in told["devices"][""][""]


def test_asking_changes_nothing(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    before = lxpyd.json("storage", "list", "-f", "json")
    for driver, config in (("btrfs", {}), ("dir", {"source": str(tmp_path)})):
        assert check(lxpyd, **_POOL, driver=driver, config=config) == {"config": {}}
    assert lxpyd.json("storage", "list", "-f", "json") == before
    assert not os.listdir(tmp_path)
    told = lxpyd.cli("query", "-X", "POST", "-d", '{"kind": "cluster"}', "/1.0/metadata/check", check=False)
    assert "Unknown kind 'cluster'" in told.stderr
