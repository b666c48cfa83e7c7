from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedSamples, Candidates, Side
from ckd_mmdet.selectors import Selector
from ckd_mmdet.taps import ModuleTap
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .base import Aligner


@dataclass(frozen=True)
class RoITape:
    rois: ModuleTap
    scores: ModuleTap
    targets: ModuleTap
    first_scores: ModuleTap
    """Of the first stage; the same as ``scores`` in a head without stages."""
    num_classes: int


@TASK_UTILS.register_module()
class RoIAligner(Aligner):
    """Pairs RoI logits: the teacher classifies the student's own sampled proposals, from its own features.

    For the box branch of Faster R-CNN, Mask R-CNN and each stage of Cascade R-CNN. A row is a sampled proposal of the
    student; its logits are ``(num_classes + 1)`` scores, background last. The student's head runs once.

    Args:
        stage: Stage of a head that has several, from 0; ``None`` for a head that has one. Where only one of the two
            models has stages, it counts for that one.
    """

    provides = frozenset({'logits', 'labels', 'image_ids'})

    def __init__(self, stage: int | None = None) -> None:
        self.stage = stage

    def check(self, student: nn.Module, teacher: nn.Module) -> None:
        heads = {'student': self._bbox_head(student, 'student'), 'teacher': self._bbox_head(teacher, 'teacher')}
        staged = [model for model in (student, teacher) if isinstance(model.roi_head.bbox_head, nn.ModuleList)]
        if self.stage is not None and not staged:
            raise ValueError(f'`RoIAligner` got `stage={self.stage}`, but neither model has a RoI head with stages; '
                             'leave `stage` out.')
        classes = {side: head.num_classes for side, head in heads.items()}
        if classes['student'] != classes['teacher']:
            raise ValueError(f'`RoIAligner` needs as many classes in the teacher ({classes["teacher"]}) as in the '
                             f'student ({classes["student"]}); give a teacher trained on the same categories.')
        widths = {side: head.fc_cls.weight.shape[0] for side, head in heads.items()}
        if widths['student'] != widths['teacher']:
            raise ValueError(f'`RoIAligner` needs as many logits a RoI in the teacher ({widths["teacher"]}) as in the '
                             f'student ({widths["student"]}); one of the two heads scores its classes in another way.')

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[RoITape]:
        head, roi_head = self._bbox_head(student, 'student'), student.roi_head
        extractor, first_head = roi_head.bbox_roi_extractor, roi_head.bbox_head
        if isinstance(first_head, nn.ModuleList):
            extractor, first_head = extractor[self.stage], first_head[0]
        with ModuleTap(extractor, 'roi_head.bbox_roi_extractor') as rois, \
                ModuleTap(head, 'roi_head.bbox_head') as scores, \
                ModuleTap(first_head, 'roi_head.bbox_head') as first_scores, \
                ModuleTap(head.loss_cls, 'roi_head.bbox_head.loss_cls') as targets:
            yield RoITape(rois, scores, targets, first_scores, head.num_classes)

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: RoITape,
            data_samples: Sequence[BaseDataElement], select: Selector) -> AlignedSamples:
        rois, student_logits = _rows(tape)
        roi_head = teacher.roi_head
        with torch.no_grad():  # around the teacher only: the student's rows keep their graph
            if isinstance(roi_head.bbox_head, nn.ModuleList):
                teacher_logits = roi_head._bbox_forward(self.stage, feats, rois)['cls_score']
            else:
                teacher_logits = roi_head._bbox_forward(feats, rois)['cls_score']
        labels, image_ids = _labels(tape, student_logits), rois[:, 0].long()
        rows = select(Candidates(teacher_logits, tape.num_classes, labels, image_ids))
        return AlignedSamples(Side(student_logits[rows]), Side(teacher_logits[rows]), tape.num_classes,
                              labels[rows], image_ids[rows])

    def _bbox_head(self, model: nn.Module, side: str) -> nn.Module:
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
        if head is None:
            raise ValueError(f'`RoIAligner` needs a {side} with `roi_head.bbox_head`, got a {type(model).__name__}; '
                             'it serves two-stage detectors such as Faster, Mask and Cascade R-CNN.')
        if isinstance(head, nn.ModuleList):
            if self.stage is None or not 0 <= self.stage < len(head):
                raise ValueError(f'`RoIAligner` needs a `stage` from 0 to {len(head) - 1} for the stages of the '
                                 f"{side}'s {type(model.roi_head).__name__}, got {self.stage}.")
            head = head[self.stage]
        if not hasattr(head, 'fc_cls'):
            raise ValueError(f'`RoIAligner` needs a {side} whose RoI head scores classes in a layer `fc_cls`; '
                             f'{type(head).__name__} has none.')
        return head


def _rows(tape: RoITape) -> tuple[Tensor, Tensor]:
    """The student's RoIs, shape ``(n, 5)``, the image in the first column, and their logits, shape ``(n, c)``."""
    first_logits = tape.first_scores.only().output[0]
    if not len(first_logits):  # mmdet's cascades leave out the later stages then
        return first_logits.new_zeros(0, 5), first_logits
    return tape.rois.only().arg(1, 'rois'), tape.scores.only().output[0]


def _labels(tape: RoITape, logits: Tensor) -> Tensor:
    """Labels that the student's own loss used for the rows, shape ``(n,)``; -1 where its weight is zero."""
    if not len(logits):  # mmdet's BBoxHead.loss skips loss_cls without proposals
        return torch.zeros(0, dtype=torch.long, device=logits.device)
    targets = tape.targets.only()
    if targets.arg(0, 'cls_score') is not logits:
        raise RuntimeError('expected `roi_head.bbox_head.loss_cls` to be called with the rows that '
                           '`roi_head.bbox_head` gave, saw another tensor: its labels cannot be trusted')
    labels = targets.arg(1, 'label')
    if labels.shape != logits.shape[:1]:
        raise RuntimeError('expected `roi_head.bbox_head.loss_cls` to be called with one label a row, '
                           f'shape ({len(logits)},), saw {tuple(labels.shape)}')
    return labels.masked_fill(targets.arg(2, 'weight') <= 0, -1)
