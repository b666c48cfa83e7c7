"""The matrix as a table, in Markdown, CSV and JSON: from what its folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ckd_mmdet.lab.compare import plots
from ckd_mmdet.lab.compare.cautions import cautions
from ckd_mmdet.lab.compare.found import Found, Trouble, read_matrix
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.metric import describe
from ckd_mmdet.lab.compare.statistics import gap_of
from ckd_mmdet.lab.compare.verdict import verdict
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.jobs.tables import markdown_table
from ckd_mmdet.text import for_csv, for_markdown, for_plot

CAUTION = ('Δ is the mean over the seeds of the paired differences to `none`, with its {level} % confidence interval '
           "(Student's t; for one method at a time, not for the best of many). p is of the paired t-test, adjusted by "
           'Holm for all methods of the table. s/step compares only within this table.')
ON_TEST = "All scores are of the test set; by_epoch.png and the page's curves are of the validation set."
PAIRS = ('Paired differences between methods, the row less the column, ± half of the {level} % confidence interval '
         'over the seeds that both have{seeds}; * where it leaves 0 out (each is for one pair: of many, some do by '
         'chance).')


def write_report(folder: Path, metric: str | None = None, report_on: str = 'val') -> Found:
    """Write ``table.md``, ``table.csv``, ``table.json`` and the plots into the matrix's folder."""
    found = read_matrix(folder, metric, report_on)
    text = markdown(found)
    write_whole(folder / 'table.md', text)
    write_whole(folder / 'table.csv', found.summary.rename(for_csv).to_csv(index_label='method'))
    write_whole(folder / 'table.json', json.dumps(as_json(found), indent=2) + '\n')
    if not found.values.empty:
        titles = {method: for_plot(found.titles[method]) for method in found.methods}
        validated = {method: title for method, title in titles.items() if method in set(found.course['method'])}
        if validated:
            write_whole(folder / 'by_epoch.png', plots.by_epoch(found.course, validated, found.course_teacher,
                                                               for_plot(describe(found.metric).title)))
        if len(found.methods) > 1:
            gap = gap_of(found.values, found.teacher) if found.no_gap is None else None
            picture = plots.gap_closed(found.values, found.summary, titles, gap, for_plot(found.written.difference))
            write_whole(folder / 'gap_closed.png', picture)
    return found


def as_shown(folder: Path) -> str:
    """The written report for a terminal: the table, and which files there are."""
    pictures = ', '.join(path.name for path in sorted(folder.glob('*.png'))) or 'no plots'
    return (f'\n{(folder / "table.md").read_text()}\n{folder}: table.md, table.csv, table.json, {pictures}, and '
            'report.html with all of it')


def markdown(found: Found) -> str:
    """The table, what it stands on, and below it what gave no number."""
    digits = found.digits
    parts = [table(found, digits), for_markdown(verdict(found))] if found.methods else ['No run is finished.']
    if found.report_on == 'test':
        parts.append(ON_TEST)
    if found.no_gap is None:
        parts.append(f'The gap of teacher ({found.teacher:.{digits}f}) and student alone is '
                     f'{gap_of(found.values, found.teacher):.{digits}f}{found.written.points}, taken as known in its '
                     'shares.')
    parts += map(for_markdown, cautions(found))
    if found.intervals:
        parts.append(CAUTION.format(level=95))
    if not found.pairs.empty:
        counts = sorted(set(found.pairs['pairs']))
        parts += [PAIRS.format(level=95, seeds=f' ({counts[0]})' if len(counts) == 1 else ', in brackets'),
                  pairs_table(found, digits)]
    for title, troubles in (('Counted as 0', found.empty), ('Refused before training', found.refused),
                            ('Failed or not finished', found.failed)):
        if troubles:
            parts.append(f'{title}:\n\n' + '\n'.join(f'- {for_markdown(trouble)}' for trouble in troubles))
    if found.not_started:
        parts.append(f'Not started: {not_started(found)}.')
    return '\n\n'.join(parts) + '\n'


def table(found: Found, digits: int) -> str:
    """Each method's mean, its difference to the student alone, and its share of the gap."""
    head = ['method', for_markdown(f'{found.written.title} mean ± sd'),
            f'Δ{found.written.points} vs none' + (' [95 % CI]' if found.intervals else ''), 'p (Holm)', 'gap closed',
            's/step', 'seeds']
    titles = marked_titles_of(found)
    rows = [[titles[method], mean_text(row, digits), difference_text(row, method, digits), p_text(row['p_holm']),
             share_text(row), seconds_text(row['seconds']), seeds_text(row)]
            for method, row in found.summary.iterrows()]
    if found.teacher is not None:
        rows.append(['teacher', f'{found.teacher:.{digits}f}', *[''] * (len(head) - 2)])
    table = [head, *rows]
    return markdown_table(table if found.intervals else [[*row[:3], *row[4:]] for row in table])


