"""Pools and volumes that the database does not know: where they are, and what the file beside each says of it.

Looking changes nothing on the disk: a file or device is mounted where nobody else sees it. A pool that is taken in
has a row marked ``recovering`` until all that is on it is in the database, in one transaction; a daemon that is killed
before that forgets the pool again at its next start, and leaves what is on it alone.
"""

import asyncio
import contextlib
import datetime
import json
import os
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import yaml

from lxpy.api import expiry, values
from lxpy.api.errors import ApiError, BadRequest, Conflict
from lxpy.api.layout import Layout, qualified
from lxpy.state.store import Document, Store
from lxpy.storage import drivers, files, volumekeys
from lxpy.storage.pool import DirectoryPool

_LARGEST = 16 << 20  # bytes of a backup.yaml; a real one has a few thousand
MARK = "recovering"


@dataclass(frozen=True)
class Lost:
    """A volume without a record.

    Attributes:
        kind: ``instance`` or ``custom``.
        volume: its directory's name.
        content: of its ``backup.yaml``.
        snapshots: the names of those that are there, whole.
        written: when the file was, in seconds since the epoch.
        problem: why it cannot be had back; empty for none.
    """

    kind: str
    pool: str
    volume: str
    content: Document = field(hash=False)
    snapshots: tuple[str, ...]
    written: float
    problem: str


Known = dict[str, Collection[str]]  # names of volumes that have a record, by kind


