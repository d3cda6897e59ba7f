"""list and info: LXD's table, columns, filters and formats."""

import csv
import io
import json
import pathlib
import subprocess
import sys
import time

import pytest
import yaml

from tests.support.daemon import Lxpyd, until


@pytest.fixture(scope="module")
def pair(lxpyd: Lxpyd) -> tuple[str, str]:
    """A running and a stopped container of this module."""
    lxpyd.cli("launch", "bb", "la", "-c", "user.team=red")
    lxpyd.cli("create", "bb", "lb", "-e")
    lxpyd.wait_address("la")
    return "la", "lb"


def test_the_table_is_lxds(lxpyd: Lxpyd, pair: tuple[str, str]) -> None:
    lines = lxpyd.out("list", "^l[ab]$").splitlines()
    heads = [head.strip() for head in lines[1].strip("|").split("|")]
    assert heads == ["NAME", "STATE", "IPV4", "IPV6", "TYPE", "SNAPSHOTS"]
    assert set(lines[0]) == {"+", "-"}
    rows = {
        row[0]: row for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line)
    }
    assert rows["la"][1] == "RUNNING" and rows["la"][2].endswith("(eth0)") and rows["la"][4:] == ["CONTAINER", "0"]
    assert rows["lb"][1:5] == ["STOPPED", "", "", "CONTAINER (EPHEMERAL)"]


def test_formats(lxpyd: Lxpyd, pair: tuple[str, str]) -> None:
    by_json = json.loads(lxpyd.out("list", "^l[ab]$", "-f", "json"))
    assert [i["name"] for i in by_json] == ["la", "lb"]
    assert {"architecture", "config", "devices", "expanded_config", "state", "snapshots", "type"} <= set(by_json[0])
    by_yaml = yaml.safe_load(lxpyd.out("list", "^l[ab]$", "-f", "yaml"))
    assert [i["name"] for i in by_yaml] == ["la", "lb"]
    rows = list(csv.reader(io.StringIO(lxpyd.out("list", "^l[ab]$", "-f", "csv"))))
    assert [row[:2] for row in rows] == [["la", "RUNNING"], ["lb", "STOPPED"]]
    compact = lxpyd.out("list", "^l[ab]$", "-f", "compact").splitlines()
    assert compact[0].split()[:2] == ["NAME", "STATE"] and len(compact) == 3
    assert lxpyd.cli("list", "-f", "nonsense", check=False).returncode == 1


def test_columns(lxpyd: Lxpyd, pair: tuple[str, str]) -> None:
    assert lxpyd.out("list", "^la$", "-c", "ns", "-f", "csv") == "la,RUNNING"
    address = lxpyd.wait_address("la")
    assert address in lxpyd.out("list", "la", "-c", "4", "-f", "csv")
    text = lxpyd.out("list", "^la$", "-c", "nPb,user.team", "-f", "csv", check=False)
    assert text.split(",")[:2] == ["la", "default"]
    pid = lxpyd.init_pid("la")
    assert lxpyd.out("list", "^la$", "-c", "p", "-f", "csv") == str(pid)
    assert lxpyd.cli("list", "-c", "!", check=False).returncode == 1


def test_filters(lxpyd: Lxpyd, pair: tuple[str, str]) -> None:
    def names(*filters: str) -> list[str]:
        return lxpyd.out("list", *filters, "-c", "n", "-f", "csv").split()

    assert names("la") == ["la"]
    assert set(names("l")) >= {"la", "lb"}
    assert names("status=stopped", "^l[ab]$") == ["lb"]
    assert names("user.team=red") == ["la"]
    assert names("^nothing$") == []


def test_the_address_is_listed_soon_after_the_lease(lxpyd: Lxpyd, name: str) -> None:
    """Within a quarter of a second of the lease; here the time of two lists on top. Where the machine is busy now and
    then, the best of five says what we need."""
    took = []
    while len(took) < 5 and min(took, default=1) >= 0.75:
        one = f"{name}-{len(took)}"
        lxpyd.cli("launch", "bb", one)
        until(lambda one=one: one in lxpyd.out("network", "list-leases", lxpyd.bridge), 10, "no lease", every=0.01)  # type: ignore[misc]
        begun = time.monotonic()
        lxpyd.wait_address(one)
        took.append(time.monotonic() - begun)
    assert min(took) < 0.75, took


def test_info(lxpyd: Lxpyd, pair: tuple[str, str]) -> None:
    info = lxpyd.out("info", "la")
    for wanted in ("Name: la", "Status: RUNNING", "PID: ", "eth0", lxpyd.wait_address("la"), "Memory", "Processes"):
        assert wanted in info, info
    assert "Status: STOPPED" in lxpyd.out("info", "lb")
    server = lxpyd.out("info")
    assert "api_extensions" in server and "kernel_features" in server


# Each costs 2 to 40 ms of a command that has 90.
_HEAVY = set(
    "enum socket argparse typing dataclasses asyncio subprocess threading http yaml rich signal selectors datetime "
    "importlib logging ssl tempfile shutil urllib inspect textual".split()
)


@pytest.mark.parametrize("words", [["list"], ["list", "-c", "ns4t", "-f", "csv"], ["--version"], ["project", "list"]])
def test_a_list_imports_next_to_nothing(lxpyd: Lxpyd, words: list[str]) -> None:
    code = (
        f"import sys; sys.path.append({str(pathlib.Path(__file__).parents[2])!r}); sys.argv = ['lxpy', *{words!r}]\n"
        "from lxpy.cli.main import main\nassert main() == 0\nprint(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-ISc", code], env=lxpyd.environment, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "lxpy.cli.main" in loaded and not _HEAVY & loaded
