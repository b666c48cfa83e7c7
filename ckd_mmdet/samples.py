"""The data that crosses from the aligners to the losses: rows or maps of student and teacher, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ckd_mmdet.rows import Rows
from torch import Tensor


@dataclass(frozen=True)
class Side:
    """What one model says of ``n`` regions or images."""

    logits: Tensor
    """Raw class scores, shape ``(n, c)``."""


@dataclass(frozen=True)
class AlignedSamples:
    """Row ``i`` of the student and row ``i`` of the teacher speak of the same region of the same image.

    The student's side carries gradient, the teacher's never does.
    """

    student: Side
    teacher: Side
    num_classes: int
    """Number of foreground classes."""
    labels: Tensor | None = None
    """Shape ``(n,)``, int64; ``num_classes`` is background, negative is to be ignored."""
    image_ids: Tensor | None = None
    """Index of the row's image in the batch, shape ``(n,)``, int64."""
    scoring: str = 'softmax'
    """``'softmax'``: ``c = num_classes + 1``, background last; ``'sigmoid'``: ``c = num_classes``; ``'mixed'``: one
    side of each kind, ``c = num_classes``."""

    def __len__(self) -> int:
        return len(self.student.logits)


@dataclass(frozen=True)
class AlignedMaps:
    """Feature maps of both models for the same images, one pair a level.

    The student's side carries gradient, the teacher's never does.
    """

    student: Sequence[Tensor]
    """Shape ``(N, d_s, h, w)`` each; width, height and channels change with the level."""
    teacher: Sequence[Tensor]
    """Shape ``(N, d_t, h, w)`` each."""

    def __len__(self) -> int:
        return len(self.student[0])


@dataclass(frozen=True)
class Widths:
    """Number of channels of each level's maps, known before training."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]


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


@dataclass(frozen=True)
class Candidates:
    """What a selector may look at: one number a row, for ``n`` rows."""

    confidence: Tensor
    """The teacher's greatest score over the foreground classes, shape ``(n,)``."""
    num_classes: int
    labels: Tensor | None = None
    image_ids: Tensor | None = None
    level_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.confidence)

    def take(self, index: Tensor) -> Candidates:
        """Those at ``index``, shape ``(m,)``."""
        parts = {name: getattr(self, name) for name in ('confidence', 'labels', 'image_ids', 'level_ids')}
        return replace(self, **{name: part[index] for name, part in parts.items() if part is not None})


def is_foreground(labels: Tensor, num_classes: int) -> Tensor:
    """Rows that hold an object: ``0 <= labels < num_classes``, shape ``(n,)``, bool."""
    return (labels >= 0) & (labels < num_classes)
