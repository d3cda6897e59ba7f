"""From what files describe and what there is to a plan, and from a plan to what files describe.

An object that a stack makes bears its name in ``user.lxpy.stack``: only such objects are ever deleted by it, and no
other stack may change them.
"""

from __future__ import annotations

from lxpy.api import status
from lxpy.api.errors import ApiError, NotFound
from lxpy.client.stackfile import KINDS, Entry, Kind
from lxpy.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from lxpy.client.client import Client

    Key = tuple[str, str, str, str]  # section, project, parent, name
    Objects = dict[Key, dict[str, Any]]

MARK = "user.lxpy.stack"
_OURS = ("volatile.", "image.", MARK)  # keys that no file has to have
_KIND = {kind.section: kind for kind in KINDS}


class Step:
    """One request or two.

    Args:
        verb: create, update, delete, start or stop.
        changes: ``config.limits.memory: 1GiB -> 2GiB``, one for each thing that changes.
        entry: what is wanted; of a deletion None.
    """

    def __init__(self, verb: str, key: Key, changes: list[str] | None = None, entry: Entry | None = None) -> None:
        self.verb, self.key, self.changes, self.entry = verb, key, changes or [], entry

    @property
    def label(self) -> str:
        section, project, parent, name = self.key
        place = f" (project {project})" if project not in ("", "default") else ""
        return f"{_KIND[section].label} {f'{parent}/{name}' if parent else name}{place}"


# -- what there is ---------------------------------------------------------------------------------------------------


def current(client: Client, entries: Iterable[Entry], project: str) -> Objects:
    """All objects of the server that entries could mean, in every project that is there.

    Entries of a project that has no volumes or profiles of its own become entries of the default one.
    """
    found: Objects = {}
    entries = list(entries)
    projects = {project}
    for kind in KINDS:
        if kind.feature:
            features = {key[3]: one.get("config") or {} for key, one in found.items() if key[0] == "projects"}
            projects |= features.keys()
            for entry in entries:
                if entry.kind.section == "projects":
                    features[entry.name] = {**features.get(entry.name, {}), **entry.body.get("config", {})}
            shared = {name for name, config in features.items() if config.get(kind.feature) == "false"}
            for entry in entries:
                if entry.kind is kind and entry.project in shared:
                    entry.project = "default"
            places = sorted({"default" if one in shared else one for one in projects})
        else:
            places = sorted(projects)
        parents = [""]
        if kind.parent:
            above = "networks" if kind.parent == "network" else "storage_pools"
            parents = [key[3] for key, one in found.items() if key[0] == above and one.get("managed", True)]
        for place in places if kind.in_project else [""]:
            for parent in parents:
                for one in _list(client, kind, place, parent):
                    name = one[kind.key]
                    if "/" not in name or kind.section != "storage_volumes":  # a snapshot of a volume
                        found[kind.section, place, parent, name] = one
    return found


def _list(client: Client, kind: Kind, project: str, parent: str) -> list[dict[str, Any]]:
    try:
        return list(client.get(_path(kind, parent) + _query(project, "?recursion=1")))
    except NotFound:
        return []  # a project that is yet to be made


def _path(kind: Kind, parent: str) -> str:
    return kind.path.replace("{parent}", quote(parent))


def _query(project: str, start: str = "") -> str:
    return start + (f"{'&' if start else '?'}project={quote(project)}" if project else "")


def url(key: Key) -> str:
    section, project, parent, name = key
    return f"{_path(_KIND[section], parent)}/{quote(name)}{_query(project)}"


# -- the plan --------------------------------------------------------------------------------------------------------


