"""The names that annotations give to objects and to labels, read again: a built data set has dropped its files."""

from __future__ import annotations

import csv
import json
import mmap
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeGuard

from ckd_mmdet.config import as_names
from mmengine.dataset import BaseDataset
from mmengine.fileio import get_local_path, list_from_file, load

FIXED = ('CIFAR10', 'MNIST', 'Caltech101', 'CUB', 'DTD', 'FGVCAircraft', 'Flowers102', 'Food101', 'OxfordIIITPet',
         'StanfordCars', 'SUN397', 'HandwrittenDigits')
"""Data sets of images whose labels are numbers in their own files, which ``metainfo.classes`` cannot change."""


def given_names(dataset: Any) -> tuple[str, ...] | None:
    """What ``metainfo.classes`` of a built data set says."""
    return as_names((getattr(dataset, 'metainfo', None) or {}).get('classes'))


def numbered_names(dataset: Any) -> tuple[str | None, ...] | None:
    """The true name of each label, read from what numbers the labels; ``None`` where they have no names.

    Args:
        dataset: A built data set, not a wrapper.
    """
    if hasattr(dataset, 'label_id_mapping'):  # Open Images
        with get_local_path(dataset.label_file, backend_args=dataset.backend_args) as path, open(path) as file:
            return _by_number({dataset.label_id_mapping[line[0]]: line[1] for line in csv.reader(file)})
    if hasattr(dataset, 'cat2label') and hasattr(dataset, 'cat_ids'):  # COCO
        names = {category['id']: category['name'] for category in categories(dataset)}
        return _by_number({label: names[category] for category, label in dataset.cat2label.items()})
    if hasattr(dataset, 'cat2label'):  # Pascal VOC
        return _by_number({label: name for name, label in dataset.cat2label.items()})
    if hasattr(dataset, 'dataset_mode'):  # ODVG: boxes of classes, or of phrases
        return _by_number(dataset.label_map) if dataset.dataset_mode == 'OD' else None
    given, known = given_names(dataset), _known_names(dataset)
    return known if known and given and _contradicts(given, known) else given


def names_in(dataset: Any) -> tuple[str, ...] | None:
    """All names that a data set's annotations give to objects, each once; ``None`` where there is no list of them.

    Args:
        dataset: A built data set, not a wrapper.
    """
    if hasattr(dataset, 'cat2label') and hasattr(dataset, 'cat_ids'):
        return tuple(dict.fromkeys(category['name'] for category in categories(dataset)))
    if hasattr(dataset, 'cat2label') and hasattr(dataset, 'ann_subdir'):
        return tuple(dict.fromkeys(_names_in_xml(dataset)))
    if any(kind.__name__ == 'CrowdHumanDataset' for kind in type(dataset).__mro__):
        lines = list_from_file(dataset.ann_file, backend_args=dataset.backend_args)
        return tuple(dict.fromkeys(box['tag'] for line in lines if line for box in json.loads(line)['gtboxes']))
    return None


def is_lvis(kind: type) -> bool:
    """Whether a class of data sets numbers all categories of its file, whatever ``metainfo.classes`` calls them."""
    return any(one.__name__.startswith('LVIS') for one in kind.__mro__)


def is_coco(kind: type | None) -> TypeGuard[type]:
    """Whether a class of data sets takes the categories of a COCO JSON that ``metainfo.classes`` names."""
    if kind is None:
        return False
    known = [one.__name__ for one in kind.__mro__]
    return bool({'CocoDataset', 'BaseVideoDataset'} & set(known)) and not is_lvis(kind)


def categories(dataset: Any) -> list[dict]:
    """The categories in the annotation file of a COCO data set or one like it, in the order of the file."""
    with get_local_path(dataset.ann_file, backend_args=getattr(dataset, 'backend_args', None)) as path:
        return categories_in(path, tuple(dataset.cat_ids))


def categories_in(path: str, known: tuple[int, ...] = ()) -> list[dict]:
    """The categories in a COCO JSON on this disk, in its order.

    Args:
        path: The file.
        known: Ids that are among them: files have other lists of the name ``categories`` too.
    """
    return _categories(path, os.stat(path).st_mtime_ns, known)


