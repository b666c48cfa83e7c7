from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.boxes import SomeBoxes
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Answer
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .base import Aligner, true_boxes
from .query import image_ids, in_classes_of_teacher
from .scorers import ObjectScorer, scorer_of


@dataclass(frozen=True)
class ObjectTape:
    """What the student said in one step, and how the scores of its objects are read from that."""

    scorer: ObjectScorer
    recorded: Any


@TASK_UTILS.register_module()
class ObjectAligner(Aligner):
    """Pairs ground-truth objects, between any two detectors.

    A row is an object, image by image in the order of the ground truth; on each side its logits are those with which
    that detector scores it:

    - a RoI head classifies the ground-truth box itself, the last stage where it has several. This is a second call of
      the student's head, for its own features, a few boxes and with gradient; dropout and BatchNorm rest in it;
    - a dense head gives the anchor that its own loss takes for that class and whose decoded box overlaps the object
      most. On the teacher's side this needs the head's loss, which is computed without gradient for its labels only.
      This is done for heads that decode boxes as mmdet's usual ones, and those of RTMDet-Ins and CondInst too.
      Where a head's labels are not to be had (see :class:`DenseAligner`), all of its anchors are looked at;
    - a head of queries gives the query that it matches to the object, see :class:`QueryAligner`.

    An object that one of the sides has no row for is left out.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'boxes', 'truths'})
    lacks = {'distributions': 'its two sides may be heads of different kinds',
             'masks': 'its two sides may be heads of different kinds',
             'regions': 'its rows are objects, each another one'}

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        return scorer_of(student, 'student').scoring('student'), scorer_of(teacher, 'teacher').scoring('teacher')

    def check_boxes(self, student: nn.Module, teacher: nn.Module) -> None:
        for model, side in ((student, 'student'), (teacher, 'teacher')):
            if not scorer_of(model, side).gives_boxes():
                raise ValueError(f"`ObjectAligner` does not know how the {side}'s {type(model).__name__} writes its "
                                 'boxes (docs/supported.md has the heads that it knows); take losses that need no '
                                 'boxes, with `--method kd` for example.')

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[ObjectTape]:
        scorer = scorer_of(student, 'student')
        with scorer.listen() as recorded:
            yield ObjectTape(scorer, recorded)

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: ObjectTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        ours, of_ours, our_boxes = tape.scorer.of_step(tape.recorded, data_samples)
        known, samples = in_classes_of_teacher(data_samples, classes)
        with torch.no_grad():  # around the teacher only: the student's rows keep their graph
            theirs, of_theirs, their_boxes = scorer_of(teacher, 'teacher').of_feats(feats, samples)
        found = of_ours[known] & of_theirs
        objects = known[found]
        labels = torch.cat([sample.gt_instances.labels for sample in data_samples])[objects]
        boxes, truths = None, true_boxes(data_samples)
        if our_boxes is not None and their_boxes is not None:
            boxes = SomeBoxes(our_boxes, objects), SomeBoxes(their_boxes, found.nonzero().squeeze(1))
        return Answer(ours.select(objects), theirs.select(found), labels, image_ids(data_samples)[objects],
                      boxes=boxes, truths=truths, regions=truths.boxes[objects])


