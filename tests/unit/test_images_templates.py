"""Templates: what they can say, and that they cannot get out of the instance's root or hold up the daemon."""

import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from lxpy.images.templates import TemplateError, render, render_templates

CONTEXT: dict[str, Any] = {
    "instance": {"name": "c1", "architecture": "x86_64", "privileged": "false", "ephemeral": "true"},
    "config": {"user.foo": "bar", "user.empty": "", "user.lines": "a\n\n"},
    "devices": {"root": {"type": "disk"}, "eth0": {"type": "nic"}},
}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    path = tmp_path / "root"
    path.mkdir()
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    yield path, fd
    os.close(fd)


def names() -> dict[str, Any]:
    from lxpy.images.templates import _names

    return _names("/etc/x", "create", {"properties": {"color": "red"}}, CONTEXT)


def archive(tmp_path: pathlib.Path, templates: dict[str, dict[str, Any]], texts: dict[str, str]) -> str:
    """What the store keeps beside a tarball."""
    entries = {
        path: {"when": ["create"], "create_only": False, "properties": {}, "template": "t"} | entry
        for path, entry in templates.items()
    }
    path = tmp_path / "image.json"
    path.write_text(json.dumps({"metadata": {"templates": entries}, "templates": texts}))
    return str(path)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ container.name }}\n", "c1\n"),
        ("{{instance.name}} {{ trigger }} {{ path }} {{ properties.color }}", "c1 create /etc/x red"),
        ("[{{ nothing }}{{ container.nothing }}{{ config_get }}]", "[]"),
        ('{{ config_get("user.foo", "d") }}{{ config_get("user.no", "d") }}', "bard"),
        ("{{ config_get('user.empty', '') }}", ""),
        ("no expression { } at all", "no expression { } at all"),
        ('{% if container.ephemeral == "true" %}e{% else %}p{% endif %}', "e"),
        (
            '{% for name, device in devices.items() %}{{ name }}={{ device["type"] }};{% endfor %}',
            "root=disk;eth0=nic;",
        ),
        ("{{ container.name|upper }}", "C1"),
        ('{{ config["user.foo"]|default:"x" }} {{ config["user.no"]|default:"x y" }}', "bar x y"),
        ("{# a remark #}x", "x"),
        (
            "[{{ container.name.__class__.__mro__ }}{{ config_get.__globals__['os'] }}]",
            "[]",
        ),
        ("[{{ nothing.at.all }}]{% if nothing.at.all %}no{% endif %}", "[]"),
        ("{{ config_get('user.lines', '') }}|{% if config_get('user.lines', '') == 'a' %}same{% endif %}", "a|same"),
        ("{% if !nothing && (container.name == 'c1' || 0) && '&&' != '||' %}yes{% endif %}", "yes"),
        ("{% if instance.type != 'virtual-machine' %}eth0{% endif %}", "eth0"),
        ("{{ 3 * 4 }}", "12"),
        # Pongo2's own words.
        ("{% for name, device in devices %}{{ name }}={{ device.type }};{% endfor %}", "eth0=nic;root=disk;"),
        ("{% for name, device in devices sorted %}{{ forloop.Counter }}{{ name }}{% endfor %}", "1eth02root"),
        ("{% for name in 'b,a'|split:',' reversed %}{{ name }}{% if !forloop.Last %}-{% endif %}{% endfor %}", "a-b"),
        ("{% for name in 'b,a'|split:',' sorted %}{{ forloop.Counter0 }}{{ name }}{% endfor %}", "0a1b"),
        ('{% ifequal container.name "c1" %}same{% else %}other{% endifequal %}', "same"),
        ("{% ifnotequal container.name 'c1' %}other{% endifnotequal %}x", "x"),
        ("a{% comment %}{{ what is this }}{% endcomment %}b", "ab"),
        ("{{ container.name|capfirst }}{{ 1|add:2 }}{{ 'a-b'|cut:'-' }}{{ nothing|yesno:'on,off' }}", "C13aboff"),
        ("{% with name=container.name|upper %}{{ name }}{% endwith %}", "C1"),
        (
            '{% if config_get("user.network-config", "") == "" %}version: 1\nname: {% if instance.type == "x" %}enp5s0'
            '{% else %}eth0{% endif %}{% else %}{{ config_get("user.network-config", "") }}{% endif %}',
            "version: 1\nname: eth0",
        ),
        ('{{ config_get("user.user-data", properties.color) }}', "red"),
        ("<{{ '<&>' }}>", "<<&>>"),
    ],
)
def test_what_templates_say(text: str, result: str) -> None:
    assert render(text, names()) == result


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 'x' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%1000000000d' % 1 }}",
        "{% for a in range(99999) %}{{ config }}{% endfor %}",
        "{{ 'x,'|cut:','|split:'' }}",
        "{{ " * 30_000,
        "{% for a in " + " " * 60_000,
        "{% comment %}" * 5000,
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% if %}",
        "{{ 1 / 0 }}",
        "{{ config.update({'a': 'b'}) }}",
    ],
)
def test_what_they_cannot_do(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(TemplateError) as caught:
        render(text, names())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 6
    assert "a" not in CONTEXT["config"]


def test_simple_ones_need_no_jinja() -> None:
    code = (
        "import sys; from lxpy.images.templates import render; "
        "print(render('{{ container.name }}', {'container': {'name': 'x'}}), "
        "'jinja2' in sys.modules, 'yaml' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["x", "False", "False"]


def test_files_are_written(tmp_path: pathlib.Path, root: tuple[pathlib.Path, int]) -> None:
    path, fd = root
    (path / "kept").write_text("old")
    (path / "there").write_text("old")
    os.chmod(path / "there", 0o600)
    os.chown(path / "there", 7, 8)
    image = archive(
        tmp_path,
        {
            "/etc/deep/hostname": {},
            "/kept": {"create_only": True},
            "/there": {},
            "/owned": {"uid": 5, "gid": 6, "mode": 0o640},
            "/later": {"when": ["start"]},
            "/missing": {"template": "not there"},
            "/broken": {"template": "bad"},
        },
        {"t": "{{ container.name }}", "bad": "{% if %}"},
    )
    problems = render_templates(image, "create", CONTEXT, fd)
    assert len(problems) == 2 and problems[0].startswith("Template for /missing: the image has no templates/")
    assert (path / "etc/deep/hostname").read_text() == "c1"
    assert (path / "kept").read_text() == "old"
    there, owned = (path / "there").stat(), (path / "owned").stat()
    assert (there.st_mode & 0o7777, there.st_uid, there.st_gid) == (0o600, 7, 8)
    assert (owned.st_mode & 0o7777, owned.st_uid, owned.st_gid) == (0o640, 5, 6)
    assert sorted(p.name for p in path.iterdir()) == ["etc", "kept", "owned", "there"]


def test_links_do_not_lead_out(tmp_path: pathlib.Path, root: tuple[pathlib.Path, int]) -> None:
    path, fd = root
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    (path / "a").symlink_to(outside)
    (path / "b").symlink_to(outside / "victim")
    (path / "c").symlink_to("../../../../../../../../etc")
    (path / "d").mkdir()
    os.mkfifo(path / "e")
    (path / "f").symlink_to("f")
    image = archive(
        tmp_path,
        {"/a/victim": {}, "/b": {}, "/c/lxpy-test": {}, "/../../x": {}, "/d": {}, "/e": {}, "/f": {}},
        {"t": "pwned"},
    )
    problems = render_templates(image, "create", CONTEXT, fd)
    assert (outside / "victim").read_text() == "safe" and len(list(outside.iterdir())) == 1
    assert not pathlib.Path("/etc/lxpy-test").exists() and not (tmp_path / "x").exists()
    assert (path / "x").read_text() == "pwned"
    assert len(problems) >= 3 and all("\n" not in problem for problem in problems)
