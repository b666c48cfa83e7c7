"""CKD: contrast of the samples of a batch, each student row against the teacher's (arXiv 2404.14109)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import one_of, paired_logits, positive

NEGATIVES = ('teacher_student', 'student_student', 'symmetric')
TERMS = ('both', 'intra', 'inter')


def ckd_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    temperature: float = 1.0,
    negatives: str = 'teacher_student',
    terms: str = 'both',
    groups: Tensor | None = None,
    labels: Tensor | None = None,
) -> Tensor:
    r"""Contrastive loss of each sample: its own pair against the other samples of the batch.

    With :math:`t_i, s_j` the logits scaled to unit length over classes and :math:`G_{ij} = t_i \cdot s_j`,

    .. math:: \ell_i = -\log \frac{\exp(G_{ii} / \tau)}{\sum_j \exp(G_{ij} / \tau)}

    (CKD, arXiv 2404.14109; formula as in the released code: the positive stays in the sum, no factor
    :math:`\tau^2`, no softmax before the cosine). At :math:`\tau = 1` the loss cannot approach 0: a perfect
    match against orthogonal negatives gives :math:`\log((n - 1 + e) / e)`, which grows with ``n``.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`\tau > 0`.
        negatives: ``'teacher_student'``, as released; ``'student_student'`` replaces :math:`G_{ij}` by
            :math:`s_i \cdot s_j` for :math:`j \ne i`, as summaries describe the paper; ``'symmetric'`` is the mean
            of the losses of :math:`G` and of its transpose.
        terms: ``'intra'`` is :math:`-G_{ii} / \tau` alone, ``'inter'`` the logarithm of the sum over all ``j`` alone,
            ``'both'`` their sum.
        groups: Shape ``(n,)``; only samples with equal ids are contrasted. ``None``: the whole batch.
        labels: Shape ``(n,)``; samples with the label of sample ``i``, beside ``i`` itself, leave its sum: pushing them
            apart works against the classifier. Ours. ``None``: they are negatives as all others, as released.

    Returns:
        Loss of each sample, shape ``(n,)``, in at least float32. Empty for ``n = 0``; zero up to rounding for
        ``n = 1`` with both terms. Lengths are kept from 0 by ``1e-12``, as released: a row of zeros has the cosine 0
        and, on the student's side, a huge gradient, so do not start a classifier from zeros without clipping.

    Raises:
        ValueError: If shapes differ, ``temperature`` is not positive, or a choice is unknown.
    """
    positive(temperature, 'temperature', 'ckd_loss')
    one_of(negatives, NEGATIVES, 'negatives', 'ckd_loss')
    one_of(terms, TERMS, 'terms', 'ckd_loss')
    student, teacher = paired_logits(student, teacher, 'ckd_loss')
    for name, ids in (('groups', groups), ('labels', labels)):
        if ids is not None and ids.shape != student.shape[:1]:
            raise ValueError(f'`ckd_loss` needs `{name}` of shape ({len(student)},), one id a row, '
                             f'got {tuple(ids.shape)}.')

    # autocast would run the matrix products in half precision: cosines near 1 would lose their differences
    with torch.autocast(student.device.type, enabled=False):
        s, t = F.normalize(student, dim=1), F.normalize(teacher, dim=1)
        own = (s * t).sum(1) / temperature
        if terms == 'intra':
            return -own
        if negatives == 'student_student':
            others = (s @ s.T / temperature).diagonal_scatter(own)
        else:
            others = t @ s.T / temperature
        if groups is not None:
            others = others.masked_fill(groups[:, None] != groups[None, :], -torch.inf)
        if labels is not None:
            alike = (labels[:, None] == labels[None, :]).fill_diagonal_(False)
            others = others.masked_fill(alike, -torch.inf)
        inter = others.logsumexp(1)
        if negatives == 'symmetric':
            inter = (inter + others.logsumexp(0)) / 2
        return inter if terms == 'inter' else inter - own
