"""Images of the training set that stand in the validation or the test set again, or nearly: a score counts them as new.

Each image has a perceptual hash of 16 x 16 bits, the signs of its low frequencies (``imagehash.phash``). Two images are
near-duplicates where at most :data:`MOST` of the 256 bits differ. Copies that were compressed, resized, brightened or
turned grey differ in at most 8 bits, the same microscope slide taken twice in 24 to 28; photographs of different
fields of one kind of slide differ in 78 or more (364 of blood cells, 664 of nuclei), drawn scenes of digits in 42 or
more. The usual 8 x 8 bits cannot do that: the same slide differs in 4 of 64 bits there, different scenes in 8.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagehash
import numpy as np
from ckd_mmdet.data_files import check_data
from ckd_mmdet.image_check import image_paths
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.labels import leaves
from ckd_mmdet.text import few, plain
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image, ImageOps
from tqdm import tqdm

FILE = 'duplicates.json'
SIDE = 16
"""Bits of a hash in each direction."""
MOST = 32
"""Bits in which near-duplicates differ, at most."""
LEAST = SIDE * SIDE // 4
"""Bits that are set where there is something to see. About half are, as each is compared with their median; of a blank
image none is, and any two of them would be duplicates."""
CHUNK = 2048
"""Images whose distances are computed at a time."""
SHOWN = 5
TRAIN, VAL, TEST = 'train_dataloader', 'val_dataloader', 'test_dataloader'


@dataclass(frozen=True)
class Images:
    """The images of the student's data sets, and what is said of those that are not looked at."""

    paths: dict[str, list[str]]
    """By the name of their dataloader, each path once."""
    left_out: str | None = None


@dataclass(frozen=True)
class Hashes:
    """Of the images of one data set that can be told apart."""

    paths: list[str]
    bits: np.ndarray
    """Packed, of shape ``(n, 32)``."""
    mirrored: np.ndarray
    """The same of the mirrored images."""
    unread: int
    """Images that PIL cannot read."""
    blank: int
    """Images without anything to see."""


@dataclass(frozen=True)
class Pair:
    """A near-duplicate."""

    path: str
    train: str
    """The image of the training set."""
    mirrored: bool


def list_images(cfg: Config) -> Images:
    """Paths of the training, the validation and the test images of a student.

    Args:
        cfg: A whole config, whose training and validation data are there. A test set that is the validation set, or
            that is not there, is left out.

    Raises:
        ValueError: If training or validation images are no files on this disk.
    """
    paths = {name: _paths(cfg, name) for name in (TRAIN, VAL)}
    if cfg.get(TEST) is None or cfg[TEST].get('dataset') == cfg[VAL].get('dataset'):
        return Images(paths)
    try:
        check_data(cfg, (TEST,))
        tested = _paths(cfg, TEST)
    except (OSError, ValueError) as error:
        return Images(paths, f'`--check-data` leaves out `{TEST}`: {error}')
    return Images(paths if set(tested) == set(paths[VAL]) else {**paths, TEST: tested})


def check_duplicates(images: Images, folder: Path) -> list[str]:
    """Say on stderr which images of the other sets are in the training set too, and keep it in the folder.

    Returns:
        A sentence or a few for each set, as :func:`read_duplicates` gives them.
    """
    hashes = {name: hash_images(paths, name) for name, paths in images.paths.items()}
    train, said, kept = hashes.pop(TRAIN), [], {}
    for name, other in hashes.items():
        pairs = find_pairs(train, other)
        said.append(describe(pairs, name, len(images.paths[name]), len(images.paths[TRAIN])) + _unseen(train, other))
        kept[name] = [[pair.path, pair.train, pair.mirrored] for pair in pairs]
    said += [images.left_out] if images.left_out else []
    write_whole(folder / FILE, json.dumps(dict(said=said, pairs=kept), indent=1) + '\n')
    for sentence in said:
        print(plain(sentence), file=sys.stderr, flush=True)
    return said


def read_duplicates(folder: Path) -> list[str]:
    """What :func:`check_duplicates` said of a matrix; nothing where it was not asked for."""
    path = folder / FILE
    if not path.exists():
        return []
    try:
        said = json.loads(path.read_text())['said']
        return [str(sentence) for sentence in said]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f'{path} cannot be read ({error!r:.100}); the same command with `--check-data` writes it anew.']


