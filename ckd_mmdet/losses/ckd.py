from __future__ import annotations

from ckd_mmdet.functional import ckd_loss
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.functional.contrast import NEGATIVES, TERMS
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor

from .base import RowLoss


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
        loss_weight: Factor of the mean over rows; released code uses 0.1 for detection, 10 to 100 for classification.

    Raises:
        ValueError: If an argument is out of its range.
    """

    least_columns = 2  # one number has no direction

    def __init__(self, temperature: float = 1.0, negatives: str = 'teacher_student', terms: str = 'both',
                 within: str = 'batch', loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        positive(temperature, 'temperature', 'CKDLoss')
        one_of(negatives, NEGATIVES, 'negatives', 'CKDLoss')
        one_of(terms, TERMS, 'terms', 'CKDLoss')
        one_of(within, ('batch', 'image'), 'within', 'CKDLoss')
        self.temperature = temperature
        self.negatives = negatives
        self.terms = terms
        self.within = within
        if within == 'image':
            self.requires = self.requires | {'image_ids'}

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return ckd_loss(samples.student.logits, samples.teacher.logits, temperature=self.temperature,
                        negatives=self.negatives, terms=self.terms,
                        groups=samples.image_ids if self.within == 'image' else None)
