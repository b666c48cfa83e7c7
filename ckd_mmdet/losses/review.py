from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from ckd_mmdet.functional import hcl_loss
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import Widths
from torch import Tensor, nn

from .maps import MapLoss


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

    def build_parts(self, widths: Widths) -> None:
        super().build_parts(widths)
        if len(widths.student) == 1:
            raise ValueError('`ReviewKDLoss` needs at least two levels, the finer to review the coarser, got one; '
                             "take an L2Loss, or, of a classifier, give the student's and the teacher's backbone more "
                             '`out_indices`.')

    def projector(self, level: int, widths: Widths) -> nn.Module:
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
        fused, out = None, []
        for fusion, level in zip(reversed(self.projectors), reversed(maps), strict=True):
            fused = fusion.fuse(level, fused)
            out.append(fusion.widen(fused))
        return out[::-1]

    def per_image(self, student: Tensor, teacher: Tensor) -> Tensor:
        return hcl_loss(student, teacher)


class Fusion(nn.Module):
    """What is learned on one level.

    Args:
        student: Number of channels of the student's maps.
        mid: Number of channels that are fused.
        teacher: Number of channels of the teacher's maps.
        has_coarser: Whether there is a coarser level to be fused with.
    """

    def __init__(self, student: int, mid: int, teacher: int, has_coarser: bool) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv2d(student, mid, 1, bias=False), BatchNorm(mid))
        self.attention = nn.Conv2d(2 * mid, 2, 1) if has_coarser else None
        self.widen = nn.Sequential(nn.Conv2d(mid, teacher, 3, padding=1, bias=False), BatchNorm(teacher))
        for conv in (self.narrow[0], self.widen[0]):
            nn.init.kaiming_uniform_(conv.weight, a=1)

    def fuse(self, maps: Tensor, coarser: Tensor | None) -> Tensor:
        """This level and the coarser one's result, each as far as attention goes, shape ``(N, mid, h, w)``.

        Args:
            maps: The student's, shape ``(N, student, h, w)``.
            coarser: What this method gave for the next coarser level; ``None`` on the coarsest.
        """
        own = self.narrow(maps)
        if self.attention is None:
            return own
        coarser = F.interpolate(coarser, own.shape[2:], mode='nearest')
        attention = self.attention(torch.cat([own, coarser], 1)).sigmoid()
        return own * attention[:, :1] + coarser * attention[:, 1:]


class BatchNorm(nn.BatchNorm2d):
    """By its running statistics where one image has one place only, which has no spread of its own."""

    def forward(self, maps: Tensor) -> Tensor:
        if self.training and maps[:, 0].numel() == 1:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(maps)
