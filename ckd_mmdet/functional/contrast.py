"""CKD: contrast of the samples of a batch, each student row against the teacher's (arXiv 2404.14109)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .checks import one_of, paired_logits, positive

CONTRASTS = ('teacher_student', 'student_teacher', 'student_student', 'symmetric')
TERMS = ('both', 'intra', 'inter')
WHOLE = 2 ** 22
"""Most pairs of rows whose cosines are held at once; of more they come in blocks, computed again for the gradient."""


def ckd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    contrast: str = 'teacher_student',
    terms: str = 'both',
    negatives: Tensor | Callable[[slice], Tensor] | None = None,
) -> Tensor:
    r"""Contrastive loss of each sample, the anchor: its own pair against the samples that are its negatives.

    With :math:`t_i, s_j` the logits scaled to unit length over classes, :math:`G_{ij} = t_i \cdot s_j` and
    :math:`N_i` the negatives of sample ``i``, by default all other samples of the batch,

    .. math:: \ell_i = -\log \frac{\exp(G_{ii} / \tau)}{\exp(G_{ii} / \tau) + \sum_{j \in N_i} \exp(G_{ij} / \tau)}

    (CKD, arXiv 2404.14109; formula as in the released code: the positive stays in the sum, no factor
    :math:`\tau^2`, no softmax before the cosine). At :math:`\tau = 1` the loss cannot approach 0: a perfect
    match against orthogonal negatives gives :math:`\log((n - 1 + e) / e)`, which grows with ``n``. Time grows with the
    square of ``n``; memory does so up to 2048 samples, and with ``n`` beyond, where blocks of anchors take turns.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`\tau > 0`.
        contrast: Whose rows are compared with a negative. ``'teacher_student'``, as released: the anchor's teacher row
            with the negative's student row. ``'student_teacher'``: the anchor's student row with the negative's teacher
            row, :math:`G_{ji}`, so that gradient reaches each row by its own loss alone. ``'student_student'``: both
            student rows, :math:`s_i \cdot s_j` in place of :math:`G_{ij}` for :math:`j \ne i`, as summaries describe
            the paper. ``'symmetric'``: the mean of the losses of :math:`G` and of its transpose,
            :math:`G_{ji} = t_j \cdot s_i`.
        terms: ``'intra'`` is :math:`-G_{ii} / \tau` alone, ``'inter'`` the logarithm of the sum alone, ``'both'`` their
            sum.
        negatives: Whether ``j`` is a negative of the anchor ``i``, shape ``(n, n)``, bool; a sample is never its own,
            whatever the diagonal says. ``None``: all others. :func:`same_id` and :func:`other_id` make such masks, and
            ``&`` joins them. Or a function that gives the mask's rows of a slice, shape ``(m, n)``, so that it is
            never whole in memory.

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
    if isinstance(negatives, Tensor):
        _check_negatives(negatives, len(student))
        negatives = negatives.__getitem__

    # autocast would run the matrix products in half precision: cosines near 1 would lose their differences
    with torch.autocast(student.device.type, enabled=False):
        s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
        own = (s * t).sum(1) / temperature
        if terms == 'intra':
            return -own
        sums = partial(_log_sums, negatives=negatives, temperature=temperature)
        if contrast == 'student_student':
            inter = sums(s, s, own)
        elif contrast == 'symmetric':
            inter = (sums(t, s) + sums(s, t)) / 2
        else:
            inter = sums(t, s) if contrast == 'teacher_student' else sums(s, t)
        return inter if terms == 'inter' else inter - own


def same_id(ids: Tensor, others: Tensor | None = None) -> Tensor:
    """Pairs of one id, of one image for example: shapes ``(m,)`` and ``(n,)`` give ``(m, n)``, bool.

    ``others`` are the ``ids`` themselves by default.
    """
    return ids[:, None] == (ids if others is None else others)[None, :]


def other_id(ids: Tensor, others: Tensor | None = None) -> Tensor:
    """Pairs of different ids, of different labels for example; shapes as of :func:`same_id`."""
    return ids[:, None] != (ids if others is None else others)[None, :]


def _log_sums(anchors: Tensor, others: Tensor, own: Tensor | None = None, *,
              negatives: Callable[[slice], Tensor] | None, temperature: float) -> Tensor:
    """Logarithm of the sum over each anchor's own pair and its negatives, shape ``(n,)``.

    Args:
        anchors: Unit rows, shape ``(n, c)``.
        others: Those that they are compared with, shape ``(n, c)``.
        own: What stands in the place of each anchor and the row of its number, shape ``(n,)``.
        negatives: As of :func:`ckd_loss`.
        temperature: Divides the cosines.
    """
    n = len(anchors)
    whole = partial(_log_sum, negatives=negatives, temperature=temperature)
    if n * n <= WHOLE:
        return whole(anchors, others, own, 0)
    size = max(1, WHOLE // n)
    return torch.cat([checkpoint(whole, anchors[start:start + size], others,
                                 None if own is None else own[start:start + size], start, use_reentrant=False)
                      for start in range(0, n, size)])


def _log_sum(anchors: Tensor, others: Tensor, own: Tensor | None, start: int,
             negatives: Callable[[slice], Tensor] | None, temperature: float) -> Tensor:
    """The same of the ``m`` anchors from ``start`` on."""
    cosines = anchors @ others.T / temperature
    if own is not None:
        cosines = cosines.diagonal_scatter(own, start)
    if negatives is not None:
        allowed = negatives(slice(start, start + len(anchors)))
        itself = torch.zeros_like(allowed).diagonal_scatter(allowed.new_ones(len(anchors)), start)
        cosines = cosines.masked_fill(~(allowed | itself), -torch.inf)
    return cosines.logsumexp(1)


def _check_negatives(negatives: Tensor, n: int) -> None:
    if negatives.shape != (n, n) or negatives.dtype != torch.bool:
        raise ValueError(f'`ckd_loss` needs `negatives` of shape ({n}, {n}) and dtype torch.bool, one a pair of rows, '
                         f'got {tuple(negatives.shape)} and {negatives.dtype}; make it of ids with `same_id` or '
                         '`other_id`.')
