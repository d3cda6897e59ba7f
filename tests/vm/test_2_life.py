"""A container's life on a normal host: limits of cgroup v2, AppArmor, systemd around us, the host going down."""

import pytest

from tests.support import images
from tests.vm.conftest import PAYLOAD, Vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]


def _pid(vm: Vm, name: str) -> str:
    return vm.run(f"lxpy list -f csv -c p {name}")


def test_exec_lands_in_the_guests_cgroup(vm: Vm) -> None:
    assert vm.run("stat -fc %T /sys/fs/cgroup") == "cgroup2fs"
    # systemd mounts cgroup2 with nsdelegate, which makes cgroup namespaces boundaries for joining, too.
    assert "nsdelegate" in vm.run("grep ^cgroup2 /proc/mounts")
    assert vm.run("lxpy exec first -- cat /proc/self/cgroup") == "0::/"
    assert vm.run("lxpy exec first -- sh -c 'exit 7'; echo $?") == "7"


def test_each_limit_is_hit_by_a_program_inside(vm: Vm) -> None:
    vm.run(
        "lxpy config set first limits.memory=100MiB limits.processes=40 limits.cpu=1 limits.cpu.allowance=20ms/100ms"
    )
    files = "cpu.max cpuset.cpus memory.max pids.max"
    assert vm.run(f"cd {PAYLOAD} && cat {files}").splitlines() == ["20000 100000", "0", str(100 << 20), "40"]
    # The same from inside, where the guest sees its own cgroup as the top of the hierarchy.
    assert vm.run("lxpy exec first -- cat /sys/fs/cgroup/memory.max") == str(100 << 20)
    assert "rc 137" in vm.run(
        "lxpy exec first -- sh -c 'dd if=/dev/zero of=/dev/null bs=300M count=1; echo rc $?' 2>&1"
    )
    assert "oom_kill 0" not in vm.run(f"grep oom_kill {PAYLOAD}/memory.events")
    for _ in range(2):  # busybox's ash gives up at the first fork that fails
        vm.run("lxpy exec first -- sh -c 'while sleep 9 & do :; done' 2>/dev/null || true")
    assert "max 0" not in vm.run(f"cat {PAYLOAD}/pids.events")
    vm.run("lxpy exec first -- timeout 5 sh -c 'while :; do :; done' || true")
    assert "nr_throttled 0" not in vm.run(f"grep nr_throttled {PAYLOAD}/cpu.stat")
    vm.run("lxpy config set first limits.memory= limits.processes= limits.cpu= limits.cpu.allowance=")
    assert vm.run(f"cd {PAYLOAD} && cat memory.max pids.max cpu.max").split() == ["max", "max", "max", "100000"]
    vm.run("lxpy restart -f first")


def test_pause(vm: Vm) -> None:
    vm.run("lxpy pause first")
    assert vm.run(f"cat {PAYLOAD}/cgroup.freeze; lxpy list -f csv -c s first").split() == ["1", "FROZEN"]
    vm.run("lxpy start first")
    assert vm.run("lxpy list -f csv -c s first") == "RUNNING"


def test_init_killed_for_want_of_memory_is_told(vm: Vm) -> None:
    vm.run("lxpy launch builtin:busybox small && lxpy config set small limits.memory=20MiB limits.memory.swap=false")
    # Of the guest's processes its init is to be the first that the kernel takes.
    hog = "echo 1000 > /proc/1/oom_score_adj; dd if=/dev/zero of=/dev/shm/x bs=1M count=100"
    vm.run(f"lxpy exec small -- sh -c '{hog}' || true")
    vm.until("lxpy list -f csv -c s small", "STOPPED")
    assert vm.run("lxpy config get small volatile.last_state.reason") == "killed: out of memory"
    vm.run("lxpy delete small")


