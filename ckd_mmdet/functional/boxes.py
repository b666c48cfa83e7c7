"""How far the student's boxes are from the teacher's, one value a pair of boxes."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import in_one_precision, not_negative, one_of

KINDS = ('giou', 'iou', 'l1', 'bounded')
EPSILON = 1e-6
"""Least area of a union in square pixels: two boxes without area have an overlap of 0."""
LEAST_SIDE = 1.0
"""Least width and height, in pixels, by which differences are divided."""


def box_loss(student: Tensor, teacher: Tensor, *, kind: str = 'giou', truth: Tensor | None = None,
             margin: float = 0.0) -> Tensor:
    r"""Distance of each of the student's boxes from the teacher's, or with the teacher as bound from the truth.

    .. math:: \ell_i = 1 - \mathrm{GIoU}(b^s_i, b^t_i), \quad 1 - \mathrm{IoU}(b^s_i, b^t_i), \quad
              \| (b^s_i - b^t_i) / a_i \|_1 \quad \text{or} \quad
              \| d^s_i \|^2 \cdot 1 \big[ \| d^s_i \|^2 + m > \| d^t_i \|^2 \big], \;
              d_i = (b_i - y_i) / a_i

    :math:`1 - \mathrm{GIoU}` is the box term of BCKD (arXiv 2308.14286, as released; the paper has IoU). ``'bounded'``
    is the teacher-bounded regression of Chen et al. (NIPS 2017), where the true box :math:`y_i` is the target as long
    as the student is no better than the teacher by the margin :math:`m`. Both papers' differences are between the
    numbers that a head regresses; ours are between corners, in units of :math:`a_i`, the width and height of the
    teacher's box, of ``'bounded'`` of the true one (at least one pixel): they mean the same of every head.

    Args:
        student: Corners x1, y1, x2, y2 in pixels, shape ``(n, 4)``.
        teacher: The teacher's, shape ``(n, 4)``; no gradient flows to it.
        kind: ``'giou'``, ``'iou'``, ``'l1'`` or ``'bounded'``.
        truth: The true boxes, shape ``(n, 4)``; for ``'bounded'``.
        margin: :math:`m \ge 0`, for ``'bounded'``.

    Returns:
        Shape ``(n,)``, at least float32: from 0 to 2 (GIoU), from 0 to 1 (IoU), or at least 0.

    Raises:
        ValueError: If shapes differ, ``kind`` is unknown, ``margin`` is negative, or ``'bounded'`` lacks the truth.
    """
    one_of(kind, KINDS, 'kind', 'box_loss')
    not_negative(margin, 'margin', 'box_loss')
    student, teacher = _paired(student, teacher, 'teacher')
    with torch.autocast(student.device.type, enabled=False):
        if kind == 'bounded':
            if truth is None:
                raise ValueError("`box_loss` of `kind='bounded'` needs `truth`, the true boxes, got None.")
            student, truth = _paired(student, truth, 'truth')
            sides = _sides(truth)
            return bounded_loss((student - truth) / sides, (teacher - truth) / sides, margin=margin)
        if kind == 'l1':
            return ((student - teacher) / _sides(teacher)).abs().sum(1)
        return 1 - overlap(student, teacher, generalized=kind == 'giou')


def bounded_loss(student: Tensor, teacher: Tensor, *, margin: float = 0.0) -> Tensor:
    r"""Square of the student's error where it is no less than the teacher's by a margin, else 0.

    .. math:: \ell_i = \| s_i \|^2 \cdot 1 \big[ \| s_i \|^2 + m > \| t_i \|^2 \big]

    (Chen et al., Learning efficient object detection models with knowledge distillation, NIPS 2017.)

    Args:
        student: The student's errors, shape ``(n, d)``.
        teacher: The teacher's, shape ``(n, d)``; no gradient flows to it.
        margin: :math:`m`.

    Returns:
        Shape ``(n,)``.
    """
    ours, theirs = student.square().sum(1), teacher.detach().square().sum(1)
    return torch.where(ours + margin > theirs, ours, torch.zeros_like(ours))


def overlap(one: Tensor, other: Tensor, *, generalized: bool = False) -> Tensor:
    r"""Intersection over union of boxes, or GIoU, its generalised form (arXiv 1902.09630).

    .. math:: \mathrm{IoU} = \frac{|a \cap b|}{|a \cup b|}, \quad
              \mathrm{GIoU} = \mathrm{IoU} - \frac{|c| - |a \cup b|}{|c|}

    where :math:`c` is the smallest box around both. Shapes ``(..., 4)`` are broadcast.

    Args:
        one: Corners x1, y1, x2, y2; a box whose corners are swapped has no area.
        other: The same.
        generalized: Whether it is GIoU.

    Returns:
        From 0 to 1, or from -1 to 1; shape ``(...)``.
    """
    inner = _area(torch.maximum(one[..., :2], other[..., :2]), torch.minimum(one[..., 2:], other[..., 2:]))
    areas = [_area(box[..., :2], box[..., 2:]) for box in (one, other)]
    union = (areas[0] + areas[1] - inner).clamp(min=EPSILON)
    if not generalized:
        return inner / union
    around = _area(torch.minimum(one[..., :2], other[..., :2]), torch.maximum(one[..., 2:], other[..., 2:]))
    around = around.clamp(min=EPSILON)
    return inner / union - (around - union) / around


def _area(least: Tensor, most: Tensor) -> Tensor:
    return (most - least).clamp(min=0).prod(-1)


def _sides(boxes: Tensor) -> Tensor:
    """Width, height, width, height of boxes ``(n, 4)``."""
    return (boxes[:, 2:] - boxes[:, :2]).clamp(min=LEAST_SIDE).repeat(1, 2)


def _paired(student: Tensor, other: Tensor, name: str) -> tuple[Tensor, Tensor]:
    if student.ndim != 2 or student.shape[1] != 4 or student.shape != other.shape:
        raise ValueError(f'`box_loss` needs `student` and `{name}` of one shape (n, 4), got {tuple(student.shape)} and '
                         f'{tuple(other.shape)}.')
    return in_one_precision(student, other)
