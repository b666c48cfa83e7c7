"""All queries of two DETR-like detectors in pairs, the student's nearest to each of the teacher's (DETRDistill)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from ckd_mmdet.boxes import TableBoxes
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.rows import TableRows
from ckd_mmdet.samples import Answer
from mmdet.models.task_modules.assigners import HungarianAssigner
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor

from .base import true_boxes

if TYPE_CHECKING:
    from .query import Queries

LEAST = 1e-6
"""Probabilities are kept this far from 0 and 1 before their logarithm is taken."""
COSTS = dict(classes=1.0, l1=5.0, giou=2.0)
"""How much each part of a pair's cost counts, as published for DETRDistill (arXiv 2211.10156)."""
WHY_NONE = "with `pair='teacher'` a row is a pair of queries, of which most hold no object"


def pair_costs(student: Tensor, teacher: Tensor, student_boxes: Tensor, teacher_boxes: Tensor) -> Tensor:
    r"""Cost of each pair of a student's and a teacher's prediction.

    .. math:: C_{ij} = \sum_c \mathrm{BCE}(p^s_{ic}, p^t_{jc}) + 5 \, \lVert b^s_i - b^t_j \rVert_1
              + 2 \, (1 - \mathrm{GIoU}(b^s_i, b^t_j))

    with the probabilities :math:`p` of the shared classes (DETRDistill, arXiv 2211.10156; the sum over the classes is
    ours).

    Args:
        student: Probabilities, shape ``(q, c)``.
        teacher: The same of the teacher's, shape ``(k, c)``.
        student_boxes: Corners as parts of the image's width and height, shape ``(q, 4)``.
        teacher_boxes: The same, shape ``(k, 4)``; the distance is of centres, widths and heights.

    Returns:
        Shape ``(q, k)``, float32, without gradient.
    """
    with torch.no_grad():
        p = student.float().clamp(LEAST, 1 - LEAST)
        classes = -(p.log() @ teacher.float().T + (1 - p).log() @ (1 - teacher.float()).T)
        places = [torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)
                  for boxes in (student_boxes.float(), teacher_boxes.float())]
        giou = bbox_overlaps(student_boxes.float(), teacher_boxes.float(), mode='giou')
        distance = torch.cdist(places[0], places[1], p=1)
        return COSTS['classes'] * classes + COSTS['l1'] * distance + COSTS['giou'] * (1 - giou)


def paired_queries(student: Queries, teacher: Queries, layers: Sequence[int], data_samples: Sequence[BaseDataElement],
                   classes: SharedClasses) -> Answer:
    """The pairs of least cost of each layer and image, one to one.

    Args:
        student: Its queries.
        teacher: The teacher's.
        layers: Decoder layers, -1 for the last of both.
        data_samples: The batch.
        classes: What both know.

    Returns:
        A row for each pair, without labels.
    """
    scores: tuple[list[Tensor], list[Tensor]] = [], []
    boxes: tuple[list[Tensor], list[Tensor]] = [], []
    images, levels = [], []
    for layer in layers:
        for image, sample in enumerate(data_samples):
            height, width = sample.metainfo['img_shape']
            sides = [queries.of_image(layer, image, sample) for queries in (student, teacher)]
            size = sides[0][1].new_tensor([width, height, width, height])
            probabilities = [_probabilities(logits, queries.ranking.softmax)[:, list(columns)]
                             for (logits, _), queries, columns in
                             zip(sides, (student, teacher), (classes.student, classes.teacher), strict=True)]
            pairs = _least(pair_costs(*probabilities, *(corners / size for _, corners in sides)))
            for side in range(2):
                scores[side].append(sides[side][0][pairs[side]])
                boxes[side].append(sides[side][1][pairs[side]])
            images.append(torch.full_like(pairs[0], image))
            levels.append(torch.full_like(pairs[0], layer % len(student)))
    return Answer(TableRows(torch.cat(scores[0]), student.ranking), TableRows(torch.cat(scores[1]), teacher.ranking),
                  None, torch.cat(images), torch.cat(levels), no_labels=WHY_NONE, truths=true_boxes(data_samples),
                  boxes=(TableBoxes(torch.cat(boxes[0])), TableBoxes(torch.cat(boxes[1]))))


def _probabilities(logits: Tensor, softmax: bool) -> Tensor:
    return logits.float().softmax(1) if softmax else logits.float().sigmoid()


def _least(costs: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns ``(m,)`` each of the assignment of least cost, by MMDetection's Hungarian matching."""
    assigner = HungarianAssigner(match_costs=[dict(type='ClassificationCost')])
    assigner.match_costs = [lambda **_: costs]
    q, k = costs.shape
    blank = costs.new_zeros(k, 4), torch.zeros(k, dtype=torch.long, device=costs.device)
    given = InstanceData(scores=costs.new_zeros(q, 1)), InstanceData(bboxes=blank[0], labels=blank[1])
    matched = assigner.assign(*given, img_meta={}).gt_inds
    rows = (matched > 0).nonzero().squeeze(1)
    return rows, matched[rows] - 1
