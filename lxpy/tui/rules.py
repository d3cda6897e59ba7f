"""What the daemon says of configuration keys: which there are, what for, and what is wrong with values. No Textual."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from lxpy.api.errors import NotFound
from lxpy.tui.gateway import Gateway

Faults = dict[str, str]  # by key; "" for what is wrong with the whole
FAMILY = re.compile(r"[A-Z]+\Z")  # the last part of a key that is the user's to choose: environment.NAME


class KeyInfo(NamedTuple):
    """What is known of a key; `values` are the only ones or the usual ones."""

    name: str
    type: str = "string"
    text: str = ""
    default: str = ""
    values: tuple[str, ...] = ()

    @property
    def family(self) -> str:
        """``environment.`` of ``environment.NAME``; "" of a plain key."""
        return FAMILY.sub("", self.name) if FAMILY.search(self.name) else ""


class Rules:
    """Asks once for the keys, and for what is wrong whenever something is typed.

    A server that has no such answers (LXD before 5.19, an older lxpy) leaves everything unexplained; what is wrong is
    then said when it is saved.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._home: tuple[str, str] | None = None
        self._configs: dict[str, Any] = {}
        self._last: tuple[str, dict[str, Any]] = ("", {})

    async def keys(self, entity: str, group: str = "") -> dict[str, KeyInfo]:
        """The keys of ``instance``, ``network-bridge``, ``device-disk``, ``storage-btrfs`` …, by name.

        Args:
            group: only of that group, such as ``volume-conf``.
        """
        if self._home != self._gateway.home:
            home = self._gateway.home
            try:
                found = await self._gateway.call(lambda c: c.get("/1.0/metadata/configuration"))
            except NotFound:
                found = {}
            self._home, self._configs = home, found.get("configs") or {}
        groups = self._configs.get(entity) or {}
        chosen = [groups.get(group) or {}] if group else groups.values()
        return {
            name: KeyInfo(
                name, key.get("type", ""), key.get("shortdesc", ""), key.get("defaultdesc", ""),
                tuple(key.get("lxpy_values") or ()),
            )
            for one in chosen for entry in one.get("keys") or [] for name, key in entry.items()
        }  # fmt: skip

    async def faults(self, kind: str, config: Mapping[str, str], **more: Any) -> Faults:
        """What is wrong with a configuration: see `lxpy.daemon.vetting`."""
        return dict((await self._check({"kind": kind, "config": dict(config), **more})).get("config") or {})

    async def device_faults(
        self, name: str, device: Mapping[str, str], expanded: Mapping[str, Mapping[str, str]] | None = None
    ) -> Faults:
        """What is wrong with a device of an instance or profile.

        Args:
            expanded: all devices that will be in force with it, where that is known.
        """
        body: dict[str, Any] = {"kind": "instance", "devices": {name: dict(device)}}
        if expanded is not None:
            body["expanded_devices"] = {n: dict(d) for n, d in expanded.items()}
        found = (await self._check(body)).get("devices") or {}
        return dict(found.get(name) or found.get("") or {})

    async def _check(self, body: dict[str, Any]) -> dict[str, Any]:
        asked = json.dumps([self._gateway.home, body], sort_keys=True)
        if asked != self._last[0]:  # enter after a pause asks what was asked in the pause
            try:
                found = await self._gateway.call(lambda c: c.post("/1.0/metadata/check", body))
            except NotFound:
                found = {}
            self._last = asked, found or {}
        return self._last[1]


def explained(key: KeyInfo) -> str:
    """A key in one line: what it does, and what is so without it."""
    text = key.text or "The server says nothing of this key"
    values = " | ".join(key.values) if key.values and key.type != "bool" else ""
    return text + (f" ({values})" if values else "") + (f"; unset: {key.default}" if key.default else "")


def info_of(infos: Mapping[str, KeyInfo], key: str) -> KeyInfo:
    """What is known of a key, perhaps as one of a family (``environment.LANG``); nothing but its name otherwise."""
    if key in infos:
        return infos[key]
    families = [info for info in infos.values() if info.family and key.startswith(info.family)]
    family = max(families, key=lambda info: len(info.family), default=None)
    return family._replace(name=key) if family else KeyInfo(key)


def matching(keys: Iterable[KeyInfo], typed: str) -> list[KeyInfo]:
    """Those that have all words of `typed` in their name or text; names that begin with it first."""
    words = typed.lower().split()
    hits = [key for key in keys if all(word in f"{key.name} {key.text}".lower() for word in words)]
    first = words[0] if words else ""
    return sorted(hits, key=lambda key: (not key.name.startswith(first), first not in key.name, key.name))
