"""A cache from predictions of any other framework: COCO results, with a score for every class or the one score."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.aligners import ObjectAligner, RoIAligner
from ckd_mmdet.cached.boxes import DETECTED
from ckd_mmdet.cached.container import Key, Record, key_of
from ckd_mmdet.cached.objects import object_name
from ckd_mmdet.cached.parts import roi_name
from ckd_mmdet.rows import LEAST_PROBABILITY
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor

ABOVE_ONE = 1e-3
"""By which the scores of a box may exceed 1 together, as rounded probabilities do."""
LEAST_OVERLAP = 0.5
"""Of an object and the predicted box (IoU) whose scores are taken for its own."""


@dataclass(frozen=True)
class Predictions:
    """The boxes of a file, by image."""

    boxes: Mapping[str, Tensor]
    """By the image's id as text: corners in pixels of the original image, shape ``(m, 4)``."""
    scores: Mapping[str, Tensor]
    """A probability for each class, shape ``(m, c)``."""
    softmax: bool
    """Whether no box has scores that sum to more than 1: what is left is background's."""
    num_classes: int

    @classmethod
    def read(cls, path: Path, categories: Mapping[int, int], num_classes: int, images: Sequence[str]) -> Predictions:
        """Read COCO results, ``[{image_id, category_id, bbox, score}, ...]``; where it has
        ``scores``, a number for each class in the order of the training data's, these count alone.

        Args:
            path: The file.
            categories: The class of each ``category_id``.
            num_classes: Number of classes.
            images: Ids of the training images.

        Raises:
            ValueError: If it is no such file, or names unknown images or categories, or has scores out of 0 to 1; the
                text names the entry.
        """
        try:
            entries = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f'`--predictions` needs a JSON file of COCO results, {path} is none: {error}.') from error
        if not isinstance(entries, list):
            raise ValueError(f'`--predictions` needs a list of COCO results, {path} has a {type(entries).__name__}.')
        known = set(images)
        boxes: dict[str, list] = {image: [] for image in known}
        scores: dict[str, list] = {image: [] for image in known}
        for number, entry in enumerate(entries):
            image, box, row = _read(entry, f'{path}, entry {number}', known, categories, num_classes)
            boxes[image].append(box)
            scores[image].append(row)
        table = {image: torch.tensor(rows).reshape(-1, num_classes) for image, rows in scores.items()}
        softmax = all(float(rows.sum(1).max()) <= 1 + ABOVE_ONE for rows in table.values() if len(rows))
        return cls({image: torch.tensor(rows).reshape(-1, 4) for image, rows in boxes.items()}, table, softmax,
                   num_classes)

    def logits(self, image: str) -> Tensor:
        """Scores of the boxes of an image as a head of this kind writes them, shape ``(m, c)`` or ``(m, c + 1)``."""
        scores = self.scores[image].double()
        if not self.softmax:
            return scores.logit(eps=LEAST_PROBABILITY).float()
        whole = torch.cat([scores, 1 - scores.sum(1, keepdim=True)], 1)
        return whole.clamp(min=LEAST_PROBABILITY).log().float()

    def records(self, samples: Sequence[dict], aligners: Sequence[RoIAligner | ObjectAligner], count: int
                ) -> list[tuple[Key, Record]]:
        """What is kept of images, as a pipeline packed them.

        Args:
            samples: Packed images.
            aligners: Of the alignments.
            count: Boxes of an image for a RoI head, at most: those with the greatest scores.
        """
        found = []
        for packed in samples:
            sample: BaseDataElement = packed['data_samples']
            image = str(sample.metainfo['img_id'])
            boxes, logits = in_view(self.boxes[image], sample.metainfo), self.logits(image)
            best = self.scores[image].amax(1).argsort(descending=True) if len(boxes) else torch.zeros(0).long()
            record: Record = {}
            for aligner in aligners:
                if isinstance(aligner, RoIAligner):
                    record.update(_of_boxes(roi_name(aligner), boxes[best[:count]], logits[best[:count]]))
                else:
                    truth = get_box_tensor(sample.gt_instances.bboxes)
                    record.update(_of_objects(object_name(aligner), boxes, logits, truth))
            found.append((key_of(sample), record))
        return found

    def info(self, aligner: RoIAligner | ObjectAligner) -> dict[str, Any]:
        """What the header says of a part."""
        said = dict(num_classes=self.num_classes, softmax=self.softmax)
        if isinstance(aligner, RoIAligner):
            return dict(kind='roi', head='file of predictions', features=None, **said)
        return dict(kind='objects', classes=None, **said)


