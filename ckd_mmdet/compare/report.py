"""The matrix as a table, in Markdown, CSV and JSON: from what its folder holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from ckd_mmdet.compare import plots
from ckd_mmdet.compare.files import write_whole
from ckd_mmdet.compare.methods import ALONE
from ckd_mmdet.compare.plan import FILE
from ckd_mmdet.compare.runs import FAILED, read_result
from ckd_mmdet.compare.statistics import gap_of, summarize, tabulate

SHORT = {'coco/bbox_mAP': 'mAP', 'coco/segm_mAP': 'mask mAP', 'accuracy/top1': 'top-1'}
CAUTION = ('Δ is the mean over the seeds of the paired differences to `none`, with its {level} % confidence interval '
           "(Student's t; for one method at a time, not for the best of many). s/step compares only within this table.")


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
    """As of :func:`ckd_mmdet.compare.statistics.tabulate`."""
    summary: pd.DataFrame
    """As of :func:`ckd_mmdet.compare.statistics.summarize`."""
    teacher: float | None
    refused: list[Trouble]
    failed: list[Trouble]
    no_gap: str | None
    """Why there is no share of the gap."""

    @property
    def short(self) -> str:
        return SHORT.get(self.metric, self.metric.rpartition('/')[2])

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
    matrix = json.loads(path.read_text())
    metric = metric or matrix['metric']
    results, failed = [], []
    refused = [Trouble(name, None, method['refused'].splitlines()[0], None)
               for name, method in matrix['methods'].items() if method['refused']]
    for name, method in matrix['methods'].items():
        for run in sorted((folder / 'runs' / method['folder']).glob('*'), key=lambda run: run.name.zfill(20)):
            result = read_result(run / 'result.json')
            last = {} if result is None else _last(result['metrics'], result['epochs'])
            if result is not None and metric in last:
                results.append(result)
            elif run.name.isdecimal():
                reason = _why(run) if result is None else _lacks(metric, last)
                failed.append(Trouble(name, int(run.name), reason, run / 'output.log'))
    teacher, no_teacher = _teacher(folder, metric)
    no_teacher = matrix['no_teacher'] or no_teacher
    values = tabulate(results, metric)
    return Found(matrix, metric, values, summarize(values, list(matrix['methods']), teacher), teacher, refused, failed,
                 _no_gap(gap_of(values, teacher), teacher, no_teacher))


def write_report(folder: Path, metric: str | None = None) -> Found:
    """Write ``table.md``, ``table.csv``, ``table.json`` and the plots into the matrix's folder."""
    found = read_matrix(folder, metric)
    text = markdown(found)
    write_whole(folder / 'table.md', text)
    write_whole(folder / 'table.csv', found.summary.to_csv(index_label='method'))
    write_whole(folder / 'table.json', json.dumps(as_json(found), indent=2) + '\n')
    if not found.values.empty:
        titles = titles_of(found.methods)
        write_whole(folder / 'by_epoch.png', plots.by_epoch(found.values, titles, found.teacher, found.short))
        if len(found.methods) > 1:
            gap = gap_of(found.values, found.teacher) if found.no_gap is None else None
            picture = plots.gap_closed(found.values, found.summary, titles, gap, found.short)
            write_whole(folder / 'gap_closed.png', picture)
    return found


def markdown(found: Found) -> str:
    """The table, what it stands on, and below it what gave no number."""
    parts = [table(found)] if found.methods else ['No run is finished.']
    if found.no_gap is None:
        parts.append(f'The gap of teacher ({_number(found.teacher)}) and student alone is '
                     f'{_number(gap_of(found.values, found.teacher))}, taken as known in its shares. ')
    elif found.methods:
        parts.append(f'No share of the gap is shown: {found.no_gap}.')
    if len(found.methods) > 1:
        parts.append(CAUTION.format(level=95))
    if found.methods and found.summary['seeds'].max() < 2:
        parts.append('One seed is no proof, and gives no interval: take two or more `--seeds`.')
    for title, troubles in (('Refused before training', found.refused), ('Failed or not finished', found.failed)):
        if troubles:
            parts.append(f'{title}:\n\n' + '\n'.join(f'- {trouble}' for trouble in troubles))
    return '\n\n'.join(part.strip() for part in parts) + '\n'


