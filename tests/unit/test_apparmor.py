"""AppArmor profiles as texts and as what the parser makes of them; the virtual machine's tests run under them."""

import pytest

from lxpy.api.errors import BadRequest, InternalError
from lxpy.api.layout import Layout
from lxpy.instances import apparmor, keys

PRIVILEGED = {"security.privileged": "true"}
NESTED = {**PRIVILEGED, "security.nesting": "true"}
RAW = {"raw.apparmor": "deny /srv/secret/** rw,"}


def test_kinds_share_and_differ() -> None:
    profiles = apparmor.Profiles(Layout("/var/lib/lxpy"))
    other = apparmor.Profiles(Layout("/srv/other"))
    plain = profiles.name({})
    assert plain.startswith("lxpy_") and not other.name({}).startswith("lxpy_")
    assert profiles.name({"limits.cpu": "1", "security.privileged": "false"}) == plain
    assert profiles.name({"security.nesting": "true"}) == plain  # mapped users need no rule for it
    assert len({profiles.name(config) for config in ({}, PRIVILEGED, NESTED, RAW)}) == 4


@pytest.mark.parametrize("config", [{}, PRIVILEGED, NESTED, RAW])
def test_the_parser_takes_it(config: dict[str, str]) -> None:
    text = apparmor.text(config, "lxpy_test")
    assert "@NAME@" not in text and 'peer="lxpy_test"' in text
    assert b"lxpy_test" in apparmor.compiled(text, "lxpy_test")


def test_bad_rules_are_told_without_a_line_number() -> None:
    with pytest.raises(InternalError, match=r"^apparmor_parser refuses it: syntax error"):
        apparmor.compiled(apparmor.text({"raw.apparmor": "deny /x"}, "lxpy_test"), "lxpy_test")


def test_raw_rules_are_not_taken_where_nothing_would_honour_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LXPY_SECURITY_APPARMOR", "false")
    with pytest.raises(BadRequest, match=r"raw\.apparmor cannot be honoured: LXPY_SECURITY_APPARMOR turns it off"):
        keys.validate_config(RAW)
