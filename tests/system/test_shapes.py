"""Bodies whose fields are of another kind than they should be, for every kind of object: 400, and nothing changes."""

import http.client
import json
import socket
from typing import Any

import pytest

from tests.support.daemon import Lxpyd

_TEXTS, _MAPPINGS, _LISTS, _BOOLEANS = (
    {"description", "expires_at", "target", "name"}, {"config", "devices", "properties"},
    {"profiles", "projects", "ports", "ingress", "egress"}, {"public", "auto_update", "restricted", "ephemeral"},
)  # fmt: skip
_WRONG = {
    **dict.fromkeys(_TEXTS, (3, True, ["a"], {"a": "b"})),
    **dict.fromkeys(_MAPPINGS, (3, "x", True, ["a"], {"a": {"b": "c"}}, {"a": ["b"]})),
    **dict.fromkeys(_LISTS, (3, "x", True, {"a": "b"}, [3], [None])),
    **dict.fromkeys(_BOOLEANS, (3, "maybe", ["a"], {"a": "b"})),
}


def _ask(lxpyd: Lxpyd, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("lxpy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(lxpyd.layout.socket)
    kind = {"Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), kind)
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


@pytest.fixture
def objects(lxpyd: Lxpyd, name: str) -> Any:
    """URLs of one object of each kind."""
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("project", "create", name)
    lxpyd.cli("network", "acl", "create", name)
    lxpyd.cli("network", "forward", "create", lxpyd.bridge, "192.0.2.9")
    image = lxpyd.json("query", "/1.0/images")[0]
    bridge = f"/1.0/networks/{lxpyd.bridge}"
    yield [
        "/1.0", bridge, f"{bridge}/forwards/192.0.2.9", f"/1.0/network-acls/{name}", f"/1.0/profiles/{name}",
        f"/1.0/projects/{name}", image, "/1.0/images/aliases/bb", "/1.0/storage-pools/plain", f"/1.0/instances/{name}",
    ]  # fmt: skip
    lxpyd.cli("network", "forward", "delete", lxpyd.bridge, "192.0.2.9")
    lxpyd.cli("network", "acl", "delete", name)
    lxpyd.cli("project", "delete", name)
    lxpyd.cli("profile", "delete", name)


def test_every_field_of_every_object(lxpyd: Lxpyd, objects: list[str]) -> None:
    for path in objects:
        good = lxpyd.json("query", path)
        tried = 0
        for field in good.keys() & _WRONG.keys():
            for wrong in _WRONG[field]:
                for method, body in (("PUT", {**good, field: wrong}), ("PATCH", {field: wrong})):
                    status, answer = _ask(lxpyd, method, path, body)
                    tried += 1
                    assert status in (400, 404), (method, path, field, wrong, answer)
                    assert "\n" not in answer["error"] and "internal error" not in answer["error"], answer
        assert tried
        for method in ("PUT", "PATCH"):
            assert _ask(lxpyd, method, path, None)[0] == 400, (method, path)
            assert _ask(lxpyd, method, path, [])[0] == 400
        assert lxpyd.json("query", path) == good
        collection = path.rpartition("/")[0]
        if not path.startswith("/1.0/"):
            continue
        for field in good.keys() & _WRONG.keys():
            for wrong in _WRONG[field]:
                body = {"name": "zz", "driver": "dir", "source": {"type": "none"}, field: wrong}
                status, answer = _ask(lxpyd, "POST", collection, body)
                assert status in (400, 404), (collection, field, wrong, answer)


def test_an_unknown_key_is_not_lost_in_an_editor(lxpyd: Lxpyd, objects: list[str], name: str) -> None:
    for words in (
        ("network", "edit", lxpyd.bridge), ("network", "forward", "edit", lxpyd.bridge, "192.0.2.9"),
        ("network", "acl", "edit", name), ("profile", "edit", name), ("project", "edit", name), ("image", "edit", "bb"),
        ("storage", "edit", "plain"), ("config", "edit", name), ("config", "edit"),
    ):  # fmt: skip
        before = lxpyd.snapshot()
        result = lxpyd.cli(*words, input="konfig: {}\npropertys: {}\n", check=False)
        assert result.returncode == 1 and "Unknown key 'konfig'" in result.stderr, (words, result)
        assert lxpyd.snapshot() == before
    for words in (("network", "create", "lxtz"), ("project", "create", "zz"), ("network", "acl", "create", "zz")):
        result = lxpyd.cli(*words, input="konfig: {}\n", check=False)
        assert result.returncode == 1 and "Unknown key 'konfig'" in result.stderr, (words, result)
    for text in ("konfig: {}", "config: 3", "devices: [a]", "devices: {root: x}", "profiles: x"):
        result = lxpyd.cli("init", "bb", f"{name}-new", input=text, check=False)
        assert result.returncode == 1 and len(result.stderr.splitlines()) == 1, (text, result)
    shown = lxpyd.out("network", "acl", "show", name)
    lxpyd.cli("network", "acl", "create", "again", input=shown)
    lxpyd.cli("network", "acl", "delete", "again")


def test_profiles_of_an_image(lxpyd: Lxpyd, name: str) -> None:
    """They must be there, and instances get them that name none."""
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "user.of=image")
    before = lxpyd.out("image", "show", "bb")
    said = lxpyd.cli("image", "edit", "bb", input="profiles: [default, nope]\n", check=False).stderr
    assert "Profile 'nope' not found" in said and lxpyd.out("image", "show", "bb") == before
    try:
        lxpyd.cli("image", "edit", "bb", input=f"profiles: [default, {name}]\n")
        lxpyd.cli("init", "bb", name)
        assert lxpyd.instance(name)["profiles"] == ["default", name]
        lxpyd.cli("init", "bb", f"{name}-own", "-p", "default")
        assert lxpyd.instance(f"{name}-own")["profiles"] == ["default"]
        lxpyd.cli("delete", name)
    finally:
        lxpyd.cli("image", "edit", "bb", input="profiles: [default]\n")
    lxpyd.cli("profile", "delete", name)
