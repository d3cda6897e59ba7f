"""Profiles and projects over a real store."""

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from lxpy.api.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.profiles.manager import ProfileManager
from lxpy.projects.manager import ProjectManager
from lxpy.state.store import Store


@pytest.fixture
def store(tmp_path: pathlib.Path) -> Iterator[Store]:
    store = Store(str(tmp_path / "db"))
    yield store
    store.close()


def _emit(action: str, source: str, project: str, context: dict[str, Any] | None) -> None:
    pass


@pytest.fixture
def profiles(store: Store) -> ProfileManager:
    return ProfileManager(store, _emit)


@pytest.fixture
def projects(store: Store, profiles: ProfileManager) -> ProjectManager:
    return ProjectManager(store, _emit)


def test_later_profiles_win_and_devices_replace_whole(profiles: ProfileManager) -> None:
    nic = {"type": "nic", "network": "br0", "name": "eth0"}
    profiles.create("default", {"name": "a", "config": {"x": "1", "y": "1"}, "devices": {"eth0": nic}})
    profiles.create("default", {"name": "b", "config": {"y": 2}, "devices": {"eth0": {"type": "none"}}})
    config, devices = profiles.expand("default", ["default", "a", "b"], {"z": "3"}, {})
    assert config == {"x": "1", "y": "2", "z": "3"}
    assert devices == {"eth0": {"type": "none"}}
    with pytest.raises(NotFound):
        profiles.expand("default", ["nope"], {}, {})


async def test_a_change_that_fails_puts_back_no_other(profiles: ProfileManager) -> None:
    async def hook(project: str, name: str) -> None:
        await asyncio.sleep(0.01)
        if profiles.get(project, name)["config"].get("x") == "bad":
            raise BadRequest("not this one")

    profiles.create("default", {"name": "a", "config": {"x": "0"}})
    profiles.on_change.append(hook)
    results = await asyncio.gather(
        profiles.update("default", "a", {"config": {"x": "bad"}}, patch=True),
        profiles.update("default", "a", {"config": {"y": "1"}}, patch=True),
        return_exceptions=True,
    )
    assert isinstance(results[0], BadRequest) and results[1] is None
    assert profiles.get("default", "a")["config"] == {"x": "0", "y": "1"}


async def test_update_patch_and_hooks(profiles: ProfileManager) -> None:
    seen: list[tuple[str, str]] = []

    async def hook(project: str, name: str) -> None:
        seen.append((project, name))

    profiles.on_change.append(hook)
    profiles.create("default", {"name": "a", "config": {"x": "1", "y": "1"}})
    await profiles.update("default", "a", {"config": {"y": "", "z": "2"}}, patch=True)
    assert profiles.get("default", "a")["config"] == {"x": "1", "z": "2"}
    assert profiles.expand("default", ["a"], {}, {})[0] == {"x": "1", "z": "2"}
    await profiles.update("default", "a", {"description": "d"})
    assert profiles.get("default", "a")["config"] == {}
    assert seen == [("default", "a")] * 2
    with pytest.raises(BadRequest):
        await profiles.update("default", "a", {"config": {"volatile.x": "1"}})


def test_a_profile_in_use_stays(store: Store, profiles: ProfileManager) -> None:
    profiles.create("default", {"name": "a"})
    store.pools.put("p", {"driver": "dir"})
    store.instances.insert("default", "c1", "p", None, {"profiles": ["a"]})
    assert profiles.get("default", "a")["used_by"] == ["/1.0/instances/c1"]
    with pytest.raises(Conflict, match="c1"):
        profiles.delete("default", "a")
    with pytest.raises(Conflict):
        profiles.rename("default", "a", "b")
    for change in (profiles.delete, lambda project, name: profiles.rename(project, name, "z")):
        with pytest.raises(Forbidden):
            change("default", "default")
    with pytest.raises(Conflict):
        profiles.create("default", {"name": "a"})
    with pytest.raises(BadRequest):
        profiles.create("default", {"name": "../a"})


def test_projects(store: Store, profiles: ProfileManager, projects: ProjectManager) -> None:
    assert [one["name"] for one in projects.list()] == ["default"]
    projects.create({"name": "own"})
    projects.create({"name": "shared", "config": {"features.profiles": "false", "features.images": "false"}})
    profiles.ensure_default("own")
    profiles.ensure_default("shared")
    assert [profiles.home("own"), profiles.home("shared")] == ["own", "default"]
    assert [projects.home("own", "images"), projects.home("shared", "images")] == ["own", "default"]
    profiles.create("own", {"name": "a"})
    with pytest.raises(NotFound):
        profiles.get("shared", "a")
    with pytest.raises(Conflict, match="profiles/a"):
        projects.delete("own")
    profiles.delete("own", "a")
    projects.delete("own")
    with pytest.raises(NotFound):
        projects.get("own")
    with pytest.raises(Forbidden):
        projects.delete("default")
    with pytest.raises(BadRequest):
        projects.create({"name": "x", "config": {"features.networks": "true"}})
    with pytest.raises(BadRequest):
        projects.create({"name": "a_b"})
