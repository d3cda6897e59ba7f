"""The app in a browser: ``lxpy tui --web``, on this machine only.

textual-serve draws the app in the browser and runs one process of it for each tab. Before it stands a guard of ours:

- it listens on 127.0.0.1 and nowhere else, and answers only to that name (a page elsewhere that gives itself a name
  which resolves to 127.0.0.1 gets nothing);
- the address that is printed holds a token that works once; the browser that opens it gets a cookie, which every other
  request, the websocket's too, must have. Other users of this machine reach the port but have neither.
"""

import asyncio
import contextlib
import hmac
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Middleware

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ADDRESS = "127.0.0.1"
# What the page may load: what textual-serve itself serves, and no fonts of other servers, which its page asks for.
_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self' ws://{host}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class Guard:
    """Lets in who has the cookie, and gives it to the first who has the token.

    Args:
        port: what we listen on.
    """

    def __init__(self, port: int) -> None:
        self.host = f"{ADDRESS}:{port}"
        self.cookie = f"lxpy-{port}"  # cookies know no ports: two servers must not take each other's
        self._token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)

    @property
    def url(self) -> str:
        """The address to open, good for one time."""
        return f"http://{self.host}/?token={self._token}"

    def middleware(self) -> "Middleware":
        """For aiohttp."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: "Handler") -> web.StreamResponse:
            if request.headers.get("Host") != self.host:
                raise web.HTTPForbidden(text=f"This is only for http://{self.host}/\n")
            if request.headers.get("Origin", f"http://{self.host}") != f"http://{self.host}":
                raise web.HTTPForbidden(text="Other pages have no business here\n")
            token = request.query.get("token")
            if token is not None and request.path == "/":
                return self._enter(token)
            if not _same(request.cookies.get(self.cookie, ""), self._session):
                raise web.HTTPForbidden(text="Open the address that `lxpy tui --web` has printed\n")
            return await handler(request)

        return guard

    def _enter(self, token: str) -> "web.StreamResponse":
        from aiohttp import web

        if not _same(token, self._token):
            raise web.HTTPForbidden(
                text="That address has been used, or is another one's: start `lxpy tui --web` anew\n"
            )
        self._token = ""
        answer = web.Response(status=303, headers={"Location": "/"})  # the token leaves the address bar
        answer.set_cookie(self.cookie, self._session, httponly=True, samesite="Strict", path="/")
        return answer

    async def dress(self, request: "web.Request", response: "web.StreamResponse") -> None:
        """Headers of every answer."""
        response.headers["Content-Security-Policy"] = _POLICY.format(host=self.host)
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"


def _same(given: str, wanted: str) -> bool:
    return bool(wanted) and hmac.compare_digest(given.encode(), wanted.encode())


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; 0 for any free port.

    Raises:
        ApiError: the port is taken, or needs another user.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((ADDRESS, port))
    except (OSError, OverflowError) as error:
        sock.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ApiError(f"Cannot listen on {ADDRESS}:{port}: {reason} (--port takes another one)") from None
    return sock


async def application(guard: Guard, command: list[str]) -> "web.Application":
    """textual-serve's, behind `guard`; each websocket runs `command`.

    Raises:
        ApiError: textual-serve is not installed.
    """
    try:
        from textual_serve.server import Server
    except ImportError:
        raise ApiError(
            f"The app in a browser needs textual-serve: {sys.executable} -m pip install textual-serve"
        ) from None
    port = int(guard.host.rpartition(":")[2])
    server: Any = Server(shlex.join(command), ADDRESS, port, "lxpy", f"http://{guard.host}")
    server.on_startup = _nothing  # its greeting
    app: web.Application = await server._make_app()
    app.middlewares.append(guard.middleware())
    app.on_response_prepare.append(guard.dress)
    return app


async def _nothing(_: object) -> None: ...


def serve(remote: str = "", project: str = "", read_only: bool = False, port: int = 0) -> int:
    """Serves the app until ^C; gives the exit status.

    Raises:
        ApiError: it cannot be served here.
    """
    from lxpy.tui.shells import own_command

    words = ["tui", *([f"{remote}:"] if remote else []), *(["--project", project] if project else [])]
    words += ["--read-only"] if read_only else []
    with contextlib.closing(listen(port)) as sock:
        guard = Guard(sock.getsockname()[1])
        # The browser draws every colour, whatever the terminal that this was started from says of itself.
        os.environ["COLORTERM"] = "truecolor"
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_serve(guard, own_command(words), sock))
    return 0


async def _serve(guard: Guard, command: list[str], sock: socket.socket) -> None:
    from aiohttp import web

    runner = web.AppRunner(await application(guard, command), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        print(f"lxpy in a browser of this machine: {guard.url}")
        print("The address works once. ^C ends it.", flush=True)
        with _ending() as ended:
            await ended.wait()
    finally:
        await runner.cleanup()


@contextlib.contextmanager
def _ending() -> Iterator[asyncio.Event]:
    """Set by SIGINT and SIGTERM."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        yield ended
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
