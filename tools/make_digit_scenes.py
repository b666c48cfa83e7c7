"""Write DigitScenes, a detection data set in COCO's format that needs no download."""

import argparse
from pathlib import Path

from ckd_mmdet.datasets.digit_scenes import make_digit_scenes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('--out', type=Path, default='data/digit_scenes', help='folder to write')
    parser.add_argument('--train', type=int, default=1200, help='number of training images')
    parser.add_argument('--val', type=int, default=300, help='number of validation images')
    parser.add_argument('--size', type=int, default=128, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0, help='same seed, same bytes')
    parser.add_argument('--force', action='store_true', help='replace a set that is already there')
    options = parser.parse_args()
    try:
        make_digit_scenes(**vars(options))
    except ValueError as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
