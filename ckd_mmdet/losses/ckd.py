from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import ckd_loss
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.functional.contrast import NEGATIVES, TERMS
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor

from .base import RowLoss, check_hard


@MODELS.register_module()
class CKDLoss(RowLoss):
    r"""Contrast of each row's student logits with the teacher's, against the other rows (CKD, arXiv 2404.14109).

    The rows of one process are each other's negatives: under DDP the loss is the mean of the ranks' own values, not
    the value of the joined rows. It depends on their number (about :math:`\log n - 1` at best for ``temperature=1``).

    Args:
        temperature: :math:`\tau > 0`; 1 in the released code.
        negatives: ``'teacher_student'`` (released), ``'student_student'`` or ``'symmetric'``; see
            :func:`ckd_mmdet.functional.ckd_loss`.
        terms: ``'both'``, ``'intra'`` or ``'inter'``.
        within: Rows that are contrasted: ``'batch'``, as released, or only those of one ``'image'``.
        same_label: What rows of one label are to each other: ``'negative'`` as all others, as released, or
            ``'left_out'``; the background is a label too.
        anchors: Rows whose loss counts: ``'all'``, as released, or ``'foreground'``, the rows that hold an object, with
            every row as a negative.
        loss_weight: Factor of the mean over rows; released code uses 0.1 for detection, 10 to 100 for classification.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet as anchors, see :class:`Preview`; as negatives
            of the others they count in full.

    Raises:
        ValueError: If an argument is out of its range.
    """

    least_columns = 2  # one number has no direction

    def __init__(self, temperature: float = 1.0, negatives: str = 'teacher_student', terms: str = 'both',
                 within: str = 'batch', same_label: str = 'negative', anchors: str = 'all',
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'CKDLoss')
        one_of(negatives, NEGATIVES, 'negatives', 'CKDLoss')
        one_of(terms, TERMS, 'terms', 'CKDLoss')
        one_of(within, ('batch', 'image'), 'within', 'CKDLoss')
        one_of(same_label, ('negative', 'left_out'), 'same_label', 'CKDLoss')
        one_of(anchors, ('all', 'foreground'), 'anchors', 'CKDLoss')
        self.temperature = temperature
        self.negatives = negatives
        self.terms = terms
        self.within = within
        self.same_label = same_label
        self.anchors = anchors
        if within == 'image':
            self.requires = self.requires | {'image_ids'}
        if same_label == 'left_out' or anchors == 'foreground':
            self.requires = self.requires | {'labels'}

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        rows = self.previewed(aligned, epoch=epoch)
        if self.anchors == 'all':
            return rows.mean()
        check_hard(aligned, self)
        counted = is_foreground(aligned.labels, aligned.num_classes)
        return (rows * counted).sum() / counted.sum().clamp(min=1)

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        if self.same_label == 'left_out':
            check_hard(samples, self)
        return ckd_loss(samples.student.logits, samples.teacher.logits, temperature=self.temperature,
                        negatives=self.negatives, terms=self.terms,
                        groups=samples.image_ids if self.within == 'image' else None,
                        labels=samples.labels if self.same_label == 'left_out' else None)
