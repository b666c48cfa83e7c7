"""Write report.html of one training: curves, precision by class, photographs, errors, agreement with the teacher, cost.

For that, student.pth is run once over the validation images. For a comparison, tools/compare.py writes the page itself.
"""

import argparse
import warnings
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports, told_in_one_line
from ckd_mmdet.versions import versions

with lab_imports():
    from ckd_mmdet.lab.page.training import write_training_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('work_dir', type=Path, help='the folder that tools/train.py wrote to')
    parser.add_argument('--no-validation', action='store_true',
                        help='do not run the student: without precision by class, photographs and errors')
    args = parser.parse_args()
    warnings.filterwarnings('ignore')  # of other people's code
    with told_in_one_line():
        print(write_training_page(args.work_dir, not args.no_validation))


if __name__ == '__main__':
    main()
