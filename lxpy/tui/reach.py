"""How remotes answer: asked when the user wants to know or goes there, never by itself.

An image server is asked by the daemon, which is who fetches from it; another server is asked from here, as by every
command. Whoever does not answer in time is given up with that reason.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from lxpy.tui.gateway import ClientLike, Gateway, RemoteInfo, explain

PATIENCE = 10.0  # seconds for an answer


class Answer(NamedTuple):
    """Attributes:
    milliseconds: from the question to the answer, on a connection that stood where there is one; -1 for no answer.
    fault: why there was none, or none that helps; "" for none.
    note: what else it said.
    """

    milliseconds: float
    fault: str = ""
    note: str = ""


class Reach:
    """The last answer of each remote.

    Args:
        changed: told when an answer has come or is waited for.
    """

    def __init__(self, gateway: Gateway, changed: Callable[[], object]) -> None:
        self._gateway, self._changed = gateway, changed
        self._answers: dict[tuple[str, str], Answer] = {}
        self._asking: dict[str, int] = {}

    def of(self, remote: RemoteInfo) -> Answer | None:
        """The last answer; None when it was never asked at this address."""
        return self._answers.get((remote.name, remote.url))

    def asking(self, name: str) -> bool:
        """Whether an answer is waited for."""
        return bool(self._asking.get(name))

    async def test(self, remote: RemoteInfo) -> Answer:
        """Asks a remote now. Raises nothing: what goes wrong is the answer's fault."""
        self._asking[remote.name] = self._asking.get(remote.name, 0) + 1
        self._changed()
        try:
            answer = await self._ask(remote)
        except TimeoutError:
            answer = Answer(-1, f"{remote.url} did not answer within {PATIENCE:.0f} seconds")
        except Exception as error:
            answer = Answer(-1, explain(error))
        finally:
            self._asking[remote.name] -= 1
        self._answers[remote.name, remote.url] = answer
        self._changed()
        return answer

    async def _ask(self, remote: RemoteInfo) -> Answer:
        if remote.protocol == "lxd":
            return await self._gateway.elsewhere(remote.name, _server, patience=PATIENCE)
        if remote.protocol == "builtin":
            return Answer(0, note="built on this server")

        def images(client: ClientLike) -> Answer:
            found = client.get("/1.0/image-servers/probe", server=remote.url)
            return Answer(float(found["milliseconds"]), note=f"{found['products']} products")

        return await self._gateway.call(images, alone=True, patience=PATIENCE)


def _server(client: ClientLike) -> Answer:
    found: dict[str, Any] = client.get("/1.0")
    began = time.perf_counter()
    client.get("/1.0")  # the first one had to connect
    milliseconds = (time.perf_counter() - began) * 1000
    if found.get("auth") not in (None, "trusted"):
        return Answer(milliseconds, "It answers, but does not trust this client: add it anew with a token of its own")
    environment = found.get("environment") or {}
    words = (environment.get("server"), environment.get("server_version"), environment.get("server_name"))
    return Answer(milliseconds, note=" ".join(str(word) for word in words if word))


def told(milliseconds: float) -> str:
    """A latency as people read it."""
    return "<1 ms" if milliseconds < 1 else f"{milliseconds:.0f} ms"
