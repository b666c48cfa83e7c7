"""Start reading here: the student trains as if alone, and the teacher answers for the same rows and maps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from ckd_mmdet.aligners import DenseAligner
from ckd_mmdet.alignment import Alignment, build_alignment
from ckd_mmdet.cached.teacher import CachedTeacher, asking_cache, is_cached
from ckd_mmdet.distillation import Distillation
from ckd_mmdet.inheritance import check_inheriting
from ckd_mmdet.losses import KDLoss
from ckd_mmdet.pairing import check_counts
from ckd_mmdet.registry import MODELS, build
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

PARTS = 'ckd_mmdet'
"""Name of what distillation learns, among the student's modules."""


@MODELS.register_module(name='Distiller')  # type: ignore[untyped-decorator]  # MMEngine's
def distil(student: dict, teacher: dict | None = None, alignments: Mapping[str, dict] | None = None,
           data_preprocessor: dict | nn.Module | None = None, inherit: bool = False) -> BaseModel:
    """Build a student that learns from a teacher too.

    What is built *is* the student: a ``FasterRCNN`` stays one, its class becomes ``Distilled[FasterRCNN]``, see
    :class:`Distilled`. Without a teacher or alignments it is the plain student.

    Args:
        student: Config of any detector or classifier, untouched.
        teacher: ``dict(config=..., checkpoint=..., class_map=None, check_accuracy=True)``, see
            :class:`FrozenTeacher`; ``dict(cache=...)``, see :class:`ckd_mmdet.cached.teacher.CachedTeacher`; or several
            of them by name; ``None`` trains the student alone.
        alignments: Configs by name, ``dict(aligner=..., losses=..., selector=..., teacher=...)``, see
            :class:`ckd_mmdet.alignment.Alignment`; none trains the student alone.
        data_preprocessor: The student's, where its config keeps it outside ``model``.
        inherit: Whether the student starts from the teacher's neck and head where names and shapes agree, see
            :mod:`ckd_mmdet.inheritance`; without alignments it then trains alone.

    Raises:
        ValueError: If a config is unfit, or teacher and student cannot be paired.
    """
    for name, given in (('student', student), ('teacher', teacher), ('alignments', alignments)):
        if not isinstance(given, Mapping) and (name == 'student' or given is not None):
            raise ValueError(f'`Distiller` needs a dict as `{name}`, got {given!r}.')
    if inherit and teacher is None:
        raise ValueError('`Distiller` needs a `teacher` to `inherit` from, got None; give one, or leave `inherit` out.')
    if teacher is not None and not teacher:
        raise ValueError('`Distiller` needs a `teacher` with a `config`, or `None` to train the student alone, got an '
                         'empty dict.')
    if str(student.get('type')).rpartition('.')[2] == 'Distiller':
        raise ValueError("`Distiller` needs the config of a plain model as `student`, and this is a Distiller's; give "
                         'its own `student`.')
    if data_preprocessor is not None:
        student = {'data_preprocessor': data_preprocessor, **student}
    model = ROOT_MODELS.build(student)
    parts = build_alignments(alignments or {}, teacher) if teacher else {}
    _check_views(model.data_preprocessor, parts)
    if teacher is None or not parts and not inherit:
        return model
    _warn_of_crossed_and_plain(parts)
    teachers = build_teachers(teacher, parts)
    if inherit:
        check_inheriting(model, teachers)
    for one in teachers.values():
        one.match_preprocessing(model.data_preprocessor)
    for alignment in parts.values():
        taught_by = teachers[alignment.teacher]
        scorings = alignment.check(model, taught_by.model)
        if scorings is not None and taught_by.class_map is None:
            check_counts(f'`alignments.{alignment.name}`', scorings)
        alignment.build_parts(model, taught_by.model)
    return become_distilled(model, Distillation(teachers, parts, inherit))


class Distilled(BaseModel):
    """A student that is taught: the student itself, of which only ``mode='loss'`` is another.

    Its modules, parameters and buffers are its own, under their own names. What distillation learns is one more module,
    of numbered parameters, which no ``state_dict`` has: checkpoints, EMA's too, fit the plain student, and keep what
    was learned under a key of their own (``DistillHook``). The teacher is no module.
    """

    distillation: Distillation

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                mode: str = 'tensor') -> Any:
        """As the student's own ``forward``; with ``mode='loss'`` the distillation losses are beside its own.

        See :meth:`ckd_mmdet.distillation.Distillation.step` for what they are called.
        """
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode=mode)
        return self.distillation.step(self, self.forward_alone, inputs, data_samples)

    def forward_alone(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                      mode: str = 'tensor') -> Any:
        """The student's own ``forward``, in every mode."""
        return super().forward(inputs, data_samples, mode=mode)

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total, logged = super().parse_losses(losses)
        if 'loss' in losses:  # a classifier's own, which MMEngine logs in place of the sum
            logged = {**logged, 'loss': total, 'task_loss': logged['loss']}
        return total, logged

    def init_weights(self) -> None:
        # what distillation learns is initialised when it is built: here, a top-level `init_cfg` would do it once more
        parts = self._modules.pop(PARTS)
        try:
            super().init_weights()
        finally:
            self._modules[PARTS] = parts

    def _apply(self, fn: Any, recurse: bool = True) -> Distilled:
        super()._apply(fn, recurse)
        for teacher in self.distillation.teachers.values():
            teacher._apply(fn)
        return self

    def __reduce_ex__(self, protocol: Any) -> tuple:
        return _blank, (type(self).__mro__[2],), self.__dict__


