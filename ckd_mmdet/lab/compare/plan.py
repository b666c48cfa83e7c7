"""What a matrix consists of: checked as a whole before anything trains, and known again when it goes on."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ckd_mmdet.checkpoints import load_weights, read_checkpoint
from ckd_mmdet.config import class_names, read_config
from ckd_mmdet.data_files import check_data
from ckd_mmdet.lab.compare.methods import ALONE, BROKEN, Method, Pair, check_names, make_method
from ckd_mmdet.lab.compare.metric import check_metric, main_metric
from ckd_mmdet.lab.jobs.files import digest, digest_file, write_whole
from ckd_mmdet.options import MOST_SEED
from ckd_mmdet.teacher import build_model, read_teacher_config, zoo_address
from ckd_mmdet.text import for_config
from mmengine.config import Config

FILE = 'matrix.json'
SHAPE = dict(student=dict, teacher=dict, teacher_checkpoint=dict, epochs=int, options=dict, metric=str, seeds=list,
             methods=dict)
"""Keys of that file that are read."""
WAYS_OUT = 'Nothing was changed there; restore the file, take another `--out`, or remove the folder.'
OURS = ('.lock', f'.{FILE}.part')
"""What a command leaves that is killed before the folder is a matrix."""


@dataclass(frozen=True)
class Settings:
    """What the user asked for.

    Args:
        student: Config of a plain detector or classifier, a path or ``package::...``.
        teacher: The same of the teacher.
        methods: Names of :data:`ckd_mmdet.recipes.METHODS`, several joined by ``+``, or whole configs.
        seeds: Each trains every method once.
        out: The matrix's folder.
        checkpoint: The teacher's weights; of an ``mmdet::`` config the model zoo's by default.
        epochs: Instead of the student's own, see :func:`ckd_mmdet.lab.compare.schedule.scale_epochs`.
        options: ``--cfg-options``, the same for every run.
        metric: What is compared, by its key in mmengine's log; by default what the student's ``val_evaluator`` is
            mainly about, see :func:`ckd_mmdet.lab.compare.metric.main_metric`.
        jobs: Runs at a time; by default one a GPU, without GPUs one a core.
        keep: Whether a finished run keeps its last checkpoints, beside ``student.pth``.
        titles: What the report calls a method, by its name.
        check_data: Whether to look for training images among those of validation and test before anything trains.

    Raises:
        ValueError: If seeds, epochs or jobs make no sense.
    """

    student: str
    teacher: str
    methods: Sequence[str]
    seeds: Sequence[int]
    out: Path
    checkpoint: str | None = None
    epochs: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metric: str | None = None
    jobs: int | None = None
    keep: bool = False
    titles: Mapping[str, str] = field(default_factory=dict)
    check_data: bool = False

    def __post_init__(self) -> None:
        for name in ('epochs', 'jobs'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'`{name}` needs a positive number, got {value}.')
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) > MOST_SEED:
            raise ValueError(f'`seeds` needs numbers from 0 to {MOST_SEED}, got {list(self.seeds)}.')
        if any(key.startswith('randomness') for key in self.options):
            raise ValueError('`--cfg-options randomness...` would give every run the same seed; take `--seeds`.')


@dataclass(frozen=True)
class Matrix:
    """What is trained and measured, with all configs."""

    settings: Settings
    """With the metric that is compared."""
    methods: list[Method]
    """In the order asked for, the student alone first where it was not named."""
    seeds: list[int]
    checkpoint: str
    teacher: Config | None
    """What ``tools/test.py`` tests; ``None`` where that would say nothing."""
    no_teacher: str | None
    """Why it would not."""
    identity: dict[str, Any]

    def method_file(self, method: Method) -> Path:
        return self.settings.out / 'configs' / f'{method.folder}.py'

    @property
    def teacher_file(self) -> Path:
        return self.settings.out / 'configs/the_teacher.py'


def make_matrix(settings: Settings) -> Matrix:
    """Read, build and check all configs; nothing is written.

    Raises:
        ValueError: If student, teacher, data or the name of a method are unfit. A method that this pair cannot give is
            not among these: it is marked as refused.
    """
    names = list(dict.fromkeys(settings.methods))
    if ALONE not in names:
        names.insert(0, ALONE)
    check_names(names)
    unknown = [name for name in settings.titles if name not in names]
    if unknown:
        raise ValueError(f'`--titles` needs METHOD=TITLE for a method of this command, got {unknown[0]!r}; the methods '
                         f'are {", ".join(names)}.')
    try:
        teacher = read_teacher_config(settings.teacher)
    except BROKEN as error:
        raise ValueError(f'`teacher` needs a readable config, {settings.teacher} is none: {error}') from error
    checkpoint = str(settings.checkpoint or zoo_address(settings.teacher))
    if '://' not in checkpoint and not os.path.isfile(checkpoint):
        raise ValueError(f'`--teacher-checkpoint` needs a file that exists, {checkpoint!r} does not.')
    pair = Pair(settings.student, settings.teacher, checkpoint, settings.epochs, settings.options)
    alone = make_method(ALONE, pair)
    if alone.config is None:
        raise ValueError(f'{settings.student}: {alone.refused}')
    check_data(alone.config, ('train_dataloader', 'val_dataloader'))
    if settings.metric:
        check_metric(settings.metric, alone.config)
    settings = replace(settings, metric=settings.metric or main_metric(alone.config))
    methods = [alone if name == ALONE else make_method(name, pair) for name in names]
    _, weights = read_checkpoint(checkpoint, '--teacher-checkpoint')
    load_weights(build_model(teacher), weights, checkpoint, settings.teacher, '--teacher-checkpoint')
    tested, why_not = _teacher_test(alone.config, teacher)
    identity = dict(
        student=dict(config=settings.student, digest=digest(read_config(settings.student))),
        teacher=dict(config=settings.teacher, digest=digest(teacher)),
        teacher_checkpoint=dict(path=checkpoint,
                                digest=checkpoint if '://' in checkpoint else digest_file(Path(checkpoint))),
        epochs=alone.config.train_cfg.max_epochs,
        options=json.loads(json.dumps(dict(settings.options), sort_keys=True, default=str)))
    return Matrix(settings, methods, list(dict.fromkeys(settings.seeds)), checkpoint, tested, why_not, identity)


def keep_matrix(matrix: Matrix, write: bool = True) -> None:
    """Write down what the folder's runs are made of; more methods and seeds than before may join them.

    Args:
        write: ``False`` only looks whether the folder would take it.

    Raises:
        ValueError: If the folder holds another matrix, or something else; nothing is written then.
    """
    folder = matrix.settings.out
    path = folder / FILE
    ours = dict(matrix.identity, metric=matrix.settings.metric, seeds=matrix.seeds, no_teacher=matrix.no_teacher,
                titles=dict(matrix.settings.titles),
                methods={method.name: dict(folder=method.folder, config=method.digest, refused=method.refused)
                         for method in matrix.methods})
    if path.exists():
        found = read_plan(path)
        differing = _differing(ours, found)
        if differing:
            raise ValueError(f'{folder} holds another matrix: {"; ".join(differing)}. Nothing was changed there; take '
                             'another `--out`, or remove the folder.')
        ours['titles'] = {**found.get('titles', {}), **ours['titles']}
        ours['seeds'] = sorted({*found['seeds'], *ours['seeds']})
        ours['methods'] = {**found['methods'], **ours['methods']}
    elif folder.exists() and (not folder.is_dir() or any(entry.name not in OURS for entry in folder.iterdir())):
        raise ValueError(f'`--out` needs a folder that is new, empty or a matrix of before, {folder} holds something '
                         'else. Nothing was changed there.')
    if not write:
        return
    write_whole(path, json.dumps(ours, indent=2) + '\n')  # first: where this is killed, the next command goes on
    for method in matrix.methods:
        if method.config is not None:
            _dump(method.config, matrix.method_file(method))
    if matrix.teacher is not None:
        _dump(matrix.teacher, matrix.teacher_file)


def read_plan(path: Path) -> dict[str, Any]:
    """What a matrix's folder was made of, as :func:`keep_matrix` wrote it.

    Raises:
        ValueError: If the file is cut off, or something else.
    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f'{path} cannot be read, it is empty, cut off or no JSON ({error}). {WAYS_OUT}') from error
    shaped = isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in SHAPE.items()) and all(
        isinstance(method, dict) and {'folder', 'config', 'refused'} <= set(method)
        for method in found['methods'].values()) and all(
        isinstance(found[key].get('digest'), str) for key in ('student', 'teacher', 'teacher_checkpoint'))
    if not shaped:
        raise ValueError(f'{path} is not what compare.py writes: it needs {", ".join(SHAPE)}. {WAYS_OUT}')
    return found


