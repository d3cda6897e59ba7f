"""apply: from a file to a server that is as it says, and back."""

import pathlib
import signal
import time

import pytest

from tests.support.daemon import Lxpyd

STACK = """\
stack: shop
projects:
- name: shop-p
  config: {{features.images: false, features.profiles: false}}
network_acls:
- name: shop-acl
  egress:
  - {{action: drop, destination: 10.99.99.0/24}}
networks:
- name: shopbr
  config: {{ipv4.address: 10.96.7.1/24, ipv6.address: none, ipv4.nat: true}}
network_forwards:
- network: shopbr
  listen_address: 10.96.8.1
  ports:
  - {{listen_port: 80, protocol: tcp, target_address: 10.96.7.20}}
storage_pools:
- {{name: shop-pool, driver: dir}}
---
storage_volumes:
- name: data
  pool: shop-pool
  config: {{user.what: goods}}
profiles:
- name: shop
  config:
    limits.processes: 500
    user.colour: {colour}
  devices:
    eth0: {{type: nic, network: shopbr, name: eth0}}
    root: {{type: disk, path: /, pool: default}}
instances:
- name: shop-web
  image: bb
  profiles: [shop]
  config:
    boot.requires: shop-db
- name: shop-db
  image: bb
  profiles: [shop]
  devices:
    data: {{type: disk, pool: shop-pool, source: data, path: /data}}
{more}"""


