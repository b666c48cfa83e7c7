"""Write DigitScenes, a detection data set in COCO's format that needs no download."""

import argparse
from pathlib import Path

from ckd_mmdet.lab.jobs.commands import lab_imports
from ckd_mmdet.versions import versions

with lab_imports():
    from ckd_mmdet.lab.datasets.digit_drawing import HARD, PLAIN
    from ckd_mmdet.lab.datasets.digit_scenes import make_digit_scenes

DEFAULTS = {
    False: {'out': Path('data/digit_scenes'), 'size': 128, 'drawing': PLAIN},
    True: {'out': Path('data/digit_scenes_hard'), 'size': 192, 'drawing': HARD},
}
"""Of the plain set and of the hard one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, argument_default=argparse.SUPPRESS)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument(
        '--hard',
        action='store_true',
        help='more digits per image, smaller, fainter and partly hidden by others',
    )
    parser.add_argument(
        '--out',
        type=Path,
        help='folder to write (default: data/digit_scenes, or data/digit_scenes_hard with --hard)',
    )
    parser.add_argument('--train', type=int, help='number of training images (default: 1200)')
    parser.add_argument('--val', type=int, help='number of validation images (default: 300)')
    parser.add_argument(
        '--test',
        type=int,
        help='number of test images (default: 0), other scenes, never trained on; their digits and areas of '
        "photographs are those of val's pool, train's are others; train and val stay the same bytes",
    )
    parser.add_argument(
        '--size', type=int, help='side of the images in pixels (default: 128, or 192 with --hard)'
    )
    parser.add_argument('--seed', type=int, help='same seed, same bytes (default: 0)')
    parser.add_argument('--force', action='store_true', help='replace a set that is already there')
    given = vars(parser.parse_args())
    try:
        make_digit_scenes(**{**DEFAULTS[given.pop('hard', False)], **given})
    except ValueError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