def test_poweroff_and_reboot_from_inside(vm: Vm) -> None:
    before = _pid(vm, "first")
    vm.run("lxpy exec first -- reboot")
    vm.until(f"lxpy list -f csv -c sp first | grep -v {before}", "RUNNING")
    vm.run("lxpy exec first -- poweroff")
    vm.until("lxpy list -f csv -c s first", "STOPPED")
    assert vm.run("ls -d /sys/fs/cgroup/lxpy.*.first 2>/dev/null || true") == ""
    vm.run("lxpy start first")
    vm.until("lxpy list -f csv -c ns4 first", "(eth0)")


def test_devices_are_refused_even_to_a_privileged_guest(vm: Vm) -> None:
    vm.run("lxpy launch builtin:busybox priv -c security.privileged=true")
    # The node is made by the host, so that opening it is refused by the cgroup's BPF program and nothing else.
    vm.run("nsenter -t $(lxpy list -f csv -c p priv) -m sh -c 'mknod -m 666 /dev/full2 c 1 11 && head -c1 /dev/full2'")
    seen = vm.run("lxpy exec priv -- sh -c 'head -c1 /dev/full2; mknod /dev/b b 254 0' 2>&1 || true")
    assert seen.count("Operation not permitted") == 2


_ATTACK = r"""
try() { if (eval "$1") 2>/dev/null; then echo "done: $1"; else echo "denied: $1"; fi; }
cat /proc/self/attr/current
try 'echo h > /proc/sysrq-trigger'
try 'echo evil > /proc/sys/kernel/core_pattern'
try 'echo 61 > /proc/sys/vm/swappiness'
try 'echo evil > /sys/kernel/uevent_helper'
mkdir -p /tmp/m
mount --bind /proc /tmp/m && try 'echo h > /tmp/m/sysrq-trigger'; umount /tmp/m
mount -t proc x /tmp/m 2>/dev/null && { try 'echo evil > /tmp/m/sys/kernel/core_pattern'; umount /tmp/m; }
for t in debugfs securityfs tracefs configfs; do try "mount -t $t x /tmp/m"; done
try 'mount -o remount,bind,rw /proc/sys'
try 'echo 61 > /proc/sys/vm/swappiness'
try 'mount -o remount,rw /sys'
try 'echo changeprofile unconfined > /proc/self/attr/current'
try 'echo 1 > /proc/sys/net/ipv4/ip_forward; mount -t tmpfs x /tmp/m; umount /tmp/m; kill -0 1'
"""


def test_apparmor_confines_init_and_exec(vm: Vm) -> None:
    host = (
        "cat /proc/sys/kernel/core_pattern /proc/sys/vm/swappiness; cat /sys/kernel/uevent_helper 2>/dev/null || true"
    )
    before = vm.run(host)
    labels = set()
    for name in ("first", "priv"):
        seen = vm.run(f"lxpy exec {name} -- sh -s", stdin=_ATTACK.encode()).splitlines()
        assert seen[0].startswith("lxpy_") and seen[0].endswith(" (enforce)")
        assert vm.run(f"cat /proc/$(lxpy list -f csv -c p {name})/attr/current") == seen[0]
        labels.add(seen[0].split()[0])
        # What is allowed is the last line: knobs of its own network, mounts, signals to its own kind.
        done = [line for line in seen if line.startswith("done:")]
        mapped = name == "first"  # a mapped guest's /proc/sys has no read-only mount of ours: that remount finds none
        assert [line for line in done if "remount" not in line or not mapped] == [seen[-1]], seen
    assert vm.run(host) == before
    assert len(labels) == 2
    assert '"apparmor": "true"' in vm.run("lxpy query /1.0")
    # Once compiled, profiles are loaded by the kernel alone: a start goes without the parser.
    parser = vm.run("command -v apparmor_parser")
    vm.run(f"mv {parser} /tmp/parser && lxpy restart -f first; mv /tmp/parser {parser}")
    assert vm.run("lxpy exec first -- cat /proc/self/attr/current").split()[0] in labels


