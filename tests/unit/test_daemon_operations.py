"""Operations, events and the pumps, on a real event loop with real pipes."""

import asyncio
import json
import os
from typing import Any

import pytest

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.daemon.events import Events
from lxpy.daemon.operations import Operation, Operations
from lxpy.daemon.streams import Ended, pump_out, write_all


def _drain(listener: Any) -> list[dict[str, Any]]:
    frames = []
    while not listener.queue.empty():
        frames.append(json.loads(listener.queue.get_nowait()))
    return frames


async def test_an_operation_is_told_by_events() -> None:
    events = Events()
    operations = Operations(events)

    async def work(op: Operation) -> None:
        op.progress("download_progress", "1%")
        op.metadata["fingerprint"] = "abc"

    with events.subscribe("operation", "default") as listener, events.subscribe("operation", "other") as other:
        operation = operations.run("task", "Test", {"images": ["/1.0/images/abc"]}, work)
        assert operation.render()["status_code"] == 103
        await operation.done.wait()
        frames = _drain(listener)
        assert _drain(other) == []
    assert [frame["metadata"]["status"] for frame in frames] == ["Running", "Running", "Success"]
    assert frames[-1]["metadata"]["metadata"] == {"download_progress": "1%", "fingerprint": "abc"}
    assert frames[-1]["project"] == "default"
    assert operations.get(operation.id) is operation


async def test_an_error_ends_the_operation_in_one_line() -> None:
    operations = Operations(Events())

    async def work(op: Operation) -> None:
        raise Conflict("it is busy")

    operation = operations.run("task", "Test", {}, work)
    await operation.done.wait()
    assert (operation.render()["status_code"], operation.error) == (400, "it is busy")
    with pytest.raises(BadRequest, match="already ended"):
        operations.cancel(operation.id)
    with pytest.raises(NotFound):
        operations.get("nope")


async def test_cancelling() -> None:
    operations = Operations(Events())

    async def work(op: Operation) -> None:
        await asyncio.sleep(60)

    fixed = operations.run("task", "Fixed", {}, work)
    with pytest.raises(BadRequest, match="can't be cancelled"):
        operations.cancel(fixed.id)
    loose = operations.run("task", "Loose", {}, work, may_cancel=True)
    await asyncio.sleep(0)
    operations.cancel(loose.id)
    await loose.done.wait()
    assert loose.render()["status"] == "Cancelled"
    assert fixed.task
    fixed.task.cancel()
    await fixed.done.wait()


async def test_cancelling_twice_lets_the_cleaning_up_end() -> None:
    operations = Operations(Events())
    may_end = asyncio.Event()
    cleaned = []

    async def work(op: Operation) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await may_end.wait()
            cleaned.append(op.id)

    operation = operations.run("task", "Test", {}, work, may_cancel=True)
    await asyncio.sleep(0)
    operations.cancel(operation.id)
    await asyncio.sleep(0)
    assert operation.render()["status"] == "Cancelling"
    operations.cancel(operation.id)
    await asyncio.sleep(0)
    may_end.set()
    await operation.done.wait()
    assert cleaned == [operation.id] and operation.render()["status"] == "Cancelled"


async def test_lifecycle_events_go_where_they_belong() -> None:
    events = Events()
    with events.subscribe("", None) as everything, events.subscribe("lifecycle", "p") as one:
        events.lifecycle("instance-started", "/1.0/instances/c1", "default", {"a": 1})
        events.lifecycle("instance-started", "/1.0/instances/c2", "p")
        assert len(_drain(everything)) == 2
        assert [frame["metadata"]["source"] for frame in _drain(one)] == ["/1.0/instances/c2"]
    with pytest.raises(BadRequest), events.subscribe("nope", None):
        pass


async def test_output_held_open_by_a_background_process_does_not_hang() -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    ended, got = Ended(), bytearray()

    async def sink(data: bytes) -> None:
        got.extend(data)

    pump = asyncio.create_task(pump_out(reader, sink, ended, 0.0))
    await asyncio.sleep(0.01)
    os.write(writer, b"last words")
    ended.set()
    await asyncio.wait_for(pump, 1)
    assert got == b"last words"
    os.close(reader)
    os.close(writer)


async def test_large_writes_wait_for_the_reader() -> None:
    reader, writer = os.pipe()
    for fd in (reader, writer):
        os.set_blocking(fd, False)
    data, got, ended = os.urandom(1 << 20), bytearray(), Ended()

    async def sink(chunk: bytes) -> None:
        got.extend(chunk)

    pump = asyncio.create_task(pump_out(reader, sink, ended, 0.0))
    await write_all(writer, data)
    os.close(writer)
    await asyncio.wait_for(pump, 5)
    assert bytes(got) == data
    os.close(reader)
