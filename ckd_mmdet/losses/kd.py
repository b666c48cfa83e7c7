from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import binary_kd_loss, kd_loss, quality_kd_loss
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.functional.quality import beta_in_range
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor

from .base import RowLoss, positives

KINDS, NORMALIZE, WEIGHTS = ('divergence', 'quality'), ('weights', 'positives'), (None, 'confidence')


@MODELS.register_module()
class KDLoss(RowLoss):
    r"""Divergence of each row's class distribution from the teacher's (KD, arXiv 1503.02531): the honest control.

    Between heads with one sigmoid a class it is the sum of the classes' binary divergences. So it is between a softmax
    and a sigmoid head: each gives the probability of every shared class, the softmax among all of its classes and
    background.

    Of the kind ``'quality'`` it is the quality loss with the teacher's probabilities as targets, by which BCKD (arXiv
    2308.14286) and CrossKD (arXiv 2306.11369) compare class scores: see
    :func:`ckd_mmdet.functional.quality_kd_loss`. That is between heads of which one at least has sigmoids.

    Args:
        temperature: Softening of both distributions, greater than 0; of the kind ``'quality'`` 1.
        standardize: Standardise the logits of each row first (arXiv 2403.01427), see
            :func:`ckd_mmdet.functional.standardized`; only between two softmax heads, as it is defined over the
            classes of one distribution.
        kind: ``'divergence'`` or ``'quality'``.
        beta: Of the kind ``'quality'``: 0, or at least 1.
        normalize: ``'weights'``, the mean over rows; or ``'positives'``, their sum divided by the number of them that
            hold an object (at least 1; on several GPUs of all ranks), as detectors weigh their own losses. That
            needs labels, and a selector that leaves every row with an object.
        weight_by: ``'confidence'`` weighs a row by the teacher's greatest probability of a class, :math:`w_i`, and the
            mean over rows becomes :math:`\sum_i w_i \ell_i / \sum_i w_i`; for rows of which most hold no object, all
            queries of a DETR for example. ``None``: rows count alike.
        loss_weight: Factor of the mean over rows.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, temperature: float = 1.0, standardize: bool = False, kind: str = 'divergence',
                 beta: float = 1.0, normalize: str = 'weights', loss_weight: float | str | Mapping = 1.0,
                 preview: Mapping | None = None, weight_by: str | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'KDLoss')
        one_of(kind, KINDS, 'kind', 'KDLoss')
        one_of(normalize, NORMALIZE, 'normalize', 'KDLoss')
        beta_in_range(beta, 'KDLoss')
        if kind == 'quality' and (temperature != 1 or standardize):
            raise ValueError("`KDLoss` of `kind='quality'` compares probabilities as they are; leave `temperature` and "
                             '`standardize` out.')
        self.temperature = temperature
        self.standardize = standardize
        self.kind = kind
        self.beta = beta
        one_of(weight_by, WEIGHTS, 'weight_by', 'KDLoss')
        self.normalize = normalize
        self.weight_by = weight_by
        self.counts_positives = normalize == 'positives'
        if standardize:
            self.scorings = frozenset({'softmax'})
        if kind == 'quality':
            self.scorings = self.scorings - {'softmax'}
        if self.counts_positives:
            self.requires = self.requires | {'labels'}

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        rows = self.previewed(aligned, epoch=epoch)
        if self.weight_by is None:
            return rows.sum() / positives(aligned, self) if self.counts_positives else rows.mean()
        teacher = aligned.teacher.probabilities(aligned.num_classes, aligned.scoring)
        weights = teacher.amax(1).detach()
        total = positives(aligned, self) if self.counts_positives else weights.sum().clamp(min=1e-6)
        return (weights * rows).sum() / total

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
        if self.kind == 'quality':
            return quality_kd_loss(student, teacher, beta=self.beta)
        return binary_kd_loss(student, teacher, temperature=self.temperature)
