"""The variants: functions of the same signature, from a batch to losses, and the teacher's speed.

Everything else of a step (preprocessing, backward, optimizer) is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner, DenseAligner
from ckd_mmdet.rows import SOFTMAX, TableRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

Losses = dict[str, Tensor]


def alone(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The student's own training."""
    return getattr(student, 'forward_alone', student)(inputs, data_samples, mode='loss')


def distilled(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The distilled training."""
    return student(inputs, data_samples, mode='loss')


def floor(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The student's training, and the teacher's class scores for the same rows, unused: less cannot be paid."""
    aligner = aligner_of(student)
    if isinstance(aligner, DenseAligner):
        losses = alone(student, inputs, data_samples)
        with torch.no_grad():
            head = teacher_of(student).model.get_submodule(aligner.head)
            head(teacher_of(student).extract_feat(inputs, data_samples))
        return losses
    with ModuleTap(student.roi_head.bbox_roi_extractor, 'bbox_roi_extractor') as extractor:
        losses = alone(student, inputs, data_samples)
    _teacher_logits(student, inputs, data_samples, extractor.only().arg(1, 'rois'))
    return losses


def released_order(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """As CKD was released: the student's head scores its sampled proposals a second time, for the same losses.

    RoIs are pooled from the student's features and pass its head twice, both times with gradient.
    """
    head = student.roi_head
    with ModuleTap(head.bbox_roi_extractor, 'bbox_roi_extractor') as extractor, \
            ModuleTap(head.bbox_head.loss_cls, 'loss_cls') as targets:
        losses = dict(alone(student, inputs, data_samples))
    feats, rois = extractor.only().arg(0, 'feats'), extractor.only().arg(1, 'rois')
    ours = head._bbox_forward(feats, rois)['cls_score']
    theirs = _teacher_logits(student, inputs, data_samples, rois)
    answer = Answer(TableRows(ours, SOFTMAX), TableRows(theirs, SOFTMAX), targets.only().arg(1, 'label'),
                    rois[:, 0].long())
    for name, pairing in student.distillation.pairings.items():
        aligned = pairing.choose(answer)
        losses.update({f'{name}.{key}': loss for key, loss in pairing.alignment.compare(aligned, epoch=0).items()})
    return losses


@torch.no_grad()
def _teacher_logits(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement],
                    rois: Tensor) -> Tensor:
    feats = teacher_of(student).extract_feat(inputs, data_samples)
    return teacher_of(student).model.roi_head._bbox_forward(feats, rois)['cls_score']


def teacher_of(student: nn.Module) -> FrozenTeacher:
    return next(iter(student.distillation.teachers.values()))


def aligner_of(student: nn.Module) -> Aligner:
    return next(iter(student.distillation.alignments.values())).aligner


@dataclass(frozen=True)
class Variant:
    """A way to take a training step."""

    losses: Callable[..., Losses]
    speed: Mapping[str, Any] = field(default_factory=dict)
    """The teacher's, see :class:`ckd_mmdet.speed.TeacherSpeed`."""
    needs_teacher: bool = True
    cached: bool = False
    """Whether the teacher's answers are read from files; it is there to write them, before the first step."""


ALL_AT_ONCE = dict(precision='bf16', channels_last=True, fuse=True)
VARIANTS = dict(
    alone=Variant(alone, needs_teacher=False), live=Variant(distilled),
    bf16=Variant(distilled, dict(precision='bf16')), channels_last=Variant(distilled, dict(channels_last=True)),
    fused=Variant(distilled, dict(fuse=True)), compiled=Variant(distilled, dict(compile=True)),
    fast=Variant(distilled, ALL_AT_ONCE), floor=Variant(floor), cached=Variant(distilled, cached=True),
    released_order=Variant(released_order))
"""By name; ``live`` is the distilled training as it is by default."""
BY_DEFAULT = ('alone', 'live', 'floor', 'released_order')
