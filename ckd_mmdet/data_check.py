"""Boxes of a COCO JSON, looked at before training: MMDetection drops some without a word, and keeps others."""

from __future__ import annotations

import json
import mmap
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ckd_mmdet.annotations import is_coco, is_lvis
from ckd_mmdet.config import dataset_type, inner_datasets
from mmengine.config import Config
from mmengine.logging import print_log

WHOLE = 64 << 20
"""Bytes of a file that is parsed as a whole; of a greater one, so many bytes of its annotations."""
MOST = 0.5
"""Share of the boxes that may be unfit."""
FEW = 20
"""Boxes of which no habit of writing is guessed."""
CORNERS = 0.2
"""Share of the boxes that leave their image where corners are written as sizes: about half of them do."""
DROPPED = {
    'no size': 'have a width or height of 0', 'negative': 'have a negative width or height',
    'small': 'are narrower or lower than a pixel', 'outside': 'lie outside their image',
    'area': 'have an `area` of 0 or less', 'category': 'have a category that the file does not list',
    'image': 'are of an image that the file does not list', 'ignored': 'are to be ignored'}
KEPT = {'overlap': 'reach beyond their image', 'crowd': 'are crowds, which only leave out false positives'}


@dataclass
class Boxes:
    """What the boxes of a file are."""

    total: int
    found: dict[str, list[int]] = field(default_factory=dict)
    """Places of the annotations, by a key of :data:`DROPPED` or :data:`KEPT`; each has one."""
    verdict: str | None = None
    """What is wrong with most of them."""

    @property
    def dropped(self) -> int:
        """Number of boxes that the data set drops."""
        return sum(len(places) for kind, places in self.found.items() if kind in DROPPED)


def check_boxes(cfg: Config, loaders: tuple[str, ...], *, say: bool = True) -> None:
    """Look at the annotations of each COCO data set of some dataloaders, and say how many boxes will not be used.

    Args:
        cfg: A whole config, whose files are there.
        loaders: ``('train_dataloader', ...)``.
        say: Whether to log what was found; several processes of a run need it once.

    Raises:
        ValueError: If a file lacks what MMDetection reads, or most of its boxes are unfit.
    """
    seen = set()
    for loader in loaders:
        for dataset in inner_datasets((cfg.get(loader) or {}).get('dataset')):
            kind = dataset_type(dataset, cfg)
            path = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
            if kind is None or not (is_coco(kind) or is_lvis(kind)) or path in seen or not os.path.isfile(path):
                continue
            seen.add(path)
            text = describe(path, f'`{loader}.dataset.ann_file`')
            if text and say:
                print_log(text, logger='current')


def describe(path: str, argument: str) -> str | None:
    """In one line, which boxes of a file are dropped or unusual; ``None`` where none is.

    Args:
        path: The file.
        argument: By which the user gives it, for errors.

    Raises:
        ValueError: As :func:`check_boxes`.
    """
    wish = f'{argument} needs boxes that can be trained on, {path} has'
    images, annotations, categories, part = _read(path, argument)
    _check_images(images, wish)
    _check_keys(annotations, wish)
    if not annotations:
        raise ValueError(f'{wish} none.')
    _check_categories(categories, wish)
    boxes = judge(images, annotations, categories)
    of = f'the first {boxes.total} annotations' if part else f'the {boxes.total} annotations'
    told = [f'{len(places)} {ways[kind]} ({_example(annotations[places[0]])})'
            for ways in (DROPPED, KEPT) for kind, places in boxes.found.items() if kind in ways]
    if boxes.verdict:
        raise ValueError(f'{wish} unfit ones: {boxes.verdict}. Of {of}, {"; ".join(told)}.')
    if not told:
        return None
    return f'{path}: {boxes.dropped} of {of} will not be used; {"; ".join(told)}.'


def judge(images: list[dict], annotations: list[dict], categories: list[dict] | None) -> Boxes:
    """Sort the annotations as MMDetection's ``CocoDataset`` does.

    Args:
        images: With ``id``, ``width`` and ``height``.
        annotations: With ``bbox``, finite, ``area``, ``image_id`` and ``category_id``.
        categories: With ``id``; ``None`` where they are not known.
    """
    result = Boxes(len(annotations))
    if not annotations:
        return result
    x, y, w, h = np.array([one['bbox'] for one in annotations], dtype=np.float64).T
    sizes = {image['id']: (image['width'], image['height']) for image in images}
    known = None if categories is None else {category['id'] for category in categories}
    width, height = np.array([sizes.get(one['image_id'], (0, 0)) for one in annotations], dtype=np.float64).T
    overlap = [np.minimum(low + size, limit) - np.maximum(low, 0)
               for low, size, limit in ((x, w, width), (y, h, height))]
    conditions = {
        'ignored': np.array([bool(one.get('ignore')) for one in annotations]),
        'image': np.array([one['image_id'] not in sizes for one in annotations]),
        'category': np.array([known is not None and one['category_id'] not in known for one in annotations]),
        'negative': (w < 0) | (h < 0), 'no size': (w == 0) | (h == 0), 'small': (w < 1) | (h < 1),
        'outside': (overlap[0] <= 0) | (overlap[1] <= 0),
        'area': np.array([one['area'] <= 0 for one in annotations]),
        'crowd': np.array([bool(one.get('iscrowd')) for one in annotations]),
        'overlap': (x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1)}
    free = np.ones(len(annotations), dtype=bool)
    for kind, holds in conditions.items():
        if (free & holds).any():
            result.found[kind] = np.flatnonzero(free & holds).tolist()
        free &= ~holds
    result.verdict = _verdict(result, (x, y, w, h), (width, height), conditions)
    return result


