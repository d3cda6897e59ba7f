"""kill -9 amid work on custom volumes: the next daemon finishes or undoes, and nothing is left over."""

import itertools
import json
import os
import pathlib
import random
import signal
import sqlite3
import time

import pytest

from tests.support.daemon import Lxpyd, until


def consistent(daemon: Lxpyd) -> dict[str, list[str]]:
    """Volumes with their snapshots, by ``pool/name``, after a look whether disk and database tell the same."""
    found: dict[str, list[str]] = {}
    for pool in ("default", "plain"):
        source = daemon.dir / "storage-pools" / pool
        for one in daemon.json("query", f"/1.0/storage-pools/{pool}/volumes/custom?recursion=1"):
            volume, _, snapshot = one["name"].partition("/")
            found.setdefault(f"{pool}/{volume}", []).extend([snapshot] if snapshot else [])
        on_disk = {
            f"{pool}/{path.name}": sorted(one.name for one in (path / "snapshots").iterdir())
            for path in (source / "custom").iterdir()
        }
        assert {k: sorted(v) for k, v in found.items() if k.startswith(pool)} == on_disk
        until(lambda place=source: not list((place / "tmp").iterdir()), 3, f"{source}/tmp is not empty")
    with sqlite3.connect(daemon.layout.database) as db:
        docs = [row[0] for row in db.execute("SELECT doc FROM volumes UNION ALL SELECT doc FROM volume_snapshots")]
    assert not [doc for doc in docs if {"creating", "deleting", "renaming"} & set(json.loads(doc))]
    return found


def test_each_step_that_a_crash_can_leave(own_lxpyd: Lxpyd) -> None:
    """What every operation has on disk and in the database after each of its steps, put there by hand."""
    daemon = own_lxpyd
    custom = daemon.dir / "storage-pools/plain/custom"
    for name in ("made", "gone", "old", "kept", "keep"):
        daemon.cli("storage", "volume", "create", "plain", name)
        (custom / name / "data/f").write_text(name)
    for snapshot in ("s-made", "s-gone", "s-old", "s-kept"):
        daemon.cli("storage", "volume", "snapshot", "plain", "keep", snapshot)
    daemon.kill(signal.SIGKILL)

    with sqlite3.connect(daemon.layout.database) as db:

        def mark(name: str, **marks: object) -> None:
            (doc,) = db.execute("SELECT doc FROM volumes WHERE name = ?", (name,)).fetchone()
            db.execute("UPDATE volumes SET doc = ? WHERE name = ?", (json.dumps({**json.loads(doc), **marks}), name))

        def mark_snapshot(name: str, **marks: object) -> None:
            (doc,) = db.execute("SELECT doc FROM volume_snapshots WHERE name = ?", (name,)).fetchone()
            text = json.dumps({**json.loads(doc), **marks})
            db.execute("UPDATE volume_snapshots SET doc = ? WHERE name = ?", (text, name))

        # create: the row alone, and with the directory there
        db.execute(
            "INSERT INTO volumes (pool, project, name, doc) SELECT pool, project, 'early', doc FROM volumes LIMIT 1"
        )
        mark("early", creating=True)
        mark("made", creating=True)
        # delete: marked, and with the directory gone
        mark("gone", deleting=True)
        # rename: before and after the directory has its new name
        mark("kept", renaming={"project": "default", "name": "kept-new"})
        mark("old", renaming={"project": "default", "name": "new"})
        os.rename(custom / "old", custom / "new")
        # the same of snapshots
        mark_snapshot("s-made", creating=True)
        mark_snapshot("s-gone", deleting=True)
        mark_snapshot("s-kept", renaming="s-kept-new")
        mark_snapshot("s-old", renaming="s-new")
        os.rename(custom / "keep/snapshots/s-old", custom / "keep/snapshots/s-new")
    (daemon.dir / "storage-pools/plain/tmp/new-1/data").mkdir(parents=True)

    daemon.start()
    found = consistent(daemon)
    assert {name: sorted(snapshots) for name, snapshots in found.items()} == {
        "plain/keep": ["s-kept", "s-new"], "plain/kept": [], "plain/new": [],
    }  # fmt: skip
    assert (custom / "new/data/f").read_text() == "old"
    assert "name: new" in (custom / "new/backup.yaml").read_text()
    warnings = json.dumps(daemon.json("query", "/1.0/warnings?recursion=1"))
    assert "'made'" in warnings and "'gone'" in warnings
    for name in ("early", "made", "gone", "old", "kept-new"):
        daemon.cli("storage", "volume", "create", "plain", name)
    consistent(daemon)


