from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import torch
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.rows import SIGMOID, MapRows, Ranking
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import PAAHead, SABLRetinaHead, YOLOV3Head
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.structures.bbox import get_box_tensor
from mmengine.model import BaseModule
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .base import Aligner, true_boxes
from .crossed import check_crossing, crossed, layer_of, recording
from .dense_boxes import DenseBoxes, bins_of, decoder_of
from .dense_labels import WITHOUT_LABELS, DenseTape, loss_labels
from .query import in_classes_of_teacher

COCO_SIZE = (800, 1333)
"""Height and width of an image as mmdet's COCO configs resize it."""
QUALITIES = ('score_factors', 'objectnesses')
"""Names of the third argument of a head's `predict_by_feat` where that is multiplied with the class scores."""


@TASK_UTILS.register_module()
class DenseAligner(Aligner):
    """Pairs the anchors of dense heads: both sides score every anchor (or point) of every level.

    For each head whose ``forward`` gives its class scores as one map ``(N, A * c, h, w)`` a level: RetinaNet, FCOS,
    ATSS, GFL, RTMDet, YOLOX, SSD, an RPN... A row is an anchor; its logits are the scores of its classes. Both
    sides are read by one rule (:class:`ckd_mmdet.rows.MapRows`), so their heads need the same strides and as many
    anchors a cell; they may be of different kinds.

    Labels are those of the student's own loss, where that takes the rows as they are; a head that reorders them, or
    takes some only (PAA, YOLOX), gives logits alone.

    With ``through`` the heads are crossed (CrossKD, arXiv 2306.11369): the student's features behind that layer of its
    head pass the other layers of the *teacher's* head, and what comes out stands in the place of the student's own
    scores and boxes. Gradient reaches the student's layers up to there. That is for heads with layers ``cls_convs`` and
    ``reg_convs``, of equal widths, and costs two more passes of the teacher's head: one forward, one backward.

    Args:
        head: The head's name in both models, ``'rpn_head'`` for example.
        through: Number of layers of the student's before the teacher's head goes on, 0 for the maps of its neck;
            negative ones count from the end: of four layers -1 is 3, the best for GFL in the paper. ``None``: heads are
            not crossed.

    Raises:
        ValueError: If ``through`` is no whole number.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'level_ids', 'boxes', 'truths', 'distributions',
                          'valuable'})
    lacks = {'features': 'a dense head scores by a convolution that the anchors of all places share: it has no '
                         'category centres, and no feature of a row',
             'regions': 'its rows are anchors, of which many are at one object',
             'masks': 'RTMDet-Ins and CondInst make each mask by filters of its own, other dense heads make none'}

    def __init__(self, head: str = 'bbox_head', through: int | None = None) -> None:
        if through is not None and type(through) is not int:
            raise ValueError(f'`DenseAligner` needs a whole number as `through`, or None, got {through!r}.')
        self.head = head
        self.through = through
        # outlives a step: what the first steps taught of each loss spares the later ones the wait, see loss_labels()
        self._in_order: dict[str, int] = {}

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
        if self.through is None:
            return dense_scoring(ours), dense_scoring(theirs)
        check_crossing(ours, theirs, self.through)
        # crossed scores are written by the teacher's head
        return replace(dense_scoring(theirs), num_classes=dense_scoring(ours).num_classes), dense_scoring(theirs)

    def gives_labels(self, student: nn.Module) -> bool | None:
        head: BaseModule = self._head(student, 'student')
        if isinstance(head, WITHOUT_LABELS):
            return False
        return True if type(head).loss_by_feat.__module__.startswith('mmdet.') else None

    def check_boxes(self, student: nn.Module, teacher: nn.Module) -> None:
        for model, side in ((student, 'student'), (teacher, 'teacher')):
            head = self._head(model, side)
            if decoder_of(head) is None:
                raise ValueError(f"`DenseAligner` does not know how the {side}'s {type(head).__name__} writes its "
                                 'boxes (docs/supported.md has the heads that it knows); take losses that need no '
                                 'boxes, with `--method kd` for example.')

    def check_distributions(self, student: nn.Module, teacher: nn.Module) -> None:
        bins = []
        for model, side in ((student, 'student'), (teacher, 'teacher')):
            head = self._head(model, side)
            bins.append(bins_of(head))
            if bins[-1] is None:
                raise ValueError('`DenseAligner` finds distributions of where the edges of a box are in heads such as '
                                 f"GFL's, and the {side}'s {type(head).__name__} regresses plain numbers; take "
                                 '`--method boxes`, or `--method kd` where it is refused.')
        if bins[0] != bins[1]:
            raise ValueError("`DenseAligner` compares distributions of as many bins, and the student's head has "
                             f"{bins[0]}, the teacher's {bins[1]}; take `--method boxes`, or the same `reg_max`.")

    def rows_in_words(self, student: nn.Module) -> str:
        head = self._head(student, 'student')
        rows = _number_of_rows(head)
        words = f'{rows:,} anchors in an image of {COCO_SIZE[0]}x{COCO_SIZE[1]}' if rows else 'every anchor'
        if self.through is None:
            return words
        return f"{words}, the student's features behind layer {layer_of(head, self.through)} scored by the teacher"

    def too_many_rows(self, student: nn.Module) -> str:
        head = self._head(student, 'student')
        rows = _number_of_rows(head)
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
            layer = 0 if self.through is None else layer_of(head, self.through)
            towers = taps.enter_context(recording(head, layer))
            yield DenseTape(head, scores, [taps.enter_context(ModuleTap(getattr(head, name), f'{self.head}.{name}'))
                                           for name in names], towers)

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: DenseTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        recorded = tape.scores.only().output
        student_rows = class_rows(tape.head, recorded)
        head = self._head(teacher, 'teacher')
        # around the teacher only: the student's rows keep their graph
        with torch.no_grad(), answering_as_in_training(head):
            output = head(feats)
            teacher_rows = class_rows(head, output)
        sizes = [[(level.shape[1], *level.shape[3:]) for level in rows.maps] for rows in (student_rows, teacher_rows)]
        if sizes[0] != sizes[1]:
            raise RuntimeError(f"expected the teacher's {type(head).__name__} to give class maps of the student's "
                               f'(anchors, height, width), {sizes[0]}, saw {sizes[1]}; take an ObjectAligner')
        labels, why_not, faults = loss_labels(tape, student_rows, self._in_order)
        answering, given = tape.head, recorded
        if self.through is not None:
            answering, given = head, self._crossed(head, feats, tape)
            student_rows = class_rows(head, given)
        boxes = DenseBoxes.of(answering, given, student_rows), DenseBoxes.of(head, output, teacher_rows)
        return Answer(student_rows, teacher_rows, labels, student_rows.image_ids(), student_rows.level_ids(), why_not,
                      boxes=None if boxes[0] is None or boxes[1] is None else (boxes[0], boxes[1]),
                      truths=true_boxes(data_samples), crossed=self.through is not None, faults=faults,
                      valuable=None if boxes[0] is None else partial(_valuable, boxes[0], data_samples, classes))

    def _crossed(self, head: nn.Module, feats: Sequence[Tensor], tape: DenseTape) -> Sequence:
        """What the teacher's head gives for the student's features."""
        assert self.through is not None
        inputs = tape.scores.only().arg(0, 'x', 'feats')
        with answering_as_in_training(head):
            return crossed(head, feats, inputs, tape.towers, layer_of(tape.head, self.through))

    def _head(self, model: nn.Module, side: str) -> nn.Module:
        head = dict(model.named_modules()).get(self.head)
        if head is None or class_columns(head) is None:
            known = [name for name, module in model.named_modules() if class_columns(module) is not None]
            fact = 'has no such module' if head is None else f'has a {type(head).__name__} there'
            way_out = f'give `head` one of {known}' if known else 'none of its modules is one'
            raise ValueError(f'`DenseAligner` needs a {side} with a dense head `{self.head}`, and the '
                             f'{type(model).__name__} {fact}; {way_out}.')
        return head


def _valuable(boxes: DenseBoxes, data_samples: Sequence[BaseDataElement], classes: SharedClasses | None) -> Tensor:
    """Rows near an object that the teacher has a class for."""
    _, known = in_classes_of_teacher(data_samples, classes)
    return boxes.valuable([get_box_tensor(sample.gt_instances.bboxes) for sample in known])


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
    """How a dense head scores a row: by sigmoids, or by a softmax with background in its last column."""
    softmax = not getattr(head, 'use_sigmoid_cls', True)
    return Scoring(class_columns(head) - softmax, softmax)


def _strides(head: nn.Module) -> list[int]:
    generator = getattr(head, 'prior_generator', None)
    return [max(stride) for stride in generator.strides] if generator is not None else []


def _anchors(head: nn.Module) -> list[int]:
    generator = getattr(head, 'prior_generator', None)
    return list(generator.num_base_priors) if generator is not None else []


def geometry_of(head: nn.Module) -> dict[str, list]:
    """Strides of a dense head's levels, number of anchors a cell, and their (width, height) in pixels, as JSON has it;
    empty where it does not say."""
    return {'strides': _strides(head), 'anchors a cell': _anchors(head),
            'anchors': [[list(size) for size in level] for level in _anchor_sizes(head)]}


def _number_of_rows(head: nn.Module) -> int:
    """Of an image as mmdet's COCO configs resize it; 0 where the head does not say."""
    return sum(math.prod(math.ceil(side / stride) for side in COCO_SIZE) * anchors
               for stride, anchors in zip(_strides(head), _anchors(head), strict=True))


