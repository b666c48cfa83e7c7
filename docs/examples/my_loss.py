"""A loss of rows: the largest difference between the two models' class probabilities."""

from __future__ import annotations

from ckd_mmdet.losses import RowLoss
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor


@MODELS.register_module()
class LargestGapLoss(RowLoss):
    """Greatest absolute difference between the two softmax distributions of a row, in [0, 1]."""

    scorings = frozenset({'softmax'})  # sigmoids give no distribution over the classes

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student = samples.student.logits.float().softmax(1)  # (n, c)
        teacher = samples.teacher.logits.float().softmax(1)
        return (student - teacher).abs().amax(1)  # (n,)
