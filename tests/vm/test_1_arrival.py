"""install.sh in the hands of a stranger: every way it can go wrong on a fresh Debian, each told in one line."""

import pytest

from tests.vm.conftest import Vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

# What Ctrl-C in a terminal does: SIGINT to the script and to all it has started, once the script has said a word.
_INTERRUPT = """
import os, signal, subprocess, sys, time
log = open("/tmp/interrupted", "w+")
run = subprocess.Popen(["./install.sh", "--no-launch"], cwd="/root/lxpy", stdout=log, stderr=log,
                       stdin=subprocess.DEVNULL, start_new_session=True)
end = time.monotonic() + 600
while sys.argv[1] not in open("/tmp/interrupted").read():
    assert time.monotonic() < end and run.poll() is None, open("/tmp/interrupted").read()
    time.sleep(0.2)
time.sleep(float(sys.argv[2]))
os.killpg(run.pid, signal.SIGINT)
print("status", run.wait(120))
print(open("/tmp/interrupted").read())
"""


def _interrupt(vm: Vm, word: str, seconds: float) -> str:
    vm.push(_INTERRUPT.encode(), "/tmp/interrupt.py")
    return vm.run(f"python3 /tmp/interrupt.py '{word}' {seconds}")


def test_not_root(bare_vm: Vm) -> None:
    bare_vm.run("chmod 755 /root && chmod -R go+rX /root/lxpy")
    said = bare_vm.run("cd /root/lxpy && setpriv --reuid=65534 --regid=65534 --clear-groups ./install.sh", status=1)
    assert said == "Error: installing needs root: sudo ./install.sh"
    assert bare_vm.run("ls -d /opt/lxpy /usr/local/bin/lxpy* 2>/dev/null || true") == ""


def test_no_network(bare_vm: Vm) -> None:
    bare_vm.run("mv /etc/resolv.conf /etc/resolv.kept; echo 'nameserver 127.0.0.1' > /etc/resolv.conf")
    try:
        said = bare_vm.run("cd /root/lxpy && ./install.sh", status=1)
    finally:
        bare_vm.run("mv /etc/resolv.kept /etc/resolv.conf")
    last = said.splitlines()[-1]
    assert last.startswith("Error: ") and "network" in last, said
    assert "Traceback" not in said
    assert bare_vm.run("ls -d /usr/local/bin/lxpy* 2>/dev/null || true") == ""


def test_ctrl_c_while_packages_are_installed(bare_vm: Vm) -> None:
    said = _interrupt(bare_vm, "Installing mmdebstrap", 3)
    assert "status 130" in said and "run ./install.sh again" in said.splitlines()[-1], said


def test_disk_full(bare_vm: Vm) -> None:
    # The packages first, or apt would be the one to say so.
    bare_vm.run("cd /root/lxpy && . packaging/host.sh && python=$(find_python) && install_packages")
    bare_vm.run("fallocate -l $(($(df --output=avail -B1 / | tail -1) - 30000000)) /filler")
    try:
        said = bare_vm.run("cd /root/lxpy && ./install.sh --no-launch", status=1)
    finally:
        bare_vm.run("rm /filler")
    last = said.splitlines()[-1]
    assert last.startswith("Error: ") and "space" in last, said
    assert "Traceback" not in last
    assert bare_vm.run("ls -d /usr/local/bin/lxpy* 2>/dev/null || true") == ""


def test_ctrl_c_while_the_program_is_installed(bare_vm: Vm) -> None:
    said = _interrupt(bare_vm, "Installing lxpy into", 10)
    assert "status 130" in said and "run ./install.sh again" in said.splitlines()[-1], said
    assert bare_vm.run("ls /tmp/tmp.* -d 2>/dev/null || true") == ""


def test_installed_and_up_to_date(vm: Vm) -> None:
    assert vm.run("systemctl is-active lxpy.service lxpy.socket lxpy-stop.service").split() == ["active"] * 3
    before = vm.run("lxpy list -f csv -c nsp")
    said = vm.run("cd /root/lxpy && ./install.sh")
    assert "lxpy is up to date" in said and "There are containers already" in said
    assert vm.run("lxpy list -f csv -c nsp") == before
    assert "keep lxpy from working" not in vm.run("lxpy doctor")


def test_an_upgrade_that_finds_no_room_leaves_the_old_one_working(vm: Vm) -> None:
    before = vm.run("lxpy list -f csv -c nsp; lxpy version")
    room = "$(($(stat -f -c '%f * %S' /) - 100000000))"
    vm.run(f"echo older > /opt/lxpy/.installed; fallocate -l {room} /filler; cat /dev/zero >> /filler || true")
    try:
        said = vm.run("cd /root/lxpy && ./install.sh", status=1)
    finally:
        vm.run("rm /filler")
    assert said.splitlines()[-1].startswith("Error: ") and "space" in said.splitlines()[-1], said
    assert vm.run("lxpy list -f csv -c nsp; lxpy version") == before
    vm.run("cd /root/lxpy && ./install.sh")
    assert vm.run("lxpy list -f csv -c nsp; lxpy version") == before
