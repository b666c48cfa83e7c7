"""Non-maximum suppression.

Boxes are ``(n, 4)`` as x1, y1, x2, y2; with ``offset`` 1, x2 = x1 is one pixel wide.
"""

import torch
import torchvision
from ckd_mmdet.compat.ops.precision import wide
from torch import Tensor


def _offset_boxes(boxes: Tensor, offset: int) -> Tensor:
    boxes = wide(boxes)
    return boxes + boxes.new_tensor([0, 0, offset, offset])


def _overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """IoU of ``box`` ``(4,)`` with each of ``boxes`` ``(n, 4)``; 0 where both have no area."""
    return torchvision.ops.box_iou(box[None], boxes)[0].nan_to_num(nan=0.0)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best first; a box goes if its IoU *exceeds* the threshold.

    As in mmcv the threshold is rounded to the boxes' type (torchvision compares in double), and of equal scores comes
    first what torch's sort puts first, which is not the order of the boxes.
    """
    boxes = _offset_boxes(boxes, offset)
    order = scores.sort(0, descending=True)[1]
    falling = torch.arange(len(order), 0, -1, device=boxes.device, dtype=boxes.dtype)  # so that torchvision keeps it
    return order[torchvision.ops.nms(boxes[order], falling, torch.tensor(iou_threshold, dtype=boxes.dtype).item())]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Soft-NMS (arXiv 1704.04503): overlapped boxes lose score, and go below ``min_score``.

    As in mmcv the best box is kept whatever its score. Of equal scores comes first what mmcv's kernel has first: it
    swaps the best box with the first of those left, and a box that goes with the last.

    Args:
        dets: Written in place, shape ``(n, 5)``: the boxes kept, best first, and their new scores.
        method: 0 naive, 1 linear, 2 gaussian.

    Returns:
        Indices of the boxes kept.
    """
    extents, scores = _offset_boxes(boxes, offset), wide(scores).clone()
    left = torch.arange(len(boxes), device=boxes.device)
    kept: list[int] = []
    while len(left):
        place = int(scores[left].argmax())
        best = int(left[place])
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        left[place] = left[0].clone()
        left = left[1:]
        overlaps = _overlaps(extents[best], extents[left])
        scores[left] *= _decay(overlaps, iou_threshold, sigma, method)
        left = _swap_out(left, scores[left] >= min_score)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def _swap_out(left: Tensor, stays: Tensor) -> Tensor:
    """Those of ``left`` that stay, the last of them in the place of the first that goes, and so on."""
    count = int(stays.sum())
    gaps = (~stays[:count]).nonzero()[:, 0]
    left[gaps] = left[count:][stays[count:]].flip(0)
    return left[:count]


def _decay(overlaps: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == 2:
        return torch.exp(-overlaps.square() / sigma)
    decayed = 1 - overlaps if method == 1 else torch.zeros_like(overlaps)
    return torch.where(overlaps >= iou_threshold, decayed, torch.ones_like(overlaps))


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of ``dets`` ``(n, 5)``: each box that nms keeps, then those it removes, best first.

    Unlike in :func:`nms`, a box goes when its IoU *reaches* the threshold.
    """
    boxes, scores = wide(dets).split((4, 1), dim=1)
    left = scores[:, 0].sort(0, descending=True)[1]
    groups = []
    while len(left):
        best, rest = left[:1], left[1:]
        removed = _overlaps(boxes[best[0]], boxes[rest]) >= iou_threshold
        groups.append(torch.cat((best, rest[removed])).tolist())
        left = rest[~removed]
    return groups