def things(dataset: Any, names: tuple[str | None, ...]) -> tuple[str | None, ...]:
    """Names of the labels that a box can have, of a panoptic data set only the things.

    Args:
        dataset: A built data set, not a wrapper.
        names: Of label 0, 1, ...

    Raises:
        ValueError: If the things are not the first ones: heads take label 0 to ``num_things_classes - 1`` for them.
    """
    if getattr(getattr(dataset, 'COCOAPI', None), '__name__', '') != 'COCOPanoptic':
        return names
    by_id = {category['id']: category['isthing'] for category in categories(dataset)}
    is_thing = [bool(by_id[category]) for category in dataset.cat_ids]
    if is_thing != sorted(is_thing, reverse=True):
        first = names[is_thing.index(False)]
        raise ValueError(f'`ann_file` of {type(dataset).__name__} needs the `categories` of things before those of '
                         f'stuff, as labels are numbered in their order; {first!r} is stuff and stands before things.')
    return names[:sum(is_thing)]


def _known_names(dataset: Any) -> tuple[str, ...] | None:
    """Names, beside ``metainfo.classes``, of labels that are numbers already in the annotations."""
    folders = getattr(dataset, 'folder_to_idx', None)
    if folders:
        return tuple(sorted(folders, key=folders.get))
    if any(kind.__name__ in FIXED for kind in type(dataset).__mro__):
        return as_names(type(dataset).METAINFO.get('classes'))
    if getattr(type(dataset), 'load_data_list', None) is BaseDataset.load_data_list and dataset.ann_file:
        # OpenMMLab's own format
        meta = load(dataset.ann_file).get('metainfo', {})
        listed = sorted(meta.get('categories', []), key=lambda category: category['id'])
        return as_names(meta.get('classes')) or tuple(category['category_name'] for category in listed) or None
    return None


def _contradicts(given: Sequence[str], known: Sequence[str]) -> bool:
    """Whether some names are of the list, and they are not other words for it: ``tench``, ``n01440764``."""
    folded = {name.casefold() for name in known}
    return any(name.casefold() in folded for name in given)


def _by_number(label_map: Mapping[Any, str]) -> tuple[str | None, ...]:
    """In the order of their numbers; ``None`` for a number that is left out."""
    numbered = {int(number): name for number, name in label_map.items()}
    return tuple(numbered.get(number) for number in range(max(numbered, default=-1) + 1))


def _names_in_xml(dataset: Any) -> Iterator[str]:
    folders = [os.path.join(dataset.sub_data_root, dataset.ann_subdir),
               os.path.join(dataset.data_prefix.get('img') or '', 'Annotations')]  # of WIDER Face
    for image in list_from_file(dataset.ann_file, backend_args=dataset.backend_args):
        file = next((path for folder in folders if os.path.isfile(path := os.path.join(folder, f'{image}.xml'))),
                    os.path.join(folders[0], f'{image}.xml'))
        with get_local_path(file, backend_args=dataset.backend_args) as path:
            yield from (name.text for name in ElementTree.parse(path).findall('object/name') if name.text)


@lru_cache(maxsize=16)
def _categories(path: str, changed: int, known: tuple[int, ...]) -> list[dict]:
    """Found and parsed without the rest: COCO's own file has half a gigabyte."""
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = len(text)
        while (end := text.rfind(b'"categories"', 0, end)) >= 0:
            found = _list_at(text, end + len(b'"categories"'))
            if _are_categories(found, known):
                return found
    with open(path, encoding='utf-8') as whole:
        return json.load(whole)['categories']


def _list_at(text: mmap.mmap, start: int) -> Any:
    """The JSON value after the colon at ``start``, or ``None``."""
    length = 1 << 16
    while True:
        part = text[start:start + length].decode('utf-8', errors='ignore').lstrip()
        if not part.startswith(':'):
            return None
        try:
            return json.JSONDecoder().raw_decode(part[1:].lstrip())[0]
        except json.JSONDecodeError:
            if start + length >= len(text):
                return None
            length *= 8


def _are_categories(found: Any, known: Sequence[int]) -> bool:
    """Whether a value is the file's own list: an image may have ``categories`` too."""
    if not isinstance(found, list) or not all(isinstance(one, dict) and {'id', 'name'} <= set(one) for one in found):
        return False
    return set(known) <= {one['id'] for one in found}