def test_own_apparmor_rules(vm: Vm) -> None:
    profiles = "ls /sys/kernel/security/apparmor/policy/profiles | grep -c ^lxpy_"
    before = vm.run(profiles)
    said = vm.run("lxpy config set priv raw.apparmor='deny /srv'", status=1)
    assert said.startswith("Error: Invalid value for raw.apparmor: ") and "syntax error" in said
    vm.run("lxpy config set priv raw.apparmor='deny /srv/secret/** rw,' && lxpy restart -f priv")
    seen = vm.run(
        "lxpy exec priv -- sh -c 'mkdir -p /srv/secret; echo > /srv/open; echo > /srv/secret/x' 2>&1", status=1
    )
    assert seen.count("Permission denied") == 1 and "/srv/secret/x" in seen
    # kill -9 with a profile of its own loaded; the daemon comes back, and it goes with the instance.
    vm.run("kill -9 $(systemctl show -p MainPID --value lxpy.service)")
    assert "priv" in vm.run("lxpy list -f csv -c n priv")
    assert vm.run("lxpy exec priv -- sh -c 'echo > /srv/secret/x' 2>&1", status=1).count("Permission denied") == 1
    vm.run("lxpy delete -f priv && systemctl restart lxpy.service && lxpy list -f csv")
    assert int(vm.run(profiles)) == int(before) - 1
    assert vm.run("lxpy exec first -- cat /proc/self/attr/current").endswith("(enforce)")


def test_killed_daemon_comes_back_and_guests_go_on(vm: Vm) -> None:
    before = vm.run("lxpy list -f csv -c nsp")
    vm.run("kill -9 $(systemctl show -p MainPID --value lxpy.service)")
    assert vm.run("lxpy list -f csv -c nsp") == before
    vm.run("systemctl restart lxpy.service")
    assert vm.run("lxpy list -f csv -c nsp") == before
    vm.run("systemctl stop lxpy.service")
    assert vm.run("lxpy list -f csv -c nsp") == before


def test_debian_boots_on_a_kernel_that_cannot_map_squashfs(vm: Vm) -> None:
    metadata, rootfs = images.files("debian/12")
    vm.push(metadata.read_bytes(), "/tmp/metadata.tar.xz")
    vm.push(rootfs.read_bytes(), "/tmp/rootfs.squashfs")
    vm.run("lxpy image import /tmp/metadata.tar.xz /tmp/rootfs.squashfs --alias deb && rm /tmp/rootfs.squashfs")
    vm.run("lxpy launch deb d1")
    assert "squashfs" not in vm.run("cut -d' ' -f3 /proc/mounts")
    vm.until("lxpy exec d1 -- systemctl is-system-running", "running")
    assert "0 loaded units" in vm.run("lxpy exec d1 -- systemctl --failed --no-pager")
    assert vm.run("lxpy exec d1 -- sh -c 'setsid true; cat /proc/self/cgroup'") == "0::/.exec"
    # Services in namespaces of their own start under the profile, too.
    sandbox = "-p PrivateTmp=yes -p ProtectSystem=strict -p ProtectKernelTunables=yes -p PrivateDevices=yes"
    assert "(enforce)" in vm.run(f"lxpy exec d1 -- systemd-run -q --wait --pipe {sandbox} cat /proc/self/attr/current")
    vm.run("lxpy stop d1")


def test_host_restarts(vm: Vm) -> None:
    vm.run("lxpy launch builtin:busybox resting && lxpy config set resting boot.autostart=false")
    vm.run("lxpy config set d1 boot.autostart=true")
    vm.run("mkdir -p /var/log/journal && journalctl --flush")
    vm.restart()
    vm.until("lxpy list -f csv -c s4 first", "(eth0)")
    vm.until("lxpy list -f csv -c s d1", "RUNNING")
    assert vm.run("lxpy list -f csv -c s resting") == "STOPPED"
    assert vm.run("lxpy exec first -- cat /proc/self/attr/current").endswith("(enforce)")
    assert "shut down" in vm.run("journalctl -b -1 -u lxpy-stop.service -o cat | grep -c Stopped && echo shut down")
    vm.run("lxpy delete -f d1 resting")
