"""The inheriting strategy: the student starts from the teacher's neck and head, where names and shapes agree."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from ckd_mmdet.cached.teacher import CachedTeacher
from ckd_mmdet.checkpoints import own_names, weights_of
from ckd_mmdet.teacher import FrozenTeacher, build_model
from ckd_mmdet.text import few
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

if TYPE_CHECKING:
    from ckd_mmdet.hook import Teaching

OWN = ('backbone.', 'data_preprocessor.')
"""How the names of weights start that no student inherits."""
OUT = 'leave `inherit` out (`+inherit` of the method)'


@dataclass(frozen=True)
class Inheritance:
    """Which weights a student takes over, and which of its own neck and head it keeps, by name."""

    taken: Sequence[str]
    reshaped: Sequence[str]
    """With both shapes."""
    of_classes: Sequence[str]
    """Of equal shape, in layers of other classes than the student's."""
    absent: Sequence[str]
    """That the teacher has not."""

    def told(self, teacher: str) -> str:
        """In one sentence."""
        parts = list(dict.fromkeys(name.partition('.')[0] for name in self.taken))
        kept = {'of another shape': self.reshaped, 'of other classes': self.of_classes,
                'that the teacher has not': self.absent}
        own = '; '.join(f'{len(names)} {why} ({few(names, 3, total=False)})' for why, names in kept.items() if names)
        return (f'The student starts from {len(self.taken)} weights of the teacher ({teacher}), in {", ".join(parts)}; '
                f'beside its backbone it keeps {own or "none"} of its own.')


def inheritance(student: nn.Module, teacher: nn.Module, of_classes: frozenset[str] = frozenset()) -> Inheritance:
    """What a student can inherit: each parameter and buffer out of the backbone with the teacher's name and shape.

    Args:
        student: The student; untrained will do, as for the teacher.
        teacher: The teacher's model.
        of_classes: Names of weights that are not taken, since they are of other classes.

    Raises:
        ValueError: If it can inherit no weight.
    """
    ours, theirs = ({name: tuple(value.shape) for name, value in model.state_dict().items()
                     if not name.startswith(OWN)} for model in (student, teacher))
    equal = [name for name, shape in ours.items() if theirs.get(name) == shape]
    reshaped = [f'{name} {shape}, {theirs[name]} of the teacher' for name, shape in ours.items()
                if name in theirs and theirs[name] != shape]
    found = Inheritance([name for name in equal if name not in of_classes], reshaped,
                        [name for name in equal if name in of_classes], [name for name in ours if name not in theirs])
    learned = {name for name, _ in student.named_parameters()}
    if not learned & set(found.taken):
        why = few([*reshaped, *found.of_classes, *found.absent], 3, total=False) or 'it has none'
        raise ValueError(f'`inherit` needs weights of neck or head with one name and shape in both models, and the '
                         f'{type(student).__name__} shares none with the {type(teacher).__name__} ({why}); {OUT}.')
    return found


def check_inheriting(student: nn.Module, teachers: Mapping[str | None, FrozenTeacher]) -> None:
    """Refuse what nothing can be inherited from.

    Raises:
        ValueError: If there are several teachers, it is cached, BatchNorm of it is folded, or no weight agrees.
    """
    if len(teachers) > 1:
        raise ValueError(f'`inherit` takes the weights of one teacher, and there are {len(teachers)}; {OUT}.')
    teacher, = teachers.values()
    if isinstance(teacher, CachedTeacher):
        raise ValueError(f'`inherit` takes weights, and a cache keeps what the teacher says without them; {OUT}, or '
                         'give a live teacher.')
    if teacher.speed.fuse:
        raise ValueError("`inherit` takes weights as they were trained, and `teacher.fuse=True` changes the neck's; "
                         f'leave `teacher.fuse` out, or {OUT}.')
    inheritance(student, teacher.model)


def layers_of_classes(teacher: FrozenTeacher) -> frozenset[str]:
    """Names of the weights whose shape follows the number of classes.

    Seen by building the model with one class more; all but the neck's where its config has no number of classes.
    """
    more = build_model(Config({**teacher.config.to_dict(), 'model': _with_one_more(teacher.config.model.to_dict())}))
    shapes = {name: value.shape for name, value in more.state_dict().items()}
    names = teacher.model.state_dict()
    found = frozenset(name for name, value in names.items() if shapes.get(name) != value.shape)
    return found or frozenset(name for name in names if not name.startswith('neck.'))


def _with_one_more(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: value + 1 if re.fullmatch(r'num_(\w+_)?classes', str(key)) and type(value) is int
                else _with_one_more(value) for key, value in part.items()}
    return type(part)(map(_with_one_more, part)) if isinstance(part, list | tuple) else part


class Inheriting(Hook):
    """Copies what the student inherits, before its first step; a resumed run goes on from its own weights.

    Every rank copies the same weights of the teacher.

    Args:
        teaching: Knows the teacher and the names of the student's classes.
    """

    def __init__(self, teaching: Teaching) -> None:
        self.teaching = teaching
        self.is_resumed = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self.is_resumed = True
            return
        plan = self._plan(runner)
        if plan is None:
            return
        student = _student(runner)
        given = own_names(weights_of(checkpoint, str(runner._load_from), 'load_from'), student)
        shapes = {name: value.shape for name, value in student.state_dict().items()}
        both = [name for name in plan.taken if isinstance(given.get(name), Tensor)
                and given[name].shape == shapes[name]]
        if both:
            raise ValueError(f'`load_from` ({runner._load_from}) and `inherit` both give {len(both)} weights of neck '
                             f'and head ({few(both, 3, total=False)}); leave `load_from` out, or {OUT}.')

    def before_train(self, runner: Runner) -> None:
        plan = None if self.is_resumed else self._plan(runner)
        if plan is None:
            return
        teacher, student = self._teacher(), _student(runner).state_dict()
        theirs = teacher.model.state_dict()
        with torch.no_grad():
            for name in plan.taken:
                student[name].copy_(theirs[name])
        print_log(plan.told(teacher.name), logger='current')

    def _plan(self, runner: Runner) -> Inheritance | None:
        if self.teaching.distillation is None or not self.teaching.distillation.inherits:
            return None
        teacher, names = self._teacher(), self.teaching.names.of_objects
        same = teacher.class_map is None and (not names or not teacher.classes or tuple(names) == teacher.classes)
        return inheritance(_student(runner), teacher.model, frozenset() if same else layers_of_classes(teacher))

    def _teacher(self) -> FrozenTeacher:
        assert self.teaching.distillation is not None
        teacher, = self.teaching.distillation.teachers.values()
        return teacher


def _student(runner: Runner) -> nn.Module:
    model: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return model
