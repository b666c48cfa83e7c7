from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from ckd_mmdet.functional.checks import is_finite, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor, nn

from .maps import MapLoss


@MODELS.register_module()
class MGDLoss(MapLoss):
    r"""The teacher's maps, made again from the student's of which a part is hidden (MGD, arXiv 2205.01529).

    .. math:: \mathcal{L} = \alpha \sum_{levels} \frac{1}{N} \sum_i \| t_i - G(M_i A(s_i)) \|^2

    :math:`M` hides each place with the probability ``mask_ratio``; :math:`A` is a 1x1 convolution where widths differ;
    :math:`G` two 3x3 convolutions with a ReLU between them in the teacher's width. Both are learned with the student
    and not needed after it. The mask is drawn from a generator seeded by the teacher's maps: the student's own sampling
    draws the same numbers as without distillation, and a resumed run hides the same places.

    Args:
        alpha: Greater than 0; by default the published one for two-stage detectors, 2e-5 for others.
        mask_ratio: Probability that a place is hidden, at least 0 and less than 1; 0.45 as published for two-stage
            detectors, 0.65 for others.
        project: As of :class:`MapLoss`.
        loss_weight: Another factor.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, alpha: float = 5e-7, mask_ratio: float = 0.45, project: bool | None = None,
                 loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(project, loss_weight)
        positive(alpha, 'alpha', 'MGDLoss')
        if not (is_finite(mask_ratio) and 0 <= mask_ratio < 1):
            raise ValueError(f'`MGDLoss` needs a `mask_ratio` of at least 0 and less than 1, got {mask_ratio!r}.')
        self.alpha = alpha
        self.mask_ratio = mask_ratio

    def projector(self, level: int, widths: Widths) -> nn.Module:
        width = widths.teacher[level]
        generation = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
                                   nn.Conv2d(width, width, 3, padding=1))
        return nn.ModuleList([super().projector(level, widths), generation])

    def projected(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [cast(nn.ModuleList, parts)[0](level) for parts, level in zip(self.projectors, maps, strict=True)]

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        made = cast(nn.ModuleList, self.projectors[level])[1](student * places_shown(teacher, self.mask_ratio))
        return self.alpha * (made.float() - teacher.detach().float()).square().sum((1, 2, 3))


def places_shown(teacher: Tensor, mask_ratio: float) -> Tensor:
    """Which places of the student's maps are shown, shape ``(N, 1, h, w)``: 1, or 0 where they are hidden.

    Args:
        teacher: The teacher's maps, ``(N, d, h, w)``: an image's own seed its mask.
        mask_ratio: Probability that a place is hidden.
    """
    n, _, h, w = teacher.shape
    seeds = [zlib.crc32(struct.pack('d', total)) for total in teacher.double().sum((1, 2, 3)).tolist()]
    draws = [torch.rand(h, w, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return (torch.stack(draws)[:, None] >= mask_ratio).to(teacher)
