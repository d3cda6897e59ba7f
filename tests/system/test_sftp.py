"""SFTP with the files of instances: OpenSSH's client, sshfs; straight, over the Unix socket's HTTP and over TLS."""

import os
import pathlib
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator

import pytest

from tests.support.daemon import BIN, Lxpyd, until

WAYS = ["descriptors", "http", "tls"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, lxpyd: Lxpyd) -> Iterator[tuple[str, dict[str, str]]]:
    """A prefix for instances' names, and what has to be in the environment."""
    if request.param == "tls":
        address = f"127.0.0.1:{19450 + lxpyd.number}"
        lxpyd.cli("config", "set", f"core.https_address={address}", "core.trust_password=sesame")
        lxpyd.cli("remote", "add", "far", f"https://{address}", "--accept-certificate", "--password", "sesame")
        yield "far:", {}
        lxpyd.cli("remote", "remove", "far")
        lxpyd.cli("config", "trust", "remove", lxpyd.out("config", "trust", "list", "-f", "csv").split(",")[3])
        lxpyd.cli("config", "unset", "core.https_address")
        lxpyd.cli("config", "unset", "core.trust_password")
    else:
        yield "", {} if request.param == "descriptors" else {"LXPY_SOCKET": lxpyd.layout.socket}


def _sftp(lxpyd: Lxpyd, name: str, batch: str, **environment: str) -> subprocess.CompletedProcess[str]:
    checkout = pathlib.Path(__file__).parents[2]
    path = f"{checkout}:{sysconfig.get_path('purelib')}"
    return subprocess.run(
        ["sftp", "-b", "-", "-D", f"{sys.executable} -m tests.support.sftp_pipe {name}"],
        env={**lxpyd.environment, "PYTHONPATH": path, **environment},
        input=batch, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_openssh_client(
    lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, way: tuple[str, dict[str, str]], state: str
) -> None:
    if state == "stopped":
        lxpyd.cli("stop", "-f", busybox)
    prefix, environment = way
    big = tmp_path / "big"
    big.write_bytes(os.urandom(3_000_001))
    big.chmod(0o640)
    batch = f"""\
pwd
mkdir /srv
mkdir /srv/new
put -p {big} /srv/new/big
put {big} /srv/new/other
rename /srv/new/other /srv/new/moved
symlink big /srv/new/link
ln /srv/new/moved /srv/new/second
chmod 600 /srv/new/moved
chown 12 /srv/new/moved
chgrp 34 /srv/new/moved
ls -la /srv/new
ls /
df /srv
get /srv/new/link {tmp_path}/back
rm /srv/new/second
mkdir /srv/new/dir
rmdir /srv/new/dir
cd /srv/new
pwd
"""
    result = _sftp(lxpyd, prefix + busybox, batch, **environment)
    assert result.returncode == 0, result
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    lines = result.stdout.splitlines()
    assert "Remote working directory: /" in lines
    assert "Remote working directory: /srv/new" in lines
    assert any(line.startswith("lrwxrwxrwx") and line.endswith("link") for line in lines)
    for line, why in (
        ("get /none x", "not found"), ("rm /etc", ""), ("rmdir /etc", ""), ("mkdir /etc", ""),
        ("rename -l /srv/new/moved /etc/passwd", ""), ("cd /none", "No such file"), ("get /dev/null x", ""),
    ):  # fmt: skip
        refused = _sftp(lxpyd, prefix + busybox, f"{line}\n", **environment)
        assert refused.returncode == 1, (line, refused)
        assert why in refused.stderr
    if state == "stopped":
        lxpyd.cli("start", busybox)
    shown = lxpyd.sh(busybox, "cd /srv/new; stat -c '%n %a %u %g %h' big moved; ls; readlink link").stdout
    assert shown == "big 640 0 0 1\nmoved 600 12 34 1\nbig\nlink\nmoved\nbig\n"


def test_sshfs(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, way: tuple[str, dict[str, str]]) -> None:
    prefix, environment = way
    point = tmp_path / "mnt"
    point.mkdir()
    lxpyd.sh(busybox, "mkdir -p /srv/shown; echo inside > /srv/shown/file")
    command = ["file", "mount", f"{prefix}{busybox}/srv/shown", str(point)]
    environment = {**lxpyd.environment, **environment}
    process = subprocess.Popen(
        [str(BIN / "lxpy"), *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until(lambda: os.path.ismount(point) or process.poll() is not None, 20, "not mounted")
        assert process.poll() is None, process.communicate()
        assert (point / "file").read_text() == "inside\n"
        (point / "made").write_bytes(b"x" * 300_000)
        (point / "made").rename(point / "moved")
        (point / "link").symlink_to("file")
        assert sorted(path.name for path in point.iterdir()) == ["file", "link", "moved"]
        assert lxpyd.sh(busybox, "wc -c < /srv/shown/moved").stdout == "300000\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        until(lambda: not os.path.ismount(point), 10, "still mounted")
    finally:
        subprocess.run(["umount", "-l", point], check=False, stderr=subprocess.DEVNULL)
        if process.poll() is None:
            process.kill()
        for pipe in (process.stdout, process.stderr):
            assert pipe
            pipe.close()


def _log_in(port: str, user: str, password: str, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    answer = folder / "answer"
    answer.write_text(f"#!/bin/sh\necho '{password}'\n")
    answer.chmod(0o755)
    # A batch by option -b would forbid passwords: the commands are typed instead.
    options = [
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "NumberOfPasswordPrompts=1",
        "LogLevel=ERROR",
    ]
    return subprocess.run(
        ["sftp", *(word for option in options for word in ("-o", option)), "-P", port, f"{user}@127.0.0.1"],
        env={**os.environ, "SSH_ASKPASS": str(answer), "SSH_ASKPASS_REQUIRE": "force"},
        input=f"put {folder}/note /root/note\nls /root\n",
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("auth", ["password", "none"])
def test_served_over_ssh(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, auth: str) -> None:
    (tmp_path / "note").write_text("by ssh")
    options = ["--auth-user", "eve"] if auth == "password" else ["--no-auth"]
    server = lxpyd.spawn("file", "mount", busybox, "--listen", "127.0.0.1:0", *options)
    assert server.stdout
    try:
        port = server.stdout.readline().decode().strip().rpartition(":")[2]
        said = server.stdout.readline().decode()
        if auth == "password":
            password = said.split("'")[-2]
            assert _log_in(port, "eve", "wrong", tmp_path).returncode
            assert _log_in(port, "mallory", password, tmp_path).returncode
            assert lxpyd.sh(busybox, "ls /root").stdout == ""
        else:
            password = "any"
            assert said.startswith("Everybody")
        result = _log_in(port, "eve", password, tmp_path)
        assert result.returncode == 0, result
        assert lxpyd.sh(busybox, "cat /root/note").stdout == "by ssh"
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate()


def test_a_path_is_not_served_over_ssh(lxpyd: Lxpyd, busybox: str) -> None:
    refused = lxpyd.cli("file", "mount", f"{busybox}/root", "--no-auth", check=False)
    assert refused.returncode == 1 and "the whole instance is served" in refused.stderr and not refused.stdout


def test_ssh_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lxpy.api.errors import ApiError
    from lxpy.client import sshd

    monkeypatch.setattr(sshd, "available", lambda: False)
    with pytest.raises(ApiError, match="pip install asyncssh"):
        sshd.serve(lambda: pytest.fail("asked"), "127.0.0.1", 0, "u", "p", print)
