"""Proxy devices: both directions, every pair of kinds, ranges, ends of connections, crashes, nat."""

import contextlib
import hashlib
import json
import os
import pathlib
import signal
import socket
import stat
import struct
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support import peers
from tests.support.daemon import Lxpyd, until


def _proxy(lxpyd: Lxpyd, name: str, listen: str, connect: str, *keys: str, device: str = "p") -> None:
    lxpyd.cli("config", "device", "add", name, device, "proxy", f"listen={listen}", f"connect={connect}", *keys)


def _processes(lxpyd: Lxpyd, name: str) -> list[int]:
    """The pids of an instance's proxies."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            title = (entry / "cmdline").read_bytes().rstrip(b"\0").decode()
            environment = (entry / "environ").read_bytes()
            if title.startswith(f"lxpy proxy: {name} ") and f"LXPY_DIR={lxpyd.dir}\0".encode() in environment:
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("privileged", ["false", "true"])
def test_tcp_into_an_instance(lxpyd: Lxpyd, name: str, privileged: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", f"security.privileged={privileged}")
    _proxy(lxpyd, name, "tcp:127.0.0.1:7001", "tcp:127.0.0.1:80")
    server = peers.inside(lxpyd.init_pid(name), lambda: peers.listener("127.0.0.1", 80))
    client = peers.connect("127.0.0.1", 7001)
    there = peers.accept(server)
    client.sendall(b"question")
    assert there.recv(100) == b"question"
    # The end of one direction is passed on, and the other goes on.
    client.shutdown(socket.SHUT_WR)
    assert there.recv(100) == b""
    there.sendall(b"a late answer")
    there.close()
    assert peers.everything(client) == b"a late answer"
    client.close()
    server.close()
    lxpyd.cli("config", "device", "remove", name, "p")
    with pytest.raises(ConnectionRefusedError):
        peers.connect("127.0.0.1", 7001)
    assert not _processes(lxpyd, name)


def test_much_in_both_directions_at_once(lxpyd: Lxpyd, busybox: str) -> None:
    _proxy(lxpyd, busybox, "tcp:[::1]:7002", "tcp:[::1]:81")
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("::1", 81))
    client = peers.connect("::1", 7002)
    there = peers.accept(server)
    data = os.urandom(1 << 20) * 24
    found: dict[str, str] = {}

    def read(label: str, sock: socket.socket) -> None:
        sock.settimeout(30)
        digest = hashlib.sha256()
        while part := sock.recv(1 << 16):
            digest.update(part)
        found[label] = digest.hexdigest()

    def write(sock: socket.socket) -> None:
        sock.settimeout(30)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    threads = [threading.Thread(target=write, args=[one]) for one in (client, there)]
    threads += [threading.Thread(target=read, args=one) for one in (("client", client), ("there", there))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for sock in (client, there, server):
        sock.close()
    assert found == dict.fromkeys(("client", "there"), hashlib.sha256(data).hexdigest())


def test_resets_are_passed_on(lxpyd: Lxpyd, busybox: str) -> None:
    """What was cut off does not look complete, on neither side."""
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7003", "tcp:127.0.0.1:82")
    with pytest.raises(ConnectionResetError), peers.connect("127.0.0.1", 7003) as client:
        client.recv(1)  # nobody listens inside
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 82))
    for mine_first in (True, False):
        client = peers.connect("127.0.0.1", 7003)
        there = peers.accept(server)
        client.sendall(b"x")
        assert there.recv(1) == b"x"
        cut, other = (client, there) if mine_first else (there, client)
        other.shutdown(socket.SHUT_WR)  # even while the other side has ended its own direction
        assert cut.recv(1) == b""
        cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        cut.close()
        with pytest.raises(ConnectionResetError):
            other.recv(1)
        other.close()
    server.close()


def test_out_of_an_instance(lxpyd: Lxpyd, busybox: str) -> None:
    """bind=instance: listens inside, connects from the host; at an address that the instance has not got yet, too."""
    server = peers.listener("127.0.0.1", 7004)
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:83", "tcp:127.0.0.1:7004", "bind=instance")
    _proxy(lxpyd, busybox, "tcp:192.0.2.77:83", "tcp:127.0.0.1:7004", "bind=guest", device="q")
    pid = lxpyd.init_pid(busybox)
    lxpyd.sh(busybox, "ip address add 192.0.2.77/32 dev lo")
    for host in ("127.0.0.1", "192.0.2.77"):
        client = peers.inside(pid, lambda host=host: peers.connect(host, 83))  # type: ignore[misc]
        there = peers.accept(server)
        client.sendall(b"hello")
        client.close()
        assert peers.everything(there) == b"hello"
        there.close()
    server.close()
    with pytest.raises(ConnectionResetError), peers.inside(pid, lambda: peers.connect("127.0.0.1", 83)) as client:
        client.recv(1)


def test_ranges_and_lists_of_ports(lxpyd: Lxpyd, busybox: str) -> None:
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7010-7012,7020", "tcp:127.0.0.1:1010-1013")
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7030-7069", "tcp:127.0.0.1:1010", "bind=host", device="q")
    pid = lxpyd.init_pid(busybox)
    servers = {
        port: peers.inside(pid, lambda port=port: peers.listener("127.0.0.1", port)) for port in range(1010, 1014)
    }  # type: ignore[misc]
    wanted = dict(zip((7010, 7011, 7012, 7020), servers, strict=True)) | dict.fromkeys((7030, 7069), 1010)
    for port, inner in wanted.items():
        with peers.connect("127.0.0.1", port):
            peers.accept(servers[inner]).close()
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:2000-2039", "tcp:127.0.0.1:7079", "bind=instance", device="r")
    with peers.listener("127.0.0.1", 7079) as outside, peers.inside(pid, lambda: peers.connect("127.0.0.1", 2039)):
        peers.accept(outside).close()
    for server in servers.values():
        server.close()


def test_datagrams(lxpyd: Lxpyd, busybox: str) -> None:
    """Each sender has a session of its own, and is answered from the address it wrote to."""
    _proxy(lxpyd, busybox, "udp:0.0.0.0:7100", "udp:127.0.0.1:53")
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 53, socket.SOCK_DGRAM))
    clients = [peers.connect(host, 7100, socket.SOCK_DGRAM) for host in ("127.0.0.1", lxpyd.address, "127.0.0.9")]
    for number, client in enumerate(clients):
        client.send(b"%d" % number)
    senders = {}
    for _ in clients:
        data, sender = server.recvfrom(100)
        senders[data] = sender
    assert len(set(senders.values())) == len(clients)
    for number, client in enumerate(clients):
        server.sendto(b"to %d" % number, senders[b"%d" % number])
        assert client.recv(100) == b"to %d" % number  # a connected socket hears its own peer only
    big = os.urandom(60000)
    clients[0].send(big)
    assert server.recvfrom(65535)[0] == big
    server.close()
    clients[0].send(b"into the void")  # refused inside: the next one is taken all the same
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 53, socket.SOCK_DGRAM))

    def taken() -> bool:
        clients[0].send(b"again")
        server.settimeout(0.2)
        try:
            return server.recvfrom(100)[0] == b"again"
        except TimeoutError:
            return False

    until(taken, 10, "no datagram comes through")
    for sock in (*clients, server):
        sock.close()


def test_between_streams_and_datagrams(lxpyd: Lxpyd, busybox: str) -> None:
    pid = lxpyd.init_pid(busybox)
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7110", "udp:127.0.0.1:54")
    datagrams = peers.inside(pid, lambda: peers.listener("127.0.0.1", 54, socket.SOCK_DGRAM))
    with peers.connect("127.0.0.1", 7110) as client:
        client.sendall(b"one")
        data, sender = datagrams.recvfrom(100)
        assert data == b"one"
        datagrams.sendto(b"two", sender)
        assert client.recv(100) == b"two"
    datagrams.close()
    _proxy(lxpyd, busybox, "udp:127.0.0.1:7111", "tcp:127.0.0.1:55", device="q")
    stream = peers.inside(pid, lambda: peers.listener("127.0.0.1", 55))
    with peers.connect("127.0.0.1", 7111, socket.SOCK_DGRAM) as client:
        client.send(b"one")
        there = peers.accept(stream)
        assert there.recv(100) == b"one"
        there.sendall(b"two")
        assert client.recv(100) == b"two"
        there.close()
    stream.close()


def test_unix_sockets_with_owner_and_mode(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    """A file on either side; what listens has the owner asked for, and who connects is who it is asked to be."""
    path = tmp_path / "in.sock"
    _proxy(lxpyd, busybox, f"unix:{path}", "tcp:127.0.0.1:90", "uid=12", "gid=34", "mode=0620")
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12, 34, 0o620)
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 90))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert peers.everything(peers.accept(server)) == b"hello"
    server.close()
    outer = tmp_path / "out.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(outer))
        listening.listen()
        listening.settimeout(10)
        outer.chmod(0o777)
        tmp_path.chmod(0o755)
        for parent in tmp_path.parents[:-2]:
            parent.chmod(parent.stat().st_mode | 0o055)
        _proxy(
            lxpyd, busybox, "unix:/root/o.sock", f"unix:{outer}", "bind=instance", "uid=5", "gid=6", "mode=0606",
            "security.uid=77", "security.gid=78", device="q",
        )  # fmt: skip
        assert lxpyd.sh(busybox, "stat -c '%F %u:%g %a' /root/o.sock").stdout == "socket 5:6 606\n"
        root = os.open(f"/proc/{lxpyd.init_pid(busybox)}/root/root", os.O_PATH | os.O_DIRECTORY)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"/proc/self/fd/{root}/o.sock")
            there = peers.accept(listening)
            credentials = struct.unpack("3i", there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            assert credentials[1:] == (77, 78)
            there.close()
        os.close(root)
    lxpyd.cli("config", "device", "remove", busybox, "q")
    assert lxpyd.sh(busybox, "ls -A /root").stdout == ""
    lxpyd.cli("stop", "-f", busybox)
    assert not path.exists()
    path.write_text("not a socket")
    failed = lxpyd.cli("start", busybox, check=False)
    assert failed.returncode == 1
    assert f"cannot listen on {path}: Address already in use" in failed.stderr
    assert path.read_text() == "not a socket"
    assert lxpyd.status(busybox) == "STOPPED"


def test_abstract_unix_sockets(lxpyd: Lxpyd, busybox: str) -> None:
    pid = lxpyd.init_pid(busybox)
    _proxy(lxpyd, busybox, f"unix:@lxpy/{busybox}", "unix:@inner")

    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.bind("\0inner")
        sock.listen()
        return sock

    server = peers.inside(pid, listen)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0lxpy/{busybox}")
        client.sendall(b"abstract")
        there = peers.accept(server)
        assert there.recv(100) == b"abstract"
        # Inside it is the guest's root that has connected.
        assert struct.unpack("3i", there.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] >= 10_000_000
        there.close()
    server.close()


def test_links_inside_lead_nowhere_outside(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    """A path that is connected to inside is the guest's, whatever links it lays out."""
    with socket.socket(socket.AF_UNIX) as secret:
        secret.bind(str(tmp_path / "secret.sock"))
        secret.listen()
        secret.settimeout(0.3)
        lxpyd.sh(busybox, f"ln -s {tmp_path}/secret.sock /a.sock; ln -s /proc/1/root{tmp_path}/secret.sock /b.sock")
        for number, path in enumerate(("/a.sock", "/b.sock", f"{tmp_path}/secret.sock")):
            _proxy(lxpyd, busybox, f"tcp:127.0.0.1:{7120 + number}", f"unix:{path}", device=f"p{number}")
            with pytest.raises(ConnectionResetError), peers.connect("127.0.0.1", 7120 + number) as client:
                client.recv(1)
        with pytest.raises(TimeoutError):
            secret.accept()


