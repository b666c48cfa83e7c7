from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import dkd_loss
from ckd_mmdet.functional.checks import not_negative, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor

from .base import RowLoss, hard_labels


@MODELS.register_module()
class DKDLoss(RowLoss):
    """Divergence about each row's labelled class, and among the other classes, weighted apart (DKD, arXiv 2203.08679).

    Background is a class of the softmax like any other. It is defined for class distributions, so only between two
    softmax heads.

    Args:
        alpha: Weight of the labelled class's part, at least 0.
        beta: Weight of the other classes' part, at least 0; released code uses 2 to 8 on CIFAR-100, and 0.25 with
            ``temperature=1`` for detection.
        temperature: Softening of both distributions, greater than 0.
        standardize: Standardise the logits of each row first, see :func:`ckd_mmdet.functional.standardized`.
        loss_weight: Factor of the mean over rows. Released code for classification raises it over the first
            20 epochs, ``dict(value=1.0, warm_up=20)``.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'labels'})
    scorings = frozenset({'softmax'})
    least_columns = 2
    why_columns = 'the labelled class and another'

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, standardize: bool = False,
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        not_negative(alpha, 'alpha', 'DKDLoss')
        not_negative(beta, 'beta', 'DKDLoss')
        positive(temperature, 'temperature', 'DKDLoss')
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return dkd_loss(samples.student.logits, samples.teacher.logits, hard_labels(samples, self), alpha=self.alpha,
                        beta=self.beta, temperature=self.temperature, standardize=self.standardize,
                        check=not samples.filtered)
