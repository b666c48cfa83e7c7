"""Examples from easy to hard, by the preview's relative difficulty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ckd_mmdet.lab.analyze.data import Images
from ckd_mmdet.lab.analyze.rows import ImageRows
from ckd_mmdet.losses.preview import Preview
from torch import Tensor, nn

MARGIN = 0.5
"""Of a RoI's side, added to each side of it: its neighbourhood."""


@dataclass(frozen=True)
class Example:
    """One row and what the student says of it."""

    pixels: np.ndarray
    """RGB, shape ``(h, w, 3)``, uint8: the image, or the RoI with its neighbourhood."""
    box: tuple[float, float, float, float] | None
    """The RoI in ``pixels``."""
    path: str | None
    label: int
    prediction: int
    score: float
    difficulty: float
    harder_than: float
    """Share of the rows of its strip that are easier."""


def difficulties(rows: ImageRows) -> np.ndarray:
    r"""Each row's cross entropy over the mean of *all* rows, background apart; shape ``(n,)``.

    As :class:`ckd_mmdet.losses.preview.Preview` has it in training, where the mean is a batch's.
    """
    return Preview(name='analyze').difficulty(rows.samples).numpy()


def choose(difficulty: np.ndarray, images: np.ndarray, count: int) -> np.ndarray:
    """Rows at even steps from the easiest to the hardest, no image twice as long as others are there.

    Args:
        difficulty: Shape ``(n,)``.
        images: The image of each row, shape ``(n,)``.
        count: How many; fewer where there are fewer rows.

    Returns:
        Indices, shape ``(min(count, n),)``, from easy to hard.
    """
    order = np.argsort(difficulty, kind='stable')
    places = np.unique(np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int))
    chosen: list[int] = []
    for place in places[::-1]:  # the hardest are the fewest: they choose first
        near = sorted(range(len(order)), key=lambda other: (abs(other - place), other))
        seen = {images[order[other]] for other in chosen}
        free = [other for other in near if other not in chosen]
        chosen.append(next((other for other in free if images[order[other]] not in seen), free[0]))
    return order[sorted(chosen)]


def strips(rows: ImageRows, images: Images, preprocessor: nn.Module, count: int) -> dict[str, list[Example]]:
    """Examples by what they are: ``'images'``; of RoIs ``'objects'`` and ``'background'``."""
    difficulty = difficulties(rows)
    probabilities = rows.samples.student.logits.softmax(1)
    background = rows.labels == rows.samples.num_classes
    kinds = {'images': ~background} if rows.boxes is None else {'objects': ~background, 'background': background}
    found: dict[str, list[Example]] = {}
    for kind, mask in kinds.items():
        own = np.flatnonzero(mask)
        if not len(own):
            continue
        examples = []
        for row in own[choose(difficulty[own], rows.images[own], count)]:
            image = int(rows.images[row])
            pixels = as_rgb(images.pixels(image), preprocessor)
            box = None
            if rows.boxes is not None:
                pixels, box = crop(pixels, rows.boxes[row].tolist())
            score, prediction = probabilities[row].max(0)
            examples.append(Example(pixels, box, images.path(image), int(rows.labels[row]), int(prediction),
                                    float(score), float(difficulty[row]),
                                    float((difficulty[own] < difficulty[row]).mean())))
        found[kind] = examples
    return found


def as_rgb(pixels: Tensor, preprocessor: nn.Module) -> np.ndarray:
    """An image as the pipeline packed it ``(3, h, w)``, RGB and ``(h, w, 3)`` for the eye."""
    swaps = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
    pixels = pixels.flip(0) if swaps else pixels
    return pixels.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def crop(pixels: np.ndarray, box: list[float]) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The square around a box with its neighbourhood, grey beyond the image, and the box in it.

    Args:
        pixels: Shape ``(h, w, 3)``.
        box: x1, y1, x2, y2 in its pixels.
    """
    x1, y1, x2, y2 = box
    half = max(2.0, (0.5 + MARGIN) * max(x2 - x1, y2 - y1))
    left, top = (int(np.floor((low + high) / 2 - half)) for low, high in ((x1, x2), (y1, y2)))
    size = int(np.ceil(2 * half))
    found = np.full((size, size, 3), 128, np.uint8)
    height, width = pixels.shape[:2]
    rows, columns = (slice(max(0, start), max(0, min(start + size, most))) for start, most in
                     ((top, height), (left, width)))
    found[rows.start - top:rows.stop - top, columns.start - left:columns.stop - left] = pixels[rows, columns]
    return found, (x1 - left, y1 - top, x2 - left, y2 - top)