def _anchor_sizes(head: nn.Module) -> list[list[tuple[int, int]]]:
    """Width and height of each level's anchors, rounded to pixels; nothing where they are points."""
    generator = getattr(head, 'prior_generator', None)
    return [[(round(x2 - x1), round(y2 - y1)) for x1, y1, x2, y2 in level.tolist()]
            for level in getattr(generator, 'base_anchors', [])]


def class_rows(head: nn.Module, output: Sequence) -> MapRows:
    """The anchors' class scores in what the head gave, as views, and how it ranks them."""
    maps, columns = output[0], class_columns(head)
    if isinstance(head, YOLOV3Head):  # four of the box and the objectness stand before the classes
        maps = [level.unflatten(1, (-1, head.num_attrib)) for level in maps]
        return MapRows([level[:, :, -columns:] for level in maps], SIGMOID,
                       [level[:, :, 4].detach().float().sigmoid() for level in maps])
    # TOOD's head gives probabilities, and says so where it names its loss only
    activated = getattr(getattr(head, 'initial_loss_cls', None), 'activated', False)
    ranking = Ranking(dense_scoring(head).softmax, activated, geometric=isinstance(head, PAAHead))
    rows = MapRows([level.unflatten(1, (-1, columns)) for level in maps], ranking)
    return replace(rows, quality=_quality(head, output, rows))


