"""The matrix as a table, in Markdown, CSV and JSON: from what its folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ckd_mmdet.lab.compare import plots
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.metric import Metric, describe
from ckd_mmdet.lab.compare.plan import FILE, read_plan
from ckd_mmdet.lab.compare.runs import FAILED, read_result
from ckd_mmdet.lab.compare.statistics import compare_methods, gap_of, scores, summarize, tabulate, why_none
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.jobs.tables import markdown_table
from ckd_mmdet.text import for_csv, for_markdown, for_plot

CAUTION = ('Δ is the mean over the seeds of the paired differences to `none`, with its {level} % confidence interval '
           "(Student's t; for one method at a time, not for the best of many). s/step compares only within this table.")
PAIRS = ('Paired differences between methods, the row less the column, ± half of the {level} % confidence interval '
         'over the seeds that both have{seeds}; * where it leaves 0 out (each is for one pair: of many, some do by '
         'chance).')


@dataclass(frozen=True)
class Trouble:
    """A run, or with ``seed=None`` a whole method, that gives no number."""

    method: str
    seed: int | None
    reason: str
    log: Path | None

    def __str__(self) -> str:
        whose = self.method if self.seed is None else f'{self.method}, seed {self.seed}'
        return f'{whose}: {self.reason}' + (f' (log: {self.log})' if self.log else '')


@dataclass(frozen=True)
class Found:
    """What a matrix's folder holds."""

    matrix: dict[str, Any]
    metric: str
    values: pd.DataFrame
    """As of :func:`ckd_mmdet.lab.compare.statistics.tabulate`."""
    summary: pd.DataFrame
    """As of :func:`ckd_mmdet.lab.compare.statistics.summarize`."""
    pairs: pd.DataFrame
    """As of :func:`ckd_mmdet.lab.compare.statistics.compare_methods`."""
    teacher: float | None
    refused: list[Trouble]
    failed: list[Trouble]
    not_started: dict[str, list[int]]
    """Seeds of the matrix that a method was not trained with, by method."""
    empty: list[Trouble]
    """Runs that found nothing, and count as 0."""
    no_gap: str | None
    """Why there is no share of the gap."""

    @property
    def written(self) -> Metric:
        return describe(self.metric)

    @property
    def digits(self) -> int:
        """After the point, the same in a whole table."""
        return self.written.digits(largest_of(self.summary, self.teacher))

    @property
    def intervals(self) -> bool:
        return bool(self.summary['low'].notna().any())

    @property
    def methods(self) -> list[str]:
        """Those with a finished run, in the matrix's order."""
        return list(self.summary.index)


def read_matrix(folder: Path, metric: str | None = None) -> Found:
    """Read the finished runs; the others are told by name.

    Args:
        metric: Key of the metric; by default the matrix's own.

    Raises:
        ValueError: If the folder holds no matrix.
    """
    path = folder / FILE
    if not path.exists():
        raise ValueError(f'`--report` needs the folder of a matrix, {folder} has no {FILE}.')
    matrix = read_plan(path)
    metric = metric or matrix['metric']
    results, failed, empty, not_started = [], [], [], {}
    refused = [Trouble(name, None, method['refused'].splitlines()[0], None)
               for name, method in matrix['methods'].items() if method['refused']]
    for name, method in matrix['methods'].items():
        runs = {int(run.name): run for run in (folder / 'runs' / method['folder']).glob('*') if run.name.isdecimal()}
        lacking = [seed for seed in matrix['seeds'] if seed not in runs]
        if lacking and not method['refused']:
            not_started[name] = lacking
        for seed, run in sorted(runs.items()):
            result = read_result(run / 'result.json', of_run=True)
            if result is None:
                failed.append(Trouble(name, seed, _why(run), run / 'output.log'))
                continue
            reason = _no_last_score(result, metric)
            if reason is not None:
                failed.append(Trouble(name, seed, reason, run / 'output.log'))
                continue
            results.append(result)
            if result['epochs'] in result.get('nothing_found', []):
                empty.append(Trouble(name, seed, 'found nothing in its last epoch', run / 'output.log'))
    teacher, no_teacher = _teacher(folder, metric)
    values = tabulate(results, metric)
    summary = summarize(values, list(matrix['methods']), teacher)
    digits = describe(metric).digits(largest_of(summary, teacher))
    no_gap = _no_gap(gap_of(values, teacher), teacher, matrix['no_teacher'] or no_teacher, digits)
    return Found(matrix, metric, values, summary, compare_methods(values, summary), teacher, refused, failed,
                 not_started, empty, no_gap)


