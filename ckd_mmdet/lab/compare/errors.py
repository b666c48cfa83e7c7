"""What a detector does wrong, by kinds, and how much average precision each kind costs.

The kinds and the way to weigh them are those of TIDE (arXiv 2008.08115): each kind is what AP50 would gain if it alone
were mended. They do not add up, since one kind can hide another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from pycocotools import mask
from pycocotools.cocoeval import COCOeval

BOX, CLASS, DUPLICATE, BACKGROUND, BOTH = range(5)
KINDS = ('box', 'class', 'duplicate', 'background', 'both')
"""Of false detections, in the order in which they are asked for.

A box of the right class with an IoU of 0.1 to 0.5; a good box of another class; an object that is found already;
nothing with an IoU of 0.1; the rest, wrong in box and class.
"""
MISSED = 'missed'
"""Objects that no detection finds, not even with a wrong box or class."""
FOREGROUND, TOUCHES = 0.5, 0.1
"""IoU of a good box, and of one that belongs to an object at all."""
RECALLS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class Outcome:
    """A validation: ``(n,)`` detections and ``(m,)`` objects, without what COCO ignores."""

    category: np.ndarray
    score: np.ndarray
    right: np.ndarray
    """Whether the detection counts as true at an IoU of 0.5."""
    kind: np.ndarray
    """Index of :data:`KINDS`, -1 of a true detection."""
    target: np.ndarray
    """Index of the object that a detection of the kinds box and class should have found, else -1."""
    objects: np.ndarray
    """Category of each object."""
    found: np.ndarray
    """Whether a true detection has the object."""


def costs(evaluated: COCOeval) -> dict[str, float]:
    """What AP50 would gain by mending each kind of error, by its name; and ``'AP50'`` itself.

    Args:
        evaluated: Boxes, after ``evaluate()``, with an IoU of 0.5 among its thresholds.
    """
    outcome = outcome_of(evaluated)
    now = ap50(outcome)
    mended = {name: mend(outcome, kind) for kind, name in enumerate(KINDS)} | {MISSED: without_missed(outcome)}
    return {'AP50': now, **{name: ap50(other) - now for name, other in mended.items()}}


def outcome_of(evaluated: COCOeval) -> Outcome:
    """Every detection and every object of an evaluation, with the kinds of the errors."""
    by_image: dict[int, list[tuple[int, dict]]] = {}
    params = evaluated.params
    areas = len(params.areaRng)
    for c, category in enumerate(params.catIds):
        for i, image in enumerate(params.imgIds):
            one = evaluated.evalImgs[(c * areas) * len(params.imgIds) + i]  # the first area is all
            if one is not None:
                by_image.setdefault(image, []).append((category, one))
    half = int(np.flatnonzero(np.isclose(params.iouThrs, FOREGROUND))[0])
    start, parts = 0, []
    for own in by_image.values():
        part = _of_image(evaluated, own, half)
        parts.append(replace(part, target=np.where(part.target >= 0, part.target + start, -1)))
        start += len(part.objects)
    return Outcome(*(np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, dtype)
                     for name, dtype in (('category', int), ('score', float), ('right', bool), ('kind', int),
                                         ('target', int), ('objects', int), ('found', bool))))


def _of_image(evaluated: COCOeval, own: list[tuple[int, dict]], half: int) -> Outcome:
    detections: list[tuple[int, int, bool]] = []
    objects: list[tuple[int, int, bool]] = []
    for number, one in own:
        matches, ignored = one['dtMatches'][half], one['dtIgnore'][half]
        detections += [(number, box, match > 0) for box, match, skip in
                       zip(one['dtIds'], matches, ignored, strict=True) if not skip]
        objects += [(number, box, match > 0) for box, match, skip in
                    zip(one['gtIds'], one['gtMatches'][half], one['gtIgnore'], strict=True) if not skip]
    category, right = np.array([one[0] for one in detections], int), np.array([one[2] for one in detections], bool)
    classes, found = np.array([one[0] for one in objects], int), np.array([one[2] for one in objects], bool)
    boxes = [evaluated.cocoDt.anns[box]['bbox'] for _, box, _ in detections]
    truth = [evaluated.cocoGt.anns[box]['bbox'] for _, box, _ in objects]
    ious = np.asarray(mask.iou(boxes, truth, [0] * len(truth))).reshape(len(boxes), len(truth))
    kind, target = kinds_of(ious, category, classes, right)
    score = np.array([evaluated.cocoDt.anns[box]['score'] for _, box, _ in detections], float)
    return Outcome(category, score, right, kind, target, classes, found)


def kinds_of(ious: np.ndarray, category: np.ndarray, classes: np.ndarray,
             right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Kind of each detection in one image, and the object that it should have found.

    Args:
        ious: ``(n, m)``, of detections and objects.
        category: ``(n,)``, of the detections.
        classes: ``(m,)``, of the objects.
        right: ``(n,)``, of the detections that are true.

    Returns:
        ``kind`` ``(n,)`` and ``target`` ``(n,)``, both -1 where there is none.
    """
    same = category[:, None] == classes[None]
    # a column of zeros: an image may have no objects
    own, other = (np.hstack([np.where(each, ious, 0), np.zeros((len(ious), 1))]) for each in (same, ~same))
    best, wrong = own.max(axis=1), other.max(axis=1)
    kind = np.select([right, (best >= TOUCHES) & (best < FOREGROUND), wrong >= FOREGROUND, best >= FOREGROUND,
                      np.maximum(best, wrong) < TOUCHES], [-1, BOX, CLASS, DUPLICATE, BACKGROUND], BOTH)
    return kind, np.select([kind == BOX, kind == CLASS], [own.argmax(axis=1), other.argmax(axis=1)], -1)


