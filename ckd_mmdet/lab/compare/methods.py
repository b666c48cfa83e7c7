"""A method of the matrix: from its name to the config that trains it, or to the reason why it cannot be."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.header import Header
from ckd_mmdet.cached.teacher import CachedTeacher, digest_of_file, is_cached
from ckd_mmdet.config import DISTILLER, HOOK, add_hook, plain_student, read_config, student_of
from ckd_mmdet.distilled import distil
from ckd_mmdet.fit import check_alignments
from ckd_mmdet.lab.compare.schedule import check_loop, keep_records, scale_epochs
from ckd_mmdet.lab.jobs.files import digest
from ckd_mmdet.method_options import split_inherit, student_options
from ckd_mmdet.options import merge_options
from ckd_mmdet.recipes import METHODS
from ckd_mmdet.teacher import FrozenTeacher, build_model, read_teacher_config
from mmengine.config import Config, ConfigDict
from torch import nn

ALONE = 'none'
"""The student without a teacher, the reference of all the others."""
SHARED = ('data_preprocessor', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'train_cfg', 'optim_wrapper',
          'param_scheduler', 'load_from', 'val_cfg')
"""Keys in which a whole config may not differ from the student's: the method is all that is compared. What belongs to a
classifier's method is not looked at: its views (``_one_view``), and its own loss's weight (``_but_loss_weight``)."""
VIEWS = ('type', 'ckd_mmdet.RotatedViews')
PREPROCESSORS = {('type', kind) for kind in ('ckd_mmdet.ViewsPreprocessor', 'ClsDataPreprocessor',
                                             'mmpretrain.ClsDataPreprocessor')}
"""Of classifiers: the one of PCKD's views, and the usual one, which is seldom named."""
BROKEN = (SyntaxError, ImportError, NameError, AttributeError, TypeError, LookupError, AssertionError)
"""What else a faulty config raises, beside ``OSError``, ``RuntimeError`` and ``ValueError``: it is a program."""


@dataclass(frozen=True)
class Pair:
    """What the methods are applied to.

    Args:
        student: Config of a plain detector or classifier, a path or ``package::...``.
        teacher: The same of the teacher.
        checkpoint: Path or address of the teacher's weights.
        epochs: Instead of the student's own.
        options: ``--cfg-options`` of a distilled config; the student's own keys begin with ``model.student.``.
    """

    student: str
    teacher: str
    checkpoint: str
    epochs: int | None
    options: Mapping[str, Any]
    models: dict[str, nn.Module] = field(default_factory=dict, compare=False, repr=False)
    """Built once for all methods, by the digests of their configs."""


@dataclass(frozen=True)
class Method:
    """A method with the whole config that trains it; without one it was refused."""

    name: str
    config: Config | None = None
    refused: str | None = None

    @property
    def folder(self) -> str:
        """A name for files, different for different methods."""
        return folder_name(self.name)

    @property
    def digest(self) -> str | None:
        """Of the config, whatever the teacher's files are called: these have digests of their own."""
        if self.config is None:
            return None
        cfg = copy.deepcopy(self.config.to_dict())
        teacher = cfg['model'].get('teacher') if cfg['model'].get('type') == DISTILLER else None
        for key in ('config', 'checkpoint'):
            (teacher or {}).pop(key, None)
        return digest(cfg)


def check_names(names: Sequence[str]) -> None:
    """See that each name is a method, several joined by ``+`` and each perhaps with a weight, or a config.

    Raises:
        ValueError: If one is neither; the text lists what is known.
    """
    for name in names:
        if is_config(name):
            try:
                read_config(name)
            except (OSError, RuntimeError, ValueError, *BROKEN) as error:
                raise ValueError(f'`methods` has {name!r}, which is no readable config: {error}') from error
            continue
        methods = split_inherit(name)[0]
        unknown = [part for part in methods.split('+') if part.partition(':')[0] not in METHODS]
        if unknown and methods != ALONE:
            raise ValueError(f'`methods` has {name!r}, and {unknown[0]!r} is unknown; take of {ALONE}, '
                             f'{", ".join(METHODS)}, several joined by +, each with a weight after a colon if it '
                             'shall have another, or a config (a .py file, or package::...) of a distilled student.')


def is_config(name: str) -> bool:
    return '::' in name or name.endswith('.py')


def make_method(name: str, pair: Pair) -> Method:
    """Make the method's config as it will be trained, and see that its models can be built and paired.

    What the pair cannot give refuses the method, not the matrix.
    """
    try:
        cfg = _given_config(name, pair) if is_config(name) else _attached_config(name, pair)
        if pair.epochs:
            scale_epochs(cfg, pair.epochs)
        keep_records(cfg)
        _check_models(cfg, pair)
    except (OSError, RuntimeError, ValueError) as error:
        return Method(name, refused=str(error))
    except BROKEN as error:
        return Method(name, refused=f'its config is broken: {type(error).__name__}: {error}')
    cfg.pop('work_dir', None)
    return Method(name, cfg)


def student_config(pair: Pair) -> Config:
    """The student's own config, with those of the options that are the student's.

    Raises:
        ValueError: If an option is no distilled config's, or the config does not suit a comparison.
    """
    for key in pair.options:
        if key in ('model.teacher', 'model.teacher.config', 'model.teacher.checkpoint'):
            raise ValueError(f'`--cfg-options {key}=...` would teach from another teacher than the one whose gap is '
                             'shown; give `--teacher` and `--teacher-checkpoint`.')
    cfg = read_config(pair.student)
    merge_options(cfg, student_options(pair.options))
    check_loop(cfg)
    return cfg


