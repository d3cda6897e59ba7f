"""What a proxy does with connections: bytes of streams by splice(2), datagrams one by one. One process, one epoll.

Bytes of a stream never come into Python: they go from socket to socket through a pipe, which is taken from a small
pool for as long as something is in it, so that an idle connection costs two descriptors and nothing else. (A sockmap
would spare the wake-ups as well, for BPF programs of our own and kernels that are built for them.) Sockets are
registered once, edge-triggered: each is served until the kernel has no more for it, or until its turn is over.
"""

import errno
import fcntl
import os
import select
import socket
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Target = tuple[int, int, Any]  # family, type, address as `connect` wants it

_PIPE = 1 << 20  # bytes a pipe may hold: slots are by the segment, and small segments fill 64 kB with little
_POOL = 16  # empty pipes kept
_TURN = 16  # splices of one direction before others get theirs
_SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_EVENTS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_CONNECT_SECONDS = 30.0
_AGAIN = 0.02  # seconds until a unix socket whose backlog is full is tried again
_DATAGRAM = 65535
_SESSIONS = 4096  # of one listening socket; the one longest unused goes first
# As the kernel's connection tracking has them (nf_conntrack_udp_timeout and _stream).
_UNANSWERED, _ANSWERED = 30.0, 120.0
_IP_PKTINFO, _IPV6_PKTINFO, _IPV6_RECVPKTINFO = 8, 50, 49  # include/uapi/linux/in.h, in6.h
_BACKLOG = 1 << 20  # bytes kept for a stream that takes no more from a datagram's sender

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: the end is a reset, for what was cut off must not look complete


