"""Objects in a cache: one row a true object, from heads of any kind, matched by the teacher when it was written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ckd_mmdet.aligners import ObjectAligner, QueryAligner
from ckd_mmdet.aligners.objects import ObjectTape
from ckd_mmdet.aligners.query import Queries, QueryTape, image_ids, in_classes_of_teacher, query_scoring
from ckd_mmdet.aligners.scorers import scorer_of
from ckd_mmdet.cached.aligners import NOT_KEPT, CacheModel
from ckd_mmdet.cached.container import Record
from ckd_mmdet.cached.parts import Part
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.rows import Ranking, TableRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.teacher import FrozenTeacher
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

SAME = 1.0
"""Pixels by which the corners of an object's box may differ from those that the cache was written with."""


class ObjectPart(Part):
    """How a teacher scores the true objects of an image.

    Args:
        aligner: That of the alignment.
        classes: What student and teacher share, where the teacher numbers its classes otherwise.
    """

    def __init__(self, aligner: ObjectAligner | QueryAligner, classes: SharedClasses | None) -> None:
        self.name = object_name(aligner)
        self.aligner, self.classes = aligner, classes

    def info(self, teacher: FrozenTeacher) -> dict[str, Any]:
        scoring = (scorer_of(teacher.model, 'teacher').scoring('teacher') if isinstance(self.aligner, ObjectAligner)
                   else query_scoring(teacher.model, 'teacher', 'QueryAligner'))
        return dict(kind='objects', num_classes=scoring.num_classes, softmax=scoring.softmax,
                    classes=plain_classes(self.classes))

    @torch.no_grad()
    def answer(self, teacher: FrozenTeacher, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]
               ) -> list[Record]:
        known, samples = in_classes_of_teacher(data_samples, self.classes)
        boxes = torch.cat([get_box_tensor(sample.gt_instances.bboxes) for sample in data_samples])
        answers = self._layers(teacher.model, feats, samples)
        # (objects, layers, classes); an object that the teacher has no class for is not found
        logits = boxes.new_zeros(len(boxes), len(answers), answers[0][0].shape[1])
        found = torch.zeros(len(boxes), len(answers), dtype=torch.bool, device=boxes.device)
        for layer, (rows, matched) in enumerate(answers):
            logits[known, layer], found[known, layer] = rows.to(logits), matched
        fields = dict(boxes=boxes.float(), logits=logits.half(), found=found)
        counts = [len(sample.gt_instances) for sample in data_samples]
        parts = {f'{self.name}/{field}': value.cpu().split(counts) for field, value in fields.items()}
        return [{field: value[image] for field, value in parts.items()} for image in range(len(counts))]

    def _layers(self, model: nn.Module, feats: Sequence[Tensor], samples: Sequence[BaseDataElement]
                ) -> list[tuple[Tensor, Tensor]]:
        """Logits of the objects and which of them are found, a pair a layer."""
        if isinstance(self.aligner, ObjectAligner):
            rows, found, _ = scorer_of(model, 'teacher').of_feats(feats, samples)
            return [(rows.scores, found)]
        queries = Queries.asked(model, feats, samples)
        layers = range(len(queries)) if self.aligner.layers == 'all' else [-1]
        return [queries.logits(layer, samples) for layer in layers]


def object_name(aligner: ObjectAligner | QueryAligner) -> str:
    """Name of the part of an aligner of objects."""
    return f'queries.{aligner.layers}' if isinstance(aligner, QueryAligner) else 'objects'


def plain_classes(classes: SharedClasses | None) -> list | None:
    """As JSON has them."""
    return None if classes is None else [list(classes.student), list(classes.teacher)]


