"""The part of the feature maps that a loss of maps is limited to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ckd_mmdet.functional import boxes_of_level, inside_objects, near_objects, object_weights, place_weights
from ckd_mmdet.functional.checks import not_negative, one_of
from ckd_mmdet.samples import AlignedMaps
from torch import Tensor

REGIONS = (None, 'gt', 'fine', 'decoupled')
BACKGROUND = 4.0
"""As DeFeat's for necks on VOC, 12 beside 3."""


@dataclass(frozen=True)
class Region:
    r"""Weights :math:`w_i(p)` of the places of a level, for :func:`ckd_mmdet.functional.l2_loss` and its like.

    ``'gt'``: the mean over the places whose middle lies in a true box, :func:`ckd_mmdet.functional.inside_objects`.
    ``'fine'``: over those with an anchor near one, :func:`ckd_mmdet.functional.near_objects` (FGFI, arXiv 1906.03609).
    ``'decoupled'``: over those that boxes cover, each box on its one level, and beside it ``background`` times the mean
    over the others (DeFeat, arXiv 2103.14475):

    .. math:: w = w(M) + \beta \, w(1 - M), \quad w_i(M)(p) = \frac{N M_i(p)}{\max(1, \sum_j \sum_q M_j(q))}

    Means are over the images of one process together. Without objects there are ``'decoupled'``'s others alone.
    """

    name: str | None
    background: float | None
    """:math:`\\beta`, at least 0; 4 by default. Of ``'decoupled'`` alone."""
    loss: str
    """Name of the class, for errors."""

    def __post_init__(self) -> None:
        one_of(self.name, REGIONS, 'region', self.loss)
        if self.background is None:
            return
        not_negative(self.background, 'background', self.loss)
        if self.name != 'decoupled':
            raise ValueError(f"`{self.loss}` has a `background` of {self.background!r}, which only "
                             f"`region='decoupled'` looks at, and `region` is {self.name!r}; leave it out.")

    @torch.no_grad()
    def weights(self, aligned: AlignedMaps, level: int) -> Tensor | None:
        """Shape ``(N, h, w)``, float32; ``None`` where every place counts alike."""
        if self.name is None:
            return None
        assert aligned.boxes is not None and aligned.image_size is not None  # as `requires` says
        sizes = [(maps.shape[2], maps.shape[3]) for maps in aligned.teacher]
        if self.name != 'decoupled':
            shown = inside_objects if self.name == 'gt' else near_objects
            return place_weights(shown(aligned.boxes, aligned.image_size, sizes[level]))
        own = [boxes_of_level(boxes, aligned.image_size, sizes, level) for boxes in aligned.boxes]
        objects = object_weights(own, aligned.image_size, sizes[level]) > 0
        beside = BACKGROUND if self.background is None else self.background
        return place_weights(objects) + beside * place_weights(~objects)
