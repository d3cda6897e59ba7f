"""Warnings: one per kind and object, counted, over when the condition is, gone a day later."""

import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import time

from lxpy.api.notices import DNSMASQ, NETWORK_MENDED, POOL_UNAVAILABLE, Notice, Over
from lxpy.daemon.warnings import Warnings
from lxpy.state.store import Store
from tests.support import namespace
from tests.support.daemon import Lxpyd, until

Found = dict[str, object]


def _of(daemon: Lxpyd, kind: str, url: str = "") -> list[Found]:
    found = daemon.json("warning", "list", "-a", "-f", "json")
    return [one for one in found if one["type"] == kind and (not url or one["entity_url"] == url)]


def test_counted_resolved_opened_again_and_pruned() -> None:
    path = str(namespace.run_dir("warnings") / f"{os.getpid()}.db")
    store = Store(path)
    warnings = Warnings(store)
    url = "/1.0/networks/br"
    warnings.tell(Notice("first", DNSMASQ, url))
    warnings.tell(Notice("second", DNSMASQ, url))
    warnings.tell(Notice("another network", DNSMASQ, "/1.0/networks/b2"))
    warnings.tell(Notice("another project", DNSMASQ, url, "p"))
    warnings.tell("a bare line")
    warnings.tell("a bare line")
    one = next(w for w in warnings.all() if w["last_message"] == "second")
    assert (one["count"], one["status"], one["severity"], one["entity_url"]) == (2, "new", "moderate", url)
    assert sorted(w["count"] for w in warnings.all()) == [1, 1, 2, 2]
    warnings.set_status(one["uuid"], "acknowledged")
    warnings.tell(Notice("known", DNSMASQ, url))
    assert warnings.get(one["uuid"])["status"] == "acknowledged" and warnings.get(one["uuid"])["count"] == 3
    warnings.tell(Over(DNSMASQ, url))
    assert warnings.get(one["uuid"])["status"] == "resolved"
    warnings.tell(Notice("again", DNSMASQ, url))
    again = warnings.get(one["uuid"])
    assert (again["status"], again["count"], again["last_message"]) == ("new", 4, "again")
    warnings.happened("network-renamed", url, "default")
    assert warnings.get(one["uuid"])["status"] == "new"
    warnings.happened("network-updated", url, "default")
    assert warnings.get(one["uuid"])["status"] == "resolved"
    other = next(w for w in warnings.all() if w["project"] == "p")
    assert other["status"] == "new" and other["entity_url"] == f"{url}?project=p"
    warnings.prune(time.time() + 86000)
    assert len(warnings.all()) == 4
    warnings.prune(time.time() + 86500)
    assert len(warnings.all()) == 3
    store.close()
    # The next daemon keeps what it meets again, and the rest is over.
    store = Store(path)
    warnings = Warnings(store)
    warnings.tell("a bare line")
    warnings.tell(Notice("gone", NETWORK_MENDED, "/1.0/networks/b3"))
    warnings.happened("network-deleted", "/1.0/networks/b3", "default")
    kept = next(w for w in warnings.all() if w["last_message"] == "a bare line")
    assert kept["count"] == 3
    open_before = {w["last_message"] for w in warnings.all() if w["status"] == "new"}
    assert open_before == {"a bare line", "another network", "another project"}
    store.close()


def test_what_a_daemon_tells_and_takes_back(own_lxpyd: Lxpyd) -> None:
    """A pool that is away at the start, an instance that cannot start on it, a bridge that is mended, a lost image."""
    daemon = own_lxpyd
    assert _of(daemon, "AppArmor support has been disabled")[0]["severity"] == "low"
    daemon.cli("launch", "bb", "a", "-s", "plain", "-c", "boot.autostart=true")
    daemon.cli("stop", "-f", "a")
    plain = daemon.dir / "storage-pools/plain"
    daemon.kill(signal.SIGTERM)
    plain.rename(f"{plain}.away")
    daemon.start()
    pool = _of(daemon, POOL_UNAVAILABLE.name, "/1.0/storage-pools/plain")
    assert [(w["status"], w["severity"]) for w in pool] == [("new", "high")]
    instance = until(lambda: _of(daemon, "Failed to autostart instance"), 10, "no warning of the instance")
    assert instance[0]["entity_url"] == "/1.0/instances/a" and instance[0]["project"] == "default"
    # The table: worst first, acknowledged ones left out.
    table = daemon.out("warning", "list", "-c", "t,s,S,c", "-f", "csv").splitlines()
    assert table[0] == "Storage pool unavailable,HIGH,NEW,1", table
    assert daemon.out("warning", "list").splitlines()[1].replace(" ", "") == (
        "|UUID|TYPE|STATUS|SEVERITY|COUNT|PROJECT|LOCATION|LASTSEEN|"
    )
    daemon.cli("warning", "ack", str(pool[0]["uuid"]))
    assert "Storage pool" not in daemon.out("warning", "list")
    assert "status: acknowledged" in daemon.out("warning", "show", str(pool[0]["uuid"]))
    for body, said in (({"status": "resolved"}, "to new or acknowledged"), ({"status": "x"}, "'x'")):
        wrong = daemon.cli(
            "query", "-X", "PUT", "-d", json.dumps(body), f"/1.0/warnings/{pool[0]['uuid']}", check=False
        )
        assert wrong.returncode == 1 and said in wrong.stderr
    assert daemon.json("query", "/1.0/warnings?filter=severity%20eq%20high&recursion=1")[0]["type"] == pool[0]["type"]
    assert daemon.json("query", "/1.0/warnings?filter=severity%20eq%20high") == [f"/1.0/warnings/{pool[0]['uuid']}"]
    daemon.kill(signal.SIGKILL)
    plain.with_name("plain.away").rename(plain)
    daemon.start()
    assert _of(daemon, POOL_UNAVAILABLE.name)[0]["status"] == "resolved"
    until(lambda: daemon.status("a") == "RUNNING", 10, "not started")
    assert _of(daemon, "Failed to autostart instance")[0]["status"] == "resolved"
    # Mended at once; an event, which stays until somebody has seen it, or the network goes.
    subprocess.run(["ip", "link", "delete", daemon.bridge], check=True)
    mended = until(lambda: _of(daemon, "Network mended"), 10, "the bridge is not mended")
    assert mended[0]["entity_url"] == f"/1.0/networks/{daemon.bridge}"
    # An address that somebody else has: the local socket works, and another address puts it right.
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon.kill(signal.SIGTERM)
        with contextlib.closing(sqlite3.connect(daemon.layout.database)) as database, database:
            database.execute(
                "INSERT OR REPLACE INTO server_config VALUES ('core.https_address', ?)", (f"127.0.0.1:{port}",)
            )
        daemon.start()
        address = _of(daemon, "HTTPS address unavailable")
        assert [(w["status"], w["severity"]) for w in address] == [("new", "high")]
        assert str(port) in str(address[0]["last_message"])
        daemon.cli("config", "unset", "core.https_address")
        assert _of(daemon, "HTTPS address unavailable")[0]["status"] == "resolved"
    for words, said in (
        (("delete",), "missing argument: <uuid>, or --all"),
        (("delete", "-a", "x"), "--all takes no <uuid>"),
        (("show", "nope"), "Warning 'nope' not found"),
        (("list", "-c", "uX"), "Unknown column 'X'"),
    ):
        wrong = daemon.cli("warning", *words, check=False)
        assert wrong.returncode == 1 and said in wrong.stderr, wrong.stderr
    daemon.cli("warning", "rm", "-a")
    assert daemon.json("warning", "list", "-a", "-f", "json") == []