def test_the_proxy_protocol(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    pid = lxpyd.init_pid(busybox)
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7130", "tcp:127.0.0.1:91", "proxy_protocol=true")
    _proxy(lxpyd, busybox, "tcp:[::1]:7131", "tcp:127.0.0.1:91", "proxy_protocol=true", device="q")
    _proxy(lxpyd, busybox, f"unix:{tmp_path}/s", "tcp:127.0.0.1:91", "proxy_protocol=true", device="r")
    server = peers.inside(pid, lambda: peers.listener("127.0.0.1", 91))
    for host, family in (("127.0.0.1", "TCP4"), ("::1", "TCP6")):
        with peers.connect(host, 7130 if family == "TCP4" else 7131) as client:
            client.sendall(b"GET /")
            client.shutdown(socket.SHUT_WR)
            mine, theirs = client.getsockname(), client.getpeername()
            line = f"PROXY {family} {mine[0]} {theirs[0]} {mine[1]} {theirs[1]}\r\n"
            assert peers.everything(peers.accept(server)) == line.encode() + b"GET /"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{tmp_path}/s")
        client.shutdown(socket.SHUT_WR)
        assert peers.everything(peers.accept(server)) == b"PROXY UNKNOWN\r\n"
    server.close()


def test_many_connections_at_once(lxpyd: Lxpyd, busybox: str) -> None:
    """As many as the limits of this process allow, all open, all alive, in one process of the proxy's."""
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7140", "tcp:127.0.0.1:92")
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 92))
    pairs = []
    for number in range(400):
        client = peers.connect("127.0.0.1", 7140)
        there = peers.accept(server)
        pairs.append((client, there))
        client.sendall(b"%d" % number)
    for number, (client, there) in enumerate(pairs):
        assert there.recv(10) == b"%d" % number
        there.sendall(b"-%d" % number)
        assert client.recv(10) == b"-%d" % number
    (pid,) = _processes(lxpyd, busybox)
    # Idle connections hold their two sockets and no pipe.
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 2 * len(pairs) + 60, 5, "pipes are held")
    for client, there in pairs:
        client.close()
        there.close()
    until(lambda: len(os.listdir(f"/proc/{pid}/fd")) < 60, 10, "descriptors stay")
    server.close()