def hash_images(paths: Sequence[str], title: str) -> Hashes:
    """Hash images and their mirror images, under a bar.

    Args:
        title: Of the bar.
    """
    seen, bits, mirrored, unread, blank = [], [], [], 0, 0
    for path in tqdm(paths, desc=f'--check-data, {title}', unit='image', disable=None):
        try:
            small = _small(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            unread += 1
            continue
        own = _bits(small)
        if own.sum() < LEAST:
            blank += 1
            continue
        seen.append(path)
        bits.append(np.packbits(own))
        mirrored.append(np.packbits(_bits(ImageOps.mirror(small))))
    own, turned = (np.array(rows, dtype=np.uint8).reshape(len(seen), SIDE * SIDE // 8) for rows in (bits, mirrored))
    return Hashes(seen, own, turned, unread, blank)


def find_pairs(train: Hashes, other: Hashes) -> list[Pair]:
    """Near-duplicates, the most alike first; a pair that is one as it is and mirrored counts once."""
    found: dict[tuple[int, int], tuple[int, bool]] = {}
    for mirrored, bits in ((False, other.bits), (True, other.mirrored)):
        for one, ours, distance in _near(bits, train.bits):
            found[one, ours] = min(found.get((one, ours), (distance, mirrored)), (distance, mirrored))
    ranked = sorted(found.items(), key=lambda entry: (entry[1][0], entry[0]))
    return [Pair(other.paths[one], train.paths[ours], mirrored) for (one, ours), (_, mirrored) in ranked]


def describe(pairs: Sequence[Pair], name: str, count: int, trained: int) -> str:
    """The finding of one set in words.

    Args:
        name: Its dataloader.
        count: Number of its images.
        trained: Number of training images.
    """
    of = f'of the {count} images of `{name}`'
    if not pairs:
        return f'`--check-data`: none {of} is nearly the same as one of the {trained} of `{TRAIN}`.'
    same = len({pair.path for pair in pairs})
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for pair in pairs
                               for path in (pair.path, pair.train)])
    shown = [f'{os.path.relpath(pair.path, root)} and {os.path.relpath(pair.train, root)}'
             + (' (mirrored)' if pair.mirrored else '') for pair in pairs]
    return (f'`--check-data`: {same} {of} {"is" if same == 1 else "are"} nearly the same as one of the {trained} of '
            f'`{TRAIN}`, in {len(pairs)} pair{"s" * (len(pairs) > 1)}: {few(shown, SHOWN, "; ", total=False)}. They '
            f'make scores too high; look at them, and leave them out of one of the two. {FILE} lists all.')


def _near(rows: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Row, other row and distance of all that differ in at most :data:`MOST` bits.

    By products of +1 and -1, exact in float32: numpy before 2.0 cannot count bits.
    """
    for start in range(0, len(rows), CHUNK):
        left = _signs(rows[start:start + CHUNK])
        for begin in range(0, len(others), CHUNK):
            distances = (SIDE * SIDE - left @ _signs(others[begin:begin + CHUNK]).T) / 2
            for i, j in np.argwhere(distances <= MOST):
                yield start + int(i), begin + int(j), int(distances[i, j])


def _signs(packed: np.ndarray) -> np.ndarray:
    return np.unpackbits(packed, axis=1).astype(np.float32) * 2 - 1


def _small(path: str) -> Image.Image:
    """As much of an image as its hash looks at, in grey."""
    with Image.open(path) as image:
        image.draft('L', (256, 256))  # a JPEG is decoded at a half, a quarter, ... of its size
        return ImageOps.exif_transpose(image).convert('L').resize((4 * SIDE, 4 * SIDE), Image.Resampling.LANCZOS)


def _bits(small: Image.Image) -> np.ndarray:
    return imagehash.phash(small, hash_size=SIDE).hash.ravel()


def _paths(cfg: Config, name: str) -> list[str]:
    paths: list[str] = []
    for dataset in leaves(_build(cfg, name)):
        own = image_paths(dataset, None)
        if not own and len(dataset):
            raise ValueError(f'`--check-data` needs images that are files on this disk; those of `{name}.dataset`, a '
                             f'{type(dataset).__name__}, are in an array or elsewhere. Leave `--check-data` out.')
        paths += own
    return list(dict.fromkeys(paths))


def _build(cfg: Config, name: str) -> Any:
    with redirect_stdout(None), DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet') as registry:
        return registry.build(copy.deepcopy(cfg[name].dataset))


def _unseen(*hashes: Hashes) -> str:
    unread, blank = sum(one.unread for one in hashes), sum(one.blank for one in hashes)
    said = [f'{count} {what}' for count, what in ((unread, 'cannot be read'), (blank, 'without anything to see'))
            if count]
    return f' Images left out: {", ".join(said)}.' if said else ''
