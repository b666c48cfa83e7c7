"""What a command does around its work: a signal that ends it is an interruption, an error is one line."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import NoReturn

from ckd_mmdet.lab import require_packages


@contextmanager
def lab_imports() -> Iterator[None]:
    """Around a command's imports from the lab: leave by ``SystemExit``, without a traceback, if packages are missing.

    What they print or warn of is not shown: onedl-mmdetection tells that optional packages are absent.
    """
    try:
        require_packages()
    except ImportError as error:
        sys.exit(f'\n{error}')
    with redirect_stdout(None), warnings.catch_warnings():
        warnings.simplefilter('ignore')
        yield


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Leave by ``SystemExit``, without a traceback, where the user interrupts or something is unfit.

    The commands end their children on ``KeyboardInterrupt``: the signals that end a process by default become it.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        print('\nInterrupted. The same command continues where it stopped.', file=sys.stderr)
        sys.exit(130)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f'\n{error}')


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
