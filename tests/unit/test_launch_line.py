"""The command line that the app's launch dialog shows does exactly what the dialog does: the real parser reads it."""

import shlex
import sys
from typing import Any

import pytest

from lxpy.api.errors import NotFound
from lxpy.cli.args import parse
from lxpy.cli.create import COMMANDS, request_body
from lxpy.client.remotes import Remote, Remotes
from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.screens.launch import LaunchRequest

PROFILES: dict[str, Any] = {
    "default": {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "network": "lxpybr0", "name": "eth0"},
    },
    "small": {"eth0": {"type": "nic", "network": "other", "name": "eth0", "mtu": "1400"}},
}
IMAGES = RemoteInfo("images", "https://images.example", "simplestreams", True, False)


class Client:
    """Knows the profiles."""

    remote = Remote("local", "unix://", "lxd")

    def get(self, path: str) -> Any:
        name = path.rpartition("/")[2]
        if name not in PROFILES:
            raise NotFound(path)
        return {"devices": PROFILES[name]}


class Context:
    """Knows the remotes."""

    remotes = Remotes("local", {
        "local": Remote("local", "unix://", "lxd"),
        "images": Remote("images", IMAGES.url, IMAGES.protocol, public=True),
    })  # fmt: skip


SHARE = {"type": "disk", "source": "/home/me/my files", "path": "/srv", "owner": "0"}
WEB = {"type": "proxy", "listen": "tcp:0.0.0.0:80,443,8000-8010", "connect": "tcp:127.0.0.1:80"}


@pytest.mark.parametrize(
    "request_",
    [
        LaunchRequest("bb", "bb", None, False, "c1", ["default"]),
        LaunchRequest("bb", "bb", None, False, "", []),
        LaunchRequest("images:alpine/3.20", "alpine/3.20", IMAGES, False, "c1", ["default", "small"], "fast", "br1"),
        LaunchRequest("bb", "bb", None, False, "c1", ["default"], config={"limits.cpu": "2", "user.a": "b = 'c'"}),
        LaunchRequest("bb", "bb", None, False, "c1", ["default"], devices={"share": SHARE, "web": WEB}),
        LaunchRequest("bb", "bb", None, False, "c1", [], "fast", devices={"share": SHARE}),
        # over what a profile, -s or -n gives: the CLI keeps the other keys of that
        LaunchRequest(
            "bb", "bb", None, False, "c1", ["default", "small"],
            devices={"eth0": {"type": "nic", "ipv4.address": "10.0.0.5"}}, inherited=PROFILES["small"],
        ),
        LaunchRequest(
            "bb", "bb", None, False, "c1", ["default"], "fast", "br1",
            devices={"root": {"type": "disk", "size": "5GiB"}, "eth0": {"type": "nic", "mtu": "1400"}},
            inherited=PROFILES["default"],
        ),
    ],
)  # fmt: skip
def test_the_command_line_comes_to_the_same(request_: LaunchRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    line = shlex.join(request_.words())
    words = shlex.split(line)
    assert words[:2] == ["lxpy", "launch"]
    args = parse(COMMANDS["launch"], words[2:])
    image, name = (*args.rest, "")[:2]
    body = request_body(Context(), Client(), args, image, name)  # type: ignore[arg-type]
    assert {"profiles": ["default"], **body} == request_.body()
