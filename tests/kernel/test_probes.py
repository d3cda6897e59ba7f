"""What the probes say, against what the kernel itself shows."""

import os
import pathlib
import subprocess

import pytest

from lxpy.host import probes, sysctls


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


def test_limits_are_what_the_kernel_says() -> None:
    for one in sysctls.found():
        path = pathlib.Path("/proc/sys") / one.sysctl.name.replace(".", "/")
        assert one.value == (int(path.read_text()) if path.exists() else None)


def test_features_have_lxd_names_and_values() -> None:
    features = probes.kernel_features("/var/tmp")
    assert {"idmapped_mounts", "seccomp_listener"} <= set(features)
    assert set(features.values()) <= {"true", "false"}


def test_sysctls_are_raised_written_down_and_taken_back(tmp_path: pathlib.Path) -> None:
    name, conf = "fs.inotify.max_queued_events", tmp_path / "sysctl.d" / "60-lxpy.conf"
    value = sysctls.read(name)
    assert value
    table = [sysctls.Sysctl(name, value + 1, "a test"), sysctls.Sysctl("kernel.pid_max", 2, "never lowered"),
             sysctls.Sysctl("kernel.no_such_limit", 5, "unknown to the kernel")]  # fmt: skip
    assert [one.low for one in sysctls.found(table)] == [True, False, False]
    try:
        assert sysctls.raise_low(table, str(conf)) == [sysctls.Change(name, value, value + 1)]
        assert sysctls.raise_low(table, str(conf)) == []
        # Raised a second time, the value that was there before lxpy is still the one that is kept.
        sysctls.raise_low([sysctls.Sysctl(name, value + 2, "more")], str(conf))
        assert conf.read_text().splitlines()[1:] == [f"{name} = {value + 2}", f"# was {value}"]
        assert sysctls.undo(str(conf)) == [sysctls.Change(name, value + 2, value)]
        assert sysctls.read(name) == value and not conf.exists()
    finally:
        pathlib.Path("/proc/sys/fs/inotify/max_queued_events").write_text(str(value))


def test_sysctls_stay_when_they_cannot_be_kept_or_the_kernel_refuses(tmp_path: pathlib.Path) -> None:
    name = "fs.inotify.max_queued_events"
    value = sysctls.read(name)
    assert value
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        sysctls.raise_low([sysctls.Sysctl(name, value + 1, "a test")], str(tmp_path / "file" / "x.conf"))
    assert sysctls.read(name) == value
    beyond = sysctls.Sysctl("kernel.pid_max", 1 << 40, "more than the kernel takes")
    (change,) = sysctls.raise_low([beyond], str(tmp_path / "none.conf"))
    assert change.error and change.after == change.before == sysctls.read("kernel.pid_max")
    assert not (tmp_path / "none.conf").exists()
