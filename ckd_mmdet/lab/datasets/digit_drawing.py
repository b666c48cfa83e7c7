"""One scene: a crop of a photograph with handwritten digits painted on it, their masks and boxes.

:data:`PLAIN` and :data:`HARD` say how the two sets are drawn. In either, as in COCO, a digit's mask
and box are those of its visible part, and what is no longer to be recognised is not annotated:
:data:`HARD` lays no digit where it would hide more than half of another, so that none is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from ckd_mmdet.lab.datasets.digit_sources import (
    CLASSES,
    STREAMS,
    Box,
    digit_samples,
    handwriting,
    photo_regions,
    photos,
)
from PIL import Image


@dataclass(frozen=True)
class Drawing:
    """How scenes are drawn; values are drawn uniformly from ranges that include both ends.

    Attributes:
        digits: How many digits an image holds.
        digit_size: Side of the square a digit was written in, as a share of the image's side; the
            strokes span most of that square.
        opacity: 1 hides the photograph behind the strokes.
        contrast: Least distance, in RGB with channels in 0 to 255, between a stroke as it appears
            and the mean background behind it.
        overlap: Largest share of any digit's rectangle that other digits' rectangles may cover.
        crop: Side of the crop of the photograph, in the photograph's pixels; at most 142, the least
            height in :func:`photo_regions`. The crop is then scaled to the image.
        noise: Standard deviation of the Gaussian noise, with channels in 0 to 255.
        most_contrast: Greatest distance of that kind; stronger colours are moved towards the
            background. None: no limit.
        stacked: Probability that a digit is placed where its rectangle meets an earlier one's; the
            other digits lie anywhere. None: all of them do.
        most_hidden: Largest share of any digit's strokes that later digits may hide. None: no limit.
    """

    digits: tuple[int, int] = (2, 6)
    digit_size: tuple[float, float] = (0.125, 0.375)
    opacity: tuple[float, float] = (0.5, 1.0)
    contrast: float = 40.0
    overlap: float = 0.2
    crop: tuple[int, int] = (80, 140)
    noise: float = 8.0
    # None also keeps these out of a set's settings, so that plain sets written before still match.
    most_contrast: float | None = None
    stacked: float | None = None
    most_hidden: float | None = None


PLAIN = Drawing()
# For images of 192 pixels: more digits, smaller in the image, fainter, and three tenths of them partly hidden.
HARD = Drawing(
    digits=(6, 12),
    digit_size=(0.09, 0.22),
    opacity=(0.8, 1.0),
    contrast=50.0,
    overlap=0.6,
    most_contrast=140.0,
    stacked=0.5,
    most_hidden=0.5,
)


@dataclass(frozen=True)
class Digit:
    """One digit of a scene.

    Attributes:
        label: 0 to 9.
        sample: Index in ``load_digits()``.
        mask: The stroke pixels that no later digit covers, bool, shape ``(h, w)``.
        strokes: All its stroke pixels, those that later digits cover too; of the same shape.
    """

    label: int
    sample: int
    mask: np.ndarray
    strokes: np.ndarray

    @property
    def hidden(self) -> float:
        """Share of the strokes that later digits cover."""
        return 1 - float(self.mask.sum() / self.strokes.sum())

    def under(self, mask: np.ndarray) -> 'Digit':
        """This digit after another was painted where ``mask`` is true."""
        return replace(self, mask=self.mask & ~mask)


@dataclass(frozen=True)
class Scene:
    """One image and what it shows.

    Attributes:
        image: RGB, uint8, shape ``(h, w, 3)``.
        digits: In the order of painting; later ones lie on top.
        photo: File name of the photograph.
        crop: The part ``(x, y, width, height)`` of the photograph behind the digits.
    """

    image: np.ndarray
    digits: tuple[Digit, ...]
    photo: str
    crop: Box


def draw_scene(
    split: str, index: int, *, size: int, seed: int, drawing: Drawing | None = None
) -> Scene:
    """Draw scene number ``index`` of a split; the same arguments give the same scene.

    A digit that finds no room after many tries is left out, but a scene always has room for two.
    """
    drawing = drawing or PLAIN
    rng = np.random.default_rng(np.random.SeedSequence((seed, STREAMS.index(split), index)))
    photo, crop, canvas = _draw_background(rng, split, size, drawing)

    digits: list[Digit] = []
    rectangles: list[Box] = []
    for _ in range(rng.integers(*drawing.digits, endpoint=True)):
        placed = _place_digit(rng, split, size, drawing, digits, rectangles)
        if placed is None:
            continue
        digit, alpha, rectangle = placed
        _paint(rng, canvas, alpha, rectangle, drawing)
        digits = [*(earlier.under(digit.mask) for earlier in digits), digit]
        rectangles.append(rectangle)

    canvas += rng.normal(0, drawing.noise, canvas.shape)
    image = np.clip(np.round(canvas), 0, 255).astype(np.uint8)
    return Scene(image, tuple(digits), photo, crop)


def _draw_background(
    rng: np.random.Generator, split: str, size: int, drawing: Drawing
) -> tuple[str, Box, np.ndarray]:
    """A square crop of the split's part of a photograph, mirrored or not, scaled to ``size``.

    Returns:
        The photograph's name, the crop in it, and the pixels as float64, shape ``(size, size, 3)``.
    """
    regions = photo_regions(split)
    photo = sorted(regions)[rng.integers(len(regions))]
    left, top, width, height = regions[photo]
    side = int(rng.integers(*drawing.crop, endpoint=True))
    x = left + int(rng.integers(width - side, endpoint=True))
    y = top + int(rng.integers(height - side, endpoint=True))
    pixels = photos()[photo][y : y + side, x : x + side]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    return photo, (x, y, side, side), _scaled(pixels, size)


def _scaled(pixels: np.ndarray, side: int) -> np.ndarray:
    """A square uint8 image scaled smoothly to another side, as float64."""
    # Pillow scales 8-bit images in integers, hence alike on every processor; OpenCV need not.
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float64)


def _place_digit(
    rng: np.random.Generator,
    split: str,
    size: int,
    drawing: Drawing,
    digits: Sequence[Digit],
    rectangles: Sequence[Box],
    tries: int = 50,
) -> tuple[Digit, np.ndarray, Box] | None:
    """Draw a digit, then its size and place until it fits beside the others, or over them.

    Returns:
        The digit, its coverage and its rectangle; None if it never fitted.
    """
    images, _ = handwriting()
    label = int(rng.integers(len(CLASSES)))
    sample = int(rng.choice(digit_samples(split)[label]))
    stacked = drawing.stacked is not None and rectangles and rng.random() < drawing.stacked
    for _ in range(tries):
        alpha = _stroke_coverage(images[sample], size * rng.uniform(*drawing.digit_size))
        height, width = alpha.shape
        lowest, highest = (0, 0), (size - width, size - height)
        if stacked:
            below = rectangles[int(rng.integers(len(rectangles)))]
            lowest, highest = _meeting_places(below, width, height, size)
        x = int(rng.integers(lowest[0], highest[0], endpoint=True))
        y = int(rng.integers(lowest[1], highest[1], endpoint=True))
        rectangle = (x, y, width, height)
        if _largest_covered_share([*rectangles, rectangle]) > drawing.overlap:
            continue
        mask = np.zeros((size, size), dtype=bool)
        _window(mask, rectangle)[...] = alpha >= 0.5
        if drawing.most_hidden is None or _largest_hidden_share(digits, mask) <= drawing.most_hidden:
            return Digit(label, sample, mask, mask), alpha, rectangle
    return None


def _meeting_places(
    below: Box, width: int, height: int, size: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Least and greatest ``(x, y)`` at which a rectangle in the image shares a pixel with ``below``."""
    x, y, width_below, height_below = below
    lowest = max(0, x - width + 1), max(0, y - height + 1)
    highest = min(size - width, x + width_below - 1), min(size - height, y + height_below - 1)
    return lowest, highest


