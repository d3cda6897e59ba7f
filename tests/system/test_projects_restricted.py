"""What a restricted project forbids its instances and profiles, and that a guest cannot talk it round."""

import json
import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, Result
from tests.support.projects import refused


@pytest.fixture
def shared(lxpyd: Lxpyd) -> Iterator[pathlib.Path]:
    """A directory of the host, with something beside it that nobody is to see."""
    top = lxpyd.dir / "shared"
    (top / "mine/data").mkdir(parents=True)
    (top / "secret").mkdir()
    (top / "mine/data/f").write_text("mine")
    (top / "secret/f").write_text("secret")
    yield top
    shutil.rmtree(top)


def test_each_restriction(lxpyd: Lxpyd, project: str, shared: pathlib.Path) -> None:
    """What is asked for, what forbids it (word for word), and the setting that allows it, if one does."""
    lxpyd.cli("project", "set", project, "restricted=true")
    lxpyd.cli("create", "bb", "a", "--project", project)
    default = "where nothing else is set"
    disk = ["config", "device", "add", "a", "d", "disk", "path=/d"]
    nic = ["config", "device", "add", "a", "n", "nic", "name=eth7"]
    cases = [
        (["config", "set", "a", "security.nesting=true"], f"security.nesting of instance 'a' is forbidden in project "
         f"{project!r}: restricted.containers.nesting is block {default}", "restricted.containers.nesting=allow"),
        (["config", "set", "a", "security.privileged=true"],
         f"restricted.containers.privilege is unprivileged {default}", "restricted.containers.privilege=allow"),
        (["config", "set", "a", "limits.memory.swap=false"], f"restricted.containers.lowlevel is block {default}",
         "restricted.containers.lowlevel=allow"),
        (["config", "set", "a", "volatile.x.hwaddr=00:16:3e:00:00:01"], "restricted.containers.lowlevel is block", ""),
        ([*disk, f"source={shared}/mine"], f"Disk 'd' of instance 'a' is forbidden in project {project!r}: "
         f"restricted.devices.disk is managed {default}", "restricted.devices.disk=allow"),
        ([*nic, "nictype=bridged", f"parent={lxpyd.bridge}"], f"restricted.devices.nic is managed {default}",
         "restricted.devices.nic=allow"),
    ]  # fmt: skip
    for command, words, allowed in cases:
        before = lxpyd.json("query", f"/1.0/instances/a?project={project}")
        assert words in refused(lxpyd.cli(*command, "--project", project, check=False))
        assert lxpyd.json("query", f"/1.0/instances/a?project={project}") == before
        if allowed:
            lxpyd.cli("project", "set", project, allowed)
            lxpyd.cli(*command, "--project", project)
            # what there is stands in the way of a harder project
            said = refused(lxpyd.cli("project", "unset", project, allowed.partition("=")[0], check=False))
            assert "instance 'a'" in said and "is forbidden in project" in said
            lxpyd.api("PUT", f"/1.0/instances/a?project={project}", before)
            lxpyd.cli("project", "unset", project, allowed.partition("=")[0])
    lxpyd.cli(*nic, f"network={lxpyd.bridge}", "--project", project)
    said = refused(lxpyd.cli("project", "set", project, "restricted.networks.access=other", check=False))
    assert f"Network {lxpyd.bridge!r} of instance 'a' is forbidden" in said
    lxpyd.cli("project", "set", project, f"restricted.networks.access=other,{lxpyd.bridge}")
    # the same at the creation, with nothing made
    wrong = lxpyd.cli("create", "bb", "b", "-c", "security.nesting=true", "--project", project, check=False)
    assert "restricted.containers.nesting" in refused(wrong)
    assert len(lxpyd.json("list", "--project", project, "-f", "json")) == 1


