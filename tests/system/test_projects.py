"""Projects: what they limit, what that counts, and what a refusal says; nothing has changed after one."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.daemon import Lxpyd, Result
from tests.support.projects import refused


def test_each_limit_adds_up(lxpyd: Lxpyd, project: str) -> None:
    """Key, limit, what the first instance takes, what the second asks for, and how the refusal names both."""

    def instances() -> list[str]:
        return [one["name"] for one in lxpyd.json("list", "--project", project, "-f", "json")]

    cases = [
        (
            "limits.memory",
            "192MiB",
            "128MiB",
            "100MiB",
            "128.00MiB are given already and instance 'b' asks for 100.00MiB",
        ),
        ("limits.cpu", "3", "2", "2", "2 are given already and instance 'b' asks for 2"),
        ("limits.processes", "500", "300", "201", "300 are given already and instance 'b' asks for 201"),
    ]
    for key, limit, first, second, words in cases:
        lxpyd.cli("project", "set", project, f"{key}={limit}")
        assert f"instance 'a' needs a {key}" in refused(
            lxpyd.cli("create", "bb", "a", "--project", project, check=False)
        )
        lxpyd.cli("create", "bb", "a", "--project", project, "-c", f"{key}={first}")
        wrong = lxpyd.cli("create", "bb", "b", "--project", project, "-c", f"{key}={second}", check=False)
        assert refused(wrong) == f"Error: Project {project!r} has {key}={limit}: {words}"
        assert instances() == ["a"]
        # a change is held to it, and so are the project's own; what is given up is there for others
        refused(lxpyd.cli("config", "set", "a", f"{key}=1{second}", "--project", project, check=False))
        refused(lxpyd.cli("config", "unset", "a", key, "--project", project, check=False))
        assert lxpyd.out("config", "get", "a", key, "--project", project) == first
        low = refused(lxpyd.cli("project", "set", project, f"{key}=1", check=False))
        assert f"cannot have {key}=1: {words.split()[0]} are given already" in low
        assert lxpyd.out("project", "get", project, key) == limit
        lxpyd.cli("delete", "a", "--project", project)
        lxpyd.cli("create", "bb", "b", "--project", project, "-c", f"{key}={second}")
        lxpyd.cli("delete", "b", "--project", project)
        lxpyd.cli("project", "unset", project, key)
    lxpyd.cli("project", "set", project, "limits.memory=1GiB", "limits.cpu=4")
    for setting, words in (("limits.memory=10%", "as a size"), ("limits.cpu=0-1", "as a number of CPUs")):
        given = {"limits.memory": "8MiB", "limits.cpu": "1"} | dict([setting.split("=")])
        config = [word for key, value in given.items() for word in ("-c", f"{key}={value}")]
        assert words in refused(lxpyd.cli("create", "bb", "a", "--project", project, *config, check=False))


def test_counts_hold_for_creates_at_once(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("project", "set", project, "limits.instances=2")
    with ThreadPoolExecutor(5) as pool:
        results = [
            *pool.map(lambda n: lxpyd.cli("create", "bb", f"c{n}", "--project", project, check=False), range(5))
        ]  # fmt: skip
    assert sum(result.returncode == 0 for result in results) == 2
    for result in results:
        assert not result.returncode or "has limits.instances=2 and holds 2 instances" in refused(result)
    assert len(lxpyd.json("list", "--project", project, "-f", "json")) == 2
    said = refused(lxpyd.cli("project", "set", project, "limits.containers=1", check=False))
    assert said == f"Error: Project {project!r} has limits.containers=1 and holds 2 instances"


def test_disk(lxpyd: Lxpyd, project: str) -> None:
    """Custom volumes count, whatever is done to them; a pool that limits no root is no place for instances then."""

    def volume(*words: str, check: bool = False) -> Result:
        return lxpyd.cli("storage", "volume", *words, "--project", project, check=check)

    lxpyd.cli("project", "set", project, "limits.disk=100MiB")
    assert "volume 'plain/v' needs a size" in refused(volume("create", "plain", "v"))
    assert "needs a size on its root disk" in refused(lxpyd.cli("create", "bb", "a", "--project", project, check=False))
    assert lxpyd.json("query", f"/1.0/storage-pools/plain/volumes/custom?project={project}") == []
    pool = f"{project}-b"
    lxpyd.cli("storage", "create", pool, "btrfs", "size=300MiB")
    try:
        volume("create", pool, "v", "size=40MiB", check=True)
        root = ["create", "bb", "a", "-s", pool, "--project", project]
        assert "needs a size on its root disk" in refused(lxpyd.cli(*root, check=False))
        said = refused(lxpyd.cli(*root, "-d", "root,size=70MiB", check=False))
        assert said.endswith("40.00MiB are given already and instance 'a' asks for 70.00MiB")
        lxpyd.cli(*root, "-d", "root,size=50MiB")
        for words in (
            ("set", pool, "v", "size=60MiB"), ("unset", pool, "v", "size"), ("copy", f"{pool}/v", f"{pool}/w"),
            ("create", pool, "w", "size=11MiB"),
        ):  # fmt: skip
            assert "has limits.disk=100MiB" in refused(volume(*words)), words
        grown = lxpyd.cli("config", "device", "set", "a", "root", "size=61MiB", "--project", project, check=False)
        assert "40.00MiB are given already and instance 'a' asks for 61.00MiB" in refused(grown)
        volume("set", pool, "v", "size=50MiB", check=True)
        volume("rename", pool, "v", "w", check=True)  # the same room under another name
        usage = lxpyd.json("project", "info", project, "-f", "json")["resources"]["disk"]
        assert usage == {"Limit": 100 << 20, "Usage": 100 << 20}
    finally:
        lxpyd.cli("delete", "a", "--project", project, check=False)
        for name in ("v", "w"):
            volume("delete", pool, name)
        lxpyd.cli("storage", "delete", pool)


def test_profiles_and_profile_changes_count(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("project", "set", project, "features.profiles=true")
    lxpyd.cli("profile", "create", "small", "--project", project)
    lxpyd.cli("profile", "set", "small", "limits.memory=32MiB", "--project", project)
    lxpyd.cli("profile", "device", "add", "small", "root", "disk", "pool=default", "path=/", "--project", project)
    lxpyd.cli("project", "set", project, "limits.memory=80MiB")
    for name in ("a", "b"):
        lxpyd.cli("create", "bb", name, "-p", "small", "--project", project)
    wrong = lxpyd.cli("profile", "set", "small", "limits.memory=48MiB", "--project", project, check=False)
    assert "cannot have limits.memory=80MiB: 96.00MiB are given already" in refused(wrong)
    assert lxpyd.out("profile", "get", "small", "limits.memory", "--project", project) == "32MiB"
    lxpyd.cli("profile", "set", "small", "limits.memory=40MiB", "--project", project)
    refused(lxpyd.cli("profile", "remove", "a", "small", "--project", project, check=False))
    info = lxpyd.out("project", "info", project, "-f", "csv").splitlines()
    assert "MEMORY,80.00MiB,80.00MiB" in info and "INSTANCES,UNLIMITED,2" in info and "NETWORKS,UNLIMITED,0" in info


def test_create_from_yaml_and_rename(lxpyd: Lxpyd, project: str) -> None:
    text = "description: of a file\nconfig:\n  limits.cpu: 2\n  features.images: false\n"
    lxpyd.cli("project", "create", f"{project}-y", "-c", "user.x=1", input=text)
    made = lxpyd.json("query", f"/1.0/projects/{project}-y")
    assert made["description"] == "of a file"
    assert made["config"] | {"limits.cpu": "2", "features.images": "false", "user.x": "1"} == made["config"]
    lxpyd.cli("profile", "set", "default", "user.y=1", "--project", f"{project}-y")
    assert (
        lxpyd.out("project", "rename", f"{project}-y", f"{project}-z") == f"Project {project}-y renamed to {project}-z"
    )
    assert lxpyd.out("profile", "get", "default", "user.y", "--project", f"{project}-z") == "1"
    assert "not found" in refused(lxpyd.cli("project", "show", f"{project}-y", check=False))
    lxpyd.cli("create", "bb", "a", "--project", project)
    for verb, rest in (("rename", [f"{project}-n"]), ("delete", [])):
        said = refused(lxpyd.cli("project", verb, project, *rest, check=False))
        assert said == f"Error: Project {project!r} cannot be {verb}d: it holds instances/a"
    assert "already exists" in refused(lxpyd.cli("project", "rename", f"{project}-z", project, check=False))
    assert "default" in refused(lxpyd.cli("project", "rename", "default", "x", check=False))
    lxpyd.cli("project", "delete", f"{project}-z")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("limits.memory=lots", "is not a size"),
        ("limits.cpu=-1", "is not a whole number"),
        ("limits.instance=3", "did you mean 'limits.instances'?"),
        ("limits.networks=3", "networks belong to the whole server"),
        ("restricted=maybe", "is not a boolean"),
        ("restricted.containers.interception=allow", "only block is possible, no system calls are intercepted"),
        ("restricted.virtual-machines.lowlevel=allow", "there are no virtual machines"),
        ("restricted.devices.nic=yes", "is none of managed, block, allow"),
        ("restricted.devices.disk.paths=srv", "is not an absolute path"),
        ("restricted.idmap.uid=1000-", "is no id and no range of ids"),
        ("restricted.idmap.gid=20-10", "runs backwards"),
        ("features.network=true", "did you mean 'features.networks'?"),
        ("features.networks=true", "networks belong to the whole server"),
        ("nonsense=1", "known are features.*, limits.*, restricted.* and user.*"),
    ],
)
def test_faults_of_keys(lxpyd: Lxpyd, setting: str, words: str) -> None:
    assert words in refused(lxpyd.cli("project", "create", "faulty", "-c", setting, check=False))
    assert lxpyd.cli("project", "show", "faulty", check=False).returncode == 1


def test_the_default_project_has_limits_too(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    before = lxpyd.json("query", "/1.0/projects/default")["config"]
    assert "needs a limits.cpu" in refused(lxpyd.cli("project", "set", "default", "limits.cpu=10", check=False))
    assert lxpyd.json("query", "/1.0/projects/default")["config"] == before
    lxpyd.cli("project", "set", "default", "user.a=1")
    lxpyd.cli("project", "unset", "default", "user.a")
    assert lxpyd.json("query", "/1.0/projects/default")["config"] == before
    wrong = lxpyd.cli("project", "set", "default", "limits.networks=x", check=False)
    assert "is not a whole number" in refused(wrong)
    networks = len([one for one in lxpyd.json("query", "/1.0/networks?recursion=1") if one["managed"]])
    assert f"there would be {networks} networks" in refused(
        lxpyd.cli("project", "set", "default", f"limits.networks={networks - 1}", check=False)
    )
    lxpyd.cli("project", "set", "default", f"limits.networks={networks}")
    try:
        assert f"NETWORKS,{networks},{networks}" in lxpyd.out("project", "info", "default", "-f", "csv")
        said = refused(lxpyd.cli("network", "create", "lxlim0", "ipv4.address=none", "ipv6.address=none", check=False))
        assert (
            said == f"Error: Project 'default' has limits.networks={networks}: there would be {networks + 1} networks"
        )
        assert lxpyd.cli("network", "show", "lxlim0", check=False).returncode == 1
    finally:
        lxpyd.cli("project", "unset", "default", "limits.networks")
    lxpyd.cli("network", "create", "lxlim0", "ipv4.address=none", "ipv6.address=none")
    lxpyd.cli("network", "delete", "lxlim0")


def test_doors_that_are_always_shut(lxpyd: Lxpyd, project: str) -> None:
    """A project of LXD's that shuts what lxpy has not got is taken as it is."""
    keys = ("cluster.target", "containers.interception", "virtual-machines.lowlevel")
    lxpyd.cli("project", "set", project, *(f"restricted.{key}=block" for key in keys))
    assert lxpyd.out("project", "get", project, "restricted.cluster.target") == "block"
