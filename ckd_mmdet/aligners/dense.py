from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.rows import MapRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import YOLOV3Head
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .base import Aligner

COCO_SIZE = (800, 1333)
"""Height and width of an image as mmdet's COCO configs resize it."""
PROBES = 256
"""Rows of a loss's call that are compared before its labels are trusted."""
LEAST_PROBABILITY = 1e-6
"""Probabilities closer to 0 or 1 have logits no larger than this one's."""


@dataclass(frozen=True)
class DenseTape:
    head: nn.Module
    scores: ModuleTap
    targets: Sequence[ModuleTap]
    """Calls of the modules by which the head computes its classification loss."""


@TASK_UTILS.register_module()
class DenseAligner(Aligner):
    """Pairs the anchors of dense heads: both sides score every anchor (or point) of every level.

    For each head whose ``forward`` gives its class scores as one map ``(N, A * c, h, w)`` a level: RetinaNet, FCOS,
    ATSS, GFL, RTMDet, YOLOX, SSD, an RPN... A row is an anchor; its logits are the scores of its classes. Both
    sides are read by one rule (:class:`ckd_mmdet.rows.MapRows`), so their heads need the same strides and as many
    anchors a cell; they may be of different kinds.

    Labels are those of the student's own loss, where that takes the rows as they are; a head that reorders them, or
    takes some only (PAA, YOLOX), gives logits alone.

    Args:
        head: The head's name in both models, ``'rpn_head'`` for example.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'level_ids'})
    lacks = {'features': 'a dense head scores by a convolution that the anchors of all places share: it has no '
                         'category centres, and no feature of a row'}

    def __init__(self, head: str = 'bbox_head') -> None:
        self.head = head

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        ours, theirs = self._head(student, 'student'), self._head(teacher, 'teacher')
        for what, of_ours, of_theirs in (('strides', _strides(ours), _strides(theirs)),
                                         ('anchors a cell', _anchors(ours), _anchors(theirs))):
            if of_ours and of_theirs and of_ours != of_theirs:
                raise ValueError(f"`DenseAligner` needs a teacher whose {type(theirs).__name__} has the {what} of the "
                                 f"student's {type(ours).__name__}, {of_ours}, got {of_theirs}; take an ObjectAligner, "
                                 'or a teacher with such a head.')
        sizes = [_anchor_sizes(head) for head in (ours, theirs)]
        if all(sizes) and sizes[0] != sizes[1]:
            level, of_ours, of_theirs = next((level, *pair) for level, pair in enumerate(zip(*sizes, strict=True))
                                             if pair[0] != pair[1])
            raise ValueError(f"`DenseAligner` needs a teacher whose {type(theirs).__name__} has the anchors of the "
                             f"student's {type(ours).__name__}; on level {level} they are (width, height) {of_ours}, "
                             f"the teacher's {of_theirs}; take an ObjectAligner, or a teacher with such anchors.")
        return dense_scoring(ours), dense_scoring(theirs)

    def too_many_rows(self, student: nn.Module) -> str:
        head = self._head(student, 'student')
        rows = sum(math.prod(math.ceil(side / stride) for side in COCO_SIZE) * anchors
                   for stride, anchors in zip(_strides(head), _anchors(head), strict=True))
        size = (f': an image of {COCO_SIZE[0]}x{COCO_SIZE[1]} has {rows:,} rows here, and comparing each with each '
                f'would take {4 * rows**2 / 2**30:,.0f} GiB' if rows else '')
        return f'every anchor of a {type(head).__name__} would be too many{size}'

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[DenseTape]:
        head = self._head(student, 'student')
        # TOOD changes from one to the other after some epochs
        names = [name for name in ('loss_cls', 'initial_loss_cls') if isinstance(getattr(head, name, None), nn.Module)]
        with ExitStack() as taps:
            scores = taps.enter_context(ModuleTap(head, self.head))
            yield DenseTape(head, scores, [taps.enter_context(ModuleTap(getattr(head, name), f'{self.head}.{name}'))
                                           for name in names])

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: DenseTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        student_rows = class_rows(tape.head, tape.scores.only().output)
        head = self._head(teacher, 'teacher')
        # around the teacher only: the student's rows keep their graph
        with torch.no_grad(), answering_as_in_training(head):
            teacher_rows = class_rows(head, head(feats))
        sizes = [[(level.shape[1], *level.shape[3:]) for level in rows.maps] for rows in (student_rows, teacher_rows)]
        if sizes[0] != sizes[1]:
            raise RuntimeError(f"expected the teacher's {type(head).__name__} to give class maps of the student's "
                               f'(anchors, height, width), {sizes[0]}, saw {sizes[1]}; take an ObjectAligner')
        labels, why_not = loss_labels(tape, student_rows)
        return Answer(student_rows, teacher_rows, labels, student_rows.image_ids(), student_rows.level_ids(), why_not)

    def _head(self, model: nn.Module, side: str) -> nn.Module:
        head = dict(model.named_modules()).get(self.head)
        if head is None or class_columns(head) is None:
            known = [name for name, module in model.named_modules() if class_columns(module) is not None]
            fact = 'has no such module' if head is None else f'has a {type(head).__name__} there'
            way_out = f'give `head` one of {known}' if known else 'none of its modules is one'
            raise ValueError(f'`DenseAligner` needs a {side} with a dense head `{self.head}`, and the '
                             f'{type(model).__name__} {fact}; {way_out}.')
        return head


@contextmanager
def answering_as_in_training(head: nn.Module) -> Iterator[None]:
    """The head gives what its loss needs, guided anchoring every place; its layers rest."""
    was, head.training = head.training, True
    try:
        yield
    finally:
        head.training = was


def class_columns(head: nn.Module) -> int | None:
    """Number of class scores of an anchor; ``None`` where the module is no dense head that gives them as maps."""
    if isinstance(head, YOLOV3Head):
        return head.num_classes
    return getattr(head, 'cls_out_channels', None) if isinstance(head, BaseDenseHead) else None


def dense_scoring(head: nn.Module) -> Scoring:
    softmax = not getattr(head, 'use_sigmoid_cls', True)
    return Scoring(class_columns(head) - softmax, softmax)


def _strides(head: nn.Module) -> list[int]:
    generator = getattr(head, 'prior_generator', None)
    return [max(stride) for stride in generator.strides] if generator is not None else []


def _anchors(head: nn.Module) -> list[int]:
    generator = getattr(head, 'prior_generator', None)
    return list(generator.num_base_priors) if generator is not None else []


def _anchor_sizes(head: nn.Module) -> list[list[tuple[int, int]]]:
    """Width and height of each level's anchors, rounded to pixels; nothing where they are points."""
    generator = getattr(head, 'prior_generator', None)
    return [[(round(x2 - x1), round(y2 - y1)) for x1, y1, x2, y2 in level.tolist()]
            for level in getattr(generator, 'base_anchors', [])]


