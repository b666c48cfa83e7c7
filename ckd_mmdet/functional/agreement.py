"""What is logged beside the losses: how far student and teacher agree, and whether the teacher is right."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import paired_logits

MOST_ROWS = 1024
"""Rows that are compared with each other: the cosines of all pairs cost more than the losses where rows are many."""


@torch.no_grad()
def agreement(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    r"""How well each student row finds its teacher row among the batch.

    Of more than 1024 rows, 1024 at even distances stand for all: row :math:`\lfloor k n / 1024 \rfloor` for each ``k``.

    Args:
        student: Logits, shape ``(n, c)``.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``.

    Returns:
        Scalars in at least float32: ``rows`` (:math:`n`, all of them), ``cosine`` (mean of :math:`t_i \cdot s_i` over
        unit vectors, in [-1, 1]) and ``retrieval`` (share of rows whose own student row is the nearest to the teacher's
        by cosine; a tie counts as found). The last two are 0 for :math:`n = 0`.

    Raises:
        ValueError: If the shapes differ.
    """
    student, teacher = paired_logits(student, teacher, 'agreement')
    n = len(student)
    if n > MOST_ROWS:
        chosen = torch.arange(MOST_ROWS, device=student.device) * n // MOST_ROWS
        student, teacher = student[chosen], teacher[chosen]
    with torch.autocast(student.device.type, enabled=False):
        cosines = F.normalize(teacher, dim=1) @ F.normalize(student, dim=1).T
    rows = student.new_full((), n)
    if not n:
        return {'rows': rows, 'cosine': rows, 'retrieval': rows}
    own = cosines.diagonal()
    return {'rows': rows, 'cosine': own.mean(), 'retrieval': (own >= cosines.amax(1)).float().mean()}