def folder_name(method: str) -> str:
    stem = Path(method.rpartition('::')[2]).stem if is_config(method) else method
    safe = re.sub(r'[^\w+.-]', '_', stem).lstrip('.-')[:60]
    # two names that are written alike stay two folders
    return safe if safe == method else f'{safe}-{hashlib.sha256(method.encode()).hexdigest()[:6]}'


def _attached_config(name: str, pair: Pair) -> Config:
    student = student_config(pair)
    options = dict(pair.options) if name != ALONE else {}
    with contextlib.redirect_stdout(io.StringIO()):  # why each part was chosen stands in the config's `distillation`
        return distill_config(student, pair.teacher, name, teacher_checkpoint=pair.checkpoint, options=options)


def _given_config(name: str, pair: Pair) -> Config:
    cfg = read_config(name)
    if cfg.get('model', {}).get('type') != DISTILLER:
        raise ValueError(f'{name} is no config of a distilled student, its `model` is a '
                         f'{cfg.get("model", {}).get("type")}.')
    merge_options(cfg, pair.options)
    student = student_config(pair)
    ours = {'model.student': _but_loss_weight(student.model.to_dict()), **_shared(student)}
    theirs = {'model.student': _but_loss_weight(student_of(copy.deepcopy(cfg.model)).to_dict()), **_shared(cfg)}
    differing = [key for key in ours if _one_view(ours[key]) != _one_view(theirs[key])]
    if differing:
        raise ValueError(f'{name} differs from {pair.student} in {", ".join(f"`{key}`" for key in differing)}; a '
                         'matrix compares methods, everything else has to be the same.')
    same = [one for one in _teachers(cfg).values() if _is_of_pair(one, pair)]
    if not same:
        raise ValueError(f'{name} has another teacher than {pair.teacher}; compare it in a matrix of its own.')
    for one in same:
        one.checkpoint = pair.checkpoint
    add_hook(cfg)
    return cfg


def _teachers(cfg: Config) -> dict[str | None, ConfigDict]:
    teacher = cfg.model.get('teacher') or {}
    return {None: teacher} if 'config' in teacher or is_cached(teacher) else dict(teacher)


def _is_of_pair(teacher: ConfigDict, pair: Pair) -> bool:
    """Whether it is the matrix's own teacher; a cached one is known by the weights that it was written with."""
    if not is_cached(teacher):
        return read_teacher_config(teacher.config).model == read_teacher_config(pair.teacher).model
    header = Header.read(Path(teacher.cache))
    if Path(str(pair.checkpoint)).is_file():
        return header.checkpoint_digest == digest_of_file(Path(str(pair.checkpoint)))
    return header.checkpoint == pair.checkpoint


def _check_models(cfg: Config, pair: Pair) -> None:
    """Build student, teacher and alignments with random weights, as the training will."""
    plain = copy.deepcopy(cfg)
    plain_student(plain)
    student = _model(plain, pair)
    if cfg.model.type != DISTILLER:
        return
    _check_arguments(distil, cfg.model)
    teachers = _teachers(cfg)
    for teacher in teachers.values():
        _check_arguments(CachedTeacher if is_cached(teacher) else FrozenTeacher, teacher)
    for name, alignment in (cfg.model.get('alignments') or {}).items():
        asked = alignment.get('teacher')
        if asked not in teachers:
            raise ValueError(f'`alignments.{name}.teacher` is {asked!r}, and `teacher` has {list(teachers)}.')
        teacher = teachers[asked]
        if is_cached(teacher):  # what it keeps was checked as it was written, and is again as it is read
            continue
        check_alignments({name: alignment}, student, _model(read_teacher_config(teacher.config), pair),
                         teacher.get('class_map') is not None)


def _check_arguments(kind: Callable, given: Mapping[str, Any]) -> None:
    inspect.signature(kind).bind(**{key: value for key, value in given.items() if key not in ('type', '_scope_')})


def _model(cfg: Config, pair: Pair) -> nn.Module:
    key = digest([cfg.get(part) for part in ('default_scope', 'model', 'data_preprocessor')])
    if key not in pair.models:
        pair.models[key] = build_model(cfg)
    return pair.models[key]


def _but_loss_weight(student: dict[str, Any]) -> dict[str, Any]:
    """Without the weight of a classifier's own loss: KD is 0.1 of it and 0.9 of the teacher's."""
    loss = (student.get('head') or {}).get('loss')
    if isinstance(loss, dict):
        loss.pop('loss_weight', None)
    return student


def _one_view(part: Any) -> Any:
    """A config's part with each image seen once: PCKD shows it in four views, by the same transforms."""
    if isinstance(part, list | tuple):
        parts = [_one_view(one) for one in part]
        return [inner for one in parts
                for inner in (one.get('transforms', []) if isinstance(one, dict) and VIEWS in one.items() else [one])]
    if isinstance(part, dict):
        return {key: _one_view(value) for key, value in part.items()
                if not isinstance(value, str) or (key, value) not in PREPROCESSORS}
    return part


def _shared(cfg: Config) -> dict[str, Any]:
    found = {key: cfg.to_dict().get(key) for key in SHARED}
    scaling = cfg.to_dict().get('auto_scale_lr') or {}
    hooks = cfg.to_dict().get('custom_hooks') or []
    return {**found, 'resume': bool(cfg.get('resume')), 'auto_scale_lr': scaling if scaling.get('enable') else None,
            'custom_hooks': [hook for hook in hooks if hook.get('type') not in (HOOK, 'DistillHook')]}
