"""PCKD: features and category centres, the rows of the last layer (arXiv 2410.14143)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import one_of, positive
from .preview import check_labels

TARGETS = ('samples', 'centers')
BASE_TEMPERATURE = 0.07
"""What the temperature is divided by to give the factor of the contrast, as released."""
EPSILON = 1e-7
"""Added to the sum over the other rows, as released: it may be 0 in float32 where a row's own score is much greater."""


def center_scores(embedded: Tensor, centers: Tensor) -> Tensor:
    r"""What each category centre makes of the direction of each feature.

    .. math:: U = \hat F W^\top, \quad \hat f_i = f_i / \max(|f_i|, 10^{-12})

    Args:
        embedded: Features, shape ``(n, d)``; ``n`` samples.
        centers: Rows of the last layer, shape ``(c, d)``; as long as they are, only the features are normalised.

    Returns:
        Shape ``(n, c)``, in at least float32, with the gradient of both.

    Raises:
        ValueError: If the widths differ.
    """
    if embedded.ndim != 2 or centers.ndim != 2 or embedded.shape[1] != centers.shape[1]:
        raise ValueError(f'`center_scores` needs `embedded` (n, d) and `centers` (c, d) of one width, got '
                         f'{tuple(embedded.shape)} and {tuple(centers.shape)}; embed the features in the width of the '
                         'centres first.')
    embedded, centers = _exact(embedded, centers)
    with torch.autocast(embedded.device.type, enabled=False):
        return F.normalize(embedded, dim=1) @ centers.T


def category_contrast(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    target: str = 'samples',
    check: bool = True,
) -> Tensor:
    r"""Contrast of the samples of a batch by category: those of one label attract each other.

    With :math:`Z = [U_s; U_t]` the scores of both centres under each other, ``2n`` rows, and
    :math:`Q = Z Z^\top / \tau`, the maximum of each row subtracted without gradient,

    .. math:: l_a = -\frac{\tau}{0.07} \frac{1}{|P_a|} \sum_{b \in P_a}
              \Big[ Q_{ab} - \log \Big( \sum_{c \ne a} \exp Q_{ac} + 10^{-7} \Big) \Big], \quad
              \ell_k = l_k + l_{n + k}

    where :math:`P_a` are the other rows with the label of :math:`a`, those of the other half among them (PCKD, arXiv
    2410.14143; formula as in the released code, which scales :math:`Z` to no length). The paper's figure draws features
    against centres instead: ``target='centers'`` attracts the own centre and repels the others, with the same factor,

    .. math:: \ell_k = -\frac{\tau}{0.07} \Big[ \log \mathrm{softmax}(U_{s,k} / \tau)_{y_k}
              + \log \mathrm{softmax}(U_{t,k} / \tau)_{y_k} \Big]

    Args:
        student: :math:`U_s`, the student's features against the student's centres, see :func:`center_scores`, shape
            ``(n, c)``; ``n`` samples over ``c`` categories.
        teacher: :math:`U_t`, the *student's* features against the teacher's centres, shape ``(n, c)``: gradient flows
            to it, and the teacher enters through its centres alone.
        labels: Shape ``(n,)``, int64, of ``0 .. c - 1``; ``target='centers'`` takes soft ones too, shape ``(n, c)``.
        temperature: :math:`\tau > 0`; 4 in the released code.
        target: ``'samples'``, as released, or ``'centers'``.
        check: Whether to check the labels' range, which waits for the device.

    Returns:
        Loss of each sample, shape ``(n,)``, in at least float32. With ``'samples'`` each has a positive at least in its
        other half, one sample alone costs nothing up to the epsilon, and memory grows with :math:`n^2`.

    Raises:
        ValueError: If shapes differ, a label is found to be out of its range, labels are soft where they cannot be,
            ``temperature`` is not positive or the choice unknown.
    """
    positive(temperature, 'temperature', 'category_contrast')
    one_of(target, TARGETS, 'target', 'category_contrast')
    _check_paired(student, teacher, 'category_contrast')
    if target == 'samples' and labels.ndim == 2:
        raise ValueError("`category_contrast` with `target='samples'` needs one class a row, `labels` of shape "
                         f'({len(student)},), got soft ones of shape {tuple(labels.shape)}: a mixed image has no '
                         "category of its own. Take `target='centers'`, or leave mixup and CutMix out.")
    check_labels(labels, student, 'category_contrast', last=student.shape[1] - 1, in_range=check)
    rows = torch.cat(_exact(student, teacher))
    labels = torch.cat([labels, labels])
    with torch.autocast(rows.device.type, enabled=False):
        if target == 'samples':
            losses = _among_samples(rows, labels, temperature)
        else:
            labels = labels.to(rows.dtype) if labels.ndim == 2 else labels
            losses = F.cross_entropy(rows / temperature, labels, reduction='none')
        return temperature / BASE_TEMPERATURE * losses.view(2, -1).sum(0)


