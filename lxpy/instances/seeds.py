"""cloud-init's data: the keys it comes from, the NoCloud seed in the guest's root, the instance's id.

Keys are LXD's: ``cloud-init.user-data``, ``.vendor-data``, ``.network-config``, the older ``user.*`` of the same names,
``user.meta-data``, and ``cloud-init.ssh-keys.NAME`` (``USER:KEY``). cloud-init does its work once for each instance-id,
so that a change of any of them makes a new one at the next start.
"""

import functools
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable
from typing import Any

import yaml

from lxpy.api.errors import BadRequest
from lxpy.api.layout import qualified
from lxpy.api.notices import TEMPLATES, Notice
from lxpy.api.objects import Config
from lxpy.instances.records import Records
from lxpy.linux import safe_path
from lxpy.state.store import Document, InstanceRow
from lxpy.storage.manager import StorageManager

SEED = "/var/lib/cloud/seed/nocloud-net"
KEYS_PREFIX = "cloud-init.ssh-keys."
_PARTS = ("user-data", "vendor-data", "network-config")
_MARK = "#cloud-config"
_LIMIT = 1 << 20  # bytes of a seed file worth reading
_CLOCK_SECONDS = 0.05  # files bear the time of the last tick
_ID = "volatile.cloud-init.instance-id"
_DHCP = "version: 2\nethernets:\n  eth0: {dhcp4: true, accept-ra: true}\n"


def check_ssh_key(key: str, value: str) -> None:
    """Raises `BadRequest` for what is not ``USER:KEY``."""
    user, _, public = value.partition(":")
    if not user or not public.strip() or "\n" in value.strip() or len(key) == len(KEYS_PREFIX):
        raise BadRequest(f"Invalid value for {key}: it must be USER:PUBLIC-KEY, in one line")


def check_data(key: str, value: str) -> None:
    """Raises `BadRequest` for a ``#cloud-config``, or a network configuration, that cloud-init could not read.

    Data of another kind (a script, an archive, a template) is the guest's business, as in LXD.
    """
    if value.partition("\n")[0] != _MARK and not key.endswith("network-config"):
        return
    if fault := _fault(value):
        raise BadRequest(f"Invalid value for {key}: {fault}")


@functools.lru_cache(32)
def _fault(text: str) -> str:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        return f"{f'line {mark.line + 1}: ' if mark else ''}{problem or 'no YAML'}"
    except (ValueError, RecursionError):
        return "no YAML"
    return "" if found is None or isinstance(found, dict) else "it is no set of keys in YAML"


def check(config: Config) -> None:
    """Raises `BadRequest` where keys of ``cloud-init.ssh-keys.*`` have no place: beside data that is a script."""
    if any(key.startswith(KEYS_PREFIX) for key in config) and _parsed(part(config, "vendor-data") or _MARK) is None:
        raise BadRequest("cloud-init.ssh-keys.* needs a cloud-init.vendor-data that is a #cloud-config, or none")


def part(config: Config, name: str) -> str:
    """``user-data`` and so on, by its newer or older key."""
    return config.get(f"cloud-init.{name}") or config.get(f"user.{name}") or ""


def effective(config: Config) -> Config:
    """The configuration as cloud-init is to see it: with the keys of ``cloud-init.ssh-keys.*`` in its users.

    They go into the vendor data; into the user data too when that has users of its own, which cloud-init takes
    instead of the vendor's. Data that is no ``#cloud-config`` (a script) is left as it is.
    """
    wanted: dict[str, list[str]] = {}
    for key, value in sorted(config.items()):
        if key.startswith(KEYS_PREFIX):
            user, _, public = value.partition(":")
            wanted.setdefault(user.strip(), []).append(public.strip())
    if not wanted:
        return config
    merged = {"cloud-init.vendor-data": _with_users(part(config, "vendor-data"), wanted)}
    user_data = _parsed(part(config, "user-data"))
    if user_data is not None and "users" in user_data:
        merged["cloud-init.user-data"] = _with_users(part(config, "user-data"), wanted)
    return config | merged


def _parsed(text: str) -> dict[str, Any] | None:
    """A cloud-config as a mapping; None when it is something else."""
    if not text.startswith(_MARK):
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return {} if found is None else found if isinstance(found, dict) else None


def _with_users(text: str, wanted: dict[str, list[str]]) -> str:
    data = _parsed(text or _MARK)
    if data is None:
        return text
    users = data.get("users", ["default"])
    if not isinstance(users, list):
        return text
    for name, keys in wanted.items():
        entry = next((one for one in users if isinstance(one, dict) and one.get("name") == name), None)
        if entry is None:
            entry = {"name": name}
            users.append(entry)
        entry["ssh_authorized_keys"] = [*(entry.get("ssh_authorized_keys") or []), *keys]
    # cloud-init forbids keys for root unless it is told otherwise.
    more = {"disable_root": False} if "root" in wanted else {}
    body = yaml.safe_dump(more | data | {"users": users}, sort_keys=False, default_flow_style=False)
    return f"{_MARK}\n{body}"