def test_its_process_keeps_no_rights(lxpyd: Lxpyd, busybox: str) -> None:
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7150", "tcp:127.0.0.1:93")
    (pid,) = _processes(lxpyd, busybox)
    fields = dict(
        line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    base = os.stat(f"/proc/{lxpyd.init_pid(busybox)}").st_uid
    assert {int(word) for word in fields["Uid"].split()} == {base}
    assert fields["Groups"].split() == []
    assert int(fields["CapPrm"], 16) == int(fields["CapEff"], 16) == 1 << 1
    assert os.readlink(f"/proc/{pid}/ns/user") == os.readlink(f"/proc/{lxpyd.init_pid(busybox)}/ns/user")
    assert f".supervisor.{busybox}" in pathlib.Path(f"/proc/{pid}/cgroup").read_text()
    assert lxpyd.sh(busybox, "ls /proc | grep -c '^[0-9]'").stdout.strip().isdigit()  # not among its processes


def test_the_daemon_is_killed_and_the_proxy_is_not(lxpyd: Lxpyd, busybox: str) -> None:
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7160", "tcp:127.0.0.1:94")
    server = peers.inside(lxpyd.init_pid(busybox), lambda: peers.listener("127.0.0.1", 94))
    client = peers.connect("127.0.0.1", 7160)
    there = peers.accept(server)
    before = _processes(lxpyd, busybox)
    lxpyd.kill()
    client.sendall(b"still there")
    assert there.recv(100) == b"still there"
    lxpyd.start()
    assert _processes(lxpyd, busybox) == before
    client.sendall(b"and now")
    assert there.recv(100) == b"and now"
    # Killed itself, it comes again, and that is told.
    os.kill(before[0], signal.SIGKILL)
    until(lambda: _processes(lxpyd, busybox) not in ([], before), 10, "it does not come again")

    def works() -> bool:
        try:
            with peers.connect("127.0.0.1", 7160):
                peers.accept(server).close()
            return True
        except OSError:
            return False

    until(works, 10, "it does not work again")
    told = [one["last_message"] for one in lxpyd.json("query", "/1.0/warnings?recursion=1")]
    assert any("was killed and is started again" in message for message in told)
    # Killed while there is no daemon: the next one starts it.
    lxpyd.kill()
    os.kill(_processes(lxpyd, busybox)[0], signal.SIGKILL)
    lxpyd.start()
    until(works, 10, "it does not work again")
    for sock in (client, there, server):
        sock.close()


def test_it_ends_with_its_instance_and_comes_with_it(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7170", "tcp:127.0.0.1:95")
    _proxy(lxpyd, busybox, f"unix:{tmp_path}/s", "tcp:127.0.0.1:95", device="q")
    _proxy(lxpyd, busybox, "unix:/tmp/inner.sock", "tcp:127.0.0.1:7171", "bind=instance", device="r")
    before = _processes(lxpyd, busybox)
    assert len(before) == 3
    lxpyd.cli("exec", busybox, "--", "reboot", check=False)
    until(lambda: len(now := _processes(lxpyd, busybox)) == 3 and not set(now) & set(before), 20, "not after a reboot")
    lxpyd.wait_status(busybox, "RUNNING")
    lxpyd.cli("stop", "-f", busybox)
    assert not _processes(lxpyd, busybox)
    assert not (tmp_path / "s").exists()
    lxpyd.cli("rename", busybox, f"{busybox}-new")
    lxpyd.cli("start", f"{busybox}-new")
    assert len(_processes(lxpyd, f"{busybox}-new")) == 3
    # It ends while no daemon runs: nothing is left when there is one again.
    lxpyd.kill()
    os.kill(lxpyd_init(lxpyd, f"{busybox}-new"), signal.SIGKILL)
    until(lambda: not _processes(lxpyd, f"{busybox}-new"), 10, "proxies stay")
    lxpyd.start()
    assert not (tmp_path / "s").exists()
    lxpyd.cli("start", f"{busybox}-new", check=False)
    assert len(_processes(lxpyd, f"{busybox}-new")) == 3


def lxpyd_init(lxpyd: Lxpyd, name: str) -> int:
    """The pid of an instance's init, without asking the daemon."""
    for state in pathlib.Path(lxpyd.layout.instances).glob("*/state.json"):
        found = json.loads(state.read_text())
        if found["name"] == name:
            return int(found["init"])
    raise AssertionError(f"{name} does not run")


def test_a_socket_hidden_by_the_booting_guest_is_made_anew(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    _proxy(lxpyd, name, "unix:/late/x.sock", "tcp:127.0.0.1:7180", "bind=instance")
    lxpyd.cli("start", name)  # there is no such directory yet
    lxpyd.sh(name, "mkdir /late")
    until(lambda: lxpyd.sh(name, "test -S /late/x.sock", check=False).returncode == 0, 10, "it does not come")
    lxpyd.sh(name, "mount -t tmpfs none /late")
    until(lambda: lxpyd.sh(name, "test -S /late/x.sock", check=False).returncode == 0, 10, "it does not come again")
    assert len(_processes(lxpyd, name)) == 1


def test_what_cannot_be_listened_on(lxpyd: Lxpyd, busybox: str) -> None:
    with peers.listener("127.0.0.1", 7190):
        failed = lxpyd.cli(
            "config", "device", "add", busybox, "p", "proxy", "listen=tcp:127.0.0.1:7189-7190",
            "connect=tcp:127.0.0.1:1", check=False,
        )  # fmt: skip
    assert failed.returncode == 1
    assert "cannot listen on 127.0.0.1:7190: Address already in use" in failed.stderr
    assert not lxpyd.json("query", f"/1.0/instances/{busybox}")["devices"]
    assert not _processes(lxpyd, busybox)
    failed = lxpyd.cli(
        "config",
        "device",
        "add",
        busybox,
        "p",
        "proxy",
        "listen=unix:/no/where",
        "connect=tcp:127.0.0.1:1",
        check=False,
    )
    assert "cannot listen on /no/where: No such file or directory" in failed.stderr


@pytest.fixture(scope="module")
def bad_target(lxpyd: Lxpyd) -> Iterator[str]:
    lxpyd.cli("launch", "bb", "proxies-bad")
    yield "proxies-bad"
    lxpyd.cli("delete", "-f", "proxies-bad")


_TO = "connect=tcp:127.0.0.1:1"


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (_TO, "Missing listen"),
        ("listen=tcp:127.0.0.1:1", "Missing connect"),
        (f"listen=tcp:localhost:80 {_TO}", "an IP address, not a name"),
        (f"listen=tcp:::80 {_TO}", "IPv6 in brackets"),
        (f"listen=tcp:[127.0.0.1]:80 {_TO}", "IPv6 in brackets"),
        (f"listen=sctp:127.0.0.1:80 {_TO}", "tcp:IP:PORT"),
        (f"listen=tcp:127.0.0.1 {_TO}", "tcp:IP:PORT"),
        (f"listen=tcp:127.0.0.1:0 {_TO}", "within 1 to 65535"),
        (f"listen=tcp:127.0.0.1:65536 {_TO}", "within 1 to 65535"),
        (f"listen=tcp:127.0.0.1:90-80 {_TO}", "runs backwards"),
        (f"listen=tcp:127.0.0.1:80,79-81 {_TO}", "named twice"),
        (f"listen=tcp:127.0.0.1:80- {_TO}", "is not a port or range"),
        (f"listen=unix:run/x {_TO}", "absolute path"),
        (f"listen=unix:@ {_TO}", "absolute path"),
        (f"listen=unix:/a/../b {_TO}", "without .."),
        (f"listen=unix:/{'x' * 120} {_TO}", "at most 107 bytes"),
        ("listen=tcp:127.0.0.1:80-82 connect=tcp:127.0.0.1:80-81", "3 ports"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} bind=nowhere", "host or instance"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} mode=0600", "unix socket with a path"),
        (f"listen=unix:@x {_TO} uid=1", "unix socket with a path"),
        (f"listen=unix:/x {_TO} mode=9", "octal"),
        (f"listen=unix:/x {_TO} uid=-1", "whole number"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} security.uid=70000", "has the ids 0 to 65535"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} security.gid=x", "whole number"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} nat=perhaps", "boolean"),
        ("listen=tcp:127.0.0.1:7200 connect=udp:127.0.0.1:1 proxy_protocol=true", "led on to tcp"),
        (f"listen=udp:127.0.0.1:7200 {_TO} proxy_protocol=true", "led on to tcp"),
        (f"listen=tcp:0.0.0.0:7200 {_TO} nat=true", "is any"),
        (f"listen=tcp:127.0.0.1:7200 {_TO} nat=true", "cannot listen on"),
        ("listen=tcp:192.0.2.1:7200 connect=udp:10.0.0.1:1 nat=true", "tcp to tcp"),
        ("listen=tcp:192.0.2.1:7200 connect=tcp:10.0.0.1:1 nat=true bind=instance", "bind=host"),
        ("listen=tcp:192.0.2.1:7200 connect=tcp:[fd42::1]:1 nat=true", "from IPv4 to IPv6"),
        ("listen=tcp:192.0.2.1:7200 connect=tcp:10.0.0.1:1 nat=true", "no nic has a static ipv4.address"),
        ("listen=tcp:192.0.2.1:7200 connect=tcp:10.0.0.1:1 nat=true security.uid=1", "nat needs none"),
        (f"listn=tcp:127.0.0.1:7200 {_TO}", "did you mean 'listen'"),
    ],
)
def test_bad_input(lxpyd: Lxpyd, bad_target: str, keys: str, reason: str) -> None:
    failed = lxpyd.cli("config", "device", "add", bad_target, "x", "proxy", *keys.split(), check=False)
    assert failed.returncode == 1
    assert reason in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not lxpyd.json("query", f"/1.0/instances/{bad_target}")["devices"]
    assert not _processes(lxpyd, bad_target)


