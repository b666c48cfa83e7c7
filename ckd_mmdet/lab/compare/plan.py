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
from ckd_mmdet.config import read_config
from ckd_mmdet.data_files import check_data
from ckd_mmdet.lab.compare.methods import ALONE, BROKEN, Method, Pair, check_names, make_method
from ckd_mmdet.lab.compare.metric import check_metric, main_metric
from ckd_mmdet.lab.compare.test_set import SPLITS, is_of_tests, teacher_on, why_no_test_set
from ckd_mmdet.lab.jobs.files import digest, digest_file, write_whole
from ckd_mmdet.options import MOST_SEED, merge_options
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
        report_on: Of which set the report's numbers are, of :data:`ckd_mmdet.lab.compare.test_set.SPLITS`.

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
    report_on: str = 'val'

    def __post_init__(self) -> None:
        for name in ('epochs', 'jobs'):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f'`{name}` needs a positive number, got {value}.')
        if self.report_on not in SPLITS:
            raise ValueError(f'`report_on` needs one of {", ".join(SPLITS)}, got {self.report_on!r}.')
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
    student_on_test: Config | None = None
    """What ``tools/test.py`` tests each run's ``student.pth`` with; ``None`` without a test set."""
    teacher_on_test: Config | None = None
    test_options: Mapping[str, Any] = field(default_factory=dict)
    """``--cfg-options`` of the tests alone, which are no part of the identity."""

    def config_file(self, name: str) -> Path:
        return self.settings.out / 'configs' / f'{name}.py'

    def method_file(self, method: Method) -> Path:
        return self.config_file(method.folder)

    @property
    def teacher_file(self) -> Path:
        return self.config_file('the_teacher')


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
    settings, test_options = _without_test_options(settings)
    pair = Pair(settings.student, settings.teacher, checkpoint, settings.epochs, settings.options)
    alone = make_method(ALONE, pair)
    if alone.config is None:
        raise ValueError(f'{settings.student}: {alone.refused}')
    check_data(alone.config, ('train_dataloader', 'val_dataloader'))
    if settings.metric:
        check_metric(settings.metric, alone.config)
    settings = replace(settings, metric=settings.metric or main_metric(alone.config))
    student_on_test = _student_on_test(alone.config, settings, test_options)
    methods = [alone if name == ALONE else make_method(name, pair) for name in names]
    _, weights = read_checkpoint(checkpoint, '--teacher-checkpoint')
    load_weights(build_model(teacher), weights, checkpoint, settings.teacher, '--teacher-checkpoint')
    tested, why_not = teacher_on(alone.config, teacher)
    teacher_on_test = None if student_on_test is None else teacher_on(student_on_test, teacher, 'test')[0]
    identity = dict(
        student=dict(config=settings.student, digest=digest(read_config(settings.student))),
        teacher=dict(config=settings.teacher, digest=digest(teacher)),
        teacher_checkpoint=dict(path=checkpoint,
                                digest=checkpoint if '://' in checkpoint else digest_file(Path(checkpoint))),
        epochs=alone.config.train_cfg.max_epochs,
        options=json.loads(json.dumps(dict(settings.options), sort_keys=True, default=str)))
    return Matrix(settings, methods, list(dict.fromkeys(settings.seeds)), checkpoint, tested, why_not, identity,
                  student_on_test, teacher_on_test, test_options)


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
    if matrix.student_on_test is not None:
        ours['tested_on'] = dict(
            student=digest(matrix.student_on_test), options=dict(matrix.test_options),
            teacher=None if matrix.teacher_on_test is None else digest(matrix.teacher_on_test))
    if path.exists():
        found = read_plan(path)
        differing = _differing(ours, found)
        if differing:
            raise ValueError(f'{folder} holds another matrix: {"; ".join(differing)}. Nothing was changed there; take '
                             'another `--out`, or remove the folder.')
        ours['titles'] = {**found.get('titles', {}), **ours['titles']}
        ours['seeds'] = sorted({*found['seeds'], *ours['seeds']})
        ours['methods'] = {**found['methods'], **ours['methods']}
        if 'tested_on' in found and matrix.settings.report_on == 'val':
            ours['tested_on'] = found['tested_on']
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
    if matrix.settings.report_on == 'test':
        for name, cfg in (('the_student_on_test', matrix.student_on_test),
                          ('the_teacher_on_test', matrix.teacher_on_test)):
            if cfg is not None:
                _dump(cfg, matrix.config_file(name))


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


def _without_test_options(settings: Settings) -> tuple[Settings, dict[str, Any]]:
    """Take out the options that say how to test: a matrix that is trained takes them all the same.

    Those that its folder was made with stay: they are in the digests of its runs.
    """
    path = settings.out / FILE
    kept = read_plan(path)['options'] if path.exists() else {}
    tests = {key: value for key, value in settings.options.items() if is_of_tests(key) and key not in kept}
    return replace(settings, options={key: value for key, value in settings.options.items() if key not in tests}), tests


def _student_on_test(student: Config, settings: Settings, options: Mapping[str, Any]) -> Config | None:
    """The plain student's config with its test set; ``None`` where it has none and none is asked for.

    Raises:
        ValueError: If one is asked for, and is not there or is not one of its own.
    """
    made = Config(copy.deepcopy(student.to_dict()), filename=student.filename)
    merge_options(made, dict(options))
    made.test_cfg = made.get('test_cfg') or {}
    why_not = why_no_test_set(made)
    if settings.report_on == 'val':
        return made if why_not is None else None
    if why_not is not None:
        raise ValueError(why_not)
    check_data(made, ('test_dataloader',))
    check_metric(settings.metric or main_metric(made), made, 'test_evaluator')
    return made


def _dump(cfg: Config, path: Path) -> None:
    if path.exists() and digest(Config.fromfile(path)) == digest(cfg):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, for_config(cfg.pretty_text))
