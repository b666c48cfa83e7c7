"""What the labels of a data set really mean: its annotations number them, and ``metainfo.classes`` need not agree."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ckd_mmdet.annotations import categories_in, given_names, is_coco, is_lvis, names_in, numbered_names, things
from ckd_mmdet.config import as_names, dataset_type, inner_datasets, names_of
from ckd_mmdet.text import quoted
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import Dataset

MOST = 12
"""Names in a message."""
NUMBERED = 'MMDetection numbers labels in the order of the annotations'


@dataclass(frozen=True)
class LabelNames:
    """The names of a data set's labels, checked."""

    names: tuple[str | None, ...] | None
    """Of label 0, 1, ...: as many as ``metainfo.classes`` has; ``None`` where labels have no names."""
    of_objects: tuple[str | None, ...] | None
    """Of those that a box can have: the same, or the things of a panoptic data set."""
    missing: tuple[str, ...] = ()
    """Names that the annotations lack; they come last, and no label has them."""
    note: str | None = None
    """A sentence for the log, where they are not what ``metainfo.classes`` says."""


def label_names(dataset: Any) -> tuple[str | None, ...] | None:
    """The true name of each label of a built data set, wrappers included.

    COCO and its like number labels by the categories of the annotation file, Open Images by its file of labels, folders
    of images by the folders; Pascal VOC and CrowdHuman by ``metainfo.classes``.

    Returns:
        Names of label 0, 1, ...; ``None`` for a label without a name, and for a data set whose labels have none.

    Raises:
        ValueError: If the data sets within a wrapper number their labels differently.
    """
    merged: tuple[str | None, ...] = ()
    named: list[Any] = []
    for leaf in leaves(dataset):
        names = numbered_names(leaf)
        if names is None:
            continue
        differing = _difference(merged, names)
        if differing is not None:
            first = next(other for other in named if len(numbered_names(other) or ()) > differing)
            raise ValueError(f'the data sets that are joined need labels of the same meaning; label {differing} is '
                             f'{merged[differing]!r} in {_called(first)} and {names[differing]!r} in {_called(leaf)}. '
                             f'{NUMBERED}: bring the `categories` of both files into the same order.')
        named.append(leaf)
        merged += names[len(merged):]
    return merged if named else None


def check_label_names(dataset: Any, *, allow_missing: bool = False) -> LabelNames:
    """The true names of a training data set's labels, checked against its ``metainfo.classes``.

    The annotations may know more classes than are asked for, and may have them in another order.

    Args:
        dataset: A built data set, or a wrapper of some.
        allow_missing: Whether ``metainfo.classes`` may name what the annotations lack.

    Raises:
        ValueError: If the annotations lack a name, or number more labels than there are names, or data sets within a
            wrapper disagree.
    """
    label_names(dataset)  # whether they agree
    known = [found for leaf in leaves(dataset) if (found := _check(leaf, allow_missing)).names is not None]
    if not known:
        return LabelNames(None, None)
    best = min(known, key=lambda found: len(found.missing))
    notes = dict.fromkeys(found.note for found in known if found.note)
    return LabelNames(best.names, best.of_objects, best.missing, ' '.join(notes) or None)


def check_config_names(cfg: Config, *, allow_missing: bool = False) -> None:
    """Refuse class names that the COCO files of a config's training data lack, before the data are read.

    Where no object is left, MMEngine's own refusal to build the data set names neither the file nor the classes. Other
    data sets, and the order of the names, wait for :func:`check_label_names`.

    Raises:
        ValueError: If a file lacks a name.
    """
    for dataset in inner_datasets((cfg.get('train_dataloader') or {}).get('dataset')):
        kind = dataset_type(dataset, cfg)
        path = os.path.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
        given = as_names(names_of(dataset, cfg).get('classes'))
        if allow_missing or not given or not is_coco(kind) or not os.path.isfile(path):
            continue
        names = tuple(category['name'] for category in categories_in(path))
        missing = tuple(name for name in given if name not in names)
        if missing:
            whose = f'`metainfo.classes` of {kind.__name__} ({path})'
            raise ValueError(_refusal(whose, missing, names))