def metadata(name: str, config: Config) -> str:
    """cloud-init's meta-data, YAML: the instance's id and name, and what ``user.meta-data`` adds."""
    text = f"instance-id: {config.get(_ID, name)}\nlocal-hostname: {name}\n"
    more = config.get("user.meta-data", "")
    return text + (more if not more or more.endswith("\n") else more + "\n")


def digest(config: Config) -> str:
    """Changes with whatever cloud-init is given."""
    told = {name: part(config, name) for name in (*_PARTS, "meta-data")}
    told |= {key: value for key, value in config.items() if key.startswith(KEYS_PREFIX)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


class Seeds:
    """Keeps instance-id and seed in step with the configuration, at each start.

    Args:
        templates: renders the image's templates before a start; an image with cloud-init usually brings its seed so.
        warn: told when a seed cannot be written; the instance starts without.
    """

    def __init__(
        self,
        records: Records,
        storage: StorageManager,
        templates: Callable[[InstanceRow], InstanceRow],
        warn: Callable[[str], None],
    ) -> None:
        self._records, self._storage, self._templates, self._warn = records, storage, templates, warn

    def before_start(self, row: InstanceRow) -> InstanceRow:
        """Templates first; then a new instance-id if the data has changed, and the seed where one is wanted."""
        config = self._records.expanded(row)[0]
        data, known = digest(config), row.doc.get("cloud_init")
        known = known if isinstance(known, dict) else {}  # there was a time when it was the digest alone
        changed = bool(known) and known["data"] != data
        if changed:
            row = self._records.set_volatile(row, **{"cloud-init__instance-id": str(uuid.uuid4())})
        begun = time.time()
        row = self._templates(row)
        config = self._records.expanded(row)[0]
        told: Document = {"data": data, "of": metadata(row.name, {_ID: config.get(_ID, "")})}
        told["network"] = bool(part(config, "network-config"))
        if known == told:
            return row
        wanted = self._has_cloud_init(row)
        if not wanted and not known and data == digest({}):
            return row  # nothing to write down, and nobody to read it
        try:
            if wanted:
                self._write(row, config, changed, begun, known)
        except OSError as error:
            text = f"Instance {row.name!r}: cloud-init's seed could not be written: {error.strerror or error}"
            self._warn(Notice(text, TEMPLATES, f"/1.0/instances/{row.name}", row.project))
            return row
        return self._records.change(row, cloud_init=told)

    def _has_cloud_init(self, row: InstanceRow) -> bool:
        """Asked of the image where there is one, which costs no mount."""
        root = self._storage.pool(row.pool).root(qualified(row.project, row.name))
        trees = [root["path"]] if root["kind"] == "dir" else [root["upper"], root["lower"]]
        return any(os.path.lexists(f"{tree}/usr/bin/cloud-init") for tree in trees if tree)

    def _write(self, row: InstanceRow, config: Config, changed: bool, begun: float, known: Document) -> None:
        """The seed. One that the image's templates have just written stays; later one that is there is renewed.

        Args:
            begun: when the templates began.
            known: what the seed of this instance was written from; empty at its first start.
        """
        config, fresh = effective(config), metadata(row.name, config)
        with self._storage.pool(row.pool).open_root(qualified(row.project, row.name)) as root:
            there, written = _content(root, f"{SEED}/meta-data")
            if not there and known:
                return  # somebody does without it
            rendered = written >= begun - _CLOCK_SECONDS and not changed
            if there and (rendered or (not changed and set(fresh.splitlines()[:2]) <= set(there.splitlines()))):
                return
            files = {
                "meta-data": fresh,
                "user-data": part(config, "user-data") or f"{_MARK}\n",
                "vendor-data": part(config, "vendor-data") or f"{_MARK}\n",
            }
            own = part(config, "network-config")
            if own or known.get("network") or not _content(root, f"{SEED}/network-config")[0]:
                files["network-config"] = own or _DHCP  # else the image's own default
            safe_path.make_dirs(root, SEED)
            for name, text in files.items():
                safe_path.write_file(root, f"{SEED}/{name}", text.encode(errors="surrogateescape"), mode=0o600)


def _content(root: int, path: str) -> tuple[str, float]:
    """A file's text and when it was written; empty and 0 where there is none."""
    try:
        text = safe_path.read_file(root, path, _LIMIT).decode(errors="surrogateescape")
        fd = safe_path.openat2(root, path, os.O_PATH)
    except FileNotFoundError:
        return "", 0.0
    try:
        return text, os.fstat(fd).st_mtime
    finally:
        os.close(fd)
