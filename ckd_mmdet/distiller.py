"""Start reading here: the student trains as if alone, and the teacher answers for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from ckd_mmdet.alignment import Alignment
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.registry import MODELS, build
from ckd_mmdet.samples import AlignedSamples
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.logging import MessageHub
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
        student: Config of any detector, untouched.
        teacher: ``dict(config=..., checkpoint=..., class_map=None, check_accuracy=True)``, see
            :class:`FrozenTeacher`; ``None`` trains the student alone.
        alignments: Configs by name, ``dict(aligner=..., losses=..., selector=...)``, see :class:`Alignment`; none
            trains the student alone.
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
        self.teacher: FrozenTeacher | None = None
        self.has_hook = False  # DistillHook sets it
        if teacher and alignments:
            self.teacher = build(FrozenTeacher, teacher, '`teacher`')
            self.teacher.wear_glasses_of(model.data_preprocessor)
            self.distiller = nn.ModuleDict({name: _alignment(name, cfg) for name, cfg in alignments.items()})
            for alignment in self.distiller.values():
                alignment.meet(model, self.teacher.model, class_map=self.teacher.class_map is not None)

    def share(self, shared: SharedClasses) -> None:
        """Distil these classes only, in every alignment; for a ``teacher.class_map``, ``DistillHook`` does it."""
        for alignment in self.distiller.values():
            alignment.share(shared)

    def forward(self, inputs: Tensor, data_samples: Sequence[BaseDataElement] | None = None,
                mode: str = 'tensor') -> Any:
        """As the student's own ``forward``; in the mode ``'loss'`` with the distillation losses beside its own.

        Their keys are ``<alignment>.<loss>``. Beside them ``<alignment>.rows``, ``.cosine``, ``.retrieval`` (see
        :func:`ckd_mmdet.functional.agreement`) and ``.teacher_accuracy``, the share of foreground rows whose label is
        the teacher's greatest score, are logged.
        """
        if mode != 'loss' or self.teacher is None:
            return self.student(inputs, data_samples, mode=mode)

        # 1. the student trains as if alone, overheard
        with ExitStack() as listening:
            tapes = {name: listening.enter_context(alignment.aligner.listen(self.student))
                     for name, alignment in self.distiller.items()}
            losses = dict(self.student(inputs, data_samples, mode='loss'))

        # 2. the teacher answers for the same rows
        feats = self.teacher.extract_feat(inputs, data_samples)
        for name, alignment in self.distiller.items():
            aligned = alignment.choose(alignment.aligner.ask(self.teacher.model, feats, tapes[name], data_samples))
            self._check_finite(aligned)

            # 3. pure tensors from here on
            for key, value in alignment(aligned, epoch=_epoch()).items():
                losses[f'{name}.{key}'] = value
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        # both ways into a training step pass here, train_step and MMDistributedDataParallel's
        if self.teacher is not None and not self.has_hook:
            raise RuntimeError(
                'a `ckd_mmdet.Distiller` with a teacher needs `DistillHook` to train: it checks class names and the '
                "teacher's accuracy. Train with ckd_mmdet's tools/train.py, which adds it, or add "
                "`dict(type='ckd_mmdet.DistillHook')` to `custom_hooks`.")
        return self.student.parse_losses(losses)

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
        if self.teacher is not None:
            self.teacher._apply(fn)
        return self

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if 'student' not in self.__dict__:  # while unpickled or copied
                raise
            return getattr(self.__dict__['student'], name)

    def _check_finite(self, aligned: AlignedSamples) -> None:
        finite = aligned.teacher.logits.isfinite().all(1)
        if not finite.all():
            raise RuntimeError(
                f'the teacher ({self.teacher.name}, {self.teacher.checkpoint}) gave NaN or infinite logits on '
                f'{int((~finite).sum())} of {len(finite)} rows; its weights or its inputs are broken, or half '
                'precision is too narrow for it: train without `--amp`, or check the checkpoint.')


def _alignment(name: str, cfg: dict) -> Alignment:
    if 'loss' in name or '.' in name:
        raise ValueError(f'`alignments` needs names without `loss` and without a dot, or its metrics would be added to '
                         f'the loss; got {name!r}.')
    unknown = set(cfg) - {'aligner', 'losses', 'selector'}
    if unknown or not {'aligner', 'losses'} <= set(cfg):
        raise ValueError(f'`alignments.{name}` needs the keys `aligner` and `losses`, and may have `selector`; '
                         f'got {sorted(cfg)}.')
    return Alignment(**cfg, name=name)


def _epoch() -> int:
    hub = MessageHub.get_current_instance()
    return hub.get_info('epoch', 0)