def check_same_labels(names: Sequence[str | None] | None, dataset: Any, where: str, *,
                      allow_missing: bool = False) -> None:
    """Check that labels mean in another data set what they mean for the model that is tested on it.

    Args:
        names: Of the labels that the model was trained on, or ``None`` where they have none.
        dataset: A built data set, or a wrapper of some.
        where: What it is called in the config: ``'val_dataloader.dataset'``.
        allow_missing: Whether its annotations may lack the last of the names.

    Raises:
        ValueError: If a label means something else, or there are more or fewer: the metric would be wrong in silence.
    """
    if names is None or any(getattr(leaf, 'return_classes', False) for leaf in leaves(dataset)):
        return  # where the classes are a prompt, they are the test's own
    found = label_names(dataset)
    if found is None or found == tuple(names) or allow_missing and found == tuple(names)[:len(found)]:
        return
    differing = _difference(names, found)
    fact = f'it has {len(found)} ({quoted(found)}) and the model {len(names)} ({quoted(names)})'
    if differing is not None:
        fact = (f'label {differing} is {names[differing]!r} for the model and {found[differing]!r} in '
                f'{_called(next(leaves(dataset)))}')
    same = sorted(map(str, names)) == sorted(map(str, found))
    way_out = (f'{NUMBERED}: bring the `categories` of that file into the order of the training file'
               if same else f'give `{where}.metainfo.classes` the classes of the training data, all of them in its '
                            'annotation file')
    raise ValueError(f'`{where}` needs labels of the same meaning as the training data; {fact}. {way_out}.')


def set_true_names(dataset: Any, names: Sequence[str | None]) -> None:
    """Let ``metainfo.classes`` of a data set, and of the wrappers around it, say what its labels mean.

    What was built from its ``metainfo`` before (evaluators, a visualizer) has a copy, see :func:`settle_label_names`.
    A ``palette`` keeps its colours with their names; a label without a name becomes ``'label 3'``.

    Args:
        dataset: A built data set, or a wrapper of some.
        names: Of label 0, 1, ..., as :func:`check_label_names` gives them.
    """
    classes = tuple(f'label {label}' if name is None else name for label, name in enumerate(names))
    metas = getattr(dataset, '_metainfo', {})
    for meta in metas if isinstance(metas, list) else [metas]:
        given, palette = as_names(meta.get('classes')), meta.get('palette')
        if isinstance(palette, list | tuple) and given and sorted(given) == sorted(classes):
            colours = dict(zip(given, palette, strict=False))
            if len(colours) == len(given):
                meta['palette'] = [colours[name] for name in classes]
        if given != classes or isinstance(meta.get('classes'), str):
            meta['classes'] = classes
    for inner in _wrapped(dataset):
        set_true_names(inner, classes)


def settle_label_names(runner: Runner, *, allow_missing: bool = False) -> LabelNames:
    """Check the names of the labels in a run that trains, and tell them to all that speak of classes in it.

    To be called in ``before_run``: then checkpoints, ``dataset_meta`` of the evaluator and the visualizer, and what
    MMEngine compares when it resumes, all have the true order.

    Raises:
        ValueError: As :func:`check_label_names` and, for the validation data, :func:`check_same_labels`.
    """
    train = runner.train_dataloader.dataset
    found = check_label_names(train, allow_missing=allow_missing)
    if found.names is None:
        return found
    set_true_names(train, found.names)
    runner.visualizer.dataset_meta = train.metainfo
    if runner.val_loop is not None:
        val = runner.val_loop.dataloader.dataset
        check_same_labels(found.names, val, 'val_dataloader.dataset', allow_missing=allow_missing)
        if not any(getattr(leaf, 'return_classes', False) for leaf in leaves(val)) and label_names(val):
            set_true_names(val, found.names)
            runner.val_loop.evaluator.dataset_meta = val.metainfo
    return found


def has_objects(dataset: Any) -> bool:
    """Whether some image of a built data set has an object with a label; looks until it finds the first, at no image.

    Crowds, difficult objects and others to be ignored do not count. ``True`` of a data set that is not of objects.
    """
    return any(not _is_of_objects(leaf) or next(_labels(leaf), None) is not None for leaf in leaves(dataset))


def leaves(dataset: Any) -> Iterator[Any]:
    """The data sets within wrappers (``ConcatDataset``, ``RepeatDataset``, ``MultiImageMixDataset``, ...)."""
    inner = _wrapped(dataset)
    if not inner:
        if not getattr(dataset, '_fully_initialized', True):
            dataset.full_init()
        yield dataset
    for one in inner:
        yield from leaves(one)


