"""What people get wrong, and what they read then: one row each.

``python -m tests.bad_input`` counts the rows, ``python -m pytest tests/bad_input`` tries them.
"""

from __future__ import annotations

from typing import Any


def rows() -> dict[str, Any]:
    """All rows of the table, by name."""
    from tests.bad_input import models, parts, tools, training

    table: dict[str, Any] = {}
    for part in (models, training, parts, tools):
        twice = set(table) & set(part.ROWS)
        if twice:
            raise ValueError(f'the table of bad input needs different names, got {sorted(twice)} twice.')
        table |= part.ROWS
    return table
