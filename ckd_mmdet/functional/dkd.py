"""Decoupled KD: the divergence of the class distributions in two parts, weighted apart (arXiv 2203.08679)."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import not_negative, paired_logits, positive
from .kd import binary_kd_loss, kd_loss, standardized


def dkd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
    standardize: bool = False,
    check: bool = True,
) -> Tensor:
    r"""Divergence of each sample about its labelled class, and among the other classes.

    .. math:: \ell_i = T^2 \Big[ \alpha \, \mathrm{KL}\big((p_{iy}, 1 - p_{iy}) \,\|\, (q_{iy}, 1 - q_{iy})\big)
              + \beta \, \mathrm{KL}(\hat p_i \,\|\, \hat q_i) \Big], \quad
              p_i = \mathrm{softmax}(t_i / T), \; q_i = \mathrm{softmax}(s_i / T)

    where :math:`y` is the sample's label and :math:`\hat p_i, \hat q_i` are the distributions over the other classes
    alone (DKD, arXiv 2203.08679; :math:`T^2` on both parts as in the released code, which hides the labelled class by
    subtracting 1000 from its logit where it is left out here, and takes logarithms of probabilities, which are infinite
    where one is 0). With :math:`\alpha = 1` and :math:`\beta = 1 - p_{iy}` it would be :func:`kd_loss`.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes, :math:`c \ge 2`.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        labels: Shape ``(n,)``, int64, of ``0 .. c - 1``; leave samples without a label out before.
        alpha: :math:`\alpha \ge 0`.
        beta: :math:`\beta \ge 0`.
        temperature: :math:`T > 0`.
        standardize: Standardise both rows first, see :func:`ckd_mmdet.functional.standardized`.
        check: Whether to check the labels' range, which waits for the device.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32; zero where both distributions are equal. With ``c = 2``
        the second part is zero.

    Raises:
        ValueError: If shapes differ, there are fewer than two classes, a label is found to be outside
            ``0 .. c - 1``, or a number is out of its range.
    """
    positive(temperature, 'temperature', 'dkd_loss')
    not_negative(alpha, 'alpha', 'dkd_loss')
    not_negative(beta, 'beta', 'dkd_loss')
    student, teacher = paired_logits(student, teacher, 'dkd_loss')
    _check_labels(labels, student, check)
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    target = binary_kd_loss(_log_odds(student / temperature, labels), _log_odds(teacher / temperature, labels))
    others = kd_loss(_others(student, labels), _others(teacher, labels), temperature=temperature)
    return alpha * temperature**2 * target + beta * others


def _check_labels(labels: Tensor, logits: Tensor, in_range: bool) -> None:
    n, c = logits.shape
    if c < 2:
        raise ValueError(f'`dkd_loss` needs at least 2 classes, got {c}; with one there is nothing beside the label.')
    if labels.shape != (n,):
        raise ValueError(f'`dkd_loss` needs `labels` of shape ({n},), one a row, got {tuple(labels.shape)}.')
    if in_range and ((labels < 0) | (labels >= c)).any():
        raise ValueError(f'`dkd_loss` needs `labels` of 0 to {c - 1}, one of the {c} classes, got {int(labels.min())} '
                         f'to {int(labels.max())}; leave rows without a label out.')


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """Scores of all classes but the labelled one, shape ``(n, c - 1)``."""
    columns = torch.arange(logits.shape[1] - 1, device=logits.device)
    return logits.gather(1, columns + (columns >= labels[:, None]))


def _log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """Logarithm of p / (1 - p), p the labelled class's probability, shape ``(n, 1)``."""
    return logits.gather(1, labels[:, None]) - _others(logits, labels).logsumexp(1, keepdim=True)
