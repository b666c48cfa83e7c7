"""Data sets of four images, as small as users' annotation files are odd."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 96
NAMES = ('car', 'person', 'sign', 'light', 'dog')


def make_data(folder: Path) -> None:
    """Write ``images/`` and ``train.json``, ``val.json``; beside them sets of one class, of crowds, and of gray images.

    Of the four images one has no object, and one a crowd only.
    """
    generator = np.random.default_rng(0)
    for images, channels in (('images', 3), ('gray', 1)):
        (folder / images).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (SIZE, SIZE - 8 * number, channels), dtype=np.uint8)
            Image.fromarray(pixels.squeeze()).save(folder / images / f'{number}.png')
    for name, classes in (('', NAMES), ('one_', ('sign',)), ('two_', ('car', 'person'))):
        for split in ('train', 'val'):
            (folder / f'{name}{split}.json').write_text(json.dumps(_coco(generator, classes)))


def _coco(generator: np.random.Generator, classes: tuple[str, ...]) -> dict:
    annotations = []
    for image, (objects, crowd) in enumerate([(3, 0), (2, 1), (0, 1), (0, 0)]):
        for number in range(objects + crowd):
            x, y = generator.integers(0, 30, 2).tolist()
            w, h = generator.integers(16, 34, 2).tolist()
            annotations.append(dict(
                id=len(annotations) + 1, image_id=image, category_id=number % len(classes) + 1, bbox=[x, y, w, h],
                area=w * h, iscrowd=int(number >= objects),
                segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return dict(
        images=[dict(id=number, file_name=f'{number}.png', height=SIZE, width=SIZE - 8 * number)
                for number in range(4)],
        categories=[dict(id=number + 1, name=name) for number, name in enumerate(classes)], annotations=annotations)
