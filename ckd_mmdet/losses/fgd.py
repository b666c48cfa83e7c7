from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from ckd_mmdet.functional import fgd_terms, object_weights
from ckd_mmdet.functional.checks import not_negative, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor, nn

from .maps import MapLoss


@MODELS.register_module()
class FGDLoss(MapLoss):
    r"""Focal and global distillation of feature maps (FGD, arXiv 2111.11837).

    .. math:: \mathcal{L} = \sum_{levels} \frac{1}{N} \sum_i \alpha \ell^{fg}_i + \beta \ell^{bg}_i
              + \gamma \ell^{at}_i + \lambda \| R_s(s_i) - R_t(t_i) \|^2

    with the terms of :func:`ckd_mmdet.functional.fgd_terms` and the global context :math:`R` of :class:`Context`, a
    block on each side, both learned with the student and not needed after it.

    Args:
        temperature: Of the attentions, greater than 0.
        alpha: Weight of the objects, at least 0, as are the next three; by default the published ones for two-stage
            detectors. RetinaNet and GFL have 20, 20, 10 and 10 times as much, FCOS 32, 32, 16 and 16 times, and the
            temperature 0.8.
        beta: Weight of the background.
        gamma: Weight of the attentions.
        lambda_: Weight of the global context.
        project: As of :class:`MapLoss`.
        loss_weight: Factor of all four.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'maps', 'boxes'})

    def __init__(self, temperature: float = 0.5, alpha: float = 5e-5, beta: float = 2.5e-5, gamma: float = 5e-5,
                 lambda_: float = 5e-7, project: bool | None = None, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(project, loss_weight)
        positive(temperature, 'temperature', 'FGDLoss')
        for name, value in dict(alpha=alpha, beta=beta, gamma=gamma, lambda_=lambda_).items():
            not_negative(value, name, 'FGDLoss')
        self.temperature = temperature
        self.factors = (alpha, beta, gamma, lambda_)

    def projector(self, level: int, widths: Widths) -> nn.Module:
        width = widths.teacher[level]
        return nn.ModuleList([super().projector(level, widths), Context(width), Context(width)])

    def projected(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [cast(nn.ModuleList, parts)[0](level) for parts, level in zip(self.projectors, maps, strict=True)]

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        assert aligned.boxes is not None and aligned.image_size is not None  # as `requires` says
        weights = object_weights(aligned.boxes, aligned.image_size, (teacher.shape[2], teacher.shape[3]))
        terms = fgd_terms(student, teacher, weights, self.temperature)
        _, ours, theirs = cast(nn.ModuleList, self.projectors[level])
        whole = (ours(student).float() - theirs(teacher.detach()).float()).square().sum((1, 2, 3))
        return torch.stack([factor * term for factor, term in zip(self.factors, (*terms, whole), strict=True)]).sum(0)


class Context(nn.ModuleList):
    r"""What the whole image adds to every place: :math:`R(F) = F + W_2 \, \mathrm{ReLU}(\mathrm{LN}(W_1 v))`.

    :math:`v = \sum_p \mathrm{softmax}_p(w_k F)_p F_p`, :math:`W_1` halves the channels, :math:`W_2` starts at zero
    (GcBlock, arXiv 1904.11492, as FGD's released code has it).

    Args:
        channels: Number of channels of the maps.
    """

    def __init__(self, channels: int) -> None:
        half = max(1, channels // 2)
        widen = nn.Linear(half, channels)
        nn.init.zeros_(widen.weight)
        nn.init.zeros_(widen.bias)
        super().__init__([nn.Conv2d(channels, 1, 1), nn.Linear(channels, half), nn.LayerNorm(half), widen])

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape, ``(N, d, h, w)``."""
        where, narrow, norm, widen = self
        shares = where(maps).flatten(2).float().softmax(2)  # (N, 1, h w)
        whole = (maps.flatten(2).float() * shares).sum(2)
        return maps + widen(norm(narrow(whole)).relu())[:, :, None, None]
