"""What the rules say of a configuration that is being written: the managers' own, nothing is changed by asking.

For forms that tell of a fault while it is typed, in front of whatever daemon there is: the rules are not repeated in
the client, where they would be those of another version.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest
from lxpy.daemon.routes.common import texts

if TYPE_CHECKING:
    from lxpy.daemon.daemon import Daemon

Faults = dict[str, str]  # by key; "" for what is wrong with the whole


async def check(daemon: "Daemon", body: dict[str, Any]) -> dict[str, Any]:
    """``{"config": faults, "devices": {name: faults}}``; no fault, no entry.

    Args:
        body: `kind` (instance, profile, network, network-acl, network-forward, project, storage-pool, storage-volume),
            `config`, `devices`, `expanded_devices` (what will be in force, for what devices must not be together),
            `pool` of a volume, `driver` of a new pool, `acl` or `forward` (the object), `network` of a forward, `there`
            of one that exists, `name` of what does not exist yet, `project` of one that does.

    Raises:
        BadRequest: there is no such kind.
    """
    kind = str(body.get("kind") or "")
    config = texts("config", _mapping(body, "config"))
    config = {key: value for key, value in config.items() if not key.startswith("volatile.")}
    rules = _RULES.get(kind)
    if rules is None:
        raise BadRequest(f"Unknown kind {kind!r}: one of {', '.join(sorted(_RULES))}")
    faults: Faults = {}
    if "name" in body:
        faults |= _told(lambda: _NAMES[kind](str(body["name"])), ("name",), "name")
    if rules is _instance:
        faults |= await asyncio.to_thread(rules, daemon, body, config)  # rules of AppArmor are compiled
    else:
        faults |= rules(daemon, body, config)
    told: dict[str, Any] = {"config": faults}
    devices = _mapping(body, "devices")
    if devices or "expanded_devices" in body:
        told["devices"] = _devices(devices, _mapping(body, "expanded_devices"))
    return told


def _mapping(body: dict[str, Any], key: str) -> dict[str, Any]:
    found = body.get(key) or {}
    if not isinstance(found, dict):
        raise BadRequest(f"{key} must be a set of keys and values")
    return found


def _told(look: Callable[[], object], keys: Iterable[str], otherwise: str = "") -> Faults:
    """What `look` raises, under the longest of `keys` that it speaks of."""
    try:
        look()
    except ApiError as error:
        named = (key for key in keys if re.search(rf"(?<![\w.]){re.escape(key)}(?![\w.]?\w)", error.message))
        return {max(named, key=len, default=otherwise): error.message}
    return {}


def _each(config: dict[str, str], look: Callable[[dict[str, str]], object]) -> Faults:
    """The faults of every single key; when there is none, that of the whole."""
    faults: Faults = {}
    for key, value in config.items():
        faults |= _told(lambda key=key, value=value: look({key: value}), (), key)  # type: ignore[misc]
    return faults or _told(lambda: look(config), config)


def _instance(_: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    from lxpy.instances.keys import validate_config

    return _each(config, validate_config)


def _network(_: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    from lxpy.networks.config import validate

    return _each(config, validate)


def _pool(daemon: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    storage = daemon.storage
    if "driver" in body:
        name, driver = str(body.get("name") or "pool"), str(body["driver"])
        return _told(lambda: storage.planned(name, driver, config), (*config, "source", "size"))
    return _told(lambda: storage.changed(str(body.get("pool") or ""), config), config)


def _volume(daemon: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    from lxpy.storage import volumekeys

    faults = _each(config, volumekeys.checked)
    if "size" in config and "size" not in faults:
        pool = daemon.storage.pool(str(body.get("pool") or ""))
        faults |= _told(lambda: pool.check_size(volumekeys.size(config)), (), "size")
    return faults


def _forward(daemon: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    from lxpy.networks import forwards

    name, forward = str(body.get("network") or ""), _mapping(body, "forward")
    network = daemon.networks.get(name)
    listen = ""

    def address() -> None:
        nonlocal listen
        listen = forwards.listen_address(str(forward.get("listen_address") or ""))
        if not body.get("there"):
            forwards.check_free(listen, name, daemon.store.networks.all())

    keys = ("listen_address", "listen_port", "target_port", "target_address", "protocol")
    if faults := _told(address, (), "listen_address"):
        return faults
    return _told(lambda: forwards.checked(listen, forward, network["config"]), keys)


def _acl(daemon: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    from lxpy.networks.aclrules import FIELDS
    from lxpy.networks.acls import checked

    acl = _mapping(body, "acl")
    if "name" in body and daemon.store.network_acls.get(str(body["name"])) is not None:
        return {"name": f"The network ACL {body['name']!r} already exists"}
    return _told(lambda: checked(acl), FIELDS)


def _project(daemon: "Daemon", body: dict[str, Any], config: dict[str, str]) -> Faults:
    projects = daemon.projects
    if "name" in body:
        faults = _told(lambda: projects.free(str(body["name"])), (), "name")
        return faults | _each(config, lambda one: projects.checked("", one))
    name = str(body.get("project") or "")
    return _each(config, lambda one: projects.checked(name, one)) or _told(lambda: projects.fits(name, config), config)


def _devices(devices: dict[str, Any], expanded: dict[str, Any]) -> dict[str, Faults]:
    from lxpy.instances.devices import validate

    found: dict[str, Faults] = {}
    for name, device in devices.items():
        keys = (*device, "path", "source", "listen", "connect", "network", "parent") if isinstance(device, dict) else ()
        if faults := _told(lambda name=name, device=device: validate({name: device}), keys):  # type: ignore[misc]
            found[name] = faults
    if not found and expanded and (faults := _told(lambda: validate(expanded, expanded=True), ())):
        # Who is in the way of whom is said by their names.
        named = next((name for name in devices if f"'{name}'" in faults[""]), "")
        found[named] = faults
    return found


_RULES: dict[str, Callable[["Daemon", dict[str, Any], dict[str, str]], Faults]] = {
    "instance": _instance,
    "profile": _instance,
    "network": _network,
    "network-acl": _acl,
    "network-forward": _forward,
    "project": _project,
    "storage-pool": _pool,
    "storage-volume": _volume,
}


def _network_name(name: str) -> None:
    from lxpy.networks.config import interface_name

    interface_name("network name", name)


_NAMES: dict[str, Callable[[str], object]] = {
    "instance": values.instance_name,
    "profile": lambda name: values.object_name("profile", name),
    "network": _network_name,
    "network-acl": lambda name: values.object_name("network ACL", name),
    "project": lambda name: values.object_name("project", name),
    "storage-pool": lambda name: values.object_name("storage pool", name),
    "storage-volume": lambda name: values.object_name("storage volume", name),
}
