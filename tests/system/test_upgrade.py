"""A newer lxpyd over the database of an older one, with containers running; an older one over a newer database."""

import contextlib
import json
import pathlib
import signal
import sqlite3
import subprocess

import pytest

from lxpy.state import store
from tests.support.daemon import BIN, Lxpyd

_SCRIPTS = pathlib.Path(store.__file__).parent


def _as_written_by(version: int, path: pathlib.Path) -> None:
    """Puts the database of schema `version` with the same rows in the place of the one at `path`."""
    old = path.with_name("old.db")
    with contextlib.closing(sqlite3.connect(old, isolation_level=None)) as database:
        for number in range(1, version + 1):
            database.executescript((_SCRIPTS / f"schema-{number}.sql").read_text())
        database.execute("ATTACH ? AS now", (str(path),))
        for (table,) in database.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'").fetchall():
            names = ", ".join(row[1] for row in database.execute(f"PRAGMA main.table_info({table})").fetchall())
            if not table.startswith("sqlite_"):
                database.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM now.{table}")
        database.execute(f"PRAGMA main.user_version = {version}")
    for rest in ("", "-wal", "-shm"):
        pathlib.Path(f"{path}{rest}").unlink(missing_ok=True)
    old.rename(path)


@pytest.mark.parametrize("version", range(1, store.SCHEMA_VERSION))
def test_from_every_older_schema(own_lxpyd: Lxpyd, version: int) -> None:
    daemon, path = own_lxpyd, pathlib.Path(own_lxpyd.layout.database)
    for earlier in path.parent.glob(f"{path.name}.schema-*"):
        earlier.unlink()
    daemon.cli("launch", "bb", "a", "-c", "user.k=v")
    daemon.cli("launch", "bb", "b", "-s", "plain")
    daemon.cli("stop", "-f", "b")
    pid = daemon.init_pid("a")
    daemon.wait_address("a")
    before = daemon.snapshot()
    daemon.kill(signal.SIGKILL)
    _as_written_by(version, path)
    daemon.start()
    assert daemon.init_pid("a") == pid and daemon.snapshot() == before
    assert daemon.sh("a", "ping -c 1 -W 2 $(ip route | awk '/default/ {print $3}')").returncode == 0
    daemon.cli("restart", "-f", "a")
    daemon.cli("start", "b")
    backups = list(path.parent.glob(f"{path.name}.schema-{version}.*"))
    assert len(backups) == 1
    with contextlib.closing(sqlite3.connect(backups[0])) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] == version
        assert {row[0] for row in database.execute("SELECT name FROM instances")} == {"a", "b"}
    assert backups[0].stat().st_mode & 0o077 == 0
    # Once migrated, a restart has nothing more to do.
    daemon.restart()
    assert list(path.parent.glob(f"{path.name}.schema-*")) == backups
    daemon.cli("delete", "-f", "a", "b")


def test_an_older_daemon_leaves_a_newer_database_alone(own_lxpyd: Lxpyd) -> None:
    daemon, path = own_lxpyd, own_lxpyd.layout.database
    daemon.cli("launch", "bb", "a")
    pid = daemon.init_pid("a")
    daemon.kill(signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION + 1}")
    before = pathlib.Path(path).read_bytes()
    refused = subprocess.run(
        [BIN / "lxpyd"], env=daemon.environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1, refused.stderr
    said = f"newer lxpy (schema {store.SCHEMA_VERSION + 1}, this one knows {store.SCHEMA_VERSION})"
    assert said in refused.stderr and "Traceback" not in (daemon.dir / "lxpyd.log").read_text()[-2000:]
    assert pathlib.Path(path).read_bytes() == before and pathlib.Path(f"/proc/{pid}").exists()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(f"PRAGMA user_version = {store.SCHEMA_VERSION}")
    daemon.start()
    assert daemon.init_pid("a") == pid
    assert json.loads(daemon.out("query", "/1.0"))["auth"] == "trusted"
