"""What DigitScenes are drawn from: scikit-learn's handwritten digits and its two sample photographs.

What the training split sees, the other splits never see: each class's digits are divided
(:func:`digit_samples`), and so is the area of each photograph (:func:`photo_regions`). The test split
draws other scenes than the validation split, but from the same digits and areas: training and
validation use up all that there is, and their bytes are to stay what they are.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits, load_sample_images

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SPLITS = ('train', 'val')
"""Those of every set."""
TEST = 'test'
"""The split that a set may have beside them."""
STREAMS = (*SPLITS, TEST)
"""By their place the splits' scenes have random streams of their own."""

TRAIN_SHARE_OF_DIGITS = 0.8
TRAIN_SHARE_OF_PHOTO = 2 / 3

Box = tuple[int, int, int, int]


@lru_cache(maxsize=1)
def handwriting() -> tuple[np.ndarray, np.ndarray]:
    """The digits as images of shape ``(1797, 8, 8)`` with ink in 0 to 255, and their labels."""
    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


@lru_cache(maxsize=1)
def photos() -> dict[str, np.ndarray]:
    """The photographs by file name, each of shape ``(h, w, 3)``."""
    samples = load_sample_images()
    names = [Path(path).name for path in samples.filenames]
    return dict(zip(names, samples.images, strict=True))


@lru_cache(maxsize=len(STREAMS))
def digit_samples(split: str) -> tuple[np.ndarray, ...]:
    """Indices into ``load_digits()`` that the split may use, one array per class.

    Of each class the first four fifths are for training, the last for validation and test. Neighbours
    in that file tend to be of one writer, so that a cut in its order also keeps most writers on one
    side; a random cut would not.
    """
    _, labels = handwriting()
    by_class = []
    for label in range(len(CLASSES)):
        samples = np.flatnonzero(labels == label)
        border = round(TRAIN_SHARE_OF_DIGITS * len(samples))
        by_class.append({'train': samples[:border], 'val': samples[border:], TEST: samples[border:]}[split])
    return tuple(by_class)


@lru_cache(maxsize=len(STREAMS))
def photo_regions(split: str) -> dict[str, Box]:
    """The part ``(x, y, width, height)`` of each photograph that the split may use.

    Training has the upper two thirds, validation and test the lower third, where both photographs
    also have texture; their right-hand parts are mere sky and blur.
    """
    regions = {}
    for name, photo in photos().items():
        height, width = photo.shape[:2]
        border = round(TRAIN_SHARE_OF_PHOTO * height)
        top, bottom = {'train': (0, border), 'val': (border, height), TEST: (border, height)}[split]
        regions[name] = (0, top, width, bottom - top)
    return regions