class LearnedParts(nn.ModuleList):
    """What the losses learn: known to optimizers, DDP and ``.to(...)``, and no part of a ``state_dict``.

    The modules have numbers and no names, as a user's ``paramwise_cfg.custom_keys`` match any part of a name.
    """

    def __init__(self, alignments: Mapping[str, Alignment]) -> None:
        super().__init__(loss.parts for alignment in alignments.values() for loss in alignment.losses.values())
        self._register_state_dict_hook(_leave_out)  # type: ignore[no-untyped-call]  # torch's, as the next
        self.register_load_state_dict_post_hook(_do_not_miss)  # type: ignore[no-untyped-call]


def become_distilled(model: BaseModel, distillation: Distillation) -> BaseModel:
    """Give a student its distillation; the model stays the same object."""
    model.add_module(PARTS, LearnedParts(distillation.alignments))
    kind: type = type(model)
    model.__class__ = _distilled(kind)
    model.distillation = distillation
    return model


@cache
def _distilled(kind: type) -> type[Distilled]:
    return type(f'Distilled[{kind.__name__}]', (Distilled, kind), dict(__module__=__name__, __doc__=Distilled.__doc__))


def _blank(kind: type) -> Distilled:
    """An empty object for ``pickle`` and ``deepcopy``, which look a class up by its name and fill it afterwards."""
    distilled = _distilled(kind)
    return distilled.__new__(distilled)


def _leave_out(parts: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    for key in [key for key in state_dict if key.startswith(prefix)]:
        del state_dict[key]


def _do_not_miss(parts: nn.Module, incompatible: Any) -> None:
    missing = incompatible.missing_keys
    missing[:] = [key for key in missing if f'{PARTS}.' not in key]


def build_alignments(alignments: Mapping[str, dict], teacher: Mapping) -> dict[str, Alignment]:
    """The alignments by name; those whose teacher answers from files ask these."""
    built = {}
    for name, cfg in alignments.items():
        wanted = cfg.get('teacher') if isinstance(cfg, Mapping) else None
        cached = is_cached(teacher) or wanted is not None and is_cached(teacher.get(wanted))
        built[name] = build_alignment(name, asking_cache(name, cfg) if cached and isinstance(cfg, Mapping) else cfg)
    return built


def build_teachers(teacher: Mapping, alignments: Mapping[str, Alignment]) -> dict[str | None, FrozenTeacher]:
    """The teachers by the names that the alignments give; a single one has the name ``None``."""
    asked = {name: alignment.teacher for name, alignment in alignments.items()}
    if 'config' in teacher or is_cached(teacher) or not all(isinstance(part, Mapping) for part in teacher.values()):
        for name, wanted in asked.items():
            if wanted is not None:
                raise ValueError(f'`alignments.{name}.teacher` is {wanted!r}, but `teacher` is a single one; leave it '
                                 'out, or give `teacher` a dict of teachers by name.')
        return {None: _build_teacher(teacher, '`teacher`')}
    for name, wanted in asked.items():
        if wanted not in teacher:
            raise ValueError(f'`alignments.{name}` needs the key `teacher` with one of {sorted(teacher)}, got '
                             f'{wanted!r}.')
    idle = sorted(set(teacher) - set(asked.values()))
    if idle:
        raise ValueError(f'`teacher` has {", ".join(idle)}, which no alignment asks; name it in the `teacher` of one, '
                         'or leave it out.')
    return {name: _build_teacher(cfg, f'`teacher.{name}`') for name, cfg in teacher.items()}


def _build_teacher(cfg: Mapping, where: str) -> FrozenTeacher:
    teacher: FrozenTeacher = build(CachedTeacher if is_cached(cfg) else FrozenTeacher, cfg, where)
    return teacher


def _warn_of_crossed_and_plain(alignments: Mapping[str, Alignment]) -> None:
    dense = {name: part.aligner for name, part in alignments.items() if isinstance(part.aligner, DenseAligner)}
    for name, aligner in dense.items():
        beside = [other for other, crossing in dense.items()
                  if crossing.through is not None and crossing.head == aligner.head]
        compares = any(isinstance(loss, KDLoss) for loss in alignments[name].losses.values())
        if beside and compares and aligner.through is None:
            print_log(f'`alignments.{name}` compares class scores of the head that `alignments.{beside[0]}` crosses; '
                      'the paper of CrossKD (arXiv 2306.11369) finds both together worse than crossed heads alone.',
                      logger='current', level=logging.WARNING)


def _check_views(preprocessor: nn.Module, alignments: Mapping[str, Alignment]) -> None:
    told_apart = any(alignment.aligner.tells_views_apart for alignment in alignments.values())
    if getattr(preprocessor, 'views', 1) > 1 and not told_apart:
        raise ValueError(f'the {type(preprocessor).__name__} makes several views of an image, and a student alone '
                         'cannot tell which is the plain one; take a plain data preprocessor and pipeline, or an '
                         'alignment with an ImageAligner.')