class LostPools:
    """What of storage is to be recovered: a part of the storage manager, which owns `pools` and `lock`."""

    def __init__(
        self, store: Store, layout: Layout, warn: Callable[[str], None], pools: dict[str, DirectoryPool],
        lock: asyncio.Lock,
    ) -> None:  # fmt: skip
        self._store, self._layout, self._warn, self._pools, self._lock = store, layout, warn, pools, lock

    def strays(self) -> list[Document]:
        """Pools that lie where those without a `source` do, and have no record. Blocks.

        Returns:
            of each: name, driver, source; and problem, empty unless it could not be looked at (a damaged disk).
        """
        found = [self._stray(name) for name in sorted(self._there() - self._pools.keys())]
        return [one for one in found if one]

    def _there(self) -> set[str]:
        names = set()
        for place, end in ((self._layout.pools, ""), (self._layout.disks, ".img")):
            with contextlib.suppress(FileNotFoundError):
                names |= {name.removesuffix(end) for name in os.listdir(place) if name.endswith(end)}
        return names

    def _stray(self, name: str) -> Document | None:
        disk = f"{self._layout.disks}/{name}.img"
        try:
            pool = self._planned(name, "", {})
            with pool.look() as place:
                self._compare(pool, place)
                held = any(os.listdir(f"{place}/{part}") for part in ("instances", "custom"))
        except (ApiError, OSError) as error:
            if not os.path.exists(disk):
                return None  # a directory that is no pool, or one that only its user can say more of
            problem = error.strerror if isinstance(error, OSError) else str(error)
            return {"name": name, "driver": "btrfs", "source": disk, "problem": problem}
        return {"name": name, "driver": pool.driver, "source": pool.config["source"], "problem": ""} if held else None

    def named(self, name: str, driver: str, config: dict[str, str]) -> DirectoryPool:
        """The pool of a name: one that is known, or one to be recovered. Blocks.

        Args:
            driver: "" to find out.
            config: ``source`` may be left out where lxpy chose it.

        Raises:
            BadRequest: there is none, or it is another than was said. Unavailable: it is away.
        """
        if there := self._pools.get(name):
            if driver not in ("", there.driver):
                raise BadRequest(f"Storage pool {name!r} exists, with the driver {there.driver}")
            there._here()
            return there
        pool = self._planned(name, driver, config)
        try:
            with pool.look() as place:
                self._compare(pool, place)
        except OSError as error:
            source = pool.config["source"]
            raise BadRequest(f"Storage pool {name!r} cannot be looked at: {error.strerror}: {source}") from None
        return pool

    def _planned(self, name: str, driver: str, config: dict[str, str]) -> DirectoryPool:
        """A pool that is to be recovered, not looked at yet. Raises `BadRequest`: it cannot be one."""
        values.object_name("storage pool", name)
        config = {key: value for key, value in config.items() if value}
        source = config.get("source", "")
        if source and not source.startswith("/"):
            raise BadRequest(f"Invalid source {source!r}: an absolute path is expected")
        file, directory = f"{self._layout.disks}/{name}.img", f"{self._layout.pools}/{name}"
        source = os.path.normpath(source) if source else file if os.path.exists(file) else directory
        if not os.path.exists(source):
            raise BadRequest(f"There is no pool at {source}")
        self._check_apart(source)
        if not driver:
            driver = _driver_of(source) if os.path.isdir(source) else "btrfs"
        kind = drivers.known(driver)
        drivers.check_keys(kind, config)
        planned = kind.plan_recovered(name, {**config, "source": source}, self._layout)
        return kind.of(name, planned, self._layout, self._warn)

    def _check_apart(self, source: str) -> None:
        for name, pool in self._pools.items():
            if os.path.realpath(source) in (os.path.realpath(pool.source), os.path.realpath(pool.config["source"])):
                raise BadRequest(f"{source} is the storage pool {name!r}, which is there")

    def _compare(self, pool: DirectoryPool, place: str) -> None:
        """The pool must be what its volumes say of it; its settings are taken over from them."""
        source = pool.config["source"]
        if not all(os.path.isdir(f"{place}/{part}") for part in ("images", "instances", "tmp")):
            raise BadRequest(f"{source} holds no storage pool of lxpy's")
        said = _said(place)
        for key, here in (("name", pool.name), ("driver", pool.driver)):
            if (there := said.get(key, here)) != here:
                raise BadRequest(f"{source} holds a storage pool with the {key} {there!r}, not {here!r}")
        for key, value in said.get("config", {}).items():
            if key not in ("source", "size", "source.wipe") and not key.startswith("volatile."):
                pool.config.setdefault(str(key), str(value))
        pool.description = str(said.get("description") or "")

    async def strays_now(self) -> list[Document]:
        """As `strays`."""
        return await asyncio.to_thread(self.strays)

    async def find(self, asked: Document) -> DirectoryPool:
        """As `named`, from a request: ``name``, ``driver``, ``config``."""
        config = asked.get("config") or {}
        if not isinstance(config, dict) or not all(isinstance(value, str) for value in config.values()):
            raise BadRequest("config must be a set of keys and values")
        name, driver = str(asked.get("name") or ""), str(asked.get("driver") or "")
        return await asyncio.to_thread(self.named, name, driver, config)

    async def found_on(self, pool: DirectoryPool) -> list[Lost]:
        """As `scan`, beside what has a record."""
        return await asyncio.to_thread(self.scan, pool, self.known(pool))

    async def adopt(self, pool: str, volume: str) -> None:
        """A volume of an instance has got its record. Raises `ApiError`: what its root is made of cannot be had."""
        await self._pools[pool].adopt(volume)

    def known(self, pool: DirectoryPool) -> Known:
        """The volumes of a pool that have a record."""
        rows = [row for row in self._store.instances.all() if row.pool == pool.name]
        return {
            "instance": {qualified(row.project, row.name) for row in rows},
            "custom": {qualified(row.project, row.name) for row in self._store.volumes.all(pool.name)},
        }

    def scan(self, pool: DirectoryPool, known: Known) -> list[Lost]:
        """What lies on a pool beside what is `known`. Blocks."""
        with files.disk_errors("Scan", pool.name, pool.config["source"]), pool.look() as place:
            found = []
            for kind, part in (("instance", "instances"), ("custom", "custom")):
                if os.path.isdir(f"{place}/{part}"):
                    names = sorted(set(os.listdir(f"{place}/{part}")) - set(known[kind]))
                    found += [_lost(pool, place, kind, name) for name in names]
            return found

    def document(self, pool: DirectoryPool) -> Document:
        """The row of a pool that is recovered."""
        return {"driver": pool.driver, "config": pool.config, "description": pool.description}

    @contextlib.asynccontextmanager
    async def taken_in(self, pools: list[DirectoryPool]) -> AsyncIterator[None]:
        """The pools (of `named`, not known yet) are in use from here on, if the body puts their rows (`document`).

        The body is to end with that. When it fails, they are let go of again.
        """
        async with self._lock, contextlib.AsyncExitStack() as undo:
            for pool in pools:
                if self._store.pools.get(pool.name):
                    raise Conflict(f"Storage pool {pool.name!r} exists by now")
                self._store.pools.put(pool.name, {**self.document(pool), MARK: True})
                undo.callback(self._store.pools.delete, pool.name)
                undo.push_async_callback(pool.release)
                await pool.start()
                pool._here()
                with files.disk_errors("Recover", pool.name, pool.source):
                    await asyncio.to_thread(drivers.probe, pool)
            yield
            self._pools.update({pool.name: pool for pool in pools})
            undo.pop_all()


