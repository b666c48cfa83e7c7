"""Curves of a matrix's runs over what was swept: loss weight, temperature or batch size."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ckd_mmdet.losses  # noqa: F401  fills the registry
import pandas as pd
from ckd_mmdet.alignment import bare_name
from ckd_mmdet.config import DISTILLER
from ckd_mmdet.lab.analyze.pictures import COLUMN, png
from ckd_mmdet.lab.compare.found import Found, read_matrix
from ckd_mmdet.lab.compare.methods import ALONE, folder_name
from ckd_mmdet.lab.compare.plots import ALONE_COLOR, COLORS, MARKERS, TEACHER_COLOR
from ckd_mmdet.lab.compare.statistics import paired
from ckd_mmdet.lab.jobs.files import digest
from ckd_mmdet.registry import MODELS
from ckd_mmdet.text import for_plot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator
from mmengine.config import Config

BATCH = 'batch_size'
SWEPT = {'loss_weight': 'loss weight', 'temperature': 'temperature', BATCH: 'batch size'}
"""Arguments of losses, and the training loader's, by what the axis is called."""
SCHEDULE = ('optim_wrapper', 'param_scheduler')
"""May change with the batch size, which asks for another learning rate."""


@dataclass(frozen=True)
class Swept:
    """A method of a matrix, taken apart."""

    name: str
    label: str
    """Its losses, ``'ckd+kd'``."""
    numbers: dict[tuple[str, str], float]
    """What might be swept, by argument and loss."""
    rest: dict[str, Any]
    """Everything else of its config."""
    values: pd.Series
    """Of the last epoch, by seed."""


@dataclass(frozen=True)
class Point:
    x: float
    method: str
    values: pd.Series


@dataclass(frozen=True)
class Curve:
    """Methods that differ in one number alone."""

    argument: str
    label: str
    points: list[Point]


def find_curves(matrices: Sequence[tuple[Path, Found]]) -> list[Curve]:
    """Methods whose configs are equal but for one number, of one matrix or of several, a batch size each.

    Args:
        matrices: Folders of ``compare.py``, and what they hold.

    Returns:
        Curves of two points or more, by argument in the order of :data:`SWEPT`; a method may be in several.
    """
    methods = [method for folder, found in matrices for method in take_apart(folder, found)]
    curves: dict[tuple[str, str], list[Swept]] = {}
    for method in methods:
        for key in method.numbers:
            others = {str(name): value for name, value in method.numbers.items() if name != key}
            rest = {name: part for name, part in method.rest.items() if key[0] != BATCH or name not in SCHEDULE}
            curves.setdefault((str(key), digest([others, rest])), []).append(method)
    keys = {str(key): key for method in methods for key in method.numbers}
    found_curves = []
    for (name, _), group in curves.items():
        points = _points(group, keys[name])
        if len(points) > 1:
            found_curves.append((keys[name], group[0], Curve(keys[name][0], group[0].label, points)))
    found_curves.sort(key=lambda one: list(SWEPT).index(one[0][0]))
    return _distinct(found_curves)


def take_apart(folder: Path, found: Found) -> list[Swept]:
    """The methods of a matrix that have a finished run."""
    last = found.values[found.values['last']]
    methods = []
    for name in found.methods:
        cfg = Config.fromfile(folder / 'configs' / f'{folder_name(name)}.py').to_dict()
        model = copy.deepcopy(cfg['model'])
        losses: list[str] = []
        numbers: dict[tuple[str, str], float] = {}
        if model.get('type') == DISTILLER:
            for part in ('config', 'checkpoint'):
                (model.get('teacher') or {}).pop(part, None)  # the same in all of a matrix, wherever they lie
            for where, alignment in model['alignments'].items():
                for key, loss in alignment['losses'].items():
                    losses.append(bare_name(key))
                    own = _take_numbers(loss)
                    alike = all(numbers.get((argument, key), value) == value for argument, value in own.items())
                    numbers |= {(argument, key if alike else f'{where}.{key}'): value
                                for argument, value in own.items()}
        batch = (cfg.get('train_dataloader') or {}).get('batch_size')
        if batch is not None:
            numbers[BATCH, ''] = batch
        values = last[last['method'] == name].set_index('seed')['value']
        matrix = {key: found.matrix[key]['digest'] for key in ('teacher', 'teacher_checkpoint')}
        methods.append(Swept(name, '+'.join(dict.fromkeys(losses)) or ALONE, numbers,
                              dict(model=model, train_cfg=cfg.get('train_cfg'), matrix=matrix,
                                   **{key: cfg.get(key) for key in SCHEDULE}), values))
    return methods


