"""Whether a row's confidence is the score that the detector itself gives it when it predicts."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import torch
from ckd_mmdet.aligners import Aligner, DenseAligner, QueryAligner, RoIAligner
from ckd_mmdet.aligners.dense import answering_as_in_training
from ckd_mmdet.rows import MapRows, Rows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import GuidedAnchorHead, PAAHead, RPNHead
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, BaseModule
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

EVERYTHING = 10**9
KEEP_ALL = ConfigDict(score_thr=-1, conf_thr=-1, min_bbox_size=-1, nms_pre=EVERYTHING, max_per_img=EVERYTHING,
                      nms=dict(type='nms', iou_threshold=2), iou_thr=2, top_k=EVERYTHING)  # no overlap is 2
"""A ``test_cfg`` that leaves no box out."""
RELATIVE = 1e-4
"""Scores are called equal within this part of them."""


class Heads(ExitStack):
    """Hears the heads that score the rows of aligners while a teacher is asked."""

    def __init__(self, teacher: nn.Module, aligners: Sequence[Aligner]) -> None:
        super().__init__()
        self.taps = [self.enter_context(ModuleTap(scoring_head(teacher, aligner), 'a head')) for aligner in aligners]


def scoring_head(model: BaseModel, aligner: Aligner) -> nn.Module:
    """The module whose scores an aligner's rows are."""
    if isinstance(aligner, DenseAligner):
        return model.get_submodule(aligner.head)
    if isinstance(aligner, QueryAligner):
        return model.bbox_head
    head = model.roi_head.bbox_head
    if not isinstance(head, nn.ModuleList):
        return head
    assert isinstance(aligner, RoIAligner)
    return head[aligner.stage]


@torch.no_grad()
def unlike_predict(answer: Answer, recorded: ModuleTap, samples: Sequence[BaseDataElement]) -> str:
    """Compare the confidence of a teacher's rows with the scores that its head predicts without NMS.

    Args:
        answer: What it was asked for.
        recorded: Its head's calls in that.
        samples: The batch.

    Returns:
        What differs, in words; ``''`` where nothing does.
    """
    metas, rows = [sample.metainfo for sample in samples], answer.teacher
    if not len(rows):
        return 'there are no rows'
    if isinstance(rows, MapRows):
        found = _dense(recorded.module, recorded.calls[-1].args[0], metas)
    elif hasattr(recorded.module, 'fc_cls') and hasattr(recorded.module, 'bbox_coder'):
        found = _rois(recorded.module, recorded.calls[-1].output, answer.image_ids, metas)
    else:
        return _queries(recorded, answer, metas)
    for ours, theirs in _pairs(rows, answer.image_ids, found, recorded.module.num_classes):
        if len(ours) != len(theirs):
            return f'{len(ours)} rows have a confidence, and its head predicts {len(theirs)} scores'
        if not torch.allclose(ours.sort().values, theirs.sort().values, rtol=RELATIVE, atol=0):
            return f'confidences of {len(ours)} rows are not what its {type(recorded.module).__name__} predicts'
    return ''


def _dense(head: BaseModule, feats: Sequence[Tensor], metas: list[dict]) -> list[InstanceData]:
    head = copy.copy(head)
    if not hasattr(head, 'loss_cls'):  # SSD has none, and BaseDenseHead looks at it
        head.loss_cls = None
    if isinstance(head, PAAHead):
        head.with_score_voting = False  # changes boxes only, and takes long
    options = dict(batch_img_metas=metas, cfg=KEEP_ALL, rescale=False)
    takes = inspect.signature(head.predict_by_feat).parameters
    if 'with_nms' in takes and not isinstance(head, PAAHead | RPNHead):  # these cannot do without
        options['with_nms'] = False
    if isinstance(head, GuidedAnchorHead):  # at rest it leaves places out
        with answering_as_in_training(head):
            return head.predict_by_feat(*head(feats), **options)
    return head.predict_by_feat(*head(feats), **options)


def _rois(head: nn.Module, output: tuple, images: Tensor, metas: list[dict]) -> list[InstanceData]:
    scores, boxes = output[:2]
    here = [images == image for image in range(len(metas))]
    rois = torch.rand(len(images), 2, 2, device=scores.device).mul(100).sort(1).values.flatten(1)  # any boxes
    rois = torch.cat([images[:, None], rois], 1)
    of_images = [tuple(part[one] for part in boxes) if isinstance(boxes, tuple) else
                 None if boxes is None else boxes[one] for one in here]
    return head.predict_by_feat([rois[one] for one in here], [scores[one] for one in here], of_images,
                                batch_img_metas=metas, rcnn_test_cfg=KEEP_ALL)


def _queries(recorded: ModuleTap, answer: Answer, metas: list[dict]) -> str:
    """The rows are some queries: their confidences must be among the predicted scores."""
    head: BaseModule = copy.copy(recorded.module)
    sigmoid = head.loss_cls.use_sigmoid
    head.test_cfg = _Every(head.num_classes if sigmoid else 1)
    found = head.predict_by_feat(*recorded.calls[-1].output[:2], batch_img_metas=metas, rescale=False)
    for ours, theirs in _pairs(answer.teacher, answer.image_ids, found, head.num_classes, sigmoid):
        if not torch.isclose(ours[:, None], theirs, rtol=RELATIVE, atol=0).any(1).all():
            return f'confidences are not among those that its {type(head).__name__} predicts'
    return ''


class _Every(dict):
    """A ``test_cfg`` for as many scores as there are; DETR asks with the number of its queries as default."""

    def __init__(self, a_query: int) -> None:
        self.a_query = a_query

    def get(self, key: str, default: int) -> int:  # type: ignore[override]
        return self.a_query * default


def _pairs(rows: Rows, images: Tensor, found: list[InstanceData], classes: int,
           each_class: bool | None = None) -> Iterator[tuple[Tensor, Tensor]]:
    """Confidences and predicted scores: of each image and class, or of each image where a row's best class counts."""
    for image, result in enumerate(found):
        here = images == image
        if each_class or each_class is None and len(result) > here.sum():
            for number in range(classes):
                yield rows.confidence([number])[here], result.scores[result.labels == number]
        else:
            yield rows.confidence(range(classes))[here], result.scores
