"""What the probes say, against what the kernel itself shows."""

import os
import pathlib
import subprocess

from lxpy.host import probes


def test_the_kernel_has_what_containers_are_made_of() -> None:
    found = probes.kernel()
    assert found.release == os.uname().release
    assert found.namespaces == probes.NAMESPACES
    assert "overlay" in found.file_systems
    assert found.seccomp and "errno" in found.seccomp_actions
    assert found.capabilities >> probes.CAP_SYS_ADMIN & 1


def test_idmapped_mounts_are_tried_and_nothing_stays_mounted() -> None:
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    assert probes.idmapped_mounts("/var/tmp")
    assert not probes.idmapped_mounts("/proc")
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before


def test_overlay_options_are_tried_and_nothing_stays_mounted() -> None:
    before = pathlib.Path("/proc/self/mountinfo").read_text()
    assert {"overlay", "redirect_dir", "index"} <= probes.overlay_options()
    assert pathlib.Path("/proc/self/mountinfo").read_text() == before


def test_the_cgroup_layout_is_the_mounted_one() -> None:
    found = probes.cgroup_layout()
    mounts = pathlib.Path("/proc/self/mountinfo").read_text()
    v1, v2 = " - cgroup " in mounts, " - cgroup2 " in mounts
    assert found.layout == {(True, True): "hybrid", (True, False): "v1", (False, True): "v2"}[v1, v2]
    assert {"memory", "pids", "cpuset"} <= set(found.controllers)
    assert found.kill and found.freeze


def test_tools_have_versions_and_missing_ones_no_path() -> None:
    found = {tool.name: tool for tool in probes.tools()}
    asked = subprocess.run(["dnsmasq", "--version"], capture_output=True, text=True, check=True).stdout
    assert found["dnsmasq"].version in asked and found["dnsmasq"].version
    assert all(found[name].path and found[name].version for name in ("nft", "unsquashfs", "busybox"))
    assert probes.which("no-such-command-here") == ""


def test_limits_are_the_sysctls() -> None:
    for limit in probes.limits():
        path = pathlib.Path("/proc/sys") / limit.key.replace(".", "/")
        assert limit.value == (int(path.read_text()) if path.exists() else None)


def test_features_have_lxd_names_and_values() -> None:
    features = probes.kernel_features("/var/tmp")
    assert {"idmapped_mounts", "seccomp_listener"} <= set(features)
    assert set(features.values()) <= {"true", "false"}
