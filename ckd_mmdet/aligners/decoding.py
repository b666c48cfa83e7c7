"""Boxes that a dense head gives to some of its rows, as the head itself decodes them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from ckd_mmdet.rows import MapRows
from mmdet.models.dense_heads import (
    ATSSHead,
    AutoAssignHead,
    CenterNetUpdateHead,
    CondInstBboxHead,
    FCOSHead,
    PAAHead,
    RepPointsHead,
    RTMDetHead,
    RTMDetInsHead,
    VFNetHead,
    YOLOV3Head,
)
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor, nn

NO_SCORE, SURE = -30.0, 30.0
"""Logits whose probabilities are 0 and 1 in float32, nearly."""
BOXES_OF = {PAAHead: ATSSHead,  # lets the boxes vote, and cannot do otherwise
            RTMDetInsHead: RTMDetHead, CondInstBboxHead: FCOSHead}  # make masks too
"""Heads with a `predict_by_feat` of their own, and those whose boxes theirs are before that."""
LOWEST_WANTED = -5.0
"""Logit of the last row whose box is wanted; the rows before it have greater ones, up to 0."""


@torch.no_grad()
def decoded(head: nn.Module, output: Sequence, rows: MapRows, wanted: Tensor, metas: Sequence[dict]) -> Tensor:
    """Boxes that a dense head gives to some of its rows, decoded by the head itself.

    The head predicts from class maps of one class, in which the wanted rows, and no others, have scores: falling ones,
    by which each box is known again.

    Args:
        head: The head, in the mode in which it gave ``output``.
        output: What its ``forward`` gave.
        rows: Its rows.
        wanted: Indices of rows, shape ``(m,)``, ascending.
        metas: Meta information of the images.

    Returns:
        Corners in pixels of the input, shape ``(m, 4)``.

    Raises:
        RuntimeError: If the head gives another number of boxes.
    """
    scores = torch.full((len(rows),), NO_SCORE, device=wanted.device)
    scores[wanted] = torch.linspace(0, LOWEST_WANTED, len(wanted), device=wanted.device)
    if rows.ranking.activated:
        scores = scores.sigmoid()
    maps = [part.reshape(len(level), *level.shape[3:], -1).permute(0, 3, 1, 2)
            for part, level in zip(scores.split(rows.lengths), rows.maps, strict=True)]
    cfg = ConfigDict(score_thr=torch.tensor(LOWEST_WANTED).sigmoid().item() / 2, conf_thr=-1, nms_pre=len(rows),
                     min_bbox_size=-1)
    results = _with_one_class(head).predict_by_feat(*_box_maps(head, output, maps), batch_img_metas=metas, cfg=cfg,
                                                    rescale=False, with_nms=False)
    boxes = torch.zeros(len(wanted), 4, device=wanted.device)
    for image, result in enumerate(results):
        here = rows.image_ids()[wanted] == image
        if len(result) != here.sum():
            raise RuntimeError(f'expected {type(head).__name__}.predict_by_feat to decode {int(here.sum())} boxes of '
                               f'an image, saw {len(result)}')
        boxes[here] = get_box_tensor(result.bboxes)[result.scores.argsort(descending=True)].float()
    return boxes


def _with_one_class(head: BaseModule) -> BaseModule:
    """A head with the same modules that believes to score one class by a sigmoid."""
    head = copy.copy(head)
    head.num_classes = head.cls_out_channels = 1
    head.use_sigmoid_cls = True
    if not hasattr(head, 'loss_cls'):  # SSD has none, and BaseDenseHead looks at it
        head.loss_cls = None
    head.__class__ = next((kind for of, kind in BOXES_OF.items() if isinstance(head, of)), type(head))
    return head


def _box_maps(head: nn.Module, output: Sequence, scores: list[Tensor]) -> list[list[Tensor]]:
    """Arguments of ``predict_by_feat``: the head's output with other class maps, and boxes as at rest."""
    if isinstance(head, YOLOV3Head):  # x, y, w, h, objectness and classes in one map
        boxes = [level.unflatten(1, (-1, head.num_attrib))[:, :, :4] for level in output[0]]
        return [[torch.cat([box, torch.full_like(score, SURE)[:, :, None], score[:, :, None]], 2).flatten(1, 2)
                 for box, score in zip(boxes, scores, strict=True)]]
    boxes, factors = list(output[1]), [] if isinstance(head, RTMDetInsHead) else list(output[2:3])
    if isinstance(head, VFNetHead | RepPointsHead) and head.training:
        boxes, factors = list(output[2]), []  # the refined ones, which stand third in training only
    if isinstance(head, RepPointsHead) and head.training:
        boxes = [head.points2bbox(points) for points in boxes]
    if head.training and _divides_by_stride(head):
        boxes = [box * stride for box, stride in zip(boxes, head.strides, strict=True)]
    return [scores, boxes, *([torch.full_like(level, SURE) for level in factor] for factor in factors)]


def _divides_by_stride(head: nn.Module) -> bool:
    """Whether its boxes are in strides while it trains, and in pixels at rest."""
    if isinstance(head, AutoAssignHead | VFNetHead):
        return False
    return isinstance(head, CenterNetUpdateHead) or isinstance(head, FCOSHead) and head.norm_on_bbox
