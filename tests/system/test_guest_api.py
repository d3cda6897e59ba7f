"""The guest API on /dev/lxd/sock: what a guest may read and say, and what it may not."""

import http.client
import json
import os
import socket
import time

import pytest

from tests.support import guest
from tests.support.daemon import Lxpyd, until


def test_a_guest_reads_its_own_configuration(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "user.colour=red\nblue", "-c", "cloud-init.user-data=#cloud-config\n")
    lxpyd.cli("launch", "bb", f"{name}-2", "-c", "user.colour=green")
    assert guest.get(lxpyd, name, "/") == ["/1.0"]
    assert guest.get(lxpyd, name, "/1.0") == {
        "api_version": "1.0", "location": "none", "instance_type": "container", "state": "Started",
    }  # fmt: skip
    assert guest.get(lxpyd, name, "/1.0/config") == ["/1.0/config/cloud-init.user-data", "/1.0/config/user.colour"]
    assert guest.ask(lxpyd, name, "/1.0/config/user.colour") == (200, "red\nblue")
    assert guest.ask(lxpyd, f"{name}-2", "/1.0/config/user.colour") == (200, "green")
    devices = guest.get(lxpyd, name, "/1.0/devices")
    assert devices["root"]["pool"] == "default" and devices["eth0"]["type"] == "nic"
    assert devices["eth0"]["hwaddr"] == lxpyd.out("config", "get", name, "volatile.eth0.hwaddr")
    status, text = guest.ask(lxpyd, name, "/1.0/meta-data", place="/dev/incus/sock")
    identity = lxpyd.out("config", "get", name, "volatile.cloud-init.instance-id")
    assert (status, text) == (200, f"#cloud-config\ninstance-id: {identity}\nlocal-hostname: {name}\n")


