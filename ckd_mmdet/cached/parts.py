"""What is kept of a teacher's answers: one part for what an aligner pairs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from ckd_mmdet.aligners import DenseAligner, RoIAligner
from ckd_mmdet.aligners.dense import answering_as_in_training, class_rows, dense_scoring, geometry_of
from ckd_mmdet.aligners.roi import classify, last_layer, roi_rows
from ckd_mmdet.cached.boxes import choose_boxes
from ckd_mmdet.cached.container import Record
from ckd_mmdet.rows import MapRows, TableRows
from ckd_mmdet.samples import LastLayer
from ckd_mmdet.selectors import greatest_of_each
from ckd_mmdet.taps import ModuleTap
from ckd_mmdet.teacher import FrozenTeacher
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


class Part(ABC):
    """A part of a cache while it is written."""

    name: str
    """By which the aligner finds it."""

    @abstractmethod
    def info(self, teacher: FrozenTeacher) -> dict[str, Any]:
        """What the header says of it."""

    def tensors(self, teacher: FrozenTeacher) -> dict[str, Tensor]:
        """What is kept once for all images, by field."""
        return {}

    @abstractmethod
    def answer(self, teacher: FrozenTeacher, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]
               ) -> list[Record]:
        """What is kept of each of ``N`` images.

        Args:
            teacher: The live teacher.
            feats: What its ``extract_feat`` gave.
            data_samples: ``N`` of them, with their ground truth.
        """


class DensePart(Part):
    """Rows of a dense head: the most confident of an image, and on demand all within its objects.

    Args:
        aligner: That of the alignment.
        k: Number of the most confident rows.
        in_boxes: Whether every row whose anchor has its centre in a true box is kept, too.
        columns: Of the classes by which rows are ranked.
    """

    def __init__(self, aligner: DenseAligner, k: int, in_boxes: bool, columns: Sequence[int]) -> None:
        self.name = dense_name(aligner)
        self.aligner, self.k, self.in_boxes, self.columns = aligner, k, in_boxes, columns

    def info(self, teacher: FrozenTeacher) -> dict[str, Any]:
        head = teacher.model.get_submodule(self.aligner.head)
        scoring = dense_scoring(head)
        return dict(kind='dense', head=type(head).__name__, geometry=geometry_of(head), k=self.k,
                    in_boxes=self.in_boxes, columns=list(self.columns), num_classes=scoring.num_classes,
                    softmax=scoring.softmax, geometric=class_ranking(head).geometric)

    def answer(self, teacher: FrozenTeacher, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]
               ) -> list[Record]:
        head = teacher.model.get_submodule(self.aligner.head)
        with torch.no_grad(), answering_as_in_training(head):
            rows = class_rows(head, head(feats))
        images = rows.image_ids()
        every = torch.ones_like(images, dtype=torch.bool)
        chosen = greatest_of_each(images, rows.confidence(self.columns), every, self.k)
        if self.in_boxes:
            chosen = chosen | centers_in_boxes(head, rows, data_samples)
        index = chosen.nonzero().squeeze(1)
        table, places = rows.table(index), places_of(rows, index)
        return _by_image(dict(place=places, **_scores(table)), images[index], len(data_samples), self.name)


class RoIPart(Part):
    """What a RoI head says of boxes that the teacher chooses.

    Args:
        aligner: That of the alignment.
        count: Number of boxes of an image.
        features: Whether the input of the last layer is kept, too.
    """

    def __init__(self, aligner: RoIAligner, count: int, features: bool) -> None:
        self.name = roi_name(aligner)
        self.aligner, self.count, self.features = aligner, count, features

    def info(self, teacher: FrozenTeacher) -> dict[str, Any]:
        head = bbox_head_of(self.aligner, teacher.model)
        linear = type(head.fc_cls) is nn.Linear
        return dict(kind='roi', head=type(head).__name__, count=self.count, num_classes=head.num_classes,
                    features=head.fc_cls.in_features if self.features and linear else None)

    def tensors(self, teacher: FrozenTeacher) -> dict[str, Tensor]:
        layer = bbox_head_of(self.aligner, teacher.model).fc_cls
        if type(layer) is not nn.Linear:
            return {}
        kept = dict(weight=layer.weight, bias=layer.bias)
        return {f'{self.name}/{name}': value.detach().float().cpu() for name, value in kept.items()
                if value is not None}

    def answer(self, teacher: FrozenTeacher, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]
               ) -> list[Record]:
        with torch.no_grad():
            boxes, kinds = choose_boxes(teacher.model, feats, data_samples, self.count)
            rois = torch.cat([torch.cat([torch.full_like(part[:, :1], image), part], 1)
                              for image, part in enumerate(boxes)])
            rows, layer = score_boxes(self.aligner, teacher.model, feats, rois)
        fields = dict(boxes=rois[:, 1:].float(), kinds=torch.cat(kinds), **_scores(rows))
        if self.features:
            if layer is None:
                raise ValueError("the teacher's RoI head gives other scores than its last layer, so that there are no "
                                 'features to keep; take losses of logits here.')
            fields['features'] = layer.features.half()
        return _by_image(fields, rois[:, 0].long(), len(data_samples), self.name)


def dense_name(aligner: DenseAligner) -> str:
    """Name of the part of a dense head."""
    return f'dense.{aligner.head}'


def roi_name(aligner: RoIAligner) -> str:
    """Name of the part of a RoI head, or of one of its stages."""
    return 'roi' if aligner.stage is None else f'roi.{aligner.stage}'


def bbox_head_of(aligner: RoIAligner, model: nn.Module) -> nn.Module:
    """The RoI head of a model, of one with stages the aligner's."""
    head: Any = model.roi_head.bbox_head
    found: nn.Module = head[aligner.stage] if isinstance(head, nn.ModuleList) else head
    return found


