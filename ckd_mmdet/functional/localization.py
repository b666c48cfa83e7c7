"""LD: where a box's edges are, as distributions; and the region about an object where that is worth learning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .boxes import EPSILON, overlap
from .checks import in_one_precision, positive

NEAREST = 9
"""Anchors a level that decide by their overlaps from where on an anchor counts as an object's, as ATSS has it."""
LEAST_SHARE = 0.25
"""Of that threshold, from which an anchor is valuable."""


def ld_loss(student: Tensor, teacher: Tensor, *, temperature: float = 10.0) -> Tensor:
    r"""Divergence of the student's distributions of a box's edges from the teacher's, for each box.

    .. math:: \ell_i = \frac{1}{4} \sum_{e=1}^{4} \frac{T^2}{R + 1} \,
              \mathrm{KL} \big( \mathrm{softmax}(t_{ie} / T) \,\|\, \mathrm{softmax}(s_{ie} / T) \big)

    (LD, arXiv 2102.12252; the mean over the :math:`R + 1` bins as in the released code.)

    Args:
        student: Logits over the bins of each edge, shape ``(n, 4, R + 1)``.
        teacher: The teacher's, shape ``(n, 4, R + 1)``; no gradient flows to it.
        temperature: :math:`T > 0`.

    Returns:
        Shape ``(n,)``, at least float32; zero where all distributions are equal.

    Raises:
        ValueError: If shapes differ, or ``temperature`` is not positive.
    """
    positive(temperature, 'temperature', 'ld_loss')
    if student.ndim != 3 or student.shape[1] != 4 or student.shape != teacher.shape:
        raise ValueError(f'`ld_loss` needs `student` and `teacher` of one shape (n, 4, bins), got '
                         f'{tuple(student.shape)} and {tuple(teacher.shape)}.')
    student, teacher = in_one_precision(student, teacher)
    with torch.autocast(student.device.type, enabled=False):
        log_p, log_q = F.log_softmax(teacher / temperature, 2), F.log_softmax(student / temperature, 2)
        return temperature**2 * F.kl_div(log_q, log_p, log_target=True, reduction='none').mean((1, 2))


@torch.no_grad()
def valuable_region(anchors: Sequence[Tensor], boxes: Tensor) -> Tensor:
    r"""Anchors that are near an object, but not near enough to count as its own.

    .. math:: \tfrac{1}{4} \tau_g \le \mathrm{DIoU}(a, g) < \tau_g \; \text{for some object} \; g, \quad
              \tau_g = \mu_g + \sigma_g

    the mean and the standard deviation of the overlaps of :math:`g` with the 9 anchors of each level whose centres are
    nearest (the valuable localisation region of LD, arXiv 2102.12252, with the threshold of ATSS, arXiv 1912.02424).

    Args:
        anchors: Corners, one ``(p, 4)`` a level.
        boxes: Corners of the objects, shape ``(k, 4)``.

    Returns:
        Of the anchors of all levels in turn, shape ``(n,)``, bool.
    """
    every = torch.cat(list(anchors))
    if not len(boxes):
        return torch.zeros(len(every), dtype=torch.bool, device=every.device)
    overlaps, apart = overlap(every[:, None], boxes), _center_distance(every, boxes)
    lengths = [len(level) for level in anchors]
    nearest = [of_level.gather(0, distance.topk(min(NEAREST, len(distance)), 0, largest=False).indices)
               for of_level, distance in zip(overlaps.split(lengths), apart.split(lengths), strict=True)]
    candidates = torch.cat(nearest)  # (9 a level, k)
    threshold = candidates.mean(0) + (candidates.std(0) if len(candidates) > 1 else 0)
    least = torch.minimum(every[:, None, :2], boxes[:, :2])
    most = torch.maximum(every[:, None, 2:], boxes[:, 2:])
    distances = overlaps - apart / (most - least).square().sum(2).clamp(min=EPSILON)  # DIoU
    return ((distances >= LEAST_SHARE * threshold) & (distances < threshold)).any(1)


def _center_distance(one: Tensor, other: Tensor) -> Tensor:
    """Squared, of each of ``(m, 4)`` from each of ``(k, 4)``, shape ``(m, k)``."""
    centers = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (one, other)]
    return (centers[0][:, None] - centers[1]).square().sum(2)
