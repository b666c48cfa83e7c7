"""Which rows are distilled: from what the teacher and the labels say, to row indices."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Candidates, is_foreground
from torch import Tensor


class Selector(ABC):
    """Chooses rows before anything of the student is copied."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """What the aligner must provide, of ``{'labels', 'image_ids', 'level_ids'}``."""

    @abstractmethod
    def __call__(self, candidates: Candidates) -> Tensor:
        """Indices of the chosen rows, shape ``(m,)``, int64, ascending, ``m <= n``."""


class Chain(Selector):
    """Several selectors in turn: each chooses among the rows that the one before it left."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        self.selectors = selectors
        self.requires = frozenset().union(*(selector.requires for selector in selectors))

    def __call__(self, candidates: Candidates) -> Tensor:
        rows = torch.arange(len(candidates), device=candidates.confidence.device)
        for selector in self.selectors:
            rows = rows[selector(candidates.take(rows))]
        return rows


@TASK_UTILS.register_module()
class All(Selector):
    """Every row, background included: the released CKD."""

    def __call__(self, candidates: Candidates) -> Tensor:
        return torch.arange(len(candidates), device=candidates.confidence.device)


@TASK_UTILS.register_module()
class Foreground(Selector):
    """Rows that hold an object; background (about 75 % of sampled RoIs) and ignored rows stay out."""

    requires = frozenset({'labels'})

    def __call__(self, candidates: Candidates) -> Tensor:
        return is_foreground(candidates.labels, candidates.num_classes).nonzero().squeeze(1)


class _Limited(Selector):
    """A selector with a number of rows.

    Args:
        k: At least 1.

    Raises:
        ValueError: If ``k`` is no whole number of at least 1.
    """

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or k < 1:
            raise ValueError(f'`{type(self).__name__}` needs a whole `k` of at least 1, got {k}.')
        self.k = k


@TASK_UTILS.register_module()
class TeacherTopK(_Limited):
    """The ``k`` rows of the batch in which the teacher is most confident of a foreground class."""

    def __call__(self, candidates: Candidates) -> Tensor:
        return _most_confident(candidates.confidence, self.k)


@TASK_UTILS.register_module()
class ForegroundPlus(_Limited):
    """The rows that hold an object, and the ``k`` others in which the teacher is most confident.

    Rows to be ignored stay out.
    """

    requires = frozenset({'labels'})

    def __call__(self, candidates: Candidates) -> Tensor:
        background = (candidates.labels == candidates.num_classes).nonzero().squeeze(1)
        others = background[_most_confident(candidates.confidence[background], self.k)]
        return torch.cat([Foreground()(candidates), others]).sort().values


@TASK_UTILS.register_module()
class Random(_Limited):
    """``k`` rows of the batch, each as likely as any other.

    They are drawn from a generator seeded by the teacher's scores: the student's own sampling draws the same numbers
    as without distillation, and a resumed run draws the same rows.
    """

    def __call__(self, candidates: Candidates) -> Tensor:
        scores = candidates.confidence.sum().item()
        generator = torch.Generator().manual_seed(zlib.crc32(struct.pack('d', scores)))
        drawn = torch.randperm(len(candidates), generator=generator)[:self.k].sort().values
        return drawn.to(candidates.confidence.device)


@TASK_UTILS.register_module()
class PerImageCap(_Limited):
    """At most ``k`` rows of each image: those in which the teacher is most confident of a foreground class."""

    requires = frozenset({'image_ids'})

    def __call__(self, candidates: Candidates) -> Tensor:
        return _of_each(candidates.image_ids, candidates.confidence, self.k)


@TASK_UTILS.register_module()
class PerLevelCap(_Limited):
    """At most ``k`` rows of each level of each image: those in which the teacher is most confident."""

    requires = frozenset({'image_ids', 'level_ids'})

    def __call__(self, candidates: Candidates) -> Tensor:
        images, levels = candidates.image_ids, candidates.level_ids
        return _of_each(images * (int(levels.max()) + 1 if len(levels) else 1) + levels, candidates.confidence, self.k)


def _most_confident(confidence: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` greatest, ascending; the first of equal ones."""
    return confidence.argsort(descending=True, stable=True)[:k].sort().values


def _of_each(groups: Tensor, confidence: Tensor, k: int) -> Tensor:
    """Indices of the ``k`` greatest of each group, ascending; the first of equal ones."""
    ranked = confidence.argsort(descending=True, stable=True)
    rows = [ranked[groups[ranked] == group][:k] for group in groups.unique()]
    return torch.cat(rows).sort().values if rows else ranked
