from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_

from ckd_mmdet.functional import ckd_loss, other_id, same_id
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.functional.contrast import CONTRASTS, TERMS
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, is_foreground
from torch import Tensor

from .base import RowLoss, given, hard_labels

RULES = {'same_image': 'image_ids', 'other_label': 'labels'}
"""Of which rows may be negatives, and what each reads."""


@MODELS.register_module()
class CKDLoss(RowLoss):
    r"""Contrast of each row's student logits with the teacher's, against the other rows (CKD, arXiv 2404.14109).

    Three things are chosen apart: the *anchors*, rows whose loss counts; the *negatives* of an anchor, rows that it is
    contrasted with; and the loss of an anchor, :func:`ckd_mmdet.functional.ckd_loss`. The rows of one process are each
    other's negatives: under DDP the loss is the mean of the ranks' own values, not the value of the joined rows. It
    depends on their number (about :math:`\log n - 1` at best for ``temperature=1``).

    Args:
        temperature: :math:`\tau > 0`; 1 in the released code.
        contrast: What an anchor is compared with: ``'teacher_student'`` (released), ``'student_student'`` or
            ``'symmetric'``.
        terms: ``'both'``, ``'intra'``, which has no negatives, or ``'inter'``.
        anchors: ``'all'`` rows, as released, or the ``'foreground'``, the rows that hold an object.
        negatives: ``'all'`` other rows, as released; or only those of the ``'same_image'``, or of an ``'other_label'``
            (background is a label too; pushing rows of one label apart works against the classifier); or a list of such
            rules, all of which a negative fulfils. Background rows may be negatives of foreground anchors.
        loss_weight: Factor of the mean over anchors; released code uses 0.1 for detection, 10 to 100 for
            classification.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet as anchors, see :class:`Preview`; as negatives
            of the others they count in full.

    Raises:
        ValueError: If an argument is out of its range.
    """

    least_columns = 2
    why_columns = 'one score has no direction'
    renamed = dict(within="write `negatives='same_image'` for within='image', nothing for 'batch'",
                   same_label="write `negatives='other_label'` for same_label='left_out', nothing for 'negative'")

    def __init__(self, temperature: float = 1.0, contrast: str = 'teacher_student', terms: str = 'both',
                 anchors: str = 'all', negatives: str | Sequence[str] = 'all',
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'CKDLoss')
        one_of(contrast, CONTRASTS, 'contrast', 'CKDLoss')
        one_of(terms, TERMS, 'terms', 'CKDLoss')
        one_of(anchors, ('all', 'foreground'), 'anchors', 'CKDLoss')
        self.temperature = temperature
        self.contrast = contrast
        self.terms = terms
        self.anchors = anchors
        self.negatives = _rules(negatives)
        self.requires = self.requires | {RULES[rule] for rule in self.negatives}
        if anchors == 'foreground':
            self.requires = self.requires | {'labels'}

    def check(self, num_classes: int, background: bool) -> None:
        if num_classes == 1 and 'other_label' in self.negatives and self.terms != 'intra':
            way_out = "leave that out of `negatives`, or take a KDLoss" if background else 'take a KDLoss'
            raise ValueError("`CKDLoss` with `negatives='other_label'` needs at least two classes, and student and "
                             f'teacher share one: rows that hold an object would have no negatives; {way_out}.')

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        rows = self.previewed(aligned, epoch=epoch)
        if self.anchors == 'all':
            return rows.mean()
        anchors = is_foreground(hard_labels(aligned, self), aligned.num_classes)
        return (rows * anchors).sum() / anchors.sum().clamp(min=1)

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return ckd_loss(samples.student.logits, samples.teacher.logits, temperature=self.temperature,
                        contrast=self.contrast, terms=self.terms, negatives=self._mask(samples))

    def _mask(self, samples: AlignedSamples) -> Tensor | None:
        """Which rows are negatives of which anchor, shape ``(n, n)``; ``None`` for all."""
        masks = []
        if 'same_image' in self.negatives:
            masks.append(same_id(given(samples.image_ids, 'image_ids', self)))
        if 'other_label' in self.negatives:
            masks.append(other_id(hard_labels(samples, self)))
        return reduce(and_, masks) if masks else None


def _rules(negatives: str | Sequence[str]) -> tuple[str, ...]:
    if negatives == 'all':
        return ()
    rules = (negatives,) if isinstance(negatives, str) else negatives
    if isinstance(rules, list | tuple) and rules and all(isinstance(rule, str) and rule in RULES for rule in rules):
        return tuple(rules)
    hint = ''
    if negatives in CONTRASTS:
        hint = f'; what an anchor is compared with is now called `contrast`, write `contrast={negatives!r}`'
    raise ValueError(f"`CKDLoss` needs `negatives` to be 'all', one of {tuple(RULES)} or a list of these, got "
                     f'{negatives!r}{hint}.')