def class_rows(head: nn.Module, output: Sequence) -> MapRows:
    """The anchors' class scores in what the head gave, as views."""
    maps, columns = output[0], class_columns(head)
    if isinstance(head, YOLOV3Head):  # four of the box and the objectness stand before the classes
        return MapRows([level.unflatten(1, (-1, head.num_attrib))[:, :, -columns:] for level in maps])
    # TOOD's head gives probabilities, and says so where it names its loss only
    activated = getattr(getattr(head, 'initial_loss_cls', None), 'activated', False)
    return (ProbabilityRows if activated else MapRows)([level.unflatten(1, (-1, columns)) for level in maps])


class ProbabilityRows(MapRows):
    """Maps of probabilities; the rows that are taken are their logits."""

    def take(self, index: Tensor) -> Tensor:
        return super().take(index).float().logit(eps=LEAST_PROBABILITY)


def loss_labels(tape: DenseTape, rows: MapRows) -> tuple[Tensor | None, str]:
    """Labels that the student's own loss used, shape ``(n,)``, -1 where its weight is zero; or why there are none.

    A loss that takes the rows in another order would give wrong labels without a sign: some rows of each call are
    compared with the maps at every step.
    """
    head = type(tape.head).__name__
    calls = [call for tap in tape.targets for call in tap.calls]
    if not calls:
        return None, f'its {head} calls no module `loss_cls`'
    labels, start = [], 0
    for call in calls:
        scores, target = call.arg(0, 'pred', 'cls_score'), call.arg(1, 'target', 'label')
        if not _are_next(scores, rows, start):
            return None, f'its {head} reorders its rows before `loss_cls`, or leaves some out'
        label = target[0] if isinstance(target, tuple) else target  # GFL's second part is the quality
        if label.shape != scores.shape[:1] or label.is_floating_point():
            return None, f'its {head} has no whole number a row as target of `loss_cls`'
        weight = call.get(2, 'weight', 'label_weight')
        labels.append(label if weight is None else label.masked_fill(weight.reshape(len(label), -1).amax(1) <= 0, -1))
        start += len(scores)
    if start != len(rows):
        return None, f'its {head} calls `loss_cls` for {start} of {len(rows)} rows'
    return torch.cat(labels), ''


def _are_next(scores: Tensor, rows: MapRows, start: int) -> bool:
    """Whether ``scores`` are the rows from ``start`` on, looked at in some of them."""
    if scores.ndim != 2 or scores.shape[1] != rows.maps[0].shape[2] or start + len(scores) > len(rows):
        return False
    probes = torch.linspace(0, max(len(scores) - 1, 0), min(PROBES, len(scores)), device=scores.device).long()
    with torch.no_grad():
        return torch.equal(scores[probes], MapRows.take(rows, start + probes).to(scores.dtype))