def _verdict(boxes: Boxes, box: tuple[np.ndarray, ...], size: tuple[np.ndarray, ...],
             conditions: dict[str, np.ndarray]) -> str | None:
    x, y, w, h = box
    counted = ~(conditions['ignored'] | conditions['image'])
    if counted.any() and (np.max([abs(x), abs(y), abs(w), abs(h)], axis=0)[counted] <= 1).mean() > MOST:
        return ('most are from 0 to 1, and a `bbox` is [x, y, width, height] in pixels: multiply them by the size of '
                'their image')
    corners = counted & (w >= x) & (h >= y) & (w <= size[0] + 1) & (h <= size[1] + 1)
    leaving = conditions['overlap'] & counted
    if counted.sum() >= FEW and corners[counted].all() and leaving.sum() > CORNERS * counted.sum():
        return ('they look like [x1, y1, x2, y2], and a `bbox` is [x, y, width, height]: subtract the first corner '
                'from the second')
    if len(boxes.found.get('crowd', [])) == boxes.total:
        return 'all are crowds (`iscrowd=1`), and none is left to learn from'
    if boxes.dropped > MOST * boxes.total:
        return f'MMDetection leaves out {boxes.dropped} of {boxes.total}'
    return None


def _check_images(images: list[dict], wish: str) -> None:
    for image in images:
        lacking = [key for key in ('id', 'file_name', 'width', 'height') if key not in image]
        if lacking:
            raise ValueError(f'{wish} an image without `{"`, `".join(lacking)}`: {image!r:.200}.')
    twice = [identity for identity, count in Counter(image['id'] for image in images).items() if count > 1]
    if twice:
        raise ValueError(f'{wish} {len(twice)} `id`s that several images share, of which all but the last would be '
                         f'left out; one is {twice[0]!r}. Give each image an `id` of its own.')


def _check_keys(annotations: list[dict], wish: str) -> None:
    for one in annotations:
        lacking = [key for key in ('id', 'image_id', 'category_id', 'bbox', 'area') if key not in one]
        if lacking:
            raise ValueError(f'{wish} {_count(annotations, lacking[0])} annotations without `{lacking[0]}`, such as '
                             f'{one!r:.200}.' + (' Set it to width times height.' if lacking == ['area'] else ''))
        box = one['bbox']
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box)) and _is_finite(one['area'])):
            raise ValueError(f'{wish} an annotation whose `bbox` is not four finite numbers, or whose `area` is none: '
                             f'{_example(one)}.')
    twice = next((identity for identity, count in Counter(one['id'] for one in annotations).items() if count > 1), None)
    if twice is not None:
        raise ValueError(f'{wish} several annotations with the `id` {twice!r}; give each its own.')


def _check_categories(categories: list[dict] | None, wish: str) -> None:
    for category in categories or ():
        if not {'id', 'name'} <= set(category):
            raise ValueError(f'{wish} a category without `id` and `name`: {category!r:.200}.')


def _count(annotations: list[dict], key: str) -> int:
    return sum(key not in one for one in annotations)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float('inf')


def _example(annotation: dict) -> str:
    return ', '.join(f'{key} {annotation[key]}' for key in ('id', 'image_id', 'bbox', 'area', 'category_id')
                     if key in annotation)


def _read(path: str, argument: str) -> tuple[list[dict], list[dict], list[dict] | None, bool]:
    """Images, annotations, categories, and whether these are the first annotations only."""
    try:
        if os.path.getsize(path) <= WHOLE:
            with open(path, encoding='utf-8') as file:
                read = json.load(file)
            lists = read.get('images'), read.get('annotations', []), read.get('categories')
            part = False
        else:
            lists, part = _first(path), True
    except (ValueError, AttributeError) as error:
        raise ValueError(f'{argument} needs a COCO JSON, {path} is none: {error}') from error
    for name, found in zip(('images', 'annotations', 'categories'), lists, strict=True):
        if not (isinstance(found, list) and all(isinstance(one, dict) for one in found)) and (found is not None
                                                                                           or name != 'categories'):
            raise ValueError(f'{argument} needs a COCO JSON, whose `{name}` is a list of dicts, in {path} it is '
                             f'{found!r:.100}.')
    return *lists, part


def _first(path: str) -> tuple[list[dict], list[dict], None]:
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return list(_elements(text, 'images', len(text))), list(_elements(text, 'annotations', WHOLE)), None


def _elements(text: mmap.mmap, name: str, most: int) -> Iterator[dict]:
    """The first elements of a list in a JSON object, in about so many bytes."""
    start = text.find(f'"{name}"'.encode())
    start = text.find(b'[', start) + 1 if start >= 0 else len(text)
    end, decoder, left = min(len(text), start + most), json.JSONDecoder(), ''
    while start < end:
        left += text[start:start + (1 << 22)].decode('utf-8', errors='ignore')
        start += 1 << 22
        place = 0
        while True:
            while place < len(left) and left[place] in ' \n\r\t,':
                place += 1
            if left[place:place + 1] == ']':
                return
            try:
                one, place = decoder.raw_decode(left, place)
            except json.JSONDecodeError:
                break
            yield one
        left = left[place:]