def _take_numbers(loss: dict[str, Any]) -> dict[str, float]:
    """Take what is swept out of a loss's config, defaults too; schedules and balanced weights stay in it."""
    kind = MODELS.get(loss['type'].rpartition('.')[2])
    known = inspect.signature(kind.__init__).parameters if kind is not None else {}
    taken = {}
    for argument in SWEPT:
        if argument in known:
            value = loss.get(argument, known[argument].default)
            if _is_number(value):
                taken[argument] = float(value)
                loss.pop(argument, None)
    return taken


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _points(group: Sequence[Swept], key: tuple[str, str]) -> list[Point]:
    by_x: dict[float, Point] = {}
    for method in group:
        x = method.numbers[key]
        there = by_x.get(x)
        values = method.values if there is None else pd.concat([there.values, method.values])
        values = values[~values.index.duplicated()]  # a run in two matrices is one run
        by_x[x] = Point(x, method.name if there is None else there.method, values)
    return [by_x[x] for x in sorted(by_x)]


def _distinct(curves: Sequence[tuple[tuple[str, str], Swept, Curve]]) -> list[Curve]:
    """Curves of equal names in one picture get what else tells them apart."""
    named = []
    for key, method, curve in curves:
        twins = [(other_key, other) for other_key, other, twin in curves
                 if (twin.argument, twin.label) == (curve.argument, curve.label)]
        more = [f'{SWEPT[argument]} {value:g}' for (argument, loss), value in method.numbers.items()
                if (argument, loss) != key
                and len({other.numbers.get((argument, loss)) for _, other in twins}) > 1]
        if len({other_key for other_key, _ in twins}) > 1:
            more.insert(0, f'of {bare_name(key[1])}')
        if len(twins) > 1 and not more:
            more = [Path(method.name).stem]
        named.append(Curve(curve.argument, ', '.join([curve.label, *more]), curve.points))
    return named


def as_json(curves: Sequence[Curve], alone: pd.Series | None, teacher: float | None, metric: str) -> dict[str, Any]:
    """All numbers: of each point the mean over the seeds, its 95 % confidence interval, and the seeds' own."""
    return dict(metric=metric, teacher=teacher, none=None if alone is None else _statistics(alone),
                curves=[dict(swept=curve.argument, label=curve.label,
                             points=[dict(x=point.x, method=point.method, **_statistics(point.values))
                                     for point in curve.points]) for curve in curves])


def _statistics(values: pd.Series) -> dict[str, Any]:
    mean, low, high, _ = paired(values)
    return dict(mean=mean, low=None if math.isnan(low) else low, high=None if math.isnan(high) else high,
                values={str(seed): value for seed, value in values.items()})


