"""Aligners that ask a cache: row ``i`` of the student, and what the teacher said of the same region long ago."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.aligners import DenseAligner, RoIAligner
from ckd_mmdet.aligners.dense import class_rows, dense_scoring, geometry_of
from ckd_mmdet.aligners.dense_labels import DenseTape, loss_labels
from ckd_mmdet.aligners.scorers import at_rest
from ckd_mmdet.cached.container import Record
from ckd_mmdet.cached.parts import dense_name, index_of, roi_name, score_boxes
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.rows import Ranking, Rows, TableRows
from ckd_mmdet.samples import Answer, LastLayer, Widths
from ckd_mmdet.taps import ModuleTap
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

NOT_KEPT = {**dict.fromkeys(('boxes', 'distributions', 'valuable'),
                            "a cache keeps the teacher's scores and not where its boxes are"),
            'masks': "a cache keeps the teacher's scores and no masks"}
"""What live teachers provide beside."""


class CacheModel(nn.Module):
    """Stands where an alignment is given the teacher's model: what a cache knows of all images together.

    Args:
        parts: What the header says of each part.
        layers: The last layers of RoI heads, by ``<part>/weight`` and ``<part>/bias``.
    """

    def __init__(self, parts: Mapping[str, dict], layers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.parts = dict(parts)
        self.layers = nn.ParameterDict({name.replace('.', '-'): nn.Parameter(value, requires_grad=False)
                                        for name, value in layers.items()})
        self.here = nn.Parameter(torch.zeros(0), requires_grad=False)  # knows the device

    def part(self, name: str) -> dict[str, Any]:
        """What the header says of a part.

        Raises:
            ValueError: If the cache has none of that name.
        """
        if name not in self.parts:
            raise ValueError(f'`teacher.cache` keeps {", ".join(sorted(self.parts)) or "nothing"}, and an alignment '
                             f'asks for {name}; write a cache with tools/cache_teacher.py from a config that has this '
                             'alignment.')
        return self.parts[name]

    def layer(self, name: str, features: Tensor) -> LastLayer | None:
        """The last layer of a RoI head and its inputs."""
        key = name.replace('.', '-')
        if f'{key}/weight' not in self.layers:
            return None
        return LastLayer(features, self.layers[f'{key}/weight'], self.layers.get(f'{key}/bias'))


def rows_from(records: Sequence[Record], name: str, ranking: Ranking, device: torch.device,
              order: Tensor | None = None) -> TableRows:
    """The teacher's rows of a batch, image after image, or in another order."""
    logits, quality = (_joined(records, f'{name}/{field}', device, order) for field in ('logits', 'quality'))
    assert logits is not None  # every record has them
    return TableRows(logits, ranking, quality)


def _joined(records: Sequence[Record], field: str, device: torch.device, order: Tensor | None = None) -> Tensor | None:
    if any(field not in record for record in records):
        return None
    rows = torch.cat([record[field] for record in records])
    if order is not None:
        rows = rows[order]
    return rows.to(device, non_blocking=True).float()


@dataclass(frozen=True)
class SomeRows(Rows):
    """Some rows of others; what is not chosen of them is never copied."""

    whole: Rows
    index: Tensor
    """Which, shape ``(n,)`` int64."""

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Tensor:
        return self.whole.take(self.index[index])

    def confidence(self, columns: Sequence[int]) -> Tensor:
        return self.whole.confidence(columns)[self.index]


