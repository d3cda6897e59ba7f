"""``lxpy init`` with questions. The one about the host's limits gets a no: they are the machine's, not the tests'."""

import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import time
from typing import Any

import pytest
import yaml

from lxpy.host import sysctls
from tests.support.daemon import Lxpyd, until

# One answer per question when the pool is overlay and the subnets are given.
_ANSWERS = (
    "yes", "p1", "overlay", "none", "no", "yes", "{bridge}", "10.97.{number}.1/24", "yes", "none", "yes", "no", "no",
)  # fmt: skip


def _answers(daemon: Lxpyd, *changes: str) -> list[str]:
    """The answers; `changes` are put before the answer with that number ("5:text"), as somebody who is corrected."""
    answers = [one.format(bridge=daemon.bridge, number=daemon.number) for one in _ANSWERS]
    if not any(one.low for one in sysctls.found()):
        del answers[-2]  # it is not asked where nothing is low
    for change in changes:
        number, _, text = change.partition(":")
        answers[int(number)] = text + "\n" + answers[int(number)]
    return answers


def _text(answers: list[str]) -> str:
    return "\n".join(answers) + "\n"


def test_answers_become_a_set_up(bare_lxpyd: Lxpyd) -> None:
    daemon = bare_lxpyd
    said = daemon.out("init", input=_text([*_answers(daemon)[:-1], "yes"]))
    assert "[default=yes]" in said and "overlay" in said and "lxpy launch builtin:busybox" in said
    pools = daemon.json("query", "/1.0/storage-pools?recursion=1")
    assert [(one["name"], one["driver"]) for one in pools] == [("p1", "overlay")]
    network = daemon.json("query", f"/1.0/networks/{daemon.bridge}")
    assert network["config"]["ipv4.address"] == f"10.97.{daemon.number}.1/24"
    assert network["config"]["ipv4.nat"] == "true" and network["config"]["ipv6.address"] == "none"
    devices = daemon.json("query", "/1.0/profiles/default")["devices"]
    assert devices == {
        "root": {"type": "disk", "path": "/", "pool": "p1"},
        "eth0": {"type": "nic", "name": "eth0", "network": daemon.bridge},
    }
    # What it printed makes the same again, and changes nothing here.
    before = daemon.snapshot()
    printed = re.search(r"^config:.*?(?=^\n|\nlxpy is ready)", said, re.MULTILINE | re.DOTALL)
    assert printed is not None
    assert yaml.safe_load(printed[0])["storage_pools"] == [{"name": "p1", "driver": "overlay", "config": {}}]
    daemon.cli("init", "--preseed", input=printed[0])
    assert daemon.snapshot() == before
    # A second run says what is there and by itself adds nothing.
    again = daemon.out("init", input=_text([*[""] * 4, *_answers(daemon)[11:]]))
    assert "set up already (storage pool p1, network" in again
    assert daemon.snapshot() == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("0:?", "A storage pool holds the file systems"),
        ("0:maybe", "'maybe' is neither yes nor no"),
        ("1:../x", "Invalid storage pool name '../x'"),
        ("2:zfs", "'zfs' is none of overlay"),
        ("3:relative", "'relative' is no absolute path"),
        ("3:/no/such", "There is no directory /no/such"),
        ("3:/usr", "/usr is not empty"),
        ("2:btrfs\nyes\n/dev/null\n/etc/passwd\n/no/such", "/dev/null is no block device"),
        ("6:lo", "An interface 'lo' exists already"),
        ("6:a b", "'a b' is no interface name"),
        ("7:10.97.3.0/24", "is not the bridge's own IPv4 address"),
        ("7:10.97.3.1", "is not the bridge's own IPv4 address"),
        ("7:fd42::1/64", "is not the bridge's own IPv4 address"),
        ("9:nonsense", "is no address with prefix"),
    ],
)
def test_wrong_answers_are_asked_again(bare_lxpyd: Lxpyd, change: str, said: str) -> None:
    daemon = bare_lxpyd
    before = daemon.snapshot()
    # It ends at the last question: what was wrong before it has been put right.
    result = daemon.cli("init", input=_text(_answers(daemon, change)[:-2]), check=False)
    assert result.returncode == 1 and said in result.stdout, result.stdout
    assert re.search('The answers ended at the question "[^:]+": nothing was changed', result.stderr), result.stderr
    assert daemon.snapshot() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--auto --minimal", "Can't use --auto and --minimal together"),
        ("--storage-backend dir", "--storage-backend goes with --auto or --minimal only"),
        ("--dump --storage-pool p", "--storage-pool goes with --auto"),
        ("--auto --network-port 9000", "--network-port needs --network-address"),
        ("--auto --trust-password x", "--trust-password needs --network-address"),
        ("--auto --network-address all --network-port 99999", "99999 is no port"),
        ("--auto --storage-create-loop 1 --storage-create-device /dev/x", "give one"),
        ("--auto --storage-backend overlay --storage-create-loop 1", "is for --storage-backend btrfs"),
        ("--minimal --storage-create-loop 0", "at least 1 GiB"),
        ("--auto --storage-create-loop x", "takes a number, not 'x'"),
        ("--auto --storage-create-device /no/such", "Invalid source '/no/such'"),
        ("--auto --storage-backend zfs", "'zfs' is not supported yet"),
        ("--auto --storage-backend dir", "default is there already, with the driver overlay"),
        ("--auto p.yaml", "too many arguments: p.yaml"),
        ("--preseed /no/such.yaml", "/no/such.yaml: No such file"),
    ],
)
def test_flags_that_do_not_go_together(lxpyd: Lxpyd, words: str, said: str) -> None:
    if "create-device /no/such" in words or "zfs" in words:
        words += " --storage-pool another"
    before = lxpyd.snapshot()
    result = lxpyd.cli("init", *words.split(), check=False)
    assert result.returncode == 1 and said in result.stderr and result.stderr.count("\n") == 1, result
    assert lxpyd.snapshot() == before