def _wrapped(dataset: Any) -> list[Any]:
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    return [one for one in inner if isinstance(one, Dataset) or hasattr(one, 'metainfo')]


def _check(dataset: Any, allow_missing: bool) -> LabelNames:
    given, found = given_names(dataset), numbered_names(dataset)
    if found is None or given is None:
        return LabelNames(found, found)
    whose = f'`metainfo.classes` of {_called(dataset)}'
    missing: tuple[str, ...] = ()
    if not hasattr(dataset, 'label_id_mapping'):  # Open Images puts its file's names there by itself
        if len(found) > len(given):
            raise ValueError(f'{whose} needs a name for each of the {len(found)} labels that the annotations number '
                             f'({quoted(found)}), and names {len(given)}; give all of them, as a list.')
        missing = _missing(dataset, given, found)
        if missing and not allow_missing:
            raise ValueError(_refusal(whose, missing, names_in(dataset) or found))
        found = (*found, *missing[:len(given) - len(found)])
    note = None
    if found != given:
        if getattr(dataset, 'return_classes', False):
            raise ValueError(f'{whose} needs the order of the annotations, {quoted(found)}, since it is the prompt '
                             f'that the labels point into; it is {quoted(given)}.')
        note = (f'The labels of {_called(dataset)} follow its annotations: {quoted(found)}; `metainfo.classes` says '
                f'{quoted(given)}. The order of the annotations is used for training, for pairing and in checkpoints.')
    if missing:
        note = f'{note + " " if note else ""}{_called(dataset)} has no object called {quoted(missing, join=" or ")}.'
    return LabelNames(found, things(dataset, found), missing, note)


def _missing(dataset: Any, given: Sequence[str], found: Sequence[str | None]) -> tuple[str, ...]:
    """The names that are given, and that no object has in the annotations."""
    if is_lvis(type(dataset)) or not hasattr(dataset, 'get_data_info'):
        return ()  # labels are all categories of the file, whatever `metainfo.classes` calls them
    if found == given and not hasattr(dataset, 'cat_ids'):  # numbered by `metainfo.classes`
        unseen = set(range(len(given)))
        for label in _labels(dataset):
            unseen.discard(label)
            if not unseen:
                return ()
        found = names_in(dataset) or given
    return tuple(name for name in given if name not in found)


def _refusal(whose: str, missing: Sequence[str], vocabulary: Iterable[str | None]) -> str:
    folded = {str(name).strip().casefold(): str(name) for name in vocabulary}
    told = []
    for name in missing[:MOST]:
        near = [folded[one] for one in difflib.get_close_matches(name.strip().casefold(), folded, n=3)]
        told.append(repr(name) + (f' (they have {quoted(near, join=" and ")})' if near else ''))
    more = f' and {len(missing) - MOST} more' if len(missing) > MOST else ''
    return (f'{whose} needs names that the annotations have, and they have no {", no ".join(told)}{more}; objects '
            f'whose name is not given are left out, and other labels move up. Their names are '
            f'{quoted(folded.values())}. Write them as they stand there, or train all the same with '
            '`--allow-missing-classes` (in a config, `allow_missing_classes=True`).')


def _is_of_objects(dataset: Any) -> bool:
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return hasattr(dataset, 'get_data_info')  # without an image there is no object
    first = dataset.get_data_info(0)
    return bool({'images', 'instances', 'gt_label'} & set(first))


def _labels(dataset: Any) -> Iterator[int]:
    """The label of each object that counts, or of each image."""
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        for image in info.get('images', [info]):  # of a video
            if 'gt_label' in image:
                yield from np.ravel(image['gt_label'])
            for instance in image.get('instances', []):
                if not instance.get('ignore_flag'):
                    yield instance.get('bbox_label', 0)


def _difference(first: Sequence[str | None], second: Sequence[str | None]) -> int | None:
    return next((i for i, (one, other) in enumerate(zip(first, second, strict=False)) if one != other), None)


def _called(dataset: Any) -> str:
    path = getattr(dataset, 'ann_file', '') or (getattr(dataset, 'data_root', '') or '')
    return f'{type(dataset).__name__}{f" ({path})" if path else ""}'
