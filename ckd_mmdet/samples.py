"""The data that crosses from the aligners to the losses: rows or maps of student and teacher, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from ckd_mmdet.boxes import BoxRows, Truths
from ckd_mmdet.masks import MaskRows
from ckd_mmdet.rows import Rows
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """What one model says of ``n`` regions or images."""

    logits: Tensor
    """Raw class scores, shape ``(n, c)``."""
    features: Tensor | None = None
    """Input of the last classifier layer, shape ``(n, d)``; ``d`` may be another on the other side."""
    centers: Tensor | None = None
    """That layer's weight rows, the category centres, shape ``(c, d)``."""
    biases: Tensor | None = None
    """That layer's biases, shape ``(c,)``, where it has some."""
    log_odds: Tensor | None = None
    """Of a softmax that is compared with sigmoids: log odds of each shared class's probability, shape ``(n, c)``."""

    boxes: Tensor | None = None
    """Corners x1, y1, x2, y2 in pixels of the batch, decoded by this model, shape ``(n, 4)``."""
    distributions: Tensor | None = None
    """Logits of where each edge of the box is, over the bins of a head such as GFL, shape ``(n, 4, bins)``."""
    masks: Tensor | None = None
    """Logits of the mask of the row's true class, shape ``(n, h, w)``; of rows without an object any."""

    def select(self, index: Tensor) -> Side:
        """The rows at ``index``, shape ``(m,)``."""
        parts = {name: getattr(self, name) for name in
                 ('logits', 'features', 'log_odds', 'boxes', 'distributions', 'masks')}
        return replace(self, **{name: part[index] for name, part in parts.items() if part is not None})

    def tensors(self) -> list[Tensor]:
        """Everything that is there."""
        parts = self.logits, self.features, self.centers, self.biases, self.boxes, self.distributions, self.masks
        return [part for part in parts if part is not None]

    def probabilities(self, num_classes: int, scoring: str) -> Tensor:
        """Of the foreground classes, shape ``(n, num_classes)``, at least float32.

        Args:
            num_classes: Their number.
            scoring: As of :class:`AlignedSamples`.
        """
        exact = torch.promote_types(self.logits.dtype, torch.float32)
        if scoring == 'softmax':
            return self.logits.to(exact).softmax(1)[:, :num_classes]
        return (self.logits if self.log_odds is None else self.log_odds).to(exact).sigmoid()


@dataclass(frozen=True)
class AlignedSamples:
    """Row ``i`` of the student and row ``i`` of the teacher speak of the same region of the same image.

    The student's side carries gradient, the teacher's never does. In a batch that holds each image in several views, a
    row is a view.
    """

    student: Side
    teacher: Side
    num_classes: int
    """Number of foreground classes."""
    labels: Tensor | None = None
    """Shape ``(n,)``, int64; ``num_classes`` is background, negative is to be ignored. Of mixed images soft, shape
    ``(n, num_classes)`` and floating."""
    image_ids: Tensor | None = None
    """Index of the row's image in the batch, shape ``(n,)``, int64; the views of one image share it."""
    scoring: str = 'softmax'
    """``'softmax'``: ``c = num_classes + 1``, background last, or ``c = num_classes`` of a classifier, which has no
    background; ``'sigmoid'``: ``c = num_classes``; ``'mixed'``: one side of each kind, ``c = num_classes``."""
    views: Tensor | None = None
    """Which view of its image a row is, shape ``(n,)``, int64; 0 is the plain one. ``None``: all are plain."""
    filtered: bool = False
    """Whether rows to be ignored are out already and labels in their range, so that no loss need wait to look."""
    joined: JoinedRows | None = None
    """The plain rows of all ranks, for losses that need them; ``None`` in one process, and of chosen rows."""
    positives: Tensor | None = None
    """Number of rows with an object, on the average over the ranks, shape ``()``; ``None`` in one process."""
    boxed: Tensor | None = None
    """Which rows have a box on both sides, shape ``(n,)``, bool; ``None``: all, where any has."""
    truths: Tensor | None = None
    """The true box of each row with an object, shape ``(n, 4)``, as :attr:`Side.boxes`; of others any."""
    regions: Tensor | None = None
    """What each row is of, corners in pixels of the batch, shape ``(n, 4)``: of a RoI head its RoIs."""
    valuable: Tensor | None = None
    """Which rows are near an object, shape ``(n,)``, bool, see :func:`ckd_mmdet.functional.valuable_region`."""

    def __len__(self) -> int:
        return len(self.student.logits)

    def select(self, index: Tensor) -> AlignedSamples:
        """The rows at ``index``, shape ``(m,)``, int64."""
        parts = {name: getattr(self, name) for name in
                 ('labels', 'image_ids', 'views', 'boxed', 'truths', 'regions', 'valuable')}
        return replace(self, student=self.student.select(index), teacher=self.teacher.select(index), joined=None,
                       **{name: part[index] for name, part in parts.items() if part is not None})

    def plain(self) -> AlignedSamples:
        """The rows of the plain views."""
        if self.views is None:
            return self
        return replace(self.select((self.views == 0).nonzero().squeeze(1)), joined=self.joined)


