"""Show what students have learnt of their teacher: class by class, by t-SNE of features, and from easy to hard.

For classifiers and detectors, on validation images drawn with a fixed seed. A detector's rows are the RoIs that each
student proposes and samples itself, so that its validation annotations are needed too. Or, with --sweep, draw the
sweeps of weight, temperature or batch size among the runs of compare.py. Numbers stand beside the pictures as JSON.
"""

import argparse
import contextlib
import sys
import warnings
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports
from ckd_mmdet.options import OptionsAction
from ckd_mmdet.versions import versions
from mmengine.device import is_cuda_available

with lab_imports():
    from ckd_mmdet.lab.analyze.main import Analysis, analyze, draw_sweep


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('config', nargs='?', help="the plain student's config, or a distilled one with its teacher")
    parser.add_argument('checkpoints', nargs='*', metavar='CHECKPOINT', help='of one student or more, side by side')
    parser.add_argument('--teacher', help="the teacher's config (default: that of a distilled config)")
    parser.add_argument('--teacher-checkpoint', help="its weights, a file or a URL (default: the model zoo's)")
    parser.add_argument('--method-name', nargs='+', metavar='NAME', help='what the students are called')
    parser.add_argument('--out', type=Path, help='(default: work_dirs/analyze_CONFIG; for a sweep, its first folder)')
    parser.add_argument('--batches', type=int, default=50, metavar='N', help='validation batches (default: 50)')
    parser.add_argument('--rows', type=int, default=1000, metavar='N', help='most rows in a t-SNE (default: 1000)')
    parser.add_argument('--examples', type=int, default=8, metavar='N', help='from easy to hard (default: 8)')
    parser.add_argument('--device', default='cuda' if is_cuda_available() else 'cpu')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, default={},
                        help='override settings, key=value')
    parser.add_argument('--sweep', nargs='+', type=Path, metavar='DIR', help='folders that compare.py wrote')
    parser.add_argument('--metric', help="for a sweep: key of the metric (default: the matrix's own)")
    args = parser.parse_args()
    if args.sweep:
        if args.config:
            parser.error('--sweep reads finished runs; leave out CONFIG and CHECKPOINT')
    elif not args.checkpoints:
        parser.error('needs CONFIG and at least one CHECKPOINT of the student, or --sweep DIR')
    return args


def main() -> None:
    args = parse_args()
    warnings.filterwarnings('ignore')  # of other people's code
    try:
        if args.sweep:
            written = draw_sweep(args.sweep, args.out, args.metric)
        else:
            settings = Analysis(args.config, args.checkpoints, args.method_name, args.teacher, args.teacher_checkpoint,
                                args.out, args.batches, args.rows, args.examples, args.cfg_options, args.device)
            with contextlib.redirect_stdout(None):  # so do data sets, of their reading
                written = analyze(settings, lambda text: print(text, file=sys.stderr))
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f'\n{error}')
    print(f'{written[0].parent}: {", ".join(path.name for path in written)}')


if __name__ == '__main__':
    main()
