"""Focal loss (arXiv 1708.02002), no reduction; ``target`` ``(n,)`` int64."""

import torch
from ckd_mmdet.compat.ops.precision import wide
from torch import Tensor
from torch.nn.functional import logsigmoid


def _rows_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Weight of each row by its class, shape ``(n, 1)``; mmcv passes an empty tensor for none."""
    if not weight.numel():
        return 1.0
    if bool(((target < 0) | (target >= len(weight))).any()):
        raise ValueError(
            f'focal loss with `weight` needs every target within its {len(weight)} classes, but '
            f'got {int(target.min())} to {int(target.max())}; weigh background rows outside it.')
    return wide(weight)[target][:, None]


def _log_probabilities(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p and log(1 - p) of p = sigmoid(input), and whether a class is its row's target."""
    logits = wide(input)
    is_target = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return logsigmoid(logits), logsigmoid(-logits), is_target


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    r"""Write :math:`-\alpha (1-p)^\gamma \log p` for each row's target, with p = sigmoid(input).

    Other classes, and so all of a background row (its target is the number of classes), get
    :math:`-(1-\alpha) p^\gamma \log(1-p)`. This is exact, as mmdet's own formula on CPU is. mmcv's CUDA kernel takes
    the logarithm of a rounded 1 - p, or of FLT_MIN (1.2e-38) where that rounds to 0. So its loss of a confident error
    is another (coarse from a logit of 15 on, 87.3 times 1 - alpha at any above 17); its gradient is the same.
    """
    log_p, log_not_p, is_target = _log_probabilities(input, target)
    positive = -alpha * (gamma * log_not_p).exp() * log_p
    negative = -(1 - alpha) * (gamma * log_p).exp() * log_not_p
    output.copy_(torch.where(is_target, positive, negative) * _rows_weight(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    log_p, log_not_p, is_target = _log_probabilities(input, target)
    p, not_p = log_p.exp(), log_not_p.exp()
    positive = -alpha * (gamma * log_not_p).exp() * (not_p - gamma * p * log_p)
    negative = (1 - alpha) * (gamma * log_p).exp() * (p - gamma * not_p * log_not_p)
    grad_input.copy_(torch.where(is_target, positive, negative) * _rows_weight(weight, target))


def _target_probability(softmax: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's target, and whether it has one (not if negative), ``(n, 1)``."""
    p = wide(softmax).gather(1, target.clamp(min=0)[:, None])
    return p.clamp(min=torch.finfo(p.dtype).tiny), (target >= 0)[:, None]


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    r"""Write :math:`-\alpha (1-p)^\gamma \log p`, p the target's value in a softmax, ``(n,)``."""
    p, counts = _target_probability(input, target)
    loss = -alpha * (1 - p).pow(gamma) * p.log()
    output.copy_((loss * counts * _rows_weight(weight, target))[:, 0])


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    p, counts = _target_probability(input, target)
    slope = alpha * (gamma * (1 - p).pow(gamma - 1) * p * p.log() - (1 - p).pow(gamma))
    slope = slope * counts * _rows_weight(weight, target)
    buff.copy_(slope[:, 0])
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(slope * (is_target.to(slope.dtype) - wide(input)))
