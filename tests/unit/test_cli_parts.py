"""The parser, the tables and the remotes of the command line."""

import os
import pathlib
import subprocess
import sys

import pytest
import yaml

from lxpy.api.errors import BadRequest
from lxpy.cli import list as list_module
from lxpy.cli import main, render
from lxpy.cli.args import Args, Command, Option, UsageError, parse
from lxpy.cli.create import _type_config
from lxpy.client import remotes, wire, yamltext

COMMAND = Command(
    lambda context, args: 0, "<a>", "Test",
    (Option("-f --force"), Option("-c --config", "K=V", many=True), Option("-t --type", "T", "", "x")), 1, 2,
)  # fmt: skip


def given(*words: str) -> Args:
    return parse(COMMAND, list(words))


def test_options_anywhere_joined_and_apart() -> None:
    args = given("-fca=1", "name", "-c", "b=2", "--config=c=3", "--type", "y")
    assert args.flag("force") and args.values("config") == ["a=1", "b=2", "c=3"]
    assert args.rest == ["name"] and args.value("type") == "y"
    assert given("n").value("type") == "x"


@pytest.mark.parametrize("words", [(), ("a", "b", "c"), ("a", "--typo"), ("a", "-x"), ("a", "-c"), ("a", "--force=3")])
def test_wrong_usage_is_said(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        given(*words)


def test_double_dash_ends_options() -> None:
    assert given("a", "--", "--force").rest == ["a", "--force"]


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    def walk(path: list[str], found: object) -> None:
        assert main.run([*path, "--help"]) == 0
        out = capsys.readouterr().out
        assert "Usage:" in out and "None" not in out, path
        if isinstance(found, dict):
            for name, inner in found.items():
                walk([*path, name], inner)

    for name, (module, _) in main.COMMANDS.items():
        if module:
            commands = __import__(f"lxpy.cli.{module}", fromlist=["COMMANDS"]).COMMANDS
            walk([name], commands[name])


def test_unknown_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="did you mean launch"):
        main.run(["lunch"])
    with pytest.raises(UsageError, match="did you mean"):
        main.run(["image", "exprot"])


def test_table_has_lxd_s_look() -> None:
    text = render.table(["NAME", "IPV4"], [["c1", "10.0.0.1 (eth0)\n10.0.0.2 (eth1)"], ["longer-name", ""]])
    assert text == (
        "+-------------+-----------------+\n"
        "|    NAME     |      IPV4       |\n"
        "+-------------+-----------------+\n"
        "| c1          | 10.0.0.1 (eth0) |\n"
        "|             | 10.0.0.2 (eth1) |\n"
        "+-------------+-----------------+\n"
        "| longer-name |                 |\n"
        "+-------------+-----------------+\n"
    )


def test_other_formats() -> None:
    assert render.csv([["a", 'say "x"', "1,2", ""]]) == 'a,"say ""x""","1,2",\n'
    assert render.yaml({"b": "1", "a": "x\ny\n", "c": ""}) == "b: '1'\na: |\n  x\n  y\nc: ''\n"
    assert render.date("2026-11-23T21:18:00.1Z") == "2026/11/23 21:18 UTC"
    assert render.date("0001-01-01T00:00:00Z") == ""
    assert [render.size(n) for n in (0, 1023, 1536, 3 << 30)] == ["0B", "1023B", "1.50KiB", "3.00GiB"]


INSTANCE = {
    "name": "web1", "project": "default", "status": "Running", "status_code": 103, "type": "container",
    "ephemeral": True, "architecture": "x86_64", "location": "none",
    "expanded_config": {"user.role": "front", "volatile.base_image": "ab" * 32},
    "expanded_devices": {"eth0": {"type": "nic", "parent": "br0"}},
    "state": {"network": {
        "eth0": {"addresses": [{"family": "inet", "address": "10.1.2.3", "netmask": "24", "scope": "global"},
                               {"family": "inet6", "address": "fe80::1", "netmask": "64", "scope": "link"}]},
        "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}]},
    }},
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "wanted"),
    [("we", True), ("eb", False), ("^w.*1$", True), ("user.role=front", True), ("u.r=front", True), ("u.r=f.*", True),
     ("user.role=back", False), ("status=running,stopped", True), ("type=container", True), ("ipv4=10.1.0.0/16", True),
     ("ipv4=10.2.0.0/16", False), ("architecture=aarch64", False)],
)  # fmt: skip
def test_list_filters(word: str, wanted: bool) -> None:
    assert list_module.matches([word], INSTANCE) is wanted


