from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from ckd_mmdet.functional import hcl_loss
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor, nn

from .maps import MapLoss
from .norm import ChannelNorm


@MODELS.register_module()
class ReviewKDLoss(MapLoss):
    """Distance of each level's maps from the teacher's, what the coarser levels know fused in (arXiv 2104.09044).

    From the coarsest level to the finest, each is fused with what came of the coarser ones by learned attention, and
    brought to the teacher's width; then :func:`ckd_mmdet.functional.hcl_loss`, summed over the levels. The fusion is
    that of the paper and of its released code for detection; it is learned with the student and not needed after it.

    Args:
        mid_channels: Width of what is handed from level to level, at least 1; 256 as released.
        loss_weight: Factor of the sum; released code for detection uses 0.8 to 2 beside CKD, by the pair of models.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, mid_channels: int = 256, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(loss_weight=loss_weight)
        if type(mid_channels) is not int or mid_channels < 1:
            raise ValueError(f'`ReviewKDLoss` needs a whole `mid_channels` of at least 1, got {mid_channels!r}.')
        self.mid_channels = mid_channels

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        parts = super().new_parts(widths)
        if len(widths.student) == 1:
            raise ValueError('`ReviewKDLoss` needs at least two levels, the finer to review the coarser, got one; '
                             "take an L2Loss (`--method l2`), or, of a classifier, give the student's and the "
                             "teacher's backbone more `out_indices`.")
        return parts

    def projector(self, level: int, widths: Widths) -> Fusion:
        coarsest = level == len(widths.student) - 1
        return Fusion(widths.student[level], self.mid_channels, widths.teacher[level], has_coarser=not coarsest)

    def projected(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The student's maps in the teacher's width, shape ``(N, d_t, h, w)`` each.

        Raises:
            ValueError: If the levels do not go from fine to coarse.
        """
        heights = [len(level[0, 0]) for level in maps]
        if heights != sorted(heights, reverse=True):
            raise ValueError(f'`ReviewKDLoss` needs the levels from fine to coarse, got maps of the heights {heights}; '
                             "choose them finest first with the aligner's `levels`, [2, 1, 0] for example.")
        fused: Tensor | None = None
        out: list[Tensor] = []
        fusions = cast(Sequence[Fusion], list(self.projectors))
        for fusion, level in zip(reversed(fusions), reversed(maps), strict=True):
            fused = fusion.fuse(level, fused)
            out.append(fusion.widen(fused))
        return out[::-1]

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        return hcl_loss(student, teacher)


class Fusion(nn.ModuleList):
    """What is learned on one level: two convolutions with their normalisation and, above the coarsest, the attention.

    Args:
        student: Number of channels of the student's maps.
        mid: Number of channels that are fused.
        teacher: Number of channels of the teacher's maps.
        has_coarser: Whether there is a coarser level to be fused with.
    """

    def __init__(self, student: int, mid: int, teacher: int, has_coarser: bool) -> None:
        narrow = nn.Conv2d(student, mid, 1, bias=False)
        attention = nn.Conv2d(2 * mid, 2, 1) if has_coarser else None
        widen = nn.Conv2d(mid, teacher, 3, padding=1, bias=False)
        for conv in (narrow, widen):
            nn.init.kaiming_uniform_(conv.weight, a=1)
        parts = [nn.Sequential(narrow, ChannelNorm(mid)), nn.Sequential(widen, ChannelNorm(teacher)), attention]
        super().__init__(part for part in parts if part is not None)

    @property
    def narrow(self) -> nn.Module:
        """From the student's width to the middle one."""
        return self[0]

    @property
    def widen(self) -> nn.Module:
        """From the middle width to the teacher's."""
        return self[1]

    @property
    def attention(self) -> nn.Module | None:
        """From both maps to how much of each counts; ``None`` on the coarsest level."""
        return self[2] if len(self) > 2 else None

    def fuse(self, maps: Tensor, coarser: Tensor | None) -> Tensor:
        """This level and the coarser one's result, each as far as attention goes, shape ``(N, mid, h, w)``.

        Args:
            maps: The student's, shape ``(N, student, h, w)``.
            coarser: What this method gave for the next coarser level; ``None`` on the coarsest.
        """
        own: Tensor = self.narrow(maps)
        if self.attention is None or coarser is None:
            return own
        coarser = F.interpolate(coarser, own.shape[2:], mode='nearest')
        attention = self.attention(torch.cat([own, coarser], 1)).sigmoid()
        return own * attention[:, :1] + coarser * attention[:, 1:]
