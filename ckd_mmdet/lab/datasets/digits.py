"""HandwrittenDigits: scikit-learn's real digits as a data set for classifiers; nothing is downloaded."""

from __future__ import annotations

from typing import Any

import numpy as np
from ckd_mmdet.classification import require_mmpretrain
from ckd_mmdet.lab import require_packages
from ckd_mmdet.registry import DATASETS
from PIL import Image

require_packages()
from .digit_sources import CLASSES, handwriting  # noqa: E402

require_mmpretrain()
from mmpretrain.datasets import BaseDataset  # noqa: E402

SIDE = 32
TRAIN_PER_CLASS = 80
SPLITS = ('train', 'test')


@DATASETS.register_module()
class HandwrittenDigits(BaseDataset):
    """The 1,797 handwritten digits that scikit-learn ships, 8x8 pixels, as RGB images of 32x32.

    Of each class the first 80 are for training (800), the others for testing (997): neighbours in that file tend to be
    of one writer, so that a cut in its order also keeps most writers in one split. Results hold the image under
    ``img``, uint8, shape ``(32, 32, 3)``, so that a pipeline starts without loading, and its index in that file under
    ``sample``.

    To make it hard, images are turned and get noise, and training may have few labels, some of them wrong. All this is
    fixed: image ``i`` of the file is drawn from its own random stream, seeded by ``(seed, i)``, and looks the same in
    every epoch and in every subset; which labels are wrong differs from subset to subset. Labels of the test split are
    always the true ones.

    Args:
        split: ``'train'`` or ``'test'``.
        images_per_class: How many of each class, drawn by ``seed``; a smaller subset lies within a larger one.
            ``None``: all there are.
        rotation: Largest angle in degrees, at least 0, by which an image is turned to either side.
        noise: Standard deviation of Gaussian noise on each channel of each pixel, at least 0, of values in 0 to 255.
        wrong_labels: Share of the training images, in 0 to 1, whose label is one of the other nine.
        seed: At least 0; another seed makes another set.
        pipeline: Transforms of MMPretrain.
        metainfo: As of every data set.
        test_mode: As of every data set.

    Raises:
        ValueError: If an argument is out of its range.
    """

    METAINFO = dict(classes=CLASSES)

    def __init__(self, split: str = 'train', images_per_class: int | None = None, rotation: float = 0.0,
                 noise: float = 0.0, wrong_labels: float = 0.0, seed: int = 0, pipeline: Any = (),
                 metainfo: dict | None = None, test_mode: bool = False) -> None:
        _check(split, images_per_class, rotation, noise, wrong_labels, seed)
        self.split = split
        self.images_per_class = images_per_class
        self.rotation = rotation
        self.noise = noise
        self.wrong_labels = wrong_labels
        self.seed = seed
        super().__init__(ann_file='', metainfo=metainfo, pipeline=pipeline, test_mode=test_mode)

    def load_data_list(self) -> list[dict]:
        """Images and labels, in the order of scikit-learn's file."""
        samples = self._samples()
        labels = self._labels(samples)
        return [dict(img=self._draw(sample), gt_label=label, sample=int(sample))
                for sample, label in zip(samples, labels, strict=True)]

    def extra_repr(self) -> list[str]:
        return [f'Split: \t{self.split}', f'Rotation: \t{self.rotation}', f'Noise: \t{self.noise}',
                f'Wrong labels: \t{self.wrong_labels}', f'Seed: \t{self.seed}']

    def _samples(self) -> np.ndarray:
        """Indices in ``load_digits()``, ascending."""
        _, true = handwriting()
        chosen = []
        for label in range(len(CLASSES)):
            samples = np.flatnonzero(true == label)
            samples = samples[:TRAIN_PER_CLASS] if self.split == 'train' else samples[TRAIN_PER_CLASS:]
            if self.images_per_class is not None:
                order = np.random.default_rng((self.seed, SPLITS.index(self.split), label)).permutation(len(samples))
                samples = samples[order[:self.images_per_class]]
            chosen.append(samples)
        return np.sort(np.concatenate(chosen))

    def _labels(self, samples: np.ndarray) -> list[int]:
        _, true = handwriting()
        labels = true[samples]
        if self.split == 'train' and self.wrong_labels:
            stream = np.random.default_rng((self.seed, len(samples)))
            wrong = stream.permutation(len(samples))[:round(self.wrong_labels * len(samples))]
            labels[wrong] = (labels[wrong] + stream.integers(1, len(CLASSES), len(wrong))) % len(CLASSES)
        return labels.tolist()

    def _draw(self, sample: int) -> np.ndarray:
        """RGB, uint8, shape ``(32, 32, 3)``."""
        images, _ = handwriting()
        stream = np.random.default_rng((self.seed, sample))
        # Pillow scales and turns 8-bit images in integers, hence alike on every processor; OpenCV need not
        image = Image.fromarray(images[sample]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        image = image.rotate(stream.uniform(-self.rotation, self.rotation), Image.Resampling.BICUBIC)
        noisy = np.asarray(image)[..., None] + stream.normal(0, self.noise, (SIDE, SIDE, 3))
        return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


def _check(split: str, images_per_class: int | None, rotation: float, noise: float, wrong_labels: float,
           seed: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"`HandwrittenDigits` needs a `split` of 'train' or 'test', got {split!r}.")
    most = TRAIN_PER_CLASS if split == 'train' else np.bincount(handwriting()[1]).min() - TRAIN_PER_CLASS
    if images_per_class is not None and not 1 <= images_per_class <= most:
        raise ValueError(f'`HandwrittenDigits` needs `images_per_class` in 1 to {most} in the split {split!r}, or None '
                         f'for all, got {images_per_class}.')
    if not 0 <= wrong_labels <= 1:
        raise ValueError(f'`HandwrittenDigits` needs a share of `wrong_labels` in 0 to 1, got {wrong_labels}.')
    for name, value in (('rotation', rotation), ('noise', noise), ('seed', seed)):
        if not 0 <= value < float('inf'):
            raise ValueError(f'`HandwrittenDigits` needs a finite `{name}` of at least 0, got {value}.')
