"""Write the plain student of a training checkpoint: weights and class names."""

import argparse

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.compat.loading import trusting
from ckd_mmdet.export import export_student
from ckd_mmdet.versions import versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('checkpoint', help='that tools/train.py wrote')
    parser.add_argument('out', help='the file to write, a .pth')
    parser.add_argument('--overwrite', action='store_true', help='replace the file OUT if it is there')
    parser.add_argument('--half', action='store_true', help='write half precision, which takes half the space')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read a checkpoint that could run code; only if you trust whoever made it')
    args = parser.parse_args()
    try:
        with trusting(args.trust_checkpoint):
            print(f'wrote {export_student(args.checkpoint, args.out, args.overwrite, args.half)}')
    except (OSError, ValueError) as error:
        raise SystemExit(str(error)) from error


if __name__ == '__main__':
    main()
