"""kill -9 of the daemon before each step of each change: the next one has all of it or nothing, and nothing is left.

A case says what is changed and how it is taken back. What there is before it and after it is recorded once; then the
daemon is ended before a step, started, and what there is has to be one of the two. The suite takes a few steps of each
case; ``LXPY_STEPS=all`` takes every one (half an hour).
"""

import contextlib
import dataclasses
import hashlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support import leftovers, namespace
from tests.support.daemon import Lxpyd, until
from tests.support.fuse import Fuse
from tests.support.pools import unmount_all
from tests.support.tarballs import unified_tar
from tests.support.world import World, difference, world

_ALL = os.environ.get("LXPY_STEPS") == "all"
_FEW = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """One change; several commands are separated by semicolons; ``!forget POOL`` loses a pool's records.

    Attributes:
        change: the command that is cut short.
        back: takes it back, wholly or from where it was cut short; may say that there is nothing to do.
            In every command ``DIR`` is the daemon's directory and ``IMAGE`` the fingerprint of ``DIR/image.tar.gz``.
        before: what there has to be first; `after` takes that away again.
        between: commands that lead to other states that are allowed, each from the one before it.
    """

    change: str
    back: str
    before: str = ""
    after: str = ""
    between: str = ""


_NET = "network create lxz0 ipv4.address=10.95.0.1/24 ipv6.address=none bridge.hwaddr=00:16:3e:01:02:03"
_FORWARD = "network forward create lxz0 10.96.0.9 target_address=10.95.0.7"
_NO_ACL = "network acl delete z"
_IMAGE = "image import DIR/image.tar.gz"
_ALIAS = "image alias create y bb"
_TRUST = "config trust add DIR/k.crt --name k"
_RULE = "egress action=drop destination=10.9.9.9"
_BTRFS = "storage create p btrfs size=300MiB"
_PLUG, _UNPLUG = "config device add a x nic name=eth1", "config device remove a x"
_PHYSICAL, _MACVLAN = f"{_PLUG} nictype=physical parent=lxzp mtu=1300", f"{_PLUG} nictype=macvlan parent=lxzp"
_ROUTED = f"{_PLUG} nictype=routed ipv4.address=10.94.0.9"
_LISTEN, _DEAF = "config set core.https_address=127.0.0.1:19704", "config unset core.https_address"
_NODE = "config device add a x unix-char source=/dev/zero path=/dev/y mode=0604"
_PROXY = "config device add a x proxy listen=tcp:127.0.0.1:19705 connect=tcp:127.0.0.1:80"
_INSIDE = "config device add a x proxy listen=unix:/tmp/s connect=tcp:127.0.0.1:80 bind=instance"
_NAT = "config device add a x proxy listen=tcp:192.0.2.9:80 connect=tcp:10.94.0.9:80 nat=true"
_STARTED = ("start a", "stop -f a")

_BACKUPS = "/1.0/instances/a/backups"
_BACKUP = namespace.path("steps.tar")