def feature_alignment(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Distance of each sample's feature from the teacher's in direction: :math:`2 - 2 \cos(f_{s,i}, f_{t,i})`.

    (PCKD, arXiv 2410.14143; formula as in the released code.)

    Args:
        student: The student's features in the teacher's width, shape ``(n, d)``; ``n`` samples.
        teacher: The teacher's of the same samples, shape ``(n, d)``; no gradient flows to it.

    Returns:
        Loss of each sample, shape ``(n,)``, from 0 to 4, in at least float32. Lengths are kept from 0 by ``1e-12``: a
        row of zeros costs 2 and has, on the student's side, a huge gradient.

    Raises:
        ValueError: If the shapes are not equal or not two-dimensional.
    """
    _check_paired(student, teacher, 'feature_alignment')
    student, teacher = _exact(student, teacher.detach())
    return 2 - 2 * (F.normalize(student, dim=1) * F.normalize(teacher, dim=1)).sum(1)


def center_alignment(student: Tensor, teacher: Tensor, student_biases: Tensor | None = None,
                     teacher_biases: Tensor | None = None) -> Tensor:
    r"""Mean squared difference of each category's centre and bias from the teacher's.

    .. math:: \ell_c = \frac{1}{d + 1} \Big[ \sum_k (W_{s,ck} - W_{t,ck})^2 + (b_{s,c} - b_{t,c})^2 \Big]

    So the mean over the categories is that of :math:`[W_s | b_s]` and :math:`[W_t | b_t]` (PCKD, arXiv
    2410.14143; formula as in the released code). Without biases they are left out, and the sum is over ``d``.

    Args:
        student: Rows of the student's last layer, shape ``(c, d)``; ``c`` categories.
        teacher: The teacher's, shape ``(c, d)``; no gradient flows to it.
        student_biases: That layer's biases, shape ``(c,)``, or ``None`` for both.
        teacher_biases: The teacher's, shape ``(c,)``; no gradient flows to them.

    Returns:
        Loss of each category, shape ``(c,)``, in at least float32.

    Raises:
        ValueError: If shapes differ, or biases are given for one side only.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f'`center_alignment` needs `student` and `teacher` of one shape (c, d), got '
                         f'{tuple(student.shape)} and {tuple(teacher.shape)}; give the last layers of the same '
                         'categories, and bring the student\'s to the teacher\'s width first.')
    if (student_biases is None) != (teacher_biases is None):
        side = 'student' if teacher_biases is None else 'teacher'
        raise ValueError(f"`center_alignment` needs biases of both sides or of none, got the {side}'s only; give zeros "
                         'for a layer that has none.')
    pairs = [(student, teacher)]
    if student_biases is not None and teacher_biases is not None:
        shapes = [tuple(biases.shape) for biases in (student_biases, teacher_biases)]
        if shapes != [(len(student),)] * 2:
            raise ValueError(f'`center_alignment` needs `student_biases` and `teacher_biases` of shape '
                             f'({len(student)},), one a category, got {shapes[0]} and {shapes[1]}.')
        pairs.append((student_biases[:, None], teacher_biases[:, None]))
    ours, theirs = (torch.cat(part, 1) for part in zip(*pairs, strict=True))
    ours, theirs = _exact(ours, theirs.detach())
    return (ours - theirs).square().mean(1)


def _among_samples(rows: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The contrast without its factor, of each of ``2n`` rows, shape ``(2n,)``."""
    if not len(rows):
        return rows.sum(1)
    scores = rows @ rows.T / temperature
    scores = scores - scores.detach().amax(1, keepdim=True)
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    others = scores.exp().masked_fill(itself, 0).sum(1, keepdim=True)
    positives = (labels[:, None] == labels[None, :]) & ~itself
    shares = scores - (others + EPSILON).log()
    return -(shares * positives).sum(1) / positives.sum(1)


def _check_paired(student: Tensor, teacher: Tensor, function: str) -> None:
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f'`{function}` needs `student` and `teacher` of one shape, row i of both for the same sample, '
                         f'got {tuple(student.shape)} and {tuple(teacher.shape)}.')


def _exact(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one precision, at least float32."""
    exact = torch.promote_types(torch.promote_types(one.dtype, other.dtype), torch.float32)
    return one.to(exact), other.to(exact)
