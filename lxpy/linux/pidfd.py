"""Processes by pidfd and start time: a bare pid may be somebody else's by now."""

import os
import select
import signal


def alive(fd: int) -> bool:
    """Whether the process has not ended (a zombie has)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not poll.poll(0)


def send(fd: int, number: int) -> None:
    """Sends a signal; nothing happens when the process has ended."""
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        pass


def start_time(pid: int) -> int:
    """Clock ticks after boot when the process started: field 22 of /proc/PID/stat.

    Raises:
        OSError: there is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b") ")[2].split()[19])


def open_verified(pid: int, started: int) -> int:
    """A pidfd of the process that had `pid` and started then, -1 when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return -1
    try:
        if start_time(pid) == started and alive(fd):
            return fd
    except OSError:
        pass
    os.close(fd)
    return -1
