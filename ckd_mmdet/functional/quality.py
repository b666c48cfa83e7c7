"""The quality focal loss with the teacher's scores as targets: the class term of BCKD and CrossKD."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import is_finite, paired_logits


def quality_kd_loss(student: Tensor, teacher: Tensor, *, beta: float = 1.0) -> Tensor:
    r"""Cross-entropy of each sigmoid with the teacher's probability, weighed by how far the two are apart.

    .. math:: \ell_i = \sum_c |p_{ic} - q_{ic}|^\beta \,
              \big[ -p_{ic} \log q_{ic} - (1 - p_{ic}) \log (1 - q_{ic}) \big], \quad
              p_i = \sigma(t_i), \; q_i = \sigma(s_i)

    (BCKD, arXiv 2308.14286, and with :math:`\beta = 1` CrossKD, arXiv 2306.11369; the form is that of the quality
    focal loss, arXiv 2006.04388.) Gradient flows through the weight too, as in the released code of BCKD.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        beta: :math:`\beta`, 0 for the plain cross-entropy or at least 1: in between, equal probabilities would have an
            endless gradient.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32. With ``beta`` of at least 1 it is zero where all
        probabilities are equal.

    Raises:
        ValueError: If shapes differ, or ``beta`` is out of its range.
    """
    beta_in_range(beta, 'quality_kd_loss')
    student, teacher = paired_logits(student, teacher, 'quality_kd_loss')
    with torch.autocast(student.device.type, enabled=False):
        target = teacher.sigmoid()
        gap = (target - student.sigmoid()).abs() ** beta
        return (gap * F.binary_cross_entropy_with_logits(student, target, reduction='none')).sum(1)


def beta_in_range(beta: float, function: str) -> None:
    """Raise ``ValueError`` unless ``beta`` is 0 or a finite number of at least 1."""
    if not (is_finite(beta) and (beta == 0 or beta >= 1)):
        raise ValueError(f'`{function}` needs a finite `beta` that is 0 or at least 1, got {beta!r}.')
