"""Teach a small detector with a big one, and show what it gains: data, three trainings, table, report, picture.

Interrupted, it continues where it stopped.
"""

import argparse
import os
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports, told_in_one_line

with lab_imports():
    from ckd_mmdet.lab.demo.main import run_demo
    from ckd_mmdet.lab.demo.plan import FULL, QUICK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='few images and epochs: all of it within three minutes')
    args = parser.parse_args()
    os.chdir(Path(__file__).resolve().parents[1])  # the configs' paths start there
    with told_in_one_line():
        run_demo(QUICK if args.quick else FULL)


if __name__ == '__main__':
    main()