@dataclass(frozen=True)
class JoinedRows:
    """The rows of all ranks of a training, this rank's among them."""

    rows: AlignedSamples
    """Logits, labels and images, rank after rank; only this rank's logits have a graph."""
    own: slice
    """Which of them are this rank's."""
    ranks: int
    """Number of ranks, those without rows included."""


@dataclass(frozen=True)
class AlignedMaps:
    """Feature maps of both models for the same images, one pair a level.

    The student's side carries gradient, the teacher's never does.
    """

    student: Sequence[Tensor]
    """Shape ``(N, d_s, h, w)`` each; width, height and channels change with the level."""
    teacher: Sequence[Tensor]
    """Shape ``(N, d_t, h, w)`` each."""
    boxes: Sequence[Tensor] | None = None
    """The true objects of each image, shape ``(m, 4)``: x1, y1, x2, y2 in pixels of the batch; ``None`` of images that
    are classified."""
    image_size: tuple[int, int] | None = None
    """Height and width of the padded batch in pixels: what the maps cover."""

    def __len__(self) -> int:
        return len(self.student[0])


@dataclass(frozen=True)
class Widths:
    """Number of channels of each level's maps, known before training; of rows one number a side, their features'."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


@dataclass(frozen=True)
class LastLayer:
    """The linear layer that gives a head's scores, and its input."""

    features: Tensor
    """Shape ``(n, d)``, a row for each that the aligner pairs."""
    weight: Tensor
    """Shape ``(c, d)``."""
    bias: Tensor | None
    """Shape ``(c,)``."""

    def detach(self) -> LastLayer:
        """The same without gradient."""
        bias = None if self.bias is None else self.bias.detach()
        return LastLayer(self.features.detach(), self.weight.detach(), bias)


@dataclass(frozen=True)
class Answer:
    """What an aligner gives: every row that could be paired, where it lies.

    Row ``i`` of both sides speaks of the same region; nothing is copied yet.
    """

    student: Rows
    teacher: Rows
    labels: Tensor | None = None
    """As the student's head numbers its classes, shape ``(n,)``; its number of classes is background, negative is to
    be ignored."""
    image_ids: Tensor | None = None
    level_ids: Tensor | None = None
    no_labels: str = ''
    """Why there are none."""
    layers: tuple[LastLayer, LastLayer] | None = None
    """Of student and teacher; from an aligner that provides features."""
    views: Tensor | None = None
    """As :attr:`AlignedSamples.views`."""
    boxes: tuple[BoxRows, BoxRows] | None = None
    """Of student and teacher; from an aligner that provides boxes."""
    truths: Truths | None = None
    """The true boxes, from the same."""
    regions: Tensor | None = None
    """What each row is of, shape ``(n, 4)``, where that tells its true box: a RoI, or the object itself. ``None``: the
    teacher's box tells."""
    valuable: Callable[[], Tensor] | None = None
    """As :attr:`AlignedSamples.valuable`, of all rows; called where it is asked for."""
    masks: Callable[[], tuple[MaskRows, MaskRows]] | None = None
    """Of student and teacher; called where it is asked for."""
    crossed: bool = False
    """Whether the student's rows are of the teacher's classes too, as its head gave them for the student's features."""
    faults: Mapping[str, Tensor] = field(default_factory=dict)
    """What must not be, by the error's text: a scalar on the device that is true where it is, see
    :func:`ckd_mmdet.ranks.stopping_together`."""


@dataclass(frozen=True)
class Candidates:
    """What a selector may look at: one number a row, for ``n`` rows."""

    allowed: Tensor
    """Rows that may be chosen at all, shape ``(n,)``, bool: none that is to be ignored, or whose object the teacher has
    no class for."""
    num_classes: int
    """Number of foreground classes that both know."""
    confidence: Tensor | None = None
    """The score by which the teacher itself would rank the row at test time, shape ``(n,)``: the best of the shared
    foreground classes, see :meth:`ckd_mmdet.rows.Rows.confidence`. ``None`` where the selector does not ask for it."""
    labels: Tensor | None = None
    """One class a row, shape ``(n,)``, int64; ``num_classes`` is background."""
    image_ids: Tensor | None = None
    level_ids: Tensor | None = None
    valuable: Tensor | None = None
    """As :attr:`AlignedSamples.valuable`; ``None`` where the selector does not ask for it."""

    def __len__(self) -> int:
        return len(self.allowed)

    @property
    def foreground(self) -> Tensor:
        """Rows that hold an object, shape ``(n,)``, bool."""
        assert self.labels is not None  # as the selector's `requires` says
        return is_foreground(self.labels, self.num_classes)

    def only(self, mask: Tensor) -> Candidates:
        """The same rows, of which only those in the mask may be chosen."""
        return replace(self, allowed=self.allowed & mask)


def hard(labels: Tensor) -> Tensor:
    """One class a row, shape ``(n,)``: of soft labels the likeliest."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def is_foreground(labels: Tensor, num_classes: int) -> Tensor:
    """Rows that hold an object: ``0 <= labels < num_classes``, shape ``(n,)``, bool."""
    return (labels >= 0) & (labels < num_classes)
