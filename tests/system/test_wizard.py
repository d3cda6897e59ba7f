"""``lxpy init`` with questions. The one about the host's limits gets a no: they are the machine's, not the tests'."""

import re
import signal
import time

import pytest
import yaml

from lxpy.host import sysctls
from tests.support.daemon import Lxpyd

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
    assert 'The answers ended at the question "Would you like' in result.stderr
    assert daemon.snapshot() == before


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
        if b"lxpy is ready" in out:
            break
        assert daemon.snapshot() == before, (n, out, err)
