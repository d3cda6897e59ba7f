"""A web proxy for tests, and an authority with one server certificate."""

import asyncio
import contextlib
import pathlib
import ssl
import subprocess
from collections.abc import AsyncIterator


class Proxy:
    """Takes plain requests and tunnels (CONNECT), and sends all of them to `port` of the loopback."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.asked: list[str] = []  # first lines of requests
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        line, _, rest = head.partition(b"\r\n")
        self.asked.append(line.decode())
        method, address, version = line.split(b" ")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            path = b"/" + address.split(b"/", 3)[3]
            rest = b"\r\n".join(one for one in rest.split(b"\r\n") if not one.lower().startswith(b"connection:"))
            # One request to a connection: the next one's first line has to be seen, too.
            far_writer.write(b" ".join([method, path, version]) + b"\r\nConnection: close\r\n" + rest)
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        writer.close()


@contextlib.asynccontextmanager
async def proxying(port: int) -> AsyncIterator[Proxy]:
    """A proxy on the loopback; `Proxy.url` says where."""
    proxy = Proxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()


def authority(folder: pathlib.Path, name: str) -> ssl.SSLContext:
    """A context for a server called `name` (and 127.0.0.1); ``ca.pem`` in `folder` vouches for it."""
    crt, key, ca = (str(folder / one) for one in ("server.crt", "server.key", "ca.pem"))
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    subprocess.run(
        [*make, "-subj", "/CN=authority", "-keyout", f"{ca}.key", "-out", ca], check=True, capture_output=True
    )
    signed = ["-CA", ca, "-CAkey", f"{ca}.key", "-subj", f"/CN={name}", "-addext",
              f"subjectAltName=DNS:{name},IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
              "-keyout", key, "-out", crt]  # fmt: skip
    subprocess.run([*make, *signed], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(crt, key)
    return context
