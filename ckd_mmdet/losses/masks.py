from __future__ import annotations

from collections.abc import Mapping

import torch
from ckd_mmdet.functional import mask_kd_loss
from ckd_mmdet.functional.checks import positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor

from .base import RowLoss, given, hard_labels


@MODELS.register_module()
class MaskLoss(RowLoss):
    """Divergence of the student's masks from the teacher's, pixel by pixel: the mean over the rows that hold an object.

    See :func:`ckd_mmdet.functional.mask_kd_loss`. A mask is that of the row's true class, before it is cut off at a
    threshold; rows of background have none, and count for nothing.

    Args:
        temperature: Softening of both sides, greater than 0.
        loss_weight: Factor of the mean.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'labels', 'masks'})

    def __init__(self, temperature: float = 1.0, loss_weight: float | str | Mapping = 1.0,
                 preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'MaskLoss')
        self.temperature = temperature

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        return self.previewed(aligned, epoch=epoch).sum() / self._with_object(aligned).sum().clamp(min=1)

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student, teacher = (given(side.masks, 'masks', self) for side in (samples.student, samples.teacher))
        rows = mask_kd_loss(student, teacher, temperature=self.temperature)
        return torch.where(self._with_object(samples), rows, torch.zeros_like(rows))

    def _with_object(self, samples: AlignedSamples) -> Tensor:
        return is_foreground(hard_labels(samples, self), samples.num_classes)
