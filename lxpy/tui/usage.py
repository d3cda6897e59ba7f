"""What instances use, over time: rates from the daemon's counters, and a history for as long as the app runs."""

from collections import deque
from typing import Any, NamedTuple

KEPT = 900  # samples of each instance: half an hour at one every two seconds


class Sample(NamedTuple):
    """What an instance used at one moment, or in the time before it.

    `cpu`: percent of one CPU. `memory`: bytes. The others: bytes a second; -1 where it is not known.
    """

    at: float
    cpu: float
    memory: int
    received: float
    sent: float
    read: float
    written: float
    processes: int


_COUNTERS = ("cpu_ns", "network_received", "network_sent", "disk_read", "disk_written")


class History:
    """Takes readings of ``/1.0/usage``; gives samples by instance."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[Sample]] = {}
        self._before: dict[str, tuple[int, dict[str, Any]]] = {}

    def take(self, reading: dict[str, Any]) -> None:
        """One reading; rates need the one before it."""
        at = int(reading["at"])
        for one in reading["instances"]:
            name = one["name"]
            before = self._before.get(name)
            self._before[name] = (at, one)
            if before is None or before[1]["pid"] != one["pid"] or at <= before[0]:
                continue  # the first one, or it has been started anew
            seconds = (at - before[0]) / 1e9
            rates = {key: _rate(before[1].get(key, -1), one.get(key, -1), seconds) for key in _COUNTERS}
            sample = Sample(
                at / 1e9, max(rates["cpu_ns"] / 1e7, 0.0), one["memory"], rates["network_received"],
                rates["network_sent"], rates["disk_read"], rates["disk_written"], one["processes"],
            )  # fmt: skip
            self._samples.setdefault(name, deque(maxlen=KEPT)).append(sample)

    def of(self, name: str) -> list[Sample]:
        """The samples of an instance, oldest first."""
        return list(self._samples.get(name, ()))

    def last(self, name: str) -> Sample | None:
        samples = self._samples.get(name)
        return samples[-1] if samples else None

    def keep(self, names: set[str]) -> None:
        """Forgets instances that are gone."""
        for known in (self._samples, self._before):
            for name in [name for name in known if name not in names]:
                del known[name]


def _rate(before: float, now: float, seconds: float) -> float:
    return -1.0 if before < 0 or now < before else (now - before) / seconds
