"""One synchronous client for Unix socket and HTTPS. Threads each use their own."""

from __future__ import annotations

import os

from lxpy.api.errors import ApiError, NotFound, Unavailable, from_status
from lxpy.api.layout import Layout
from lxpy.client import wire
from lxpy.client.http import Response, Stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

    from lxpy.api.objects import Event
    from lxpy.client.remotes import Remote
    from lxpy.client.websocket import WebSocket

_FINAL = (200, 400, 401)
_PATIENCE_MS = 120  # an operation this short shows no progress, and needs no events socket
_PIPELINE = 32  # requests sent ahead of their answers


class Client:
    """A server.

    Args:
        dial: opens a connection.
        project: sent with every request unless it names another.
        remote: the remote it was made for.
        local: whether `local.socket` of this machine may be used for exec.
    """

    def __init__(
        self, dial: Callable[[], socket.socket], host: str, remote: Remote, project: str = "", local: bool = False
    ) -> None:
        self._dial, self._host = dial, host
        self.remote = remote
        self.project = project
        self.local = local
        self._stream = Stream(dial, host)
        self._joining: Stream | None = None  # a websocket's, until the server has agreed

    def close(self) -> None:
        self._stream.close()

    def hang_up(self) -> None:
        """Wakes the thread that waits for an answer here: to it the server has gone."""
        self._stream.hang_up()
        joining = self._joining
        if joining is not None:
            joining.hang_up()

    def target(self, path: str, query: dict[str, str] | None = None) -> str:
        """The request target: `path` with `query` and the project."""
        asked = {key: value for key, value in (query or {}).items() if value != ""}
        if self.project and "project" not in asked and "project=" not in path:
            asked["project"] = self.project
        text = wire.query_string(asked)
        return path + ("&" + text[1:] if text and "?" in path else text)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        """One request. `body` is JSON-able, or bytes as they are.

        Raises:
            ApiError: of the answer's status.
            Unavailable: no server, or it went away.
        """
        sent = dict(headers or {})
        response = self._stream.request(method, self.target(path, query), sent, _encode(body, sent))
        return _check(response)

    def get(self, path: str, **query: str) -> Any:
        """The metadata of an answer."""
        return self.request("GET", path, query=query).json()["metadata"]

    def get_etag(self, path: str) -> tuple[Any, str]:
        """The metadata and its ETag, for a later `put`."""
        response = self.request("GET", path)
        return response.json()["metadata"], response.headers.get("etag", "")

    def post(self, path: str, body: Any = None, **query: str) -> Any:
        """The metadata; of an asynchronous answer the Operation."""
        return self._metadata("POST", path, {} if body is None else body, query)

    def put(self, path: str, body: Any = None, etag: str = "", **query: str) -> Any:
        return self._metadata("PUT", path, {} if body is None else body, query, etag)

    def patch(self, path: str, body: Any = None, etag: str = "", **query: str) -> Any:
        return self._metadata("PATCH", path, {} if body is None else body, query, etag)

    def delete(self, path: str, body: Any = None, **query: str) -> Any:
        return self._metadata("DELETE", path, body, query)

    def _metadata(self, method: str, path: str, body: Any, query: dict[str, str], etag: str = "") -> Any:
        headers = {"If-Match": etag} if etag else None
        response = self.request(method, path, body, query, headers)
        return response.json().get("metadata") if response.body else None

    def many(self, requests: list[tuple[str, str, Any]]) -> list[Any]:
        """Many requests in one go (HTTP pipelining): their metadata, or the `ApiError`, in order.

        Each request is (method, path, body). What they start runs side by side in the daemon.
        """
        results: list[Any] = []
        for start in range(0, len(requests), _PIPELINE):
            batch = requests[start : start + _PIPELINE]
            for method, path, body in batch:
                headers: dict[str, str] = {}
                self._stream.send(method, self.target(path), headers, _encode(body, headers))
            for _ in batch:
                try:
                    results.append(_check(self._stream.read()).json().get("metadata"))
                except ApiError as error:
                    results.append(error)
                except (EOFError, OSError):
                    self._stream.close()
                    raise Unavailable("The server closed the connection without an answer") from None
        return results

    def wait(
        self, operation: dict[str, Any], progress: Callable[[dict[str, Any]], None] | None = None
    ) -> dict[str, Any]:
        """The operation once it has ended.

        Args:
            operation: what `post` and the others gave; anything that is no operation is given back.
            progress: called with the operation whenever it changes. Opens the events socket, but only for work
                that takes longer than an eye notices.

        Raises:
            ApiError: the operation's error.
        """
        if not isinstance(operation, dict) or "status_code" not in operation or "id" not in operation:
            return operation
        if operation["status_code"] not in _FINAL:
            path = self.target(f"/1.0/operations/{operation['id']}/wait", {"timeout": "-1"})
            self._stream.send("GET", path, {})
            try:
                if progress is not None:
                    self._watch(operation["id"], progress)
                operation = _check(self._stream.read()).json()["metadata"]
            except KeyboardInterrupt:
                self._stream.close()  # the answer would be taken for that of the next request
                raise
            except EOFError:
                self._stream.close()
                raise Unavailable(
                    "The daemon ended while the work was going on: look at the object's state, then try again"
                ) from None
        if operation["status_code"] != 200:
            raise ApiError(operation.get("err") or operation.get("status") or "The operation failed")
        return operation

    def _watch(self, operation_id: str, progress: Callable[[dict[str, Any]], None]) -> None:
        """Feed `progress` from the events until the answer on the main stream can be read."""
        import select

        poll = select.poll()
        poll.register(self._stream.fileno(), select.POLLIN)
        if self._stream._buffer or poll.poll(_PATIENCE_MS):
            return
        try:
            socket = self._websocket(self.target("/1.0/events", {"type": "operation"}))
        except (ApiError, OSError):
            return
        poll.register(socket.fileno(), select.POLLIN)
        try:
            while True:
                ready = [] if socket.pending() else [fd for fd, _ in poll.poll()]
                if self._stream.fileno() in ready:
                    return
                message = socket.receive()
                if message is None:
                    return
                event = wire.loads(message[1].decode())
                if event.get("type") == "operation" and event["metadata"].get("id") == operation_id:
                    progress(event["metadata"])
        finally:
            socket.close()

    def cancel(self, operation: dict[str, Any], patience: int = 10) -> dict[str, Any] | None:
        """End an operation, on a connection of its own.

        Args:
            patience: seconds the operation gets to undo what it had begun.

        Returns:
            The operation as it was at the end of that time; None when the server did not agree.
        """
        stream = Stream(self._dial, self._host)
        try:
            path = f"/1.0/operations/{operation['id']}"
            if stream.request("DELETE", self.target(path), {}).status >= 300:
                # It may have ended by itself a moment ago: then that is what is to be told.
                ended = _check(stream.request("GET", self.target(path), {})).json()["metadata"]
                return ended if ended["status_code"] in _FINAL else None
            answer = stream.request("GET", self.target(f"{path}/wait", {"timeout": str(patience)}), {})
            return dict(_check(answer).json()["metadata"])
        except (ApiError, OSError, EOFError):
            return None
        finally:
            stream.close()

    def _websocket(self, target: str) -> WebSocket:
        from lxpy.client.websocket import WebSocket

        stream = self._joining = Stream(self._dial, self._host)
        try:
            return WebSocket(stream, target)
        except BaseException:
            stream.close()
            raise
        finally:
            self._joining = None

    def websocket(self, path: str, **query: str) -> WebSocket:
        """An open websocket at `path`."""
        return self._websocket(self.target(path, query))

    def events(self, types: list[str], all_projects: bool = False) -> Iterator[Event]:
        """Events as they come, until the generator is closed or the server ends."""
        query = {"type": ",".join(types)}
        if all_projects:
            query["all-projects"] = "true"
        socket = self._websocket(self.target("/1.0/events", query))
        try:
            while (message := socket.receive()) is not None:
                yield wire.loads(message[1].decode())
        finally:
            socket.close()

    def upload(self, method: str, path: str, parts: list[bytes | int], headers: dict[str, str], **query: str) -> Any:
        """Send bytes and whole open files as one body (sendfile); the metadata of the answer."""
        return self._send(lambda: self._stream.send_file(method, self.target(path, query), headers, parts))

    def upload_blocks(
        self,
        method: str,
        path: str,
        blocks: Iterable[bytes],
        headers: dict[str, str],
        *,
        source: int = -1,
        **query: str,
    ) -> Any:
        """Send a body as it comes into being; the metadata of the answer. `source`: see `Stream.send_chunks`."""
        return self._send(lambda: self._stream.send_chunks(method, self.target(path, query), headers, blocks, source))

    def _send(self, send: Callable[[], None]) -> Any:
        """The metadata of the answer to a body that `send` writes."""
        try:
            send()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has said why, and does not want the rest
        except BaseException:
            self._stream.close()
            raise
        try:
            return _check(self._stream.read()).json().get("metadata")
        except (EOFError, OSError):
            self._stream.close()
            raise Unavailable("The server closed the connection during the upload") from None

    def upgrade(self, path: str, protocol: str) -> socket.socket:
        """The bare connection after ``Upgrade: protocol``, on a connection of its own. Raises `ApiError`."""
        stream = Stream(self._dial, self._host)
        stream.send("GET", self.target(path), {"Connection": "Upgrade", "Upgrade": protocol})
        response = stream.read_head()
        if response.status != 101:
            response.body = b"".join(stream.read_blocks(response))
            _check(response)
            raise Unavailable(f"The server does not speak {protocol} there")
        return stream.take_over()[0]

    def head(self, path: str, **query: str) -> Response:
        """Status and headers; a failure has no more than its status."""
        for again in (True, False):
            self._stream.send("HEAD", self.target(path, query), {})
            try:
                return self._stream.read_head()
            except (EOFError, ConnectionResetError):
                self._stream.close()
                if not again:
                    raise Unavailable("The server closed the connection without an answer") from None
        raise AssertionError

    def download_blocks(self, path: str, **query: str) -> tuple[Response, Iterator[bytes]]:
        """The headers and, piece by piece, the body of a GET. Raises `ApiError` of the answer's status."""
        self._stream.send("GET", self.target(path, query), {})
        response = self._stream.read_head()
        if response.status >= 400:
            response.body = b"".join(self._stream.read_blocks(response))
            _check(response)
        return response, self._stream.read_blocks(response)

    def begin_download(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Response:
        """The head of an answer whose body `read_into` takes.

        Raises:
            ApiError: of the answer's status.
        """
        sent = dict(headers or {})
        data = _encode(body, sent)
        self._stream.send(method, self.target(path), sent, data)
        response = self._stream.read_head()
        if response.status >= 400:
            response.body = b"".join(self._stream.read_blocks(response))
            _check(response)
        return response

    def read_into(self, fd: int, response: Response) -> None:
        """Write the body of `response` to `fd`.

        Raises:
            ApiError: the server has cut it off; with its reason, where it says one.
        """
        try:
            self._stream.read_into(fd, response)
        except BaseException as error:
            self._cut_off(response, error)

    def blocks(self, response: Response) -> Iterator[bytes]:
        """The body of `response`, of `begin_download`, piece by piece. Raises as `read_into`."""
        try:
            yield from self._stream.read_blocks(response)
        except BaseException as error:
            self._cut_off(response, error)

    def _cut_off(self, response: Response, error: BaseException) -> NoReturn:
        """The body of an answer was not read to its end: tells why, or tells the server that nobody wants the rest."""
        operation = response.headers.get("x-lxpy-operation", "")
        self._stream.close()  # what is still to come is no answer to the next request
        if isinstance(error, EOFError | ConnectionResetError):
            if operation:
                try:
                    self.wait(self.get(operation))
                except NotFound:
                    pass  # the daemon that it was of has ended
            raise Unavailable("The server closed the connection in the middle: nothing was kept") from None
        if operation and isinstance(error, OSError | KeyboardInterrupt | GeneratorExit):
            # The server would notice, but who hears of it can use what was held at once.
            self.cancel({"id": operation.rpartition("/")[2]})
        raise error

    def download(self, path: str, fd: int, **query: str) -> Response:
        """Write the body of a GET to `fd`; gives the headers.

        Raises:
            ApiError: of the answer's status; nothing was written then.
        """
        self._stream.send("GET", self.target(path, query), {})
        response = self._stream.read_head()
        if response.status >= 400:
            pieces: list[bytes] = []
            self._stream._read_body(response, pieces.append)
            response.body = b"".join(pieces)
            _check(response)
        self._stream.read_into(fd, response)
        return response


def _encode(body: Any, headers: dict[str, str]) -> bytes:
    if body is None:
        return b""
    if isinstance(body, bytes):
        headers.setdefault("Content-Type", "application/octet-stream")
        return body
    headers["Content-Type"] = "application/json"
    return wire.dumps(body).encode()


def _check(response: Response) -> Response:
    if response.status >= 400:
        try:
            message = wire.loads(response.body.decode())["error"]
        except (ValueError, KeyError, TypeError):
            message = f"The server answered HTTP {response.status} without a reason"
        raise from_status(response.status, message)
    return response


def connect(remote: str = "") -> Client:
    """A client for a remote ("" is the default one); lxpyd is woken when it is this machine's.

    Raises:
        NotFound: no such remote.
        Unavailable: it cannot be reached, with what to do (raised at the first request).
    """
    from lxpy.client import remotes

    return connect_to(remotes.load().get(remote))


def connect_to(remote: Remote) -> Client:
    """A client for `remote`. Raises `ApiError` when it holds images only."""
    if remote.is_image_server:
        raise ApiError(f'The remote "{remote.name}" only serves images: it has no instances')
    if remote.url.startswith("unix:"):
        path = remote.url[5:]
        path = path[2:] if path.startswith("//") else path
        layout = Layout()
        own = not path
        path = path or os.environ.get("LXPY_SOCKET", "") or layout.socket

        def dial() -> socket.socket:
            from lxpy.client.local import dial

            return dial(path, layout=layout) if own else wire.unix_socket(path)

        return Client(dial, "lxpy", remote, remote.project, own and "LXPY_SOCKET" not in os.environ)
    from lxpy.client import https

    return Client(*https.dialler(remote), remote, remote.project)
