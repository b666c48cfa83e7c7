"""Teach a small detector with a big one, and show what it gains: data, three trainings, table, report, picture.

Interrupted, it continues where it stopped.
"""

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.demo.plan import FULL, QUICK

with contextlib.redirect_stdout(None):  # onedl-mmdetection prints, twice, that an optional package is absent
    from ckd_mmdet.demo.main import run_demo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='few images and epochs: all of it within three minutes')
    args = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[1])  # the configs' paths start there
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        run_demo(QUICK if args.quick else FULL)
    except KeyboardInterrupt:
        print('\nInterrupted. The same command continues where it stopped.', file=sys.stderr)
        sys.exit(130)
    except (RuntimeError, ValueError) as error:
        sys.exit(f'\n{error}')


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == '__main__':
    main()
