"""Masks: the divergence of each pixel's two-way distribution from the teacher's."""

from __future__ import annotations

from torch import Tensor

from .kd import binary_kd_loss


def mask_kd_loss(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""Divergence of the student's mask from the teacher's, the mean over the pixels, for each sample.

    .. math:: \ell_i = \frac{T^2}{hw} \sum_x \Big[ p_{ix} \log \frac{p_{ix}}{q_{ix}}
              + (1 - p_{ix}) \log \frac{1 - p_{ix}}{1 - q_{ix}} \Big], \quad
              p_i = \sigma(t_i / T), \; q_i = \sigma(s_i / T)

    With :math:`T = 1` its gradient is that of the cross-entropy with the teacher's probabilities as targets. No paper
    that distils the logits of masks is known to us; this is ours, KD (arXiv 1503.02531) pixel by pixel.

    Args:
        student: Raw logits, shape ``(n, h, w)``.
        teacher: The teacher's of the same regions, shape ``(n, h, w)``; no gradient flows to it.
        temperature: :math:`T > 0`.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32; zero where all probabilities are equal.

    Raises:
        ValueError: If shapes differ or are not of masks, or ``temperature`` is not positive.
    """
    if student.ndim != 3 or student.shape != teacher.shape:
        raise ValueError('`mask_kd_loss` needs masks of one shape (n, h, w) on both sides, got '
                         f'{tuple(student.shape)} and {tuple(teacher.shape)}.')
    pixels = student.shape[1] * student.shape[2]
    return binary_kd_loss(student.flatten(1), teacher.flatten(1), temperature=temperature) / pixels
