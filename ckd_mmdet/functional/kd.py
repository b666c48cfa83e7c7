"""KD: the temperature-scaled divergence of the class distributions (Hinton et al., arXiv 1503.02531)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import paired_logits, positive


def kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Divergence of the student's class distribution from the teacher's, for each sample.

    .. math:: \ell_i = T^2 \sum_c p_{ic} \log (p_{ic} / q_{ic}), \quad
              p_i = \mathrm{softmax}(t_i / T), \; q_i = \mathrm{softmax}(s_i / T)

    (arXiv 1503.02531; :math:`T^2` keeps the gradient's size independent of the temperature.)

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        temperature: :math:`T > 0`.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32; zero where both distributions are equal.

    Raises:
        ValueError: If shapes differ or ``temperature`` is not positive.
    """
    positive(temperature, 'temperature', 'kd_loss')
    student, teacher = paired_logits(student, teacher, 'kd_loss')
    with torch.autocast(student.device.type, enabled=False):
        log_p = F.log_softmax(teacher / temperature, dim=1)
        log_q = F.log_softmax(student / temperature, dim=1)
        return temperature**2 * F.kl_div(log_q, log_p, log_target=True, reduction='none').sum(1)


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
