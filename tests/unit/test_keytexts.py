"""What is said of configuration keys: of each that there is, of none that there is not, and nothing false."""

import pytest

from lxpy.api.errors import BadRequest
from lxpy.api.keytexts import Key
from lxpy.instances import devices, devicetexts, keys, keytexts, nicrules, noderules, proxyrules
from lxpy.networks import config as network
from lxpy.networks.keytexts import BRIDGE
from lxpy.projects import keytexts as projects
from lxpy.projects import rules
from lxpy.projects.manager import FEATURES
from lxpy.storage import drivers, volumekeys
from lxpy.storage import keytexts as storage


def test_every_key_of_instances_and_networks_is_explained() -> None:
    families = {name.rpartition(".")[0] + "." for name in keytexts.KEYS if name.endswith(".NAME")}
    plain = {name for name in keytexts.KEYS if not name.endswith(".NAME")}
    assert plain == set(keys.KEYS)
    assert families == {*keys.FAMILIES, "environment.", "user."}
    assert set(BRIDGE) - {"user.NAME"} == set(network.KEYS)


def test_every_key_of_devices_is_explained() -> None:
    known: dict[str, frozenset[str]] = {f"nic-{name}": keys for name, keys in nicrules.UNBRIDGED.items()}
    known |= {"nic-bridged": devices._NIC_KEYS, "disk": devices._DISK_KEYS | {"size"}, "proxy": proxyrules.KEYS}
    known |= noderules.KEYS | {"none": frozenset()}
    told = {kind: frozenset(texts) for kind, texts in devicetexts.DEVICES.items()}
    assert told == {kind: keys - {"type", "nictype"} for kind, keys in known.items()}


@pytest.mark.parametrize("driver", drivers.DRIVERS)
def test_what_is_said_of_pools_and_volumes_is_accepted(driver: str) -> None:
    kind = drivers.DRIVERS[driver]
    texts = storage.pool(driver)
    assert set(kind.keys) == {name for name in texts if not name.startswith(("volume.", "user."))}
    drivers.check_keys(kind, {name: "" for name in texts if not name.endswith(".NAME")})
    for name in storage.volume(driver):
        volumekeys.checked({name.replace("NAME", "name"): ""})


def test_every_key_of_projects_is_explained() -> None:
    assert set(projects.FEATURES) == set(FEATURES)
    told = {**projects.LIMITS, **projects.RESTRICTED}
    assert set(told) == set(rules.known())
    for name, key in told.items():
        for value in key.values or (("true", "false") if key.type == "bool" else ()):
            assert rules.check_key(name, value)


PROJECT = (projects.FEATURES, projects.LIMITS, projects.RESTRICTED)
ALL: list[tuple[str, Key]] = [*keytexts.KEYS.items(), *BRIDGE.items()]


@pytest.mark.parametrize(("name", "key"), ALL, ids=[name for name, _ in ALL])
def test_values_and_defaults_that_are_named_are_accepted(name: str, key: Key) -> None:
    look = network.validate if name in BRIDGE and name != "user.NAME" else keys.validate_config
    for value in key.values or (("true", "false") if key.type == "bool" else ()):
        if (name, value) != ("security.idmap.isolated", "false"):  # it is always so, and says why
            look({name: value})
    if key.type == "integer" and key.default.isdigit():
        look({name: key.default})
    if key.type in ("bool", "integer"):
        with pytest.raises(BadRequest):
            look({name: "perhaps"})


@pytest.mark.parametrize(
    "text",
    [key.text for keys in (keytexts.KEYS, BRIDGE, *devicetexts.DEVICES.values(), *PROJECT) for key in keys.values()],
)
def test_a_text_is_one_line_of_a_small_terminal(text: str) -> None:
    assert 3 < len(text) <= 85 and not text.endswith(".")
