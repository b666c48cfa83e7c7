"""Masks of rows, copied only where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class MaskRows:
    """What one side's mask head says of those of ``n`` rows that hold an object."""

    logits: Tensor
    """Shape ``(k, c, h, w)``, ``c`` classes or 1 for all of them."""
    order: Tensor
    """Which of the ``k`` a row has, shape ``(n,)``, int64; of rows without an object any, of such that are there."""

    def take(self, index: Tensor, classes: Tensor) -> Tensor:
        """Logits of the rows at ``index``, of a class each; they carry gradient where the head's numbers do.

        Args:
            index: Shape ``(m,)``, int64.
            classes: Class of each as this side numbers its classes, any one of background, shape ``(m,)``.

        Returns:
            Shape ``(m, h, w)``; zeros where no row has a mask.
        """
        if not len(self.logits):
            return self.logits.new_zeros(len(index), *self.logits.shape[2:]) + self.logits.sum()
        if self.logits.shape[1] == 1:
            classes = torch.zeros_like(classes)
        return self.logits[self.order[index], classes]
