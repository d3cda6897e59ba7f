"""pylxd, LXD's Python library, unchanged, against our socket."""

import warnings
from typing import Any

import pytest

from tests.support.daemon import Lxpyd


@pytest.fixture
def client(lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pylxd = pytest.importorskip("pylxd")
    monkeypatch.setenv("LXD_DIR", str(lxpyd.dir))
    return pylxd.Client()


@pytest.mark.filterwarnings("ignore")
def test_the_life_of_an_instance(client: Any, lxpyd: Lxpyd, name: str) -> None:
    source = {"type": "image", "alias": "bb"}
    instance = client.instances.create({"name": name, "source": source}, wait=True)
    assert [one.name for one in client.instances.all() if one.name == name] == [name]
    instance.start(wait=True)
    assert client.instances.get(name).status == "Running"
    result = instance.execute(["sh", "-c", "cat; echo err >&2; exit 3"], stdin_payload="in")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "in", "err\n")
    assert instance.state().pid > 0
    instance = client.instances.get(name)
    instance.config["user.a"] = "b"
    instance.save(wait=True)
    assert client.instances.get(name).config["user.a"] == "b"
    snapshot = instance.snapshots.create("s0", wait=True)
    assert [one.name for one in instance.snapshots.all()] == ["s0"]
    snapshot.rename("s1", wait=True)
    instance.restore_snapshot("s1", wait=True)
    instance.snapshots.get("s1").delete(wait=True)
    assert instance.snapshots.all() == []
    instance.stop(force=True, wait=True)
    instance.delete(wait=True)
    assert not client.instances.exists(name)


@pytest.mark.filterwarnings("ignore")
def test_objects(client: Any, lxpyd: Lxpyd, name: str) -> None:
    assert client.images.get_by_alias("bb").fingerprint
    assert "default" in [one.name for one in client.profiles.all()]
    profile = client.profiles.create(name, {"user.x": "1"}, {})
    profile.config["user.x"] = "2"
    profile.save()
    assert client.profiles.get(name).config == {"user.x": "2"}
    profile.delete()
    assert lxpyd.bridge in [one.name for one in client.networks.all()]
    assert "default" in [one.name for one in client.storage_pools.all()]
    assert client.storage_pools.get("default").resources.get().space["total"] > 0
    assert "default" in [one.name for one in client.projects.all()]


@pytest.mark.filterwarnings("ignore")
def test_volumes(client: Any, lxpyd: Lxpyd, busybox: str) -> None:
    pool, name = client.storage_pools.get("default"), f"v-{busybox}"
    volume = pool.volumes.create({"name": name, "type": "custom"}, wait=True)
    assert name in [one.name for one in pool.volumes.all() if one.type == "custom"]
    snapshot = volume.snapshots.create("s0", wait=True)
    assert volume.snapshots.all() == ["s0"]
    assert [one.name for one in volume.snapshots.all(use_recursion=True)] == ["s0"]
    instance = client.instances.get(busybox)
    instance.devices["d"] = {"type": "disk", "pool": "default", "source": name, "path": "/d"}
    instance.save(wait=True)
    assert instance.execute(["sh", "-c", "echo x > /d/f && cat /d/f"]).stdout == "x\n"
    volume = pool.volumes.get("custom", name)
    assert volume.used_by == [f"/1.0/instances/{busybox}"]
    instance = client.instances.get(busybox)
    del instance.devices["d"]
    instance.save(wait=True)
    volume.restore_from("s0", wait=True)
    snapshot.delete(wait=True)
    volume.config["user.a"] = "b"
    volume.save(wait=True)
    assert pool.volumes.get("custom", name).config["user.a"] == "b"
    volume.delete()
    assert name not in [one.name for one in pool.volumes.all()]