@pytest.mark.timeout(300)
def test_killed_anywhere(own_lxpyd: Lxpyd) -> None:
    """Two kills in each operation, somewhere in its time; the content is whole and the names are free afterwards."""
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "c")
    daemon.cli("storage", "volume", "create", "plain", "v")
    daemon.cli("storage", "volume", "attach", "plain", "v", "c", "/data")
    script = "i=0; while [ $i -lt 300 ]; do echo $i > /data/$i; i=$((i+1)); done; echo done"
    assert daemon.sh("c", script).stdout == "done\n"
    data = daemon.dir / "storage-pools/plain/custom/v/data"
    whole = sum(1 for _ in data.iterdir())
    daemon.cli("storage", "volume", "snapshot", "plain", "v", "base")
    daemon.cli("storage", "volume", "detach", "plain", "v", "c")
    rng = random.Random(2)
    operations = (
        ("storage", "volume", "create", "plain", "w"),
        ("storage", "volume", "copy", "plain/v", "plain/w"),
        ("storage", "volume", "copy", "plain/v", "default/w"),
        ("storage", "volume", "copy", "plain/v", "default/w", "--refresh"),
        ("storage", "volume", "snapshot", "plain", "v", "s"),
        ("storage", "volume", "restore", "plain", "v", "base"),
        ("storage", "volume", "move", "plain/v", "default/v"),
        ("storage", "volume", "delete", "plain", "w"),
        ("storage", "volume", "attach", "plain", "v", "c", "/data"),
        ("storage", "volume", "detach", "plain", "v", "c"),
    )
    for command, share in itertools.product(operations, (0.3, 0.9)):
        verb = command[2]
        if verb == "delete":
            daemon.cli("storage", "volume", "copy", "plain/v", "plain/w")
        if "--refresh" in command:
            daemon.cli("storage", "volume", "create", "default", "w")
        if verb == "detach":
            daemon.cli("storage", "volume", "attach", "plain", "v", "c", "/data")
        process = daemon.spawn(*command)
        time.sleep(0.03 + share * rng.uniform(0.01, 0.06))
        daemon.kill(signal.SIGKILL)
        _, err = process.communicate(timeout=30)
        assert b"Traceback" not in err, err.decode()
        daemon.start()

        found = consistent(daemon)
        home = next(place for place in ("plain/v", "default/v") if place in found)
        assert len([place for place in found if place.endswith("/v")]) == 1, (command, found)
        for place in found:
            source = daemon.dir / "storage-pools" / place.replace("/", "/custom/")
            files = sum(1 for _ in (source / "data").iterdir())
            empty = verb == "create" or "--refresh" in command
            assert files == whole or (empty and files == 0), (command, place, files)
        assert "base" in found[home]
        attached = "v" in daemon.json("query", "/1.0/instances/c")["devices"]
        mounted = daemon.sh("c", "grep -c ' /data ' /proc/self/mountinfo", check=False).stdout == "1\n"
        assert attached == mounted, command
        if attached:
            daemon.cli("storage", "volume", "detach", *home.split("/"), "c")
        if home != "plain/v":
            daemon.cli("storage", "volume", "move", home, "plain/v")
        for place in set(found) - {home}:
            daemon.cli("storage", "volume", "delete", *place.split("/"))
        if "s" in found[home]:
            daemon.cli("storage", "volume", "delete", "plain", "v/s")
    assert pathlib.Path(data, "299").read_text() == "299\n"
