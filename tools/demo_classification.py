"""Teach a small classifier of handwritten digits with a larger one: student alone, KD, CKD and PCKD over seeds.

If it is interrupted, it continues where it stopped; more seeds may join later.
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
    from ckd_mmdet.classification import require_mmpretrain
    from ckd_mmdet.lab.compare.report import as_shown
    from ckd_mmdet.lab.demo.classification import DIGITS
    from ckd_mmdet.lab.demo.main import run_demo
    from tqdm import tqdm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('--seeds', nargs='+', type=int, default=DIGITS.seeds, metavar='N',
                        help=f'of the students (default: {" ".join(map(str, DIGITS.seeds))})')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of other people's code, while models are built
    os.chdir(Path(__file__).resolve().parents[1])  # the configs' paths start there
    started = time.monotonic()
    with told_in_one_line():
        require_mmpretrain()
        found = run_demo(DIGITS, args.seeds)
    print(as_shown(DIGITS.matrix))
    print(f'The demo took {tqdm.format_interval(time.monotonic() - started)} (without what was found finished).')
    if found.failed:
        sys.exit(1)


if __name__ == '__main__':
    main()