def draw(curves: Sequence[Curve], alone: pd.Series | None, teacher: float | None, metric: str) -> bytes:
    """A PNG of the curves of one argument: means, and their 95 % confidence band over the seeds.

    Args:
        curves: Of one argument.
        alone: Values of the student alone by seed, a dashed line with its band; ``None`` leaves it out.
        teacher: Its value, a dotted line.
        metric: What the axis is called.
    """
    figure = Figure(figsize=(COLUMN, 2.7), layout='constrained')
    axis = figure.subplots()
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='#e4e4e4', linewidth=0.6)
    axis.set_axisbelow(True)
    colors = {curve.label: COLORS[i % len(COLORS)]
              for i, curve in enumerate(one for one in curves if one.label != ALONE)}
    for i, curve in enumerate(curves):
        _draw_curve(axis, curve, colors.get(curve.label, ALONE_COLOR), MARKERS[i % len(MARKERS)])
    if alone is not None and curves[0].argument != BATCH:
        mean, low, high, _ = paired(alone)
        axis.axhline(mean, color=ALONE_COLOR, linestyle='--', linewidth=1.2, label='student alone')
        if not math.isnan(low):
            axis.axhspan(low, high, color=ALONE_COLOR, alpha=0.12, linewidth=0)
    if teacher is not None:
        axis.axhline(teacher, color=TEACHER_COLOR, linestyle=':', linewidth=1.2, label='teacher')
    _name_axes(axis, curves, metric)
    seeds = sorted({len(point.values) for curve in curves for point in curve.points})
    count = f'{seeds[0]}' if len(seeds) == 1 else f'{seeds[0]} to {seeds[-1]}'
    notes = [f'{count} seed{"s" * (seeds[-1] > 1)}', *['band: 95 % confidence'] * (seeds[-1] > 1),
             *['hollow: one seed'] * (seeds[0] == 1 < seeds[-1])]
    axis.set_title('; '.join(notes), fontsize=7.5, loc='left')
    figure.legend(loc='outside lower center', ncols=2, frameon=False, fontsize=7)
    return png(figure)


def _draw_curve(axis: Axes, curve: Curve, color: str, marker: str) -> None:
    """Means with their band; a point of one seed is hollow and has none."""
    found = [paired(point.values) for point in curve.points]
    xs = [point.x for point in curve.points]
    lows, highs = [low for _, low, *_ in found], [high for *_, high, _ in found]
    axis.plot(xs, [mean for mean, *_ in found], color=color, marker=marker, markersize=4, linewidth=1.4,
              label=for_plot(curve.label), linestyle='--' if curve.label == ALONE else '-')
    axis.fill_between(xs, lows, highs, color=color, alpha=0.15, linewidth=0)
    axis.vlines(xs, lows, highs, color=color, linewidth=1.0)
    single = [(x, mean) for x, (mean, *_, count) in zip(xs, found, strict=True) if count == 1]
    axis.plot([x for x, _ in single], [mean for _, mean in single], marker, markersize=4, color=color,
              markerfacecolor='white')


def _name_axes(axis: Axes, curves: Sequence[Curve], metric: str) -> None:
    places = sorted({point.x for curve in curves for point in curve.points})
    if places[0] > 0 and places[-1] / places[0] >= 4:
        axis.set_xscale('log')
    axis.xaxis.set_major_locator(FixedLocator(places))
    axis.xaxis.set_major_formatter(lambda x, _: f'{x:g}')
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=7)
    axis.set_xlabel(SWEPT[curves[0].argument], fontsize=8)
    axis.set_ylabel(f'validation {for_plot(metric)}', fontsize=8)


def read(folders: Sequence[Path], metric: str | None) -> list[tuple[Path, Found]]:
    """Read the matrices; they have to be of one metric.

    Raises:
        ValueError: If a folder holds none, or they measure different things.
    """
    matrices = []
    for folder in folders:
        try:
            matrices.append((folder, read_matrix(folder, metric)))
        except ValueError as error:
            raise ValueError(f'`--sweep` needs the folder of a compare.py run: {error}') from error
    metrics = {found.metric for _, found in matrices}
    if len(metrics) > 1:
        raise ValueError(f'`--sweep` needs matrices of one metric, these have {", ".join(sorted(metrics))}; name one '
                         'with `--metric`.')
    return matrices


def references(matrices: Sequence[tuple[Path, Found]]) -> tuple[pd.Series | None, float | None]:
    """Values of the student alone by seed, of one matrix only, and the teacher's where all agree."""
    teachers: Mapping[float, None] = dict.fromkeys(found.teacher for _, found in matrices if found.teacher is not None)
    alone = None
    if len(matrices) == 1:
        values = matrices[0][1].values
        own = values[values['last'] & (values['method'] == ALONE)]
        alone = own.set_index('seed')['value'] if len(own) else None
    return alone, next(iter(teachers)) if len(teachers) == 1 else None
