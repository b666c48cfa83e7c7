from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import dist_loss
from ckd_mmdet.functional.checks import not_negative, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor

from .base import RowLoss


@MODELS.register_module()
class DISTLoss(RowLoss):
    """Lack of correlation of the class probabilities, in each row and for each class over the rows (arXiv 2205.10536).

    The second part is of all rows of one process together: under DDP the loss is the mean of the ranks' own values, not
    the value of the joined rows. It is defined for class distributions, so only between two softmax heads.

    Args:
        beta: Weight of the correlation within each row, at least 0.
        gamma: Weight of the correlation of each class over the rows, at least 0.
        temperature: Softening of both distributions, greater than 0.
        loss_weight: Factor of the sum.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`. The part of the classes
            is of all rows in full; only its share of the mean is weighted.

    Raises:
        ValueError: If an argument is out of its range.
    """

    scorings = frozenset({'softmax'})
    least_columns = 2
    why_columns = 'one probability is always 1'

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0,
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        not_negative(beta, 'beta', 'DISTLoss')
        not_negative(gamma, 'gamma', 'DISTLoss')
        positive(temperature, 'temperature', 'DISTLoss')
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return dist_loss(samples.student.logits, samples.teacher.logits, beta=self.beta, gamma=self.gamma,
                         temperature=self.temperature)