def _lost(pool: DirectoryPool, place: str, kind: str, volume: str) -> Lost:
    directory = f"{place}/{'instances' if kind == 'instance' else 'custom'}/{volume}"
    content: Document = {}
    written, problem = 0.0, ""
    try:
        content, written = read(f"{directory}/backup.yaml")
        problem = pool.damage(place, volume) if kind == "instance" else ""
        if kind == "custom" and not os.path.isdir(f"{directory}/data"):
            problem = "its data is missing"
    except BadRequest as error:
        problem = str(error)
    snapshots: tuple[str, ...] = ()
    with contextlib.suppress(OSError):
        there = sorted(os.listdir(f"{directory}/snapshots"))
        whole = [one for one in there if kind == "custom" or not pool.damage(place, f"{volume}/snapshots/{one}")]
        snapshots = tuple(whole)
    return Lost(kind, pool.name, volume, content, snapshots, written, problem)


def read(path: str) -> tuple[Document, float]:
    """A ``backup.yaml``, and when it was written. Blocks. Raises `BadRequest` with what is wrong with it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadRequest("it has no backup.yaml, which says what it was") from None
    except OSError as error:
        raise BadRequest(f"its backup.yaml cannot be read: {error.strerror}") from None
    try:
        with open(fd, encoding="utf-8") as file:
            found = os.fstat(fd)
            if found.st_size > _LARGEST:
                raise BadRequest("its backup.yaml is damaged: it is too large")
            content = yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
            json.dumps(content)  # what cannot be kept as JSON was not written by us
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise BadRequest(f"its backup.yaml is damaged{where}: {getattr(error, 'problem', '') or 'no YAML'}") from None
    except (OSError, UnicodeError, TypeError, ValueError, RecursionError) as error:
        raise BadRequest(f"its backup.yaml is damaged: {error}") from None
    if not isinstance(content, dict):
        raise BadRequest("its backup.yaml is damaged: it holds no set of keys and values")
    return content, found.st_mtime


def volume_documents(lost: Lost, section: Document) -> tuple[Document, dict[str, Document], list[str]]:
    """The documents of a custom volume and of its snapshots; and what of them could not be had.

    Args:
        section: the volume's in its file.

    Raises:
        BadRequest: it is none that this lxpy could have made.
    """
    if section.get("content_type", "filesystem") != "filesystem":
        raise BadRequest(f"content type {section['content_type']!r} is not supported")
    created = str(section.get("created_at") or _stamp(lost.written))
    doc: Document = {
        "description": str(section.get("description") or ""),
        "content_type": "filesystem",
        "created_at": created,
        "config": volumekeys.checked(section.get("config") or {}),
    }
    recorded = recorded_snapshots(lost.content)
    snapshots: dict[str, Document] = {}
    notes = []
    for one in recorded:
        name = str(one.get("name") or "")
        if name not in lost.snapshots:
            notes.append(f"its snapshot {name!r} is missing on the pool")
            continue
        snapshots[name] = {
            "description": str(one.get("description") or ""),
            "created_at": str(one.get("created_at") or created),
            "expires_at": str(one.get("expires_at") or expiry.NEVER),
            "config": volumekeys.checked(one.get("config") or {}),
        }
    for name in [name for name in lost.snapshots if name not in snapshots]:
        values.object_name("snapshot", name)
        notes.append(f"its snapshot {name!r} is not in backup.yaml: it is kept for ever")
        snapshots[name] = {
            "description": "", "created_at": created, "expires_at": expiry.NEVER, "config": doc["config"],
        }  # fmt: skip
    return doc, snapshots, notes


def recorded_snapshots(content: Document) -> list[Document]:
    """What a ``backup.yaml`` has of snapshots, oldest first. Raises `BadRequest`."""
    recorded = content.get("snapshots") or []
    if not isinstance(recorded, list) or not all(isinstance(one, dict) for one in recorded):
        raise BadRequest("its backup.yaml is damaged: snapshots is no list of snapshots")
    return recorded


def _stamp(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _said(place: str) -> dict[str, Any]:
    """What the volume that was changed last says of its pool; nothing where none says anything."""
    newest: tuple[float, dict[str, Any]] = (0.0, {})
    for part in ("instances", "custom"):
        for volume in os.listdir(f"{place}/{part}") if os.path.isdir(f"{place}/{part}") else ():
            with contextlib.suppress(BadRequest):
                content, written = read(f"{place}/{part}/{volume}/backup.yaml")
                said = content.get("pool")
                if isinstance(said, dict) and isinstance(said.get("config", {}), dict) and written > newest[0]:
                    newest = (written, said)
    return newest[1]


def _driver_of(source: str) -> str:
    """The driver of the pool in a directory: what its volumes say, else what they look like."""
    said = _said(source).get("driver")
    if isinstance(said, str):
        return said
    for volume in os.listdir(f"{source}/instances") if os.path.isdir(f"{source}/instances") else ():
        if os.path.islink(f"{source}/instances/{volume}/lower"):
            return "overlay"
    return "dir"
