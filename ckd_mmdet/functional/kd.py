"""KD: the temperature-scaled divergence of the class distributions (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from .checks import paired_logits, positive

EPSILON = 1e-7
"""Added to the standard deviation of a row, as released: equal logits stay equal instead of being divided by zero."""


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0, standardize: bool = False) -> Tensor:
    r"""Divergence of the student's class distribution from the teacher's, for each sample.

    .. math:: \ell_i = T^2 \sum_c p_{ic} \log (p_{ic} / q_{ic}), \quad
              p_i = \mathrm{softmax}(t_i / T), \; q_i = \mathrm{softmax}(s_i / T)

    (arXiv 1503.02531; :math:`T^2` keeps the gradient's size independent of the temperature.)

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`T > 0`; with ``standardize`` the base temperature, 2 or 3 in most of the released
            runs on CIFAR-100.
        standardize: Standardise both rows first, see :func:`standardized`; the factor :math:`T^2` stays.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32; zero where both distributions are equal.

    Raises:
        ValueError: If shapes differ, ``temperature`` is not positive, or rows of one logit are to be standardised.
    """
    positive(temperature, 'temperature', 'kd_loss')
    student, teacher = paired_logits(student, teacher, 'kd_loss')
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    with torch.autocast(student.device.type, enabled=False):
        log_p = F.log_softmax(teacher / temperature, dim=1)
        log_q = F.log_softmax(student / temperature, dim=1)
        return temperature**2 * F.kl_div(log_q, log_p, log_target=True, reduction='none').sum(1)


def standardized(logits: Tensor) -> Tensor:
    r"""Each row's deviations from its mean, in units of its standard deviation: relations without a scale.

    .. math:: z_{ic} = \frac{x_{ic} - \bar x_i}{\sigma_i + \epsilon}, \quad
              \sigma_i^2 = \frac{1}{C - 1} \sum_c (x_{ic} - \bar x_i)^2

    (logit standardisation, arXiv 2403.01427; :math:`C - 1` and :math:`\epsilon = 10^{-7}` as in the released code.)

    Args:
        logits: Shape ``(n, c)`` with :math:`c = C \ge 2`, floating point; half precision would lose the epsilon.

    Returns:
        Shape ``(n, c)``, with the gradient of ``logits``. A row of equal logits gives zeros, and a gradient of the
        size :math:`1 / \epsilon`: do not start a classifier from zeros without clipping.

    Raises:
        ValueError: If rows have fewer than two logits.
    """
    if logits.shape[1] < 2:
        raise ValueError(f'`standardized` needs rows of at least 2 logits, got {logits.shape[1]}; one has no spread, '
                         'take `standardize=False`.')
    deviations = logits - logits.mean(1, keepdim=True)
    spread = vector_norm(deviations, dim=1, keepdim=True) / (logits.shape[1] - 1)**0.5
    return deviations / (spread + EPSILON)


def class_log_odds(logits: Tensor) -> Tensor:
    r"""Log odds of each class of a softmax: how its own probability would be written by a sigmoid.

    .. math:: z_{ic} = \log \frac{p_{ic}}{1 - p_{ic}} = s_{ic} - \log \sum_{k \neq c} e^{s_{ik}}, \quad
              p_i = \mathrm{softmax}(s_i)

    Args:
        logits: Raw logits, shape ``(n, c)`` with ``c`` at least 2, background among them where there is one.

    Returns:
        Shape ``(n, c)``, at least float32, with the gradient of ``logits``.

    Raises:
        ValueError: If rows have one logit only, whose probability is always 1.
    """
    if logits.shape[1] < 2:
        raise ValueError(f'`class_log_odds` needs rows of at least 2 logits, got {logits.shape[1]}.')
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.float()
        # of the classes before, and of those after: memory grows with c, not with its square
        before, after = logits.logcumsumexp(1)[:, :-1], logits.flip(1).logcumsumexp(1).flip(1)[:, 1:]
        others = torch.cat([after[:, :1], torch.logaddexp(before[:, :-1], after[:, 1:]), before[:, -1:]], 1)
        return logits - others


def binary_kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""The same for heads with one sigmoid a class: the divergences of the classes' two-way distributions, summed.

    .. math:: \ell_i = T^2 \sum_c \Big[ p_{ic} \log \frac{p_{ic}}{q_{ic}}
              + (1 - p_{ic}) \log \frac{1 - p_{ic}}{1 - q_{ic}} \Big], \quad
              p_i = \sigma(t_i / T), \; q_i = \sigma(s_i / T)

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`T > 0`.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32; zero where all probabilities are equal.

    Raises:
        ValueError: If shapes differ or ``temperature`` is not positive.
    """
    positive(temperature, 'temperature', 'binary_kd_loss')
    student, teacher = paired_logits(student, teacher, 'binary_kd_loss')
    with torch.autocast(student.device.type, enabled=False):
        log_p = F.logsigmoid(torch.stack([teacher, -teacher]) / temperature)
        log_q = F.logsigmoid(torch.stack([student, -student]) / temperature)
        return temperature**2 * F.kl_div(log_q, log_p, log_target=True, reduction='none').sum((0, 2))
