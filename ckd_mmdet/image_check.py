"""Images that are missing or broken, found before the first step: of a sample, or of all where it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mmcv
from ckd_mmdet.labels import leaves
from ckd_mmdet.text import few
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from PIL import Image, UnidentifiedImageError

SAMPLE = 32
"""Images of a data set that are opened, at even distances."""
THREADS = 8


class CheckImages(Hook):
    """Opens images of the training and the validation data before training.

    All of them where the config has ``check_images=True`` (``--check-images``), else :data:`SAMPLE` of each data set.
    """

    def before_train(self, runner: Runner) -> None:
        most = None if runner.cfg.get('check_images') else SAMPLE
        loops = dict(train_dataloader=runner.train_loop, val_dataloader=runner.val_loop)
        for name, loop in loops.items():
            for dataset in leaves(loop.dataloader.dataset) if loop is not None else ():
                check_images(image_paths(dataset, most), f'`{name}.dataset`', len(dataset))
        if most is None and is_main_process():
            print_log('All images are there and whole.', logger='current')


def image_paths(dataset: Any, most: int | None) -> list[str]:
    """Paths of a built data set's images on this disk, at most so many, at even distances."""
    if getattr(dataset, 'backend_args', None) or not hasattr(dataset, 'get_data_info') or not len(dataset):
        return []
    count = len(dataset) if most is None else min(most, len(dataset))
    infos = (dataset.get_data_info(i * len(dataset) // count) for i in range(count))
    return [path for info in infos for path in _paths(info)]


def check_images(paths: Sequence[str], whose: str, total: int) -> None:
    """Open the images.

    Args:
        paths: Of those that are looked at.
        whose: Data set, for errors.
        total: Number of images that it has.

    Raises:
        ValueError: If some are missing, broken or cut off.
    """
    with ThreadPoolExecutor(THREADS) as threads:  # PIL decodes without Python's lock
        faults = [fault for fault in threads.map(fault_of, paths) if fault]
    if faults:
        some = f'{len(faults)} of the {len(paths)} that were opened of its {total}' if len(paths) < total else \
            f'{len(faults)} of its {total}'
        look = '' if len(paths) >= total else ' `--check-images` looks at all.'
        raise ValueError(f'{whose} needs images that can be read, {some} cannot: '
                         f'{few(faults, 3, "; ", total=False)}. Mend `data_prefix`, fetch them again, or take them '
                         f'out of the annotations.{look}')


def fault_of(path: str) -> str | None:
    """Why an image cannot be read, or ``None``."""
    try:
        with Image.open(path) as image:
            image.load()
    except FileNotFoundError:
        return f'{path} is not there'
    except UnidentifiedImageError:
        return None if _opens_elsewhere(path) else f'{path} is no image, or broken'
    except (OSError, SyntaxError, ValueError) as error:
        return f'{path} is broken ({error})'
    except Image.DecompressionBombError:
        return None
    return None


def _opens_elsewhere(path: str) -> bool:
    """Whether OpenCV knows its format; or it is no picture but an array, and for another loader."""
    return path.endswith(('.npy', '.npz')) or (os.path.getsize(path) > 0 and mmcv.imread(path) is not None)


def _paths(info: dict) -> Iterator[str]:
    for image in info.get('images', [info]):  # of a video
        path = image.get('img_path')
        if isinstance(path, str) and '://' not in path:
            yield path