class CachedObjectAligner(ObjectAligner):
    """As :class:`ckd_mmdet.aligners.ObjectAligner`; the teacher's scores of the objects are in a cache."""

    provides = ObjectAligner.provides - NOT_KEPT.keys()
    lacks = {**ObjectAligner.lacks, **NOT_KEPT}

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        return scorer_of(student, 'student').scoring('student'), scoring_of(self, teacher)

    def ask(self, teacher: nn.Module, feats: Sequence[Any], tape: ObjectTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        ours, of_ours, _ = tape.scorer.of_step(tape.recorded, data_samples)
        logits, found = of_objects(self, teacher, feats, data_samples, classes)
        both = (of_ours & found[:, 0]).nonzero().squeeze(1)
        labels = torch.cat([sample.gt_instances.labels for sample in data_samples])[both]
        return Answer(ours.select(both), TableRows(logits[both, 0], ranking_of(self, teacher)), labels,
                      image_ids(data_samples)[both])


class CachedQueryAligner(QueryAligner):
    """As :class:`ckd_mmdet.aligners.QueryAligner`; the scores of the teacher's matched queries are in a cache."""

    provides = QueryAligner.provides - NOT_KEPT.keys()
    lacks = {**QueryAligner.lacks, **NOT_KEPT}

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        return query_scoring(student, 'student', 'QueryAligner'), scoring_of(self, teacher)

    def ask(self, teacher: nn.Module, feats: Sequence[Any], tape: QueryTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        ours = Queries.recorded(tape)
        theirs, of_theirs = of_objects(self, teacher, feats, data_samples, classes)
        if self.layers == 'all' and len(ours) != theirs.shape[1]:
            raise RuntimeError(f"expected as many decoder layers in the cache ({theirs.shape[1]}) as in the student "
                               f"({len(ours)}); take `layers='last'`")
        rows, objects, levels = [], [], []
        for place, layer in enumerate(range(len(ours)) if self.layers == 'all' else [-1]):
            logits, of_ours = ours.logits(layer, data_samples)
            both = (of_ours & of_theirs[:, place]).nonzero().squeeze(1)
            rows.append((logits[both], theirs[both, place]))
            objects.append(both)
            levels.append(torch.full_like(both, layer % len(ours)))
        chosen = torch.cat(objects)
        labels = torch.cat([sample.gt_instances.labels for sample in data_samples])[chosen]
        mine, other = (torch.cat(side) for side in zip(*rows, strict=True))
        return Answer(TableRows(mine, ours.ranking), TableRows(other, ranking_of(self, teacher)), labels,
                      image_ids(data_samples)[chosen], torch.cat(levels))


def scoring_of(aligner: ObjectAligner | QueryAligner, teacher: nn.Module) -> Scoring:
    """How the cached teacher scores an object."""
    assert isinstance(teacher, CacheModel)
    info = teacher.part(object_name(aligner))
    return Scoring(info['num_classes'], info['softmax'])


def ranking_of(aligner: ObjectAligner | QueryAligner, teacher: nn.Module) -> Ranking:
    """How the cached teacher ranks an object."""
    return Ranking(scoring_of(aligner, teacher).softmax)


def of_objects(aligner: ObjectAligner | QueryAligner, teacher: nn.Module, records: Sequence[Record],
               data_samples: Sequence[BaseDataElement], classes: SharedClasses | None) -> tuple[Tensor, Tensor]:
    """Cached logits ``(k, layers, c)`` of a batch's objects, and which are found, ``(k, layers)`` bool.

    Raises:
        RuntimeError: If the batch has other objects than the cache was written with, or other classes are shared.
    """
    assert isinstance(teacher, CacheModel)
    name = object_name(aligner)
    if teacher.part(name)['classes'] != plain_classes(classes):
        raise RuntimeError('expected the classes that student and teacher share to be those that the cache was written '
                           'for; write it anew with this `class_map`')
    for record, sample in zip(records, data_samples, strict=True):
        ours, theirs = get_box_tensor(sample.gt_instances.bboxes), record[f'{name}/boxes']
        if len(ours) != len(theirs) or len(ours) and (ours - theirs.to(ours)).abs().max() > SAME:
            raise RuntimeError(f"expected the objects of image {sample.metainfo['img_id']} to be "
                               'those that the cache was written with, saw others; the annotations have '
                               'changed: write it anew')
    device = data_samples[0].gt_instances.labels.device
    logits, found = (torch.cat([record[f'{name}/{field}'] for record in records]).to(device)
                     for field in ('logits', 'found'))
    return logits.float(), found
