"""The pictures, as a paper prints them: PNGs of a page's or a column's width."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from ckd_mmdet.lab.analyze.difficulty import Example
from ckd_mmdet.lab.analyze.embedding import Embedding
from ckd_mmdet.lab.analyze.matrices import size_of
from ckd_mmdet.text import for_plot, plain
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

COLUMN, PAGE = 3.4, 7.0
"""Inches."""
DPI = 200
# Paul Tol's `muted`, made for colour-blind readers, and orange; each class has a marker of its own and its name beside.
COLORS = ('#332288', '#E69F00', '#117733', '#88CCEE', '#CC6677', '#999933', '#882255', '#44AA99', '#AA4499', '#DDCC77')
MARKERS = 'os^vDPX<>*'
BACKGROUND = '#bbbbbb'
WRONG, RIGHT = '#D55E00', '#222222'
TICKS = 20
"""Names of classes at an axis, at most."""
WHAT = {'logits': 'class-averaged logits', 'standardised': 'class-averaged logits, standardised',
        'correlation': 'class correlation'}


def heat_maps(differences: Mapping[str, np.ndarray], classes: Sequence[str], kind: str) -> bytes:
    """A PNG: one map for each student, all on one scale that is symmetric around 0.

    Args:
        differences: Student less teacher by the students' names, shape ``(c, c)`` each, NaN where nothing is known.
        classes: Their names, ``c`` of them or more.
        kind: One of :data:`ckd_mmdet.lab.analyze.matrices.KINDS`.
    """
    count = len(differences)
    columns = min(3, count)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(COLUMN if count == 1 else PAGE, lines * (3.3 if columns < 3 else 2.85)),
                    layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False)
    limit = max(size_of(one)['max'] or 0.0 for one in differences.values()) or 1.0
    for i, (axis, (name, values)) in enumerate(zip(axes.flat, differences.items(), strict=False)):
        axis.set_facecolor('#d9d9d9')  # unknown
        image = axis.imshow(values, cmap='RdBu_r', vmin=-limit, vmax=limit, interpolation='nearest')
        size = size_of(values)
        numbers = 'nothing known' if size['mean'] is None else f'mean |Δ| {size["mean"]:.3g}, max {size["max"]:.3g}'
        axis.set_title(f'{for_plot(name)}\n{numbers}', fontsize=7.5)
        _name_classes(axis, classes[:len(values)], left=not i % columns)
        if not i % columns:
            axis.set_ylabel('class' if kind == 'correlation' else 'true class', fontsize=7.5)
        axis.set_xlabel('class' if kind == 'correlation' else 'score', fontsize=7.5)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.75, aspect=28, pad=0.01)
    bar.set_label(f'{WHAT[kind]}\nstudent − teacher', fontsize=7.5)
    bar.ax.tick_params(labelsize=6.5)
    bar.outline.set_visible(False)
    return png(figure)


def scatter(embeddings: Sequence[Embedding], classes: Sequence[str], num_classes: int) -> bytes:
    """A PNG: a panel for each model; the same class has the same colour and marker in all.

    Args:
        embeddings: The teacher first.
        classes: Names of the foreground classes, by label.
        num_classes: How many these are; that label is background.
    """
    count = len(embeddings)
    columns = min(count, 3 if count in (3, 5, 6) else 4 if count > 2 else 2)
    lines = math.ceil(count / columns)
    width = PAGE if columns > 1 else COLUMN
    figure = Figure(figsize=(width, lines * (width / columns + 0.3) + 0.45), layout='constrained')
    axes = figure.subplots(lines, columns, squeeze=False)
    shown = sorted({label for one in embeddings for label in one.labels.tolist() if label < num_classes})
    styles = {label: (COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]) for i, label in enumerate(shown)}
    for axis, one in zip(axes.flat, embeddings, strict=False):
        axis.set(xticks=[], yticks=[], box_aspect=1)
        axis.spines[:].set_color('#999999')
        axis.plot(*one.points[one.labels >= num_classes].T, '.', color=BACKGROUND, markersize=2.2, zorder=1)
        for label in shown:
            own = one.points[one.labels == label]
            color, marker = styles[label]
            axis.plot(*own.T, marker, color=color, markersize=2.6, markeredgewidth=0, alpha=0.8, zorder=2)
        axis.set_title(f'{for_plot(one.name)} ({for_plot(one.of)})\nsilhouette {_signed(one.silhouette)}', fontsize=7.5)
    for axis in axes.flat[count:]:
        axis.set_visible(False)
    handles = [Line2D([], [], linestyle='', marker=marker, color=color, markeredgewidth=0, markersize=5,
                      label=_short(classes[label], 18)) for label, (color, marker) in styles.items()]
    if any((one.labels >= num_classes).any() for one in embeddings):
        handles.append(Line2D([], [], linestyle='', marker='.', color=BACKGROUND, markersize=5, label='background'))
    a_line = math.ceil(len(handles) / (1 if columns > 2 else 3))
    figure.legend(handles=handles, loc='outside lower center', ncols=a_line, frameon=False, fontsize=7,
                  handletextpad=0.0, columnspacing=0.9)
    some = f', {len(shown)} of {num_classes} classes' if len(shown) < num_classes else ''
    figure.suptitle(f't-SNE{some}', fontsize=8.5)
    return png(figure)


def strip(strips: Mapping[str, Sequence[Example]], classes: Sequence[str], name: str) -> bytes:
    """A PNG: a line of examples for each kind, from easy to hard, with label, prediction and score.

    Args:
        strips: As of :func:`ckd_mmdet.lab.analyze.difficulty.strips`.
        classes: Names by label.
        name: Of the student.
    """
    columns = max(map(len, strips.values()))
    side = PAGE / max(columns, 4)
    figure = Figure(figsize=(max(columns, 4) * side, len(strips) * (side + 0.42) + 0.3), layout='constrained')
    axes = figure.subplots(len(strips), columns, squeeze=False)
    for line, (kind, examples) in zip(axes, strips.items(), strict=True):
        for axis in line[len(examples):]:
            axis.set_visible(False)
        for axis, example in zip(line, examples, strict=False):
            _draw(axis, example, classes)
        if len(strips) > 1:
            line[0].set_ylabel(kind, fontsize=7.5)
    figure.suptitle(f'{for_plot(name)}, easy to hard: label → prediction, its score, γ (cross entropy over its mean)',
                    fontsize=8.5)
    return png(figure)


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=DPI, bbox_inches='tight', pad_inches=0.03)
    return buffer.getvalue()


def _draw(axis: Axes, example: Example, classes: Sequence[str]) -> None:
    axis.imshow(example.pixels, interpolation='nearest')
    axis.set(xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if example.box is not None:
        x1, y1, x2, y2 = (edge - 0.5 for edge in example.box)
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='white', linewidth=1.6))
        axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor='black', linewidth=0.7))
    right = example.prediction == example.label
    difficulty = '< 0.01' if example.difficulty < 0.01 else f'{example.difficulty:.2f}'
    lines = [_short(classes[example.label]), f'→ {_short(classes[example.prediction])}{"" if right else " ✗"}',
             f'{example.score:.2f}, γ {difficulty}']
    axis.set_xlabel('\n'.join(lines), fontsize=6.3, color=RIGHT if right else WRONG, labelpad=2)


def _signed(value: float) -> str:
    return f'{round(value, 2) + 0.0:.2f}'.replace('-', '−')  # no minus before 0


def _short(name: str, most: int = 12) -> str:
    name = plain(name)
    return for_plot(name if len(name) <= most else f'{name[:most - 1]}…')


def _name_classes(axis: Axes, classes: Sequence[str], left: bool) -> None:
    step = math.ceil(len(classes) / TICKS)
    places = range(0, len(classes), step)
    names = [_short(classes[i]) for i in places]
    axis.set_xticks(places, names, rotation=90, fontsize=6)
    axis.set_yticks(places, names if left else [], fontsize=6)
    axis.tick_params(length=0, pad=2)
    axis.spines[:].set_visible(False)
