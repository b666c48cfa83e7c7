"""Start reading here: the student trains as if alone, and the teacher answers for the same rows and maps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from ckd_mmdet.aligners import features_of, levels_of
from ckd_mmdet.alignment import Alignment, bare_name, build_alignment
from ckd_mmdet.balance import balanced, gradient_ratios
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.registry import MODELS, build
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.logging import MessageHub, print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


@MODELS.register_module()
class Distiller(BaseModel):
    """A student that learns from a teacher too, and is to everybody else the student alone.

    The Distiller *wears the student's tree*: its children, parameters and buffers are the student's own, under the
    student's own names. Whatever reads a model by name (checkpoints, EMA, optimizer constructors with layer decay or
    ``paramwise_cfg``, hooks) meets the plain student. What distillation itself learns is the child ``distiller``.

    Args:
        student: Config of any detector or classifier, untouched.
        teacher: ``dict(config=..., checkpoint=..., class_map=None, check_accuracy=True)``, see
            :class:`FrozenTeacher`; or several of them by name; ``None`` trains the student alone.
        alignments: Configs by name, ``dict(aligner=..., losses=..., selector=..., teacher=...)``, see
            :func:`build_alignment`; none trains the student alone.
        data_preprocessor: The student's, where its config keeps it outside ``model``.

    Raises:
        ValueError: If a config is unfit, or teacher and student cannot be paired.
    """

    def __init__(self, student: dict, teacher: dict | None = None, alignments: dict[str, dict] | None = None,
                 data_preprocessor: dict | nn.Module | None = None) -> None:
        if data_preprocessor is not None:
            student = {'data_preprocessor': data_preprocessor, **student}
        model = ROOT_MODELS.build(student)
        super().__init__(model.data_preprocessor)
        for own in ('_modules', '_parameters', '_buffers', '_non_persistent_buffers_set'):
            self.__dict__[own] = model.__dict__[own]
        self.__dict__['student'] = model  # not a child: its children are ours already
        self.teachers: dict[str | None, FrozenTeacher] = {}
        self.has_hook = False  # DistillHook sets it
        self.measures_gradients = False  # DistillHook sets it for the steps in which they are logged
        self.can_measure = True
        parts = {name: build_alignment(name, cfg) for name, cfg in (alignments or {}).items()} if teacher else {}
        _check_views(model.data_preprocessor, parts)
        if parts:
            self.teachers = _teachers(teacher, parts)
            for one in self.teachers.values():
                one.match_preprocessing(model.data_preprocessor)
            self.distiller = nn.ModuleDict(parts)
            for alignment in parts.values():
                taught_by = self.teacher_of(alignment)
                alignment.meet(model, taught_by.model, class_map=taught_by.class_map is not None)

    @property
    def teacher(self) -> FrozenTeacher | None:
        """The teacher, of several the first; ``None`` for a student alone."""
        return next(iter(self.teachers.values()), None)

    def teacher_of(self, alignment: Alignment) -> FrozenTeacher:
        return self.teachers[alignment.teacher]

    def share(self, shared: SharedClasses, teacher: str | None = None) -> None:
        """Distil these classes only, in every alignment with this teacher; ``DistillHook`` does it for a ``class_map``.

        Args:
            shared: Classes that it has in common with the student.
            teacher: Its name, where there are several.

        Raises:
            ValueError: If no teacher has this name, or a loss is left with too few classes.
        """
        if teacher not in self.teachers:
            raise ValueError(f'`Distiller.share` needs `teacher` to be one of {list(self.teachers)}, got {teacher!r}.')
        for alignment in self.distiller.values():
            if alignment.teacher == teacher:
                alignment.share(shared)

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                mode: str = 'tensor') -> Any:
        """As the student's own ``forward``; in the mode ``'loss'`` with the distillation losses beside its own.

        Their keys are ``<alignment>.<loss>``. Beside them are logged, where rows are paired, ``<alignment>.rows``,
        ``.cosine``, ``.retrieval`` (see :func:`ckd_mmdet.functional.agreement`) and ``.teacher_accuracy``, the share
        of foreground rows whose label is the teacher's greatest score; ``.preview_..._<loss>`` of a loss with preview;
        and, at the logger's interval, ``.gradient_ratio_<loss>``, see :func:`ckd_mmdet.balance.gradient_ratios`. While
        an alignment rests its losses are 0, its rows too, and the log repeats what else was measured last.
        """
        if mode != 'loss' or not self.teachers:
            return self.student(inputs, data_samples, mode=mode)
        epoch = _epoch()
        awake = {name: alignment for name, alignment in self.distiller.items() if not alignment.rests(epoch)}

        # 1. the student trains as if alone, overheard
        with ExitStack() as listening:
            measures = self._measures(awake.values(), epoch)
            features = listening.enter_context(features_of(self.student)) if measures else None
            # resting ones too: of several views of an image, the student's own loss shall see the plain one only
            tapes = {name: listening.enter_context(alignment.aligner.listen(self.student))
                     for name, alignment in self.distiller.items()}
            losses = dict(self.student(inputs, data_samples, mode='loss'))
        task = losses.copy()

        # 2. the teacher answers for the same rows and maps
        feats = {name: self.teachers[name].extract_feat(inputs, data_samples)
                 for name in {alignment.teacher for alignment in awake.values()}}
        for name, alignment in self.distiller.items():
            if name not in awake:
                losses.update({f'{name}.{key}': zero for key, zero in alignment.resting(inputs.device).items()})
                continue
            teacher = self.teacher_of(alignment)
            aligned = alignment.align(teacher.model, feats[alignment.teacher], tapes[name], data_samples)
            teacher.check_finite(aligned.teacher)

            # 3. pure tensors from here on
            losses.update({f'{name}.{key}': value for key, value in alignment(aligned, epoch=epoch).items()})
        if features is not None:
            losses.update(self._balance(task, losses, awake, levels_of(features.calls[-1].output), epoch))
        return losses

    def _measures(self, awake: Collection[Alignment], epoch: int) -> bool:
        weights = [loss.weight for alignment in awake for loss in alignment.losses.values()]
        return self.training and bool(weights) and (self.measures_gradients and self.can_measure or any(
            weight.is_measuring and not weight.rests(epoch) for weight in weights))

    def _balance(self, task: dict[str, Any], losses: dict[str, Any], awake: Mapping[str, Alignment],
                 features: Sequence[Tensor], epoch: int) -> dict[str, Any]:
        """Measured ratios, and the losses whose weight they change."""
        parts = {(name, key): losses[f'{name}.{key}'] for name, alignment in awake.items() for key in alignment.losses}
        balances = [f'{name}.{key}' for name, key in parts if awake[name].losses[key].weight.is_measuring]
        if balances and not any(level.requires_grad for level in features):
            raise RuntimeError(f"`loss_weight='balance:...'` of {', '.join(balances)} is measured at the student's "
                               'features, and these are frozen; give a number.')
        try:
            ratios = gradient_ratios(self.student.parse_losses(task)[0], parts, features)
        except RuntimeError as error:
            if 'use_reentrant' not in str(error):
                raise
            if balances:
                raise RuntimeError(f"`loss_weight='balance:...'` of {', '.join(balances)} cannot be measured through "
                                   'reentrant activation checkpointing; give a number, or switch that off (`with_cp`, '
                                   '`num_cp`).') from error
            self.can_measure = False  # a mere log ends no run
            print_log('`gradient_ratio` is not logged: gradients cannot be measured through reentrant activation '
                      'checkpointing.', logger='current', level=logging.WARNING)
            return {}
        found: dict[str, Any] = {}
        for (name, key), value in parts.items():
            found[f'{name}.gradient_ratio_{bare_name(key)}'] = value.new_tensor(ratios[name, key])
            loss = awake[name].losses[key]
            if loss.weight.is_measuring:
                found[f'{name}.{key}'] = balanced(loss, value, ratios[name, key], epoch, f'{name}.{key}')
        return found

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # both ways into a training step pass here, train_step and MMDistributedDataParallel's
        if self.teachers and not self.has_hook:
            raise RuntimeError(
                'a `ckd_mmdet.Distiller` with a teacher needs `DistillHook` to train: it checks class names and the '
                "teacher's accuracy. Train with ckd_mmdet's tools/train.py, which adds it, or add "
                "`dict(type='ckd_mmdet.DistillHook')` to `custom_hooks`.")
        total, logged = self.student.parse_losses(losses)
        if 'loss' in losses:  # a classifier's own, which MMEngine logs in place of the sum
            logged = {**logged, 'loss': total, 'task_loss': logged['loss']}
        return total, logged

    def train(self, mode: bool = True) -> Distiller:
        self.student.train(mode)  # a detector may freeze parts in its own `train`
        self.training = mode
        return self

    def init_weights(self) -> None:
        self.student.init_weights()

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.student._load_from_state_dict(*args, **kwargs)  # detectors rename keys of older checkpoints there

    def _apply(self, fn: Any, recurse: bool = True) -> Distiller:
        super()._apply(fn, recurse)
        for teacher in self.teachers.values():
            teacher._apply(fn)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if 'student' not in self.__dict__:  # while unpickled or copied
                raise
            return getattr(self.__dict__['student'], name)


def _teachers(teacher: dict, alignments: Mapping[str, Alignment]) -> dict[str | None, FrozenTeacher]:
    """The teachers by the names that the alignments give; a single one has the name ``None``."""
    asked = {name: alignment.teacher for name, alignment in alignments.items()}
    if 'config' in teacher or not all(isinstance(part, dict) for part in teacher.values()):
        for name, wanted in asked.items():
            if wanted is not None:
                raise ValueError(f'`alignments.{name}.teacher` is {wanted!r}, but `teacher` is a single one; leave it '
                                 'out, or give `teacher` a dict of teachers by name.')
        return {None: build(FrozenTeacher, teacher, '`teacher`')}
    for name, wanted in asked.items():
        if wanted not in teacher:
            raise ValueError(f'`alignments.{name}` needs the key `teacher` with one of {sorted(teacher)}, got '
                             f'{wanted!r}.')
    idle = sorted(set(teacher) - set(asked.values()))
    if idle:
        raise ValueError(f'`teacher` has {", ".join(idle)}, which no alignment asks; name it in the `teacher` of one, '
                         'or leave it out.')
    return {name: build(FrozenTeacher, cfg, f'`teacher.{name}`') for name, cfg in teacher.items()}


def _check_views(preprocessor: nn.Module, alignments: Mapping[str, Alignment]) -> None:
    heard = any(alignment.aligner.hears_views for alignment in alignments.values())
    if getattr(preprocessor, 'views', 1) > 1 and not heard:
        raise ValueError(f'the {type(preprocessor).__name__} makes several views of an image, and a student alone '
                         'cannot tell which is the plain one; take a plain data preprocessor and pipeline, or an '
                         'alignment with an ImageAligner.')


def _epoch() -> int:
    hub = MessageHub.get_current_instance()
    return hub.get_info('epoch', 0)
