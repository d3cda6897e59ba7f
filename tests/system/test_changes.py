"""Changes of an instance that cannot be made: said at once and plainly, with no operation begun; and in the editor."""

import concurrent.futures
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


def _ask(lxpyd: Lxpyd, method: str, path: str, body: Any, tag: str = "") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("lxpy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(lxpyd.layout.socket)
    connection.request(method, path, json.dumps(body), {"If-Match": tag} if tag else {})
    answer = connection.getresponse()
    found = json.loads(answer.read()) | {"etag": answer.headers.get("ETag") or ""}
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


def _together(lxpyd: Lxpyd, method: str, path: str, bodies: list[Any], tag: str = "") -> list[bool]:
    """Ask for all of them at once; which were done."""
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: _ask(lxpyd, method, path, body, tag), bodies))
    done = []
    for code, answer in answers:
        if answer["type"] == "async":
            answer = _ask(lxpyd, "GET", f"{answer['operation']}/wait", None)[1]["metadata"]
            assert answer["status_code"] == 200 or "changed by somebody else" in answer["err"], answer
            done.append(answer["status_code"] == 200)
        else:
            assert code in (200, 412), answer
            done.append(code == 200)
    return done


def test_of_changes_that_were_read_at_one_time_one_is_made(lxpyd: Lxpyd, busybox: str) -> None:
    """What is plugged in takes a while: the others come meanwhile, and must not undo it."""
    path = f"/1.0/instances/{busybox}"
    read = _ask(lxpyd, "GET", path, None)[1]
    good = {key: read["metadata"][key] for key in ("description", "config", "devices", "profiles", "ephemeral")}
    disks = [{f"d{n}": {"type": "disk", "source": "/etc", "path": f"/mnt/{n}"}} for n in range(4)]
    done = _together(lxpyd, "PUT", path, [good | {"devices": good["devices"] | disk} for disk in disks], read["etag"])
    assert done.count(True) == 1
    assert _ask(lxpyd, "GET", path, None)[1]["metadata"]["devices"].keys() - good["devices"] == {f"d{done.index(True)}"}
    assert all(_together(lxpyd, "PATCH", path, [{"devices": disk} for disk in disks]))
    assert _ask(lxpyd, "GET", path, None)[1]["metadata"]["devices"].keys() - good["devices"] == {"d0", "d1", "d2", "d3"}


def test_changes_of_a_network_at_one_time_are_all_made_or_refused(lxpyd: Lxpyd) -> None:
    path = f"/1.0/networks/{lxpyd.bridge}"
    read = _ask(lxpyd, "GET", path, None)[1]
    config = read["metadata"]["config"]
    keys = [{f"user.k{n}": "v", "ipv4.dhcp.expiry": f"{n + 2}h"} for n in range(4)]  # dnsmasq is started anew for each
    try:
        done = _together(lxpyd, "PUT", path, [{"config": config | key} for key in keys], read["etag"])
        assert done.count(True) == 1
        assert _ask(lxpyd, "GET", path, None)[1]["metadata"]["config"] == config | keys[done.index(True)]
        assert all(_together(lxpyd, "PATCH", path, [{"config": key} for key in keys]))
        assert {f"user.k{n}" for n in range(4)} <= _ask(lxpyd, "GET", path, None)[1]["metadata"]["config"].keys()
    finally:
        assert _ask(lxpyd, "PUT", path, {"config": config})[0] == 200


def test_a_change_that_waits_for_a_start_keeps_what_the_start_has_written(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("create", "bb", name)
    path = f"/1.0/instances/{name}"
    read = _ask(lxpyd, "GET", path, None)[1]
    config = read["metadata"]["config"] | {"user.k": "v"}
    started = _ask(lxpyd, "PUT", f"{path}/state", {"action": "start"})[1]
    code, changed = _ask(lxpyd, "PUT", path, {"config": config, "profiles": ["default"]})
    assert code == 202, changed
    for answer in (started, changed):
        assert _ask(lxpyd, "GET", f"{answer['operation']}/wait", None)[1]["metadata"]["status_code"] == 200
    now = _ask(lxpyd, "GET", path, None)[1]["metadata"]["config"]
    assert now["user.k"] == "v" and now["volatile.eth0.hwaddr"] and now["volatile.last_state.power"] == "RUNNING"