def test_list_columns() -> None:
    columns, needs = list_module.parse_columns("ns46tf,user.role:ROLE:3,devices:eth0.parent")
    assert [title for title, _ in columns] == [
        "NAME", "STATE", "IPV4", "IPV6", "TYPE", "BASE IMAGE", "ROLE", "ETH0.PARENT",
    ]  # fmt: skip
    values = [value(INSTANCE) for _, value in columns]
    assert values == ["web1", "RUNNING", "10.1.2.3 (eth0)", "", "CONTAINER (EPHEMERAL)", "ab" * 6, "fro", "br0"]
    assert needs == {"state.network"}
    with pytest.raises(UsageError):
        list_module.parse_columns("n?")


def test_instance_types() -> None:
    assert _type_config("c2-m4") == {"limits.cpu": "2", "limits.memory": "4096MiB"}
    with pytest.raises(UsageError):
        _type_config("t2.micro")


def test_remotes_round_trip(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LXPY_CONF", str(tmp_path / "new"))
    assert remotes.parse_ref("images:alpine/3.20")[1] == "alpine/3.20"
    assert remotes.parse_ref("c1")[0].name == "local"
    assert main.run(["remote", "set-url", "images", "http://127.0.0.1:9/"]) == 0
    assert main.run(["remote", "add", "mine", "https://example.invalid", "--protocol=simplestreams"]) == 0
    assert remotes.load().get("images").url == "http://127.0.0.1:9"
    assert main.run(["remote", "remove", "images"]) == 0
    assert sorted(remotes.load().remotes) == ["builtin", "local", "mine", "ubuntu", "ubuntu-daily"]
    (tmp_path / "new" / "remotes.json").write_text("{")
    with pytest.raises(BadRequest):
        remotes.load()


def test_wire_is_json() -> None:
    import json

    value = {"a": [1, 2.5, None, True, 'é\n"'], "b": {}}
    assert wire.loads(json.dumps(value)) == value and json.loads(wire.dumps(value)) == value
    for bad in ("", "{", "nope"):
        with pytest.raises(ValueError):
            wire.loads(bad)
    assert wire.quote("a b/ü") == "a%20b%2F%C3%BC"


def test_a_closed_pipe_is_quiet() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "lxpy.cli.main", "remote", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    assert child.stderr.read() == b""
    child.stderr.close()
    assert child.wait(30) in (0, 141)


def test_a_configuration_is_the_text_that_was_written() -> None:
    found = yamltext.load(
        "config: {a: 0755, b: 1.10, c: yes, d: 2026-01-01, e: null, f: , 1: 0x1f, g: '1'}\n"
        "devices: {root: {size: 10, boot.priority: 010}}\nephemeral: true\ncreated_at: 2026-01-01\nlimit: 010\n"
        "list: [{config: {a: &x 1_000}, b: 2}]\nagain: *x\n"
    )
    assert found["config"] == {"a": "0755", "b": "1.10", "c": "yes", "d": "2026-01-01", "e": None, "f": None,
                               "1": "0x1f", "g": "1"}  # fmt: skip
    assert found["devices"] == {"root": {"size": "10", "boot.priority": "010"}}
    assert found["ephemeral"] is True and found["created_at"] == "2026-01-01" and found["limit"] == 8
    assert found["list"] == [{"config": {"a": "1_000"}, "b": 2}] and found["again"] == "1_000"
    assert yamltext.load("# nothing\n") is None
    assert yamltext.load("config: {<<: {a: 1}, b: 2}")["config"] == {"a": "1", "b": "2"}
    for wrong in ("a: [", "a: 1\n---\nb: 2", "&a [*a, {b"):
        with pytest.raises(yaml.YAMLError):
            yamltext.load(wrong)
    assert yamltext.load("&a [*a]")
