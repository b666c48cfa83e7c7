"""Whether the boxes of rows are equal on both sides, and those that the detector's own head predicts."""

from __future__ import annotations

from typing import Any, cast

import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.aligners.decoding import decoded
from ckd_mmdet.aligners.dense import answering_as_in_training
from ckd_mmdet.aligners.scorers import DenseScorer
from ckd_mmdet.rows import MapRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import RPNHead
from torch import Tensor, nn

ROWS = 500
"""Rows of a dense head, about, whose boxes are compared with those that it predicts."""
CLOSE = 1e-2
"""Pixels within which boxes are called equal: FSAF's loss raises the least distances of the student's."""


def gives_boxes(aligner: Aligner, student: nn.Module, teacher: nn.Module) -> bool:
    """Whether the boxes of both sides can be decoded."""
    try:
        aligner.check_boxes(student, teacher)
    except ValueError:
        return False
    return 'boxes' in aligner.provides


@torch.no_grad()
def unlike_boxes(answer: Answer, recorded: ModuleTap, classes: int, metas: list[dict]) -> str:
    """Compare the boxes of student and teacher, a copy of it, and those with what the teacher's head predicts.

    Args:
        answer: What the teacher was asked for.
        recorded: Its head's calls in that.
        classes: Number of its classes.
        metas: Meta information of the batch's images.

    Returns:
        What differs, in words; ``''`` where nothing does.
    """
    assert answer.boxes is not None and answer.image_ids is not None
    every = torch.arange(len(answer.student))
    labels = None if answer.labels is None else answer.labels.clamp(0, classes - 1)
    ours, theirs = (boxes.take(every, labels) for boxes in answer.boxes)
    gap = (ours - theirs).abs().max().item()
    if not gap <= CLOSE:
        return f'boxes of student and teacher differ by up to {gap:.2g} pixels'
    head = recorded.module
    if isinstance(answer.teacher, MapRows):
        predicts = cast(Any, type(head)).predict_by_feat
        if isinstance(head, RPNHead) or predicts not in [known.predict_by_feat for known in DenseScorer.decoders]:
            return ''  # which cannot be asked for the boxes of all rows
        wanted = every[::max(1, len(every) // ROWS)]
        with answering_as_in_training(head):
            predicted = decoded(head, recorded.calls[-1].output, answer.teacher, wanted, metas)
        theirs, images = theirs[wanted], answer.image_ids[wanted]
    elif hasattr(head, 'bbox_coder') and labels is not None:
        images = answer.image_ids
        predicted = _of_rois(head, recorded, answer, labels)
    else:
        return ''  # of queries there is nothing to decode
    gap = max([_farthest(theirs[images == image], predicted[images == image], meta['img_shape'])
               for image, meta in enumerate(metas)])
    return '' if gap <= CLOSE else f'its {type(head).__name__} predicts boxes that are up to {gap:.2g} pixels off'


def _of_rois(head: nn.Module, recorded: ModuleTap, answer: Answer, labels: Tensor) -> Tensor:
    """The box of each row's class."""
    assert answer.regions is not None and answer.image_ids is not None
    rois = torch.cat([answer.image_ids[:, None].to(answer.regions), answer.regions], 1)
    scores, deltas = recorded.calls[-1].output[:2]
    meta = dict(img_shape=(10**4, 10**4), scale_factor=(1, 1))  # so that the head cuts off at the upper left only
    boxes = head.predict_by_feat((rois,), (scores,), (deltas,), [meta])[0].bboxes.reshape(len(rois), -1, 4)
    return boxes[torch.arange(len(rois)), labels.clamp(max=boxes.shape[1] - 1)]


def _farthest(ours: Tensor, predicted: Tensor, size: tuple[int, int]) -> float:
    """Greatest difference of boxes ``(n, 4)``, cut off at the edge of an image of some height and width."""
    if not len(ours):
        return 0.0
    edge = ours.new_tensor([size[1], size[0], size[1], size[0]])
    return float((ours.clamp(min=0).minimum(edge) - predicted.clamp(min=0).minimum(edge)).abs().max())
