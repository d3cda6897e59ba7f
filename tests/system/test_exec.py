"""exec and shell behave like a local command and a local terminal."""

import hashlib
import os
import pathlib
import pty
import select
import signal
import struct
import subprocess
import termios
import threading
import time
from fcntl import ioctl

import pytest

from tests.support.daemon import BIN, Lxpyd, until


@pytest.fixture(scope="module")
def box(lxpyd: Lxpyd) -> str:
    """One container for this module: exec leaves nothing behind in it."""
    lxpyd.cli("launch", "bb", "execs")
    return "execs"


def test_exit_status_and_streams(lxpyd: Lxpyd, box: str) -> None:
    result = lxpyd.sh(box, "echo out; echo err >&2; exit 7", check=False)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["false"], 1),
        (["no-such-command"], 127),
        (["/no/such/file"], 127),
        (["/etc/passwd"], 126),
        (["/etc"], 126),
        (["sh", "-c", "kill -9 $$"], 137),
        (["sh", "-c", "kill -15 $$"], 143),
        (["sh", "-c", "exit 200"], 200),
    ],
)
def test_exit_statuses(lxpyd: Lxpyd, box: str, command: list[str], status: int) -> None:
    assert lxpyd.cli("exec", box, "--", *command, check=False).returncode == status


def test_standard_input_is_closed_properly(lxpyd: Lxpyd, box: str) -> None:
    assert lxpyd.cli("exec", box, "--", "wc", "-c", input=b"x" * 100_000).stdout.strip() == "100000"
    assert lxpyd.cli("exec", box, "--", "cat").stdout == ""
    assert lxpyd.cli("exec", "-n", box, "--", "cat", input=b"ignored").stdout == ""


def test_a_reader_that_leaves_early_ends_the_writer(lxpyd: Lxpyd, box: str) -> None:
    with lxpyd.spawn("exec", box, "--", "yes") as process:
        assert process.stdout and process.stdout.read(4096).startswith(b"y\ny\n")
        process.stdout.close()
        process.wait(10)
    until(lambda: "yes" not in lxpyd.sh(box, "ps -o comm").stdout.split(), 5, "it goes on")


def test_a_command_that_does_not_read_its_input(lxpyd: Lxpyd, box: str) -> None:
    assert lxpyd.cli("exec", box, "--", "true", input=b"x" * 5_000_000, timeout=20).returncode == 0


def test_environment_directory_user_group(lxpyd: Lxpyd, box: str) -> None:
    result = lxpyd.cli(
        "exec", box, "--env", "A=1", "--env", "B=x y", "--cwd", "/etc", "--user", "1000", "--group", "1001", "--",
        "sh", "-c", "echo $A:$B:$(pwd):$(id -u):$(id -g)",
    )  # fmt: skip
    assert result.stdout == "1:x y:/etc:1000:1001\n"
    text = lxpyd.sh(box, "env; pwd").stdout
    assert "HOME=/root\n" in text and "USER=root\n" in text and "/usr/sbin" in text and text.endswith("/root\n")
    assert "LXPY_DIR" not in text and "XDG" not in text
    assert lxpyd.cli("exec", box, "--cwd", "/nowhere", "--", "true", check=False).returncode not in (0,)


def test_environment_keys_of_the_instance(lxpyd: Lxpyd, box: str) -> None:
    lxpyd.cli("config", "set", box, "environment.GREETING=hello there")
    assert lxpyd.sh(box, "echo $GREETING").stdout == "hello there\n"
    lxpyd.cli("config", "unset", box, "environment.GREETING")


