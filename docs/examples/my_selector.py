"""A selector: the rows on which the teacher is more confident than a threshold."""

from __future__ import annotations

from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import Candidates
from ckd_mmdet.selectors import Selector
from torch import Tensor


@TASK_UTILS.register_module()
class ConfidentRows(Selector):
    """Rows whose confidence is at least ``threshold``."""

    requires = frozenset({'confidence'})

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 <= threshold <= 1:
            raise ValueError(f'`ConfidentRows` needs a `threshold` from 0 to 1, got {threshold!r}.')
        self.threshold = threshold

    def __call__(self, candidates: Candidates) -> Tensor:
        return candidates.allowed & (candidates.confidence >= self.threshold)  # (n,), bool
