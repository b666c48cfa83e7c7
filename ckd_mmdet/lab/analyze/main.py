"""The command, step by step: rows, numbers, pictures, files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet.files import check_writable
from ckd_mmdet.lab.analyze import pictures, sweep
from ckd_mmdet.lab.analyze.data import Images, choose_images
from ckd_mmdet.lab.analyze.difficulty import Example, difficulties, strips
from ckd_mmdet.lab.analyze.embedding import embed_all
from ckd_mmdet.lab.analyze.matrices import KINDS, differences, matrix, size_of
from ckd_mmdet.lab.analyze.rows import ImageRows, Taught, listen, make_pair, names_of, open_student
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.jobs.files import write_whole

FILE = 'analysis.json'
DECILES = [round(0.1 * i, 1) for i in range(11)]


@dataclass(frozen=True)
class Analysis:
    """What the user asked for.

    Args:
        config: Of the plain student, or of a distilled one, whose teacher is then the default.
        checkpoints: One for each student of this config.
        names: How they are called; by default by what tells their paths apart.
        teacher: The teacher's config, a path or ``package::...``.
        teacher_checkpoint: Its weights; of an ``mmdet::`` config the model zoo's by default.
        out: Folder of the pictures; by default ``work_dirs/analyze_<the config's name>``.
        batches: Validation batches that are looked at.
        rows: Of t-SNE, at most.
        examples: In a strip.
        options: ``--cfg-options``.
        device: Where the models work.

    Raises:
        ValueError: If numbers or names make no sense.
    """

    config: str
    checkpoints: Sequence[str]
    names: Sequence[str] | None = None
    teacher: str | None = None
    teacher_checkpoint: str | None = None
    out: Path | None = None
    batches: int = 50
    rows: int = 1000
    examples: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = 'cpu'

    def __post_init__(self) -> None:
        if not self.checkpoints:
            raise ValueError('`checkpoint` needs at least one checkpoint of the student, got none.')
        for name in ('batches', 'rows', 'examples'):
            if getattr(self, name) < 1:
                raise ValueError(f'`--{name}` needs a positive number, got {getattr(self, name)}.')
        if self.names is not None and len(self.names) != len(self.checkpoints):
            raise ValueError(f'`--method-name` needs a name for each of the {len(self.checkpoints)} checkpoints, got '
                             f'{len(self.names)}.')
        twice = {name for name in self.students if self.students.count(name) > 1}
        if twice:
            raise ValueError(f'`--method-name` needs different names, got {", ".join(sorted(twice))} more than once.')

    @property
    def students(self) -> list[str]:
        return list(self.names) if self.names is not None else names_of(self.checkpoints)

    @property
    def folder(self) -> Path:
        return self.out or Path('work_dirs') / f'analyze_{Path(self.config.rpartition("::")[2]).stem}'


def analyze(settings: Analysis, say: Callable[[str], None] = lambda text: None) -> list[Path]:
    """Draw the heat maps, the t-SNE and the examples of all students, and write their numbers beside them.

    Args:
        say: Gets a line about each step.

    Returns:
        What was written, ``analysis.json`` last.

    Raises:
        ValueError: If an argument is unfit.
        RuntimeError: If a model behaves otherwise than is needed.
    """
    for checkpoint in settings.checkpoints:
        if '://' not in checkpoint and not Path(checkpoint).is_file():
            raise ValueError(f'`checkpoint` needs a file that exists, {checkpoint} does not.')
    check_writable(settings.folder, '--out')
    cfg, own = open_student(settings.config, settings.options)
    teacher = settings.teacher or own.get('config')
    weights = settings.teacher_checkpoint or (None if settings.teacher else own.get('checkpoint'))
    class_map = None if settings.teacher else own.get('class_map')
    pair = make_pair(cfg, teacher, weights, class_map, settings.device)
    images = choose_images(cfg, settings.batches)
    say(f'{len(images)} validation images; {pair.why}')
    rows = []
    for name, path in zip(settings.students, settings.checkpoints, strict=True):
        rows.append(listen(pair, name, path, images))
        say(f'{name}: {len(rows[-1].samples)} rows with a label')
    classes = pair.classes(images.classes)
    report = dict(config=settings.config, teacher=dict(config=pair.teacher.name, checkpoint=pair.teacher.checkpoint),
                  aligner=type(pair.pairing.alignment.aligner).__name__, images=len(images), classes=classes)
    files: dict[str, str | bytes] = {}
    for step in (_matrices, _embeddings, _examples):
        drawn, numbers = step(settings, pair, images, rows, classes, say)
        files |= drawn
        report |= numbers
    report['students'] = {one.name: dict(checkpoint=path, **_accuracies(one))
                          for one, path in zip(rows, settings.checkpoints, strict=True)}
    files[FILE] = json.dumps(report, indent=2) + '\n'
    return _write(settings.folder, files)


def draw_sweep(folders: Sequence[Path], out: Path | None = None, metric: str | None = None) -> list[Path]:
    """Draw the sweeps among the methods of one matrix, or of several, with their numbers in ``sweep.json``.

    Args:
        folders: Of ``compare.py``; a batch size has a matrix of its own.
        out: Folder of the pictures; by default the first matrix's.
        metric: Key of the metric; by default the matrices' own.

    Returns:
        What was written.

    Raises:
        ValueError: If a folder holds no matrix, or nothing was swept.
    """
    matrices = sweep.read(folders, metric)
    if out is not None:
        check_writable(out, '--out')
    curves = sweep.find_curves(matrices)
    if not any(curve.label != ALONE for curve in curves):
        names = ', '.join(dict.fromkeys(name for _, found in matrices for name in found.methods)) or 'none'
        raise ValueError('`--sweep` needs two finished methods that differ in nothing but a loss weight, a temperature '
                         f'or the batch size, got {names}; train some, as with `compare.py --methods ckd:5 ckd:10`, '
                         'or give matrices of several batch sizes.')
    alone, teacher = sweep.references(matrices)
    first = matrices[0][1]
    files: dict[str, str | bytes] = {}
    for argument in dict.fromkeys(curve.argument for curve in curves):
        own = [curve for curve in curves if curve.argument == argument]
        if any(curve.label != ALONE for curve in own):
            files[f'sweep_{argument}.png'] = sweep.draw(own, alone, teacher, first.written.title)
    files['sweep.json'] = json.dumps(sweep.as_json(curves, alone, teacher, first.metric), indent=2) + '\n'
    return _write(out or folders[0], files)


def _matrices(settings: Analysis, pair: Taught, images: Images, rows: Sequence[ImageRows], classes: Sequence[str],
              say: Callable[[str], None]) -> tuple[dict, dict]:
    files: dict[str, bytes] = {}
    numbers = {}
    for kind in KINDS:
        found = {one.name: differences(kind, one) for one in rows}
        files[f'{kind}.png'] = pictures.heat_maps(found, classes, kind)
        numbers[kind] = {one.name: dict(
            difference=size_of(found[one.name]),
            **{side: _plain(matrix(kind, getattr(one.samples, side).logits.numpy(), one.labels))
               for side in ('student', 'teacher')}) for one in rows}
    return files, dict(matrices=numbers)


def _embeddings(settings: Analysis, pair: Taught, images: Images, rows: Sequence[ImageRows], classes: Sequence[str],
                say: Callable[[str], None]) -> tuple[dict, dict]:
    say('t-SNE')
    found = embed_all(list(rows), settings.rows)
    numbers = [dict(model=one.name, of=one.of, rows=len(one.labels), silhouette=one.silhouette,
                    classes=[classes[label] for label in np.unique(one.labels)
                             if label < rows[0].samples.num_classes]) for one in found]
    return ({'features.png': pictures.scatter(found, classes, rows[0].samples.num_classes)}, dict(features=numbers))


def _examples(settings: Analysis, pair: Taught, images: Images, rows: Sequence[ImageRows], classes: Sequence[str],
              say: Callable[[str], None]) -> tuple[dict, dict]:
    if not (pair.of_images or all(one.boxes is not None for one in rows)):
        kind = type(pair.pairing.alignment.aligner).__name__
        reason = (f'{kind} pairs rows that are neither images nor RoIs, or RoIs that '
                  'cannot be told apart: no examples are shown')
        say(reason)
        return {}, dict(difficulty=reason)
    files, numbers = {}, {}
    for one in rows:
        found = strips(one, images, pair.student.data_preprocessor, settings.examples)
        files[f'difficulty_{_safe(one.name)}.png'] = pictures.strip(found, classes, one.name)
        numbers[one.name] = dict(deciles=_deciles(one),
                                 examples={kind: [_as_json(example, classes) for example in examples]
                                           for kind, examples in found.items()})
    return files, dict(difficulty=numbers)


def _deciles(rows: ImageRows) -> dict[str, list[float]]:
    """Of the difficulty: its least, nine in between, its greatest."""
    difficulty, background = difficulties(rows), rows.labels == rows.samples.num_classes
    kinds = {'objects': ~background, 'background': background} if background.any() else {'all': ~background}
    return {kind: np.quantile(difficulty[mask], DECILES).tolist() for kind, mask in kinds.items() if mask.any()}


def _accuracies(rows: ImageRows) -> dict[str, Any]:
    """Of both sides, over the rows that hold an object: the share whose label has the greatest score."""
    foreground = rows.labels < rows.samples.num_classes
    labels = rows.labels[foreground]
    found = {f'{side}_accuracy': float((getattr(rows.samples, side).logits.numpy()[foreground].argmax(1)
                                        == labels).mean()) if len(labels) else None for side in ('student', 'teacher')}
    return dict(rows=len(rows.labels), foreground_rows=len(labels), **found)


def _as_json(example: Example, classes: Sequence[str]) -> dict[str, Any]:
    return dict(image=example.path, label=classes[example.label], prediction=classes[example.prediction],
                score=example.score, difficulty=example.difficulty, harder_than=example.harder_than)


def _plain(values: np.ndarray) -> list[list[float | None]]:
    """JSON knows no NaN."""
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


def _safe(name: str) -> str:
    return re.sub(r'[^\w+.-]', '_', name).lstrip('.-')


def _write(folder: Path, files: Mapping[str, str | bytes]) -> list[Path]:
    for name, content in files.items():
        write_whole(folder / name, content)
    return [folder / name for name in files]