def write_report(folder: Path, metric: str | None = None) -> Found:
    """Write ``table.md``, ``table.csv``, ``table.json`` and the plots into the matrix's folder."""
    found = read_matrix(folder, metric)
    text = markdown(found)
    write_whole(folder / 'table.md', text)
    write_whole(folder / 'table.csv', found.summary.rename(for_csv).to_csv(index_label='method'))
    write_whole(folder / 'table.json', json.dumps(as_json(found), indent=2) + '\n')
    if not found.values.empty:
        titles = {method: for_plot(title) for method, title in titles_of(found.methods).items()}
        write_whole(folder / 'by_epoch.png', plots.by_epoch(found.values, titles, found.teacher,
                                                           for_plot(found.written.title)))
        if len(found.methods) > 1:
            gap = gap_of(found.values, found.teacher) if found.no_gap is None else None
            picture = plots.gap_closed(found.values, found.summary, titles, gap, for_plot(found.written.difference))
            write_whole(folder / 'gap_closed.png', picture)
    return found


def as_shown(folder: Path) -> str:
    """The written report for a terminal: the table, and which files there are."""
    pictures = ', '.join(path.name for path in sorted(folder.glob('*.png'))) or 'no plots'
    return f'\n{(folder / "table.md").read_text()}\n{folder}: table.md, table.csv, table.json, {pictures}'


def markdown(found: Found) -> str:
    """The table, what it stands on, and below it what gave no number."""
    digits = found.digits
    parts = [table(found, digits)] if found.methods else ['No run is finished.']
    if found.no_gap is None:
        parts.append(f'The gap of teacher ({found.teacher:.{digits}f}) and student alone is '
                     f'{gap_of(found.values, found.teacher):.{digits}f}{found.written.points}, taken as known in its '
                     'shares.')
    elif found.methods:
        parts.append(f'No share of the gap is shown: {found.no_gap}.')
    if found.intervals:
        parts.append(CAUTION.format(level=95))
    if not found.pairs.empty:
        counts = sorted(set(found.pairs['pairs']))
        parts += [PAIRS.format(level=95, seeds=f' ({counts[0]})' if len(counts) == 1 else ', in brackets'),
                  pairs_table(found, digits)]
    if found.methods and found.summary['seeds'].max() < 2:
        parts.append('One seed is no proof, and gives no interval: take two or more `--seeds`.')
    for title, troubles in (('Counted as 0', found.empty), ('Refused before training', found.refused),
                            ('Failed or not finished', found.failed)):
        if troubles:
            parts.append(f'{title}:\n\n' + '\n'.join(f'- {for_markdown(trouble)}' for trouble in troubles))
    if found.not_started:
        parts.append(f'Not started: {_not_started(found)}.')
    return '\n\n'.join(parts) + '\n'


def table(found: Found, digits: int) -> str:
    """Each method's mean, its difference to the student alone, and its share of the gap."""
    difference = f'Δ{found.written.points} vs none' + (' [95 % CI]' if found.intervals else '')
    head = ['method', for_markdown(f'{found.written.title} mean ± sd'), difference, 'gap closed', 's/step', 'seeds']
    titles = marked_titles_of(found.methods)
    rows = [[titles[method], _mean(row, digits), _difference(row, method, digits), _share(row),
             _seconds(row['seconds']), _seeds(row)] for method, row in found.summary.iterrows()]
    if found.teacher is not None:
        rows.append(['teacher', f'{found.teacher:.{digits}f}', '', '', '', ''])
    return markdown_table([head, *rows])


def pairs_table(found: Found, digits: int) -> str:
    """Every two methods once, the best first; the columns are the rows' numbers, names would make them too wide."""
    methods = list(dict.fromkeys([*found.pairs['method'], *found.pairs['other']]))
    methods.sort(key=lambda method: -found.summary.loc[method, 'mean'])
    alike = found.pairs['pairs'].nunique() == 1
    cells = {(row['method'], row['other']): _pair(row, digits, alike) for _, row in found.pairs.iterrows()}
    titles = marked_titles_of(found.methods)
    rows = [[f'{i}. {titles[method]}', *(cells.get((method, other), '') for other in methods[1:])]
            for i, method in enumerate(methods, 1)]
    return markdown_table([['method', *(f'{i}.' for i in range(2, len(methods) + 1))], *rows])


def _not_started(found: Found) -> str:
    """One line of many methods: those that lack the same seeds are named together."""
    titles = marked_titles_of(list(found.matrix['methods']))
    lacking: dict[str, list[str]] = {}
    for method, seeds in found.not_started.items():
        lacking.setdefault(', '.join(map(str, seeds)), []).append(titles[method])
    return '; '.join(f'{", ".join(methods)} with seed{"s" * ("," in seeds)} {seeds}'
                     for seeds, methods in lacking.items())


def titles_of(methods: Sequence[str]) -> dict[str, str]:
    """How each method is called: a config by its file's name where that is enough."""
    short = {method: Path(method.rpartition('::')[2]).stem if method.endswith('.py') else method for method in methods}
    return {method: title if list(short.values()).count(title) == 1 else method for method, title in short.items()}


