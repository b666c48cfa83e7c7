"""What the page says of the boxes that were found: by class, by kinds of errors, and on photographs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet.lab.compare.detections import LEAST_SCORE, read_detections
from ckd_mmdet.lab.compare.errors import KINDS, MISSED
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.demo.picture import Detections, match
from ckd_mmdet.lab.page.names import groups, names_of
from ckd_mmdet.lab.page.tables import Row, Table, number, without_empty_columns
from PIL import Image, ImageOps, UnidentifiedImageError

WIDEST = 480
"""Pixels of a photograph in the page."""
Kept = dict[str, Any]
"""As of :func:`ckd_mmdet.lab.compare.detections.summarize`."""


@dataclass(frozen=True)
class Box:
    """A box on a photograph, in its pixels."""

    x: float
    y: float
    width: float
    height: float
    text: str
    kind: str
    """``truth``, ``right``, ``wrong`` or ``missed``."""


@dataclass(frozen=True)
class Photograph:
    """A photograph with what each detector finds on it."""

    name: str
    width: int
    height: int
    source: str
    """A ``data:`` address."""
    panels: list[tuple[str, list[Box]]]
    """Titles with boxes: the truth first."""


def read_kept(folder: Path, found: Found) -> tuple[dict[str, dict[int, Kept]], Kept | None]:
    """What the runs have kept, by method and seed, and the teacher."""
    kept: dict[str, dict[int, Kept]] = {}
    last = found.values[found.values['last']]
    for method in found.methods:
        runs = folder / 'runs' / found.matrix['methods'][method]['folder']
        own = {int(seed): read_detections(runs / str(seed) / found.part)
               for seed in last.loc[last['method'] == method, 'seed']}
        kept[method] = {seed: one for seed, one in own.items() if one is not None}
    return {method: own for method, own in kept.items() if own}, read_detections(folder / 'teacher' / found.part)


def classes_table(kept: Mapping[str, Mapping[int, Kept]], teacher: Kept | None, titles: Mapping[str, str]) -> Table:
    """Average precision by class: of the student alone, and each method's mean paired difference to it."""
    if ALONE not in kept:
        return Table()
    alone = kept[ALONE]
    methods = [method for method in kept if method != ALONE and alone.keys() & kept[method].keys()]
    rows = []
    for name in dict.fromkeys(name for one in alone.values() for name in one['classes']):
        differences = [_mean(own['classes'].get(name, np.nan) - alone[seed]['classes'].get(name, np.nan)
                             for seed, own in kept[method].items() if seed in alone) for method in methods]
        rows.append(Row([(name, name), number(_mean(one['classes'].get(name, np.nan) for one in alone.values()), '.3f'),
                         *(number(difference, '+.3f') for difference in differences),
                         number(teacher['classes'].get(name) if teacher else None, '.3f')]))
    return without_empty_columns(Table(['class', titles[ALONE], *(f'Δ {titles[method]}' for method in methods),
                                        'teacher'], rows))


def errors_table(kept: Mapping[str, Mapping[int, Kept]], teacher: Kept | None, titles: Mapping[str, str]) -> Table:
    """AP50, and what each kind of error costs of it, mean over the seeds."""
    def row(title: str, runs: Sequence[Kept], is_teacher: bool = False) -> Row:
        return Row([(title, title), *(number(_mean(run['errors'].get(name, np.nan) for run in runs), '.3f')
                                      for name in ('AP50', *KINDS, MISSED))], is_teacher)

    rows = [row(titles[method], list(own.values())) for method, own in kept.items()]
    if teacher is not None and rows:
        rows.append(row('teacher', [teacher], is_teacher=True))
    return Table(['method', 'AP50', *KINDS, MISSED], rows)


def photographs(found: Found, kept: Mapping[str, Mapping[int, Kept]],
                teacher: Kept | None) -> tuple[list[Photograph], int | None]:
    """The same photographs with the truth and what each detector finds, of one seed that all of them have.

    Returns:
        Those whose files can be read, and the seed; ``None`` where there is none in common.
    """
    titles = names_of(found)
    shown = [method for method in (ALONE, *(groups(found) or [[]])[0]) if method in kept]
    common = set.intersection(*(set(kept[method]) for method in shown)) if shown else set()
    if not common:
        return [], None
    seed = min(common)
    columns = {'teacher': teacher} if teacher is not None else {}
    columns |= {titles[method]: kept[method][seed] for method in shown}
    return gallery_of(columns), seed


def gallery_of(columns: Mapping[str, Kept]) -> list[Photograph]:
    """The photographs of the last of some detectors, with what each of them finds.

    Args:
        columns: What each has kept, by its title.
    """
    made = []
    for one in list(columns.values())[-1]['photographs']:
        source = embed(Path(one['file']))
        if source is None:
            continue
        panels = [('ground truth', [_box(box, box[4], 'truth') for box in one['truth']])]
        for title, run in columns.items():
            other = next((other for other in run['photographs'] if other['file'] == one['file']), None)
            if other is not None:
                panels.append((title, judged(other['boxes'], one['truth'])))
        made.append(Photograph(Path(one['file']).name, one['size'][0], one['size'][1], source, panels))
    return made


def judged(boxes: Sequence[Sequence[Any]], truth: Sequence[Sequence[Any]]) -> list[Box]:
    """Boxes that are right or wrong at an IoU of 0.5, after those of the objects that are missed.

    Args:
        boxes: Each of x, y, width, height, class and score.
        truth: Each of x, y, width, height and class.
    """
    names = sorted({box[4] for box in [*boxes, *truth]})
    right, seen = match(_detections(boxes, names), _detections(truth, names))
    missed = [_box(box, box[4], 'missed') for box, known in zip(truth, seen, strict=True) if not known]
    return missed + [_box(box, f'{box[4]} {box[5]:.2f}', 'right' if good else 'wrong')
                     for box, good in sorted(zip(boxes, right, strict=True), key=lambda one: bool(one[1]))]


def embed(path: Path) -> str | None:
    """A photograph as a ``data:`` address, its longer side at most :data:`WIDEST`; ``None`` if it cannot be read."""
    try:
        with Image.open(path) as image:
            small = ImageOps.exif_transpose(image).convert('RGB')
    except (OSError, ValueError, UnidentifiedImageError):
        return None
    small.thumbnail((WIDEST, WIDEST))
    buffer = io.BytesIO()
    small.save(buffer, format='JPEG', quality=82)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def photographs_note(seed: int | None = None) -> str:
    of_seed = '' if seed is None else f'Seed {seed}. '
    return (f'{of_seed}Boxes with a score of at least {LEAST_SCORE:g}. Solid green: right class and an IoU of at '
            'least 0.5. Solid red: wrong. Dashed: missed.')


def _box(box: Sequence[Any], text: str, kind: str) -> Box:
    x, y, width, height, *_ = box
    return Box(x, y, width, height, text, kind)


def _detections(boxes: Sequence[Sequence[Any]], names: Sequence[str]) -> Detections:
    corners = np.array([[x, y, x + width, y + height] for x, y, width, height, *_ in boxes], float).reshape(-1, 4)
    scores = np.array([box[5] for box in boxes], float) if boxes and len(boxes[0]) > 5 else None
    return Detections(corners, np.array([names.index(box[4]) for box in boxes], int), scores)


def _mean(values: Any) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else np.nan
