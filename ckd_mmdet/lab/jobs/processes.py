"""Processes side by side: watched, ended together, never left behind."""

from __future__ import annotations

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ckd_mmdet.lock import locked

TAIL = 20
"""Lines of a failed command's log that are shown."""


@dataclass(frozen=True)
class Job:
    """A command with its log and the threads it may use."""

    title: str
    command: Sequence[str]
    log: Path
    threads: int


class JobFailed(RuntimeError):
    """A command ended with an error; the text holds the end of its log."""


def run_together(jobs: Sequence[Job], watch: Callable[[], None], lock: int | None = None,
                 interval: float = 0.5) -> None:
    """Run the jobs at the same time, calling ``watch`` every ``interval`` seconds until all have ended.

    Whatever ends this function early ends the jobs too.

    Args:
        lock: A file descriptor that the jobs hold open as long as they live (see ``only_one``).

    Raises:
        JobFailed: If one of the jobs fails.
    """
    def ended(job: Job, how: str | None) -> None:
        if how is not None:
            lines = '\n'.join(f'    {line}' for line in tail(job.log))
            raise JobFailed(f'{job.title} {how}. The end of its log, {job.log}:\n\n{lines}')

    run_in_turn(jobs, [{}] * len(jobs), lambda job: None, ended, watch, lock, interval)


def run_in_turn(jobs: Sequence[Job], places: Sequence[Mapping[str, str]], started: Callable[[Job], None],
                ended: Callable[[Job, str | None], None], watch: Callable[[], None], lock: int | None = None,
                interval: float = 0.5) -> None:
    """Run the jobs in their order, as many at a time as there are places.

    Whatever ends this function early, an error of a callback or an interruption, ends the running jobs too.

    Args:
        places: What each place adds to the environment of the job that it holds.
        started: Called just before a job starts.
        ended: Called with each job that has ended, and with how it failed, ``None`` if it did not.
        watch: Called every ``interval`` seconds until all have ended.
        lock: A file descriptor that the jobs hold open as long as they live (see ``only_one``).
    """
    import yapf  # noqa: F401  fills its cache: jobs that fill it at once can read half of it

    waiting, free = deque(jobs), deque(range(len(places)))
    running: dict[subprocess.Popen, tuple[Job, int]] = {}
    try:
        while waiting or running:
            while waiting and free:
                job = waiting.popleft()
                started(job)
                try:
                    process = _start(job, places[free[0]], lock)
                except OSError as error:  # a full disk takes no log
                    ended(job, f'did not start: {error}')
                    continue
                running[process] = job, free.popleft()
            for process in [process for process in running if process.poll() is not None]:
                job, place = running.pop(process)
                free.append(place)
                ended(job, _how(process.returncode))
            watch()
            if running:
                time.sleep(interval)
    finally:
        _end(running)


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Keep a second command out of ``folder``; the lock lives as long as any process that was given it.

    A killed command may leave a training behind: to start a second one in its folder would mix the two.

    Yields:
        The lock's file descriptor.

    Raises:
        RuntimeError: If the folder is in use.
    """
    def refusal(holder: str) -> Exception:
        return RuntimeError(f'another command, or a training that it left behind, still works in {folder} (started by '
                            f'process {holder}); wait for its end, or end it.')

    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / '.lock', refusal) as lock:
        yield lock


def tail(log: Path) -> list[str]:
    """The last lines of a log, none where there is no log."""
    return log.read_text(errors='replace').splitlines()[-TAIL:] if log.exists() else []


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _start(job: Job, place: Mapping[str, str], lock: int | None) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # PASSIVE: by default OpenMP's threads spin while they wait for one another, and where another program wants a core
    # too, each parallel loop then waits for a whole time slice: a step took up to ten times as long
    environment = {**os.environ, 'OMP_NUM_THREADS': str(job.threads), 'MKL_NUM_THREADS': str(job.threads),
                   'OMP_WAIT_POLICY': 'PASSIVE', **place}
    with open(job.log, 'a') as log:
        return subprocess.Popen(job.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                env=environment, pass_fds=() if lock is None else (lock,))


def _end(processes: Collection[subprocess.Popen], patience: float = 10.0) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _how(code: int) -> str | None:
    if code < 0:
        return f'was ended by signal {-code}'
    return f'ended with exit code {code}' if code else None
