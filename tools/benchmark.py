"""Measure what distillation costs: seconds per training step, peak memory, checkpoint sizes."""

import argparse
import json
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.lab.jobs.commands import lab_imports
from ckd_mmdet.versions import versions
from mmengine.device import is_cuda_available

with lab_imports():
    from ckd_mmdet.lab.benchmark.main import benchmark, markdown, table
    from ckd_mmdet.lab.benchmark.steps import PROPOSALS, Setting
    from ckd_mmdet.lab.benchmark.variants import BY_DEFAULT, VARIANTS


def parse_args() -> tuple[Setting, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('config', nargs='?', default='configs/ckd/ckd_faster_rcnn_r101-r50_fpn_1x_coco.py',
                        help='of a distilled student (default: %(default)s)')
    parser.add_argument('--teacher-checkpoint', help='(default: random weights)')
    parser.add_argument('--student-checkpoint', help='(default: random weights)')
    parser.add_argument('--variants', nargs='+', choices=VARIANTS, metavar='NAME',
                        help=f'some of {", ".join(VARIANTS)} (default: {" ".join(BY_DEFAULT)})')
    parser.add_argument('--batch', type=int, default=2, help='images per step (default: 2)')
    parser.add_argument('--size', type=_size, default=(256, 384), help='their height x width (default: 256x384)')
    parser.add_argument('--rounds', type=int, default=15, help='steps of each variant (default: 15)')
    parser.add_argument('--warm-up', type=int, default=2, help='rounds before them (default: 2)')
    parser.add_argument('--proposals', choices=PROPOSALS, default='trained',
                        help="what the student's RPN gives (default), or 1000 fixed boxes per image")
    parser.add_argument('--device', default='cuda' if is_cuda_available() else 'cpu')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; needs a GPU')
    parser.add_argument('--no-memory', action='store_true',
                        help='do not measure peak memory, which takes a process for each variant')
    parser.add_argument('--markdown', action='store_true', help='print a Markdown table too')
    parser.add_argument('--out', default='benchmark.json', help='(default: benchmark.json)')
    args = parser.parse_args()
    if not Path(args.out).absolute().parent.is_dir():
        parser.error(f'--out needs a folder that exists, {args.out} has none')
    try:
        setting = Setting(args.config, args.teacher_checkpoint, args.student_checkpoint, args.batch, args.size,
                          args.proposals, args.device, args.amp, args.rounds, args.warm_up,
                          tuple(args.variants) if args.variants else None)
    except ValueError as error:
        parser.error(str(error))
    return setting, args


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition('x')
    if not (cross and height.isdigit() and width.isdigit()):
        raise argparse.ArgumentTypeError(f'needs HEIGHTxWIDTH in pixels, such as 256x384, got {text}')
    return int(height), int(width)


def main() -> None:
    setting, args = parse_args()
    report = benchmark(setting, memory=not args.no_memory)
    print(table(report))
    if args.markdown:
        print(f'\n{markdown(report)}')
    Path(args.out).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
