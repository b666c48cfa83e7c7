"""Relations: the cosines among the student's rows are those among the teacher's, with nothing pushed apart."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def relation_loss(student: Tensor, teacher: Tensor, *, negatives: Callable[[slice], Tensor] | None = None) -> Tensor:
    r"""Difference of each sample's cosines with the others from the teacher's.

    .. math:: \ell_i = \frac{1}{2 |N_i|} \sum_{j \in N_i} (\cos(s_i, s_j) - \cos(t_i, t_j))^2

    with :math:`N_i` the other samples, by default all (the edges of DSIG, ICCV 2021; the mean over them is ours).

    Args:
        student: Shape ``(n, d)``; ``n`` samples.
        teacher: The teacher's of the same samples, shape ``(n, k)``, of any width; no gradient flows to it.
        negatives: As of :func:`ckd_mmdet.functional.ckd_loss`, a function.

    Returns:
        Loss of each sample, shape ``(n,)``, from 0 to 2, at least float32; 0 where there are no others. Memory grows
        with :math:`n^2`.

    Raises:
        ValueError: If the shapes are not two-dimensional, or of other numbers of rows.
    """
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher):
        raise ValueError('`relation_loss` needs rows (n, d) and (n, k) of the same samples, got shapes '
                         f'{tuple(student.shape)} and {tuple(teacher.shape)}.')
    exact = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        s, t = (F.normalize(rows.to(exact), dim=1) for rows in (student, teacher.detach()))
        others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
        if negatives is not None:
            others &= negatives(slice(0, len(s)))
        squares = (s @ s.T - t @ t.T).square() * others
        return squares.sum(1) / (2 * others.sum(1).clamp(min=1))
