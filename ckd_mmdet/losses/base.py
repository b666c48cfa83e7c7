"""What every distillation loss is: rows in, one weighted number out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from ckd_mmdet.samples import AlignedSamples
from torch import Tensor, nn


class DistillLoss(nn.Module, ABC):
    """A loss between what student and teacher say of the same things.

    Args:
        loss_weight: Factor of the mean, applied once, in :meth:`forward`.
            An epoch-long constant; ``0`` switches the loss off and keeps it in the graph.

    Raises:
        ValueError: If ``loss_weight`` is negative or not finite.
    """

    requires: ClassVar[frozenset[str]]
    """What the aligner must provide, of ``{'logits', 'labels', 'image_ids'}``."""
    scorings: ClassVar[frozenset[str]] = frozenset({'softmax', 'sigmoid', 'mixed'})
    """Kinds of heads between which it makes sense, see :class:`ckd_mmdet.samples.AlignedSamples`."""
    least_columns: ClassVar[int] = 1
    """Fewest scores of a row that it can compare."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        if not 0 <= loss_weight < math.inf:
            raise ValueError(f'`{type(self).__name__}` needs a finite `loss_weight` of at least 0, got {loss_weight}.')
        self.loss_weight = loss_weight

    @abstractmethod
    def forward(self, aligned: AlignedSamples, *, epoch: int = 0) -> Tensor:
        """Give the weighted loss, shape ``()``; ``epoch`` counts from 0."""


class RowLoss(DistillLoss):
    """Weighted mean of a loss that each row has: ``loss_weight * mean_i per_sample_i``."""

    requires = frozenset({'logits'})

    def forward(self, aligned: AlignedSamples, *, epoch: int = 0) -> Tensor:
        if not len(aligned) or not self.loss_weight:
            # zero with a graph, so that DDP sees every parameter on a rank without rows
            return sum((p.sum() * 0 for p in self.parameters()), aligned.student.logits.float().sum() * 0)
        return self.loss_weight * self.per_sample(aligned, epoch=epoch).mean()

    @abstractmethod
    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        """Loss of each row, shape ``(n,)``, ``n >= 1``."""
