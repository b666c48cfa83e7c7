from __future__ import annotations

from collections.abc import Mapping

import torch
from ckd_mmdet.functional import box_loss, overlap
from ckd_mmdet.functional.boxes import KINDS
from ckd_mmdet.functional.checks import not_negative, one_of
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor

from .base import RowLoss, given, hard_labels, positives

NORMALIZE = ('weights', 'positives')
WEIGHTS = (None, 'gap', 'confidence', 'better')


@MODELS.register_module()
class BoxLoss(RowLoss):
    r"""Distance of the student's boxes from the teacher's, row by row; both decoded, in pixels.

    .. math:: \mathcal{L} = \frac{\sum_i w_i \, \ell(b^s_i, b^t_i)}{\sum_i w_i}

    with :math:`\ell` of :func:`ckd_mmdet.functional.box_loss` and :math:`p` the probabilities of the shared classes,

    .. math:: w_i = 1, \quad \max_c |p^t_{ic} - p^s_{ic}|, \quad \max_c p^t_{ic} \quad \text{or} \quad
              1 \big[ \mathrm{IoU}(b^t_i, y_i) > \mathrm{IoU}(b^s_i, y_i) \big]

    none of which carries gradient. ``'gap'`` is BCKD's (arXiv 2308.14286), ``'confidence'`` KD-DETR's (arXiv
    2211.08071), ``'better'``, where the teacher's box is nearer to the true one :math:`y_i`, is ours. A RoI head has a
    box of the rows that hold an object, and only these count; whatever needs the true box counts them only, too.

    Args:
        kind: ``'giou'``, ``'iou'``, ``'l1'`` or ``'bounded'``.
        weight_by: ``None`` for 1, ``'gap'``, ``'confidence'`` or ``'better'``.
        normalize: ``'weights'``, as above; or ``'positives'``, divided by the number of rows that hold an object (at
            least 1; on several GPUs of all ranks) in the place of the sum of the weights, as BCKD. That needs labels,
            and a selector that leaves every row with an object.
        margin: Of ``'bounded'``, at least 0.
        loss_weight: Factor of the whole.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'boxes'})

    def __init__(self, kind: str = 'giou', weight_by: str | None = None, normalize: str = 'weights',
                 margin: float = 0.0, loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        one_of(kind, KINDS, 'kind', 'BoxLoss')
        one_of(weight_by, WEIGHTS, 'weight_by', 'BoxLoss')
        one_of(normalize, NORMALIZE, 'normalize', 'BoxLoss')
        not_negative(margin, 'margin', 'BoxLoss')
        if margin and kind != 'bounded':
            raise ValueError(f"`BoxLoss` needs `kind='bounded'` for a `margin`, got {kind!r}; leave `margin` out.")
        self.kind = kind
        self.weight_by = weight_by
        self.margin = margin
        self.counts_positives = normalize == 'positives'
        self.by_truth = kind == 'bounded' or weight_by == 'better'
        if self.by_truth:
            self.requires = self.requires | {'labels', 'truths'}
        if self.counts_positives:
            self.requires = self.requires | {'labels'}

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student, teacher = self._boxes(samples)
        truth = given(samples.truths, 'truths', self) if self.kind == 'bounded' else None
        rows = box_loss(student, teacher, kind=self.kind, truth=truth, margin=self.margin)
        return torch.where(self._counted_rows(samples), rows, torch.zeros_like(rows))

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        weights = self.weights(aligned)
        total = (weights * self.previewed(aligned, epoch=epoch)).sum()
        # no row counts: 0, with a graph
        return total / (positives(aligned, self) if self.counts_positives else weights.sum().clamp(min=1e-6))

    @torch.no_grad()
    def weights(self, samples: AlignedSamples) -> Tensor:
        """:math:`w_i`, 0 of rows that do not count; shape ``(n,)``, float32."""
        counted = self._counted_rows(samples)
        if self.weight_by is None:
            return counted.float()
        if self.weight_by == 'better':
            truth = given(samples.truths, 'truths', self)
            ours, theirs = (overlap(boxes, truth) for boxes in self._boxes(samples))
            return (counted & (theirs > ours)).float()
        teacher = samples.teacher.probabilities(samples.num_classes, samples.scoring)
        if self.weight_by == 'gap':
            teacher = (teacher - samples.student.probabilities(samples.num_classes, samples.scoring)).abs()
        return teacher.amax(1) * counted

    def metrics(self, aligned: AlignedSamples, *, epoch: int) -> dict[str, Tensor]:
        rows = self.counted(aligned)
        student, teacher = self._boxes(rows)
        counted = self._counted_rows(rows)
        mean = (overlap(student.detach(), teacher) * counted).sum() / counted.sum().clamp(min=1)
        return dict(box_overlap=mean, **super().metrics(aligned, epoch=epoch))

    def _boxes(self, samples: AlignedSamples) -> tuple[Tensor, Tensor]:
        return given(samples.student.boxes, 'boxes', self), given(samples.teacher.boxes, 'boxes', self).detach()

    def _counted_rows(self, samples: AlignedSamples) -> Tensor:
        """Rows that have a box, and where it is asked for a true one; shape ``(n,)``, bool."""
        if self.by_truth:
            return is_foreground(hard_labels(samples, self), samples.num_classes)
        if samples.boxed is not None:
            return samples.boxed
        return torch.ones(len(samples), dtype=torch.bool, device=samples.student.logits.device)
