"""Teach a small detector with a large one, and show what it gains: data, students, table, picture, report.html.

If it is interrupted, it continues where it stopped. More seeds may join later.
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports, told_in_one_line
from ckd_mmdet.versions import versions

with lab_imports():
    from ckd_mmdet.lab.compare.report import as_shown
    from ckd_mmdet.lab.demo.detection import DEMO, FULL, QUICK, run_detection
    from tqdm import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    size = parser.add_mutually_exclusive_group()
    size.add_argument('--quick', action='store_true', help='fewer scenes and steps: about two minutes')
    size.add_argument('--full', action='store_true', help='more scenes and steps, and a teacher that it trains')
    parser.add_argument('--seeds', nargs='+', type=int, default=DEMO.demo.seeds, metavar='N',
                        help='for the students (default: 0)')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of other people's code, while models are built
    os.chdir(Path(__file__).resolve().parents[1])  # the configs' paths start there
    scenes = QUICK if args.quick else FULL if args.full else DEMO
    if not Path(DEMO.demo.weights).exists():
        sys.exit(f'the demo needs its teacher, {DEMO.demo.weights}, which only the repository has, not an installed '
                 'package: run `make demo` in a clone of it.')
    started = time.monotonic()
    with told_in_one_line():
        found, picture = run_detection(scenes, args.seeds)
    print(as_shown(scenes.demo.matrix))
    print(f'The same scenes with each detector: {picture}')
    print(f'The demo took {tqdm.format_interval(time.monotonic() - started)} (without what was found finished).')
    if found.failed:
        sys.exit(1)


if __name__ == '__main__':
    main()