@torch.no_grad()
def _quality(head: nn.Module, output: Sequence, rows: MapRows) -> list[Tensor] | None:
    """What the head multiplies a row's scores with at test time, one ``(N, A, h, w)`` a level; ``None`` if nothing."""
    if isinstance(head, SABLRetinaHead):
        return [_bucket_confidence(head, *level) for level in output[1]]
    names = list(inspect.signature(head.predict_by_feat).parameters)
    if len(output) < 3 or names[2] not in QUALITIES:
        return None
    # in training the third of VFNet and RepPoints is another set of boxes
    if any(part.shape[1] != level.shape[1] for part, level in zip(output[2], rows.maps, strict=True)):
        return None
    return [part.float().sigmoid() for part in output[2]]


def _bucket_confidence(head: nn.Module, buckets: Tensor, offsets: Tensor) -> Tensor:
    """How sure SABL is of the sides of its boxes, which its coder knows; ``(N, 1, h, w)``, one anchor a place."""
    images, _, height, width = buckets.shape
    sides = [part.permute(0, 2, 3, 1).reshape(-1, 4 * head.side_num) for part in (buckets, offsets)]
    # of any boxes: those of the anchors do not matter to it
    _, confidence = head.bbox_coder.decode(sides[0].new_zeros(len(sides[0]), 4), sides)
    return confidence.reshape(images, 1, height, width)
