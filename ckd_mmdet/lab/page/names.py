"""How a page calls the methods of a matrix, and which colour each has; the same in all of its parts."""

from __future__ import annotations

from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE, is_config

IN_A_CHART = 6
"""Methods beside the student alone and the teacher: eight names in a legend."""
STUDENT_ALONE = 'student alone'


def names_of(found: Found) -> dict[str, str]:
    """How the page calls each method."""
    return {**found.titles, ALONE: found.matrix.get('titles', {}).get(ALONE, STUDENT_ALONE)}


def styles_of(found: Found) -> dict[str, int]:
    """The number of each method's colour: 0 for the student alone, else from 1."""
    order = [method for group in groups(found) for method in group]
    return {ALONE: 0, **{method: place % IN_A_CHART + 1 for place, method in enumerate(order)}}


def groups(found: Found) -> list[list[str]]:
    """The distilled methods in parts that fit a legend: first the plain names, then weights and whole configs."""
    distilled = [method for method in found.methods if method != ALONE]
    kinds = [[one for one in distilled if not _is_variant(one)], [one for one in distilled if _is_variant(one)]]
    if len(distilled) <= IN_A_CHART:
        kinds = [distilled]
    return [kind[start:start + IN_A_CHART] for kind in kinds for start in range(0, len(kind), IN_A_CHART)]


def _is_variant(method: str) -> bool:
    return ':' in method or is_config(method)