class Relay:
    """The loop. `add_listener` first, then `run`."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.serve: dict[int, Callable[[int, int], None]] = {}  # by descriptor: (descriptor, events)
        self.pipes: list[tuple[int, int]] = []
        self._turns: list[_Pair] = []
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self._paused: list[tuple[socket.socket, Callable[[int, int], None]]] = []
        self._regular: list[Callable[[], None]] = []

    def add(self, fd: int, events: int, serve: "Callable[[int, int], None]") -> None:
        self.serve[fd] = serve
        self.poll.register(fd, events)

    def remove(self, fd: int) -> None:
        if self.serve.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def later(self, seconds: float, work: "Callable[[], None]") -> None:
        self._timers.append((time.monotonic() + seconds, work))

    def turn(self, pair: "_Pair") -> None:
        """Serve it again once the others have had theirs."""
        if not pair.waiting:
            pair.waiting = True
            self._turns.append(pair)

    def add_listener(self, sock: socket.socket, target: "Target", header: bool) -> None:
        """Connections (or datagrams) that arrive at `sock` go to `target`. `header`: tell that who they are of."""
        if sock.type == socket.SOCK_DGRAM:
            sessions = _Sessions(self, sock, target)
            self._regular.append(sessions.expire)
            self.add(sock.fileno(), select.EPOLLIN, sessions.heard)
            return

        def accept(_fd: int, _events: int) -> None:
            for _ in range(64):
                try:
                    client, _address = sock.accept()
                except BlockingIOError:
                    return
                except OSError as error:
                    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                        # Until one of the others ends; the kernel keeps who waits.
                        self.remove(sock.fileno())
                        self._paused.append((sock, accept))
                        return
                    continue  # it has gone again
                try:
                    self._open(client, target, header)
                except OSError:
                    _abort(client)

        self.add(sock.fileno(), select.EPOLLIN, accept)

    def _open(self, client: socket.socket, target: "Target", header: bool) -> None:
        client.setblocking(False)
        family, kind, address = target
        server = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            _tune(client)
            _tune(server)
            hello = _header(client) if header else b""
        except BaseException:
            server.close()
            raise
        pair = _Pair(self, client, server) if kind == socket.SOCK_STREAM else _Mixed(self, client, server)
        pair.connect(address, hello)

    def run(self) -> None:
        while True:
            for fd, events in self.poll.poll(self._wait(), 1024):
                serve = self.serve.get(fd)
                if serve is not None:
                    serve(fd, events)
            turns, self._turns = self._turns, []
            for pair in turns:
                pair.waiting = False
                pair.pump()
            if self._timers or self._regular:
                self._tick()
            if self._paused:
                paused, self._paused = self._paused, []
                for sock, accept in paused:
                    self.add(sock.fileno(), select.EPOLLIN, accept)

    def _wait(self) -> float:
        if self._turns:
            return 0
        if self._paused:
            return 0.05
        if self._timers:
            return max(0.0, min(when for when, _ in self._timers) - time.monotonic())
        return 5.0 if self._regular else -1

    def _tick(self) -> None:
        for work in self._regular:
            work()
        now = time.monotonic()
        due = [work for when, work in self._timers if when <= now]
        if due:
            self._timers = [one for one in self._timers if one[0] > now]
            for work in due:
                work()


class _Way:
    """One direction of a pair: what comes from `source` goes to `sink`."""

    __slots__ = ("done", "ended", "held", "pipe", "sink", "source")

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source, self.sink = source, sink
        self.pipe: tuple[int, int] | None = None
        self.held = 0  # bytes in the pipe
        self.ended = self.done = False  # nothing more comes; and that has been passed on


class _Pair:
    """Two connected streams. Each end of one side is passed on to the other, when all before it has been."""

    __slots__ = ("_client", "_closed", "_connected", "_hello", "_relay", "_server", "_ways", "waiting")

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay, self._client, self._server = relay, client, server
        self._ways = (_Way(client, server), _Way(server, client))
        self._hello = b""
        self.waiting = False
        self._connected = self._closed = False

    def connect(self, address: "Any", hello: bytes) -> None:
        """Begins to connect; `hello` is what the server hears first."""
        self._hello = hello
        self._try(address, time.monotonic() + _CONNECT_SECONDS)

    def _try(self, address: "Any", deadline: float) -> None:
        if self._closed:
            return
        try:
            self._server.connect(address)
        except BlockingIOError as error:
            if error.errno == errno.EAGAIN:  # a unix socket with a full backlog
                if time.monotonic() > deadline:
                    self.abort()
                else:
                    self._relay.later(_AGAIN, lambda: self._try(address, deadline))
                return
        except OSError:
            self.abort()
            return
        for sock in (self._server, self._client):
            self._relay.add(sock.fileno(), _EVENTS, self._served)

    def _served(self, fd: int, events: int) -> None:
        if not self._connected:
            if fd != self._server.fileno():
                return  # it is looked at as soon as there is a server
            if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.abort()
                return
            if not events & select.EPOLLOUT or not _is_connected(self._server):
                return
            self._connected = True
            try:
                if self._hello:
                    self._server.send(self._hello)  # into the empty buffer of a new connection
            except OSError:
                self.abort()
                return
            self.pump()
            return
        there, back = self._ways if fd == self._client.fileno() else self._ways[::-1]
        if events & _READABLE and not there.ended:
            self._move(there)
        elif events & select.EPOLLERR:
            self.abort()
        if events & select.EPOLLOUT and back.held and not self._closed:
            self._move(back)

    def pump(self) -> None:
        """Both directions, as far as they go."""
        for way in self._ways:
            if not self._closed and not way.done:
                self._move(way)

    def _move(self, way: _Way) -> None:
        source, sink = way.source.fileno(), way.sink.fileno()
        try:
            for _ in range(_TURN):
                if not way.held:
                    if way.ended:
                        break
                    if way.pipe is None:
                        way.pipe = self._take_pipe()
                    try:
                        way.held = os.splice(source, way.pipe[1], _PIPE, flags=_SPLICE)
                    except BlockingIOError:
                        break
                    if not way.held:
                        way.ended = True
                        break
                try:
                    way.held -= os.splice(way.pipe[0], sink, way.held, flags=_SPLICE)  # type: ignore[index]
                except BlockingIOError:
                    return
            else:
                self._relay.turn(self)
        except OSError:
            self.abort()
            return
        if way.held:
            return
        self._give_pipe(way)
        if way.ended and not way.done:
            way.done = True
            if all(one.done for one in self._ways):
                self._close()
                return
            try:
                way.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.abort()

    def _take_pipe(self) -> tuple[int, int]:
        if self._relay.pipes:
            return self._relay.pipes.pop()
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            pass  # fs.pipe-max-size: it works with less
        return pipe

    def _give_pipe(self, way: _Way) -> None:
        if way.pipe is None:
            return
        if way.held or len(self._relay.pipes) >= _POOL:
            for fd in way.pipe:
                os.close(fd)
        else:
            self._relay.pipes.append(way.pipe)
        way.pipe = None

    def abort(self) -> None:
        """One side is gone, or never came: the other hears of it as a reset."""
        self._close(reset=True)

    def _close(self, *, reset: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        for way in self._ways:
            self._give_pipe(way)
        for sock in (self._client, self._server):
            self._relay.remove(sock.fileno())
            _abort(sock) if reset else sock.close()


class _Mixed(_Pair):
    """A stream on the one side, datagrams on the other: what is read at once becomes one, and each is written on."""

    def _move(self, way: _Way) -> None:
        try:
            for _ in range(_TURN):
                data = way.source.recv(_DATAGRAM if way.source is self._server else 1400)
                if not data and way.source is self._client:
                    self._close()
                    return
                way.sink.send(data)  # a stream that takes no more loses some, as datagrams may be
            self._relay.turn(self)
        except BlockingIOError:
            pass
        except OSError:
            self.abort()


class _Session:
    """One sender of datagrams and the socket that stands for it towards the target."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.used = time.monotonic()
        self.answered = False
        self.pending = bytearray()  # of a stream only
        self.ready = sock.type == socket.SOCK_DGRAM


