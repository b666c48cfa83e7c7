"""Which rows are distilled: from what the teacher and the labels say, to row indices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Candidates, is_foreground
from torch import Tensor


class Selector(ABC):
    """Chooses rows before anything of the student is copied."""

    requires: ClassVar[frozenset[str]] = frozenset()
    """What the aligner must provide, of ``{'labels', 'image_ids'}``."""

    @abstractmethod
    def __call__(self, candidates: Candidates) -> Tensor:
        """Indices of the chosen rows, shape ``(m,)``, int64, ascending, ``m <= n``."""


@TASK_UTILS.register_module()
class All(Selector):
    """Every row, background included: the released CKD."""

    def __call__(self, candidates: Candidates) -> Tensor:
        return torch.arange(len(candidates), device=candidates.logits.device)


@TASK_UTILS.register_module()
class Foreground(Selector):
    """Rows that hold an object; background (about 75 % of sampled RoIs) and ignored rows stay out."""

    requires = frozenset({'labels'})

    def __call__(self, candidates: Candidates) -> Tensor:
        return is_foreground(candidates.labels, candidates.num_classes).nonzero().squeeze(1)


@TASK_UTILS.register_module()
class PerImageCap(Selector):
    """At most ``k`` rows of each image: those with the greatest teacher logit over the foreground classes.

    Args:
        k: Largest number of rows an image, at least 1.

    Raises:
        ValueError: If ``k`` is no whole number of at least 1.
    """

    requires = frozenset({'image_ids'})

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or k < 1:
            raise ValueError(f'`PerImageCap` needs a whole `k` of at least 1, got {k}.')
        self.k = k

    def __call__(self, candidates: Candidates) -> Tensor:
        confidence = candidates.logits[:, :candidates.num_classes].amax(1)
        ranked = confidence.argsort(descending=True, stable=True)
        rows = [ranked[candidates.image_ids[ranked] == image][:self.k] for image in candidates.image_ids.unique()]
        return torch.cat(rows).sort().values if rows else ranked
