"""How much of a matrix is done, and how long the rest takes."""

from __future__ import annotations

import heapq
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckd_mmdet.lab.compare.runs import Run, epochs_done

LEAST = 0.02
"""Epochs after which a pace is believed."""


@dataclass(frozen=True)
class _Start:
    log_size: int
    time: float


class Pace:
    """What this command has trained and how fast, counted in epochs; all methods have the same data.

    Args:
        runs: Those that are not finished, in the order in which they are started.
        places: How many train at a time.
    """

    def __init__(self, runs: Sequence[Run], places: int) -> None:
        self.places = places
        self.waiting = list(runs)
        self.running: dict[Run, _Start] = {}
        self.base = {run: run.resumable_epoch() for run in runs}
        self.total = sum(run.epochs for run in runs)
        self.ended = 0
        """Epochs of the runs that have ended, well or not."""
        self.measured: dict[str, tuple[float, float]] = {}
        """Seconds and epochs of the ended runs of each method."""

    def start(self, run: Run) -> None:
        self.waiting.remove(run)
        self.running[run] = _Start(run.log.stat().st_size if run.log.exists() else 0, time.monotonic())

    def end(self, run: Run) -> float:
        """Count a run as ended; the seconds that it took."""
        seconds, epochs = self._spent(run)
        del self.running[run]
        self.ended += run.epochs
        before = self.measured.get(run.method, (0.0, 0.0))
        self.measured[run.method] = before[0] + seconds, before[1] + epochs
        return seconds

    def done(self) -> float:
        """Epochs done of ``total``, those before an interruption too."""
        return self.ended + sum(self.base[run] for run in self.waiting) + sum(self.reached(run) for run in self.running)

    def reached(self, run: Run) -> float:
        """Epochs that a running run has behind it."""
        done = epochs_done(run.log, self.running[run].log_size)
        return self.base[run] if done is None else done

    def left(self) -> float | None:
        """Seconds until all have ended, ``None`` as long as nothing is known.

        A method that has not run yet is taken to be as fast as the others together.
        """
        spent = dict(self.measured)
        for run in self.running:
            seconds, epochs = self._spent(run)
            before = spent.get(run.method, (0.0, 0.0))
            spent[run.method] = before[0] + seconds, before[1] + epochs
        paces = {method: seconds / epochs for method, (seconds, epochs) in spent.items() if epochs >= LEAST}
        if not paces:
            return None
        usual = sum(paces.values()) / len(paces)
        running = [(run.epochs - self.reached(run)) * paces.get(run.method, usual) for run in self.running]
        waiting = [(run.epochs - self.base[run]) * paces.get(run.method, usual) for run in self.waiting]
        return last_end(running, waiting, self.places)

    def _spent(self, run: Run) -> tuple[float, float]:
        return time.monotonic() - self.running[run].time, self.reached(run) - self.base[run]


def last_end(running: Iterable[float], waiting: Iterable[float], places: int) -> float:
    """When the last of the tasks ends, each taking the place that is free first.

    Args:
        running: Seconds that each of the running tasks still takes, at most ``places`` of them.
        waiting: Seconds that each of the others takes, in their order.
        places: How many run at a time.
    """
    ends = list(running)
    ends += [0.0] * (places - len(ends))
    heapq.heapify(ends)
    for seconds in waiting:
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)
