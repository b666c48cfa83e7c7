"""Batch normalisation inside the losses, which nothing takes for the student's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    r"""Batch normalisation of rows or maps: :math:`y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta`.

    It computes what :class:`torch.nn.BatchNorm1d` and ``BatchNorm2d`` do and is none of them: a conversion to
    ``SyncBatchNorm`` replaces every subclass of theirs, and would make ranks wait for one another here, of which one
    without rows never comes. One row, or one image of one place, has no spread of its own; it is normalised by the
    running statistics, as in eval mode, and leaves them as they are.

    Args:
        channels: Number of channels ``d``.
        eps: :math:`\epsilon`, added to the variance.
        momentum: Share of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def forward(self, given: Tensor) -> Tensor:
        """Normalise rows ``(n, d)`` or maps ``(N, d, h, w)``, over everything but the channels."""
        by_batch = self.training and given[:, 0].numel() > 1
        return F.batch_norm(given, self.running_mean, self.running_var, self.weight, self.bias, by_batch, self.momentum,
                            self.eps)
