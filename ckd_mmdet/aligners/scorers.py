"""How a detector scores the objects of a batch: by a RoI head, by queries, or by anchors and points."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from ckd_mmdet.boxes import BoxRows, RoIBoxes, SomeBoxes, TableBoxes
from ckd_mmdet.classes import Scoring
from ckd_mmdet.rows import MapRows, TableRows
from ckd_mmdet.samples import is_foreground
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import (
    AnchorFreeHead,
    RepPointsHead,
    RTMDetInsHead,
    VFNetHead,
    YOLOV3Head,
    YOLOXHead,
)
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import bbox2roi, bbox_overlaps
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .decoding import BOXES_OF, decoded
from .dense import DenseAligner, answering_as_in_training, class_columns, class_rows, dense_scoring
from .dense_boxes import DenseBoxes, decoder_of
from .dense_labels import DenseTape, loss_labels
from .query import (
    Queries,
    QueryTape,
    listen_to_queries,
    query_scoring,
)
from .roi import box_output, classify, decodes_deltas, roi_rows

Objects = tuple[TableRows, Tensor, BoxRows | None]
"""``k`` rows; which of the objects have any, shape ``(k,)``, bool; and the rows' boxes, where these can be decoded."""


class ObjectScorer(ABC):
    """How a detector scores a batch's ``k`` objects."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    @abstractmethod
    def scoring(self, side: str) -> Scoring:
        """How it writes the scores.

        Raises:
            ValueError: If this head cannot.
        """

    @abstractmethod
    def listen(self) -> AbstractContextManager[Any]:
        """Record a training step."""

    @abstractmethod
    def gives_boxes(self) -> bool:
        """Whether we know how it writes its boxes."""

    @abstractmethod
    def of_step(self, recorded: Any, data_samples: Sequence[BaseDataElement]) -> Objects:
        """What it said in a step that was listened to."""

    @abstractmethod
    def of_feats(self, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]) -> Objects:
        """The same for a model at rest, from the features of its neck."""


def scorer_of(model: nn.Module, side: str) -> ObjectScorer:
    """How a detector scores objects, by its head.

    Raises:
        ValueError: If we do not know how.
    """
    if hasattr(model, 'query_head'):  # of several heads, the one that Co-DETR tests with
        return QueryScorer(model)
    if hasattr(getattr(model, 'roi_head', None), 'bbox_head'):
        return RoIScorer(model)
    head = getattr(model, 'bbox_head', None)
    if class_columns(head) is not None:
        return DenseScorer(model)
    if hasattr(model, 'forward_transformer') and head is not None:
        return QueryScorer(model)
    has = 'no `bbox_head`' if head is None else f'a {type(head).__name__}'
    raise ValueError(f'`ObjectAligner` needs a {side} with a RoI head, a dense head that scores classes, or queries; '
                     f'a {type(model).__name__} has {has}.')


class RoIScorer(ObjectScorer):
    """The box of the object itself is classified."""

    def scoring(self, side: str) -> Scoring:
        roi_head = self.model.roi_head
        staged = isinstance(roi_head.bbox_head, nn.ModuleList)
        head = roi_head.bbox_head[-1] if staged else roi_head.bbox_head
        needs = [name for name, parameter in inspect.signature(roi_head._bbox_forward).parameters.items()
                 if parameter.default is parameter.empty][2 + staged:]
        if needs:
            raise ValueError(f"`ObjectAligner` cannot ask the {side}'s {type(roi_head).__name__} for the class of a "
                             f'box: it needs {", ".join(needs)} of its proposals too; give a detector whose RoI head '
                             'needs features and boxes only.')
        weight = getattr(getattr(head, 'fc_cls', None), 'weight', None)
        if weight is None or len(weight) != head.num_classes + 1:
            fact = 'has no such layer' if weight is None else f'gives {len(weight)} for {head.num_classes} classes'
            raise ValueError(f"`ObjectAligner` needs one score a class and one for background in a layer `fc_cls`; the "
                             f"{side}'s {type(head).__name__} {fact}.")
        return Scoring(head.num_classes, True)

    def gives_boxes(self) -> bool:
        return decodes_deltas(self._head()[0])

    def _head(self) -> tuple[Any, int | None]:
        """The head, the last of a cascade, and its stage."""
        head = self.model.roi_head.bbox_head
        if isinstance(head, nn.ModuleList):
            return head[-1], len(head) - 1
        return head, None

    def listen(self) -> AbstractContextManager[ModuleTap]:
        name = 'neck' if self.model.with_neck else 'backbone'
        return ModuleTap(getattr(self.model, name), name)

    def of_step(self, recorded: ModuleTap, data_samples: Sequence[BaseDataElement]) -> Objects:
        return self.of_feats(recorded.only().output, data_samples)

    def of_feats(self, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]) -> Objects:
        roi_head = self.model.roi_head
        rois = bbox2roi([sample.gt_instances.bboxes for sample in data_samples])
        head, stage = self._head()
        with at_rest(roi_head), ModuleTap(head, 'roi_head.bbox_head') as recorded:
            logits = classify(roi_head, stage, feats, rois)
        boxes = RoIBoxes.of(head, rois[:, 1:], box_output(recorded, logits)) if self.gives_boxes() else None
        every = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        return roi_rows(recorded, logits, rois), every, boxes


class QueryScorer(ObjectScorer):
    """The query that the head's own assigner matches to the object."""

    def scoring(self, side: str) -> Scoring:
        return query_scoring(self.model, side, 'ObjectAligner')

    def gives_boxes(self) -> bool:
        return True

    def listen(self) -> AbstractContextManager[QueryTape]:
        return listen_to_queries(self.model)

    def of_step(self, recorded: QueryTape, data_samples: Sequence[BaseDataElement]) -> Objects:
        return self._last_layer(Queries.recorded(recorded), data_samples)

    def of_feats(self, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]) -> Objects:
        return self._last_layer(Queries.asked(self.model, feats, data_samples), data_samples)

    def _last_layer(self, queries: Queries, data_samples: Sequence[BaseDataElement]) -> Objects:
        logits, boxes, found = queries.of_objects(-1, data_samples)
        return TableRows(logits, queries.ranking), found, TableBoxes(boxes)


