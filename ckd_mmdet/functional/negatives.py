"""Which rows are negatives of each other, beside those of one id or of another."""

from __future__ import annotations

import torch
from torch import Tensor

from .boxes import overlap
from .contrast import same_id


@torch.no_grad()
def little_overlap(regions: Tensor, image_ids: Tensor, most: float, anchors: slice = slice(None)) -> Tensor:
    """Pairs of rows that are of other images, or whose regions overlap by no more than ``most``.

    Regions that overlap much show the same thing, which no contrast should push apart (G-DetKD, ICCV 2021, whose
    contrast of RoI features leaves them out).

    Args:
        regions: Corners in pixels, shape ``(n, 4)``.
        image_ids: Shape ``(n,)``.
        most: Greatest intersection over union.
        anchors: Which rows of the result are wanted.

    Returns:
        Shape ``(m, n)``, bool.
    """
    overlaps = overlap(regions[anchors, None], regions[None])
    return ~same_id(image_ids[anchors], image_ids) | (overlaps <= most)


@torch.no_grad()
def told_apart(probabilities: Tensor, least: float, anchors: slice = slice(None)) -> Tensor:
    r"""Pairs of rows of which a model is sure that they are of different classes.

    .. math:: 1 - \sum_c p_{ic} \, p_{jc} \ge \mathrm{least}

    the probability that one draw from each of the two distributions gives different classes (ours).

    Args:
        probabilities: Distributions, background among the classes, shape ``(n, c)``.
        least: From 0, all pairs, to 1.
        anchors: Which rows of the result are wanted.

    Returns:
        Shape ``(m, n)``, bool.
    """
    return 1 - probabilities[anchors] @ probabilities.T >= least
