"""Records what real programs write to a terminal, for `test_terminal_streams.py`: ``python -m tests.tui.record``.

Needs root, vim, htop, less, tmux and apt. It runs in namespaces of its own, so that nothing of this machine is seen.
The streams are kept in `tests/tui/streams`, since versions of programs differ.
"""

import fcntl
import os
import pathlib
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time

from lxpy.tui.terminal import Terminal

STREAMS = pathlib.Path(__file__).with_name("streams")
COLUMNS, ROWS = 80, 24

# What is typed, a piece every 0.3 s.
SESSIONS: dict[str, tuple[list[str], list[str]]] = {
    "vim": (
        ["vim", "-u", "NONE", "-N", "-c", "syntax on | set number ruler hlsearch incsearch", "code.py"],
        ["/def\r", "n", "ggVjj", "d", "u", ":vsplit\r", "\x1b", "G", "\x15", "oüml漢字 e\u0301nd\x1b", ":help\r",
         "\x04", ":q\r", "V", "\x1b"],
    ),
    "less": (
        ["less", "-N", "code.py"],
        [" ", " ", "b", "/import\r", "n", "G", "g", "\x1b[B\x1b[B", "-S\r", "h", "q", " "],
    ),
    "htop": (
        ["htop", "-d", "5"],
        ["\x1b[B", "\x1b[B", "t", " ", "\x1b[B", "M", "\x1bOR", "py", "\x1b", "h", " ", "t", "I"],
    ),
    "tmux": (
        ["tmux", "-L", "lxpy-record", "-f", "/dev/null", "new-session", "sh"],
        ["ls --color=always /usr\r", '\x02"', "seq 1 40\r", "\x02%", "ls -l --color=always /usr\r", "\x02o", "\x02[",
         "\x1b[5~", "q", "clear\r"],
    ),
    "apt": (
        ["sh", "-c", "apt list --installed 2>/dev/null | head -60; apt-cache show bash | head -40;"
         "apt-get -s -o Dpkg::Progress-Fancy=1 install cowsay 2>/dev/null; apt moo 2>/dev/null"],
        [" "] * 12,
    ),
}  # fmt: skip


def record(name: str) -> bytes:
    """Runs one session; gives what the program wrote until just before it was ended."""
    command, typed = SESSIONS[name]
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder, "code.py").write_text(pathlib.Path(__file__).read_text() * 2)
        pid, master = pty.fork()
        if pid == 0:
            os.chdir(folder)
            environment = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "LANG": "C.UTF-8", "HOME": folder,
                           "PS1": "$ ", "LESS": ""}  # fmt: skip
            os.execvpe(command[0], command, environment)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        terminal, data = Terminal(COLUMNS, ROWS), b""
        for piece in ["", "", *typed]:
            os.write(master, piece.encode())
            end = time.monotonic() + 0.35
            while (left := end - time.monotonic()) > 0:
                if select.select([master], [], [], left)[0]:
                    try:
                        more = os.read(master, 65536)
                    except OSError:
                        break
                    data += more
                    terminal.feed(more)
                    os.write(master, terminal.take_replies())
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(master)
        return data


if __name__ == "__main__":
    if os.getpid() != 1:
        apart = ["unshare", "--pid", "--uts", "--mount", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        os.execvp(apart[0], [*apart, 'hostname box; exec "$0" -m tests.tui.record "$@"', "python3", *sys.argv[1:]])
    STREAMS.mkdir(exist_ok=True)
    for session in sys.argv[1:] or SESSIONS:
        stream = record(session)
        (STREAMS / f"{session}.bin").write_bytes(stream)
        print(session, len(stream))