def plan(entries: Iterable[Entry], there: Objects, stack: str, prune: bool) -> tuple[list[Step], list[Step]]:
    """The steps to take, in their order; and the deletions that only `prune` would make steps.

    Raises:
        ApiError: an object cannot be what a file says; with its file and line.
    """
    wanted = {entry.key: entry for entry in sorted(entries, key=lambda entry: KINDS.index(entry.kind))}
    steps, stops, starts = list[Step](), list[Step](), list[Step]()
    for key, entry in wanted.items():
        one = there.get(key)
        if one is None and entry.kind.section == "profiles" and entry.name == "default":
            steps.append(Step("update", key, ["it comes with its project"], entry))
        elif one is None:
            if entry.kind.section == "instances" and not (entry.body.get("image") or entry.body.get("source")):
                raise ApiError(
                    f"{entry.where}: the instance {entry.name!r} is to be made: it needs an image (or source)"
                )
            steps.append(Step("create", key, entry=entry))
        else:
            _check(entry, one, stack)
            if changes := differences(entry, one):
                steps.append(Step("update", key, changes, entry))
        if entry.kind.section == "instances":
            up = str(entry.body.get("status") or "Running").lower() == "running"
            if up and (one is None or one["status_code"] not in status.RUNS):
                starts.append(Step("start", key, entry=entry))
            elif not up and one is not None and one["status_code"] in status.UP:
                stops.append(Step("stop", key, entry=entry))
    order = {kind.section: number for number, kind in enumerate(KINDS)}
    gone = [key for key, one in there.items() if key not in wanted and (one.get("config") or {}).get(MARK) == stack]
    deletions = [Step("delete", key) for key in sorted(gone, key=lambda key: (-order[key[0]], key))]
    if not prune:
        return [*_making_way(steps, []), *stops, *starts], deletions
    steps = _making_way(steps, deletions)
    return [*steps, *stops, *(one for one in deletions if one not in steps), *starts], []


def _making_way(steps: list[Step], deletions: list[Step]) -> list[Step]:
    """The steps; before a network gets another subnet, its forwards that change or go lead nowhere.

    Else neither could come first: the forward's old targets are not in the new subnet, nor its new ones in the old.
    """
    moving = {
        step.key[3] for step in steps if step.key[0] == "networks" and step.verb == "update"
        and any(change.startswith(("config.ipv4.address: ", "config.ipv6.address: ")) for change in step.changes)
    }  # fmt: skip
    ways = []
    for step in steps:
        section, _, parent, name = step.key
        if section == "network_forwards" and parent in moving and step.verb == "update" and step.entry:
            nowhere = {"ports": [], "config": {"target_address": ""}}
            entry = Entry(step.entry.kind, "", parent, name, nowhere, step.entry.where)
            ways.append(Step("update", step.key, ["it leads nowhere until the network has its new subnet"], entry))
    ways += [step for step in deletions if step.key[0] == "network_forwards" and step.key[2] in moving]
    first = next((n for n, step in enumerate(steps) if step.key[0] == "networks"), 0)
    return [*steps[:first], *ways, *steps[first:]]


def _check(entry: Entry, one: dict[str, Any], stack: str) -> None:
    owner = (one.get("config") or {}).get(MARK) or stack
    if owner != stack:
        raise ApiError(
            f"{entry.where}: the {entry.kind.label} {entry.name!r} belongs to the stack {owner!r}: "
            f"apply the file as that (--stack {owner}), or unset {MARK} of it first"
        )
    if one.get("managed") is False:
        raise ApiError(f"{entry.where}: {entry.name!r} is an interface of the host that lxpy does not manage")
    for field in ("driver", "type", "content_type"):
        asked, has = entry.body.get(field), one.get(field)
        if field in entry.kind.made_with and asked and has and asked != has:
            raise ApiError(
                f"{entry.where}: the {entry.kind.label} {entry.name!r} is there with {field} {has}, not {asked}"
            )


def differences(entry: Entry, one: dict[str, Any]) -> list[str]:
    """What an object would have to change, a line each."""
    found = []
    for field in entry.kind.fields:
        if field not in entry.body:
            continue
        wanted, has = entry.body[field], one.get(field)
        if field in ("config", "devices"):
            found += _keys(field, _merged(entry.kind, field, wanted, has or {}), has or {})
        elif field in ("ports", "egress", "ingress"):
            if _rules(wanted) != _rules(has or []):
                found.append(f"{field}: {len(has or [])} -> {len(wanted)}" if len(has or []) != len(wanted) else field)
        elif wanted != (has or type(wanted)()):
            found.append(f"{field}: {_shown(has)} -> {_shown(wanted)}")
    return found


