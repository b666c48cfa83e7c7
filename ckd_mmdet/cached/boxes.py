"""The boxes at which a RoI head's answers are kept: of objects, near them, found by the teacher, and background."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from ckd_mmdet.cached.container import key_of
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

TRUTH, JITTERED, DETECTED, BACKGROUND = range(4)
"""Kinds of boxes."""
SHIFT = 0.15
"""A side of a jittered box moves by at most so much of the box's width or height."""
BACKGROUND_BELOW = 0.3
"""A proposal that overlaps every object less (IoU) is background."""


def choose_boxes(teacher: nn.Module, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement], count: int
                 ) -> tuple[list[Tensor], list[Tensor]]:
    """At most ``count`` boxes of each image, a quarter of each kind where there are as many.

    Objects go first, then boxes jittered about them (each side by at most :data:`SHIFT`), then the teacher's own
    detections by falling score; proposals of its RPN that hold no object fill the rest. What is drawn depends on image
    and view alone.

    Args:
        teacher: A two-stage detector.
        feats: What its neck gave.
        data_samples: ``N`` of them.
        count: Number of boxes.

    Returns:
        Of each image corners in pixels of the input, shape ``(m, 4)``, and kinds, shape ``(m,)``, uint8.

    Raises:
        ValueError: If the teacher has no RPN.
    """
    if getattr(teacher, 'rpn_head', None) is None:
        raise ValueError(f'a cached teacher with a RoI head needs an RPN, which finds background, and a '
                         f'{type(teacher).__name__} has none; take another teacher.')
    proposals = teacher.rpn_head.predict(feats, data_samples, rescale=False)
    given = [get_box_tensor(each.bboxes).clone() for each in proposals]  # the head may change them
    found = teacher.roi_head.predict(feats, proposals, data_samples, rescale=False)
    chosen = [_of_image(sample, get_box_tensor(detected.bboxes)[detected.scores.argsort(descending=True)], boxes, count)
              for sample, detected, boxes in zip(data_samples, found, given, strict=True)]
    return [boxes for boxes, _ in chosen], [kinds for _, kinds in chosen]


def _of_image(sample: BaseDataElement, detected: Tensor, proposals: Tensor, count: int) -> tuple[Tensor, Tensor]:
    share = -(-count // 4)
    generator = torch.Generator().manual_seed(seed_of(sample))
    truth = get_box_tensor(sample.gt_instances.bboxes).to(proposals)
    truth = truth[torch.randperm(len(truth), generator=generator)[:share].sort().values.to(truth.device)]
    near = jittered(truth, share // max(len(truth), 1), sample.img_shape[:2], generator)
    overlaps = bbox_overlaps(proposals, get_box_tensor(sample.gt_instances.bboxes).to(proposals))
    empty = proposals if not overlaps.shape[1] else proposals[overlaps.amax(1) < BACKGROUND_BELOW]
    parts = [truth, near, detected[:share].to(proposals)]
    rest = count - sum(map(len, parts))
    # from the surest proposal to the least sure one, at even distances
    spread = torch.linspace(0, max(len(empty) - 1, 0), min(rest, len(empty)), device=empty.device).long()
    parts.append(empty[spread])
    kinds = torch.cat([torch.full((len(part),), kind, dtype=torch.uint8) for kind, part in enumerate(parts)])
    return torch.cat(parts), kinds.to(proposals.device)


def jittered(boxes: Tensor, times: int, image: Sequence[int], generator: torch.Generator) -> Tensor:
    """Each of ``k`` boxes several times, its sides moved at random, shape ``(k * times, 4)``, within the image."""
    moved = torch.rand(len(boxes), times, 4, generator=generator, dtype=torch.float64).to(boxes) * 2 - 1
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    near = (boxes[:, None] + SHIFT * moved * size[:, None]).reshape(-1, 4)
    limit = near.new_tensor([image[1], image[0]]).repeat(2)
    return torch.minimum(near.clamp(min=0), limit)


def seed_of(sample: BaseDataElement) -> int:
    """A number for an image in a view, the same in every run."""
    return int.from_bytes(hashlib.sha256(repr(key_of(sample)).encode()).digest()[:7], 'big')
