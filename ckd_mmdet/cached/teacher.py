"""A teacher that answers from files."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ckd_mmdet.aligners import DenseAligner, ObjectAligner, QueryAligner, RoIAligner
from ckd_mmdet.cached.aligners import CachedDenseAligner, CachedRoIAligner, CacheModel
from ckd_mmdet.cached.container import Record, Shards, key_of, load_tensors
from ckd_mmdet.cached.header import Header, digest_of_images
from ckd_mmdet.cached.objects import CachedObjectAligner, CachedQueryAligner
from ckd_mmdet.cached.views import Views, check_batch_augments, check_wrappers, views_of
from ckd_mmdet.config import inner_datasets
from ckd_mmdet.labels import leaves
from ckd_mmdet.preprocessing import Preprocessing
from ckd_mmdet.recipes import METHODS
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Side
from ckd_mmdet.speed import TeacherSpeed
from ckd_mmdet.teacher import FrozenTeacher
from ckd_mmdet.text import few
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

CACHED: dict[type, type] = {DenseAligner: CachedDenseAligner, RoIAligner: CachedRoIAligner,
                           ObjectAligner: CachedObjectAligner, QueryAligner: CachedQueryAligner}
"""What stands in an aligner's place where its teacher is cached."""
LAYERS = 'layers.safetensors'
"""File of what is kept once for all images."""


