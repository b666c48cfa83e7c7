"""The data that crosses from the aligners to the losses: rows of student and teacher, side by side."""

from __future__ import annotations

from dataclasses import dataclass

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

    def __len__(self) -> int:
        return len(self.student.logits)


@dataclass(frozen=True)
class Candidates:
    """What a selector may look at: ``n`` rows, before anything of the student is copied."""

    logits: Tensor
    """The teacher's class scores, shape ``(n, c)``."""
    num_classes: int
    labels: Tensor | None = None
    image_ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)


def is_foreground(labels: Tensor, num_classes: int) -> Tensor:
    """Rows that hold an object: ``0 <= labels < num_classes``, shape ``(n,)``, bool."""
    return (labels >= 0) & (labels < num_classes)
