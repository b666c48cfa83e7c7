"""Feature maps: the hint of FitNet, PKD's correlation, CWD's attention and ReviewKD's hierarchical context loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.linalg import vector_norm

from .checks import in_one_precision, positive

EPSILON = 1e-6
"""Added to the spread of a channel, as released: one that does not vary stays 0 instead of being divided by zero."""
POOLS = (4, 2, 1)
"""Sides of the pooled maps that are compared beside the maps themselves."""


def l2_loss(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Mean squared difference of the maps of each image.

    .. math:: \ell_i = \frac{1}{d h w} \sum_{c, y, x} (s_{icyx} - t_{icyx})^2 \quad \text{or} \quad
              \frac{1}{d} \sum_{c, y, x} w_{iyx} (s_{icyx} - t_{icyx})^2

    (the hint of FitNet, arXiv 1412.6550, which takes half the sum, of one layer).

    Args:
        student: Maps, shape ``(N, d, h, w)``; ``N`` images, ``d`` channels, ``h`` rows of ``w`` places.
        teacher: The teacher's maps of the same images, shape ``(N, d, h, w)``; no gradient flows to it.
        weights: Of the places, shape ``(N, h, w)``, in the place of :math:`\frac{1}{h w}` each; their gradient is not
            taken.

    Returns:
        Loss of each image, shape ``(N,)``, in at least float32.

    Raises:
        ValueError: If the shapes are not equal or not four-dimensional, or those of ``weights`` do not fit.
    """
    student, teacher = paired_maps(student, teacher, 'l2_loss')
    return _mean_square(student - teacher, weights, 'l2_loss')


def pkd_loss(student: Tensor, teacher: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""Half the mean squared difference of the maps of each image, each channel standardised over the batch.

    .. math:: \ell_i = \frac{1}{2 d h w} \sum_{c, y, x} (\hat s_{icyx} - \hat t_{icyx})^2, \quad
              \hat s_{icyx} = \frac{s_{icyx} - \mu_c}{\sigma_c + \epsilon}

    with :math:`\mu_c` and :math:`\sigma_c` the mean and the spread of the channel over all images and places, and
    :math:`\epsilon = 10^{-6}`; the teacher's likewise (PKD, arXiv 2207.02039; the epsilon as in released code, which
    divides by :math:`N h w - 1` in the variance, where it is :math:`N h w` here: its loss is this one times
    :math:`1 - \frac{1}{N h w}`, and undefined for a single place). The mean over images is one minus Pearson's
    correlation of student and teacher, up to the epsilon; of several channels, the mean of theirs.

    The statistics belong to the batch: an image's value depends on the other images, and under DDP the loss is the mean
    of the ranks' own values, not the value of the joined batch.

    Args:
        student: Maps, shape ``(N, d, h, w)``; ``N`` images, ``d`` channels, ``h`` rows of ``w`` places.
        teacher: The teacher's maps of the same images, shape ``(N, d, h, w)``; no gradient flows to it.
        weights: Of the places, shape ``(N, h, w)``, in the place of :math:`\frac{1}{h w}` each; the statistics are of
            all places all the same.

    Returns:
        Loss of each image, shape ``(N,)``, in at least float32; the mean over images is between 0 and 2. A channel that
        does not vary is 0 everywhere, up to the rounding of its mean over :math:`\epsilon`: it costs 1/2 where the
        other side's varies, and nothing where neither does, as for one image of one place. The gradient on a student's
        channel that hardly varies is of the size :math:`1 / \epsilon`.

    Raises:
        ValueError: If the shapes are not equal or not four-dimensional, or those of ``weights`` do not fit.
    """
    student, teacher = paired_maps(student, teacher, 'pkd_loss')
    return _mean_square(_standardized(student) - _standardized(teacher), weights, 'pkd_loss') / 2


def cwd_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    r"""Divergence of where in an image each channel is active.

    .. math:: \ell_i = \frac{T^2}{d} \sum_c \mathrm{KL}\big(\mathrm{softmax}_{yx}(t_{ic} / T) \,\|\,
              \mathrm{softmax}_{yx}(s_{ic} / T)\big)

    (channel-wise distillation, arXiv 2011.13256; summed over the places, never their mean).

    Args:
        student: Maps, shape ``(N, d, h, w)``; ``N`` images, ``d`` channels, ``h`` rows of ``w`` places.
        teacher: The teacher's maps of the same images, shape ``(N, d, h, w)``; no gradient flows to it.
        temperature: ``T``, greater than 0.

    Returns:
        Loss of each image, shape ``(N,)``, in at least float32; 0 where each map has one place.

    Raises:
        ValueError: If the shapes are not equal or not four-dimensional, or ``temperature`` is out of range.
    """
    positive(temperature, 'temperature', 'cwd_loss')
    student, teacher = paired_maps(student, teacher, 'cwd_loss')
    ours, theirs = (F.log_softmax(maps.flatten(2) / temperature, 2) for maps in (student, teacher))
    return temperature**2 * F.kl_div(ours, theirs, reduction='none', log_target=True).sum(2).mean(1)


def hcl_loss(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Mean squared difference of the maps of each image, and of what is left of them in coarser and coarser pools.

    .. math:: \ell_i = \frac{\sum_{k=0}^{K} 2^{-k} \, \mathrm{MSE}\big(P_k(s_i), P_k(t_i)\big)}{\sum_{k=0}^{K} 2^{-k}}

    where :math:`P_0` is the map itself and :math:`P_1, \dots, P_K` are the adaptive average pools of 4 x 4, 2 x 2 and
    1 x 1 places, of which those that are no lower than the map are left out (the hierarchical context loss of one
    level; ReviewKD, arXiv 2104.09044; weights, and that only the height decides, as in the released code).

    Args:
        student: Maps, shape ``(N, d, h, w)``; ``N`` images, ``d`` channels, ``h`` rows of ``w`` places.
        teacher: The teacher's maps of the same images, shape ``(N, d, h, w)``; no gradient flows to it.

    Returns:
        Loss of each image, shape ``(N,)``, in at least float32; that of :func:`l2_loss` for ``h = 1``.

    Raises:
        ValueError: If the shapes are not equal or not four-dimensional.
    """
    student, teacher = paired_maps(student, teacher, 'hcl_loss')
    difference = student - teacher  # a pool of it is the difference of the pools
    loss, weight, weights = _mean_square(difference), 1.0, 1.0
    for side in POOLS:
        if side < difference.shape[2]:
            weight /= 2
            weights += weight
            loss = loss + weight * _mean_square(F.adaptive_avg_pool2d(difference, side))
    return loss / weights