def class_ranking(head: nn.Module) -> Any:
    """How a dense head ranks its rows."""
    return class_rows(head, ([], [])).ranking


def score_boxes(aligner: RoIAligner, model: nn.Module, feats: Sequence[Tensor], rois: Tensor
                ) -> tuple[TableRows, LastLayer | None]:
    """Rows of a RoI head for boxes ``(n, 5)``, and the layer that gives them, see :func:`last_layer`."""
    head = bbox_head_of(aligner, model)
    with ModuleTap(head.fc_cls, 'fc_cls') as recorded, ModuleTap(head, 'bbox_head') as scores:
        logits = classify(model.roi_head, aligner.stage, feats, rois)
    return roi_rows(scores, logits, rois), last_layer(recorded, logits)


def centers_in_boxes(head: nn.Module, rows: MapRows, data_samples: Sequence[BaseDataElement]) -> Tensor:
    """Rows of a dense head whose anchor has its centre in a true box of its image, shape ``(n,)``, bool."""
    generator = getattr(head, 'prior_generator', None)
    if generator is None:
        raise ValueError(f'the centres of the anchors of a {type(head).__name__} are not known, which a selector by '
                         'labels needs of a cached teacher; take a selector that needs only logits, TeacherTopK.')
    priors = generator.grid_priors([level.shape[3:] for level in rows.maps], device=rows.maps[0].device)
    found = []
    for level in priors:
        centers = (level[:, :2] + level[:, -2:]) / 2 if level.shape[1] == 4 else level[:, :2]
        found += [_inside(centers, get_box_tensor(sample.gt_instances.bboxes)) for sample in data_samples]
    return torch.cat(found)


def _inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Of points ``(n, 2)``, those in one of the boxes ``(k, 4)``."""
    found = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for box in boxes.to(points):
        found |= ((points >= box[:2]) & (points <= box[2:])).all(1)
    return found


def places_of(rows: MapRows, index: Tensor) -> Tensor:
    """Level, y, x and anchor of rows at ``index``, shape ``(m, 4)`` int16; they do not change with the padding."""
    places, start = torch.zeros(len(index), 4, dtype=torch.long, device=index.device), 0
    for number, (level, length) in enumerate(zip(rows.maps, rows.lengths, strict=True)):
        _, anchors, _, height, width = level.shape
        here = (index >= start) & (index < start + length)
        cell = (index - start) // anchors
        place = torch.stack([torch.full_like(index, number), cell // width % height, cell % width,
                             (index - start) % anchors], 1)
        places = torch.where(here[:, None], place, places)
        start += length
    return places.to(torch.int16)


def index_of(rows: MapRows, image: int, places: Tensor) -> Tensor:
    """The inverse of :func:`places_of` for one image of a batch, shape ``(m,)`` int64.

    Raises:
        RuntimeError: If the batch's maps lack such a place.
    """
    level, y, x, anchor = places.long().unbind(1)
    sizes = torch.tensor([[one.shape[1], *one.shape[3:]] for one in rows.maps])
    starts = torch.tensor([0, *rows.lengths[:-1]]).cumsum(0)
    if len(level) and (level.max() >= len(sizes) or (torch.stack([anchor, y, x], 1) >= sizes[level]).any()):
        raise RuntimeError(f"expected the student's maps to have every place that the teacher's had, and they are "
                           f'(anchors, height, width) {sizes.tolist()}; the cache was made of other sizes or padding: '
                           'write it anew')
    anchors, height, width = sizes[level].unbind(1)
    return starts[level] + ((image * height + y) * width + x) * anchors + anchor


def _scores(rows: TableRows) -> Record:
    kept = dict(logits=rows.scores.half())
    if rows.quality is not None:
        kept['quality'] = rows.quality.half()
    return kept


def _by_image(fields: Record, images: Tensor, count: int, name: str) -> list[Record]:
    """A record for each of the batch's images, on the CPU."""
    fields = {f'{name}/{field}': rows.cpu() for field, rows in fields.items()}
    images = images.cpu()
    return [{field: rows[images == image] for field, rows in fields.items()} for image in range(count)]
