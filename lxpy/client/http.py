"""A small HTTP/1.1 client over one kept-alive stream: content-length and chunked bodies, uploads by sendfile."""

from __future__ import annotations

import os

from lxpy.api.errors import Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_CHUNK = 1 << 18


class Response:
    """Status, headers (lower-case names) and the whole body."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body as JSON; Unavailable when it is something else (no lxpyd at that address)."""
        from lxpy.client import wire

        try:
            return wire.loads(self.body.decode())
        except ValueError:
            raise Unavailable(f"The server did not answer with JSON (HTTP {self.status}): is it lxpy?") from None


class Stream:
    """One connection. Not thread-safe; after an error it is closed and the next request opens a new one.

    Args:
        dial: opens the socket.
        host: for the Host header.
    """

    def __init__(self, dial: Callable[[], socket.socket], host: str, agent: str = "lxpy") -> None:
        self._dial = dial
        self._head = f"Host: {host}\r\nUser-Agent: {agent}\r\n"
        self._sock: socket.socket | None = None
        self._buffer = b""
        self._fresh = True

    @property
    def sock(self) -> socket.socket:
        """The connected socket."""
        if self._sock is None:
            self._sock = self._dial()
            self._buffer = b""
            self._fresh = True
        return self._sock

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def hang_up(self) -> None:
        """Ends the connection for whoever reads or writes on it in another thread: that one closes it."""
        import socket

        sock = self._sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # gone by itself

    def send(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> None:
        """Send a request whose body is at hand."""
        extra = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        length = f"Content-Length: {len(body)}\r\n" if body or method in ("POST", "PUT", "PATCH") else ""
        self.sock.sendall(f"{method} {target} HTTP/1.1\r\n{self._head}{extra}{length}\r\n".encode() + body)

    def request(self, method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Response:
        """Send and read. A kept-alive connection the server has closed meanwhile is opened anew, once."""
        reused = self._sock is not None and not self._fresh
        try:
            self.send(method, target, headers, body)
            return self.read()
        except (BrokenPipeError, ConnectionResetError, EOFError):
            self.close()
            if not reused:
                raise Unavailable("The server closed the connection without an answer") from None
        except BaseException:
            self.close()
            raise
        self.send(method, target, headers, body)
        try:
            return self.read()
        except EOFError:
            self.close()
            raise Unavailable("The server closed the connection without an answer") from None

    def send_file(self, method: str, target: str, headers: dict[str, str], parts: list[bytes | int]) -> None:
        """Send a request whose body is pieces of bytes and whole open files (by sendfile where the socket can)."""
        total = sum(len(part) if isinstance(part, bytes) else os.fstat(part).st_size for part in parts)
        extra = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        self.sock.sendall(f"{method} {target} HTTP/1.1\r\n{self._head}{extra}Content-Length: {total}\r\n\r\n".encode())
        plain = not hasattr(self.sock, "cipher")
        for part in parts:
            if isinstance(part, bytes):
                self.sock.sendall(part)
                continue
            size, at = os.fstat(part).st_size, 0
            while at < size:
                if plain:
                    sent = os.sendfile(self.sock.fileno(), part, at, min(size - at, 1 << 30))
                    if sent == 0:
                        raise Unavailable("The file became shorter while it was being sent")
                    at += sent
                else:
                    data = os.pread(part, _CHUNK, at)
                    if not data:
                        raise Unavailable("The file became shorter while it was being sent")
                    self.sock.sendall(data)
                    at += len(data)

    def send_chunks(
        self, method: str, target: str, headers: dict[str, str], blocks: Iterable[bytes], source: int = -1
    ) -> None:
        """Send a request whose body's length nobody knows yet.

        Args:
            source: the descriptor that `blocks` reads, if it is one that may have nothing for long.

        Raises:
            BrokenPipeError: the server has answered, or gone, before the end.
        """
        extra = "".join(f"{key}: {value}\r\n" for key, value in headers.items())
        head = f"{method} {target} HTTP/1.1\r\n{self._head}{extra}Transfer-Encoding: chunked\r\n\r\n"
        self.sock.sendall(head.encode())
        pieces = iter(blocks)
        while True:
            if source >= 0:
                self._wait(source)
            if (block := next(pieces, None)) is None:
                break
            if block:
                self.sock.sendall(f"{len(block):x}\r\n".encode() + block + b"\r\n")
        self.sock.sendall(b"0\r\n\r\n")

    def _wait(self, source: int) -> None:
        import select

        poll = select.poll()
        poll.register(source, select.POLLIN)
        poll.register(self.sock, select.POLLIN)
        if not any(fd == source for fd, _ in poll.poll()):
            raise BrokenPipeError

    def read_head(self) -> Response:
        """Status line and headers of the next answer."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            self._more()
        head, self._buffer = self._buffer[:end].decode("latin-1"), self._buffer[end + 4 :]
        lines = head.split("\r\n")
        fields = lines[0].split(" ", 2)
        if len(fields) < 2 or not fields[0].startswith("HTTP/") or not fields[1].isdigit():
            raise Unavailable("The server does not speak HTTP")
        headers = {}
        for line in lines[1:]:
            key, _, value = line.partition(":")
            headers[key.strip().lower()] = value.strip()
        return Response(int(fields[1]), headers)

    def read(self) -> Response:
        """The next answer, whole."""
        response = self.read_head()
        while response.status in (100, 102, 103):
            response = self.read_head()
        pieces: list[bytes] = []
        self._read_body(response, pieces.append)
        response.body = b"".join(pieces)
        return response

    def read_into(self, fd: int, response: Response) -> int:
        """Write the body of `response` (from `read_head`) to `fd`; the number of bytes."""
        total = 0

        def write(data: bytes) -> None:
            nonlocal total
            view = memoryview(data)
            total += len(view)
            while view:
                view = view[os.write(fd, view) :]

        self._read_body(response, write)
        return total

    def read_blocks(self, response: Response) -> Iterator[bytes]:
        """The body of `response` (from `read_head`), piece by piece."""
        chunked = response.headers.get("transfer-encoding", "").lower() == "chunked"
        left = 0 if chunked else int(response.headers.get("content-length", "0"))
        while True:
            if chunked:
                left = last = int(self._line().split(b";")[0], 16)
            while left:
                if not self._buffer:
                    self._more()
                piece, self._buffer = self._buffer[:left], self._buffer[left:]
                left -= len(piece)
                yield piece
            if not chunked:
                return
            self._line()  # behind a chunk, or behind the last one, which is empty
            if not last:
                return

    def _read_body(self, response: Response, sink: Callable[[bytes], Any]) -> None:
        headers = response.headers
        if response.status in (204, 304) or response.status < 200:
            return
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while True:
                size = int(self._line().split(b";")[0], 16)
                if size == 0:
                    while self._line():
                        pass
                    break
                self._exactly(size, sink)
                self._line()
        elif "content-length" in headers:
            self._exactly(int(headers["content-length"]), sink)
        else:
            try:
                while True:
                    if self._buffer:
                        sink(self._buffer)
                        self._buffer = b""
                    self._more()
            except EOFError:
                self.close()
                return
        self._fresh = False
        if headers.get("connection", "").lower() == "close":
            self.close()

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _exactly(self, size: int, sink: Callable[[bytes], Any]) -> None:
        take = self._buffer[:size]
        self._buffer = self._buffer[size:]
        if take:
            sink(take)
        left = size - len(take)
        while left:
            data = self.sock.recv(min(left, _CHUNK))
            if not data:
                raise EOFError
            sink(data)
            left -= len(data)

    def _more(self) -> None:
        data = self.sock.recv(_CHUNK)
        if not data:
            raise EOFError
        self._buffer += data

    def take_over(self) -> tuple[socket.socket, bytes]:
        """The bare socket and what was read ahead, after an upgrade; the stream is done with it."""
        sock, rest = self.sock, self._buffer
        self._sock, self._buffer = None, b""
        return sock, rest