def paired_maps(student: Tensor, teacher: Tensor, function: str) -> tuple[Tensor, Tensor]:
    """Check that both are ``(N, d, h, w)`` and give them in at least float32, the teacher's without gradient."""
    if student.ndim != 4 or student.shape != teacher.shape:
        raise ValueError(
            f'`{function}` needs `student` and `teacher` of one shape (N, d, h, w), got {tuple(student.shape)} and '
            f'{tuple(teacher.shape)}; give maps of the same images and the same stride, and bring the student\'s to '
            'the teacher\'s width first, by a 1x1 convolution say.')
    return in_one_precision(student, teacher)


def _mean_square(difference: Tensor, weights: Tensor | None = None, function: str = '') -> Tensor:
    """Of each image, shape ``(N,)``; with weights of the places, the weighted sum over them."""
    if weights is None:
        return difference.square().mean((1, 2, 3))
    n, _, h, w = difference.shape
    if weights.shape != (n, h, w):
        raise ValueError(f'`{function}` needs `weights` of shape (N, h, w), {(n, h, w)} for these maps, got '
                         f'{tuple(weights.shape)}; give one number a place, the same for all channels.')
    return (difference.square().mean(1) * weights.detach()).sum((1, 2))


def _standardized(maps: Tensor) -> Tensor:
    """Each channel with the mean 0 and the spread 1 over images and places, shape ``(N, d, h, w)``."""
    n, _, h, w = maps.shape
    centred = maps - maps.mean((0, 2, 3), keepdim=True)
    # as a norm: its gradient is 0 where nothing varies, that of a root of the variance would be NaN
    spread = vector_norm(centred, dim=(0, 2, 3), keepdim=True) / (n * h * w)**0.5
    return centred / (spread + EPSILON)
