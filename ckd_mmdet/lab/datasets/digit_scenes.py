"""DigitScenes: handwritten digits on photographs, drawn from what scikit-learn ships.

Nothing is downloaded. A scene is a random crop of one of scikit-learn's two sample photographs with
two to six of its 1,797 handwritten digits painted on it. Images and annotations are written in
COCO's format, with boxes and stroke masks.

What the training split sees, the validation split never sees: each class's digits are divided
(:func:`digit_samples`), and so is the area of each photograph (:func:`photo_regions`). Every scene
is drawn from its own random stream, seeded by ``(seed, split, index)``; a smaller set is therefore
the beginning of a larger one.

:data:`PLAIN` and :data:`HARD` say how the two sets are drawn. In either, as in COCO, a digit's mask
and box are those of its visible part, and what is no longer to be recognised is not annotated:
:data:`HARD` lays no digit where it would hide more than half of another, so that none is.
"""

import glob
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from sklearn.datasets import load_digits, load_sample_images
from tqdm import tqdm

CLASSES = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
SPLITS = ('train', 'val')

# Raise this when a change to the code changes the images, so that older sets are not taken for new.
FORMAT = 1
SETTINGS_FILE = 'digit_scenes.json'
ANNOTATION_FILES = tuple(f'annotations/{split}.json' for split in SPLITS)

TRAIN_SHARE_OF_DIGITS = 0.8
TRAIN_SHARE_OF_PHOTO = 2 / 3

Box = tuple[int, int, int, int]


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


@lru_cache(maxsize=1)
def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    """The digits as images of shape ``(1797, 8, 8)`` with ink in 0 to 255, and their labels."""
    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


@lru_cache(maxsize=1)
def _photos() -> dict[str, np.ndarray]:
    """The photographs by file name, each of shape ``(h, w, 3)``."""
    samples = load_sample_images()
    names = [Path(path).name for path in samples.filenames]
    return dict(zip(names, samples.images, strict=True))


@lru_cache(maxsize=len(SPLITS))
def digit_samples(split: str) -> tuple[np.ndarray, ...]:
    """Indices into ``load_digits()`` that the split may use, one array per class.

    Of each class the first four fifths are for training. Neighbours in that file tend to be of one
    writer, so that a cut in its order also keeps most writers in one split; a random cut would not.
    """
    _, labels = _handwriting()
    by_class = []
    for label in range(len(CLASSES)):
        samples = np.flatnonzero(labels == label)
        border = round(TRAIN_SHARE_OF_DIGITS * len(samples))
        by_class.append({'train': samples[:border], 'val': samples[border:]}[split])
    return tuple(by_class)


@lru_cache(maxsize=len(SPLITS))
def photo_regions(split: str) -> dict[str, Box]:
    """The part ``(x, y, width, height)`` of each photograph that the split may use.

    Training has the upper two thirds, validation the lower third, where both photographs also have
    texture; their right-hand parts are mere sky and blur.
    """
    regions = {}
    for name, photo in _photos().items():
        height, width = photo.shape[:2]
        border = round(TRAIN_SHARE_OF_PHOTO * height)
        top, bottom = {'train': (0, border), 'val': (border, height)}[split]
        regions[name] = (0, top, width, bottom - top)
    return regions


def draw_scene(
    split: str, index: int, *, size: int, seed: int, drawing: Drawing | None = None
) -> Scene:
    """Draw scene number ``index`` of a split; the same arguments give the same scene.

    A digit that finds no room after many tries is left out, but a scene always has room for two.
    """
    drawing = drawing or PLAIN
    rng = np.random.default_rng(np.random.SeedSequence((seed, SPLITS.index(split), index)))
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
    pixels = _photos()[photo][y : y + side, x : x + side]
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
    images, _ = _handwriting()
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


def make_digit_scenes(
    out: str | Path,
    *,
    train: int = 1200,
    val: int = 300,
    size: int = 128,
    seed: int = 0,
    drawing: Drawing = PLAIN,
    force: bool = False,
) -> Path:
    """Write a DigitScenes set to ``out`` in COCO's format, unless it is already there.

    The set is drawn in a hidden folder beside ``out`` and moved there when complete. An incomplete
    set in ``out`` (of an interrupted copy, say) is drawn again; files that no such set has are
    never deleted.

    Args:
        out: Folder for ``annotations/``, ``train/``, ``val/`` and ``digit_scenes.json``.
        train: Number of training images.
        val: Number of validation images.
        size: Side of the square images in pixels, at least 64.
        seed: Same seed, same bytes.
        drawing: How the scenes are drawn, ``PLAIN`` or ``HARD`` for example.
        force: Draw again even if ``out`` holds a complete set, be it the same or another.

    Returns:
        ``out``.

    Raises:
        ValueError: If an argument is out of range, ``out`` cannot be written, or ``out`` holds
            foreign files or, without ``force``, a set with other settings.
    """
    out = Path(out)
    _check_arguments(train, val, size, seed)
    settings = {
        'format': FORMAT,
        'train': train,
        'val': val,
        'size': size,
        'seed': seed,
        'drawing': {name: value for name, value in asdict(drawing).items() if value is not None},
    }
    # As they will be found on disk, with lists for tuples.
    settings = json.loads(json.dumps(settings))
    if not force and _holds_set(out, settings):
        print(f'{out} already holds this set; nothing to do.')
        return out
    _check_replaceable(out)
    try:
        _write_and_move(out.resolve(), settings, drawing)
    except OSError as error:
        raise ValueError(
            f'`--out` needs a folder that can be written; {out} cannot ({error}); '
            'give another folder, or make this one writable'
        ) from error
    return out