@pytest.fixture
def file(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "shop.yaml"
    path.write_text(STACK.format(colour="red", more=""))
    return path


def _empty(lxpyd: Lxpyd, before: dict[str, object]) -> None:
    lxpyd.cli("apply", "-f", "-", "--prune", "--yes", input="stack: shop\n")
    assert lxpyd.snapshot()["instances"] == before["instances"]
    for part in ("profiles", "networks", "pools"):
        assert lxpyd.snapshot()[part] == before[part], part


def test_a_stack_comes_changes_and_goes(apart_lxpyd: Lxpyd, file: pathlib.Path) -> None:
    lxpyd, apply = apart_lxpyd, ["apply", "-f", str(file)]
    before = lxpyd.snapshot()
    plan = lxpyd.out(*apply, "--dry-run")
    assert "+ create instance shop-db" in plan and "Plan: 9 to create, 2 to start" in plan
    assert lxpyd.snapshot() == before
    refused = lxpyd.cli(*apply, check=False)
    assert refused.returncode == 1 and "give --yes" in refused.stderr and lxpyd.snapshot() == before

    lxpyd.cli(*apply, "--yes")
    assert lxpyd.status("shop-web") == lxpyd.status("shop-db") == "RUNNING"
    assert str(lxpyd.instance("shop-db")["last_used_at"]) < str(lxpyd.instance("shop-web")["last_used_at"])
    assert lxpyd.sh("shop-db", "touch /data/x && ls /data").stdout == "x\n"
    assert lxpyd.wait_address("shop-web").startswith("10.96.7.")
    assert lxpyd.json("query", "/1.0/networks/shopbr/forwards?recursion=1")[0]["config"] == {"user.lxpy.stack": "shop"}
    assert lxpyd.out(*apply, "--yes").splitlines()[-1] == "Nothing to do"

    # One change in a profile, one instance stopped by hand, one more and one fewer instance.
    lxpyd.cli("stop", "-f", "shop-db")
    more = "- {name: shop-extra, image: bb, profiles: [shop], status: Stopped}\n"
    file.write_text(STACK.format(colour="blue", more=more))
    text = lxpyd.out(*apply, "--yes")
    assert "~ update profile shop\n    config.user.colour: red -> blue\n" in text
    assert "Plan: 1 to create, 1 to update, 1 to start" in text
    assert lxpyd.status("shop-db") == "RUNNING" and lxpyd.status("shop-extra") == "STOPPED"
    assert lxpyd.instance("shop-db")["expanded_config"]["user.colour"] == "blue"
    file.write_text(STACK.format(colour="blue", more=""))
    assert "instance shop-extra is in the file no more: --prune deletes it" in lxpyd.out(*apply, "--yes")
    assert "- delete instance shop-extra" in lxpyd.out(*apply, "--yes", "--prune")
    assert lxpyd.out(*apply, "--prune", "--dry-run") == "Nothing to do"
    _empty(lxpyd, before)


def test_a_network_moves_with_its_forwards(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """A forward's targets are of its network's subnet: neither of the two could be changed first."""
    lxpyd, path = apart_lxpyd, tmp_path / "s.yaml"
    before = lxpyd.snapshot()

    def write(subnet: str, *listens: str) -> None:
        forwards = "".join(
            f"- network: shopbr\n  listen_address: {listen}\n  config: {{target_address: {subnet}.21, user.k: v}}\n"
            f"  ports: [{{listen_port: 80, protocol: tcp, target_address: {subnet}.20}}]\n"
            for listen in listens
        )
        networks = f"networks:\n- name: shopbr\n  config: {{ipv4.address: {subnet}.1/24, ipv6.address: none}}\n"
        path.write_text(f"stack: shop\n{networks}network_forwards:\n{forwards}")

    apply = ["apply", "-f", str(path), "--yes"]
    write("10.96.7", "10.96.8.1", "10.96.8.2")
    lxpyd.cli(*apply)
    write("10.96.9", "10.96.8.1")
    refused = lxpyd.cli(*apply, check=False)
    assert refused.returncode == 1 and "The forward 10.96.8.2 stands against it" in refused.stderr
    lxpyd.cli(*apply, "--prune")
    assert lxpyd.out(*apply, "--prune") == "Nothing to do"
    (forward,) = lxpyd.json("query", "/1.0/networks/shopbr/forwards?recursion=1")
    assert forward["listen_address"] == "10.96.8.1" and forward["ports"][0]["target_address"] == "10.96.9.20"
    assert forward["config"] == {"target_address": "10.96.9.21", "user.k": "v", "user.lxpy.stack": "shop"}
    _empty(lxpyd, before)


def test_a_project_with_a_stack_of_its_own(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    lxpyd = apart_lxpyd
    before = lxpyd.snapshot()
    (tmp_path / "p.yaml").write_text(
        "stack: shop\nprojects:\n- name: pq\n  config: {features.images: false, features.storage.volumes: false}\n"
        "storage_volumes:\n- {name: v, pool: plain, project: pq}\n"
        "profiles:\n- name: default\n  project: pq\n  devices:\n    root: {type: disk, path: /, pool: plain}\n"
        "instances:\n- {name: in-pq, image: bb, project: pq}\n"
    )
    apply = ["apply", "-f", str(tmp_path / "p.yaml"), "--yes", "--prune"]
    lxpyd.cli(*apply)
    assert [one["name"] for one in lxpyd.json("list", "--project", "pq", "-f", "json")] == ["in-pq"]
    assert lxpyd.json("query", "/1.0/storage-pools/plain/volumes/custom/v")["name"] == "v"  # the project has none
    assert lxpyd.out(*apply) == "Nothing to do"
    _empty(lxpyd, before)


def test_what_was_there_before_is_changed_and_never_pruned(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    lxpyd, path = apart_lxpyd, tmp_path / "mine.yaml"
    lxpyd.cli("create", "bb", "older", "-c", "user.a=1", "-c", "user.b=2")
    path.write_text("instances:\n- {name: older, config: {user.a: 3}, status: stopped}\n")
    text = lxpyd.out("apply", "-f", str(path), "--yes")
    assert "config.user.a: 1 -> 3" in text and "config.user.b: 2 -> (none)" in text
    config = lxpyd.instance("older")["config"]
    assert config["user.a"] == "3" and "user.b" not in config and "image.os" in config and "volatile.uuid" in config
    path.write_text("instances: []\n")
    assert lxpyd.out("apply", "-f", str(path), "--yes", "--prune") == "Nothing to do"
    lxpyd.cli("delete", "older")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instances:\n- {name: a, config: {limits.memroy: 1}, image: bb}\n",
         ":2: instance a: Unknown configuration key 'limits.memroy': did you mean 'limits.memory'?"),
        ("instances:\n- {name: a}\n", ":2: the instance 'a' is to be made: it needs an image (or source)"),
        ("instances:\n- {name: a, image: nowhere}\n", ":2: instance a: "),
        ("\n\nprofiles:\n- {name: a, devices: {x: {type: tpm}}}\n", ":4: profile a: "),
        ("networks:\n- {name: lo}\n", ":2: 'lo' is an interface of the host that lxpy does not manage"),
        ("storage_pools:\n- {name: plain, driver: btrfs}\n",
         ":2: the storage pool 'plain' is there with driver dir, not btrfs"),
        ("profiles:\n- {name: default, devices: {}}\ninstances:\n- {name: keeps, image: bb, profiles: []}\n", ":4: "),
        ("instances: [\n", ":2: "),
    ],
)  # fmt: skip
def test_faults_name_their_line(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path, text: str, message: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(text)
    saved = apart_lxpyd.json("query", "/1.0/profiles/default")
    result = apart_lxpyd.cli("apply", "-f", str(path), "--yes", check=False)
    assert result.returncode == 1 and f"Error: {path}{message}" in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and "a" not in {one["name"] for one in apart_lxpyd.json("list", "-f", "json")}
    if apart_lxpyd.json("query", "/1.0/profiles/default") != saved:
        apart_lxpyd.api("PUT", "/1.0/profiles/default", saved)


def test_usage(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    for args, word in (
        ([], "missing -f FILE"),
        (["-f", str(tmp_path / "none")], "No such file"),
        (["-f", "-"], "standard input has no name"),
        (["--export", "-f", "x"], "--export reads no file"),
        (["-f", "x", "web"], "only a remote"),
        (["-f", str(tmp_path)], "directory"),
    ):
        result = apart_lxpyd.cli("apply", *args, check=False, input="")
        assert result.returncode == 1 and word in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_another_stack_keeps_its_own(apart_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    lxpyd, path = apart_lxpyd, tmp_path / "x.yaml"
    path.write_text("profiles:\n- name: theirs\n")
    lxpyd.cli("apply", "-f", str(path), "--yes", "--stack", "one")
    result = lxpyd.cli("apply", "-f", str(path), "--yes", "--stack", "two", check=False)
    assert result.returncode == 1 and "belongs to the stack 'one'" in result.stderr
    lxpyd.cli("apply", "-f", "-", "--yes", "--prune", "--stack", "two", input="profiles: []\n")
    assert "theirs" in lxpyd.out("profile", "list")
    lxpyd.cli("apply", "-f", "-", "--yes", "--prune", "--stack", "one", input="profiles: []\n")
    assert "theirs" not in lxpyd.out("profile", "list")


def test_an_export_is_a_file_that_changes_nothing(apart_lxpyd: Lxpyd, file: pathlib.Path) -> None:
    lxpyd = apart_lxpyd
    before = lxpyd.snapshot()
    lxpyd.cli("apply", "-f", str(file), "--yes")
    text = lxpyd.out("apply", "--export")
    assert "volatile" not in text and "user.lxpy.stack" not in text and "shop-web" in text
    assert lxpyd.out("apply", "-f", "-", "--dry-run", "--stack", "shop", input=text).splitlines()[-1] == "Nothing to do"
    _empty(lxpyd, before)
    # And from nothing.
    lxpyd.cli("apply", "-f", "-", "--yes", "--stack", "shop", input=text)
    assert lxpyd.status("shop-web") == "RUNNING" and lxpyd.sh("shop-db", "ls -d /data").stdout == "/data\n"
    _empty(lxpyd, before)


def test_it_goes_on_where_it_was_cut_off(apart_lxpyd: Lxpyd, file: pathlib.Path) -> None:
    """The command, then the daemon, is killed in the middle."""
    lxpyd = apart_lxpyd
    before = lxpyd.snapshot()
    for victim in ("command", "daemon"):
        running = lxpyd.spawn("apply", "-f", str(file), "--yes")
        time.sleep(0.6)
        if victim == "command":
            running.send_signal(signal.SIGKILL)
        else:
            lxpyd.kill()
        said = running.communicate(timeout=30)[1].decode()
        assert "Traceback" not in said
        if victim == "daemon":
            lxpyd.start()
        lxpyd.cli("apply", "-f", str(file), "--yes")
        assert lxpyd.status("shop-web") == lxpyd.status("shop-db") == "RUNNING"
        assert lxpyd.out("apply", "-f", str(file), "--yes") == "Nothing to do"
        _empty(lxpyd, before)