def _merged(kind: Kind, field: str, wanted: dict[str, Any], has: dict[str, Any]) -> dict[str, Any]:
    """What a field is to be: `wanted` beside what is not the file's to say."""
    if field == "config" and not kind.whole:
        # Found automatically once: to ask again must not move it.
        settled = {key for key, value in wanted.items() if value == "auto" and has.get(key, "none") != "none"}
        wanted = {key: value for key, value in wanted.items() if key not in settled}
        return {key: value for key, value in {**has, **wanted}.items() if value != ""}
    kept = {key: value for key, value in has.items() if field == "config" and key.startswith(_OURS)}
    return {key: value for key, value in {**kept, **wanted}.items() if value != ""}


def _keys(field: str, new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    found = []
    for key in sorted(new.keys() | old.keys()):
        before, after = old.get(key), new.get(key)
        if before == after:
            continue
        if isinstance(before, dict) and isinstance(after, dict):
            found += _keys(f"{field}.{key}", after, before)
        elif field == "devices":
            found.append(f"{field}.{key}: {'added' if before is None else 'removed'}")
        else:
            found.append(f"{field}.{key}: {_shown(before)} -> {_shown(after)}")
    return found


def _rules(rules: list[Any]) -> list[dict[str, str]]:
    """Rules without what is empty, and with what the server fills in."""
    return [
        {"state": "enabled"} | {str(k): str(v) for k, v in one.items() if v not in ("", None)} if "action" in one
        else {str(k): str(v) for k, v in one.items() if v not in ("", None)}
        for one in rules
    ]  # fmt: skip


def _shown(value: Any) -> str:
    if value in (None, "", []):
        return "(none)"
    text = (
        ",".join(map(str, value))
        if isinstance(value, list)
        else str(value).lower()
        if value in (True, False)
        else str(value)
    )
    text = text.replace("\n", "\\n")
    return text if len(text) <= 60 else f"{text[:57]}..."


# -- the steps -------------------------------------------------------------------------------------------------------


class Run:
    """Takes steps, one after the other; instances are started side by side, since the server knows their order.

    Args:
        source: the ``source`` of an instance for an image as ``launch`` takes it.
        wait: waits for an operation, with its label.
        say: told of each step that is done.
    """

    def __init__(
        self,
        client: Client,
        stack: str,
        source: Callable[[str], dict[str, Any]],
        wait: Callable[[Any, str], dict[str, Any]],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._stack, self._source, self._wait, self._say = client, stack, source, wait, say

    def run(self, steps: list[Step]) -> None:
        """Raises `ApiError` at the first step that fails; what was done stays, and the next run goes on from there."""
        starts = [step for step in steps if step.verb == "start"]
        done = 0
        for step in steps:
            if step.verb == "start":
                continue
            try:
                self._take(step)
            except ApiError as error:
                raise self._failed(step, error, done, len(steps)) from None
            done += 1
        faults = []
        body = {"action": "start", "timeout": -1, "force": False, "stateful": False}
        requests = []
        for step in starts:
            _, project, _, name = step.key
            requests.append(("PUT", f"/1.0/instances/{quote(name)}/state{_query(project)}", body))
        for step, result in zip(starts, self._client.many(requests), strict=True):
            try:
                if isinstance(result, ApiError):
                    raise result
                self._wait(result, step.label)
                self._say(f"Started {step.label}")
                done += 1
            except ApiError as error:
                faults.append((step, error))
        if faults:
            raise self._failed(*faults[0], done, len(steps))

    def _failed(self, step: Step, error: ApiError, done: int, steps: int) -> ApiError:
        where = f"{step.entry.where}: " if step.entry else ""
        after = f" ({done} of {steps} steps are done; the next run goes on from there)" if done else ""
        return ApiError(f"{where}{step.label}: {error}{after}")

    def _take(self, step: Step) -> None:
        client, entry = self._client, step.entry
        section, project, parent, name = step.key
        if step.verb == "delete":
            path = url(step.key)
            force = "&force=true" if "?" in path else "?force=true"
            try:
                self._wait(client.delete(path + (force if section == "instances" else "")), step.label)
            except NotFound:
                pass  # it went with another
            self._say(f"Deleted {step.label}")
        elif step.verb == "stop":
            body = {"action": "stop", "timeout": -1, "force": False, "stateful": False}
            path = f"/1.0/instances/{quote(name)}/state{_query(project)}"
            self._wait(client.put(path, body), step.label)
            self._say(f"Stopped {step.label}")
        elif entry is not None and step.verb == "create":
            body = self._body(entry)
            self._wait(client.post(_path(entry.kind, parent) + _query(project), body), step.label)
            self._say(f"Created {step.label}")
        elif entry is not None:
            one, etag = client.get_etag(url(step.key))
            body = {field: one[field] for field in entry.kind.fields if field in one}
            for field in entry.kind.fields:
                if field in ("config", "devices") and field in entry.body:
                    body[field] = _merged(entry.kind, field, entry.body[field], one.get(field) or {})
                elif field in entry.body:
                    body[field] = entry.body[field]
            self._wait(client.put(url(step.key), body, etag), step.label)
            self._say(f"Updated {step.label}")

    def _body(self, entry: Entry) -> dict[str, Any]:
        """What POST takes."""
        kind = entry.kind
        given = {key: value for key, value in entry.body.items() if key in (*kind.fields, *kind.made_with)}
        body = {kind.key: entry.name, **given}
        body["config"] = {
            key: value for key, value in {**entry.body.get("config", {}), MARK: self._stack}.items() if value
        }
        if kind.section == "instances":
            body.pop("status", None)
            if image := body.pop("image", ""):
                body["source"] = self._source(image)
        return body


# -- and back --------------------------------------------------------------------------------------------------------


def export(client: Client, project: str) -> dict[str, Any]:
    """What there is in a project, and the server's pools and networks, as a stack file that would make it."""
    found: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for (section, place, parent, name), one in current(client, (), project).items():
        kind = _KIND[section]
        elsewhere = kind.in_project and place != project
        if one.get("managed") is False or elsewhere or section == "projects":
            continue
        entry: dict[str, Any] = {kind.key: name}
        if kind.parent:
            entry[kind.parent] = parent
        for field in (*kind.made_with, *kind.fields):
            if value := one.get(field):
                entry[field] = value
        config = one.get("config") or {}
        entry["config"] = {
            key: value
            for key, value in config.items()
            if not key.startswith(_OURS) and not _made_itself(kind, key, value)
        }
        if kind.in_project:
            for key in ("type", "architecture"):
                entry.pop(key, None)
        if section == "instances":
            entry["profiles"] = one["profiles"]
            entry["status"] = "Running" if one["status_code"] in status.UP else "Stopped"
            entry["source"] = _origin(client, config.get("volatile.base_image", ""), images)
        found.setdefault(section, []).append(entry)
    return found


def _made_itself(kind: Kind, key: str, value: str) -> bool:
    """A pool's place in the server's own directory: another server has its own."""
    return kind.section == "storage_pools" and key == "source" and ("/storage-pools/" in value or "/disks/" in value)


def _origin(client: Client, fingerprint: str, images: dict[str, Any]) -> dict[str, Any]:
    """Where an instance's image came from; without a trace, the image itself."""
    if not fingerprint:
        return {"type": "none"}
    if fingerprint not in images:
        try:
            images[fingerprint] = client.get(f"/1.0/images/{fingerprint}").get("update_source")
        except NotFound:
            images[fingerprint] = None
    origin = images[fingerprint]
    if not origin or not origin.get("alias"):
        return {"type": "image", "fingerprint": fingerprint}
    kept = {key: origin[key] for key in ("alias", "server", "protocol") if origin.get(key)}
    return {"type": "image", "mode": "pull", **kept}
