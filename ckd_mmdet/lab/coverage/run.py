"""Every family in a process of its own: what breaks one is its row's reason."""

from __future__ import annotations

import logging
import math
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch
from mmengine.logging import MMLogger

from .checks import Row, check_family, prepare
from .families import smallest_config

LIMIT = 120.0
"""Seconds that a family may take."""
STEP = 1.0
"""Seconds between two looks at the clock."""

# Copies of this process have imported mmdet already.
PROCESSES = multiprocessing.get_context('fork')


@dataclass
class _Running:
    family: str
    process: BaseProcess
    answer: Connection
    started: float = field(default_factory=time.monotonic)


def run_families(families: Sequence[str], jobs: int = 2, limit: float = LIMIT,
                 progress: Callable[[Row], None] = lambda row: None,
                 check: Callable[[str], Row] = check_family) -> list[Row]:
    """Check the families, each in a process of its own with one thread.

    Args:
        families: Names as of :func:`ckd_mmdet.lab.coverage.families`.
        jobs: Processes at a time.
        limit: Seconds that one may take.
        progress: Called with each row as it comes.
        check: What a process does.

    Returns:
        A row each, in the order of ``families``. Where a process died, or took too long, its row says so.

    Raises:
        ValueError: If a family is unknown, or ``jobs`` or ``limit`` is not positive.
    """
    if jobs < 1:
        raise ValueError(f'`jobs` needs a positive number of processes, got {jobs}.')
    if not (math.isfinite(limit) and limit > 0):
        raise ValueError(f'`limit` needs a finite number of seconds greater than 0, got {limit}.')
    rows = {family: Row(family, smallest_config(family)) for family in families}
    waiting = list(rows)
    running: list[_Running] = []
    prepare()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), check))
            wait([job.answer for job in running], timeout=STEP)
            for job in list(running):
                row = _ended(job, rows[job.family], limit)
                if row is not None:
                    running.remove(job)
                    rows[job.family] = replace(row, seconds=time.monotonic() - job.started)
                    progress(rows[job.family])
    finally:
        for job in running:
            job.process.kill()
    return list(rows.values())


def _start(family: str, check: Callable[[str], Row]) -> _Running:
    ours, theirs = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_work, args=(family, check, theirs), daemon=True)
    process.start()
    theirs.close()  # so that its end is seen here when the process dies
    return _Running(family, process, ours)


def _work(family: str, check: Callable[[str], Row], answer: Connection) -> None:
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel(logging.ERROR)  # each weight's initialisation is a line
    answer.send(replace(check(family), cpu_seconds=time.process_time()))


def _ended(job: _Running, row: Row, limit: float) -> Row | None:
    """The row of a process that has ended, or is ended here; ``None`` while it works."""
    if job.answer.poll():
        try:
            row = job.answer.recv()
            job.process.join()
            return row
        except EOFError:  # died without a word
            job.process.join()
            return replace(row, reason=_death(job.process.exitcode))
    if time.monotonic() - job.started < limit:
        return None
    job.process.kill()
    job.process.join()
    return replace(row, reason=f'took more than {limit:g} s')


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f'its process was ended by {signal.Signals(-code).name}'
    return f'its process ended with exit code {code}'