CASES = {
    "instance create": Case("init bb a", "delete -f a"),
    "instance create, dir": Case("init bb a -s plain", "delete -f a"),
    "instance launch": Case("launch bb a", "delete -f a", between="init bb a"),
    "instance start": Case(*_STARTED, "init bb a", "delete -f a"),
    "instance start after another": Case(
        "start a", "stop -f a; stop -f b", "init bb b; init bb a -c boot.requires=b", "delete -f a; delete -f b",
        "start b",
    ),
    "instance stop": Case("stop -f a", "start a", "launch bb a", "delete -f a"),
    "instance restart": Case("restart -f a", "start a", "launch bb a", "delete -f a", "stop -f a"),
    "instance pause": Case("pause a", "start a", "launch bb a", "delete -f a"),
    "instance rename": Case("rename a b", "rename b a", "init bb a", "delete -f a"),
    "instance set": Case(
        "config set a limits.memory=64MiB user.k=v", "config unset a limits.memory; config unset a user.k",
        "launch bb a", "delete -f a",
    ),
    "instance limits": Case(
        "config set a limits.processes=90 limits.cpu.priority=4 limits.kernel.nofile=99",
        "config unset a limits.processes; config unset a limits.cpu.priority; config unset a limits.kernel.nofile",
        "launch bb a", "delete -f a",
    ),
    "instance start, another id map": Case(
        *_STARTED, "init bb a; config set a security.idmap.size=100000 linux.sysctl.net.ipv4.ip_forward=1",
        "delete -f a",
    ),
    "disk limit": Case(
        "config device override a root limits.max=1MB", "config device remove a root", "launch bb a", "delete -f a"
    ),
    "instance delete": Case("delete a", "init bb a", "init bb a", "delete -f a"),
    "instance delete, running": Case("delete -f a", "init bb a; start a", "launch bb a", "delete -f a", "stop -f a"),
    "instance import": Case(f"import {_BACKUP} a", "delete a"),
    "instance backup": Case(
        f"query --wait -X POST -d {{}} {_BACKUPS}", f"query --wait -X DELETE {_BACKUPS}/backup0",
        "init bb a", "delete -f a",
    ),
    "instance export, running": Case(f"export a {_BACKUP}.out", "version", "launch bb a", "delete -f a"),
    "instance rebuild": Case("rebuild other a", "rebuild bb a", "init bb a", "delete -f a"),
    "instance rebuild, dir": Case("rebuild other a", "rebuild bb a", "init bb a -s plain", "delete -f a"),
    "instance template": Case(
        "config template create a t", "config template delete a t", "init bb a", "delete -f a",
    ),
    "volume import": Case(f"storage volume import plain {_BACKUP}.volume v", "storage volume delete plain v"),
    "instance publish": Case("publish a --alias z", "image delete z", "init bb a", "delete -f a"),
    "snapshot": Case("snapshot a s", "delete a/s", "init bb a", "delete a"),
    "snapshot, running": Case("snapshot a s", "delete a/s", "launch bb a -s plain", "delete -f a"),
    "snapshot rename": Case("rename a/s a/t", "rename a/t a/s", "init bb a; snapshot a s", "delete a"),
    "snapshot delete": Case("delete a/s", "snapshot a s", "init bb a; snapshot a s", "delete a"),
    "snapshot set": Case(
        "config set -p a/s expires_at=2999-01-01T00:00:00Z", "config set -p a/s expires_at=0001-01-01T00:00:00Z",
        "init bb a; snapshot a s", "delete a",
    ),
    "copy": Case("copy a b", "delete b", "init bb a; snapshot a s", "delete a"),
    "copy, running, to another pool": Case("copy a b -s plain", "delete b", "launch bb a; snapshot a s", "delete -f a"),
    "copy, refreshed": Case(
        "copy a b --refresh", "delete b/s", "init bb a; copy a b; snapshot a s", "delete a b",
    ),
    "move to another pool": Case(
        "move a -s plain", "move a -s p", "storage create p dir; init bb a -s p; snapshot a s",
        "delete a; storage delete p",
    ),
    "move to another project": Case(
        "move a b --target-project p", "move b a --project p --target-project default",
        "project create p -c features.profiles=false -c features.images=false; init bb a; snapshot a s",
        "delete a; project delete p",
    ),
    "restore": Case(
        "restore a s", "config set a user.k=v", "init bb a; snapshot a s; config set a user.k=v", "delete a"
    ),
    "restore, running": Case(
        "restore a s", "start a; config set a user.k=v", "launch bb a; snapshot a s; config set a user.k=v",
        "delete -f a", "stop -f a",
    ),
    "network create": Case(_NET, "network delete lxz0"),
    "network set": Case(
        "network set lxz0 ipv4.address=10.95.1.1/24 dns.domain=x.example",
        "network set lxz0 ipv4.address=10.95.0.1/24; network unset lxz0 dns.domain", _NET, "network delete lxz0",
    ),
    "network rename": Case("network rename lxz0 lxz1", "network rename lxz1 lxz0", _NET, "network delete lxz0"),
    "network delete": Case("network delete lxz0", _NET, _NET, "network delete lxz0"),
    "forward create": Case(_FORWARD, "network forward delete lxz0 10.96.0.9", _NET, "network delete lxz0"),
    "forward port": Case(
        "network forward port add lxz0 10.96.0.9 tcp 80 10.95.0.7",
        "network forward port remove lxz0 10.96.0.9 tcp", f"{_NET}; {_FORWARD}", "network delete lxz0",
    ),
    "forward set": Case(
        "network forward set lxz0 10.96.0.9 target_address=10.95.0.8",
        "network forward set lxz0 10.96.0.9 target_address=10.95.0.7", f"{_NET}; {_FORWARD}", "network delete lxz0",
    ),
    "forward delete": Case(
        "network forward delete lxz0 10.96.0.9", _FORWARD, f"{_NET}; {_FORWARD}", "network delete lxz0"
    ),
    "acl create": Case("network acl create z", "network acl delete z"),
    "acl rule": Case(
        f"network acl rule add z {_RULE}", f"network acl rule remove z {_RULE}",
        f"network acl create z; {_NET} security.acls=z", "network delete lxz0; network acl delete z",
    ),
    "acl delete": Case("network acl delete z", "network acl create z", "network acl create z", "network acl delete z"),
    "acl set": Case("network acl set z user.k=v", "network acl unset z user.k", "network acl create z", _NO_ACL),
    "acl rename": Case("network acl rename z y", "network acl rename y z", "network acl create z", _NO_ACL),
    "image import": Case("image import DIR/image.tar.gz", "image delete IMAGE"),
    "image set": Case("image set-property IMAGE k=v", "image unset-property IMAGE k", _IMAGE, "image delete IMAGE"),
    "image delete": Case("image delete IMAGE", f"{_IMAGE} --alias z", f"{_IMAGE} --alias z", "image delete IMAGE"),
    "image delete, of an instance": Case(
        "image delete IMAGE", f"{_IMAGE}; init IMAGE b -s plain; delete -f b",  # the pool has a copy again
        f"{_IMAGE}; init IMAGE a -s plain", "delete -f a; image delete IMAGE",
    ),
    "alias create": Case("image alias create another bb", "image alias delete another"),
    "alias rename": Case("image alias rename y z", "image alias rename z y", _ALIAS, "image alias delete y"),
    "alias delete": Case("image alias delete y", _ALIAS, _ALIAS, "image alias delete y"),
    "pool create": Case("storage create p overlay", "storage delete p"),
    "pool create, btrfs": Case(_BTRFS, "storage delete p"),
    "pool set": Case("storage set p user.k=v", "storage unset p user.k", "storage create p dir", "storage delete p"),
    "pool delete": Case("storage delete p", "storage create p dir", "storage create p dir", "storage delete p"),
    "pool delete, btrfs": Case("storage delete p", _BTRFS, _BTRFS, "storage delete p"),
    "volume create": Case("storage volume create plain v", "storage volume delete plain v"),
    "volume set": Case(
        "storage volume set plain v user.k=v", "storage volume unset plain v user.k",
        "storage volume create plain v", "storage volume delete plain v",
    ),
    "volume rename": Case(
        "storage volume rename plain v w", "storage volume rename plain w v",
        "storage volume create plain v", "storage volume delete plain v",
    ),
    "snapshot of a volume": Case(
        "storage volume snapshot plain v s", "storage volume delete plain v/s",
        "storage volume create plain v", "storage volume delete plain v",
    ),
    "recover": Case(
        "recover --yes", "!forget p",
        "storage create p overlay; init bb a -s p; storage volume create p v; storage volume snapshot p v s; !forget p",
        "recover --yes; delete -f a; storage volume delete p v; storage delete p",
    ),
    "recover, btrfs": Case(
        "recover --yes", "!forget p", f"{_BTRFS}; profile create q; init bb a -s p -p default -p q; !forget p",
        "recover --yes; delete -f a; profile delete q; storage delete p",
    ),
    "nic, bridged": Case(
        f"{_PLUG} network=lxz0 limits.max=10Mbit", _UNPLUG, f"{_NET}; launch bb a", "delete -f a; network delete lxz0"
    ),
    "nic, routed": Case(_ROUTED, _UNPLUG, "launch bb a", "delete -f a"),
    "nic, p2p": Case(f"{_PLUG} nictype=p2p ipv4.routes=10.94.0.9/32", _UNPLUG, "launch bb a", "delete -f a"),
    "nic, macvlan": Case(_MACVLAN, _UNPLUG, "launch bb a", "delete -f a"),
    "nic, physical": Case(_PHYSICAL, _UNPLUG, "launch bb a", "delete -f a"),
    "nic, physical, unplugged": Case(_UNPLUG, _PHYSICAL, f"launch bb a; {_PHYSICAL}", "delete -f a"),
    "start with a physical nic": Case(*_STARTED, f"init bb a; {_PHYSICAL}", "delete -f a"),
    "stop with a physical nic": Case("stop -f a", "start a", f"init bb a; {_PHYSICAL}; start a", "delete -f a"),
    "start with a macvlan": Case(*_STARTED, f"init bb a; {_MACVLAN}", "delete -f a"),
    "start with a routed nic": Case(*_STARTED, f"init bb a; {_ROUTED}", "delete -f a"),
    "node": Case(_NODE, _UNPLUG, "launch bb a", "delete -f a"),
    "node, unplugged": Case(_UNPLUG, _NODE, f"launch bb a; {_NODE}", "delete -f a"),
    "node, changed": Case(
        "config device set a x mode=0600", "config device set a x mode=0604", f"launch bb a; {_NODE}", "delete -f a"
    ),
    "start with a node": Case(*_STARTED, f"init bb a; {_NODE}", "delete -f a"),
    "proxy": Case(_PROXY, _UNPLUG, "launch bb a", "delete -f a"),
    "proxy, unplugged": Case(_UNPLUG, _PROXY, f"launch bb a; {_PROXY}", "delete -f a"),
    "proxy, changed": Case(
        "config device set a x listen=tcp:127.0.0.1:19706", "config device set a x listen=tcp:127.0.0.1:19705",
        f"launch bb a; {_PROXY}", "delete -f a",
    ),
    "proxy on a socket inside": Case(_INSIDE, _UNPLUG, "launch bb a", "delete -f a"),
    "start with a proxy": Case(*_STARTED, f"init bb a; {_PROXY}", "delete -f a"),
    "stop with a proxy": Case("stop -f a", "start a", f"init bb a; {_PROXY}; start a", "delete -f a"),
    "proxy with nat": Case(_NAT, _UNPLUG, f"launch bb a; {_ROUTED.replace(' x ', ' y ')}", "delete -f a"),
    "stop with nat": Case(
        "stop -f a", "start a", f"init bb a; {_ROUTED.replace(' x ', ' y ')}; {_NAT}; start a", "delete -f a"
    ),
    "share": Case("share /usr a:/d", "unshare a:/d", "launch bb a", "delete -f a"),
    "unshare": Case("unshare a:/d", "share /usr a:/d", "launch bb a; share /usr a:/d", "delete -f a"),
    "profile create": Case("profile create p", "profile delete p"),
    "profile set": Case(
        "profile set p limits.memory=64MiB user.k=v", "profile unset p limits.memory; profile unset p user.k",
        "profile create p; launch bb a -p default -p p", "delete -f a; profile delete p",
    ),
    "profile device": Case(
        "profile device add p d disk source=/usr path=/d", "profile device remove p d",
        "profile create p; launch bb a -p default -p p", "delete -f a; profile delete p",
    ),
    "profile assign": Case(
        "profile assign a default,p", "profile assign a default",
        "profile create p; profile set p limits.memory=64MiB; launch bb a", "delete -f a; profile delete p",
    ),
    "profile copy": Case("profile copy default p", "profile delete p"),
    "profile rename": Case("profile rename p q", "profile rename q p", "profile create p", "profile delete p"),
    "profile delete": Case("profile delete p", "profile create p", "profile create p", "profile delete p"),
    "project create": Case("project create p", "project delete p"),
    "project set": Case(
        "project set p limits.cpu=4 features.images=false", "project set p limits.cpu= features.images=true",
        "project create p", "project delete p",
    ),
    "project rename": Case("project rename p q", "project rename q p", "project create p", "project delete p"),
    "project delete": Case("project delete p", "project create p", "project create p", "project delete p"),
    "certificate add": Case(_TRUST, "config trust remove k"),
    "certificate edit": Case("config trust rename k l", "config trust rename l k", _TRUST, "config trust remove k"),
    "certificate remove": Case("config trust remove k", _TRUST, _TRUST, "config trust remove k"),
    "token add": Case("config trust add --name t", "config trust revoke-token t", _LISTEN, _DEAF),
    "token revoke": Case(
        "config trust revoke-token t", "config trust add --name t",
        f"{_LISTEN}; config trust add --name t", f"config trust revoke-token t; {_DEAF}",
    ),
    "server config": Case(
        "config set user.k=v core.https_address=127.0.0.1:19704",
        "config unset user.k; config unset core.https_address",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def fused() -> Iterator[Lxpyd]:
    """A daemon that can be ended at any step, in a network of its own with the interface ``lxzp`` of the host."""
    with namespace.own_network():
        number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        daemon = Lxpyd("e", number + 210)
        daemon.launcher = "lxpyd-fused"
        _host("ip link add lxzp address 02:11:22:33:44:55 mtu 1490 type veth peer lxzq")
        _host("ip link set lxzp up")
        (daemon.dir / "image.tar.gz").write_bytes(unified_tar())
        new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=k -keyout /dev/null"
        _host(f"{new} -out {daemon.dir}/k.crt")
        daemon.start()
        try:
            daemon.initialise()
            _do(daemon, "init bb a; init bb b -s plain; delete a b")  # the pools keep the image
            _do(daemon, f"init bb a; export a {_BACKUP} --compression none; publish a --alias other o=ther; delete a")
            _do(daemon, f"storage volume create plain v; storage volume export plain v {_BACKUP}.volume")
            _do(daemon, "storage volume delete plain v; init other a; init other b -s plain; delete a b")
            until(lambda: not list(daemon.dir.glob("storage-pools/*/tmp/*")), 10, "deleted trees stay")
            yield daemon
        finally:
            Fuse(daemon.dir / "fuse").disarm()
            daemon.destroy()
        leftovers.check(daemon)


@pytest.mark.timeout(3600 if _ALL else 120)
@pytest.mark.parametrize("name", CASES)
def test_killed_before_each_step(fused: Lxpyd, name: str) -> None:
    case = CASES[name]
    bare = _settled(fused)
    try:
        _try(fused, name, case)
    finally:
        Fuse(fused.dir / "fuse").disarm()
        if fused.process is None:
            fused.start()
        _do(fused, f"{case.back}; {case.after}" if case.before else case.back, check=False)
    _is(fused, bare)


def _try(daemon: Lxpyd, name: str, case: Case) -> None:
    fuse = Fuse(daemon.dir / "fuse")
    _do(daemon, case.before)
    allowed = [_settled(daemon)]
    for command in filter(None, case.between.split("; ")):
        _do(daemon, command)
        allowed.append(_settled(daemon))
    _take_back(daemon, case, allowed[0])
    fuse.arm()
    _do(daemon, case.change)
    number = _count(fuse)
    fuse.disarm()
    allowed.append(_settled(daemon))
    assert number > 0
    _take_back(daemon, case, allowed[0])
    chosen = range(1, number + 1) if _ALL else sorted({round(number * (k + 0.5) / _FEW) for k in range(_FEW)} - {0})
    failed = []
    for n in chosen:
        fuse.arm(n)
        process = daemon.spawn(*_words(daemon, case.change))
        assert process.stdin and daemon.process
        process.stdin.close()
        process.stdin = None
        end = time.monotonic() + 30
        while daemon.process.poll() is None and time.monotonic() < end:
            if process.poll() is not None and n > len(fuse.steps()):
                _count(fuse)
                break
            time.sleep(0.01)
        said = process.communicate(timeout=30)[1].decode()
        step = f"{name}: before step {n}, {fuse.steps()[-1:]}"
        daemon.kill()
        fuse.disarm()
        daemon.start()
        assert "Traceback" not in said, f"{step}: {said}"
        found = _reached(daemon, allowed)
        if found not in allowed:
            nearest = min((difference(one, found) for one in allowed), key=len)
            failed.append(f"{step}:\n{nearest}\n{_warnings(daemon)}")
        _take_back(daemon, case, allowed[0])
    assert not failed, "\n\n".join(failed)


def _do(daemon: Lxpyd, commands: str, *, check: bool = True) -> None:
    for command in filter(None, commands.split("; ")):
        if command.startswith("!forget "):
            _forget(daemon, command.split()[1])
            continue
        daemon.cli(*_words(daemon, command), input="", check=check)


def _words(daemon: Lxpyd, command: str) -> list[str]:
    image = hashlib.sha256((daemon.dir / "image.tar.gz").read_bytes()).hexdigest()
    return [word.replace("DIR", str(daemon.dir)).replace("IMAGE", image) for word in command.split()]


def _forget(daemon: Lxpyd, pool: str) -> None:
    time.sleep(0.2)  # what is beside the volumes is written a moment later
    daemon.kill(signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(daemon.layout.database)) as db, db:
        db.execute("PRAGMA foreign_keys = ON")
        for table, column in (("instances", "pool"), ("volumes", "pool"), ("pools", "name")):
            db.execute(f"DELETE FROM {table} WHERE {column} = ?", (pool,))
        db.execute("DELETE FROM profiles WHERE name = 'q'")
    unmount_all(str(daemon.dir / "storage-pools" / pool))
    for path in (daemon.dir / "storage-pools" / pool / "images").glob("*"):
        if path.is_dir() and not list(path.iterdir()):
            path.rmdir()  # where an image was mounted
    daemon.start()


def _settled(daemon: Lxpyd) -> World:
    """The world once two looks at it are the same."""
    found = [world(daemon)]

    def same() -> bool:
        time.sleep(0.1)
        found.append(world(daemon))
        return found[-1] == found[-2]

    until(same, 10, "no rest")
    return found[-1]


def _count(fuse: Fuse) -> int:
    """How many steps there are once none has been added for a while."""
    seen = [-1]

    def still() -> bool:
        seen.append(len(fuse.steps()))
        return seen[-1] == seen[-2]

    until(still, 10, "steps without end", every=0.25)
    return seen[-1]


def _reached(daemon: Lxpyd, allowed: list[World]) -> World:
    """The world as it is once it is one of the allowed ones, or after some patience."""
    found: list[World] = []

    def one_of_them() -> bool:
        found.append(world(daemon))
        return found[-1] in allowed

    try:
        until(one_of_them, 5, "")
    except AssertionError:
        pass
    return found[-1]


def _take_back(daemon: Lxpyd, case: Case, before: World) -> None:
    if world(daemon) != before:
        _do(daemon, case.back, check=False)
    _is(daemon, before)


def _is(daemon: Lxpyd, expected: World) -> None:
    found = _reached(daemon, [expected])
    if found != expected:
        pytest.fail(difference(expected, found))


def _warnings(daemon: Lxpyd) -> str:
    return "\n".join(one["last_message"] for one in daemon.json("query", "/1.0/warnings?recursion=1"))


def _host(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True)
