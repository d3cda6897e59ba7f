"""lxpy on a normal host: an emulated Debian 12 with systemd as PID 1, pure cgroup v2, kernel 6.1 and AppArmor.

Run by hand: ``LXPY_VM_LAB=DIRECTORY ./tests/run -m vm -n 0 tests/vm``. The directory holds ``build-image.sh``,
``run.sh [--fresh]``, ``vmexec.sh COMMAND`` (root shell in the guest, standard input passed on) and ``stop.sh``, all led
by ``LAB`` (where the image lies) and ``PORT`` (of its ssh). Software emulation is some 20 times slower: only right and
wrong are tested here, never time.
"""

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400), pytest.mark.xdist_group("vm")]
PAYLOAD = "/sys/fs/cgroup/lxpy.payload.first"


class Vm:
    """The virtual machine, driven by the lab's scripts."""

    def __init__(self, scripts: pathlib.Path) -> None:
        self._scripts = scripts
        self.lab = pathlib.Path(os.environ.get("LAB", "/var/tmp/lxpy-vm"))
        self._environment = os.environ | {"LAB": str(self.lab), "PORT": os.environ.get("PORT", "2250")}
        self._environment.setdefault("MEM", "3072")

    def script(self, name: str, *arguments: str, stdin: bytes = b"", timeout: float = 1200) -> str:
        """Runs a script of the lab; its output. Output goes by a file: what run.sh leaves running would hold a pipe."""
        self.lab.mkdir(parents=True, exist_ok=True)
        log = self.lab / "test-output"
        with log.open("wb") as file:
            done = subprocess.run([self._scripts / name, *arguments], input=stdin, stdout=file, stderr=file,
                                  env=self._environment, timeout=timeout)  # fmt: skip
        text = log.read_text(errors="replace")
        assert done.returncode == 0, f"{name} {' '.join(arguments)} ended with {done.returncode}:\n{text[-3000:]}"
        return text.strip()

    def run(self, command: str, stdin: bytes = b"") -> str:
        """The output of a shell command in the guest, which has to succeed."""
        return self.script("vmexec.sh", command, stdin=stdin)

    def until(self, command: str, wanted: str, seconds: float = 240) -> None:
        """Repeats a command until its output contains `wanted`."""
        deadline = time.monotonic() + seconds
        while wanted not in (seen := self.run(f"{command} 2>&1 || true")):
            assert time.monotonic() < deadline, f"`{command}` never said {wanted!r}; at last:\n{seen}"
            time.sleep(2)

    def boot(self, fresh: bool) -> None:
        self.script("run.sh", *(["--fresh"] if fresh else []), timeout=300)

    def stop(self) -> None:
        self.script("stop.sh", timeout=400)


@pytest.fixture(scope="module")
def vm(checkout: pathlib.Path) -> Iterator[Vm]:
    """A fresh Debian 12 with lxpy installed as README says, and the busybox container `first`."""
    place = os.environ.get("LXPY_VM_LAB", "")
    if not place or not os.access(f"{place}/run.sh", os.X_OK):
        pytest.fail(
            "set LXPY_VM_LAB to the directory of the virtual machine's scripts (build-image.sh, run.sh, vmexec.sh, "
            "stop.sh); LAB and PORT may say where the image lies and which port its ssh gets",
            pytrace=False,
        )
    machine = Vm(pathlib.Path(place))
    if not (machine.lab / "disk.raw").exists():
        machine.script("build-image.sh")
    machine.boot(fresh=True)
    try:
        archive = subprocess.run(["git", "-C", checkout, "archive", "HEAD"], check=True, capture_output=True).stdout
        machine.run("mkdir -p /root/lxpy && tar -x -C /root/lxpy", stdin=archive)
        machine.run("cd /root/lxpy && ./install.sh --image builtin:busybox")
        yield machine
    finally:
        machine.stop()


def test_first_container_is_reachable(vm: Vm) -> None:
    vm.until("lxpy list -f csv -c ns4 first", "(eth0)")
    assert vm.run("systemctl is-active lxpy.service lxpy.socket lxpy-stop.service").split() == ["active"] * 3
    assert vm.run("stat -fc %T /sys/fs/cgroup") == "cgroup2fs"