def in_view(boxes: Tensor, meta: Mapping[str, Any]) -> Tensor:
    """Boxes ``(m, 4)`` of an original image in one of its views, scaled and flipped as its meta information says."""
    width_by, height_by = meta.get('scale_factor', (1.0, 1.0))[:2]
    x1, y1, x2, y2 = (boxes * boxes.new_tensor([width_by, height_by, width_by, height_by])).unbind(1)
    height, width = meta['img_shape'][:2]
    flip = (meta.get('flip_direction') or '') if meta.get('flip') else ''
    if flip in ('horizontal', 'diagonal'):
        x1, x2 = width - x2, width - x1
    if flip in ('vertical', 'diagonal'):
        y1, y2 = height - y2, height - y1
    limit = torch.tensor([width, height, width, height]).to(boxes)
    return torch.minimum(torch.stack([x1, y1, x2, y2], 1).clamp(min=0), limit)


def _of_boxes(name: str, boxes: Tensor, logits: Tensor) -> Record:
    return {f'{name}/boxes': boxes.float(), f'{name}/logits': logits.half(),
            f'{name}/kinds': torch.full((len(boxes),), DETECTED, dtype=torch.uint8)}


def _of_objects(name: str, boxes: Tensor, logits: Tensor, truth: Tensor) -> Record:
    """Scores of the predicted box that overlaps each true one most."""
    overlaps = torch.cat([bbox_overlaps(truth, boxes.to(truth)), truth.new_zeros(len(truth), 1)], 1)
    greatest, place = overlaps.max(1)
    rows = torch.cat([logits, logits.new_zeros(1, logits.shape[1])])[place]
    return {f'{name}/boxes': truth.float(), f'{name}/logits': rows[:, None].half(),
            f'{name}/found': (greatest >= LEAST_OVERLAP)[:, None]}


def _read(entry: Any, where: str, images: set[str], categories: Mapping[int, int], num_classes: int
          ) -> tuple[str, list[float], list[float]]:
    """Image, corners and scores of an entry."""
    if not isinstance(entry, Mapping) or 'image_id' not in entry or 'bbox' not in entry:
        raise ValueError(f'{where}: a prediction needs `image_id` and `bbox`, got {entry!r:.100}.')
    image = str(entry['image_id'])
    if image not in images:
        raise ValueError(f'{where}: `image_id` {image} is not among the {len(images)} training images; predict the '
                         'images of the training data set.')
    box = entry['bbox']
    if not (isinstance(box, list) and len(box) == 4 and all(map(_finite, box)) and min(box[2:]) > 0):
        raise ValueError(f'{where}: `bbox` needs x, y, width and height in pixels of the original image, got {box}.')
    return image, [box[0], box[1], box[0] + box[2], box[1] + box[3]], _scores(entry, where, categories, num_classes)


def _scores(entry: Mapping, where: str, categories: Mapping[int, int], num_classes: int) -> list[float]:
    scores = entry.get('scores')
    if scores is None:
        category: Any = entry.get('category_id')
        if category not in categories:
            raise ValueError(f'{where}: `category_id` {category} is not one of the training data, '
                             f'{sorted(categories)[:20]}; number the categories as the annotations do.')
        scores = [0.0] * num_classes
        scores[categories[category]] = entry.get('score')
    if not isinstance(scores, list) or len(scores) != num_classes:
        raise ValueError(f'{where}: `scores` needs a number for each of the {num_classes} classes, got '
                         f'{len(scores) if isinstance(scores, list) else repr(scores)}.')
    for score in scores:
        if not (_finite(score) and 0 <= score <= 1):
            raise ValueError(f'{where}: a score needs to be from 0 to 1, got {score}; give probabilities, not logits.')
    return scores


def _finite(number: Any) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