def _check_arguments(train: int, val: int, size: int, seed: int) -> None:
    least = {'train': (train, 0), 'val': (val, 0), 'size': (size, 64), 'seed': (seed, 0)}
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise ValueError(
                f'`--{name}` needs to be at least {minimum}, not {value}; give {minimum} or more'
            )


def _holds_set(out: Path, settings: dict) -> bool:
    """Whether ``out`` holds the complete set with these settings; other settings are refused."""
    try:
        found = json.loads((out / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict):
        return False
    if found != settings:
        differences = [
            f'{name} {found.get(name)} instead of {wanted}'
            for name, wanted in settings.items()
            if found.get(name) != wanted
        ]
        raise ValueError(
            '`--out` needs a folder without a set of other settings; '
            f'{out} holds one with {", ".join(differences)}; '
            'pass `--force` (`force=True`) to replace it, or give another folder'
        )
    return set(_expected_files(settings)) <= set(_files(out))


def _expected_files(settings: dict) -> list[str]:
    images = [f'{split}/{_image_name(i)}' for split in SPLITS for i in range(settings[split])]
    return [SETTINGS_FILE, *ANNOTATION_FILES, *images]


def _files(folder: Path) -> list[str]:
    paths = (path for path in folder.rglob('*') if not path.is_dir())
    return [path.relative_to(folder).as_posix() for path in paths]


def _image_name(index: int) -> str:
    return f'{index + 1:06d}.png'


def _check_replaceable(out: Path) -> None:
    """Refuse to replace a folder with any file that is not of a DigitScenes set."""
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(
            f'`--out` needs a folder; {out} is a file; give another name, or remove the file'
        )
    for name in _files(out):
        folder, _, file = name.rpartition('/')
        is_image = folder in SPLITS and file.endswith('.png') and file[:-4].isdecimal()
        if not is_image and name not in (SETTINGS_FILE, *ANNOTATION_FILES):
            raise ValueError(
                '`--out` needs a new or empty folder, or one with a DigitScenes set; '
                f'{out} also holds {name}, which would be lost; '
                'give another folder, or move that file away'
            )


def _write_and_move(out: Path, settings: dict, drawing: Drawing) -> None:
    """Write the set beside ``out``, then put it in the place of whatever ``out`` holds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    _remove_left_over(out)
    prefix = f'.{out.name}-{os.getpid()}-'
    with tempfile.TemporaryDirectory(prefix=prefix, dir=out.parent) as workshop:
        fresh = Path(workshop) / 'fresh'
        for split in SPLITS:
            _write_split(
                fresh,
                split,
                settings[split],
                size=settings['size'],
                seed=settings['seed'],
                drawing=drawing,
            )
        (fresh / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + '\n')
        if out.exists():
            out.rename(Path(workshop) / 'replaced')
        fresh.rename(out)


def _remove_left_over(out: Path) -> None:
    """Remove the hidden folders of earlier commands that were killed while they drew this set."""
    for folder in out.parent.glob(f'.{glob.escape(out.name)}-*'):
        process = folder.name.removeprefix(f'.{out.name}-').partition('-')[0]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _write_split(root: Path, split: str, count: int, *, size: int, seed: int, drawing: Drawing) -> None:
    (root / split).mkdir(parents=True)
    (root / 'annotations').mkdir(exist_ok=True)
    images: list[dict] = []
    annotations: list[dict] = []
    for index in tqdm(range(count), desc=f'DigitScenes {split}', unit='image', disable=None):
        scene = draw_scene(split, index, size=size, seed=seed, drawing=drawing)
        # Noise hardly compresses, so that a higher level would only cost time.
        Image.fromarray(scene.image).save(root / split / _image_name(index), compress_level=1)
        images.append(_image_record(scene, index))
        for digit in scene.digits:
            annotations.append(_annotation_record(digit, len(annotations) + 1, index + 1))
    categories = [{'id': i, 'name': name} for i, name in enumerate(CLASSES, start=1)]
    coco = {
        'info': {'description': f'DigitScenes {split}'},
        'images': images,
        'annotations': annotations,
        'categories': categories,
    }
    (root / 'annotations' / f'{split}.json').write_text(json.dumps(coco) + '\n')


def _image_record(scene: Scene, index: int) -> dict:
    """COCO's entry for an image, with the ``photo`` and the ``crop`` of it that is shown."""
    height, width = scene.image.shape[:2]
    return {
        'id': index + 1,
        'file_name': _image_name(index),
        'width': width,
        'height': height,
        'photo': scene.photo,
        'crop': scene.crop,
    }


def _annotation_record(digit: Digit, annotation_id: int, image_id: int) -> dict:
    """COCO's entry for a digit; ``sample`` is its index in scikit-learn's ``load_digits()``."""
    rle = coco_mask.encode(np.asfortranarray(digit.mask, dtype=np.uint8))
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': digit.label + 1,
        'bbox': coco_mask.toBbox(rle).tolist(),
        'area': int(coco_mask.area(rle)),
        'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')},
        'iscrowd': 0,
        'sample': digit.sample,
    }