class DenseScorer(ObjectScorer):
    """The anchor of the object's class whose decoded box overlaps the object most."""

    # of these heads the class maps may be replaced: they decode every box that has a score
    decoders = (BaseDenseHead, YOLOXHead, YOLOV3Head, *BOXES_OF)

    def scoring(self, side: str) -> Scoring:
        head = self.model.bbox_head
        if type(head).predict_by_feat not in [known.predict_by_feat for known in self.decoders]:
            raise ValueError(f"`ObjectAligner` does not know how the {side}'s {type(head).__name__} decodes its boxes: "
                             'it has a `predict_by_feat` of its own; take a DenseAligner, or `--method l2`.')
        loss_cls = getattr(head, 'loss_cls', None)  # SSD has none
        if getattr(loss_cls, 'custom_cls_channels', False):
            raise ValueError(f"`ObjectAligner` needs one score a class in the {side}'s {type(head).__name__}, and its "
                             f'{type(loss_cls).__name__} makes them from others; give another `loss_cls`.')
        return dense_scoring(head)

    def gives_boxes(self) -> bool:
        return decoder_of(self.model.bbox_head) is not None

    def listen(self) -> AbstractContextManager[DenseTape]:
        return DenseAligner().listen(self.model)

    def of_step(self, recorded: DenseTape, data_samples: Sequence[BaseDataElement]) -> Objects:
        output = recorded.scores.only().output
        rows = class_rows(recorded.head, output)
        index, found = best_rows(recorded.head, output, rows, loss_labels(recorded, rows)[0], data_samples)
        boxes = DenseBoxes.of(recorded.head, output, rows)
        return rows.table(index), found, None if boxes is None else SomeBoxes(boxes, index)

    def of_feats(self, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]) -> Objects:
        head = self.model.bbox_head
        with answering_as_in_training(head):
            with self.listen() as recorded:
                if _can_assign(head):
                    head.loss(feats, data_samples)
                else:
                    head(feats)
            return self.of_step(recorded, data_samples)


@torch.no_grad()
def best_rows(head: nn.Module, output: Sequence, rows: MapRows, labels: Tensor | None,
              data_samples: Sequence[BaseDataElement]) -> tuple[Tensor, Tensor]:
    """The row of a dense head that speaks of each of the batch's ``k`` objects.

    Args:
        head: The head, in the mode in which it gave ``output``.
        output: What its ``forward`` gave.
        rows: Its rows.
        labels: Class that the head's loss gives each row, shape ``(n,)``; ``None`` where that is not known.
        data_samples: The batch.

    Returns:
        Indices of rows, shape ``(k,)``, and ``(k,)`` bool, which of them count: among the rows of the object's class
        in its image (all rows of the image without labels) at least one has a box that overlaps the object's.
    """
    images = rows.image_ids()
    wanted = (torch.arange(len(rows), device=images.device) if labels is None else
              is_foreground(labels, dense_scoring(head).num_classes).nonzero().squeeze(1))
    boxes = decoded(head, output, rows, wanted, [sample.metainfo for sample in data_samples])
    index, found = [], []
    for image, sample in enumerate(data_samples):
        here = (images[wanted] == image).nonzero().squeeze(1)
        objects = sample.gt_instances
        # (objects, rows); boxes without bounds have none
        overlaps = bbox_overlaps(objects.bboxes, boxes[here].to(objects.bboxes)).nan_to_num(0, posinf=0)
        if labels is not None:
            overlaps = overlaps.masked_fill(objects.labels[:, None] != labels[wanted[here]], 0)
        # a last column for images without such a row
        greatest, place = torch.cat([overlaps, overlaps.new_zeros(len(overlaps), 1)], 1).max(1)
        found.append(greatest > 0)
        index.append(torch.cat([wanted[here], wanted.new_zeros(1)])[place])
    return torch.cat(index), torch.cat(found)


def _can_assign(head: nn.Module) -> bool:
    """Whether its loss may be asked for labels: it has what it was trained with, and needs no more than a batch."""
    # points are assigned by rules that need no `train_cfg`
    by_rule = isinstance(head, AnchorFreeHead) and not isinstance(head, RepPointsHead | VFNetHead)
    if isinstance(head, RTMDetInsHead):
        return False  # its loss needs masks, which the student's data may lack
    return ((by_rule or bool(head.train_cfg))
            and list(inspect.signature(head.loss).parameters) == ['x', 'batch_data_samples'])


@contextmanager
def at_rest(module: nn.Module) -> Iterator[None]:
    """Dropout and BatchNorm as in evaluation, and as they were afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
