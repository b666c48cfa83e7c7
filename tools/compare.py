"""Compare distillation methods over several seeds: all are trained alike; a table with intervals, plots, report.html.

If it is interrupted, the same command continues. More methods and seeds may join later. --report DIR trains nothing
and writes the report of a matrix again, from its finished runs.
"""

import argparse
import sys
import warnings
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports, told_in_one_line
from ckd_mmdet.options import OptionsAction
from ckd_mmdet.versions import versions

with lab_imports():
    from ckd_mmdet.lab.compare.main import default_out, run_matrix, write_all
    from ckd_mmdet.lab.compare.plan import Settings
    from ckd_mmdet.lab.compare.report import as_shown
    from ckd_mmdet.lab.compare.test_set import SPLITS
    from ckd_mmdet.lab.compare.testing import check_tested
    from ckd_mmdet.method_options import CLASS_MAP, read_class_map
    from ckd_mmdet.recipes import METHODS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('student', nargs='?', help='config of a plain detector or classifier, mmdet::... too')
    parser.add_argument('--teacher', help='the config of the model that teaches')
    parser.add_argument('--teacher-checkpoint', help="its weights, a file or a URL (default: the model zoo's)")
    parser.add_argument('--methods', nargs='+', metavar='METHOD',
                        help=f'none, {", ".join(METHODS)}, or several joined by +; or whole configs of a distilled '
                             'student. none, the student alone, is always included')
    parser.add_argument('--titles', nargs='+', metavar='METHOD=TITLE', default=[],
                        help="what the report calls a method, ckd:0.5='CKD, half the weight' for example")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='(default: 0 1 2)')
    parser.add_argument('--epochs', type=int, help="instead of the student's own; its schedule shrinks with them, and "
                                                   'loss weights that change by epochs do')
    parser.add_argument('--jobs', type=int, help='runs at a time (default: one a GPU, without GPUs one a core)')
    parser.add_argument('--out', type=Path, help='(default: work_dirs/compare_STUDENT_TEACHER)')
    parser.add_argument('--metric', help="key in MMEngine's log of the metric to compare (default: mAP of a "
                                         'detector, top-1 of a classifier)')
    parser.add_argument('--keep', action='store_true', help='keep the checkpoints of finished runs')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, default={},
                        help='override settings of every run, key=value; keys of the student: model.student...=')
    parser.add_argument('--class-map', nargs='+', metavar='OURS=THEIRS',
                        help="as for tools/train.py: the teacher's class for each of the student's, or a file")
    parser.add_argument('--check-data', action='store_true',
                        help='before training, look for images of the training set that stand in the validation or '
                             'test set again, or nearly')
    parser.add_argument('--report-on', choices=SPLITS, default='val',
                        help="whose numbers the report shows: val's, by which one chooses, or test's, for a final "
                             "statement. test tests each student.pth, and the teacher, with the student's "
                             'test_dataloader; given with the command of a finished matrix it trains nothing anew '
                             '(default: val)')
    parser.add_argument('--report', type=Path, metavar='DIR', help='train nothing, write the report of this matrix')
    args = parser.parse_args()
    if args.class_map:
        try:
            args.cfg_options = {**args.cfg_options, CLASS_MAP: read_class_map(args.class_map)}
        except ValueError as error:
            parser.error(str(error))
    if args.report is None:
        lacking = [name for name in ('student', 'teacher', 'methods') if getattr(args, name) is None]
        if lacking:
            parser.error(f'needs STUDENT, --teacher and --methods, or --report DIR; not given: {", ".join(lacking)}')
    elif args.student or args.teacher or args.methods or args.titles or args.check_data:
        parser.error('--report trains nothing; leave out STUDENT, --teacher, --methods, --titles and --check-data')
    for title in args.titles:
        if not all(title.rpartition('=')[::2]):
            parser.error(f'--titles needs METHOD=TITLE, got {title!r}')
    args.titles = dict(title.rsplit('=', 1) for title in args.titles)
    return args


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')  # of other people's code, while models are built
    with told_in_one_line():
        out = args.report or args.out or default_out(args.student, args.teacher)
        if args.report is not None:
            if args.report_on == 'test':
                check_tested(out)
            found = write_all(out, args.metric, args.report_on)
        else:
            found = run_matrix(Settings(args.student, args.teacher, args.methods, args.seeds, out,
                                        args.teacher_checkpoint, args.epochs, args.cfg_options, args.metric,
                                        args.jobs, args.keep, args.titles, args.check_data, args.report_on))
    print(as_shown(out))
    if found.failed:
        sys.exit(1)


if __name__ == '__main__':
    main()
