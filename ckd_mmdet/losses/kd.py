from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import binary_kd_loss, kd_loss
from ckd_mmdet.functional.checks import positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor

from .base import RowLoss


@MODELS.register_module()
class KDLoss(RowLoss):
    """Divergence of each row's class distribution from the teacher's (KD, arXiv 1503.02531): the honest control.

    Between heads with one sigmoid a class it is the sum of the classes' binary divergences. So it is between a softmax
    and a sigmoid head: each gives the probability of every shared class, the softmax among all of its classes and
    background.

    Args:
        temperature: Softening of both distributions, greater than 0.
        standardize: Standardise the logits of each row first (arXiv 2403.01427), see
            :func:`ckd_mmdet.functional.standardized`; only between two softmax heads, as it is defined over the
            classes of one distribution.
        loss_weight: Factor of the mean over rows.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """


    def __init__(self, temperature: float = 1.0, standardize: bool = False,
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'KDLoss')
        self.temperature = temperature
        self.standardize = standardize
        if standardize:
            self.scorings = frozenset({'softmax'})

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student, teacher = samples.student.logits, samples.teacher.logits
        if samples.scoring == 'softmax':
            if student.shape[1] < 2:
                raise ValueError('`KDLoss` between softmax heads needs rows of at least 2 scores, got 1, whose '
                                 'probability is always 1; give models that share more classes.')
            return kd_loss(student, teacher, temperature=self.temperature, standardize=self.standardize)
        if samples.scoring == 'mixed':
            student, teacher = (logits if side.log_odds is None else side.log_odds
                                for side, logits in ((samples.student, student), (samples.teacher, teacher)))
        return binary_kd_loss(student, teacher, temperature=self.temperature)
