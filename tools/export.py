"""Write the plain student of a training checkpoint: weights and class names."""

import argparse

import ckd_mmdet.compat  # noqa: F401
from ckd_mmdet.export import export_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('checkpoint')
    parser.add_argument('out')
    args = parser.parse_args()
    print(f'wrote {export_student(args.checkpoint, args.out)}')


if __name__ == '__main__':
    main()