def _differing(ours: dict, found: dict) -> list[str]:
    """In words, what of the identity is not the same."""
    said = []
    for key in ('student', 'teacher', 'teacher_checkpoint'):
        if found[key]['digest'] != ours[key]['digest']:
            (name, *_), (before, *_) = ours[key].values(), found[key].values()
            said.append(f'`{key}` was {before}, now it is {name}' if name != before
                        else f'`{key}` is {name} as before, but its content has changed')
    said += [f'`{key}` was {found[key]}, now it is {ours[key]}' for key in ('epochs', 'options')
             if found[key] != ours[key]]
    if said:
        return said  # of which each changes the methods' configs
    for name, method in ours['methods'].items():
        before = found['methods'].get(name, {}).get('config')
        if before and method['config'] and before != method['config']:
            said.append(f'the method {name} has another config than before')
        if before and not method['config']:
            said.append(f'the method {name} was trained before, now it is refused ({method["refused"]})')
    return said


def _teacher_test(student: Config, teacher: Config) -> tuple[Config | None, str | None]:
    """The teacher's config on what the student is validated on, by the teacher's own pipeline."""
    ours, theirs = class_names(student), class_names(teacher) if 'train_dataloader' in teacher else None
    if ours and theirs and ours != theirs:
        return None, (f'the teacher knows other classes ({len(theirs)}) than the student ({len(ours)}), so its score '
                      'would not be of the same task')
    made = Config(teacher.to_dict(), filename=teacher.filename)
    loader = copy.deepcopy(student.val_dataloader)
    own = ((teacher.get('test_dataloader') or {}).get('dataset') or {}).get('pipeline')
    if own and 'pipeline' in loader.dataset:
        loader.dataset.pipeline = own
    made.merge_from_dict(dict(default_scope=teacher.get('default_scope') or student.get('default_scope') or 'mmdet'))
    made.test_dataloader, made.test_evaluator, made.test_cfg = loader, copy.deepcopy(student.val_evaluator), {}
    made.pop('work_dir', None)
    return made, None


def _dump(cfg: Config, path: Path) -> None:
    if path.exists() and digest(Config.fromfile(path)) == digest(cfg):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, for_config(cfg.pretty_text))