class CachedTeacher(FrozenTeacher):
    """A teacher whose answers were written by ``tools/cache_teacher.py``; no model is built.

    Args:
        cache: The folder.
        class_map: As of a :class:`ckd_mmdet.teacher.FrozenTeacher`.
        check_accuracy: The same.
        config: Not looked at: that of a live teacher may stay where it is.
        checkpoint: The same, except that a file must be the one that the cache was made with.

    Raises:
        ValueError: If the folder holds no whole cache, or that of another teacher.
    """

    def __init__(self, cache: str | Path, class_map: str | dict[str, str] | list | None = None,
                 check_accuracy: bool = True, config: Any = None, checkpoint: str | Path | None = None) -> None:
        folder = Path(cache)
        self.header = Header.read(folder)
        self.folder = folder
        self.name = f'{self.header.teacher}, cached in {folder}'
        self.checkpoint = self.header.checkpoint
        self.class_map = dict(class_map) if isinstance(class_map, list | tuple) else class_map
        self.check_accuracy = check_accuracy
        self.check_preprocessing = True
        self.classes = None if self.header.classes is None else tuple(self.header.classes)
        self.speed = TeacherSpeed()
        self.config = Config()
        self.renormalize: nn.Module = nn.Identity()
        self._trained_digest = self.header.digest
        self._body = None
        _check_checkpoint(checkpoint, self.header)
        self.shards = Shards(folder, self.header.shards)
        self.model: nn.Module = CacheModel(self.header.parts, load_tensors(folder / LAYERS))

    def match_preprocessing(self, data_preprocessor: BaseDataPreprocessor,
                            student_config: Config | None = None) -> None:
        """Refuse a student that sees other images than the teacher saw.

        Args:
            data_preprocessor: The student's.
            student_config: Of its run, once it is known: its pipeline is then compared, too.

        Raises:
            ValueError: If pixels, padding or sizes are others, or the pipeline can give an image a view that the cache
                does not have.
        """
        check_batch_augments(getattr(data_preprocessor, 'batch_augments', None) or ())
        ours, theirs = plain_preprocessing(data_preprocessor), self.header.preprocessing
        if theirs is not None and ours != theirs:
            what = next(name for name in theirs if theirs[name] != ours[name])
            raise ValueError(f"`teacher.cache` was made of inputs with another `{what}` than the student's data "
                             f'preprocessor gives, {theirs[what]} and not {ours[what]}; write the cache with this '
                             "student's config.")
        for views in [] if student_config is None else views_of_config(student_config):
            self._check_views(views)

    def _check_views(self, views: Views) -> None:
        if views.fixed != self.header.pipeline:
            pair = views.fixed, self.header.pipeline
            ours, theirs = (next((one for one in mine if one not in other), 'the same in another order')
                            for mine, other in (pair, pair[::-1]))
            raise ValueError(f'`teacher.cache` was made with another pipeline: it has {theirs}, the training {ours}; '
                             "write the cache with this student's config.")
        for choice in views.choices:
            if choice not in self.header.views:
                raise ValueError(f'`teacher.cache` has no images as the training pipeline may give them, {choice}; '
                                 "write the cache with this student's config.")

    def match_images(self, dataset: Any) -> None:
        """Refuse a training data set of other images than the cache has.

        Raises:
            ValueError: If there are.
        """
        ids = ids_of(dataset)
        if digest_of_images(ids) == self.header.images_digest:
            return
        known = {key[0] for key in self.shards.keys()}  # noqa: SIM118  it is no dict
        unknown = [one for one in ids if one not in known]
        if unknown:
            raise ValueError(f'`teacher.cache` has {self.header.images} images, and {len(unknown)} of the training '
                             f"data set's {len(ids)} are not among them (img_id "
                             f'{few(unknown, 3, total=False)}); write a cache of this data set.')

    def extract_feat(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[Record]:  # type: ignore[override]
        """What is kept of each of the batch's images, on the CPU.

        Raises:
            RuntimeError: If there is nothing of one of them.
        """
        return [self._read(sample) for sample in data_samples]

    def _read(self, sample: BaseDataElement) -> Record:
        key = key_of(sample)
        if key in self.shards:
            return self.shards.read(key)
        known = [other for other in self.shards.keys() if other[0] == key[0]]  # noqa: SIM118
        has = '; '.join(f'{height}x{width}{f", flipped {flip}" if flip else ""}' for _, flip, height, width in known)
        flipped = f', flipped {key[1]}' if key[1] else ''
        raise RuntimeError(f'expected the cache {self.folder} to have the image {key[0]} in {key[2]}x{key[3]} pixels'
                           f'{flipped}, saw {f"it in {has} only" if has else "no such image"}; write the cache with '
                           'the config and the data of this training')

    def predict(self, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Sequence[BaseDataElement]:
        raise RuntimeError('a cached teacher has no model that could predict; take a live one')

    def faults(self, answer: Side | Sequence[Tensor]) -> dict[str, Tensor]:
        """None: what is not finite is never written."""
        return {}

    def digest(self) -> str:
        return self.header.digest

    def __getstate__(self) -> dict:
        return {**self.__dict__, 'shards': None}  # memory maps cannot be pickled

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self.shards = Shards(self.folder, self.header.shards)


def _check_checkpoint(checkpoint: str | Path | None, header: Header) -> None:
    if checkpoint is None or not Path(checkpoint).is_file() or not header.checkpoint_digest:
        return
    if digest_of_file(Path(checkpoint)) != header.checkpoint_digest:
        raise ValueError(f'`teacher.cache` was made by the weights {header.checkpoint}, and `teacher.checkpoint`, '
                         f'{checkpoint}, has others; write a cache with these, or leave `teacher.checkpoint` out.')


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, 'rb') as file:
        sha = hashlib.sha256()
        while block := file.read(1 << 20):
            sha.update(block)
    return sha.hexdigest()


def plain_preprocessing(data_preprocessor: BaseDataPreprocessor) -> dict[str, Any]:
    """What a data preprocessor does to pixels, as JSON has it."""
    settings = dataclasses.asdict(Preprocessing.of(data_preprocessor))
    return {name: [round(one, 6) for one in value] if isinstance(value, tuple) else value
            for name, value in settings.items()}


def views_of_config(cfg: Config) -> list[Views]:
    """The views of each data set of a config's training data, those of wrappers included.

    Raises:
        ValueError: If there are too many, or several data sets have different ones.
    """
    dataset = cfg.train_dataloader.dataset
    check_wrappers(dataset)
    found = [views_of(one.get('pipeline') or []) for one in inner_datasets(dataset)]
    for views in found[1:]:
        if (views.fixed, views.choices) != (found[0].fixed, found[0].choices):
            raise ValueError('a cached teacher needs the same pipeline in each of several data sets; give them one.')
    return found


def ids_of(dataset: Any) -> list[str]:
    """Ids of the images of a built data set, those of wrapped ones once each, as text.

    Raises:
        ValueError: If images have none, or share one.
    """
    ids = []
    for leaf in leaves(dataset):
        for number in range(len(leaf)):
            info = leaf.get_data_info(number)
            if info.get('img_id') is None:
                raise ValueError(f'a cached teacher knows an image by its `img_id`, and {type(leaf).__name__} gives '
                                 'none; take a live teacher.')
            ids.append(str(info['img_id']))
    if len(set(ids)) < len(ids):
        twice = next(one for one in ids if ids.count(one) > 1)
        raise ValueError(f'a cached teacher needs an `img_id` of its own for each image, and the training data set has '
                         f'{twice} more than once; number the images of joined data sets apart.')
    return ids


def is_cached(teacher: Mapping | None) -> bool:
    """Whether the config is of a teacher that answers from files."""
    return isinstance(teacher, Mapping) and 'cache' in teacher and not isinstance(teacher['cache'], Mapping)


def asking_cache(name: str, cfg: Mapping) -> dict:
    """The config of an alignment whose teacher is cached, its aligner replaced.

    Args:
        name: The alignment's.
        cfg: As :func:`ckd_mmdet.alignment.build_alignment` takes it.

    Raises:
        ValueError: If a cache does not keep what it compares; the text names the method.
    """
    aligner = cfg.get('aligner')
    if not isinstance(aligner, Mapping) or 'type' not in aligner:
        return dict(cfg)  # for build_alignment to refuse
    kind = TASK_UTILS.get(aligner['type']) if isinstance(aligner['type'], str) else aligner['type']
    if kind is None or kind in CACHED.values():
        return dict(cfg)
    if kind not in CACHED:
        methods = _methods(cfg.get('losses') or {})
        raise ValueError(f'`alignments.{name}` ({methods}) pairs by {kind.__name__} what a cache does not keep; it '
                         f'keeps rows for {", ".join(sorted(each.__name__ for each in CACHED))}. Take `--method kd` or '
                         '`--method ckd`, or a live teacher.')
    if kind is DenseAligner and aligner.get('through') is not None:
        raise ValueError(f"`alignments.{name}.aligner` has `through`, as `--method crosskd`: the student's features "
                         "pass the teacher's head, which a cache does not have. Take `--method kd` or `--method ckd`, "
                         'or a live teacher.')
    if kind is QueryAligner and aligner.get('pair', 'objects') != 'objects':
        raise ValueError(f"`alignments.{name}.aligner` has `pair={aligner['pair']!r}`, as `--method detrdistill`, and "
                         'a cache keeps what the teacher says of the objects. Take `--method kd` or `--method ckd`, '
                         'or a live teacher.')
    for selector in _listed(cfg.get('selector')):
        if kind is DenseAligner and str(selector.get('type')).rpartition('.')[2] == 'Random':
            raise ValueError(f'`alignments.{name}.selector` is Random, each row as likely as any other, and a cache '
                             'holds the rows of a dense head that the teacher is surest of; take TeacherTopK, or a '
                             'live teacher.')
    return {**cfg, 'aligner': {**aligner, 'type': CACHED[kind]}}


def _listed(selector: Any) -> list[Mapping]:
    parts = selector if isinstance(selector, list | tuple) else [selector]
    return [part for part in parts if isinstance(part, Mapping)]


def _methods(losses: Mapping) -> str:
    kinds = {str(loss.get('type')).rpartition('.')[2] for loss in losses.values() if isinstance(loss, Mapping)}
    named = [f'`{method}`' for method, parts in METHODS.items() if {one['type'] for one in parts.values()} <= kinds]
    return ', '.join(named or sorted(kinds))
