"""Writing a cache: the teacher runs once over the training set, for each view of an image."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet import __version__
from ckd_mmdet.aligners import DenseAligner, ObjectAligner, QueryAligner, RoIAligner
from ckd_mmdet.alignment import Alignment, build_alignment
from ckd_mmdet.cached.container import Key, Record, key_of, save_tensors, shard_path, write_shard
from ckd_mmdet.cached.header import Header, digest_of_images
from ckd_mmdet.cached.objects import ObjectPart
from ckd_mmdet.cached.parts import DensePart, Part, RoIPart
from ckd_mmdet.cached.teacher import (
    LAYERS,
    asking_cache,
    digest_of_file,
    ids_of,
    plain_preprocessing,
    views_of_config,
)
from ckd_mmdet.cached.views import check_batch_augments
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.config import DISTILLER
from ckd_mmdet.labels import check_label_names, leaves
from ckd_mmdet.lock import locked
from ckd_mmdet.pairing import RowPairing, pair
from ckd_mmdet.registry import build
from ckd_mmdet.teacher import FrozenTeacher, build_model
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


@dataclass(frozen=True)
class Kept:
    """How much is kept.

    Args:
        k: Rows of a dense head of an image: the most confident ones.
        boxes: Boxes of an image for a RoI head.
        in_boxes: Whether rows of a dense head whose anchor has its centre in a true box are kept, too; ``None``: where
            a selector or a loss of the alignment needs labels.
        features: Whether features of RoIs are kept; ``None``: where a loss of the alignment needs them.

    Raises:
        ValueError: If a number is below 1.
    """

    k: int = 256
    boxes: int = 64
    in_boxes: bool | None = None
    features: bool | None = None

    def __post_init__(self) -> None:
        for name in ('k', 'boxes'):
            if getattr(self, name) < 1:
                raise ValueError(f'`{name}` of a cache needs to be at least 1, got {getattr(self, name)}.')


@dataclass(frozen=True)
class Asked:
    """A teacher and what is kept of its answers; how its inputs are made."""

    teacher: FrozenTeacher
    parts: list[Part]
    preprocess: nn.Module
    """The student's data preprocessor."""

    def records(self, samples: Sequence[dict]) -> list[tuple[Key, Record]]:
        """What is kept of images of one size, as a pipeline packed them."""
        batch = dict(inputs=[one['inputs'] for one in samples], data_samples=[one['data_samples'] for one in samples])
        data = self.preprocess(batch, training=True)
        return self.of_batch(data['inputs'], data['data_samples'])

    def of_batch(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> list[tuple[Key, Record]]:
        """What is kept of a batch that was preprocessed.

        Raises:
            RuntimeError: If the teacher gives values that are not finite.
        """
        feats = self.teacher.extract_feat(inputs, data_samples)
        answers = [part.answer(self.teacher, feats, data_samples) for part in self.parts]
        records = [{field: rows for answer in each for field, rows in answer.items()}
                   for each in zip(*answers, strict=True)]
        if not all(rows.isfinite().all() for record in records for rows in record.values()):
            raise RuntimeError(f'{self.teacher.complaint} logits or features. '
                               f'{self.teacher.first_broken(inputs, data_samples)}')
        return [(key_of(sample), record) for sample, record in zip(data_samples, records, strict=True)]


class ViewData(Dataset):
    """Each image of a data set in all of its views, as the pipelines pack them; empty lists of what they refuse.

    Args:
        dataset: Built, maybe of several.
        pipelines: Configs of transforms, a list a view.
        scope: Where the transforms are registered.
    """

    def __init__(self, dataset: Any, pipelines: Sequence[Sequence[Mapping]], scope: str) -> None:
        self.places = [(leaf, number) for leaf in leaves(dataset) for number in range(len(leaf))]
        self.scope = scope
        with DATASETS.switch_scope_and_registry(scope):
            self.pipelines = [Compose([copy.deepcopy(dict(part)) for part in pipeline]) for pipeline in pipelines]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> list[dict]:
        leaf, index = self.places[number]
        views = [pipeline(leaf.get_data_info(index)) for pipeline in self.pipelines]
        return [view for view in views if view is not None]


def build_cache(cfg: Config, out: Path, kept: Kept, *, device: str = 'cpu', workers: int = 0,
                say: Callable[[str], None] = print, progress: Callable[[Iterator, int], Iterable] | None = None
                ) -> Header:
    """Write what the teacher of a distilled config says of its training images; go on where a killed run stopped.

    Args:
        cfg: The distilled config.
        out: Folder of the cache.
        kept: How much.
        device: On which the teacher runs.
        workers: Processes that load images.
        say: Takes sentences for people.
        progress: Wraps the iterator over images, whose number it is given.

    Raises:
        ValueError: If the config is none of a distilled student, or what it compares cannot be cached.
        OSError: If the disk is full; what was written stays.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    views = views_of_config(cfg)[0]
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    asked = ask_for(cfg, kept, dataset, torch.device(device))
    ids = ids_of(dataset)
    header = header_of(asked, views.fixed, views.choices, ids)
    data = ViewData(dataset, views.pipelines, cfg.get('default_scope') or 'mmdet')
    begin(out, header, {name: tensor for part in asked.parts for name, tensor in part.tensors(asked.teacher).items()})
    with locked(out / '.lock', lambda pid: ValueError('`--out` needs a folder that no other run writes to, and '
                                                      f'process {pid} writes to {out}.')):
        write(out, header, data, asked.records, workers, say, progress)
    return header


def begin(out: Path, header: Header, layers: Mapping[str, Tensor]) -> None:
    """Write the header, or see that the one that is there is the same."""
    if (out / 'header.json').exists():
        Header.read(out).check_continues(header, out)
        return
    if out.is_dir() and any(path.name != '.lock' for path in out.iterdir()):
        raise ValueError(f'`--out` needs an empty folder, or a cache that was begun, and {out} holds other files; give '
                         'another folder.')
    out.mkdir(parents=True, exist_ok=True)
    save_tensors(out / LAYERS, layers)
    header.write(out)


def write(out: Path, header: Header, data: Dataset, answer: Callable[[Sequence[dict]], list[tuple[Key, Record]]],
          workers: int, say: Callable[[str], None], progress: Callable[[Iterator, int], Iterable] | None) -> None:
    """Write the shards that are not there yet."""
    missing = [number for number in range(header.shards) if not shard_path(out, number).exists()]
    if len(missing) < header.shards:
        say(f'{out} has {header.shards - len(missing)} of {header.shards} shards already; going on.')
    images = [range(number * header.images_a_shard, min((number + 1) * header.images_a_shard, header.images))
              for number in missing]
    loader = DataLoader(data, sampler=[image for each in images for image in each],
                        batch_size=None, num_workers=workers, collate_fn=None)
    loaded: Iterator = iter(loader)
    if progress is not None:
        loaded = iter(progress(loaded, sum(map(len, images))))
    for number, each in zip(missing, images, strict=True):
        records = [record for _ in each for record in _of_image(next(loaded), answer)]
        write_shard(shard_path(out, number), records)


def _of_image(views: Sequence[dict], answer: Callable[[Sequence[dict]], list[tuple[Key, Record]]]
              ) -> list[tuple[Key, Record]]:
    """Of the views of an image, those of one size asked together: nothing is padded beyond what one image is."""
    found: list[tuple[Key, Record]] = []
    by_size: dict[tuple, list[dict]] = {}
    for view in views:
        by_size.setdefault(tuple(view['inputs'].shape), []).append(view)
    for same in by_size.values():
        found += answer(same)
    return found


def ask_for(cfg: Config, kept: Kept, dataset: Any, device: torch.device) -> Asked:
    """Build the teacher, and what is kept of its answers.

    Raises:
        ValueError: If the config is none of a distilled student, or what it compares cannot be cached.
    """
    model = cfg.model
    if model.get('type') != DISTILLER or not isinstance(model.get('teacher'), Mapping) or not model.get('alignments'):
        raise ValueError('tools/cache_teacher.py needs the config of a distilled student, with `teacher` and '
                         '`alignments`, or a plain config and `--teacher`.')
    given = {name: value for name, value in model.teacher.items() if name != 'cache'}
    if 'config' not in given:
        raise ValueError('tools/cache_teacher.py runs one teacher, and the config has several; write a cache for each, '
                         'from a config with this one alone.')
    alignments = {name: build_alignment(name, alignment) for name, alignment in model.alignments.items()}
    for name, alignment in model.alignments.items():
        build_alignment(name, asking_cache(name, alignment))
    student: Any = build_model(cfg)
    check_batch_augments(getattr(student.data_preprocessor, 'batch_augments', None) or ())
    teacher: FrozenTeacher = build(FrozenTeacher, given, '`teacher`')
    teacher.match_preprocessing(student.data_preprocessor, cfg)
    names = check_label_names(dataset, allow_missing=bool(cfg.get('allow_missing_classes'))).of_objects
    parts = []
    for alignment in alignments.values():
        paired = pair(alignment, student, teacher, names)
        assert isinstance(paired, RowPairing)  # as asking_cache() has seen
        parts.append(part_of(alignment, paired, kept))
    teacher._apply(lambda tensor: tensor.to(device))
    return Asked(teacher, _each_once(parts), student.data_preprocessor.to(device))


def part_of(alignment: Alignment, pairing: RowPairing, kept: Kept) -> Part:
    """What is kept for an alignment."""
    aligner = alignment.aligner
    if isinstance(aligner, DenseAligner):
        in_boxes = bool(alignment.needing('labels')) if kept.in_boxes is None else kept.in_boxes
        return DensePart(aligner, kept.k, in_boxes, pairing.classes.teacher)
    if isinstance(aligner, ObjectAligner | QueryAligner):
        same = pairing.classes == SharedClasses.all(pairing.scorings[1].num_classes)
        return ObjectPart(aligner, None if same else pairing.classes)
    assert isinstance(aligner, RoIAligner)  # as asking_cache() has seen
    features = bool(alignment.needing('features', 'centers')) if kept.features is None else kept.features
    return RoIPart(aligner, kept.boxes, features)


def _each_once(parts: Sequence[Part]) -> list[Part]:
    """One part a name: what two alignments ask for alike is kept once, as the fuller of them needs it."""
    by_name: dict[str, Part] = {}
    for part in parts:
        there = by_name.setdefault(part.name, part)
        if isinstance(there, DensePart) and isinstance(part, DensePart):
            there.in_boxes = there.in_boxes or part.in_boxes
        if isinstance(there, RoIPart) and isinstance(part, RoIPart):
            there.features = there.features or part.features
    return list(by_name.values())


def header_of(asked: Asked, fixed: list, choices: list, ids: Sequence[str]) -> Header:
    """The header of the cache that is to be written."""
    teacher = asked.teacher
    file = Path(teacher.checkpoint)
    return Header(teacher.name, teacher.checkpoint, teacher.digest(), digest_of_file(file) if file.is_file() else '',
                  None if teacher.classes is None else list(teacher.classes), plain_preprocessing(asked.preprocess),
                  fixed, choices, len(ids), digest_of_images(ids),
                  {part.name: part.info(teacher) for part in asked.parts}, written_by=__version__)


def train_config(cfg: Config, out: Path) -> Config:
    """The config that trains from a cache."""
    made = copy.deepcopy(cfg)
    teacher = {name: value for name, value in cfg.model.teacher.items() if name in ('class_map', 'check_accuracy')}
    made.model.teacher = dict(cache=os.path.abspath(out), **teacher)
    return made
