"""DigitScenes: handwritten digits on photographs, drawn from what scikit-learn ships.

Nothing is downloaded. A scene is a random crop of one of scikit-learn's two sample photographs with
two to six of its 1,797 handwritten digits painted on it. Images and annotations are written in
COCO's format, with boxes and stroke masks.

What the training split sees, the other splits never see: each class's digits are divided
(:func:`digit_samples`), and so is the area of each photograph (:func:`photo_regions`). A test split
has other scenes than the validation split, of the same digits and areas of photographs. Every scene
is drawn from its own random stream, seeded by ``(seed, split, index)``; a smaller set is therefore
the beginning of a larger one.
"""

import glob
import json
import os
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
from ckd_mmdet.lab.datasets.digit_drawing import PLAIN, Digit, Drawing, Scene, draw_scene
from ckd_mmdet.lab.datasets.digit_sources import CLASSES, SPLITS, STREAMS, TEST
from PIL import Image
from pycocotools import mask as coco_mask
from tqdm import tqdm

# Raise this when a change to the code changes the images, so that older sets are not taken for new.
FORMAT = 1
SETTINGS_FILE = 'digit_scenes.json'
ANNOTATION_FILES = tuple(f'annotations/{split}.json' for split in STREAMS)


def make_digit_scenes(
    out: str | Path,
    *,
    train: int = 1200,
    val: int = 300,
    test: int = 0,
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
        out: Folder for ``annotations/``, ``train/``, ``val/``, perhaps ``test/``, and ``digit_scenes.json``.
        train: Number of training images.
        val: Number of validation images.
        test: Number of test images, scenes that no model was trained or chosen on. Their digits and areas of
            photographs are never in the training images, but are those of the validation images. 0 writes a set
            without this split; either way the other two have the same bytes.
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
    _check_arguments(train=train, val=val, test=test, size=size, seed=seed)
    settings = {
        'format': FORMAT,
        'train': train,
        'val': val,
        **({TEST: test} if test else {}),
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


def _check_arguments(**given: int) -> None:
    for name, value in given.items():
        minimum = 64 if name == 'size' else 0
        if value < minimum:
            raise ValueError(
                f'`--{name}` needs to be at least {minimum}, not {value}; give {minimum} or more'
            )


def _holds_set(out: Path, settings: dict) -> bool:
    """Whether ``out`` holds the complete set with these settings; other settings are refused.

    A test split that was not asked for does no harm.
    """
    try:
        found = json.loads((out / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return False
    if not isinstance(found, dict):
        return False
    if {TEST: found.get(TEST), **found} != {TEST: found.get(TEST), **settings}:
        differences = [
            f'{name} {found.get(name, 0 if name == TEST else None)} instead of {wanted}'
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
    images = [f'{split}/{_image_name(i)}' for split in _splits(settings) for i in range(settings[split])]
    return [SETTINGS_FILE, *(f'annotations/{split}.json' for split in _splits(settings)), *images]


def _splits(settings: dict) -> tuple[str, ...]:
    """Those of a set with these settings."""
    return STREAMS if TEST in settings else SPLITS


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
        is_image = folder in STREAMS and file.endswith('.png') and file[:-4].isdecimal()
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
        for split in _splits(settings):
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
