"""Boxes of rows, decoded only where they are asked for, each side's by its own coder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.functional import overlap
from torch import Tensor

NO_MATCH = -1.0


class BoxRows(ABC):
    """What one side says of where ``n`` rows' objects are."""

    of_objects: bool = False
    """Whether a row has a box only where it holds an object: a head never trains what it says of background."""

    @abstractmethod
    def take(self, index: Tensor, classes: Tensor | None) -> Tensor:
        """Boxes of the rows at ``index``; they carry gradient where the head's numbers do.

        Args:
            index: Shape ``(m,)``, int64.
            classes: Class of each of them as this side numbers its classes, shape ``(m,)``, any one of background;
                ``None`` where rows have no labels.

        Returns:
            Corners x1, y1, x2, y2 in pixels of the batch, shape ``(m, 4)``, float32; not cut off at the image's edge.
        """

    def distributions(self, index: Tensor) -> Tensor:
        """Logits of where each edge is, shape ``(m, 4, bins)``; of heads that have some."""
        raise NotImplementedError


@dataclass(frozen=True)
class RoIBoxes(BoxRows):
    """What a RoI head says of its RoIs; where it has one box a class, that of the row's class."""

    coder: Any
    """The head's ``bbox_coder``."""
    rois: Tensor
    """Corners of the RoIs, shape ``(n, 4)``."""
    deltas: Tensor
    """Shape ``(n, 4)``, or ``(n, 4 * classes)``."""

    of_objects = True

    @classmethod
    def of(cls, head: Any, rois: Tensor, deltas: Tensor | None) -> RoIBoxes:
        """Those of a head that has regressed ``deltas``; without any, where there is no RoI, no box."""
        return cls(head.bbox_coder, rois, rois.new_zeros(len(rois), 4) if deltas is None else deltas)

    def take(self, index: Tensor, classes: Tensor | None) -> Tensor:
        deltas = self.deltas[index].unflatten(1, (-1, 4))
        if deltas.shape[1] > 1 and classes is not None:
            deltas = deltas.gather(1, classes[:, None, None].expand(-1, 1, 4))
        with torch.autocast(deltas.device.type, enabled=False):
            return as_tensor(self.coder.decode(self.rois[index].float(), deltas[:, 0].float()))


@dataclass(frozen=True)
class TableBoxes(BoxRows):
    """Boxes of one tensor."""

    boxes: Tensor
    """Shape ``(n, 4)``."""

    def take(self, index: Tensor, classes: Tensor | None) -> Tensor:
        return self.boxes[index].float()


@dataclass(frozen=True)
class SomeBoxes(BoxRows):
    """Boxes of some rows of others."""

    whole: BoxRows
    index: Tensor
    """Which, shape ``(n,)``, int64."""

    def take(self, index: Tensor, classes: Tensor | None) -> Tensor:
        return self.whole.take(self.index[index], classes)


@dataclass(frozen=True)
class Truths:
    """The batch's ``k`` objects, of which each row that holds one has its own."""

    boxes: Tensor
    """Corners in pixels of the batch, shape ``(k, 4)``."""
    labels: Tensor
    """As the student numbers its classes, shape ``(k,)``."""
    image_ids: Tensor
    """Shape ``(k,)``."""

    @classmethod
    def of(cls, boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> Truths:
        """Those of each image in turn."""
        images = [torch.full_like(part, image) for image, part in enumerate(labels)]
        return cls(torch.cat(list(boxes)), torch.cat(list(labels)), torch.cat(images))

    @torch.no_grad()
    def nearest(self, regions: Tensor, classes: Tensor, image_ids: Tensor) -> Tensor:
        """Of the objects in the row's image and of its class, the one that overlaps a region most.

        Args:
            regions: Shape ``(m, 4)``.
            classes: As the student numbers them, shape ``(m,)``.
            image_ids: Shape ``(m,)``.

        Returns:
            Shape ``(m, 4)``; of a row without any such object some other box, if there are any, or its region.
        """
        if not len(self.boxes):
            return regions
        other = (self.labels != classes[:, None]) | (self.image_ids != image_ids[:, None])
        overlaps = overlap(regions[:, None], self.boxes.to(regions)).masked_fill(other, NO_MATCH)
        return self.boxes.to(regions)[overlaps.argmax(1)]


def as_tensor(boxes: Any) -> Tensor:
    """Corners of what a coder gave, of which some wrap their tensors."""
    return boxes if isinstance(boxes, Tensor) else boxes.tensor