def test_what_a_guest_may_not(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.cli("config", "set", busybox, "user.secret=x")
    assert guest.ask(lxpyd, busybox, "/1.0/config/user.secret", user=1000)[0] == 401
    assert guest.ask(lxpyd, busybox, "/1.0/config/volatile.uuid")[0] == 403
    assert guest.ask(lxpyd, busybox, "/1.0/config/user.none")[0] == 404
    assert guest.ask(lxpyd, busybox, "/1.0/instances")[0] == 404
    assert guest.ask(lxpyd, busybox, "/1.0/config/user.secret", "PUT", {"value": "y"})[0] == 405
    assert guest.ask(lxpyd, busybox, "/1.0/config/../../1.0/config/volatile.uuid")[0] in (403, 404)
    # The socket is another's to make; a guest cannot put its own in the place, nor take it away.
    result = lxpyd.sh(busybox, "rm /dev/lxd/sock; touch /dev/lxd/x; ls -l /dev/lxd", check=False)
    assert "Read-only file system" in result.stderr and "sock" in result.stdout and " x" not in result.stdout
    pid = lxpyd.init_pid(busybox)
    with pytest.raises(PermissionError):
        os.seteuid(12345)
        try:
            os.stat(f"{lxpyd.layout.instances}/x")
        finally:
            os.seteuid(0)
    assert lxpyd.init_pid(busybox) == pid


@pytest.mark.parametrize("place", ["/dev/lxd/sock", "/dev/incus/sock"])
def test_bad_input_is_answered(lxpyd: Lxpyd, busybox: str, place: str) -> None:
    for body in (b"{", b"[]", {"state": "Gone"}, {"state": 7}, {}, b"x" * 100_000):
        assert guest.ask(lxpyd, busybox, "/1.0", "PATCH", body, place=place)[0] == 400, body
    assert guest.ask(lxpyd, busybox, "/1.0/events?type=lifecycle")[0] == 400
    with guest.connected(lxpyd, busybox) as connection:
        connection.sock.sendall(b"\0\1\2 nonsense\r\n\r\n")  # type: ignore[attr-defined]
        assert b" 400 " in connection.sock.recv(4096).split(b"\r\n")[0]  # type: ignore[attr-defined]
    assert guest.get(lxpyd, busybox, "/1.0")["state"] == "Started"


def test_a_guest_says_that_it_is_ready(lxpyd: Lxpyd, busybox: str) -> None:
    monitor = lxpyd.spawn("monitor", "--type", "lifecycle", "--format", "json")
    time.sleep(0.5)
    assert guest.ask(lxpyd, busybox, "/1.0", "PATCH", {"state": "Ready"})[0] == 200
    assert guest.get(lxpyd, busybox, "/1.0")["state"] == "Ready"
    assert lxpyd.out("config", "get", busybox, "volatile.last_state.ready") == "true"
    assert lxpyd.status(busybox) == "READY" and f"{busybox},READY" in lxpyd.out("list", "-f", "csv", "-c", "ns")
    assert "Status: READY" in lxpyd.out("info", busybox) and lxpyd.sh(busybox, "echo it runs").stdout == "it runs\n"
    assert lxpyd.json("query", f"/1.0/instances/{busybox}/state")["status_code"] == 113
    lxpyd.cli("pause", busybox)
    assert lxpyd.status(busybox) == "FROZEN"
    lxpyd.cli("resume", busybox)
    assert lxpyd.status(busybox) == "READY"
    assert monitor.stdout
    event = json.loads(monitor.stdout.readline())
    assert event["metadata"]["action"] == "instance-ready"
    assert event["metadata"]["source"] == f"/1.0/instances/{busybox}"
    monitor.terminate()
    monitor.communicate()
    lxpyd.cli("stop", "-f", busybox)
    assert lxpyd.out("config", "get", busybox, "volatile.last_state.ready") == ""
    lxpyd.cli("start", busybox)
    assert guest.get(lxpyd, busybox, "/1.0")["state"] == "Started" and lxpyd.status(busybox) == "RUNNING"
    assert lxpyd.out("config", "get", busybox, "volatile.last_state.ready") == ""


def _events(answer: http.client.HTTPResponse, count: int) -> list[dict[str, object]]:
    return [json.loads(answer.readline()) for _ in range(count)]


def test_a_guest_hears_of_changes(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("profile", "create", f"{name}-p")
    lxpyd.cli("launch", "bb", name, "-p", "default", "-p", f"{name}-p")
    with guest.connected(lxpyd, name) as connection, guest.connected(lxpyd, name) as other:
        connection.request("GET", "/1.0/events")
        answer = connection.getresponse()
        other.request("GET", "/1.0/events?type=device")
        devices = other.getresponse()
        lxpyd.cli("config", "set", name, "user.a=1", "limits.processes=500")
        lxpyd.cli("profile", "set", f"{name}-p", "user.b=2")
        lxpyd.cli("config", "device", "add", name, "opt", "disk", "source=/usr", "path=/opt/usr")
        lxpyd.cli("config", "device", "remove", name, "opt")
        found = _events(answer, 4)
        assert [one["type"] for one in found] == ["config", "config", "device", "device"]
        assert found[0]["metadata"] == {"key": "user.a", "old_value": "", "value": "1"}
        assert found[1]["metadata"] == {"key": "user.b", "old_value": "", "value": "2"}
        added = {"name": "opt", "action": "added", "config": {"type": "disk", "source": "/usr", "path": "/opt/usr"}}
        assert found[2]["metadata"] == added
        assert found[3]["metadata"] == added | {"action": "removed"}
        assert [one["metadata"] for one in _events(devices, 2)] == [added, added | {"action": "removed"}]
        lxpyd.cli("stop", "-f", name)
        assert answer.readline() == b""
    lxpyd.cli("delete", name)
    lxpyd.cli("profile", "delete", f"{name}-p")


def test_events_by_websocket(lxpyd: Lxpyd, busybox: str) -> None:
    with guest.connected(lxpyd, busybox) as connection:
        stream: socket.socket = connection.sock  # type: ignore[attr-defined]
        stream.sendall(
            b"GET /1.0/events HTTP/1.1\r\nHost: lxd\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = stream.recv(4096)
        assert b" 101 " in head.split(b"\r\n")[0]
        lxpyd.cli("config", "set", busybox, "user.a=ws")
        frame = stream.recv(4096)
        assert frame[0] == 0x81 and json.loads(frame[frame.index(b"{") :])["metadata"]["value"] == "ws"


def test_the_door_is_shut_and_opened(lxpyd: Lxpyd, busybox: str) -> None:
    assert guest.get(lxpyd, busybox, "/") == ["/1.0"]
    lxpyd.cli("config", "set", busybox, "security.devlxd=false")
    with pytest.raises((ConnectionError, FileNotFoundError)):
        guest.ask(lxpyd, busybox, "/")
    lxpyd.cli("restart", "-f", busybox)
    with pytest.raises((ConnectionError, FileNotFoundError)):
        guest.ask(lxpyd, busybox, "/")
    lxpyd.cli("config", "unset", busybox, "security.devlxd")
    assert guest.get(lxpyd, busybox, "/") == ["/1.0"]
    assert lxpyd.cli("config", "set", busybox, "security.devlxd=maybe", check=False).returncode == 1


def test_images_for_guests(lxpyd: Lxpyd, busybox: str) -> None:
    fingerprint = lxpyd.json("image", "list", "-f", "json")[0]["fingerprint"]
    path = f"/1.0/images/{fingerprint}/export"
    assert guest.ask(lxpyd, busybox, path)[0] == 403
    lxpyd.cli("config", "set", busybox, "security.devlxd.images=true")
    assert guest.ask(lxpyd, busybox, path)[0] == 404  # private
    lxpyd.api("PATCH", f"/1.0/images/{fingerprint}", {"public": True})
    try:
        with guest.connected(lxpyd, busybox) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            assert answer.status == 200 and len(answer.read()) == int(answer.headers["Content-Length"]) > 100_000
    finally:
        lxpyd.api("PATCH", f"/1.0/images/{fingerprint}", {"public": False})


def test_the_daemon_may_be_killed(own_lxpyd: Lxpyd) -> None:
    lxpyd = own_lxpyd
    lxpyd.cli("launch", "bb", "g", "-c", "user.a=1")
    lxpyd.kill()
    with pytest.raises(ConnectionRefusedError):
        guest_pid_ask(lxpyd, "g")
    lxpyd.start()
    assert guest.ask(lxpyd, "g", "/1.0/config/user.a") == (200, "1")
    assert guest.ask(lxpyd, "g", "/1.0", "PATCH", {"state": "Ready"})[0] == 200
    lxpyd.restart()
    assert guest.get(lxpyd, "g", "/1.0")["state"] == "Ready"


def guest_pid_ask(lxpyd: Lxpyd, name: str) -> None:
    """As `guest.ask`, with no daemon to ask for the process: by the socket's own place on the host."""
    places = [entry.path for entry in os.scandir(lxpyd.layout.instances) if entry.is_dir()]
    assert len(places) == 1 and name
    fd = os.open(f"{places[0]}/guest", os.O_PATH)
    with socket.socket(socket.AF_UNIX) as stream:
        try:
            stream.connect(f"/proc/self/fd/{fd}/sock")
        finally:
            os.close(fd)


def test_a_flood_of_connections_hurts_nobody_else(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.cli("launch", "bb", f"{busybox}-2")
    pid = lxpyd.init_pid(busybox)
    with guest.connected(lxpyd, busybox, pid=pid) as first:
        first.request("GET", "/1.0")
        first.getresponse().read()
        held = []
        for _ in range(60):
            context = guest.connected(lxpyd, busybox, pid=pid)
            held.append((context, context.__enter__()))
        try:
            statuses = set()
            for _, connection in held:
                try:
                    connection.request("GET", "/1.0")
                    statuses.add(connection.getresponse().status)
                except (ConnectionError, http.client.HTTPException):
                    statuses.add(503)
            assert statuses == {200, 503}
            assert guest.get(lxpyd, f"{busybox}-2", "/") == ["/1.0"]
        finally:
            for context, _ in held:
                context.__exit__(None, None, None)
    until(lambda: guest.ask(lxpyd, busybox, "/")[0] == 200, 5, "the guest is not served again")