class CachedDenseAligner(DenseAligner):
    """As :class:`ckd_mmdet.aligners.DenseAligner`, of the rows that a cache has of an image."""

    provides = DenseAligner.provides - NOT_KEPT.keys()
    lacks = {**DenseAligner.lacks, **NOT_KEPT}

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        assert isinstance(teacher, CacheModel)
        ours, info = self._head(student, 'student'), teacher.part(dense_name(self))
        for what, theirs in info['geometry'].items():
            mine = geometry_of(ours)[what]
            if mine and theirs and mine != theirs:
                raise ValueError(f"`teacher.cache` was made by a teacher whose {info['head']} has other {what} than "
                                 f"the student's {type(ours).__name__}, {theirs} and not {mine}; take a cache made for "
                                 'such a student.')
        return dense_scoring(ours), Scoring(info['num_classes'], info['softmax'])

    def rows_in_words(self, student: nn.Module) -> str:
        return 'the cached anchors of an image'

    def too_many_rows(self, student: nn.Module) -> str:
        return 'as a cache holds some anchors of a dense head only, and `All` asks for every one'

    def ask(self, teacher: nn.Module, feats: Sequence[Any], tape: DenseTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        assert isinstance(teacher, CacheModel)
        name = dense_name(self)
        info, student_rows = teacher.part(name), class_rows(tape.head, tape.scores.only().output)
        device = student_rows.maps[0].device
        index = torch.cat([index_of(student_rows, image, record[f'{name}/place'])
                           for image, record in enumerate(feats)])
        index, order = index.sort()  # as a live teacher gives its rows
        ranking = Ranking(info['softmax'], geometric=info['geometric'])
        teacher_rows = rows_from(feats, name, ranking, device, order)
        index = index.to(device, non_blocking=True)
        labels, why_not, faults = loss_labels(tape, student_rows, self._in_order)
        return Answer(SomeRows(student_rows, index), teacher_rows, None if labels is None else labels[index],
                      student_rows.image_ids()[index], student_rows.level_ids()[index], why_not, faults=faults)


@dataclass(frozen=True)
class NeckTape:
    """The student, and the call of its neck in one step."""

    model: nn.Module
    features: ModuleTap


class CachedRoIAligner(RoIAligner):
    """As :class:`ckd_mmdet.aligners.RoIAligner`, at boxes that the teacher chose.

    The student's head scores these boxes from the features of its step: a second, small call with gradient, in which
    dropout and BatchNorm rest. Labels are those that the student's own assigner gives the boxes.
    """

    provides = RoIAligner.provides - NOT_KEPT.keys()
    lacks = {**RoIAligner.lacks, **NOT_KEPT}

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        assert isinstance(teacher, CacheModel)
        head, info = self._bbox_head(student, 'student'), teacher.part(roi_name(self))
        if getattr(student.roi_head, 'test_branch_idx', None) is not None:
            raise ValueError('a cached teacher cannot teach a TridentNet, whose batch holds each image once a branch; '
                             'take a live teacher.')
        if head.fc_cls.weight.shape[0] != head.num_classes + 1:
            raise ValueError(f"`RoIAligner` needs one score a class and one for background; the student's "
                             f'{type(head).__name__} gives {head.fc_cls.weight.shape[0]} for {head.num_classes} '
                             'classes.')
        if self._assigner(student) is None:
            raise ValueError('a cached teacher needs the `train_cfg` of the student, by whose assigner boxes are '
                             'labelled.')
        return Scoring(head.num_classes, True), Scoring(info['num_classes'], info.get('softmax', True))

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        assert isinstance(teacher, CacheModel)
        info, layer = teacher.part(roi_name(self)), self._bbox_head(student, 'student').fc_cls
        if not info['features']:
            raise ValueError('`teacher.cache` keeps no features of RoIs; write it with tools/cache_teacher.py '
                             '--features, from a teacher whose `fc_cls` is linear.')
        if type(layer) is not nn.Linear:
            raise ValueError(f"`RoIAligner` finds category centres in a linear `fc_cls`, and the student's is a "
                             f'{type(layer).__name__}; take losses of logits here.')
        return Widths((layer.in_features,), (info['features'],))

    def rows_in_words(self, student: nn.Module) -> str:
        return 'the cached boxes of an image'

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[NeckTape]:  # type: ignore[override]  # another tape
        name = 'neck' if student.with_neck else 'backbone'
        with ModuleTap(getattr(student, name), name) as features:
            yield NeckTape(student, features)

    def ask(self, teacher: nn.Module, feats: Sequence[Any], tape: NeckTape,  # type: ignore[override]
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        assert isinstance(teacher, CacheModel)
        name, maps = roi_name(self), tape.features.only().output
        info, device = teacher.part(name), maps[0].device
        rois = torch.cat([torch.cat([torch.full((len(record[f'{name}/boxes']), 1), float(image)),
                                     record[f'{name}/boxes']], 1) for image, record in enumerate(feats)])
        rois = rois.to(device, non_blocking=True)
        with at_rest(tape.model.roi_head):
            ours, layer = score_boxes(self, tape.model, maps, rois)
        ranking = Ranking(info.get('softmax', True))
        theirs, features = rows_from(feats, name, ranking, device), _joined(feats, f'{name}/features', device)
        of_teacher = None if features is None else teacher.layer(name, features)
        layers = (layer, of_teacher.detach()) if layer is not None and of_teacher is not None else None
        labels = torch.cat([self._labels(tape.model, sample, rois[rois[:, 0] == image, 1:])
                            for image, sample in enumerate(data_samples)])
        return Answer(ours, theirs, labels, rois[:, 0].long(), layers=layers, regions=rois[:, 1:])

    def _assigner(self, student: nn.Module) -> Any:
        assigner = getattr(student.roi_head, 'bbox_assigner', None)
        return assigner[self.stage] if isinstance(assigner, list | tuple) else assigner

    @torch.no_grad()
    def _labels(self, student: nn.Module, sample: BaseDataElement, boxes: Tensor) -> Tensor:
        """Class of each box ``(m, 4)`` of an image, -1 where it is to be ignored."""
        truth = InstanceData(bboxes=get_box_tensor(sample.gt_instances.bboxes), labels=sample.gt_instances.labels)
        assigned = self._assigner(student).assign(InstanceData(priors=boxes), truth, sample.get('ignored_instances'))
        background = self._bbox_head(student, 'student').num_classes
        classes = torch.cat([truth.labels.new_tensor([-1, background]), truth.labels])  # gt_inds are -1, 0, 1, ...
        labels: Tensor = classes[assigned.gt_inds + 1]
        return labels