def test_exec_lands_in_the_guests_cgroup(vm: Vm) -> None:
    # systemd mounts cgroup2 with nsdelegate, which makes cgroup namespaces boundaries for joining, too.
    assert "nsdelegate" in vm.run("grep ^cgroup2 /proc/mounts")
    assert vm.run("lxpy exec first -- cat /proc/self/cgroup") == "0::/"
    assert vm.run("lxpy exec first -- sh -c 'exit 7'; echo $?") == "7"


def test_limits_reach_cgroup_v2(vm: Vm) -> None:
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
    for _ in range(2):  # busybox's ash gives up at the first fork that fails
        vm.run("lxpy exec first -- sh -c 'while sleep 9 & do :; done' 2>/dev/null || true")
    assert "max 0" not in vm.run(f"cat {PAYLOAD}/pids.events")
    vm.run("lxpy config set first limits.memory= limits.processes= limits.cpu= limits.cpu.allowance=")
    assert vm.run(f"cd {PAYLOAD} && cat memory.max pids.max").split() == ["max", "max"]
    vm.run("lxpy restart -f first")


def test_pause(vm: Vm) -> None:
    vm.run("lxpy pause first")
    assert vm.run(f"cat {PAYLOAD}/cgroup.freeze; lxpy list -f csv -c s first").split() == ["1", "FROZEN"]
    vm.run("lxpy start first")
    assert vm.run("lxpy list -f csv -c s first") == "RUNNING"


def test_devices_are_refused_even_to_a_privileged_guest(vm: Vm) -> None:
    vm.run("lxpy launch builtin:busybox priv -c security.privileged=true")
    # The node is made by the host, so that opening it is refused by the cgroup's BPF program and nothing else.
    vm.run("nsenter -t $(lxpy list -f csv -c p priv) -m sh -c 'mknod -m 666 /dev/kmsg c 1 11 && head -c1 /dev/kmsg'")
    seen = vm.run("lxpy exec priv -- sh -c 'head -c1 /dev/kmsg; mknod /dev/b b 254 0' 2>&1 || true")
    assert seen.count("Operation not permitted") == 2
    vm.run("lxpy delete -f priv")


def test_killed_daemon_comes_back_and_guests_go_on(vm: Vm) -> None:
    before = vm.run("lxpy list -f csv -c nsp")
    vm.run("kill -9 $(systemctl show -p MainPID --value lxpy.service)")
    assert vm.run("lxpy list -f csv -c nsp") == before
    vm.run("systemctl restart lxpy.service")
    assert vm.run("lxpy list -f csv -c nsp") == before
    vm.run("systemctl stop lxpy.service")
    assert vm.run("lxpy list -f csv -c nsp") == before


def test_debian_boots_on_a_kernel_that_cannot_map_squashfs(vm: Vm) -> None:
    vm.run("lxpy launch builtin:debian/12 d1")
    assert "squashfs" not in vm.run("cut -d' ' -f3 /proc/mounts")
    vm.until("lxpy exec d1 -- systemctl is-system-running", "running")
    assert "0 loaded units" in vm.run("lxpy exec d1 -- systemctl --failed --no-pager")
    assert vm.run("lxpy exec d1 -- sh -c 'setsid true; cat /proc/self/cgroup'") == "0::/.exec"


def test_host_restarts(vm: Vm) -> None:
    vm.run("mkdir -p /var/log/journal && journalctl --flush")
    vm.stop()
    vm.boot(fresh=False)
    vm.until("lxpy list -f csv -c s4 first", "(eth0)")
    vm.until("systemctl is-system-running", "running")
    assert "shut down" in vm.run("journalctl -b -1 -u lxpy-stop.service -o cat | grep -c Stopped && echo shut down")


def test_uninstall_leaves_nothing(vm: Vm) -> None:
    vm.run("cd /root/lxpy && ./install.sh --uninstall --yes --purge")
    places = "/opt/lxpy /var/lib/lxpy /usr/local/bin/lxpy* /etc/systemd/system/lxpy* /run/lxpy* /sys/fs/cgroup/lxpy*"
    assert vm.run(f"ls -d {places} 2>/dev/null || true") == ""
    assert vm.run("ip -br link | grep -c -e lxpy -e veth || true") == "0"
    assert vm.run("nft list tables; losetup -a; grep lxpy /proc/mounts || true") == ""
    assert vm.run("ps -eo args | grep -c -e '[l]xpy' -e '[d]nsmasq' || true") == "0"
