"""The order of snapshots as a tree: what each goes on from, by ``volatile.base_snapshot``; no Textual in it.

Taking a snapshot makes it the base of the instance, and so does restoring it: a snapshot that is taken after a
restore branches off from the one that was restored. Where nothing is recorded, a snapshot is taken to go on from the
one before it in time, and says so.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

BASE = "volatile.base_snapshot"
NOW = ""  # the name of what the instance is at present


class Node(NamedTuple):
    """Attributes:
    name: of the snapshot; `NOW` of the instance as it is.
    lead: the lines of the tree before it.
    line: whether what the instance is now comes from it.
    guessed: whether what it goes on from is only guessed by its time.
    """

    name: str
    lead: str
    line: bool
    guessed: bool


def base_of(raw: dict[str, Any]) -> str:
    """The recorded base of an instance or snapshot; "" for none."""
    return str((raw.get("config") or {}).get(BASE, ""))


def tree(snapshots: Sequence[dict[str, Any]], instance: dict[str, Any] | None) -> list[Node]:
    """The nodes in the order in which they are drawn: branches before what goes on below them.

    Args:
        snapshots: as the API has them, with names of their own.
        instance: the instance, which becomes the node `NOW`; None for none.
    """
    order = sorted(snapshots, key=lambda raw: (raw.get("created_at", ""), raw["name"]))
    names = [str(raw["name"]).rpartition("/")[2] for raw in order]
    places = {name: place for place, name in enumerate(names)}
    parents: dict[str, str] = {}
    guessed: set[str] = set()
    for place, name in enumerate(names):
        base = base_of(order[place])
        if places.get(base, len(names)) < place:
            parents[name] = base
        elif place and not base:
            parents[name] = names[place - 1]
            guessed.add(name)
    if instance is not None and names:
        base = base_of(instance)
        parents[NOW] = base if base in places else names[-1]
        if base not in places:
            guessed.add(NOW)
    children: dict[str | None, list[str]] = {}
    for name in [*names, *([NOW] if instance is not None else [])]:
        children.setdefault(parents.get(name), []).append(name)
    line, at = set[str](), NOW if NOW in parents or (instance is not None and not names) else (names or [NOW])[-1]
    while at not in line:
        line.add(at)
        if at not in parents:
            break
        at = parents[at]

    found: list[Node] = []

    def draw(name: str, first: str, rest: str) -> None:
        # Without recursion along the line: hundreds of snapshots follow one another.
        while True:
            found.append(Node(name, first, name in line, name in guessed))
            after = children.get(name, [])
            if not after:
                return
            onward = next((one for one in after if one in line), after[-1])
            for side in after:
                if side != onward:
                    draw(side, rest + "├─", rest + "│ ")
            name, first = onward, rest

    for root in children.get(None, []):
        draw(root, "", "")
    return found
