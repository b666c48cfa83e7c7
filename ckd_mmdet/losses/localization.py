from __future__ import annotations

from collections.abc import Mapping

import torch
from ckd_mmdet.functional import ld_loss
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor

from .base import RowLoss, given, hard_labels

REGIONS, NORMALIZE, WEIGHTS = ('all', 'positives', 'valuable'), ('weights', 'sum'), (None, 'confidence')


@MODELS.register_module()
class LDLoss(RowLoss):
    r"""Localisation distillation (LD, arXiv 2102.12252): the distributions of a box's edges, row by row.

    .. math:: \mathcal{L} = \frac{\sum_i u_i \, \ell_i}{\sum_i u_i}, \quad
              u_i = 1 \; \text{or} \; \max_c \sigma(s_{ic})

    with :math:`\ell` of :func:`ckd_mmdet.functional.ld_loss`; :math:`u` carries no gradient. As released it is not
    divided (``normalize='sum'``, ``loss_weight=0.25``), so that its size grows with the number of objects of a GPU's
    batch. For heads that predict such distributions, GFL and its like, as student and as teacher.

    Args:
        temperature: Softening of the distributions, greater than 0.
        region: ``'all'`` rows that were chosen; ``'positives'``, those that hold an object; or ``'valuable'``, those
            near one, see :func:`ckd_mmdet.functional.valuable_region`, which the selector ``NearObjects`` leaves.
        weight_by: ``None`` for 1; or ``'confidence'``, the student's, as released for the positives.
        normalize: ``'weights'``, as above, or ``'sum'``.
        loss_weight: Factor of the whole.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'distributions'})

    def __init__(self, temperature: float = 10.0, region: str = 'all', weight_by: str | None = None,
                 normalize: str = 'weights', loss_weight: float | str | Mapping = 1.0,
                 preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'LDLoss')
        one_of(region, REGIONS, 'region', 'LDLoss')
        one_of(normalize, NORMALIZE, 'normalize', 'LDLoss')
        one_of(weight_by, WEIGHTS, 'weight_by', 'LDLoss')
        self.temperature = temperature
        self.region = region
        self.weight_by = weight_by
        self.normalize = normalize
        if region != 'all':
            self.requires = self.requires | {'labels'}
        if region == 'valuable':
            self.requires = self.requires | {'valuable'}

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student, teacher = (given(side.distributions, 'distributions', self)
                            for side in (samples.student, samples.teacher))
        return ld_loss(student, teacher, temperature=self.temperature)

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        weights = self.weights(aligned)
        total = (weights * self.previewed(aligned, epoch=epoch)).sum()
        return total if self.normalize == 'sum' else total / weights.sum().clamp(min=1e-6)

    @torch.no_grad()
    def weights(self, samples: AlignedSamples) -> Tensor:
        """:math:`u_i`, 0 of rows out of the region; shape ``(n,)``, float32."""
        weights = torch.ones(len(samples), device=samples.student.logits.device)
        if self.weight_by == 'confidence':
            weights = samples.student.probabilities(samples.num_classes, samples.scoring).amax(1).float()
        if self.region == 'all':
            return weights
        objects = is_foreground(hard_labels(samples, self), samples.num_classes)
        if self.region == 'positives':
            return weights * objects
        return weights * (given(samples.valuable, 'valuable', self) & ~objects)
