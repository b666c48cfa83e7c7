"""What a reader of a matrix's numbers should know before believing them."""

from __future__ import annotations

from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.statistics import gap_of

ENOUGH_SEEDS = 3
CLEAR_GAP = 3.0
"""Standard deviations of the student alone; a method that closes a part of a smaller gap is lost in its noise."""


def few_seeds(count: int) -> str | None:
    """Why so many seeds are too few; ``None`` where they are enough."""
    if count >= ENOUGH_SEEDS:
        return None
    if count < 2:
        return f'One seed gives no interval: take {ENOUGH_SEEDS} or more `--seeds`.'
    return ('Two seeds are few: the 95 % interval of a difference is 12.7 standard errors wide to each side, with '
            f'three seeds 4.3. Take {ENOUGH_SEEDS} or more `--seeds`.')


def cautions(found: Found) -> list[str]:
    """What the data hide, too few seeds, no gap, or a gap that is small beside what seeds alone change.

    Empty where all is well; ``--check-data`` is told of there too, as it was asked for.
    """
    if not found.methods:
        return []
    said = [*found.data, few_seeds(int(found.summary['seeds'].max()))]
    gap = gap_of(found.values, found.teacher)
    if found.no_gap is not None:
        said.append(f'No share of the gap is shown: {found.no_gap}.')
    elif gap is not None and gap < CLEAR_GAP * found.summary.loc[ALONE, 'sd']:  # NaN with one seed
        said.append(f'The gap is small: {gap / found.summary.loc[ALONE, "sd"]:.1f} standard deviations of the student '
                    f'alone between seeds, where {CLEAR_GAP:.0f} or more show what a method gives. Take a better '
                    'teacher, a smaller student or a shorter schedule.')
    if found.report_on == 'val' and found.matrix.get('tested_on'):
        said.append('These numbers are of the validation set: report what was chosen by them with `--report-on test`, '
                    'which trains nothing anew.')
    return [text for text in said if text is not None]
