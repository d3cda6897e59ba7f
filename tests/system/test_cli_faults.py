"""What a new user does wrong, closed descriptors, full disks, HTTPS remotes and served images."""

import signal
import subprocess

import pytest

from tests.support.daemon import BIN, Lxpyd


@pytest.mark.parametrize(
    "words",
    [
        ["create"], ["--project"], ["query", "-d", "{", "/1.0"], ["query", "-d", "{} x", "/1.0"], ["tui"],
        ["query", "-X", "FROB", "/1.0"], ["image", "info", "nope"], ["console", "nope"], ["list", "--frob"],
        ["config", "trust", "add", "/etc/passwd"], ["image", "serve", "--port", "99999"],
        ["config", "set", "nope", "user.a=1"], ["config", "set", "core.foo=1"], ["config", "unset", "user.nope"],
        ["config", "device", "add", "nope", "d", "disk"], ["config", "device", "override", "nope", "d"],
        ["profile", "create", "a/b"], ["profile", "delete", "default"], ["profile", "rename", "default", "x"],
        ["profile", "copy", "nope", "x"], ["profile", "assign", "nope", "default"], ["profile", "sett", "default"],
        ["profile", "device", "get", "default", "nope", "mtu"], ["profile", "set", "default", "limits.memry=1GiB"],
        ["profile", "device", "set", "default", "root", "pol=x"],
        ["profile", "copy", "default", "x", "--target-project=n"],
        ["project", "create", "a_b"], ["project", "delete", "default"], ["project", "switch", "nope"],
        ["project", "info", "nope"], ["project", "set", "default", "limits.memory=lots"], ["project", "renam"],
        ["project", "unset", "nope", "x"], ["list", "--project", "nope"], ["config", "show", "x:"],
        ["remote", "add", "x", "nonsense://y"], ["remote", "add", "x", "ftp://y", "--protocol", "simplestreams"],
    ],
)  # fmt: skip
def test_a_fault_is_one_line(lxpyd: Lxpyd, words: list[str]) -> None:
    failed = lxpyd.cli(*words, check=False)
    assert failed.returncode == 1 and failed.stdout == ""
    assert failed.stderr.startswith("Error: ") and failed.stderr.count("\n") == 1 and "unexpected" not in failed.stderr


@pytest.mark.parametrize("redirect", [">/dev/full", ">&-"])
@pytest.mark.parametrize("inside", [False, True])
def test_output_that_cannot_be_written_is_a_fault(lxpyd: Lxpyd, busybox: str, redirect: str, inside: bool) -> None:
    command = f"exec {busybox} -n -- echo a" if inside else "list"
    failed = subprocess.run(
        ["sh", "-c", f"{BIN}/lxpy {command} {redirect}"], env=lxpyd.environment, capture_output=True, check=False
    )
    assert failed.returncode == 1
    assert failed.stderr.startswith(b"Error: ") and failed.stderr.count(b"\n") == 1


def test_https_remote(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.cli("config", "set", "core.https_address", "127.0.0.1:19443")
    lxpyd.cli("config", "set", "core.trust_password", "sesame")
    address = ["remote", "add", "far", "https://127.0.0.1:19443", "--accept-certificate", "--password"]
    assert lxpyd.cli(*address, "wrong", check=False).returncode == 1
    lxpyd.cli(*address, "sesame")
    assert busybox in lxpyd.out("list", "far:", "-c", "n", "-f", "csv").splitlines()
    said = lxpyd.cli("exec", f"far:{busybox}", "--", "sh", "-c", "cat; exit 4", input="data", check=False)
    assert (said.stdout, said.returncode) == ("data", 4)
    fingerprint = lxpyd.out("config", "trust", "list", "-f", "csv").split(",")[3]
    lxpyd.cli("config", "trust", "remove", fingerprint)
    lxpyd.cli("remote", "remove", "far")
    lxpyd.cli("config", "unset", "core.https_address")


def test_served_images_can_be_launched(lxpyd: Lxpyd, name: str) -> None:
    server = lxpyd.spawn("image", "serve", "--address", "127.0.0.1", "--port", "0")
    assert server.stdout is not None
    url = server.stdout.readline().decode().split()[-1]
    lxpyd.cli("remote", "add", "served", url, "--protocol", "simplestreams")
    assert lxpyd.out("image", "list", "served:", "bb", "-c", "l", "-f", "csv") == "bb"
    lxpyd.cli("launch", "served:bb", name)
    lxpyd.cli("remote", "remove", "served")
    server.send_signal(signal.SIGINT)
    _, said = server.communicate(timeout=20)
    assert (server.returncode, said) == (0, b"")
    assert "Serving images,RUNNING" not in lxpyd.out("operation", "list", "-f", "csv")
