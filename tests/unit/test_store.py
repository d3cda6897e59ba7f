"""The store: transactions are all or nothing, schemas only go forward."""

import sqlite3
from pathlib import Path

import pytest

from lxpy.api.errors import Conflict, InternalError
from lxpy.state.store import AliasRow, Store


@pytest.fixture
def store(tmp_path: Path):
    store = Store(str(tmp_path / "lxpy.db"))
    yield store
    store.close()


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    store.pools.put("default", {"driver": "dir"})
    with pytest.raises(RuntimeError), store.transaction():
        store.pools.put("other", {"driver": "dir"})
        with store.transaction():
            store.pools.delete("default")
        raise RuntimeError
    assert store.pools.all() == {"default": {"driver": "dir"}}


def test_instances_are_unique_and_refer_to_what_exists(store: Store) -> None:
    store.projects.put("default", {})
    store.pools.put("default", {})
    row = store.instances.insert("default", "c1", "default", 1000000, {"config": {}})
    assert store.instances.get("default", "c1") == row
    with pytest.raises(Conflict, match="already exists"):
        store.instances.insert("default", "c1", "default", 1065536, {})
    with pytest.raises(sqlite3.IntegrityError):
        store.instances.insert("default", "c2", "nowhere", 1065536, {})
    with pytest.raises(sqlite3.IntegrityError):
        store.pools.delete("default")
    assert store.instances.idmap_bases() == {1000000}


def test_aliases_go_with_their_image(store: Store) -> None:
    store.projects.put("default", {})
    store.images.put("default", "ab" * 32, {})
    store.aliases.put(AliasRow("default", "bb", "ab" * 32, ""))
    store.images.delete("default", "ab" * 32)
    assert store.aliases.get("default", "bb") is None


def test_it_survives_being_closed_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "lxpy.db"
    first = Store(str(path))
    first.config.replace({"core.https_address": ":8443"})
    first.close()
    second = Store(str(path))
    assert second.config.all() == {"core.https_address": ":8443"}
    assert path.stat().st_mode & 0o777 == 0o600
    second.close()


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lxpy.db"
    Store(str(path)).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(InternalError, match="newer lxpy"):
        Store(str(path))