def _largest_hidden_share(digits: Sequence[Digit], mask: np.ndarray) -> float:
    """Largest hidden share of any one digit after another is painted where ``mask`` is true."""
    return max((digit.under(mask).hidden for digit in digits), default=0.0)


def _stroke_coverage(ink: np.ndarray, side: float) -> np.ndarray:
    """How much of each pixel a digit's strokes cover, in 0 to 1, cropped to where that is not 0.

    Args:
        ink: The handwriting, shape ``(8, 8)``, in 0 to 255.
        side: Length to which the eight pixels are scaled, in pixels.
    """
    # Strokes run up to the border of the 8x8 images; a margin lets them end in a curve.
    padded = np.pad(ink, 1)
    blurred = _scaled(padded, round(side * len(padded) / len(ink)))
    # Four times as steep, the ramp from paper to ink is an edge, and it stays where ink is half.
    coverage = np.clip(4 * (blurred / 255 - 0.5) + 0.5, 0, 1)
    rows = np.flatnonzero(coverage.any(axis=1))
    columns = np.flatnonzero(coverage.any(axis=0))
    return coverage[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _largest_covered_share(rectangles: Sequence[Box]) -> float:
    """Largest share of any one rectangle that others cover; where two cover, it counts twice."""
    x, y, width, height = np.array(rectangles, dtype=np.float64).T
    across = np.minimum.outer(x + width, x + width) - np.maximum.outer(x, x)
    down = np.minimum.outer(y + height, y + height) - np.maximum.outer(y, y)
    shared = np.maximum(across, 0) * np.maximum(down, 0)
    np.fill_diagonal(shared, 0)
    return float((shared.sum(axis=1) / (width * height)).max())


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    alpha: np.ndarray,
    rectangle: Box,
    drawing: Drawing,
) -> None:
    """Blend the strokes into the canvas, in a random colour unlike what lies behind them."""
    behind = _window(canvas, rectangle)
    background = behind[alpha >= 0.5].mean(axis=0)
    opacity = rng.uniform(*drawing.opacity)
    colours = rng.uniform(0, 255, (16, 3))
    contrasts = opacity * np.linalg.norm(colours - background, axis=1)
    # The first colour with enough contrast, or the one with most.
    chosen = np.argmax(np.minimum(contrasts, drawing.contrast))
    colour = colours[chosen]
    if drawing.most_contrast is not None:
        wanted = rng.uniform(drawing.contrast, drawing.most_contrast)
        colour = background + min(1.0, wanted / contrasts[chosen]) * (colour - background)
    blend = opacity * alpha[..., None]
    behind[...] = (1 - blend) * behind + blend * colour


def _window(canvas: np.ndarray, rectangle: Box) -> np.ndarray:
    x, y, width, height = rectangle
    return canvas[y : y + height, x : x + width]
