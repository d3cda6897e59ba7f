"""Filters, ETags, configuration keys, errors: the daemon's rules that need no daemon."""

import errno
from typing import Any

import pytest

from lxpy.api.errors import ApiError, BadRequest, NotFound, PreconditionFailed
from lxpy.daemon import config, filter
from lxpy.daemon.etag import INSTANCE, check, etag
from lxpy.daemon.operations import explain
from lxpy.daemon.trust import hash_password, password_matches

WEB = {"name": "web1", "status": "Running", "ephemeral": False, "config": {"user.role": "web", "limits.cpu": "2"},
       "devices": {"eth0": {"parent": "br0"}}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name eq web1", True),
        ("name eq WEB1", True),
        ("name eq web", False),
        ("name eq ^web.*$", True),
        ("name ne web1", False),
        ("not name eq web2", True),
        ("config.user.role eq web", True),
        ("config.user.none eq web", False),
        ("devices.eth0.parent eq br0", True),
        ("ephemeral eq false", True),
        ("name eq x or status eq running", True),
        ("name eq web1 and status eq stopped", False),
        ('status eq "Running" and not config.limits.cpu eq 4', True),
        # left-associative: (true or true) and false
        ("name eq web1 or name eq web1 and name eq x", False),
    ],
)
def test_filter(text: str, expected: bool) -> None:
    holds = filter.parse(text)
    assert holds is not None
    assert holds(WEB) is expected


def test_the_empty_filter_is_none() -> None:
    assert filter.parse("") is None
    assert filter.parse("  ") is None


@pytest.mark.parametrize("text", ["name", "name eq", "name like x", "name eq a b", "name eq a and", 'x eq "', "a eq ("])
def test_a_wrong_filter_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        filter.parse(text)


def test_an_etag_counts_only_what_can_be_changed() -> None:
    first: dict[str, Any] = {"config": {"a": "1"}, "profiles": [], "status": "Running"}
    assert etag(first, INSTANCE) == etag({**first, "status": "Stopped"}, INSTANCE)
    check(etag(first, INSTANCE), first, INSTANCE)
    check(f'"{etag(first, INSTANCE)}"', first, INSTANCE)
    check(None, first, INSTANCE)
    with pytest.raises(PreconditionFailed):
        check(etag(first, INSTANCE), {**first, "config": {}}, INSTANCE)


def test_server_configuration() -> None:
    assert config.checked({"core.https_address": "[::]:8443", "user.x": 1, "images.auto_update_cached": False}) == {
        "core.https_address": "[::]:8443",
        "user.x": "1",
        "images.auto_update_cached": "false",
    }
    with pytest.raises(BadRequest, match=r"did you mean core.https_address"):
        config.checked({"core.http_address": "x"})
    with pytest.raises(BadRequest, match="not a number"):
        config.checked({"images.remote_cache_expiry": "soon"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (":8443", ("", 8443)),
        ("10.0.0.1", ("10.0.0.1", 8443)),
        ("[::1]:99", ("::1", 99)),
        ("::1", ("::1", 8443)),
        ("host:1", ("host", 1)),
    ],
)
def test_addresses(value: str, expected: tuple[str, int]) -> None:
    assert config.address("core.https_address", value) == expected


def test_password() -> None:
    hashed = hash_password("secret")
    assert "secret" not in hashed
    assert password_matches("secret", hashed)
    assert not password_matches("Secret", hashed)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (NotFound("Instance not found"), 404, "Instance not found"),
        (ApiError("two\nlines"), 500, "two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 500, "Doing: No space left on device: /x"),
    ],
)
def test_errors_are_one_line(error: Exception, status: int, text: str) -> None:
    assert explain(error, "Doing") == (status, text)


def test_a_bug_tells_the_user_where_to_look() -> None:
    status, text = explain(ZeroDivisionError("x"), "Doing")
    assert status == 500
    assert "log" in text
    assert "\n" not in text
