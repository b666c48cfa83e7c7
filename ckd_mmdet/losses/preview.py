"""Preview weighting, which any loss of rows may carry: what is hard for the student counts little as yet."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from ckd_mmdet.functional import (
    binary_cross_entropy,
    cross_entropy,
    preview_threshold,
    preview_weights,
    relative_difficulty,
)
from ckd_mmdet.functional.checks import is_finite
from ckd_mmdet.samples import AlignedSamples
from torch import Tensor


class Preview:
    r"""Weights of rows by their difficulty, which grow with the epochs (PCKD, arXiv 2410.14143).

    A row's difficulty :math:`\gamma` is the cross entropy of the *student's* logits and its label, the binary one of a
    head with one sigmoid a class, over the mean of the batch of one process. Up to the threshold :math:`t(e) = b^e`,
    the epoch :math:`e` counted from 1, its weight is 1, beyond it :math:`e^{-\gamma^2}`; no gradient flows through it.

    Of several views of an image all have the difficulty of the plain one. Where some rows are background, their mean
    and that of the rows that hold an object are taken apart: most rows are easy background, beside which every object
    would be hard (for detectors, ours). Rows to be ignored have no difficulty: leave them out before.

    Args:
        base: :math:`b \ge 1`; 1.005 as released.
        name: Whose rows are weighted, for errors.

    Raises:
        ValueError: If ``base`` is out of its range.
    """

    def __init__(self, base: float = 1.005, *, name: str = 'Preview') -> None:
        if not (is_finite(base) and base >= 1):
            raise ValueError(f'`{name}` needs a finite `base` of at least 1 in its `preview`, got {base!r}.')
        self.base = base
        self.name = name

    @classmethod
    def of(cls, preview: Mapping | None, name: str) -> Preview | None:
        """Read a config's ``preview``: a dict of this class's arguments, or ``None`` for none.

        Raises:
            ValueError: If it is neither, or of a wrong number.
        """
        if preview is None:
            return None
        if not isinstance(preview, Mapping) or not set(preview) <= {'base'}:
            raise ValueError(f'`{name}` needs a `preview` of None or dict(base=1.005), got {preview!r}.')
        return cls(**preview, name=name)

    def threshold(self, epoch: int) -> float:
        """Largest difficulty still treated as easy in an epoch, counted from 0."""
        return preview_threshold(epoch + 1, self.base)

    def weights(self, samples: AlignedSamples, epoch: int) -> Tensor:
        """Weight of each row in an epoch, counted from 0; shape ``(n,)``, at least float32, without gradient.

        Raises:
            ValueError: If a label is out of its range, or an image's plain view is missing or there more than once.
        """
        return preview_weights(self.difficulty(samples), self.threshold(epoch))

    def metrics(self, samples: AlignedSamples, epoch: int) -> dict[str, Tensor]:
        """What is logged: mean weight and admitted share of the rows, 0 without any, and the threshold.

        They are scalars, ``preview_weight``, ``preview_admitted`` and ``preview_threshold``; ``epoch`` counts from 0.

        Raises:
            ValueError: As :meth:`weights`.
        """
        difficulty, threshold = self.difficulty(samples), self.threshold(epoch)
        n = max(1, len(difficulty))
        return dict(preview_weight=preview_weights(difficulty, threshold).sum() / n,
                    preview_admitted=(difficulty <= threshold).sum() / n,
                    preview_threshold=difficulty.new_full((), threshold))

    @torch.no_grad()
    def difficulty(self, samples: AlignedSamples) -> Tensor:
        """Of each row, shape ``(n,)``.

        Raises:
            ValueError: As :meth:`weights`.
        """
        plain = samples.plain()
        try:
            found = _difficulty(plain)
        except ValueError as error:
            raise ValueError(f'`{self.name}` with `preview`: {error}') from error
        if samples.views is None:
            return found
        if samples.image_ids is None or plain.image_ids is None:
            raise ValueError(f'`{self.name}` with `preview` needs `image_ids` beside `views`, to know which views are '
                             'of one image.')
        matches = samples.image_ids[:, None] == plain.image_ids[None, :]
        if not (matches.sum(1) == 1).all():
            raise ValueError(f'`{self.name}` with `preview` needs exactly one plain view (0) of every image, whose '
                             'difficulty the others share; take the whole batch, without a selector.')
        return found[matches.int().argmax(1)] if len(found) else found


def _difficulty(samples: AlignedSamples) -> Tensor:
    logits, labels = samples.student.logits, samples.labels
    if labels is None:
        raise ValueError('needs `labels` of the rows, got None; take an aligner that provides labels.')
    loss_of = binary_cross_entropy if samples.scoring == 'sigmoid' else cross_entropy
    losses = loss_of(logits, labels, check=not samples.filtered)
    return relative_difficulty(losses, labels == samples.num_classes if labels.ndim == 1 else None)
