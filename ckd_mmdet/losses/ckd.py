from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import and_

import torch
from ckd_mmdet.functional import ckd_loss, little_overlap, other_id, relation_loss, same_id, told_apart
from ckd_mmdet.functional.checks import is_finite, one_of, positive
from ckd_mmdet.functional.contrast import CONTRASTS, TERMS
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, JoinedRows, Widths, is_foreground
from torch import Tensor, nn

from .base import RowLoss, feature_widths, given, hard_labels, in_full

RULES = {'same_image': 'image_ids', 'other_label': 'labels'}
"""Of which rows may be negatives, and what each reads."""


@MODELS.register_module()
class CKDLoss(RowLoss):
    r"""Contrast of each row's student logits with the teacher's, against the other rows (CKD, arXiv 2404.14109).

    Three things are chosen apart: the *anchors*, rows whose loss counts; the *negatives* of an anchor, rows that it is
    contrasted with; and the loss of an anchor, :func:`ckd_mmdet.functional.ckd_loss`. The rows of one process are each
    other's negatives: under DDP the loss is the mean of the ranks' own values, not the value of the joined rows, unless
    ``negatives_of='all'``. It depends on their number (about :math:`\log n - 1` at best for ``temperature=1``).

    Args:
        temperature: :math:`\tau > 0`; 1 in the released code.
        contrast: What an anchor is compared with: ``'teacher_student'`` (released), ``'student_student'`` or
            ``'symmetric'``; or ``'student_teacher'``, by which the student's row is the anchor among the teacher's.
        terms: ``'both'``, ``'intra'``, which has no negatives, or ``'inter'``; or ``'relations'``, in the place of them
            :func:`ckd_mmdet.functional.relation_loss`, which pushes nothing apart.
        anchors: ``'all'`` rows, as released, or the ``'foreground'``, the rows that hold an object.
        negatives: ``'all'`` other rows, as released; or only those of the ``'same_image'``, or of an ``'other_label'``
            (background is a label too; pushing rows of one label apart works against the classifier); or a list of such
            rules, all of which a negative fulfils. Background rows may be negatives of foreground anchors.
        on: ``'logits'``, as released, or ``'features'``, the inputs of the last layers: the student's by a linear map
            to the teacher's width, which is learned with it (as the contrast of RoIs of G-DetKD, ICCV 2021);
            ``'relations'`` need none.
        overlap: Rows of one image whose regions overlap by more are no negatives of each other, from 0 to 1; of RoIs.
            ``None``: they are.
        difference: Rows of which the teacher says with less than this probability that their classes differ are no
            negatives of each other, from 0 to 1, see :func:`ckd_mmdet.functional.told_apart`; of softmax heads.
            ``None``: they are.
        negatives_of: Whose rows are negatives under DDP: of one ``'rank'``, or of ``'all'``. With ``'all'`` the mean of
            the ranks' values, and DDP's gradient, are those of one process with the rows of all ranks; a rank
            without rows counts for nothing. Each rank compares all rows with all: see docs/scaling.md.
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
                 loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None,
                 negatives_of: str = 'rank', on: str = 'logits', overlap: float | None = None,
                 difference: float | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'CKDLoss')
        one_of(contrast, CONTRASTS, 'contrast', 'CKDLoss')
        one_of(terms, (*TERMS, 'relations'), 'terms', 'CKDLoss')
        one_of(on, ('logits', 'features'), 'on', 'CKDLoss')
        one_of(anchors, ('all', 'foreground'), 'anchors', 'CKDLoss')
        one_of(negatives_of, ('rank', 'all'), 'negatives_of', 'CKDLoss')
        self.temperature = temperature
        self.contrast = contrast
        self.terms = terms
        self.anchors = anchors
        self.negatives = _rules(negatives)
        self.on = on
        self.overlap = _share(overlap, 'overlap')
        self.difference = _share(difference, 'difference')
        self.needs_all_ranks = negatives_of == 'all'
        self._check_choices()
        if self.needs_all_ranks and (terms == 'intra' or 'same_image' in self.negatives):
            why = "`terms='intra'` has none" if terms == 'intra' else 'all rows of one image are on one rank'
            raise ValueError(f"`CKDLoss` with `negatives_of='all'` needs negatives from other ranks, and {why}; leave "
                             '`negatives_of` out.')
        self.requires = self.requires | {RULES[rule] for rule in self.negatives}
        if on == 'features':
            self.requires = self.requires | {'features'}
            self.least_columns = 1
        if overlap is not None:
            self.requires = self.requires | {'regions', 'image_ids'}
        if difference is not None:
            self.scorings = frozenset({'softmax'})
        if anchors == 'foreground':
            self.requires = self.requires | {'labels'}

    def _check_choices(self) -> None:
        """Refuse choices that do not go together."""
        if self.terms == 'relations' and (self.temperature != 1 or self.contrast != CONTRASTS[0]):
            raise ValueError("`CKDLoss` with `terms='relations'` compares cosines among the student's rows with those "
                             'among the teacher\'s; leave `temperature` and `contrast` out.')
        if self.needs_all_ranks and (self.on == 'features' or self.overlap is not None):
            what = "`on='features'`" if self.on == 'features' else '`overlap`'
            raise ValueError("`CKDLoss` with `negatives_of='all'` knows the logits, labels and images of other ranks, "
                             f'and {what} needs more; leave `negatives_of` out.')

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        if self.on == 'logits' or self.terms == 'relations':
            return []
        return [nn.Linear(*feature_widths(widths, self), bias=False)]

    def check(self, num_classes: int, background: bool) -> None:
        if num_classes == 1 and 'other_label' in self.negatives and self.terms != 'intra':
            way_out = "leave that out of `negatives`, or take a KDLoss, as `--method kd`" if background else (
                'take a KDLoss, as `--method kd`')
            raise ValueError("`CKDLoss` with `negatives='other_label'` needs at least two classes, and student and "
                             f'teacher share one: rows that hold an object would have no negatives; {way_out}.')

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        if self.needs_all_ranks and aligned.joined is not None:
            return self._of_all_ranks(aligned.joined, epoch)
        rows = self.previewed(aligned, epoch=epoch)
        if self.anchors == 'all':
            return rows.mean()
        anchors = is_foreground(hard_labels(aligned, self), aligned.num_classes)
        return (rows * anchors).sum() / anchors.sum().clamp(min=1)

    def _of_all_ranks(self, joined: JoinedRows, epoch: int) -> Tensor:
        """This rank's part of the mean over all anchors, times the ranks, since DDP takes their mean.

        The anchors of other ranks add to the gradient only: this rank's rows are their negatives.
        """
        rows, anchors = self.previewed(joined.rows, epoch=epoch), joined.rows.student.logits.new_ones(len(joined.rows))
        if self.anchors == 'foreground':
            anchors = is_foreground(hard_labels(joined.rows, self), joined.rows.num_classes)
        counted = rows * anchors
        ours = counted[joined.own].sum()
        others = counted.sum() - ours
        return joined.ranks * (ours + others - others.detach()) / anchors.sum().clamp(min=1)

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        student, teacher = self._compared(samples)
        if self.terms == 'relations':
            return relation_loss(student, teacher, negatives=self._mask(samples))
        return ckd_loss(student, teacher, temperature=self.temperature, contrast=self.contrast, terms=self.terms,
                        negatives=self._mask(samples))

    def _compared(self, samples: AlignedSamples) -> tuple[Tensor, Tensor]:
        """What is compared of each row, shape ``(n, d)`` each."""
        if self.on == 'logits':
            return samples.student.logits, samples.teacher.logits
        self.check_built()
        ours, theirs = (given(side.features, 'features', self) for side in (samples.student, samples.teacher))
        return in_full(self.parts[0], ours) if len(self.parts) else ours, theirs

    def _mask(self, samples: AlignedSamples) -> Callable[[slice], Tensor] | None:
        """Which rows are negatives of the anchors of a slice, shape ``(m, n)``; ``None`` for all."""
        same = given(samples.image_ids, 'image_ids', self) if 'same_image' in self.negatives else None
        other = hard_labels(samples, self) if 'other_label' in self.negatives else None

        regions = None if self.overlap is None else (given(samples.regions, 'regions', self),
                                                     given(samples.image_ids, 'image_ids', self), self.overlap)
        with torch.no_grad():
            sure = None if self.difference is None else (samples.teacher.logits.float().softmax(1), self.difference)

        def mask(anchors: slice) -> Tensor:
            masks = [] if same is None else [same_id(same[anchors], same)]
            masks += [] if other is None else [other_id(other[anchors], other)]
            masks += [] if regions is None else [little_overlap(*regions, anchors)]
            masks += [] if sure is None else [told_apart(*sure, anchors)]
            return reduce(and_, masks)

        return mask if self.negatives or regions is not None or sure is not None else None


def _share(value: float | None, name: str) -> float | None:
    if value is not None and not (is_finite(value) and 0 <= value <= 1):
        raise ValueError(f'`CKDLoss` needs `{name}` from 0 to 1, or None, got {value!r}.')
    return value


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
