"""What a matrix says, in one to five sentences."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE

ALPHA = 0.05
"""Of the p-values adjusted by Holm: below it a method differs from the student alone."""


def verdict(found: Found) -> str:
    """Which method is best, which others help, which cannot be distinguished from the student alone.

    A method differs from the student alone where its p-value, adjusted for the number of methods, is below
    :data:`ALPHA`, and from another method where the interval of their paired difference leaves 0 out.
    """
    if not found.methods:
        return 'No run is finished yet.'
    distilled = found.summary.drop(index=ALONE, errors='ignore')
    if ALONE not in found.summary.index:
        return 'No run of the student alone is finished yet, so there is nothing to compare with.'
    if distilled['difference'].isna().all():
        return f'No distilled student has a seed in common with the student alone yet ({_score(found, ALONE)}).'
    if distilled['p_holm'].isna().all():
        return _of_one_seed(found, distilled)
    better = distilled[(distilled['p_holm'] < ALPHA) & (distilled['difference'] > 0)]
    better = better.sort_values('difference', ascending=False, kind='stable')
    worse = distilled[(distilled['p_holm'] < ALPHA) & (distilled['difference'] < 0)]
    unclear = distilled[distilled['p_holm'] >= ALPHA]
    said = [_best(found, better), _as_good(found, better)]
    if len(better) > 1:
        said.append(f'Also better than the student alone: {_names(found, better.index[1:])}.')
    if len(worse):
        said.append(f'Worse than the student alone: {_names(found, worse.index)}.')
    if len(unclear):
        said.append(f'{_names(found, unclear.index)} cannot be distinguished from the student alone.')
    return ' '.join(sentence for sentence in said if sentence)


def _best(found: Found, better: pd.DataFrame) -> str:
    if better.empty:
        return ''
    row, name = better.iloc[0], _names(found, better.index[:1])
    if pd.notna(row['share']):
        share, low, high = (f'{row[key]:.0%}'.replace('%', ' %') for key in ('share', 'share_low', 'share_high'))
        return f'{name} closes {share} [{low}, {high}] of the gap between the student alone and the teacher.'
    difference, low, high = (f'{row[key]:.{found.digits}f}' for key in ('difference', 'low', 'high'))
    return f'{name} is better than the student alone by {difference} [{low}, {high}] {found.written.difference}.'


def _as_good(found: Found, better: pd.DataFrame) -> str:
    """Those that the seeds cannot distinguish from the best one."""
    if better.empty:
        return ''
    pairs = found.pairs[(found.pairs['method'] == better.index[0]) | (found.pairs['other'] == better.index[0])]
    near = pairs[(pairs['low'] <= 0) & (pairs['high'] >= 0)]
    names = [name for name in dict.fromkeys([*near['method'], *near['other']]) if name in better.index[1:]]
    return f'{_names(found, names)} cannot be distinguished from it.' if names else ''


def _of_one_seed(found: Found, distilled: pd.DataFrame) -> str:
    row = distilled.sort_values('difference', ascending=False, kind='stable').iloc[0]
    share = f' ({row["share"]:.0%} of the gap)'.replace('%', ' %') if pd.notna(row['share']) else ''
    way = 'above' if row['difference'] > 0 else 'below'
    return (f'{_names(found, [str(row.name)])} is {abs(row["difference"]):.{found.digits}f} {found.written.difference} '
            f'{way} the student alone{share}, with one seed. One seed is no proof.')


def _names(found: Found, methods: Sequence[str]) -> str:
    *most, last = [found.titles[method] for method in methods]
    return f'{", ".join(most)} and {last}' if most else last


def _score(found: Found, method: str) -> str:
    return f'{found.written.title} {found.summary.loc[method, "mean"]:.{found.digits}f}'
