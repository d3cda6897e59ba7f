"""Changes of an instance that cannot be made: said at once and plainly, with no operation begun; and in the editor."""

import http.client
import json
import os
import pty
import socket
import stat
import subprocess
from typing import Any

import pytest

from tests.support.daemon import BIN, Lxpyd


def _ask(lxpyd: Lxpyd, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("lxpy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(lxpyd.layout.socket)
    connection.request(method, path, json.dumps(body))
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


def test_faults_are_plain_answers(lxpyd: Lxpyd, busybox: str) -> None:
    """What a PUT or PATCH replaces of a good instance, the status, and what the answer says."""
    path = f"/1.0/instances/{busybox}"
    good = lxpyd.json("query", path)
    volume = {"type": "disk", "pool": "plain", "source": "nope", "path": "/v"}
    cases = [
        ({"config": {"limits.memry": "1GiB"}}, 400, "did you mean 'limits.memory'?"),
        ({"config": {"boot.autostrat": "true"}}, 400, "did you mean 'boot.autostart'?"),
        ({"config": {"limits.cpu": "many"}}, 400, "is not a CPU set"),
        ({"config": ["a"]}, 400, "config must be a set of keys and values"),
        ({"config": {"user.x": {"a": 1}}}, 400, "is not text"),
        ({"devices": "root"}, 400, "devices must be a set of devices by name"),
        ({"devices": {"v": volume}, "profiles": ["default"]}, 404, "'nope' not found"),
        ({"devices": {"n": {"type": "nic", "network": "nope"}}}, 404, "nope"),
        ({"devices": {"n": {"type": "nick"}}}, 400, "Unsupported type 'nick'"),
        ({"devices": {"root": {"type": "none"}}}, 400, "No root device"),
        ({"devices": {"root": {"type": "disk", "path": "/", "pool": "plain"}}}, 400, "cannot change its pool"),
        ({"profiles": ["default", "nope"]}, 404, "Profile 'nope' not found"),
        ({"profiles": "default"}, 400, "profiles must be a list of names"),
        ({"profiles": [["default"]]}, 400, "profiles must be a list of names"),
        ({"ephemeral": "yes"}, 400, "ephemeral must be true or false"),
        ({"config": {"security.privileged": "true"}}, 400, "cannot change while it runs"),
    ]
    for part, status, words in cases:
        for method, body in (("PUT", {**good, **part}), ("PATCH", part)):
            code, answer = _ask(lxpyd, method, path, body)
            assert (code, answer["type"]) == (status, "error"), (method, part, answer)
            assert words in answer["error"] and "\n" not in answer["error"], (part, answer["error"])
    for new, status, words in (("new", 400, "is running"), ("a_b", 400, "Invalid instance name")):
        code, answer = _ask(lxpyd, "POST", path, {"name": new})
        assert code == status and words in answer["error"]
    assert _ask(lxpyd, "DELETE", path, None)[0] == 400
    assert lxpyd.json("query", path) == good
    lxpyd.cli("config", "set", busybox, "user.n=1")
    assert _ask(lxpyd, "PATCH", path, {"config": {"user.b": True, "user.n": 2}})[0] == 200
    assert lxpyd.out("config", "get", busybox, "user.b") == "true"


@pytest.mark.parametrize("kind", ["instance", "profile", "project"])
def test_the_editor_opens_again_with_the_text_and_the_fault(lxpyd: Lxpyd, name: str, kind: str) -> None:
    """An editor that makes a mistake first, and puts it right when it is shown what is wrong."""
    lxpyd.cli(*(["create", "bb"] if kind == "instance" else [kind, "create"]), name)
    seen = lxpyd.dir / "seen"
    editor = lxpyd.dir / "editor"
    wrong = "limits.memry"
    editor.write_text(
        "#!/bin/sh\n"
        f'if [ -e {seen} ]; then cp "$1" {seen}; sed -i "s/{wrong}: .*/limits.memory: 1GiB/" "$1"; else : > {seen};\n'
        f'sed -i "s/^config:.*/config:\\n  {wrong}: 64MiB/" "$1"; fi\n'
    )
    editor.chmod(editor.stat().st_mode | stat.S_IXUSR)
    master, slave = pty.openpty()
    group = "config" if kind == "instance" else kind
    process = subprocess.Popen(
        [str(BIN / "lxpy"), group, "edit", name], env={**lxpyd.environment, "EDITOR": str(editor)},
        stdin=slave, stdout=slave, stderr=subprocess.PIPE, close_fds=True,
    )  # fmt: skip
    os.close(slave)
    os.write(master, b"\n")
    _, said = process.communicate(timeout=20)
    os.close(master)
    assert process.returncode == 0, said
    text = seen.read_text().splitlines()
    assert text[0].startswith("### Error: Unknown") and "limits.memory" in text[0], text[:3]
    assert f"  {wrong}: 64MiB" in text and sum("### Error" in line for line in text) == 1
    assert lxpyd.out(group, "get", name, "limits.memory") == "1GiB"
    seen.unlink()
    if kind != "instance":
        lxpyd.cli(kind, "delete", name)
