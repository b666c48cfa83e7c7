"""What is kept of the boxes that a validation found: precision by class, kinds of errors, and some photographs."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet.config import class_names, inner_datasets
from ckd_mmdet.lab.compare.errors import costs
from ckd_mmdet.lab.compare.metric import evaluators_with_types
from ckd_mmdet.lab.jobs.files import write_whole
from mmengine.config import Config
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

FILE = 'detections.json'
RAW = 'detections'
"""How the names of mmdet's own files begin, in the folder of a run."""
PHOTOGRAPHS = 6
LEAST_SCORE = 0.3
"""Of the boxes that are kept of the photographs; mmdet draws by the same."""
PLAIN = re.compile(r'[\w./+@ -]+')
"""Paths that MMEngine's ``--cfg-options`` takes as they are."""


@dataclass(frozen=True)
class Detections:
    """Where a config's validation finds boxes, and what they are compared with.

    Args:
        key: Of its evaluator, as ``--cfg-options`` name it.
        ann_file: COCO annotations of the validation set; ``None`` where the evaluator makes them from the data set.
        images: Folder that the file names in it begin at.
        classes: Names of the classes that are evaluated, ``None`` for all.
    """

    key: str
    ann_file: str | None
    images: str
    classes: tuple[str, ...] | None

    def options(self, folder: Path) -> list[str]:
        """``--cfg-options`` by which mmdet leaves the boxes in that folder."""
        path = str(folder / RAW)
        return [f'{self.key}.outfile_prefix={path}'] if PLAIN.fullmatch(path) else []


def find_detections(cfg: Config, split: str = 'val') -> Detections | None:
    """Of a config that is validated, or tested, by mmdet's ``CocoMetric``; ``None`` of any other.

    Args:
        split: ``'val'`` or ``'test'``.
    """
    name = f'{split}_evaluator'
    dataset = next(inner_datasets((cfg.get(f'{split}_dataloader') or {}).get('dataset')), {})
    for place, (evaluator, kind) in enumerate(evaluators_with_types(cfg, name)):
        if not any(base.__name__ == 'CocoMetric' for base in getattr(kind, '__mro__', ())):
            continue
        if evaluator.get('outfile_prefix') or 'bbox' not in str(evaluator.get('metric', 'bbox')):
            return None
        prefix = dataset.get('data_prefix') or {}
        folder = os.path.join(dataset.get('data_root') or '', prefix.get('img') or '')
        return Detections(_key(cfg, name, place), evaluator.get('ann_file'), folder, class_names(cfg))
    return None


def keep_detections(folder: Path, where: Detections) -> None:
    """Write :data:`FILE` from what the last validation left, and remove that; nothing where it left nothing.

    Raises:
        OSError, ValueError, KeyError: If the boxes or the annotations cannot be read.
    """
    found = folder / f'{RAW}.bbox.json'
    if not found.exists():
        return
    truth = _read_truth(where.ann_file or folder / f'{RAW}.gt.json')
    write_whole(folder / FILE, json.dumps(summarize(truth, json.loads(found.read_text()), where)) + '\n')
    for path in folder.glob(f'{RAW}.*.json'):
        path.unlink()


def summarize(truth: COCO, found: Sequence[dict[str, Any]], where: Detections) -> dict[str, Any]:
    """Average precision by class, what each kind of error costs, and the boxes on the first images with objects.

    Args:
        truth: The annotations.
        found: COCO's results, of boxes.
        where: As of :func:`find_detections`.

    Returns:
        ``classes`` (AP by name; of those with objects), ``errors`` as of
        :func:`ckd_mmdet.lab.compare.errors.costs`, and ``photographs``: ``file``, ``size`` (width, height), ``truth``
        and ``boxes``, each of x, y, width, height in pixels, the class's name, and for ``boxes`` the score.
    """
    names = {one['id']: one['name'] for one in truth.dataset['categories']}
    known = [number for number, name in names.items() if where.classes is None or name in where.classes]
    with redirect_stdout(io.StringIO()):  # it tells how long it took
        evaluated = COCOeval(truth, truth.loadRes(list(found)) if found else _no_results(truth), 'bbox')
        evaluated.params.catIds = known
        evaluated.evaluate()
        evaluated.accumulate()
    precision = evaluated.eval['precision'][:, :, :, 0, -1]  # IoU, recall, category; all areas, 100 detections
    classes = {names[number]: float(precision[:, :, place].mean()) for place, number in enumerate(known)
               if (precision[:, :, place] > -1).all()}
    chosen = [image for image in truth.dataset['images'] if truth.getAnnIds(image['id'], known)][:PHOTOGRAPHS]
    own: dict[int, list[dict]] = {image['id']: [] for image in chosen}
    for box in found:
        if box['image_id'] in own and box['score'] >= LEAST_SCORE:
            own[box['image_id']].append(box)
    return dict(classes=classes, errors=costs(evaluated), photographs=[
        dict(file=os.path.join(where.images, image['file_name']), size=[image['width'], image['height']],
             truth=[[*_rounded(note['bbox']), names[note['category_id']]]
                    for note in truth.loadAnns(truth.getAnnIds(image['id'], known, iscrowd=False))],
             boxes=[[*_rounded(box['bbox']), names[box['category_id']], round(box['score'], 3)]
                    for box in own[image['id']]])
        for image in chosen])


def read_detections(folder: Path) -> dict[str, Any] | None:
    """What a run's or the teacher's folder has kept; ``None`` where there is nothing, or not what was written."""
    try:
        kept = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return kept if isinstance(kept, dict) and {'classes', 'errors', 'photographs'} <= set(kept) else None


def _key(cfg: Config, name: str, place: int) -> str:
    """Of one of the evaluators, of which there may be one, a list, or an evaluator that holds them."""
    given = cfg[name]
    if not isinstance(given, list | tuple) and given.get('metrics'):
        name, given = f'{name}.metrics', given['metrics']
    return f'{name}.{place}' if isinstance(given, list | tuple) else name


def _read_truth(path: str | Path) -> COCO:
    with redirect_stdout(io.StringIO()):
        return COCO(str(path))


def _no_results(truth: COCO) -> COCO:
    """COCO's results of a detector that found nothing, which ``loadRes`` refuses."""
    none = COCO()
    none.dataset = {**truth.dataset, 'annotations': []}
    none.createIndex()
    return none


def _rounded(box: Sequence[float]) -> list[float]:
    return np.asarray(box, float).round(1).tolist()
