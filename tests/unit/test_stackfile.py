"""Stack files and plans: what is read, what is refused with its line, what would change."""

from typing import Any

import pytest

from lxpy.api.errors import ApiError
from lxpy.client.apply import MARK, differences, plan
from lxpy.client.stackfile import Stack


def _stack(text: str) -> Stack:
    stack = Stack()
    stack.add(text, "f.yaml", "default")
    return stack


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "f.yaml:1: the document is no mapping"),
        ("a: [\n", "f.yaml:2: "),
        ("x: &a\n  b: 1\ninstance: []\n", "f.yaml:1: unknown section 'x'"),
        ("instances:\ninstanzes: []\n", "f.yaml:2: unknown section 'instanzes': did you mean 'instances'?"),
        ("instances: {}\n", "f.yaml:1: instances must be a list"),
        ("instances:\n- web\n", "f.yaml:1: instances must be a list of objects, each a set of keys"),
        ("instances:\n- config: {}\n", "f.yaml:2: name is missing: the objects of instances need name"),
        ("instances:\n- name: a\n  conifg: {}\n", "f.yaml:3: unknown key of the instance 'a': 'conifg': did you mean"),
        ("instances:\n- name: a\n- name: b\n- name: a\n", "f.yaml:4: the instance 'a' is at f.yaml:2 already"),
        ("instances:\n- name: a\n  name: b\n", "f.yaml:3: 'name' is there twice"),
        ("instances:\n- name: a\n  config: [x]\n", "f.yaml:3: config of the instance 'a' must be a set of keys"),
        ("instances:\n- name: a\n  config:\n    b: [x]\n", "f.yaml:4: config.b of the instance 'a' must be one value"),
        ("instances:\n- name: a\n  devices:\n    b: x\n", "f.yaml:4: the device 'b' of 'a' must be a set of keys"),
        ("instances:\n- name: a\n  status: Gone\n", "f.yaml:3: status of the instance 'a' must be Running or Stopped"),
        ("instances:\n- name: a\n  ephemeral: maybe\n", "f.yaml:3: ephemeral of the instance 'a' must be true"),
        ("instances:\n- {name: a, image: x, source: {}}\n", ""),
        ("instances:\n- {name: a, image: x, source: {type: none}}\n", "f.yaml:2: the instance 'a' has an image and"),
        ("storage_volumes:\n- name: v\n", "f.yaml:2: pool is missing: the objects of storage_volumes need name"),
        ("stack: a b\n", "f.yaml:1: stack must be a name"),
        ("stack: a\n---\nstack: b\n", "f.yaml:3: the stack is called 'a' already"),
        ("? [a]\n: b\n", "f.yaml:1: a key must be one word"),
        ("\tx", "f.yaml:1: "),
        ("x: &a [*a]\n", "f.yaml:1: unknown section"),
        ("instances: [{name: a, config: &c {x: *c}}]", "f.yaml:1: config.x of the instance 'a' must be one value"),
    ],
)  # fmt: skip
def test_faults_are_told_with_their_line(text: str, message: str) -> None:
    if not message:
        assert _stack(text).entries
        return
    with pytest.raises(ApiError) as caught:
        _stack(text)
    assert str(caught.value).startswith(message), caught.value
    assert "\n" not in str(caught.value)


def test_what_is_read_is_what_was_written() -> None:
    stack = _stack(
        "stack: s\nprofiles:\n- name: p\n  used_by: [x]\n"
        "  config: {limits.cpu: 1, user.mode: 0755, user.on: yes, user.d: 2024-01-01}\n"
        "---\ninstances:\n- &a {name: a, project: q, image: 'bb'}\n- <<: *a\n  name: b\n"
    )
    profile, a, b = stack.entries.values()
    assert profile.body["config"] == {"limits.cpu": "1", "user.mode": "0755", "user.on": "true", "user.d": "2024-01-01"}
    assert (a.project, b.project, b.body["image"], b.where) == ("q", "q", "bb", "f.yaml:9")


