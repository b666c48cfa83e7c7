"""How mmdet's dense heads write their boxes: deltas of anchors, distances from points, distributions of distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from ckd_mmdet.boxes import BoxRows, as_tensor
from ckd_mmdet.functional import valuable_region
from ckd_mmdet.rows import SIGMOID, MapRows
from mmdet.models.dense_heads import (
    AutoAssignHead,
    CondInstBboxHead,
    FCOSHead,
    GFLHead,
    PAAHead,
    RepPointsHead,
    RPNHead,
    RTMDetHead,
    RTMDetInsHead,
    VFNetHead,
    YOLACTHead,
    YOLOXHead,
)
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import Tensor, nn

Decoder = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]
"""Of a head, priors ``(m, 2 or 4)``, strides ``(m, 1)`` and numbers ``(m, d)``: corners ``(m, 4)``."""


def of_coder(head: nn.Module, priors: Tensor, strides: Tensor, numbers: Tensor) -> Tensor:
    """By the head's own coder alone: deltas of anchors, or distances in pixels."""
    return as_tensor(head.bbox_coder.decode(priors, numbers))


def of_distances(head: nn.Module, priors: Tensor, strides: Tensor, numbers: Tensor) -> Tensor:
    """FCOS's, which while it trains are in strides where ``norm_on_bbox`` says so."""
    return of_coder(head, priors, strides, numbers * strides if head.norm_on_bbox else numbers)


def of_distributions(head: nn.Module, priors: Tensor, strides: Tensor, numbers: Tensor) -> Tensor:
    """GFL's: the mean of each edge's distribution is its distance from the anchor's centre in strides."""
    return of_coder(head, head.anchor_center(priors), strides, head.integral(numbers) * strides)


def of_centers(head: nn.Module, priors: Tensor, strides: Tensor, numbers: Tensor) -> Tensor:
    """YOLOX's: centre and logarithms of width and height, in strides."""
    places = torch.cat([priors, strides, strides], 1)
    return head._bbox_decode(places, numbers[None])[0]


def of_points(head: nn.Module, priors: Tensor, strides: Tensor, numbers: Tensor) -> Tensor:
    """RepPoints': the box about its points, in strides from the place."""
    return head.points2bbox(numbers[:, :, None, None]).flatten(1) * strides + priors.repeat(1, 2)


# The first whose class fits.
DECODERS: tuple[tuple[type, Decoder], ...] = (
    (GFLHead, of_distributions), (RTMDetHead, of_coder), (FCOSHead, of_distances), (YOLOXHead, of_centers),
    (RepPointsHead, of_points), (AnchorHead, of_coder))
OTHERS = (AutoAssignHead, VFNetHead)
"""Subclasses of these that write their boxes otherwise, though they predict by the same method."""
KNOWN = {kind._predict_by_feat_single for kind in (BaseDenseHead, CondInstBboxHead, GFLHead, PAAHead, RepPointsHead,
                                                   RPNHead, RTMDetInsHead, YOLACTHead)}
"""Methods by which mmdet's heads predict, and which decode as above."""


def decoder_of(head: nn.Module) -> Decoder | None:
    """How the head's boxes are decoded; ``None`` where we do not know."""
    if isinstance(head, OTHERS) or getattr(type(head), '_predict_by_feat_single', None) not in KNOWN:
        return None
    return next((decoder for kind, decoder in DECODERS if isinstance(head, kind)), None)


def bins_of(head: nn.Module) -> int | None:
    """Number of bins of an edge's distribution; ``None`` where the head regresses plain numbers."""
    return int(head.reg_max) + 1 if decoder_of(head) is of_distributions else None


@dataclass(frozen=True)
class DenseBoxes(BoxRows):
    """What a dense head says of its anchors or points; only chosen rows are decoded."""

    head: nn.Module
    decoder: Decoder
    maps: MapRows
    """What it regressed, ``(N, A, d, h, w)`` a level, as it gives it while it trains."""

    @classmethod
    def of(cls, head: nn.Module, output: Sequence, rows: MapRows) -> DenseBoxes | None:
        """Those in what the head gave, row by row as its class scores; ``None`` where we do not know how it decodes.

        Args:
            head: The head.
            output: What its ``forward`` gave in the training mode.
            rows: Its class scores.
        """
        decoder = decoder_of(head)
        if decoder is None:
            return None
        maps = output[2 if decoder is of_points else 1]
        return cls(head, decoder, MapRows([level.unflatten(1, (scores.shape[1], -1))
                                           for level, scores in zip(maps, rows.maps, strict=True)], SIGMOID))

    def take(self, index: Tensor, classes: Tensor | None) -> Tensor:
        numbers = self.maps.as_given(index).float()
        if not len(index):
            return numbers[:, :4]  # with its graph; mmdet's decoders expect a row
        with torch.autocast(numbers.device.type, enabled=False):
            return self.decoder(self.head, *self._places(index), numbers)

    def distributions(self, index: Tensor) -> Tensor:
        return self.maps.as_given(index).unflatten(1, (4, -1))

    def valuable(self, objects: Sequence[Tensor]) -> Tensor:
        """Rows near one of the objects, shape ``(n,)``, bool: see :func:`ckd_mmdet.functional.valuable_region`.

        Args:
            objects: Their boxes in each image, ``(k, 4)``.
        """
        levels = self._levels(self.maps.maps[0].device)
        lengths = [len(level) for level in levels]
        of_image = [valuable_region(levels, boxes.float()).split(lengths) for boxes in objects]
        return torch.cat([part for level in zip(*of_image, strict=True) for part in level])

    def _levels(self, device: torch.device) -> list[Tensor]:
        """Anchors or points of each level of an image, ``(p, 4)`` or ``(p, 2)``."""
        sizes = [(level.shape[3], level.shape[4]) for level in self.maps.maps]
        levels: list[Tensor] = self.head.prior_generator.grid_priors(sizes, dtype=torch.float32, device=device)
        return levels

    def _places(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Anchor or point of each row, ``(m, 4)`` or ``(m, 2)``, and the stride of its level, ``(m, 1)``."""
        levels = self._levels(index.device)
        priors = levels[0].new_zeros(len(index), levels[0].shape[1])
        strides, start = priors.new_zeros(len(index), 1), 0
        for level, length, stride in zip(levels, self.maps.lengths, self.head.prior_generator.strides, strict=True):
            here = ((index >= start) & (index < start + length))[:, None]
            # images lie one after the other, and have the same anchors
            priors = torch.where(here, level[(index - start) % len(level)], priors)
            strides = strides.masked_fill(here, max(stride))
            start += length
        return priors, strides
