"""How hard each distillation loss pulls, against the task's own losses: at the student's features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ckd_mmdet.losses import DistillLoss
from mmengine.dist import all_reduce
from mmengine.logging import print_log
from torch import Tensor

HALF_PRECISION = 2.0**14
"""Factor under which gradients are measured: in half precision the small ones of large maps would be 0 without it."""


def gradient_norm(loss: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Norm of the loss's gradient on all feature maps together, shape ``()``.

    It is 0 where the loss does not depend on the maps, or they do not learn.
    """
    if not features or not loss.requires_grad:
        return loss.new_zeros(())
    gradients = torch.autograd.grad(loss * HALF_PRECISION, features, retain_graph=True, allow_unused=True)
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in gradients if gradient is not None]
    return torch.stack(norms).norm() / HALF_PRECISION if norms else loss.new_zeros(())


def gradient_ratios(task: Tensor, losses: dict[str, Tensor], features: Sequence[Tensor]) -> dict[str, float]:
    """Norm of each loss's gradient over that of the task's, by name: the mean over the ranks on which it is not 0.

    A rank without rows says nothing of a loss, and counts for nothing.

    Args:
        task: Sum of the task losses, shape ``()``.
        losses: Distillation losses, shape ``()`` each; their graphs are kept.
        features: The student's feature maps, on which all of them depend; at least one that learns.

    Returns:
        Ratios of at least 0, 0 without rows on any rank; not finite where the task has no gradient or a loss none that
        is finite.

    Raises:
        RuntimeError: Of PyTorch, where reentrant activation checkpointing lies between the maps and a loss.
    """
    features = [level for level in features if level.requires_grad]
    norms = torch.stack([gradient_norm(loss, features) for loss in (task, *losses.values())])
    counted = norms[1:] != 0
    sums = torch.stack([torch.where(counted, norms[1:] / norms[0], 0), counted.to(norms.dtype)])
    all_reduce(sums, 'sum')
    return dict(zip(losses, (sums[0] / sums[1].clamp(min=1)).tolist(), strict=True))


def balanced(loss: DistillLoss, value: Tensor, ratio: float, epoch: int, name: str) -> Tensor:
    """The loss's value with the weight that its measured ratio asks for; says so when the weight is fixed.

    Args:
        loss: A loss whose weight is being measured.
        value: What it gave with the weight of before.
        ratio: Of the gradients of ``value`` and the task; a step that tells nothing, 0 or not finite, does not count.
        epoch: From 0.
        name: The loss's place, for the log.
    """
    before = loss.weight.at(epoch)
    if not before or not 0 < ratio < float('inf'):
        return value
    loss.weight.ratios.append(ratio / before)
    if not loss.weight.is_measuring:
        print_log(f'`{name}`: the weight is fixed at {loss.weight.base:.4g}, by which its gradient on the '
                  f"student's features has {loss.weight.balance:g} times the norm of the task's (median of "
                  f'{loss.weight.iterations} iterations).', logger='current')
    return value * (loss.weight.at(epoch) / before)
