"""Which rows are distilled: from what the teacher and the labels say of each row, to a mask over the rows."""

from __future__ import annotations

import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Candidates
from torch import Tensor


class Selector(ABC):
    """Chooses among the rows that may be distilled, before anything of the student is copied.

    A mask and not a list of indices: the device is never waited for, except once, when the chosen rows are counted.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """What it looks at, of ``{'confidence', 'labels', 'image_ids', 'level_ids', 'valuable'}``."""

    @abstractmethod
    def __call__(self, candidates: Candidates) -> Tensor:
        """The chosen rows, shape ``(n,)``, bool; a row that is not ``candidates.allowed`` is never chosen."""


class Chain(Selector):
    """Several selectors in turn: each chooses among the rows that the one before it left."""

    def __init__(self, selectors: Sequence[Selector]) -> None:
        self.selectors = selectors
        self.requires = frozenset().union(*(selector.requires for selector in selectors))  # type: ignore[misc]

    def __call__(self, candidates: Candidates) -> Tensor:
        for selector in self.selectors:
            candidates = candidates.only(selector(candidates))
        return candidates.allowed


@TASK_UTILS.register_module()
class All(Selector):
    """Every row, background included: the released CKD."""

    def __call__(self, candidates: Candidates) -> Tensor:
        return candidates.allowed


@TASK_UTILS.register_module()
class Foreground(Selector):
    """Rows that hold an object; background (about 75 % of sampled RoIs) stays out."""

    requires = frozenset({'labels'})

    def __call__(self, candidates: Candidates) -> Tensor:
        return candidates.allowed & candidates.foreground


class _Limited(Selector):
    """A selector with a number of rows.

    Args:
        k: At least 1.

    Raises:
        ValueError: If ``k`` is no whole number of at least 1.
    """

    def __init__(self, k: int) -> None:
        if type(k) is not int or k < 1:
            raise ValueError(f'`{type(self).__name__}` needs a whole `k` of at least 1, got {k!r}.')
        self.k = k


@TASK_UTILS.register_module()
class TeacherTopK(_Limited):
    """The ``k`` rows of the batch in which the teacher is most confident of a foreground class."""

    requires = frozenset({'confidence'})

    def __call__(self, candidates: Candidates) -> Tensor:
        return greatest(_confidence(candidates), candidates.allowed, self.k)


@TASK_UTILS.register_module()
class ForegroundPlus(_Limited):
    """The rows that hold an object, and the ``k`` background rows in which the teacher is most confident."""

    requires = frozenset({'labels', 'confidence'})

    def __call__(self, candidates: Candidates) -> Tensor:
        background = candidates.allowed & ~candidates.foreground
        return Foreground()(candidates) | greatest(_confidence(candidates), background, self.k)


@TASK_UTILS.register_module()
class NearObjects(Selector):
    """The rows that hold an object, and those in LD's valuable region about one.

    Of dense heads with distributions, see :func:`ckd_mmdet.functional.valuable_region`.
    """

    requires = frozenset({'labels', 'valuable'})

    def __call__(self, candidates: Candidates) -> Tensor:
        assert candidates.valuable is not None  # as `requires` says
        return candidates.allowed & (candidates.foreground | candidates.valuable)


@TASK_UTILS.register_module()
class Random(_Limited):
    """``k`` rows of the batch, each as likely as any other.

    They are drawn from a generator seeded by the teacher's scores: the student's own sampling draws the same numbers
    as without distillation, and a resumed run draws the same rows.
    """

    requires = frozenset({'confidence'})

    def __call__(self, candidates: Candidates) -> Tensor:
        confidence = _confidence(candidates)
        generator = torch.Generator().manual_seed(zlib.crc32(struct.pack('d', confidence.sum().item())))
        drawn = torch.rand(len(candidates), generator=generator, dtype=torch.float64)
        return greatest(drawn.to(confidence.device), candidates.allowed, self.k)


@TASK_UTILS.register_module()
class PerImageCap(_Limited):
    """At most ``k`` rows of each image: those in which the teacher is most confident of a foreground class."""

    requires = frozenset({'image_ids', 'confidence'})

    def __call__(self, candidates: Candidates) -> Tensor:
        assert candidates.image_ids is not None
        return greatest_of_each(candidates.image_ids, _confidence(candidates), candidates.allowed, self.k)


@TASK_UTILS.register_module()
class PerLevelCap(_Limited):
    """At most ``k`` rows of each level of each image: those in which the teacher is most confident."""

    requires = frozenset({'image_ids', 'level_ids', 'confidence'})

    def __call__(self, candidates: Candidates) -> Tensor:
        images, levels = candidates.image_ids, candidates.level_ids
        assert images is not None and levels is not None
        groups = images * (levels.max() + 1) + levels if len(levels) else images
        return greatest_of_each(groups, _confidence(candidates), candidates.allowed, self.k)


def greatest(numbers: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Mask ``(n,)`` of the ``k`` greatest of the allowed numbers; the first of equal ones."""
    ranked = _ranked(numbers, allowed)[:k]
    return torch.zeros_like(allowed).index_fill(0, ranked, True) & allowed


def greatest_of_each(groups: Tensor, numbers: Tensor, allowed: Tensor, k: int) -> Tensor:
    """Mask ``(n,)`` of the ``k`` greatest allowed numbers of each group ``(n,)``; the first of equal ones."""
    ranked = _ranked(numbers, allowed)
    ranked = ranked[groups[ranked].argsort(stable=True)]  # group by group, each from its greatest down
    grouped = groups[ranked]
    place = torch.arange(len(ranked), device=ranked.device) - torch.searchsorted(grouped, grouped)
    return torch.zeros_like(allowed).index_put((ranked,), place < k) & allowed


def _ranked(numbers: Tensor, allowed: Tensor) -> Tensor:
    """Indices from the greatest allowed number down; those that are not allowed are last."""
    return numbers.masked_fill(~allowed, -torch.inf).argsort(descending=True, stable=True)


def _confidence(candidates: Candidates) -> Tensor:
    assert candidates.confidence is not None  # as `requires` says
    return candidates.confidence
