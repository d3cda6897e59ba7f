"""Remotes: where images and servers are. One JSON file, so that reading it costs nothing (yaml: 16 ms).

``$LXPY_CONF/remotes.json``, default ``$XDG_CONFIG_HOME/lxpy`` or ``~/.config/lxpy``::

    {"default": "local", "project": "default", "remotes": {"images": {"url", "protocol", "public", "static"}}}
"""

from __future__ import annotations

import os

from lxpy.api.errors import BadRequest, NotFound
from lxpy.client import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Remote:
    """One remote.

    Attributes:
        protocol: ``lxd``, ``simplestreams`` or ``builtin``.
        project: the project commands on this remote use by default (``lxpy project switch``).
        static: part of lxpy; it cannot be changed.
    """

    def __init__(
        self,
        name: str,
        url: str,
        protocol: str = "lxd",
        public: bool = False,
        static: bool = False,
        project: str = "",
    ) -> None:
        self.name, self.url, self.protocol = name, url, protocol
        self.public, self.static, self.project = public, static, project

    @property
    def is_image_server(self) -> bool:
        """Whether only images are to be had there."""
        return self.protocol != "lxd"


DEFAULT_REMOTES: dict[str, Remote] = {
    remote.name: remote
    for remote in (
        Remote("builtin", "builtin://", "builtin", public=True, static=True),
        Remote("images", "https://images.linuxcontainers.org", "simplestreams", public=True),
        Remote("local", "unix://", "lxd", static=True),
        Remote("ubuntu", "https://cloud-images.ubuntu.com/releases", "simplestreams", public=True, static=True),
        Remote("ubuntu-daily", "https://cloud-images.ubuntu.com/daily", "simplestreams", public=True, static=True),
    )
}


class Remotes:
    """The file's content; the static remotes are always there."""

    def __init__(self, default: str, remotes: dict[str, Remote]) -> None:
        self.default = default
        self.remotes = remotes

    def get(self, name: str) -> Remote:
        """A remote by name, the default one for "". Raises `NotFound`."""
        remote = self.remotes.get(name or self.default)
        if remote is None:
            known = ", ".join(sorted(self.remotes))
            raise NotFound(f'The remote "{name or self.default}" doesn\'t exist (known: {known}; see lxpy remote list)')
        return remote

    def parse_ref(self, ref: str) -> tuple[Remote, str]:
        """``images:alpine/3.20`` as (remote, rest); without a colon the default remote."""
        name, colon, rest = ref.partition(":")
        return (self.get(name), rest) if colon else (self.get(""), ref)


def config_dir() -> str:
    """``$LXPY_CONF``, else the user's configuration directory."""
    environment = os.environ
    if path := environment.get("LXPY_CONF", ""):
        return path
    base = environment.get("XDG_CONFIG_HOME", "") or f"{environment.get('HOME', '/root')}/.config"
    return f"{base}/lxpy"


def load() -> Remotes:
    """The remotes of this user. Raises `BadRequest` when the file makes no sense."""
    path = f"{config_dir()}/remotes.json"
    try:
        with open(path, encoding="utf-8") as file:
            data: Any = wire.loads(file.read())
        remotes = dict(DEFAULT_REMOTES)
        if "images" not in data["remotes"]:
            del remotes["images"]  # the user removed it
        for name, entry in data["remotes"].items():
            if name not in DEFAULT_REMOTES or not DEFAULT_REMOTES[name].static:
                remotes[name] = Remote(
                    name, entry["url"], entry.get("protocol", "lxd"), bool(entry.get("public")), False,
                )  # fmt: skip
            if project := entry.get("project"):
                old = remotes[name]
                remotes[name] = Remote(name, old.url, old.protocol, old.public, old.static, project)
        return Remotes(str(data.get("default") or "local"), remotes)
    except FileNotFoundError:
        return Remotes("local", dict(DEFAULT_REMOTES))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BadRequest(f"{path} is damaged: mend it, or delete it to start from the default remotes") from None


def save(config: Remotes) -> None:
    """Write the file (temporary name, fsync, rename)."""
    folder = config_dir()
    os.makedirs(folder, mode=0o700, exist_ok=True)
    entries: dict[str, dict[str, Any]] = {}
    for name, remote in sorted(config.remotes.items()):
        if not remote.static:
            entries[name] = {"url": remote.url, "protocol": remote.protocol, "public": remote.public}
            if remote.project:
                entries[name]["project"] = remote.project
        elif remote.project:
            entries[name] = {"project": remote.project}
    path = f"{folder}/remotes.json"
    with open(f"{path}.{os.getpid()}", "w", encoding="utf-8") as file:
        file.write(wire.pretty({"default": config.default, "remotes": entries}) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.{os.getpid()}", path)


def _pin(name: str) -> str:
    return f"{config_dir()}/servercerts/{name}.crt"


def repin(old: str, new: str) -> None:
    """The pinned certificate of a remote goes by its new name."""
    try:
        os.rename(_pin(old), _pin(new))
    except FileNotFoundError:
        pass


def unpin(name: str) -> None:
    """Forget a remote's pinned certificate."""
    try:
        os.unlink(_pin(name))
    except FileNotFoundError:
        pass


def parse_ref(ref: str) -> tuple[Remote, str]:
    """``images:alpine/3.20`` as (remote, ``alpine/3.20``); without a colon the default remote."""
    return load().parse_ref(ref)