def marked_titles_of(methods: Sequence[str]) -> dict[str, str]:
    """The same for Markdown."""
    return {method: for_markdown(title) for method, title in titles_of(methods).items()}


def as_json(found: Found) -> dict[str, Any]:
    """All numbers, unrounded; ``null`` where there is none."""
    last = found.values[found.values['last']]
    return dict(
        matrix=found.matrix, metric=found.metric, teacher=found.teacher, no_gap=found.no_gap,
        methods={method: _plain(row.to_dict()) for method, row in found.summary.iterrows()},
        pairs=found.pairs.to_dict('records'),
        runs=[_plain(row) for row in last[['method', 'seed', 'value', 'seconds']].to_dict('records')],
        refused=[_trouble(trouble) for trouble in found.refused],
        failed=[_trouble(trouble) for trouble in found.failed], not_started=found.not_started,
        empty=[_trouble(trouble) for trouble in found.empty])


def _teacher(folder: Path, metric: str) -> tuple[float | None, str | None]:
    result = read_result(folder / 'teacher/result.json')
    if result is None:
        return None, f'the teacher has no result: {_why(folder / "teacher")} (log: {folder / "teacher/output.log"})'
    if metric not in result['metrics']:
        return None, f'of the teacher {_lacks(metric, result["metrics"])}'
    reason = why_none(metric, result['metrics'][metric])
    return (result['metrics'][metric], None) if reason is None else (None, f"the teacher's {reason}")


def _no_gap(gap: float | None, teacher: float | None, no_teacher: str | None, digits: int) -> str | None:
    if teacher is None:
        return no_teacher
    if gap is None:
        return 'no run of the student alone is finished'
    if gap <= 0:
        return (f'the teacher ({teacher:.{digits}f}) is no better than the student alone '
                f'({teacher - gap:.{digits}f}), there is no gap to close')
    return None


def _no_last_score(result: Mapping[str, Any], metric: str) -> str | None:
    """Why a finished run gives no number; ``None`` if it gives one."""
    if result['epochs'] in scores(result, metric):
        return None
    last = {key: values[str(result['epochs'])] for key, values in result['metrics'].items()
            if str(result['epochs']) in values}
    if metric in last:
        return f'its last {why_none(metric, last[metric])}'
    if result['epochs'] in result.get('nothing_found', []):
        return f'it found nothing in its last epoch, which leaves no `{metric}`'
    return _lacks(metric, last)


def _lacks(metric: str, known: Iterable[str]) -> str:
    return f'no `{metric}` was measured; `--metric` may be one of {", ".join(known) or "none"}'


def _why(folder: Path) -> str:
    path, result = folder / FAILED, folder / 'result.json'
    if result.exists():
        return f'{result} is empty, cut off or not what compare.py writes; it is trained again when asked for'
    return path.read_text(errors='replace').strip() if path.exists() else 'not finished'


def largest_of(summary: pd.DataFrame, teacher: float | None) -> float:
    """The greatest absolute value of a table."""
    return max([*summary['mean'].abs(), abs(teacher or 0.0)])


def _mean(row: pd.Series, digits: int) -> str:
    return f'{row["mean"]:.{digits}f}' + ('' if math.isnan(row['sd']) else f' ± {row["sd"]:.{digits}f}')


def _difference(row: pd.Series, method: str, digits: int) -> str:
    if method == ALONE or math.isnan(row['difference']):
        return ''
    interval = '' if math.isnan(row['low']) else f' [{row["low"]:+.{digits}f}, {row["high"]:+.{digits}f}]'
    return f'{row["difference"]:+.{digits}f}{interval}'


def _pair(row: pd.Series, digits: int, alike: bool) -> str:
    count = '' if alike else f' ({row["pairs"]})'
    sign = ' *' if row['low'] > 0 or row['high'] < 0 else '  '
    return f'{row["difference"]:+.{digits}f} ± {row["high"] - row["difference"]:.{digits}f}{count}{sign}'


def _share(row: pd.Series) -> str:
    if math.isnan(row['share']):
        return ''
    interval = '' if math.isnan(row['share_low']) else f' [{row["share_low"]:.0%}, {row["share_high"]:.0%}]'
    return f'{row["share"]:.0%}{interval}'.replace('%', ' %')


def _seconds(seconds: float) -> str:
    return '' if math.isnan(seconds) else f'{seconds:.3g}'


def _seeds(row: pd.Series) -> str:
    pairs = row['pairs']
    return f'{row["seeds"]:.0f}' + ('' if math.isnan(pairs) or pairs == row['seeds'] else f' ({pairs:.0f} paired)')


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return dict(method=trouble.method, seed=trouble.seed, reason=trouble.reason,
                log=None if trouble.log is None else str(trouble.log))
