"""From the runs' results to the table's numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from ckd_mmdet.lab.compare.methods import ALONE
from scipy import stats

LEVEL = 0.95
"""Of all confidence intervals."""
COLUMNS = ['seeds', 'mean', 'sd', 'pairs', 'difference', 'low', 'high', 'p', 'p_holm', 'share', 'share_low',
           'share_high', 'seconds']


MEAN_PRECISION = re.compile(r'coco/(bbox|segm)_mAP(_50|_75)?')
"""What is 0 of a detector that finds nothing; those of small or large objects are not, where there are none."""


def scores(result: Mapping[str, Any], metric: str) -> dict[int, float]:
    """What a run scored by epoch, as in its ``result.json``; without the epochs of which :func:`why_none` has a reason.

    A detector that finds nothing has no metrics, mmdet measures none; its mean average precision is 0.
    """
    found = dict.fromkeys(result.get('nothing_found', []), 0.0) if MEAN_PRECISION.fullmatch(metric) else {}
    found |= {int(epoch): value for epoch, value in result['metrics'].get(metric, {}).items()}
    return {epoch: value for epoch, value in found.items() if why_none(metric, value) is None}


def why_none(metric: str, value: float | None) -> str | None:
    """Why a logged value is no score; ``None`` of one that is."""
    if value is None or not math.isfinite(value):
        return f'`{metric}` is NaN or infinite'
    if value == -1 and metric.startswith('coco/'):
        return f"`{metric}` is -1, by which COCO's evaluation says that there is no such object"
    return None


def tabulate(results: Iterable[Mapping[str, Any]], metric: str) -> pd.DataFrame:
    """One row a run and validated epoch.

    Args:
        results: As in the runs' ``result.json``; an epoch without a score gives no row.
        metric: Key of the metric.

    Returns:
        Columns ``method``, ``seed``, ``epoch``, ``value``, ``last`` (is it the run's last epoch), ``seconds`` (a step).
    """
    rows = [dict(method=result['method'], seed=result['seed'], epoch=epoch, value=value,
                 last=epoch == result['epochs'], seconds=result['seconds_per_step'])
            for result in results for epoch, value in scores(result, metric).items()]
    columns = ['method', 'seed', 'epoch', 'value', 'last', 'seconds']
    return pd.DataFrame(rows, columns=columns).astype(dict(value=float, seconds=float, last=bool))


def summarize(values: pd.DataFrame, methods: Sequence[str], teacher: float | None) -> pd.DataFrame:
    r"""Each method's mean over the seeds, and its paired difference to the student alone.

    Of the seeds that both have, :math:`d_i` is the method's value less the student's alone; the interval is
    :math:`\bar d \pm t_{0.975, n-1} s_d / \sqrt n`, Student's of paired samples. It holds for one method at a time, not
    for the best of many. The share of the gap is :math:`\bar d / (T - \bar a)`, with the teacher's value :math:`T` and
    the mean :math:`\bar a` of the student alone; its interval is that of :math:`\bar d` over the same gap: the gap is
    taken as known, though it too was measured.

    Args:
        values: As of :func:`tabulate`.
        methods: In the order of the rows; one without a finished run gets none.
        teacher: The teacher's value, if known.

    Returns:
        Indexed by method, columns :data:`COLUMNS`: ``sd`` is NaN of one seed, ``pairs`` counts the seeds shared with
        the student alone, ``low``, ``high`` and ``p`` are NaN of one pair, the shares without a positive gap; ``p`` as
        of :func:`p_value`, ``p_holm`` the same adjusted for all methods by :func:`holm`; ``seconds`` is the median over
        the seeds, of a step.
    """
    last = values[values['last']]
    table = last.pivot(index='seed', columns='method', values='value')
    gap = gap_of(values, teacher)
    rows = {}
    for method in methods:
        if method not in table:
            continue
        own = table[method].dropna()
        row = dict(seeds=len(own), mean=own.mean(), sd=own.std(ddof=1),
                   seconds=last.loc[last['method'] == method, 'seconds'].median())
        if method != ALONE and ALONE in table:
            difference, low, high, pairs = paired(own - table[ALONE])
            row |= dict(pairs=pairs, difference=difference, low=low, high=high, p=p_value(own - table[ALONE]))
            if gap is not None and gap > 0:
                row |= dict(share=difference / gap, share_low=low / gap, share_high=high / gap)
        rows[method] = row
    summary = pd.DataFrame(list(rows.values()), index=list(rows), columns=COLUMNS)
    summary['p_holm'] = holm(summary['p'].astype(float))
    return summary


def compare_methods(values: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Of every two distilled methods the paired difference, with its interval as in :func:`summarize`.

    Args:
        values: As of :func:`tabulate`.
        summary: As of :func:`summarize`.

    Returns:
        One row a pair with two or more common seeds, columns ``method``, ``other``, ``pairs`` (common seeds),
        ``difference`` (of the method less the other), ``low``, ``high``; ``method`` has the higher mean of all its
        seeds, and they come in the order of these.
    """
    table = values[values['last']].pivot(index='seed', columns='method', values='value')
    ranked = summary.drop(index=ALONE, errors='ignore').sort_values('mean', ascending=False, kind='stable').index
    rows = []
    for method, other in combinations(ranked, 2):
        difference, low, high, pairs = paired(table[method] - table[other])
        if pairs >= 2:
            rows.append(dict(method=method, other=other, pairs=pairs, difference=difference, low=low, high=high))
    return pd.DataFrame(rows, columns=['method', 'other', 'pairs', 'difference', 'low', 'high'])


def paired(differences: pd.Series) -> tuple[float, float, float, int]:
    """Mean of the differences, both ends of its confidence interval, and how many they are; NaN are left out."""
    known = differences.dropna()
    count = len(known)
    mean = float(known.mean())
    if count < 2:
        return mean, math.nan, math.nan, count
    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * known.std(ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half, count


def p_value(differences: pd.Series) -> float:
    """Two-sided p of Student's paired t-test that the differences' mean is 0; NaN of fewer than two."""
    known = differences.dropna()
    if len(known) < 2:
        return math.nan
    mean, error = float(known.mean()), float(known.std(ddof=1)) / math.sqrt(len(known))
    if error == 0:
        return float(mean == 0)
    return float(2 * stats.t.sf(abs(mean) / error, len(known) - 1))


def holm(p: pd.Series) -> pd.Series:
    r"""p-values adjusted for their number, by Holm's step-down method (1979): NaN stays NaN, and is not counted.

    In ascending order, :math:`\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\, p_{(j)})`.
    """
    ranked = p.dropna().sort_values(kind='stable')
    return (ranked * np.arange(len(ranked), 0, -1)).clip(upper=1).cummax().reindex(p.index)


def gap_of(values: pd.DataFrame, teacher: float | None) -> float | None:
    """The teacher's value less the mean of the student alone; ``None`` where one is not known."""
    alone = values.loc[values['last'] & (values['method'] == ALONE), 'value']
    return None if teacher is None or alone.empty else float(teacher - alone.mean())


def curves(values: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over the seeds by ``method`` and ``epoch``; of one seed the deviation is NaN."""
    return values.groupby(['method', 'epoch'], sort=True)['value'].agg(['mean', 'std', 'count'])