def test_auto_with_every_flag(bare_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """And what it made comes back whole from its dump, with a project's profiles; by a file, as by standard input."""
    daemon = bare_lxpyd
    port = f"1970{daemon.number % 10}"
    daemon.cli("init", "--auto", *"--storage-create-loop 1 --storage-pool fast --trust-password sesame".split(),
               "--network-address", "127.0.0.1", "--network-port", port)  # fmt: skip
    assert daemon.json("query", "/1.0/storage-pools/fast")["driver"] == "btrfs"
    config = daemon.json("query", "/1.0")["config"]
    assert config["core.https_address"] == f"127.0.0.1:{port}" and config["core.trust_password"]
    made = daemon.json("query", "/1.0/profiles/default")["devices"]
    assert made["root"]["pool"] == "fast" and made["eth0"]["network"].startswith("lxpybr")
    daemon.cli("project", "create", "shop")
    daemon.cli("profile", "create", "web", "--project", "shop")
    daemon.cli("profile", "set", "web", "limits.cpu=1", "--project", "shop")
    dump = daemon.out("init", "--dump")
    again = daemon.cli("init", "--auto", "--storage-create-loop", "1", "--storage-pool", "fast", check=False)
    assert again.returncode == 1 and "fast is there already" in again.stderr
    daemon.cli("init", "--minimal")  # all is there
    assert daemon.out("init", "--dump") == dump
    file = tmp_path / "p.yaml"
    file.write_text(dump)
    daemon.cli("init", "--preseed", str(file))
    assert daemon.out("init", "--dump") == dump
    # On an empty server it makes the same.
    daemon.cli("profile", "delete", "web", "--project", "shop")
    daemon.cli("project", "delete", "shop")
    daemon.api("PUT", "/1.0/profiles/default", {"config": {}, "devices": {}, "description": "Default lxpy profile"})
    daemon.cli("network", "delete", made["eth0"]["network"])
    daemon.cli("storage", "delete", "fast")
    daemon.api("PUT", "/1.0", {"config": {}})
    daemon.cli("init", "--preseed", str(file))
    assert daemon.out("init", "--dump") == dump
    daemon.cli("project", "delete", "shop", check=False)
    daemon.cli("profile", "delete", "web", "--project", "shop")
    daemon.cli("project", "delete", "shop")


def test_ctrl_c_at_every_question(bare_lxpyd: Lxpyd) -> None:
    daemon = bare_lxpyd
    before = daemon.snapshot()
    for count in range(len(_answers(daemon))):
        process = daemon.spawn("init")
        assert process.stdin is not None
        process.stdin.write(_text(_answers(daemon)[:count]).encode() if count else b"")
        process.stdin.flush()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        assert process.returncode in (130, -signal.SIGINT) and b"Traceback" not in err, err.decode()
    assert daemon.snapshot() == before


def test_all_or_nothing(bare_lxpyd: Lxpyd) -> None:
    """A port that is taken, an address of the host: the last step fails, the first ones are taken back."""
    daemon = bare_lxpyd
    before = daemon.snapshot()
    answers = _answers(daemon)
    answers[7] = "127.0.0.5/8"
    result = daemon.cli("init", input=_text(answers), check=False)
    assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, result.stderr
    assert daemon.snapshot() == before
    # Ctrl-C while it is applied.
    for n in range(6):
        process = daemon.spawn("init")
        assert process.stdin is not None
        process.stdin.write(_text(_answers(daemon)).encode())
        process.stdin.flush()
        time.sleep(0.08 + 0.03 * n)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert b"Traceback" not in err
        if b"lxpy is ready" in out or b"it was done already" in err:
            break
        assert daemon.snapshot() == before, (n, out, err)


def _preseed(daemon: Lxpyd) -> str:
    return f"""\
config: {{user.x: y, core.trust_password: sesame}}
storage_pools: [{{name: p1, driver: overlay}}, {{name: p2, driver: dir}}]
networks:
- {{name: {daemon.bridge}, type: bridge, config: {{ipv4.address: 10.97.{daemon.number}.1/24, ipv6.address: none}}}}
projects: [{{name: pr, config: {{features.images: false}}}}]
profiles:
- {{name: default, devices: {{root: {{type: disk, path: /, pool: p1}}}}}}
- {{name: more, description: 2024-01-02, config: {{limits.cpu: 1}}}}
"""


@pytest.mark.parametrize("killed", ["client", "daemon", "stopped"])
def test_whoever_is_killed_meanwhile(bare_lxpyd: Lxpyd, killed: str) -> None:
    """Without the client the daemon goes on; a daemon that ends takes half a set-up back when it starts again."""
    daemon = bare_lxpyd
    daemon.cli("config", "set", "core.trust_password=before")
    hashed, journal = _hash(daemon), daemon.dir / "setup.json"
    before = _state(daemon)
    done = False
    for n in range(12):
        process = daemon.spawn("init", "--preseed")
        assert process.stdin is not None
        process.stdin.write(_preseed(daemon).encode())
        process.stdin.close()
        process.stdin = None
        time.sleep(0.05 * 1.4**n)
        if killed == "client":
            process.kill()
        else:
            daemon.kill(signal.SIGKILL if killed == "daemon" else signal.SIGTERM)
            daemon.start()
        process.communicate(timeout=20)
        until(lambda: not journal.exists() and not _running(daemon), 15, "the set-up does not end")
        after = _state(daemon)
        if after == before:
            assert _hash(daemon) == hashed
            continue
        assert {one["name"] for one in after["profiles"]} == {"default", "more"}, (n, after)
        assert [one["name"] for one in after["pools"]] == ["p1", "p2"] and _hash(daemon) != hashed
        done = True
        break
    assert done, "it never came to its end"
    daemon.cli("init", "--preseed", input=_preseed(daemon))
    daemon.api("DELETE", "/1.0/projects/pr")


def _running(daemon: Lxpyd) -> bool:
    groups = json.loads(daemon.out("query", "/1.0/operations?recursion=1") or "{}")
    return any(one["description"] == "Setting up the server" for one in groups.get("running") or [])


def _hash(daemon: Lxpyd) -> str:
    with contextlib.closing(sqlite3.connect(daemon.layout.database)) as database:
        return str(database.execute("SELECT value FROM server_config WHERE key = 'core.trust_password'").fetchone()[0])


def _state(daemon: Lxpyd) -> dict[str, Any]:
    return {**daemon.snapshot(), "projects": daemon.json("query", "/1.0/projects"),
            "config": daemon.json("query", "/1.0")["config"]}  # fmt: skip


def test_a_failed_set_up_gives_the_answers_back(bare_lxpyd: Lxpyd) -> None:
    daemon = bare_lxpyd
    answers = _answers(daemon)
    answers[7] = "127.0.0.5/8"
    result = daemon.cli("init", input=_text(answers), check=False)
    assert result.returncode == 1
    printed = re.search(r"^config:.*", result.stdout, re.MULTILINE | re.DOTALL)
    assert printed is not None and "Nothing was changed." in result.stdout
    daemon.cli("init", "--preseed", input=printed[0].replace("127.0.0.5/8", f"10.97.{daemon.number}.1/24"))
    assert daemon.json("query", "/1.0/storage-pools") == ["/1.0/storage-pools/p1"]


def test_limits_are_taken_back(tmp_path: pathlib.Path) -> None:
    """With a limit of this network namespace alone, as the others are the machine's."""
    table = (sysctls.Sysctl("net.ipv4.ip_unprivileged_port_start", 1100, "a limit of the test's own"),)
    conf = tmp_path / "sysctl.d/60.conf"
    for earlier in (None, "# of an earlier one\n"):
        if earlier is not None:
            conf.write_text(earlier)
        before = sysctls.state(table, str(conf))
        assert before == {"values": {table[0].name: 1024}, "conf": earlier}
        assert [one.after for one in sysctls.raise_low(table, str(conf))] == [1100]
        assert sysctls.read(table[0].name) == 1100 and conf.exists()
        sysctls.restore(before, table, str(conf))
        assert sysctls.read(table[0].name) == 1024
        assert (conf.read_text() if conf.exists() else None) == earlier


def test_on_a_terminal_a_failed_set_up_asks_again(bare_lxpyd: Lxpyd) -> None:
    """With the answers given before as the defaults: Enter keeps them, the wrong one is put right."""
    daemon = bare_lxpyd
    answers = _answers(daemon)
    again = [""] * len(answers)
    again[7] = answers[7]
    answers[7] = "127.0.0.5/8"
    master, slave = os.openpty()
    process = daemon.spawn("init", stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    said = b""
    for answer in [*answers, *again]:
        seen = len(said)
        while b"]: " not in said[seen:]:
            said += os.read(master, 65536)
        os.write(master, answer.encode() + b"\n")
    while b"lxpy is ready" not in said:
        said += os.read(master, 65536)
    assert process.wait(20) == 0
    os.close(master)
    text = said.decode()
    assert text.count("Nothing was changed. Change the answers") == 1 and "[default=127.0.0.5/8]" in text
    assert f"[default={daemon.bridge}]" in text
    assert daemon.json("query", f"/1.0/networks/{daemon.bridge}")["config"]["ipv4.address"] == again[7]
