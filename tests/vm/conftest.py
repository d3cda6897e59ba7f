"""A normal host: an emulated Debian 12 with systemd as PID 1, pure cgroup v2, kernel 6.1 and AppArmor.

Run by hand: ``LXPY_VM_LAB=DIRECTORY ./tests/run -m vm tests/vm``. The directory holds ``build-image.sh``,
``run.sh [--fresh]``, ``vmexec.sh COMMAND`` (root shell in the guest, standard input passed on) and ``stop.sh``, all led
by ``LAB`` (where the image lies) and ``PORT`` (of its ssh). Software emulation is some 20 times slower: only right and
wrong are tested here, never time. The files run in their order, on one machine: arrival, life, departure.

The machine lives in the run's process namespace, so it ends with the tests however they end.
"""

import os
import pathlib
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

PAYLOAD = "/sys/fs/cgroup/lxpy.payload.first"


class Vm:
    """The virtual machine, driven by the lab's scripts."""

    def __init__(self, scripts: pathlib.Path) -> None:
        self._scripts = scripts
        self.lab = pathlib.Path(os.environ.get("LAB", "/var/tmp/lxpy-vm"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._environment = os.environ | {"LAB": str(self.lab), "PORT": os.environ.get("PORT", port)}
        self._environment = {"MEM": "3072", "CPUS": "1"} | self._environment

    def script(self, name: str, *arguments: str, stdin: bytes = b"", timeout: float = 1200) -> tuple[int, str]:
        """Runs a script of the lab; its status and output, by a file: what run.sh leaves running would hold a pipe."""
        self.lab.mkdir(parents=True, exist_ok=True)
        log = self.lab / "test-output"
        with log.open("wb") as file:
            done = subprocess.run([self._scripts / name, *arguments], input=stdin, stdout=file, stderr=file,
                                  env=self._environment, timeout=timeout)  # fmt: skip
        return done.returncode, log.read_text(errors="replace").strip()

    def run(self, command: str, stdin: bytes = b"", status: int = 0) -> str:
        """The output of a shell command in the guest, which has to end with `status`."""
        code, text = self.script("vmexec.sh", command, stdin=stdin)
        assert code == status, f"{command} ended with {code}:\n{text[-3000:]}"
        return text

    def until(self, command: str, wanted: str, seconds: int = 240) -> None:
        """Repeats a command in the guest until its output contains `wanted`."""
        loop = (
            f"for _ in $(seq {seconds}); do seen=$({{ {command}; }} 2>&1 </dev/null || true); "
            f'case "$seen" in *{shlex.quote(wanted)}*) exit 0;; esac; sleep 1; done; echo "$seen"; exit 1'
        )
        self.run(loop)

    def push(self, data: bytes, path: str) -> None:
        """Puts a file into the guest."""
        self.run(f"cat > {path}", stdin=data)

    def boot(self, fresh: bool) -> None:
        for name in ("qemu.pid", "virtiofsd.pid", "mon.sock"):  # of a run that was killed; its processes went with it
            (self.lab / name).unlink(missing_ok=True)
        for old in self.lab.glob("ssh-*"):
            old.unlink()
        code, text = self.script("run.sh", *(["--fresh"] if fresh else []), timeout=400)
        assert code == 0, text
        self.until("systemctl is-system-running", "running")

    def stop(self) -> None:
        code, text = self.script("stop.sh", timeout=400)
        assert code == 0, text

    def restart(self) -> None:
        """The guest shuts down in good order and boots again."""
        self.stop()
        self.boot(fresh=False)


def tree(checkout: pathlib.Path, commit: str) -> bytes:
    """The files of a commit as a tar archive."""
    return subprocess.run(["git", "-C", checkout, "archive", commit], check=True, capture_output=True).stdout


@pytest.fixture(scope="session")
def bare_vm(checkout: pathlib.Path) -> Iterator[Vm]:
    """A fresh Debian 12 that has never seen lxpy; its files are in /root/lxpy."""
    place = os.environ.get("LXPY_VM_LAB", "")
    if not place or not os.access(f"{place}/run.sh", os.X_OK):
        pytest.fail(
            "set LXPY_VM_LAB to the directory of the virtual machine's scripts (build-image.sh, run.sh, vmexec.sh, "
            "stop.sh); LAB and PORT may say where the image lies and which port its ssh gets",
            pytrace=False,
        )
    machine = Vm(pathlib.Path(place))
    if not (machine.lab / "disk.raw").exists():
        code, text = machine.script("build-image.sh")
        assert code == 0, text
    machine.boot(fresh=True)
    try:
        machine.run("mkdir -p /root/lxpy && tar -x -C /root/lxpy", stdin=tree(checkout, "HEAD"))
        yield machine
    finally:
        started = time.monotonic()
        machine.stop()
        print(f"the machine was down after {time.monotonic() - started:.0f} s")


@pytest.fixture(scope="session")
def vm(bare_vm: Vm) -> Vm:
    """With lxpy installed as README says, and the busybox container `first`."""
    bare_vm.run("cd /root/lxpy && ./install.sh --image builtin:busybox")
    bare_vm.until("lxpy list -f csv -c ns4 first", "(eth0)")
    return bare_vm
