"""Uninstalling, with and without the data; then an older version, upgraded under a running container."""

import os
import pathlib
import subprocess

import pytest

from tests.vm.conftest import Vm, tree

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

_PLACES = (
    "/opt/lxpy /usr/local/bin/lxpy* /etc/systemd/system/lxpy* /etc/sysctl.d/*lxpy* /run/lxpy* /sys/fs/cgroup/lxpy*"
)

_SYSCTLS = "fs.inotify.max_user_instances kernel.keys.maxkeys kernel.pid_max net.ipv4.neigh.default.gc_thresh3"
# Uninstalling asks only where there is somebody to ask: on a terminal, which Python's pty is.
_ANSWER = """
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.chdir("/root/lxpy")
    os.execv("./install.sh", ["./install.sh", "--uninstall"])
seen, answers = b"", sys.argv[1:]
while True:
    try:
        data = os.read(fd, 4096)
    except OSError:
        break
    if not data:
        break
    seen += data
    if answers and seen.rstrip().endswith(b"[default=no]:"):
        os.write(fd, answers.pop(0).encode() + b"\\n")
        seen += b"<asked>"
print(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def _nothing_runs(vm: Vm, *, data: bool) -> None:
    places = _PLACES if data else f"{_PLACES} /var/lib/lxpy"
    assert vm.run(f"ls -d {places} 2>/dev/null || true") == ""
    assert vm.run("ip -br link | grep -c -e lxpy -e veth || true") == "0"
    assert vm.run("nft list tables; losetup -a; grep lxpy /proc/mounts || true") == ""
    assert vm.run("ps -eo args | grep -c -e '[l]xpyd' -e '[l]xpy ' -e '[d]nsmasq' || true") == "0"
    assert vm.run("ls /sys/kernel/security/apparmor/policy/profiles | grep lxpy || true") == ""
    assert vm.run("systemctl list-units --all --plain --no-legend 'lxpy*'") == ""
    assert vm.run("getent group lxpy || true") == ""


def _uninstall(vm: Vm, *answers: str) -> str:
    vm.push(_ANSWER.encode(), "/tmp/answer.py")
    return vm.run(f"python3 /tmp/answer.py {' '.join(answers)}")


def test_uninstall_asks_and_no_means_no(vm: Vm) -> None:
    before = vm.run("lxpy list -f csv -c nsp")
    said = _uninstall(vm, "no", "no")
    assert "Delete all containers, images and settings" in said and "Nothing was changed" in said
    assert vm.run("lxpy list -f csv -c nsp") == before


def test_uninstall_keeps_the_data(vm: Vm) -> None:
    values = vm.run(f"sysctl -n {_SYSCTLS}")
    vm.run("lxpy doctor --fix")
    assert vm.run(f"sysctl -n {_SYSCTLS}") != values
    said = _uninstall(vm, "no", "yes")
    assert "its data stays in /var/lib/lxpy" in said
    _nothing_runs(vm, data=True)
    assert vm.run(f"sysctl -n {_SYSCTLS}") == values
    # All comes back with the program.
    vm.run("cd /root/lxpy && ./install.sh && lxpy start first")
    vm.until("lxpy list -f csv -c ns4 first", "(eth0)")


def test_uninstall_leaves_nothing(vm: Vm) -> None:
    vm.run("lxpy config set first security.protection.delete=true")
    said = _uninstall(vm, "yes", "yes")
    assert "gone, with its data" in said
    _nothing_runs(vm, data=False)
    assert "lxpy is not installed" in vm.run("cd /root/lxpy && ./install.sh --uninstall --yes")


def test_upgrade_from_an_older_version(bare_vm: Vm, checkout: pathlib.Path) -> None:
    """LXPY_VM_OLD names the older commit; without it, the one before the newest change of the database."""
    vm = bare_vm
    old = os.environ.get("LXPY_VM_OLD", "")
    if not old:
        command = ["git", "-C", str(checkout), "log", "-1", "--format=%h^", "--diff-filter=A", "--", "lxpy/state/*.sql"]
        old = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    vm.run("mkdir /root/older && tar -x -C /root/older", stdin=tree(checkout, old))
    vm.run("cd /root/older && ./install.sh --image builtin:busybox")
    before = vm.run("lxpy list -f csv -c nsp")
    assert before.startswith("first,RUNNING,")
    vm.run("cd /root/lxpy && ./install.sh")
    assert vm.run("lxpy list -f csv -c nsp") == before
    assert vm.run("ls /var/lib/lxpy/lxpy.db*backup* /var/lib/lxpy/lxpy.db.* 2>/dev/null || true") != ""
    assert vm.run("lxpy exec first -- echo hello") == "hello"
    vm.run("lxpy restart -f first && lxpy exec first -- true")
    vm.run("cd /root/lxpy && ./install.sh --uninstall --yes --purge")
    _nothing_runs(vm, data=False)