def pairs_table(found: Found, digits: int) -> str:
    """Every two methods once, the best first; the columns are the rows' numbers, names would make them too wide."""
    methods = list(dict.fromkeys([*found.pairs['method'], *found.pairs['other']]))
    methods.sort(key=lambda method: -found.summary.loc[method, 'mean'])
    alike = found.pairs['pairs'].nunique() == 1
    cells = {(row['method'], row['other']): _pair(row, digits, alike) for _, row in found.pairs.iterrows()}
    titles = marked_titles_of(found)
    rows = [[f'{i}. {titles[method]}', *(cells.get((method, other), '') for other in methods[1:])]
            for i, method in enumerate(methods, 1)]
    return markdown_table([['method', *(f'{i}.' for i in range(2, len(methods) + 1))], *rows])


def not_started(found: Found) -> str:
    """One line of many methods: those that lack the same seeds are named together."""
    titles = marked_titles_of(found)
    lacking: dict[str, list[str]] = {}
    for method, seeds in found.not_started.items():
        lacking.setdefault(', '.join(map(str, seeds)), []).append(titles[method])
    return '; '.join(f'{", ".join(methods)} with seed{"s" * ("," in seeds)} {seeds}'
                     for seeds, methods in lacking.items())


def marked_titles_of(found: Found) -> dict[str, str]:
    """How each method is called, for Markdown."""
    return {method: for_markdown(title) for method, title in found.titles.items()}


def as_json(found: Found) -> dict[str, Any]:
    """All numbers, unrounded; ``null`` where there is none."""
    last = found.values[found.values['last']]
    return dict(
        matrix=found.matrix, metric=found.metric, report_on=found.report_on, teacher=found.teacher, no_gap=found.no_gap,
        methods={method: _plain(row.to_dict()) for method, row in found.summary.iterrows()},
        pairs=found.pairs.to_dict('records'),
        runs=[_plain(row) for row in last[['method', 'seed', 'value', 'seconds']].to_dict('records')],
        refused=[_trouble(trouble) for trouble in found.refused],
        failed=[_trouble(trouble) for trouble in found.failed], not_started=found.not_started,
        empty=[_trouble(trouble) for trouble in found.empty])


def mean_text(row: pd.Series, digits: int) -> str:
    return f'{row["mean"]:.{digits}f}' + ('' if math.isnan(row['sd']) else f' ± {row["sd"]:.{digits}f}')


def difference_text(row: pd.Series, method: str, digits: int) -> str:
    if method == ALONE or math.isnan(row['difference']):
        return ''
    interval = '' if math.isnan(row['low']) else f' [{row["low"]:+.{digits}f}, {row["high"]:+.{digits}f}]'
    return f'{row["difference"]:+.{digits}f}{interval}'


def _pair(row: pd.Series, digits: int, alike: bool) -> str:
    count = '' if alike else f' ({row["pairs"]})'
    sign = ' *' if row['low'] > 0 or row['high'] < 0 else '  '
    return f'{row["difference"]:+.{digits}f} ± {row["high"] - row["difference"]:.{digits}f}{count}{sign}'


def p_text(p: float) -> str:
    return '' if math.isnan(p) else '< 0.001' if p < 0.001 else f'{p:.3f}'


def share_text(row: pd.Series) -> str:
    if math.isnan(row['share']):
        return ''
    interval = '' if math.isnan(row['share_low']) else f' [{row["share_low"]:.0%}, {row["share_high"]:.0%}]'
    return f'{row["share"]:.0%}{interval}'.replace('%', ' %')


def seconds_text(seconds: float) -> str:
    return '' if math.isnan(seconds) else f'{seconds:.3g}'


def seeds_text(row: pd.Series) -> str:
    pairs = row['pairs']
    return f'{row["seeds"]:.0f}' + ('' if math.isnan(pairs) or pairs == row['seeds'] else f' ({pairs:.0f} paired)')


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return dict(method=trouble.method, seed=trouble.seed, reason=trouble.reason,
                log=None if trouble.log is None else str(trouble.log))
