"""A lock on a folder, which ends with the processes that hold it, however they end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.logging import print_log

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(path: Path, refusal: Callable[[str], Exception]) -> Iterator[int]:
    """Hold the system's lock on a file, which is made and stays, and has the number of this process in it.

    Processes that are given the file descriptor hold the lock too; it is free when the last of them has ended, see
    :func:`release`. Where the file system has no locks, the log says so.

    Args:
        path: The file, in a folder that exists.
        refusal: Makes the error from the number of the process that holds the lock.

    Yields:
        The file descriptor.
    """
    with open(path, 'a+') as file:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise refusal(file.read().strip()) from error
        except OSError as error:
            print_log(f'{path.parent} cannot be locked ({error.strerror}): see that nothing else works in it.',
                      logger='current')
        file.truncate(0)
        file.write(f'{os.getpid()}\n')
        file.flush()
        yield file.fileno()


def release(descriptor: int) -> None:
    """Free the lock, although processes that hold the file open may still run."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