class _Sessions:
    """The senders of one listening datagram socket, each answered from the address that it wrote to."""

    def __init__(self, relay: Relay, sock: socket.socket, target: "Target") -> None:
        self._relay, self._sock, self._target = relay, sock, target
        self._sessions: dict[Any, _Session] = {}  # by sender and the address it wrote to; the least used first
        self._buffer = bytearray(_DATAGRAM)
        self._view = memoryview(self._buffer)
        self._expiry = 0.0
        host = sock.getsockname()[0]
        self._any = host in ("0.0.0.0", "::")
        if self._any and sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        elif self._any:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)

    def heard(self, _fd: int, _events: int) -> None:
        for _ in range(256):
            try:
                length, extra, _flags, sender = self._sock.recvmsg_into([self._buffer], 64 if self._any else 0)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of an answer that went nowhere
            mine = b""
            for level, kind, data in extra:
                if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
                    mine = bytes(4) + data[4:8] + bytes(4)  # struct in_pktinfo: the local address, by any route
                elif (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
                    mine = data[:16] + bytes(4)
            key = (sender, mine)
            session = self._sessions.pop(key, None)
            try:
                if session is None:
                    session = self._begin(key)
                self._sessions[key] = session
                session.used = time.monotonic()
                self._pass_on(session, self._view[:length])
            except BlockingIOError:
                continue  # full: datagrams may be lost
            except OSError:
                self._end(key)  # refused: the next one may be taken

    def _begin(self, key: "Any") -> _Session:
        if len(self._sessions) >= _SESSIONS:
            self._end(next(iter(self._sessions)))
        family, kind, address = self._target
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(address)
        except BlockingIOError:
            pass
        except BaseException:
            sock.close()
            raise
        session = _Session(sock)
        self._relay.add(
            sock.fileno(), select.EPOLLIN if session.ready else _EVENTS, lambda _fd, events: self._answer(key, events)
        )
        return session

    def _pass_on(self, session: _Session, data: "memoryview | bytes") -> None:
        if session.sock.type == socket.SOCK_DGRAM:
            session.sock.send(data)
            return
        if len(session.pending) < _BACKLOG:
            session.pending += data
        if session.ready:
            sent = session.sock.send(session.pending)
            del session.pending[:sent]

    def _answer(self, key: "Any", events: int) -> None:
        session = self._sessions.get(key)
        if session is None:
            return
        try:
            if not session.ready and events & select.EPOLLOUT:
                session.ready = True
            if session.ready and session.pending:
                self._pass_on(session, b"")
        except BlockingIOError:
            pass
        except OSError:
            self._end(key)
            return
        sender, mine = key
        extra = []
        if mine:
            four = self._sock.family == socket.AF_INET
            extra = [(socket.IPPROTO_IP, _IP_PKTINFO, mine) if four else (socket.IPPROTO_IPV6, _IPV6_PKTINFO, mine)]
        for _ in range(256):
            try:
                length = session.sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                self._end(key)
                return
            if not length and session.sock.type == socket.SOCK_STREAM:
                self._end(key)
                return
            session.used, session.answered = time.monotonic(), True
            try:
                if extra:
                    self._sock.sendmsg([self._view[:length]], extra, 0, sender)
                else:
                    self._sock.sendto(self._view[:length], sender)
            except OSError:
                continue  # the sender's side is full or gone

    def _end(self, key: "Any") -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            self._relay.remove(session.sock.fileno())
            session.sock.close()

    def expire(self) -> None:
        """Ends sessions that nobody has used for their time. Cheap: looks every few seconds."""
        now = time.monotonic()
        if now < self._expiry:
            return
        self._expiry = now + 2.0
        for key, session in list(self._sessions.items()):
            if now - session.used > (_ANSWERED if session.answered else _UNANSWERED):
                self._end(key)


def _tune(sock: socket.socket) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


def _is_connected(sock: socket.socket) -> bool:
    """An event may be one of the socket that had this number before."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _abort(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass
    sock.close()


def _header(client: socket.socket) -> bytes:
    """The PROXY protocol's line, version 1: who is connected, to what (haproxy.org, proxy-protocol.txt, 2.1)."""
    if client.family not in (socket.AF_INET, socket.AF_INET6):
        return b"PROXY UNKNOWN\r\n"
    source, target = client.getpeername(), client.getsockname()
    hosts = [one[0].partition("%")[0] for one in (source, target)]
    family = "TCP6" if client.family == socket.AF_INET6 else "TCP4"
    if all(host.startswith("::ffff:") and "." in host for host in hosts):
        family, hosts = "TCP4", [host[7:] for host in hosts]
    return f"PROXY {family} {hosts[0]} {hosts[1]} {source[1]} {target[1]}\r\n".encode()
