"""Every verb of images, networks, profiles, projects, the server and its warnings, typed into the stock `lxc`."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd

# A line is a command; behind a | stands what it prints among other things; `<` feeds it what the command behind prints.
_IMAGES = """
image list -c lLfFpdatsu architecture=x86_64
image set-property bb a b
image get-property bb a | b
image unset-property bb a
image alias create NAME FINGERPRINT
image alias rename NAME NAME-2
image alias list | NAME-2
image alias delete NAME-2
image refresh bb | already up to date
image edit bb < image show bb
image info bb | Fingerprint: FINGERPRINT
image export bb DIR/bb
image import DIR/bb DIR/bb.root --alias NAME --project NAME-p | FINGERPRINT
image delete NAME --project NAME-p
"""
_NETWORKS = """
network create NET ipv4.address=10.95.3.1/24 ipv6.address=none
network set NET ipv4.nat=true dns.domain=stock.example
network get NET dns.domain | stock.example
network unset NET dns.domain
network edit NET < network show NET
network list | NET
network attach NET NAME eth7 eth7
network info NET | 10.95.3.1/24
network list-leases NET | GATEWAY
network detach NET NAME eth7
network attach-profile NET NAME eth7
network detach-profile NET NAME eth7
network rename NET NETb
network forward create NETb 192.0.2.77 target_address=10.95.3.9
network forward port add NETb 192.0.2.77 tcp 80,90-92 10.95.3.10 8080
network forward list NETb | 192.0.2.77
network forward set NETb 192.0.2.77 user.a=b
network forward get NETb 192.0.2.77 user.a | b
network forward unset NETb 192.0.2.77 user.a
network forward edit NETb 192.0.2.77 < network forward show NETb 192.0.2.77
network forward port remove NETb 192.0.2.77 tcp 80,90-92
network forward delete NETb 192.0.2.77
network acl create NAME
network acl rule add NAME ingress action=drop source=192.0.2.1 state=logged
network acl list | NAME
network acl set NAME user.a=b
network acl get NAME user.a | b
network acl unset NAME user.a
network acl edit NAME < network acl show NAME
network set NETb security.acls=NAME
network acl show-log NAME
network unset NETb security.acls
network acl rename NAME NAME-2
network acl rule remove NAME-2 ingress source=192.0.2.1
network acl delete NAME-2
network delete NETb
"""
_PROFILES = """
profile set NAME limits.memory=64MiB user.a=b
profile get NAME limits.memory | 64MiB
profile unset NAME user.a
profile device add NAME d disk source=/usr path=/d
profile device set NAME d readonly=true
profile device get NAME d readonly | true
profile device unset NAME d readonly
profile device list NAME | d
profile device show NAME | path: /d
profile add NAME NAME
profile remove NAME NAME
profile assign NAME default,NAME
config device override NAME d readonly=true
config device list NAME | d
config device show NAME | readonly: "true"
config device set NAME d path=/e
config device get NAME d path | /e
config device unset NAME d readonly
config device remove NAME d
config device add NAME d none
config device remove NAME d
config show NAME --expanded | limits.memory: 64MiB
profile assign NAME default
profile edit NAME < profile show NAME
profile copy NAME NAME-2
profile rename NAME-2 NAME-3
profile list | NAME-3
profile delete NAME-3
"""
_SERVER = """
project set NAME-p limits.instances=3 limits.memory=1GiB restricted=true restricted.containers.nesting=allow
project get NAME-p limits.instances | 3
project unset NAME-p limits.memory
project info NAME-p | INSTANCES
project edit NAME-p < project show NAME-p
project rename NAME-p NAME-q
project switch NAME-q
project list | NAME-q (current)
project switch default
project rename NAME-q NAME-p
config set images.remote_cache_expiry 5
config get images.remote_cache_expiry | 5
config unset images.remote_cache_expiry
config edit < config show
config trust list
warning list -a
info | server: lxpy
info --resources | Memory
operation list
"""


@pytest.fixture
def place(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> Iterator[dict[str, str]]:
    """What the words in capitals stand for; a stopped instance, a profile and a project are there."""
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("project", "create", f"{name}-p")
    fingerprint = lxpyd.json("query", "/1.0/images/aliases/bb")["target"]
    yield {"NAME": name, "NET": f"lxs{lxpyd.number}", "DIR": str(tmp_path), "FINGERPRINT": fingerprint}
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("profile", "delete", name)
    lxpyd.cli("project", "delete", f"{name}-p")


@pytest.mark.parametrize(
    "verbs", [_IMAGES, _NETWORKS, _PROFILES, _SERVER], ids=["images", "networks", "profiles", "server"]
)
def test_every_verb(lxpyd: Lxpyd, place: dict[str, str], verbs: str) -> None:
    environment = {**os.environ, "LXD_DIR": str(lxpyd.dir), "LXD_CONF": place["DIR"], "LC_ALL": "C.UTF-8"}

    def lxc(text: str, input: str = "") -> str:
        done = subprocess.run(["lxc", *text.split()], env=environment, input=input, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, f"lxc {text}: {done.stdout}{done.stderr}"
        return done.stdout

    for line in verbs.strip().splitlines():
        for word, meaning in place.items():
            line = line.replace(word, meaning)
        command, _, expected = line.partition(" | ")
        command, _, source = command.partition(" < ")
        said = lxc(command, lxc(source) if source else "")
        assert expected in said, (line, said)
