"""Processes side by side: watched, ended together, never left behind."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    import yapf  # noqa: F401  fills its cache: jobs that fill it at once can read half of it

    running: dict[subprocess.Popen, Job] = {}
    try:
        for job in jobs:
            running[_start(job, lock)] = job
        while running:
            for process in [process for process in running if process.poll() is not None]:
                job = running.pop(process)
                if process.returncode:
                    raise JobFailed(_failure(job, process.returncode))
            watch()
            time.sleep(interval)
    finally:
        _end(running)


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Keep a second demo out of ``folder``; the lock lives as long as any process that was given it.

    A killed demo may leave a training behind: to start a second one in its folder would mix the two.

    Yields:
        The lock's file descriptor.

    Raises:
        RuntimeError: If the folder is in use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / '.lock', 'a+') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RuntimeError(f'another demo, or a training that it left behind, still works in {folder} (started by '
                               f'process {file.read().strip()}); wait for its end, or end it.') from error
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        yield file.fileno()


def _start(job: Job, lock: int | None) -> subprocess.Popen:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # PASSIVE: by default OpenMP's threads spin while they wait for one another, and where another program wants a core
    # too, each parallel loop then waits for a whole time slice: a step took up to ten times as long
    environment = {**os.environ, 'OMP_NUM_THREADS': str(job.threads), 'MKL_NUM_THREADS': str(job.threads),
                   'OMP_WAIT_POLICY': 'PASSIVE'}
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


def _failure(job: Job, code: int) -> str:
    how = f'was ended by signal {-code}' if code < 0 else f'ended with exit code {code}'
    lines = job.log.read_text(errors='replace').splitlines()
    tail = '\n'.join(f'    {line}' for line in lines[-TAIL:])
    return f'{job.title} {how}. The end of its log, {job.log}:\n\n{tail}'