def mend(outcome: Outcome, kind: int) -> Outcome:
    """The same without the errors of a kind.

    A wrong box or class is put right where its object is not found yet, once per object, by the detection of the
    highest score; all others of the kind are taken out.
    """
    wrong = np.flatnonzero(outcome.kind == kind)
    chosen = np.zeros(0, int)
    if kind in (BOX, CLASS):
        open_ones = wrong[~outcome.found[outcome.target[wrong]]]
        ranked = open_ones[np.argsort(-outcome.score[open_ones], kind='stable')]
        chosen = ranked[np.unique(outcome.target[ranked], return_index=True)[1]]
    category, right = outcome.category.copy(), outcome.right.copy()
    category[chosen], right[chosen] = outcome.objects[outcome.target[chosen]], True
    kept = np.ones(len(right), bool)
    kept[np.setdiff1d(wrong, chosen)] = False
    return replace(outcome, category=category[kept], score=outcome.score[kept], right=right[kept],
                   kind=outcome.kind[kept], target=outcome.target[kept])


def without_missed(outcome: Outcome) -> Outcome:
    """The same without the objects that nothing finds, not even with a wrong box or class."""
    touched = outcome.found.copy()
    touched[outcome.target[outcome.target >= 0]] = True
    return replace(outcome, objects=outcome.objects[touched], found=outcome.found[touched],
                   target=np.full(len(outcome.target), -1))


def ap50(outcome: Outcome) -> float:
    """Mean over the categories that have objects of COCO's average precision at an IoU of 0.5; 0 without any."""
    precisions = []
    for category in np.unique(outcome.objects):
        own = outcome.category == category
        ranked = outcome.right[own][np.argsort(-outcome.score[own], kind='stable')]
        true = np.cumsum(ranked)
        recall = true / np.count_nonzero(outcome.objects == category)
        precision = np.maximum.accumulate((true / np.arange(1, len(true) + 1))[::-1])[::-1]
        places = np.searchsorted(recall, RECALLS, side='left')
        precisions.append(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean())
    return float(np.mean(precisions)) if precisions else 0.0
