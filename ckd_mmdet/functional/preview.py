"""Preview: how hard a sample is for the student, and how much it counts for now (PCKD, arXiv 2410.14143)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .checks import is_finite


def preview_threshold(epoch: int, base: float = 1.005) -> float:
    """Largest difficulty that counts as easy: ``base ** epoch`` (PCKD, arXiv 2410.14143; as in the released code).

    Args:
        epoch: Counted from 1, as in the paper; MMEngine counts from 0.
        base: At least 1: what is admitted grows.

    Raises:
        ValueError: If ``epoch`` is less than 1, or ``base`` less than 1 or not finite.
    """
    if epoch < 1:
        raise ValueError(f'`preview_threshold` needs an `epoch` of at least 1, counted from 1, got {epoch}; add 1 to '
                         "MMEngine's.")
    if not (is_finite(base) and base >= 1):
        raise ValueError(f'`preview_threshold` needs a finite `base` of at least 1, got {base!r}.')
    try:
        return float(base**epoch)
    except OverflowError:
        return math.inf


def preview_weights(difficulty: Tensor, threshold: float) -> Tensor:
    r"""Weight of each sample: 1 where it is easy, :math:`e^{-\gamma^2}` where it is hard.

    A hard sample is previewed, never dropped (PCKD, arXiv 2410.14143; formula as in the released code, which lets
    gradient through some of the weights; here they are constant).

    Args:
        difficulty: :math:`\gamma \ge 0`, see :func:`relative_difficulty`, shape ``(n,)``.
        threshold: Largest difficulty still treated as easy, see :func:`preview_threshold`.

    Returns:
        Weights of at most 1, shape ``(n,)``, in at least float32, without gradient; in float32 those beyond a
        difficulty of 10 are 0 for lack of smaller numbers.

    Raises:
        ValueError: If ``difficulty`` is not one-dimensional.
    """
    _check_rows(difficulty, 'difficulty', 'preview_weights')
    difficulty = difficulty.detach().to(torch.promote_types(difficulty.dtype, torch.float32))
    return torch.where(difficulty <= threshold, torch.ones_like(difficulty), (-difficulty.square()).exp())


def relative_difficulty(losses: Tensor, background: Tensor | None = None) -> Tensor:
    r"""How hard each sample is: :math:`\gamma_i`, its loss over the mean of the batch (PCKD, arXiv 2410.14143).

    Args:
        losses: The student's own loss of each sample, at least 0, shape ``(n,)``.
        background: Samples that have a mean of their own, apart from the others', shape ``(n,)``, bool: ours, for
            detectors. ``None``: one mean of all.

    Returns:
        Shape ``(n,)``, in at least float32, without gradient; 0 where the mean is 0.

    Raises:
        ValueError: If a shape is not ``(n,)``.
    """
    _check_rows(losses, 'losses', 'relative_difficulty')
    losses = losses.detach().to(torch.promote_types(losses.dtype, torch.float32))
    if background is None:
        background = torch.zeros_like(losses, dtype=torch.bool)
    if background.shape != losses.shape:
        raise ValueError(f'`relative_difficulty` needs `background` of shape ({len(losses)},), one a row, got '
                         f'{tuple(background.shape)}.')
    means = torch.where(background, _mean(losses, background), _mean(losses, ~background))
    return losses / means.clamp(min=torch.finfo(losses.dtype).tiny)


def cross_entropy(logits: Tensor, labels: Tensor, *, check: bool = True) -> Tensor:
    r"""Each sample's :math:`-\sum_c y_{ic} \log \mathrm{softmax}(x_i)_c`.

    Args:
        logits: Shape ``(n, c)``; ``n`` samples over ``c`` classes, background among them if there is one.
        labels: Shape ``(n,)``, int64, of ``0 .. c - 1``; or soft, shape ``(n, c)``, at least 0.
        check: Whether to check the labels' range, which waits for the device.

    Returns:
        Shape ``(n,)``, in at least float32.

    Raises:
        ValueError: If a shape is another, or a label is found to be out of its range.
    """
    check_labels(labels, logits, 'cross_entropy', last=logits.shape[1] - 1, in_range=check)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    with torch.autocast(logits.device.type, enabled=False):
        return F.cross_entropy(logits, labels.to(logits.dtype) if labels.ndim == 2 else labels, reduction='none')


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, check: bool = True) -> Tensor:
    r"""The same for heads with one sigmoid a class, summed over the classes.

    .. math:: -\sum_c \big[ y_{ic} \log \sigma(x_{ic}) + (1 - y_{ic}) \log (1 - \sigma(x_{ic})) \big]

    Args:
        logits: Shape ``(n, c)``; ``n`` samples over ``c`` classes.
        labels: Shape ``(n,)``, int64, of ``0 .. c``, where ``c`` is background; or soft, shape ``(n, c)``, at least 0.
        check: Whether to check the labels' range, which waits for the device.

    Returns:
        Shape ``(n,)``, in at least float32.

    Raises:
        ValueError: If a shape is another, or a label is found to be out of its range.
    """
    n, c = logits.shape
    check_labels(labels, logits, 'binary_cross_entropy', last=c, in_range=check)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    targets = labels if labels.ndim == 2 else labels[:, None] == torch.arange(c, device=labels.device)
    with torch.autocast(logits.device.type, enabled=False):
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype), reduction='none').sum(1)


def check_labels(labels: Tensor, logits: Tensor, function: str, last: int, in_range: bool = True) -> None:
    """Raise ``ValueError`` unless ``labels`` are one of ``0 .. last`` a row, or soft ones of at least 0 a class.

    Only ``in_range`` looks at the numbers and waits for the device.
    """
    n, c = logits.shape
    if labels.is_floating_point():
        if labels.shape != (n, c):
            raise ValueError(f'`{function}` needs soft `labels` of shape ({n}, {c}), one share a class, got '
                             f'{tuple(labels.shape)}.')
        if in_range and not (labels >= 0).all():
            raise ValueError(f'`{function}` needs soft `labels` of at least 0, got {labels.min():g}.')
        return
    if labels.shape != (n,):
        raise ValueError(f'`{function}` needs `labels` of shape ({n},), one a row, or soft ones of shape ({n}, {c}) '
                         f'and a floating dtype, got {tuple(labels.shape)} of {labels.dtype}.')
    if in_range and ((labels < 0) | (labels > last)).any():
        raise ValueError(f'`{function}` needs `labels` of 0 to {last} for rows of {c} scores, got {int(labels.min())} '
                         f'to {int(labels.max())}; leave rows without a label out, and see that labels and head count '
                         'the same classes.')


def _check_rows(numbers: Tensor, argument: str, function: str) -> None:
    if numbers.ndim != 1:
        raise ValueError(f'`{function}` needs `{argument}` of shape (n,), one a row, got {tuple(numbers.shape)}.')


def _mean(losses: Tensor, mask: Tensor) -> Tensor:
    """Of those that the mask has, shape ``()``; 0 of none."""
    return (losses * mask).sum() / mask.sum().clamp(min=1)
