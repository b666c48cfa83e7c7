"""The same validation images side by side: ground truth and what each detector finds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ckd_mmdet.text import for_plot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

RIGHT, WRONG, MISSED = '#00e676', '#ff5252', '#ffd600'


@dataclass(frozen=True)
class Detections:
    """Boxes ``(n, 4)`` as x1, y1, x2, y2 in pixels, class indices ``(n,)`` and scores ``(n,)``, ``None`` for truth."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def above(self, threshold: float) -> Detections:
        """The detections with at least this score."""
        if self.scores is None:
            return self
        kept = self.scores >= threshold
        return Detections(self.boxes[kept], self.labels[kept], self.scores[kept])


def read_truth(ann_file: Path, count: int) -> tuple[list[str], list[Detections], list[str]]:
    """Names of the first ``count`` images of a COCO file, their boxes, and the class names."""
    coco = json.loads(ann_file.read_text())
    index = {category['id']: i for i, category in enumerate(coco['categories'])}
    images = coco['images'][:count]
    truths = []
    for image in images:
        own = [note for note in coco['annotations'] if note['image_id'] == image['id']]
        corners = np.array([note['bbox'] for note in own], dtype=float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        truths.append(Detections(corners, np.array([index[note['category_id']] for note in own], dtype=int)))
    return [image['file_name'] for image in images], truths, [category['name'] for category in coco['categories']]


def match(found: Detections, truth: Detections, overlap: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Which detections are right, ``(n,)``, and which objects are found, ``(m,)``.

    As COCO counts: best score first, each takes the object of its class that it overlaps most, and only once.
    """
    right, seen = np.zeros(len(found.labels), dtype=bool), np.zeros(len(truth.labels), dtype=bool)
    order = range(len(right)) if found.scores is None else np.argsort(-found.scores, kind='stable')
    for i in order:
        ious = np.array([iou(found.boxes[i], box) for box in truth.boxes])
        ious[seen | (truth.labels != found.labels[i])] = 0
        if len(ious) and ious.max() >= overlap:
            right[i] = seen[ious.argmax()] = True
    return right, seen


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes ``(4,)``."""
    width, height = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    both = max(width, 0) * max(height, 0)
    total = np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]) - both
    return float(both / total) if total > 0 else 0.0


def draw(images: Sequence[Path], truths: Sequence[Detections], columns: Mapping[str, Sequence[Detections]],
         classes: Sequence[str], out: Path, threshold: float = 0.5) -> None:
    """Draw one row an image: ground truth, then each of ``columns``; scores below ``threshold`` are left out."""
    rows, width = len(images), len(columns) + 1
    figure = Figure(figsize=(3.4 * width, 3.4 * rows + 0.8), layout='constrained')
    axes = figure.subplots(rows, width, squeeze=False)
    for row, path in enumerate(images):
        pixels = np.asarray(Image.open(path).convert('RGB'))
        for axis in axes[row]:
            axis.imshow(pixels, interpolation='lanczos')
            axis.set(xticks=[], yticks=[])
        axes[row, 0].set_ylabel(for_plot(f'{path.parent.name}/{path.name}'), fontsize=9)
        _draw_boxes(axes[row, 0], truths[row], classes, ['white'] * len(truths[row].labels))
        for axis, found in zip(axes[row, 1:], columns.values(), strict=True):
            _draw_found(axis, found[row].above(threshold), truths[row], classes)
    for axis, title in zip(axes[0], ['ground truth', *columns], strict=True):
        axis.set_title(for_plot(title), fontsize=13)
    figure.legend(handles=[Patch(color=RIGHT, label='right: class, and IoU at least 0.5'),
                           Patch(color=WRONG, label='wrong'),
                           Patch(facecolor='none', edgecolor=MISSED, linestyle='--', label='missed')],
                  title=f'Detections with a score of at least {threshold:g}', title_fontsize=10, fontsize=10,
                  loc='outside lower center', ncols=3, frameon=False)
    figure.savefig(out, dpi=130)


def _draw_found(axis: Axes, found: Detections, truth: Detections, classes: Sequence[str]) -> None:
    right, seen = match(found, truth)
    for box in truth.boxes[~seen]:
        _rectangle(axis, box, MISSED, linestyle='--')
    _draw_boxes(axis, found, classes, [RIGHT if hit else WRONG for hit in right])


def _draw_boxes(axis: Axes, boxes: Detections, classes: Sequence[str], colors: Sequence[str]) -> None:
    image_width = axis.get_xlim()[1]
    for i, (box, label) in enumerate(zip(boxes.boxes, boxes.labels, strict=True)):
        layer = 3 if colors[i] == RIGHT else 2  # the right ones stay in sight where many overlap
        _rectangle(axis, box, colors[i], zorder=layer)
        name = for_plot(classes[label])
        text = name if boxes.scores is None else f'{name} {boxes.scores[i]:.2f}'
        # at an edge of the image the name moves to the side where it fits
        top, right = box[1] <= 8, box[0] > 0.8 * image_width
        axis.text(box[2] if right else box[0], box[3] if top else box[1], text, fontsize=7, color='black',
                  horizontalalignment='right' if right else 'left', verticalalignment='top' if top else 'bottom',
                  clip_on=True, zorder=layer + 0.5,
                  bbox=dict(facecolor=colors[i], edgecolor='none', pad=0.6, alpha=0.85))


def _rectangle(axis: Axes, box: np.ndarray, color: str, linestyle: str = '-', zorder: float = 1) -> None:
    left, top, right, bottom = box.tolist()
    axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=color, linewidth=1.6,
                             linestyle=linestyle, zorder=zorder))
