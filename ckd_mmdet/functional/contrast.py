"""CKD: contrast of the samples of a batch, each student row against the teacher's (arXiv 2404.14109)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import one_of, paired_logits, positive

CONTRASTS = ('teacher_student', 'student_student', 'symmetric')
TERMS = ('both', 'intra', 'inter')


def ckd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    contrast: str = 'teacher_student',
    terms: str = 'both',
    negatives: Tensor | None = None,
) -> Tensor:
    r"""Contrastive loss of each sample, the anchor: its own pair against the samples that are its negatives.

    With :math:`t_i, s_j` the logits scaled to unit length over classes, :math:`G_{ij} = t_i \cdot s_j` and
    :math:`N_i` the negatives of sample ``i``, by default all other samples of the batch,

    .. math:: \ell_i = -\log \frac{\exp(G_{ii} / \tau)}{\exp(G_{ii} / \tau) + \sum_{j \in N_i} \exp(G_{ij} / \tau)}

    (CKD, arXiv 2404.14109; formula as in the released code: the positive stays in the sum, no factor
    :math:`\tau^2`, no softmax before the cosine). At :math:`\tau = 1` the loss cannot approach 0: a perfect
    match against orthogonal negatives gives :math:`\log((n - 1 + e) / e)`, which grows with ``n``.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`\tau > 0`.
        contrast: Whose rows are compared with a negative. ``'teacher_student'``, as released: the anchor's teacher row
            with the negative's student row. ``'student_student'``: both student rows, :math:`s_i \cdot s_j` in place
            of :math:`G_{ij}` for :math:`j \ne i`, as summaries describe the paper. ``'symmetric'``: the mean of the
            losses of :math:`G` and of its transpose, :math:`G_{ji} = t_j \cdot s_i`.
        terms: ``'intra'`` is :math:`-G_{ii} / \tau` alone, ``'inter'`` the logarithm of the sum alone, ``'both'`` their
            sum.
        negatives: Whether ``j`` is a negative of the anchor ``i``, shape ``(n, n)``, bool; a sample is never its own,
            whatever the diagonal says. ``None``: all others. :func:`same_id` and :func:`other_id` make such masks, and
            ``&`` joins them.

    Returns:
        Loss of each sample, shape ``(n,)``, in at least float32. Empty for ``n = 0``; zero up to rounding where there
        are no negatives, with both terms. Lengths are kept from 0 by ``1e-12``, as released: a row of zeros has the
        cosine 0 and, on the student's side, a huge gradient, so do not start a classifier from zeros without clipping.

    Raises:
        ValueError: If shapes differ, ``temperature`` is not a finite number greater than 0, or a choice is unknown.
    """
    positive(temperature, 'temperature', 'ckd_loss')
    one_of(contrast, CONTRASTS, 'contrast', 'ckd_loss')
    one_of(terms, TERMS, 'terms', 'ckd_loss')
    student, teacher = paired_logits(student, teacher, 'ckd_loss')
    _check_negatives(negatives, len(student))

    # autocast would run the matrix products in half precision: cosines near 1 would lose their differences
    with torch.autocast(student.device.type, enabled=False):
        s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
        own = (s * t).sum(1) / temperature
        if terms == 'intra':
            return -own
        if contrast == 'student_student':
            cosines = (s @ s.T / temperature).diagonal_scatter(own)
        else:
            cosines = t @ s.T / temperature
        inter = _log_sum(cosines, negatives)
        if contrast == 'symmetric':
            inter = (inter + _log_sum(cosines.T, negatives)) / 2
        return inter if terms == 'inter' else inter - own


def same_id(ids: Tensor) -> Tensor:
    """Pairs of one id, of one image for example: shape ``(n,)`` gives ``(n, n)``, bool."""
    return ids[:, None] == ids[None, :]


def other_id(ids: Tensor) -> Tensor:
    """Pairs of different ids, of different labels for example: shape ``(n,)`` gives ``(n, n)``, bool."""
    return ids[:, None] != ids[None, :]


def _log_sum(cosines: Tensor, negatives: Tensor | None) -> Tensor:
    """Logarithm of the sum over each anchor's own pair and its negatives; anchors in rows, shape ``(n,)``."""
    if negatives is not None:
        itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
        cosines = cosines.masked_fill(~(negatives | itself), -torch.inf)
    return cosines.logsumexp(1)


def _check_negatives(negatives: Tensor | None, n: int) -> None:
    if negatives is not None and (negatives.shape != (n, n) or negatives.dtype != torch.bool):
        raise ValueError(f'`ckd_loss` needs `negatives` of shape ({n}, {n}) and dtype torch.bool, one a pair of rows, '
                         f'got {tuple(negatives.shape)} and {negatives.dtype}; make it of ids with `same_id` or '
                         '`other_id`.')
