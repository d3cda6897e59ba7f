"""A websocket client (RFC 6455) over a `Stream`: text and binary frames, pings answered, no extensions."""

from __future__ import annotations

import os

from lxpy.api.errors import Unavailable, from_status
from lxpy.client import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.http import Stream

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class WebSocket:
    """An open websocket.

    Raises:
        ApiError: the server refused the upgrade.
    """

    def __init__(self, stream: Stream, target: str) -> None:
        import binascii

        key = binascii.b2a_base64(os.urandom(16), newline=False).decode()
        stream.send(
            "GET", target,
            {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key},
        )  # fmt: skip
        try:
            response = stream.read_head()
            if response.status != 101:
                pieces: list[bytes] = []
                stream._read_body(response, pieces.append)
                message = f"The server refused the websocket (HTTP {response.status})"
                try:
                    message = wire.loads(b"".join(pieces).decode())["error"]
                except (ValueError, KeyError, TypeError):
                    pass
                raise from_status(response.status, message)
        except EOFError:
            raise Unavailable("The server closed the connection during the websocket handshake") from None
        self.sock, self._buffer = stream.take_over()
        self.closed = False

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        """Say goodbye and close."""
        if not self.closed:
            self.closed = True
            try:
                self._send(CLOSE, b"\x03\xe8")
            except OSError:
                pass
            self.sock.close()

    def send_text(self, text: str) -> None:
        self._send(TEXT, text.encode())

    def send_bytes(self, data: bytes) -> None:
        self._send(BINARY, data)

    def _send(self, opcode: int, data: bytes) -> None:
        size = len(data)
        if size < 126:
            head = bytes((0x80 | opcode, 0x80 | size))
        elif size < 1 << 16:
            head = bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2, "big")
        else:
            head = bytes((0x80 | opcode, 0xFF)) + size.to_bytes(8, "big")
        self.sock.sendall(head + b"\0\0\0\0" + data if size == 0 else head + _masked(data))

    def pending(self) -> bool:
        """Whether a whole frame lies in the buffer already (poll would not tell)."""
        return self._frame_size() is not None

    def receive(self) -> tuple[int, bytes] | None:
        """The next message as (TEXT or BINARY, payload); None when the other side closed. Blocks."""
        kind, pieces = 0, b""
        while True:
            frame = self._frame()
            if frame is None:
                self.closed = True
                self.sock.close()
                return None
            final, opcode, data = frame
            if opcode == PING:
                self._send(PONG, data)
            elif opcode == CLOSE:
                self.close()
                return None
            elif opcode != PONG:
                kind = opcode or kind
                pieces += data
                if final:
                    return kind, pieces

    def _frame_size(self) -> tuple[int, int] | None:
        """(size of the head, size of the payload) when the buffer holds a whole frame."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        size, head = buffer[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            head += width
            if len(buffer) < head:
                return None
            size = int.from_bytes(buffer[2:head], "big")
        if buffer[1] & 0x80:
            head += 4
        return (head, size) if len(buffer) >= head + size else None

    def _frame(self) -> tuple[bool, int, bytes] | None:
        while (sizes := self._frame_size()) is None:
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._buffer += data
        head, size = sizes
        first, second = self._buffer[0], self._buffer[1]
        data = self._buffer[head : head + size]
        if second & 0x80:
            data = _mask(data, self._buffer[head - 4 : head])
        self._buffer = self._buffer[head + size :]
        return bool(first & 0x80), first & 0x0F, data


def _masked(data: bytes) -> bytes:
    key = os.urandom(4)
    return key + _mask(data, key)


def _mask(data: bytes, key: bytes) -> bytes:
    # As one big integer: some hundred times faster than byte by byte.
    size = len(data)
    repeated = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
