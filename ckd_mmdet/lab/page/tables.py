"""Tables of a page, which a click sorts by a column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Row:
    """Each cell's text, and the value that sorts it: a number, a text, or ``''`` for a cell that stays below."""

    cells: list[tuple[str, float | str]]
    teacher: bool = False


@dataclass(frozen=True)
class Table:
    head: list[str] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def cell(text: str, value: float | None) -> tuple[str, float | str]:
    """A number's cell; without a number it is empty."""
    return ('', '') if value is None or math.isnan(value) else (text, float(value))


def number(value: float | None, form: str) -> tuple[str, float | str]:
    """A number's cell, its text by a format such as ``'.3f'``."""
    return ('', '') if value is None or math.isnan(value) else (format(value, form), float(value))


def without_empty_columns(table: Table) -> Table:
    """The table without columns in which no row has a text."""
    kept: Sequence[int] = [column for column in range(len(table.head))
                           if any(row.cells[column][0] for row in table.rows)]
    return Table([table.head[column] for column in kept],
                 [Row([row.cells[column] for column in kept], row.teacher) for row in table.rows])