def table(found: Found) -> str:
    """A Markdown table whose columns also align in a terminal."""
    head = ['method', f'{found.short} mean ± sd', 'Δ vs none [95 % CI]', 'gap closed', 's/step', 'seeds']
    titles = titles_of(found.methods)
    rows = [[titles[method], _mean(row), _difference(row, method), _share(row), _seconds(row['seconds']), _seeds(row)]
            for method, row in found.summary.iterrows()]
    if found.teacher is not None:
        rows.append(['teacher', _number(found.teacher), '', '', '', ''])
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    rule = ['-' * widths[0]] + ['-' * (width - 1) + ':' for width in widths[1:]]
    lines = [[row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
             for row in [head, *rows]]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [lines[0], rule, *lines[1:]])


def titles_of(methods: Sequence[str]) -> dict[str, str]:
    """How each method is called: a config by its file's name where that is enough."""
    short = {method: Path(method.rpartition('::')[2]).stem if method.endswith('.py') else method for method in methods}
    return {method: title if list(short.values()).count(title) == 1 else method for method, title in short.items()}


def as_json(found: Found) -> dict[str, Any]:
    """All numbers, unrounded; ``null`` where there is none."""
    last = found.values[found.values['last']]
    return dict(
        matrix=found.matrix, metric=found.metric, teacher=found.teacher, no_gap=found.no_gap,
        methods={method: _plain(row.to_dict()) for method, row in found.summary.iterrows()},
        runs=[_plain(row) for row in last[['method', 'seed', 'value', 'seconds']].to_dict('records')],
        refused=[_trouble(trouble) for trouble in found.refused],
        failed=[_trouble(trouble) for trouble in found.failed])


def _teacher(folder: Path, metric: str) -> tuple[float | None, str | None]:
    result = read_result(folder / 'teacher/result.json')
    if result is None:
        return None, f'the teacher has no result: {_why(folder / "teacher")} (log: {folder / "teacher/output.log"})'
    if metric not in result['metrics']:
        return None, f'of the teacher {_lacks(metric, result["metrics"])}'
    return result['metrics'][metric], None


def _no_gap(gap: float | None, teacher: float | None, no_teacher: str | None) -> str | None:
    if teacher is None:
        return no_teacher
    if gap is None:
        return 'no run of the student alone is finished'
    if gap <= 0:
        return (f'the teacher ({_number(teacher)}) is no better than the student alone ({_number(teacher - gap)}), '
                'there is no gap to close')
    return None


def _last(metrics: Mapping[str, Mapping[str, float]], epochs: int) -> dict[str, float]:
    return {key: values[str(epochs)] for key, values in metrics.items() if str(epochs) in values}


def _lacks(metric: str, known: Mapping[str, float]) -> str:
    return f'no `{metric}` was measured; `--metric` may be one of {", ".join(known) or "none"}'


def _why(folder: Path) -> str:
    path = folder / FAILED
    return path.read_text().strip() if path.exists() else 'not finished'


def _number(value: float) -> str:
    return f'{value:.3f}' if abs(value) <= 1 else f'{value:.2f}'  # mAP is a share, accuracies are in percent


def _signed(value: float) -> str:
    return ('+' if value >= 0 else '') + _number(value)


def _mean(row: pd.Series) -> str:
    return _number(row['mean']) + ('' if math.isnan(row['sd']) else f' ± {_number(row["sd"])}')


def _difference(row: pd.Series, method: str) -> str:
    if method == ALONE or math.isnan(row['difference']):
        return ''
    interval = '' if math.isnan(row['low']) else f' [{_signed(row["low"])}, {_signed(row["high"])}]'
    return _signed(row['difference']) + interval


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