def _object(**fields: Any) -> dict[str, Any]:
    return {"config": {}, "description": "", "devices": {}, "ephemeral": False, "profiles": ["default"],
            "status_code": 102} | fields  # fmt: skip


def test_a_plan_is_in_the_order_of_need() -> None:
    stack = _stack(
        "instances: [{name: a, image: x}, {name: old, status: Stopped}]\nprofiles: [{name: p}]\n"
        "networks: [{name: n}]\nstorage_volumes: [{name: v, pool: d}]\n"
    )
    there = {
        ("instances", "default", "", "old"): _object(status_code=103),
        ("instances", "default", "", "gone"): _object(config={MARK: "s"}),
        ("networks", "", "", "gone"): {"config": {MARK: "s"}, "managed": True},
        ("networks", "", "", "other"): {"config": {MARK: "t"}, "managed": True},
        ("networks", "", "", "nobody"): {"config": {}, "managed": True},
    }
    steps, left = plan(stack.entries.values(), there, "s", prune=False)
    assert [(step.verb, step.label) for step in steps] == [
        ("create", "network n"), ("create", "storage volume d/v"), ("create", "profile p"), ("create", "instance a"),
        ("stop", "instance old"), ("start", "instance a"),
    ]  # fmt: skip
    assert [step.label for step in left] == ["instance gone", "network gone"]
    steps, left = plan(stack.entries.values(), there, "s", prune=True)
    assert [step.label for step in steps if step.verb == "delete"] == ["instance gone", "network gone"] and not left


def test_another_stacks_object_is_not_touched() -> None:
    stack = _stack("instances: [{name: a, config: {user.x: y}}]\n")
    with pytest.raises(ApiError, match=r"f\.yaml:1: the instance 'a' belongs to the stack 'other'"):
        plan(stack.entries.values(), {("instances", "default", "", "a"): _object(config={MARK: "other"})}, "s", True)


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ("instances: [{name: a}]", {"config": {"user.x": "1"}}, []),
        ("instances: [{name: a, config: {}}]", {"config": {"volatile.x": "1", "image.os": "B", MARK: "s"}}, []),
        ("instances: [{name: a, config: {limits.cpu: 2}}]", {"config": {"limits.cpu": "1", "user.x": "1"}},
         ["config.limits.cpu: 1 -> 2", "config.user.x: 1 -> (none)"]),
        ("instances: [{name: a, devices: {d: {type: none}, e: {type: disk, path: /x}}}]",
         {"devices": {"e": {"type": "disk", "path": "/y"}, "f": {"type": "none"}}},
         ["devices.d: added", "devices.e.path: /y -> /x", "devices.f: removed"]),
        ("instances: [{name: a, ephemeral: true, profiles: [p, q], description: d}]", {},
         ["description: (none) -> d", "ephemeral: false -> true", "profiles: default -> p,q"]),
        ("networks: [{name: a, config: {ipv4.address: auto, ipv4.nat: true}}]",
         {"config": {"ipv4.address": "10.0.0.1/24", "ipv6.address": "none", "ipv4.nat": "false"}},
         ["config.ipv4.nat: false -> true"]),
        ("networks: [{name: a, config: {ipv6.address: auto}}]", {"config": {"ipv6.address": "none"}},
         ["config.ipv6.address: none -> auto"]),
        ("network_acls: [{name: a, egress: [{action: drop, destination: 10.0.0.0/8}]}]",
         {"egress": [{"action": "drop", "destination": "10.0.0.0/8", "state": "enabled", "protocol": ""}]}, []),
        ("network_acls: [{name: a, egress: []}]", {"egress": [{"action": "drop"}]}, ["egress: 1 -> 0"]),
    ],
)  # fmt: skip
def test_what_would_change(text: str, there: dict[str, Any], expected: list[str]) -> None:
    (entry,) = _stack(text).entries.values()
    assert differences(entry, _object(**there)) == expected
