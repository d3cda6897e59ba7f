"""A proxy beside a plain connection: ``python -m tests.bench.proxy``. Needs root; takes a minute and a half.

Both ends are Python processes that send and receive with buffers of a megabyte, on the same two processors as what is
measured: figures compare with one another, not with other machines.
"""

import multiprocessing
import os
import pathlib
import socket
import statistics
import sys
import time
from collections.abc import Callable

from tests.support import namespace, peers
from tests.support.daemon import Lxpyd

_SECONDS = 3.0
_ROUNDS = 3
_CHUNK = bytes(1 << 20)


def _serve(pid: int, host: str, port: int, ready: "multiprocessing.synchronize.Event") -> None:
    """Answers by the first byte: ``s`` swallow, ``e`` echo each byte, ``c`` one byte and the end."""
    server = peers.inside(pid, lambda: peers.listener(host, port)) if pid else peers.listener(host, port)
    server.settimeout(None)
    ready.set()
    while True:
        sock, _ = server.accept()
        if os.fork():
            sock.close()
            while True:
                try:
                    if os.waitpid(-1, os.WNOHANG)[0] == 0:
                        break
                except ChildProcessError:
                    break
            continue
        what = sock.recv(1)
        buffer = bytearray(1 << 20)
        if what == b"s":
            while sock.recv_into(buffer):
                pass
        elif what == b"e":
            while data := sock.recv(64):
                sock.send(data)
        os._exit(0)


def _accept(pid: int, host: str, port: int, ready: "multiprocessing.synchronize.Event") -> None:
    """Takes a connection, sends one byte, ends it: one after the other. Those that say ``k`` are kept."""
    server = peers.inside(pid, lambda: peers.listener(host, port)) if pid else peers.listener(host, port)
    server.settimeout(None)
    ready.set()
    kept = []
    while True:
        sock, _ = server.accept()
        if sock.recv(1) == b"k":
            kept.append(sock)
            continue
        sock.send(b"x")
        sock.close()


def _stream(host: str, port: int, streams: int) -> float:
    """Gigabytes per second."""

    def send(queue: "multiprocessing.queues.Queue[int]") -> None:
        sock = peers.connect(host, port)
        sock.send(b"s")
        sent, end = 0, time.monotonic() + _SECONDS
        while time.monotonic() < end:
            sent += sock.send(_CHUNK)
        queue.put(sent)

    queue: multiprocessing.queues.Queue[int] = multiprocessing.Queue()
    senders = [multiprocessing.Process(target=send, args=[queue]) for _ in range(streams)]
    for sender in senders:
        sender.start()
    total = sum(queue.get() for _ in senders)
    for sender in senders:
        sender.join()
    return total / _SECONDS / 1e9


def _trip(host: str, port: int) -> float:
    """Microseconds for one byte there and back."""
    with peers.connect(host, port) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.send(b"e")
        times = []
        for _ in range(5000):
            began = time.perf_counter()
            sock.send(b"x")
            sock.recv(1)
            times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def _rate(host: str, port: int) -> float:
    """Connections per second, one after the other: connect, a byte each way, the end."""
    count, end = 0, time.monotonic() + _SECONDS
    while time.monotonic() < end:
        with peers.connect(host, port) as sock:
            sock.send(b"c")
            assert sock.recv(1) == b"x"
        count += 1
    return count / _SECONDS


def _kilobytes(pid: int, key: str) -> int:
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])


def _proxies() -> list[int]:
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cmdline").read_bytes().startswith(b"lxpy proxy: "):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def main() -> int:
    lxpyd = Lxpyd("b", 0)
    lxpyd.start()
    helpers: list[multiprocessing.Process] = []
    try:
        lxpyd.initialise()
        address = f"10.97.{lxpyd.number}.77"
        lxpyd.cli("init", "bb", "b1")
        lxpyd.cli("config", "device", "override", "b1", "eth0", f"ipv4.address={address}")
        lxpyd.cli("start", "b1")
        lxpyd.wait_address("b1")
        pid = lxpyd.init_pid("b1")
        for number, keys in enumerate((
            ("listen=tcp:127.0.0.1:8001-8002", "connect=tcp:127.0.0.1:7001-7002"),
            (f"listen=tcp:{lxpyd.address}:8003-8004", f"connect=tcp:{address}:7003-7004", "nat=true"),
        )):  # fmt: skip
            lxpyd.cli("config", "device", "add", "b1", f"p{number}", "proxy", *keys)
        for where, host, port, serve in (
            (0, "127.0.0.1", 6001, _serve), (0, "127.0.0.1", 6002, _accept),
            (pid, "0.0.0.0", 7003, _serve), (pid, "0.0.0.0", 7004, _accept),
            (pid, "127.0.0.1", 7001, _serve), (pid, "127.0.0.1", 7002, _accept),
        ):  # fmt: skip
            ready = multiprocessing.Event()
            helper = multiprocessing.Process(target=serve, args=[where, host, port, ready])
            helper.start()
            helpers.append(helper)
            assert ready.wait(10)
        ways = {
            "loopback of the host": ("127.0.0.1", 6001), "instance, by its address": (address, 7003),
            "nat=true": (lxpyd.address, 8003), "proxy": ("127.0.0.1", 8001),
        }  # fmt: skip
        tests: dict[str, Callable[[str, int], float]] = {
            "one stream, GB/s": lambda host, port: _stream(host, port, 1),
            "eight streams, GB/s": lambda host, port: _stream(host, port, 8),
            "one byte there and back, µs": _trip,
            "connections per second": lambda host, port: _rate(host, port + 1),
        }
        samples: dict[str, dict[str, list[float]]] = {test: {way: [] for way in ways} for test in tests}
        for _ in range(_ROUNDS):
            for test, work in tests.items():
                for way, (host, port) in ways.items():
                    samples[test][way].append(work(host, port))
        print(f"| what | {' | '.join(ways)} |")
        print("|---|" + "---:|" * len(ways))
        for test, rows in samples.items():
            middle = [statistics.median(row) for row in rows.values()]
            print(f"| {test} | {' | '.join(f'{m:.1f}' if m < 100 else f'{m:.0f}' for m in middle)} |")
        (proxy,) = _proxies()
        print(
            f"- process, fresh: {_kilobytes(proxy, 'Pss')} kB PSS, {_kilobytes(proxy, 'Private_Dirty')} kB of its own"
        )
        kept = []
        for _ in range(400):
            sock = peers.connect("127.0.0.1", 8002)
            sock.send(b"k")
            kept.append(sock)
        time.sleep(0.5)
        print(f"- process with 400 idle connections (PSS): {_kilobytes(proxy, 'Pss')} kB")
        for sock in kept:
            sock.close()
    finally:
        for helper in helpers:
            helper.kill()
            helper.join()
        lxpyd.destroy()
    return 0


if __name__ == "__main__":
    if not namespace.inside():
        sys.exit(namespace.enter([sys.executable, "-m", "tests.bench.proxy"]))
    sys.exit(main())