def test_two_proxies_of_one_instance_on_one_address(lxpyd: Lxpyd, busybox: str) -> None:
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7210-7212", "tcp:127.0.0.1:1")
    failed = lxpyd.cli(
        "config", "device", "add", busybox, "q", "proxy", "listen=tcp:127.0.0.1:7211", "connect=tcp:127.0.0.1:2",
        check=False,
    )  # fmt: skip
    assert "both listen on tcp:127.0.0.1:7211" in failed.stderr
    lxpyd.cli("config", "device", "set", busybox, "p", "listen=tcp:127.0.0.1:7213")  # changed: the old port is free
    lxpyd.cli("config", "device", "add", busybox, "q", "proxy", "listen=tcp:127.0.0.1:7211", "connect=tcp:127.0.0.1:2")


def test_projects_that_forbid_proxies(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("project", "create", name, "-c", "features.images=false", "-c", "features.profiles=false")
    try:
        lxpyd.cli("project", "set", name, "restricted=true", "restricted.devices.nic=allow")
        lxpyd.cli("launch", "bb", name, "--project", name)
        line = (
            "config", "device", "add", name, "p", "proxy", "listen=tcp:127.0.0.1:7220", "connect=tcp:127.0.0.1:1",
            "--project", name,
        )  # fmt: skip
        failed = lxpyd.cli(*line, check=False)
        assert "restricted.devices.proxy" in failed.stderr
        lxpyd.cli("project", "set", name, "restricted.devices.proxy=allow")
        lxpyd.cli(*line)
        assert len(_processes(lxpyd, f"{name}_{name}")) == 1
    finally:
        lxpyd.cli("delete", "-f", name, "--project", name)
        lxpyd.cli("project", "delete", name)


def _table(lxpyd: Lxpyd) -> str:
    command = ["nft", "list", "table", "inet", lxpyd.layout.nft_proxy_table]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_nat(lxpyd: Lxpyd, name: str) -> None:
    """Led by the kernel: the instance sees who it really is, and asks itself by way of the host, too."""
    address = f"10.97.{lxpyd.number}.77"
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("config", "device", "override", name, "eth0", f"ipv4.address={address}")
    lxpyd.cli("start", name)
    lxpyd.wait_address(name)
    _proxy(lxpyd, name, f"tcp:{lxpyd.address}:7300-7302", "tcp:0.0.0.0:80", "nat=true")
    _proxy(lxpyd, name, f"udp:{lxpyd.address}:7310-7311", f"udp:{address}:53-54", "nat=true", device="q")
    assert not _processes(lxpyd, name)
    pid = lxpyd.init_pid(name)
    server = peers.inside(pid, lambda: peers.listener("0.0.0.0", 80))
    for where, port in (("host", 7300), ("itself", 7302)):

        def ask(port: int = port) -> socket.socket:
            return peers.connect(lxpyd.address, port)

        client = ask() if where == "host" else peers.inside(pid, ask)
        there, (sender, _port) = server.accept()
        assert sender == lxpyd.address  # the host's own, and for the hairpin the bridge's
        client.sendall(b"x")
        client.close()
        assert peers.everything(there) == b"x"
        there.close()
    datagrams = peers.inside(pid, lambda: peers.listener(address, 54, socket.SOCK_DGRAM))
    with peers.connect(lxpyd.address, 7311, socket.SOCK_DGRAM) as client:
        client.send(b"question")
        data, sender = datagrams.recvfrom(100)
        assert data == b"question"
        datagrams.sendto(b"answer", sender)
        assert client.recv(100) == b"answer"
    failed = lxpyd.cli("config", "device", "set", name, "eth0", "ipv4.address=", check=False)
    assert "needs the static address of a nic" in failed.stderr
    rules = _table(lxpyd)
    lxpyd.restart(kill=True)
    assert _table(lxpyd) == rules
    subprocess.run(["nft", "delete", "table", "inet", lxpyd.layout.nft_proxy_table], check=True)
    until(lambda: _table(lxpyd) == rules, 10, "nobody mends it")
    clash = lxpyd.cli("init", "bb", f"{name}-b", "-d", f"eth0,ipv4.address=10.97.{lxpyd.number}.78", check=False)
    assert clash.returncode == 0, clash.stderr
    _proxy(lxpyd, f"{name}-b", f"tcp:{lxpyd.address}:7301", f"tcp:10.97.{lxpyd.number}.78:80", "nat=true")
    failed = lxpyd.cli("start", f"{name}-b", check=False)
    assert "leads" in failed.stderr
    assert "already" in failed.stderr
    lxpyd.cli("config", "device", "remove", name, "q")
    assert "7310" not in _table(lxpyd)
    lxpyd.cli("stop", "-f", name)
    assert not _table(lxpyd)
    for sock in (server, datagrams):
        sock.close()


def test_nat_of_a_routed_nic_and_ports_in_pairs(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli(
        "config", "device", "add", name, "r", "nic", "nictype=routed", f"ipv6.address=fd42:99:{lxpyd.number:x}::9"
    )
    lxpyd.cli("start", name)
    listen, target = f"fd42:97:{lxpyd.number:x}::1", f"fd42:99:{lxpyd.number:x}::9"
    _proxy(lxpyd, name, f"tcp:[{listen}]:7320-7321", f"tcp:[{target}]:90-91", "nat=true")
    server = peers.inside(lxpyd.init_pid(name), lambda: peers.listener("::", 91))
    client = until(lambda: _connected(listen, 7321), 10, "no connection")
    there = peers.accept(server)
    client.sendall(b"x")
    client.close()
    assert peers.everything(there) == b"x"
    server.close()


def _connected(host: str, port: int) -> "socket.socket | None":
    try:
        return peers.connect(host, port)
    except OSError:  # the address inside is tentative at first
        return None


def test_idle_sessions_of_datagrams_end() -> None:
    """The clock of sessions, by the relay itself: no test waits for half a minute."""
    from lxpy.runtime import relay

    begin = time.monotonic()
    loop = relay.Relay()
    listening, target = (
        peers.listener("127.0.0.1", 0, socket.SOCK_DGRAM),
        peers.listener("127.0.0.1", 0, socket.SOCK_DGRAM),
    )
    listening.setblocking(False)
    sessions = relay._Sessions(loop, listening, (socket.AF_INET, socket.SOCK_DGRAM, target.getsockname()))
    with peers.connect("127.0.0.1", listening.getsockname()[1], socket.SOCK_DGRAM) as client:
        client.send(b"x")
        until(lambda: sessions.heard(0, 0) or len(loop.serve) == 1, 5, "no session")
        session = next(iter(sessions._sessions.values()))
        session.used = begin - relay._UNANSWERED + 5
        sessions.expire()
        assert len(loop.serve) == 1
        sessions._expiry, session.used = 0.0, begin - relay._UNANSWERED - 1
        sessions.expire()
        assert not loop.serve
    listening.close()
    target.close()


def test_copies_and_restored_instances_have_theirs(lxpyd: Lxpyd, busybox: str) -> None:
    """A copy that could not listen where its source does says so; what listens inside is each one's own."""
    server = peers.listener("127.0.0.1", 7500)
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:96", "tcp:127.0.0.1:7500", "bind=instance")
    lxpyd.cli("config", "device", "add", busybox, "z", "unix-char", "source=/dev/zero", "path=/dev/z")
    lxpyd.cli("snapshot", busybox, "s")
    lxpyd.cli("config", "device", "remove", busybox, "z")
    lxpyd.cli("config", "device", "set", busybox, "p", "listen=tcp:127.0.0.1:97")
    lxpyd.cli("restore", busybox, "s")
    lxpyd.cli("start", busybox, check=False)  # it runs again by itself
    copy = f"{busybox}-copy"
    lxpyd.cli("copy", busybox, copy)
    lxpyd.cli("start", copy)
    for name in (busybox, copy):
        assert lxpyd.sh(name, "stat -c %F /dev/z").stdout == "character special file\n"
        with peers.inside(lxpyd.init_pid(name), lambda: peers.connect("127.0.0.1", 96)):
            peers.accept(server).close()
    server.close()
    _proxy(lxpyd, busybox, "tcp:127.0.0.1:7501", "tcp:127.0.0.1:80", device="q")
    lxpyd.cli("stop", "-f", copy)
    _proxy(lxpyd, copy, "tcp:127.0.0.1:7501", "tcp:127.0.0.1:80", device="q")
    failed = lxpyd.cli("start", copy, check=False)
    assert failed.returncode == 1
    assert "cannot listen on 127.0.0.1:7501: Address already in use" in failed.stderr
    assert lxpyd.status(copy) == "STOPPED"
    assert not _processes(lxpyd, copy)
