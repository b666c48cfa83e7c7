"""Two pictures of a matrix: the metric by epoch, and how much of the gap each method closes."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import pandas as pd
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.statistics import curves
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

# Okabe and Ito's, which colour-blind readers tell apart; their yellow is too pale for lines, so seven and grey.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
ALONE_COLOR, TEACHER_COLOR = '#777777', '#333333'
MARKERS = 'osD^vPX'
"""Beside the colour, for prints in grey; after the last colour both begin anew with other dashes."""


def by_epoch(values: pd.DataFrame, titles: Mapping[str, str], teacher: float | None, metric: str) -> bytes:
    """A PNG: each method's mean over the seeds by epoch, within a band of one standard deviation to each side.

    Args:
        values: As of :func:`ckd_mmdet.lab.compare.statistics.tabulate`.
        titles: How each method is called.
        teacher: The teacher's value, a dotted line.
        metric: What the axis is called.
    """
    figure, axis = _figure(height=4.6)
    lines = curves(values)
    counts = {method: values.loc[values['method'] == method, 'seed'].nunique() for method in titles}
    alike = len(set(counts.values())) == 1
    ends = {method: lines.loc[method]['mean'].iloc[-1] for method in titles}
    styles = _styles(titles)
    for method in sorted(titles, key=ends.__getitem__, reverse=True):  # the legend in the order of the lines' ends
        line = lines.loc[method]
        color, marker, dashes = styles[method]
        axis.plot(line.index, line['mean'], color=color, marker=marker, linestyle=dashes, markersize=4.5, linewidth=1.8,
                  label=titles[method] + ('' if alike else f' ({counts[method]} seed{"s" * (counts[method] > 1)})'))
        axis.fill_between(line.index, line['mean'] - line['std'], line['mean'] + line['std'], color=color, alpha=0.13,
                          linewidth=0)
    if teacher is not None:
        axis.axhline(teacher, color=TEACHER_COLOR, linestyle=':', linewidth=1.5, label='teacher')
    axis.set(xlabel='epoch', ylabel=f'validation {metric}')
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    most = max(counts.values())
    title = f'Mean of {most if alike else "the"} seeds, band ± 1 standard deviation' if most > 1 else 'One seed'
    axis.set_title(title, fontsize=10, loc='left')
    axis.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9.5)
    return _png(figure)


def gap_closed(values: pd.DataFrame, summary: pd.DataFrame, titles: Mapping[str, str], gap: float | None,
               metric: str) -> bytes:
    """A PNG: each method's paired difference to the student alone, with its interval, and as a share of the gap.

    Args:
        values: As of :func:`ckd_mmdet.lab.compare.statistics.tabulate`.
        summary: As of :func:`ckd_mmdet.lab.compare.statistics.summarize`.
        titles: How each method is called.
        gap: The teacher's value less the student's alone; ``None`` leaves the shares out.
        metric: What the axis is called.
    """
    methods = [method for method in titles if method != ALONE]
    figure, axis = _figure(height=1.7 + 0.42 * len(methods))
    table = values[values['last']].pivot(index='seed', columns='method', values='value')
    styles = _styles(titles)
    for place, method in enumerate(methods):
        row, (color, marker, _) = summary.loc[method], styles[method]
        axis.plot([row['low'], row['high']], [place, place], color=color, linewidth=2.2, solid_capstyle='butt')
        if ALONE in table:
            own = (table[method] - table[ALONE]).dropna()
            axis.plot(own, [place + 0.2] * len(own), '|', color=color, alpha=0.65, markersize=7)
        axis.plot(row['difference'], place, marker=marker, color=color, markersize=8)
    axis.axvline(0, color=ALONE_COLOR, linewidth=1.2)
    axis.set_yticks(range(len(methods)), [titles[method] for method in methods])
    axis.set(ylim=(len(methods) - 0.5, -0.5), xlabel=f'Δ {metric} to the student alone')
    axis.grid(axis='y', visible=False)
    intervals = summary['low'].notna().any()
    figure.supxlabel('marker: mean; ' + ('bar: 95 % confidence interval; ' if intervals else '') + 'tick: one seed',
                     fontsize=8.5, color=TEACHER_COLOR)
    if gap:
        shares = axis.secondary_xaxis('top', functions=(lambda x: np.divide(x, gap), lambda x: np.multiply(x, gap)))
        shares.set_xlabel('share of the gap to the teacher')
        shares.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None))
        shares.spines['top'].set_visible(False)
    return _png(figure)


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.0, height), layout='constrained')
    axis = figure.subplots()
    axis.spines[['top', 'right']].set_visible(False)
    axis.grid(color='#e4e4e4', linewidth=0.8)
    axis.set_axisbelow(True)
    return figure, axis


def _styles(titles: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """Colour, marker and dashes of each method; the same in both pictures."""
    styles = {ALONE: (ALONE_COLOR, 'o', '--')}
    for i, method in enumerate(method for method in titles if method != ALONE):
        turn = i // len(COLORS)
        styles[method] = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], ('-', '-.', ':')[turn % 3]
    return styles


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=150)
    return buffer.getvalue()