def test_odd_arguments_arrive_as_they_are(lxpyd: Lxpyd, box: str) -> None:
    odd = ["a b", "", "*", "$HOME", "'\"", "\n", "-n", "--", "ü", "\udcff"]
    expected = b"".join(os.fsencode(word) + b"|" for word in odd)
    result = subprocess.run(
        [BIN / "lxpy", "exec", box, "--", "sh", "-c", 'printf "%s|" "$@"', "sh", *odd],
        env=lxpyd.environment, capture_output=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert result.stdout == expected


def test_sixteen_at_once(lxpyd: Lxpyd, box: str) -> None:
    running = [lxpyd.spawn("exec", box, "--", "sh", "-c", f"sleep 0.3; echo {n}; exit {n}") for n in range(16)]
    for n, process in enumerate(running):
        out, err = process.communicate(timeout=30)
        assert (out, err, process.returncode) == (f"{n}\n".encode(), b"", n)


def test_signals_reach_the_command(lxpyd: Lxpyd, box: str) -> None:
    process = lxpyd.spawn(
        "exec", box, "--", "sh", "-c", "trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    )
    assert process.stdout and process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert (out, process.returncode) == (b"got\n", 9)


@pytest.mark.timeout(300)
def test_one_gigabyte_through_cat_is_the_same(lxpyd: Lxpyd, box: str, tmp_path: pathlib.Path) -> None:
    """Through stdin, through the container, through stdout: byte-identical and at pipe speed."""
    block = os.urandom(1 << 20)
    count = 1024
    process = lxpyd.spawn("exec", box, "--", "cat")
    sent, received, size = hashlib.sha256(), hashlib.sha256(), 0

    def feed() -> None:
        assert process.stdin
        for n in range(count):
            piece = n.to_bytes(8, "little") + block[8:]
            sent.update(piece)
            process.stdin.write(piece)
        process.stdin.close()
        process.stdin = None  # communicate() would flush it

    thread = threading.Thread(target=feed)
    begun = time.monotonic()
    thread.start()
    assert process.stdout
    while piece := process.stdout.read(1 << 20):
        received.update(piece)
        size += len(piece)
    thread.join()
    process.communicate(timeout=30)
    assert process.returncode == 0
    assert size == count << 20
    assert received.digest() == sent.digest()
    assert time.monotonic() - begun < 60


def test_64_megabytes_from_and_to_files(lxpyd: Lxpyd, box: str, tmp_path: pathlib.Path) -> None:
    """``lxpy exec c -- cat < big > copy``: regular files at both ends."""
    big, copy = tmp_path / "big", tmp_path / "copy"
    big.write_bytes(os.urandom(1 << 20) * 64)
    with big.open("rb") as source, copy.open("wb") as target:
        process = lxpyd.spawn("exec", box, "--", "cat", stdin=source, stdout=target)
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert hashlib.sha256(copy.read_bytes()).digest() == hashlib.sha256(big.read_bytes()).digest()


# ------------------------------------------------------------------------------------------------- with a terminal


class Terminal:
    """``lxpy ARGS`` on a pty of ours."""

    def __init__(self, lxpyd: Lxpyd, *args: str, rows: int = 31, columns: int = 97) -> None:
        self.text = b""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BIN / "lxpy", [str(BIN / "lxpy"), *args], lxpyd.environment)
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, text: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text.encode() not in self.text:
            if time.monotonic() > end or not self._read(0.1):
                raise AssertionError(f"{text!r} did not come: {self.text!r}")
        self.text = self.text.partition(text.encode())[2]

    def _read(self, seconds: float) -> bool:
        if select.select([self.fd], [], [], seconds)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            self.text += data
            return bool(data)
        return True

    def status(self, seconds: float = 30) -> int:
        end = time.monotonic() + seconds
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError(f"lxpy does not end: {self.text!r}")
            self._read(0.05)


def test_a_shell_on_a_terminal(lxpyd: Lxpyd, box: str) -> None:
    terminal = Terminal(lxpyd, "exec", box, "--", "sh")
    terminal.send("tty; stty size; echo TERM=$TERM\n")
    terminal.expect("/dev/pts/")
    terminal.expect("31 97")
    terminal.expect("TERM=xterm-256color")
    terminal.send("exit 5\n")
    assert terminal.status() == 5


def test_size_changes_arrive(lxpyd: Lxpyd, box: str) -> None:
    terminal = Terminal(lxpyd, "exec", box, "--", "sh")
    terminal.send("echo begin\n")
    terminal.expect("begin\r\n")
    terminal.resize(50, 132)
    terminal.send("until stty size | grep '^50 132'; do sleep 0.1; done\n")
    terminal.expect("50 132\r\n")
    terminal.send("exit\n")
    assert terminal.status() == 0


def test_ctrl_c_and_job_control(lxpyd: Lxpyd, box: str) -> None:

    def sleeps() -> bool:
        return "sleep 101" in lxpyd.sh(box, "ps -o args").stdout.splitlines()

    terminal = Terminal(lxpyd, "exec", box, "--", "sh")
    terminal.send("sleep 101\n")
    until(sleeps, 5, "it does not begin")
    terminal.send("\x03")
    terminal.send("echo status=$?\n")
    terminal.expect("status=130")
    terminal.send("sleep 101\n")
    until(sleeps, 5, "it does not begin")
    terminal.send("\x1a")
    terminal.expect("Stopped")
    terminal.send("kill %1; fg; echo done=$((1+1))\n")
    terminal.expect("done=2")
    terminal.send("exit 4\n")
    assert terminal.status() == 4


def test_shell_is_a_login_shell(lxpyd: Lxpyd, box: str) -> None:
    terminal = Terminal(lxpyd, "shell", box)
    terminal.send("echo home=$HOME dir=$(pwd) user=$(id -un)\n")
    terminal.expect("home=/root dir=/root user=root")
    terminal.send("exit 3\n")
    assert terminal.status() == 3


def test_a_terminal_can_be_forced_and_refused(lxpyd: Lxpyd, box: str) -> None:
    assert "not a tty" in lxpyd.cli("exec", "-T", box, "--", "tty", check=False).stdout
    assert "/dev/pts/" in lxpyd.cli("exec", "-t", box, "--", "tty").stdout
    terminal = Terminal(lxpyd, "exec", "-T", box, "--", "tty")
    terminal.expect("not a tty")
    terminal.status()


def test_console_attaches_and_detaches(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(name, "echo '::respawn:-/bin/sh' >> /etc/inittab; kill -HUP 1")
    terminal = Terminal(lxpyd, "console", name)
    time.sleep(0.5)
    terminal.send("\n echo on-the-$((1))-console\n")
    terminal.expect("on-the-1-console")
    terminal.send("\x01q")
    assert terminal.status() == 0
    assert lxpyd.status(name) == "RUNNING"
