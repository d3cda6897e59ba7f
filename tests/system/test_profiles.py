"""Profiles while instances use them: a change acts on all of them or on none."""

import json
import os
import subprocess

from lxpy.linux import cgroups
from tests.support.daemon import Lxpyd
from tests.support.projects import refused


def _memory(lxpyd: Lxpyd, name: str) -> str:
    """The file that holds an instance's memory limit."""
    found = cgroups.hierarchies()
    v2 = found.has_v2("memory")
    root, file = (found.unified, "memory.max") if v2 else (found.v1["memory"], "memory.limit_in_bytes")
    return f"{root}/{lxpyd.layout.cgroup_prefix}.payload.{name}/{file}"


def _read(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def test_limits_already_given_are_taken_back(lxpyd: Lxpyd, name: str) -> None:
    """One of two instances cannot have the new limit (its cgroup takes nothing): the other keeps the old."""
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "limits.memory=64MiB")
    users = [f"{name}-a", f"{name}-b"]
    for user in users:
        lxpyd.cli("launch", "bb", user, "-p", "default", "-p", name)
    for stubborn in users:  # whichever of the two comes first
        path = _memory(lxpyd, stubborn)
        subprocess.run(["mount", "--bind", "/dev/full", path], check=True)
        try:
            said = refused(lxpyd.cli("profile", "set", name, "limits.memory=96MiB", "user.x=1", check=False))
        finally:
            subprocess.run(["umount", path], check=True)
        assert "Cannot apply the limits" in said and stubborn in said
        assert [_read(_memory(lxpyd, user)) for user in users] == [64 << 20] * 2
        assert lxpyd.out("profile", "get", name, "limits.memory") == "64MiB"
        assert lxpyd.out("profile", "get", name, "user.x") == ""
    # the same of one instance's own change
    path = _memory(lxpyd, users[0])
    subprocess.run(["mount", "--bind", "/dev/full", path], check=True)
    try:
        wrong = lxpyd.cli("config", "set", users[0], "limits.memory=96MiB", "limits.processes=50", check=False)
        assert "Cannot apply the limits" in refused(wrong)
    finally:
        subprocess.run(["umount", path], check=True)
    assert lxpyd.out("config", "get", users[0], "limits.processes") == ""
    lxpyd.cli("profile", "set", name, "limits.memory=96MiB")
    assert [_read(_memory(lxpyd, user)) for user in users] == [96 << 20] * 2
    lxpyd.sweep(name)
    lxpyd.cli("profile", "delete", name)
    assert not os.path.exists(path)


def test_verbs_as_the_stock_client_has_them(lxpyd: Lxpyd, name: str, project: str) -> None:
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "user.a=1")
    lxpyd.cli("profile", "unset", name, "user.none")  # a profile's key that is not set: nothing to do
    lxpyd.cli("project", "unset", project, "limits.cpu")
    lxpyd.cli("project", "set", project, "features.profiles=true")
    lxpyd.cli("profile", "copy", name, f"{name}-c", "--target-project", project)
    assert lxpyd.out("profile", "get", f"{name}-c", "user.a", "--project", project) == "1"
    lxpyd.cli("create", "bb", name, "-p", "default", "-p", name)
    before = lxpyd.instance(name)
    twice = json.dumps({"profiles": ["default", name, "default"]})
    wrong = lxpyd.cli("query", "-X", "PATCH", "-d", twice, f"/1.0/instances/{name}", check=False)
    assert "Profile 'default' is in the list twice" in refused(wrong)
    assert "is in the list twice" in refused(
        lxpyd.cli("create", "bb", f"{name}-x", "-p", "default", "-p", "default", check=False)
    )
    assert "No root device" in refused(lxpyd.cli("profile", "assign", name, "", check=False))
    assert lxpyd.instance(name) == before
    lxpyd.cli("config", "device", "override", name, "root")
    lxpyd.api("PUT", f"/1.0/instances/{name}", {"devices": lxpyd.instance(name)["devices"]})
    assert lxpyd.instance(name)["profiles"] == []  # PUT replaces: what is left out goes
    lxpyd.sweep(name)
    lxpyd.cli("profile", "delete", name)