def test_profiles_of_a_restricted_project(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("project", "set", project, "features.profiles=true", "restricted=true")
    lxpyd.cli("profile", "create", "p", "--project", project)
    wrong = lxpyd.cli("profile", "set", "p", "security.privileged=true", "--project", project, check=False)
    assert "security.privileged of profile 'p' is forbidden" in refused(wrong)
    assert lxpyd.out("profile", "get", "p", "security.privileged", "--project", project) == ""
    body = json.dumps({"name": "q", "config": {"security.privileged": "true"}})
    made = lxpyd.cli("query", "-X", "POST", "-d", body, f"/1.0/profiles?project={project}", check=False)
    assert "security.privileged of profile 'q' is forbidden" in refused(made)
    assert lxpyd.cli("profile", "show", "q", "--project", project, check=False).returncode == 1


def test_a_profile_of_default_binds_restricted_projects(lxpyd: Lxpyd, project: str, name: str) -> None:
    """An instance of a restricted project uses a profile of ``default``: what that becomes is the project's affair."""
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("create", "bb", "a", "-p", "default", "-p", name, "--project", project)
    lxpyd.cli("project", "set", project, "restricted=true")
    said = refused(lxpyd.cli("profile", "set", name, "security.nesting=true", check=False))
    assert f"security.nesting of instance 'a' is forbidden in project {project!r}" in said
    assert lxpyd.out("profile", "get", name, "security.nesting") == ""
    lxpyd.cli("delete", "a", "--project", project)
    lxpyd.cli("profile", "delete", name)


def test_disk_paths_hold_whatever_links_a_guest_makes(lxpyd: Lxpyd, project: str, shared: pathlib.Path) -> None:
    def disk(device: str, source: str, check: bool = True) -> Result:
        words = ["config", "device", "add", "a", device, "disk", f"source={source}", f"path=/{device}"]
        return lxpyd.cli(*words, "--project", project, check=check)

    lxpyd.cli("project", "set", project, "restricted=true", "restricted.devices.disk=allow")
    lxpyd.cli("project", "set", project, f"restricted.devices.disk.paths=/nowhere,{shared}/mine")
    lxpyd.cli("launch", "bb", "a", "--project", project)
    for source in (f"{shared}/secret", f"{shared}/mine/../secret", f"{shared}/minefield", "/"):
        assert "restricted.devices.disk.paths" in refused(disk("d", source, check=False)), source
    disk("d", f"{shared}/mine/data")
    assert lxpyd.cli("exec", "a", "--project", project, "--", "cat", "/d/f").stdout == "mine"
    # a directory becomes a link, as a guest that may write there can make it: while it runs, and for the next start
    (shared / "mine/evil").symlink_to("../secret")
    (shared / "mine/way").symlink_to("data")
    assert f"a link in it leads out of {shared}/mine" in refused(disk("e", f"{shared}/mine/evil", check=False))
    disk("w", f"{shared}/mine/way")
    assert lxpyd.cli("exec", "a", "--project", project, "--", "cat", "/w/f").stdout == "mine"
    lxpyd.cli("stop", "-f", "a", "--project", project)
    shutil.rmtree(shared / "mine/data")
    os.symlink("../secret", shared / "mine/data")
    assert f"a link in it leads out of {shared}/mine" in refused(
        lxpyd.cli("start", "a", "--project", project, check=False)
    )


def test_snapshots_of_volumes(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("storage", "volume", "create", "plain", "v", "--project", project)
    lxpyd.cli("project", "set", project, "restricted=true")
    said = refused(lxpyd.cli("storage", "volume", "snapshot", "plain", "v", "s", "--project", project, check=False))
    assert said == f"Error: Snapshots are forbidden in project {project!r}: restricted.snapshots is block"
    lxpyd.cli("project", "set", project, "restricted.snapshots=allow")
    lxpyd.cli("storage", "volume", "snapshot", "plain", "v", "s", "--project", project)


def test_ids_of_the_host(lxpyd: Lxpyd, project: str) -> None:
    """A restricted project's raw.idmap reaches the ids that its keys name, and no others."""
    lxpyd.cli("create", "bb", "a", "--project", project)
    lxpyd.cli("project", "set", project, "restricted=true")

    def set_(value: str) -> str:
        return refused(lxpyd.cli("config", "set", "a", f"raw.idmap={value}", "--project", project, check=False))

    assert "restricted.containers.lowlevel is block" in set_("uid 1000 1000")
    lxpyd.cli("project", "set", project, "restricted.idmap.uid=1000,2000-2999", "restricted.idmap.gid=100")
    for allowed in ("uid 1000 1000", "uid 2000-2009 500-509\ngid 100 100"):
        lxpyd.cli("config", "set", "a", f"raw.idmap={allowed}", "--project", project)
    assert "the uids 1001-1001 of the host" in set_("uid 1001 1000")
    assert "the uids 2990-3000 of the host" in set_("uid 2990-3000 500-510")
    assert "restricted.idmap.gid is 100" in set_("both 1000 1000")
    held = refused(lxpyd.cli("project", "set", project, "restricted.idmap.uid=1000", check=False))
    assert "the uids 2000-2009 of the host" in held
    assert "restricted.containers.lowlevel" in refused(
        lxpyd.cli("config", "set", "a", "limits.kernel.nofile=100", "--project", project, check=False)
    )
