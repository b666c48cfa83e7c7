"""Where the parts of a chart lie; ``charts.html`` draws them as inline SVG.

All coordinates are in a chart's own units, :data:`WIDTH` wide, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

WIDTH = 480
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
"""Margins, for the labels of the axes."""
ROW = 34
"""Height of a row of the chart of differences, which has its name above its bar."""


@dataclass(frozen=True)
class Scale:
    """From a value to a coordinate, linear.

    Args:
        low: Value at ``start``.
        high: Value at ``end``, greater than ``low``.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Line:
    """A line of a chart, with the band around it."""

    title: str
    style: int
    """Number of its colour and dashes: 0 for the student alone, 1 to 6 for the others."""
    points: list[tuple[float, float]]
    band: list[tuple[float, float]] = field(default_factory=list)
    """Corners of the area, empty of one seed."""


@dataclass(frozen=True)
class Bar:
    """A row of the chart of differences."""

    title: str
    style: int
    y: float
    mean: float
    interval: tuple[float, float] | None
    seeds: list[float]


@dataclass(frozen=True)
class Chart:
    """What is drawn, with labels on both axes."""

    title: str
    height: float
    x_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    reference: float | None = None
    """Where the teacher lies in a chart of lines, or 0 in one of differences."""
    shares: list[tuple[float, str]] = field(default_factory=list)
    """Ticks at the top: shares of the gap."""
    width: int = WIDTH


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from ``low`` to ``high``, at most ``most`` of them and usually more than half as many."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for factor in (1, 2, 5, 10, 20) if (step := factor * power) >= rough * (1 - 1e-9)
                and math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) < most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def line_chart(title: str, curves: Mapping[str, pd.DataFrame], styles: Mapping[str, int], x_label: str,
               teacher: float | None = None, height: float = 300) -> Chart:
    """Lines by epoch, each within a band of one standard deviation to each side.

    Args:
        title: What the values are.
        curves: By the lines' titles, indexed by epoch, with the columns ``mean`` and ``std``.
        styles: Number of each line's colour, by the same titles.
        x_label: What the epochs are called.
        teacher: The teacher's value.
    """
    every = pd.concat(curves.values())
    spread = every['std'].fillna(0)
    low, high = (every['mean'] - spread).min(), (every['mean'] + spread).max()
    if teacher is not None:
        low, high = min(low, teacher), max(high, teacher)
    room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
    first, last = float(every.index.min()), float(every.index.max())
    x = Scale(first - 0.5 * (first == last), last + 0.5 * (first == last), LEFT, WIDTH - RIGHT)
    y = Scale(float(low - room), float(high + room), height - BOTTOM, TOP)
    return Chart(title, height, x_label,
                 [(x(tick), f'{tick:g}') for tick in ticks(x.low, x.high, 8) if tick == int(tick)],
                 [(y(tick), f'{tick:g}') for tick in ticks(y.low, y.high)],
                 lines=[_line(name, styles[name], curve, x, y) for name, curve in curves.items()],
                 reference=None if teacher is None else y(teacher))


def _line(title: str, style: int, curve: pd.DataFrame, x: Scale, y: Scale) -> Line:
    points = [(x(epoch), y(mean)) for epoch, mean in zip(curve.index, curve['mean'], strict=True)]
    known = curve.dropna(subset=['std'])
    above = [(x(epoch), y(value)) for epoch, value in zip(known.index, known['mean'] + known['std'], strict=True)]
    below = [(x(epoch), y(value)) for epoch, value in zip(known.index, known['mean'] - known['std'], strict=True)]
    return Line(title, style, points, above + below[::-1])


def difference_chart(title: str, summary: pd.DataFrame, seeds: Mapping[str, Sequence[float]], titles: Mapping[str, str],
                     styles: Mapping[str, int], x_label: str, gap: float | None = None) -> Chart:
    """Each method's difference to the student alone, with its interval and its seeds.

    Args:
        title: What the chart shows.
        summary: As of :func:`ckd_mmdet.lab.compare.statistics.summarize`, a row a method that is drawn.
        seeds: The differences of the single seeds, by method.
        titles: How each method is called.
        styles: Number of each method's colour.
        x_label: What the differences are of.
        gap: The teacher's value less that of the student alone, for the shares at the top.
    """
    known = summary[['low', 'high', 'difference']].to_numpy(float).ravel()
    ends = [*known[~np.isnan(known)].tolist(), *(one for own in seeds.values() for one in own), 0.0]
    room = (max(ends) - min(ends)) * 0.04 or 1.0
    x = Scale(min(ends) - room, max(ends) + room, RIGHT, WIDTH - RIGHT)
    top = TOP + (26 if gap else 0)
    bars = [Bar(titles[method], styles[method], top + ROW * (place + 0.7), x(row['difference']),
                None if pd.isna(row['low']) else (x(row['low']), x(row['high'])), [x(one) for one in seeds[method]])
            for place, (method, row) in enumerate(summary.iterrows())]
    return Chart(title, top + ROW * len(bars) + BOTTOM, x_label,
                 [(x(tick), f'{tick:+g}' if tick else '0') for tick in ticks(x.low, x.high)], bars=bars, reference=x(0),
                 shares=[(x(tick * gap), f'{tick:.0%}'.replace('%', ' %')) for tick in ticks(x.low / gap, x.high / gap)]
                 if gap else [])
