"""Local exec, the client's half: real processes, pipes and terminals behind a real SEQPACKET socket."""

import hashlib
import json
import os
import pathlib
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from lxpy.api.layout import Layout

CLI = [sys.executable, "-IS", "-c"]
HOME = str(pathlib.Path(__file__).parents[2])


def cli(*words: str) -> list[str]:
    """The command line as the lean launcher starts it."""
    code = f"import sys; sys.path.append({HOME!r}); from lxpy.cli.main import main; sys.exit(main())"
    return [*CLI, code, *words]


class Server:
    """Runs on this host what it is asked to run, and answers as lxpyd's local socket does."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                asked = json.loads(connection.recv(1 << 18))["exec"]
                if asked["name"] == "missing":
                    connection.send(b'{"error":"Instance not found","status":404}')
                    continue
                self._run(connection, asked)

    def _run(self, connection: socket.socket, asked: dict) -> None:  # type: ignore[type-arg]
        status_r, status_w = os.pipe()
        if asked["interactive"]:
            master, slave = pty.openpty()
            termios.tcsetwinsize(slave, (asked["height"], asked["width"]))  # before the command, as the spawner does
            ends, ours = [slave] * 3, [master]
        else:
            pipes = [os.pipe() for _ in range(3)]
            ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
            ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
        try:
            child = subprocess.Popen(
                asked["command"], stdin=ends[0], stdout=ends[1], stderr=ends[2], start_new_session=True,
                env={"PATH": os.environ["PATH"], **asked["environment"]},
            )  # fmt: skip
        except OSError as error:
            os.write(status_w, json.dumps({"error": str(error), "exit": 127}).encode() + b"\n")
            child = None
        pidfd = os.pidfd_open(child.pid if child else os.getpid())
        socket.send_fds(connection, [b'{"ok":true}'], [*ours, status_r, pidfd])
        for fd in {*ends, *ours, status_r, pidfd}:
            os.close(fd)

        def wait() -> None:
            if child is not None:
                code = child.wait()
                result = {"exit": code} if code >= 0 else {"signal": -code}
                os.write(status_w, json.dumps(result).encode() + b"\n")
            os.close(status_w)

        threading.Thread(target=wait, daemon=True).start()


@pytest.fixture
def home(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    # Deeper than sun_path allows, on purpose: the client goes through the directory's descriptor.
    deep = tmp_path / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("LXPY_DIR", str(deep))
    monkeypatch.setenv("LXPY_CONF", str(tmp_path / "conf"))
    folder = os.open(deep, os.O_PATH)
    server = Server(f"/proc/self/fd/{folder}/{os.path.basename(Layout().local_socket)}")
    yield tmp_path
    server.listener.close()
    os.close(folder)


def run(*words: str, **options: object) -> "subprocess.CompletedProcess[str]":
    options.setdefault("stdin", subprocess.DEVNULL)
    if "input" in options:
        del options["stdin"]
    return subprocess.run(cli("exec", *words), capture_output=True, text=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def test_exit_status_output_and_error_streams(home: pathlib.Path) -> None:
    done = run("c1", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_signal_ends_with_128_plus_n(home: pathlib.Path) -> None:
    assert run("c1", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_command_that_does_not_exist_is_one_line_and_127(home: pathlib.Path) -> None:
    done = run("c1", "--", "/no/such/command")
    assert done.returncode == 127
    assert done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


def test_no_such_instance(home: pathlib.Path) -> None:
    done = run("missing", "true")
    assert (done.stderr, done.returncode) == ("Error: Instance not found\n", 1)


def test_input_reaches_the_command_and_ends(home: pathlib.Path) -> None:
    assert run("c1", "cat", input="hello").stdout == "hello"


def test_environment_and_flags_after_the_instance_are_the_command_s(home: pathlib.Path) -> None:
    done = run("c1", "--env", "A=b c", "--", "sh", "-c", 'echo "$A" "$1"', "x", "-t")
    assert done.stdout == "b c -t\n"
    assert run("c1", "echo", "-n", "x").stdout == "x"


@pytest.mark.parametrize("target", ["file", "append", "pipe"])
def test_much_data_is_identical(home: pathlib.Path, target: str) -> None:
    big = home / "big"
    big.write_bytes(os.urandom(1 << 20) * 40)
    wanted = hashlib.sha256(big.read_bytes()).hexdigest()
    copy = home / "copy"
    with big.open("rb") as source:
        if target == "pipe":
            first = subprocess.Popen(cli("exec", "c1", "--", "cat"), stdin=source, stdout=subprocess.PIPE)
            assert first.stdout is not None
            digest = hashlib.sha256()
            while data := first.stdout.read(1 << 16):
                digest.update(data)
            first.stdout.close()
            assert first.wait(60) == 0 and digest.hexdigest() == wanted
            return
        with copy.open("ab" if target == "append" else "wb") as sink:
            assert subprocess.run(cli("exec", "c1", "--", "cat"), stdin=source, stdout=sink, timeout=60).returncode == 0
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == wanted


def test_one_descriptor_for_both_streams_and_a_slow_reader(home: pathlib.Path) -> None:
    code = "head -c 3000000 /dev/zero & head -c 3000000 /dev/zero >&2; wait"
    child = subprocess.Popen(
        cli("exec", "c1", "--", "sh", "-c", code),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    time.sleep(0.3)
    assert child.stdout is not None
    assert len(child.stdout.read()) == 6_000_000
    child.stdout.close()
    assert child.wait(30) == 0


def test_a_reader_that_leaves_ends_the_command(home: pathlib.Path) -> None:
    child = subprocess.Popen(cli("exec", "c1", "--", "yes"), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.wait(30) == 128 + signal.SIGPIPE


def test_a_child_left_behind_is_not_waited_for(home: pathlib.Path) -> None:
    before = time.monotonic()
    done = run("c1", "--", "sh", "-c", "sleep 20 & echo done")
    assert done.stdout == "done\n" and time.monotonic() - before < 10


def test_a_command_that_closes_its_input_does_not_spin_us(home: pathlib.Path) -> None:
    def cpu() -> float:
        return os.times().children_user + os.times().children_system

    before = cpu()
    reader, writer = os.pipe()
    child = subprocess.Popen(cli("exec", "c1", "--", "sh", "-c", "exec 0<&-; sleep 1"), stdin=reader)
    os.close(reader)
    assert child.wait(30) == 0
    os.close(writer)
    assert cpu() - before < 0.5


def test_interrupt_is_forwarded(home: pathlib.Path) -> None:
    code = "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done"
    child = subprocess.Popen(
        cli("exec", "c1", "--", "sh", "-c", code), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.read() == "caught\n"
    child.stdout.close()
    assert child.wait(30) == 3


def test_terminal_raw_mode_size_and_restore(home: pathlib.Path) -> None:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (33, 101))
    before = termios.tcgetattr(slave)
    child = subprocess.Popen(
        cli("exec", "c1", "--", "sh", "-c", "stty size; read line; echo got:$line; exit 5"),
        stdin=slave, stdout=slave, stderr=slave, start_new_session=True, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    seen = b""
    while b"\n" not in seen:
        seen += os.read(master, 1000)
    raw = termios.tcgetattr(slave)
    assert not raw[3] & termios.ICANON
    os.write(master, b"hello\r")
    while b"got:hello" not in seen:
        seen += os.read(master, 1000)
    assert child.wait(30) == 5
    assert termios.tcgetattr(slave) == before
    assert b"33 101" in seen
    os.close(master)
    os.close(slave)


def test_the_exec_path_imports_next_to_nothing(home: pathlib.Path) -> None:
    heavy = set(
        "re enum json socket argparse typing dataclasses asyncio subprocess threading http yaml rich signal selectors "
        "collections functools importlib logging".split()
    )
    code = (
        f"import sys; sys.path.append({HOME!r}); sys.argv=['lxpy','exec','c1','--','true']\n"
        "from lxpy.cli.main import main\nassert main() == 0\nprint(*sys.modules)"
    )
    done = subprocess.run([*CLI, code], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30)
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())


def test_lxpy_is_quiet_when_the_daemon_is_away_and_may_not_be_started(tmp_path: pathlib.Path) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.fail("needs root and setpriv")
    environment = {**os.environ, "LXPY_DIR": "/nonexistent/lxpy", "LXPY_CONF": "/nonexistent/conf"}
    command = ["setpriv", "--reuid=65534", "--clear-groups", *cli("list")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: lxpyd is not running") and done.stderr.count("\n") == 1
