"""Where in a feature map the objects are: which places a loss of maps may be limited to."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .boxes import overlap

SCALE, RATIOS = 8, (0.5, 1.0, 2.0)
"""Of the anchors at a place, as in Faster R-CNN with FPN: side of a square one in strides, and heights over widths."""
LEAST_SHARE = 0.5
"""Of an object's best overlap with any anchor: what is above counts as near."""
FINEST_SCALE = 14
"""Side of the smallest object of a level, in strides: 56 pixels at the stride 4 (FPN, arXiv 1612.03144)."""


def inside_objects(boxes: Sequence[Tensor], image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    r"""Places whose middle lies in a box.

    .. math:: M_i(p) = \big[\exists b : x_1 \le x_p < x_2, \; y_1 \le y_p < y_2\big], \quad
              x_p = (k + \tfrac12) \tfrac{W}{w}

    Args:
        boxes: Of each of the ``N`` images, shape ``(m, 4)``: x1, y1, x2, y2 in pixels; ``m`` may be 0.
        image_size: Height ``H`` and width ``W`` in pixels of what the maps cover: the padded batch.
        map_size: Height ``h`` and width ``w`` of the maps.

    Returns:
        Shape ``(N, h, w)``, bool. A box that is smaller than a place may hold no middle.
    """
    masks = []
    for each in boxes:
        middles = _middles(image_size, map_size, each.device)[:, None]
        masks.append(((middles >= each[:, :2]) & (middles < each[:, 2:])).all(2).any(1).reshape(map_size))
    return torch.stack(masks)


@torch.no_grad()
def near_objects(boxes: Sequence[Tensor], image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    r"""Places with an anchor that overlaps an object more than half as much as the best anchor of these maps does.

    .. math:: M_i(p) = \big[\exists g, a \in A_p : \mathrm{IoU}(a, g) > \tfrac12 \max_{a'} \mathrm{IoU}(a', g)\big]

    (FGFI, arXiv 1906.03609, whose released code counts such anchors instead). The anchors :math:`A_p` are those of
    Faster R-CNN with FPN, three a place: of the area of 8 by 8 strides, 1/2, 1 and 2 times as high as wide, whatever
    the detector's own are.

    Args:
        boxes: As of :func:`inside_objects`, likewise the other arguments.
        image_size: Height and width in pixels.
        map_size: Height ``h`` and width ``w`` of the maps.

    Returns:
        Shape ``(N, h, w)``, bool.
    """
    masks = []
    for each in boxes:
        if not len(each):
            masks.append(torch.zeros(map_size, dtype=torch.bool, device=each.device))
            continue
        overlaps = overlap(_anchors(image_size, map_size, each.device)[:, None], each.float())
        near = overlaps > LEAST_SHARE * overlaps.amax(0)
        masks.append(near.any(1).reshape(*map_size, len(RATIOS)).any(2))
    return torch.stack(masks)


def boxes_of_level(boxes: Tensor, image_size: tuple[int, int], map_sizes: Sequence[tuple[int, int]],
                   level: int) -> Tensor:
    r"""The boxes that belong to one level: each to the coarsest whose stride is at most :math:`\sqrt{wh} / 14`.

    Smaller ones belong to the finest (FPN, arXiv 1612.03144: 56 to 112 pixels to the stride 4, and so on).

    Args:
        boxes: Of one image, shape ``(m, 4)``, in pixels.
        image_size: Height and width in pixels of what the maps cover.
        map_sizes: Height and width of the maps of each level; of equal ones a box belongs to the first.
        level: Which one, from 0.

    Returns:
        Shape ``(k, 4)``, ``k <= m``.
    """
    # of maps that are rounded up, the stride that they were made with
    strides = boxes.new_tensor([image_size[0] / rows for rows, _ in map_sizes]).log2().round().exp2()
    scale = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1).sqrt()
    fits = FINEST_SCALE * strides <= scale[:, None]
    best = torch.where(fits, strides, -strides).argmax(1)  # where none fits, the finest has the greatest
    return boxes[best == level]


def place_weights(masks: Tensor) -> Tensor:
    r"""Weights of the places of a batch, of which the mean over images is a mean over all that the masks show.

    .. math:: w_i(p) = \frac{N M_i(p)}{\max(1, \sum_j \sum_q M_j(q))}

    Args:
        masks: Shape ``(N, h, w)``, bool.

    Returns:
        Shape ``(N, h, w)``, float32; zeros where the masks show nothing.
    """
    shown = masks.float()
    return len(masks) * shown / shown.sum().clamp(min=1)


def _middles(image_size: tuple[int, int], map_size: tuple[int, int], device: torch.device) -> Tensor:
    """In pixels, x and y, row by row; shape ``(h w, 2)``."""
    y, x = ((torch.arange(count, device=device) + 0.5) * (side / count)
            for side, count in zip(image_size, map_size, strict=True))
    return torch.stack([x.repeat(len(y)), y.repeat_interleave(len(x))], 1)


def _anchors(image_size: tuple[int, int], map_size: tuple[int, int], device: torch.device) -> Tensor:
    """Corners, those of a place in turn; shape ``(3 h w, 4)``."""
    heights = torch.tensor(RATIOS, device=device).sqrt()
    strides = torch.tensor([image_size[1] / map_size[1], image_size[0] / map_size[0]], device=device)
    halves = SCALE / 2 * strides * torch.stack([1 / heights, heights], 1)
    middles = _middles(image_size, map_size, device)[:, None]
    return torch.cat([middles - halves, middles + halves], 2).flatten(0, 1)
