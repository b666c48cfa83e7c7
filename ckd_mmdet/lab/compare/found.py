"""What a matrix's folder holds: the finished runs, and why the others give no number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from ckd_mmdet.lab.compare.duplicates import read_duplicates
from ckd_mmdet.lab.compare.metric import Metric, describe
from ckd_mmdet.lab.compare.plan import FILE, read_plan
from ckd_mmdet.lab.compare.runs import FAILED, read_result
from ckd_mmdet.lab.compare.statistics import compare_methods, gap_of, scores, summarize, tabulate, why_none
from ckd_mmdet.lab.compare.test_set import PART


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
    results: list[dict[str, Any]]
    """Of the runs that the table counts, as in their ``result.json``; of tests with the last epoch alone."""
    course: pd.DataFrame
    """The validations by epoch, of the same runs; ``values``, where these are not of the test set."""
    course_teacher: float | None
    report_on: str = 'val'
    data: list[str] = field(default_factory=list)
    """What ``--check-data`` said."""

    @property
    def written(self) -> Metric:
        metric = describe(self.metric)
        return replace(metric, name=f'test {metric.name}') if self.report_on == 'test' else metric

    @property
    def part(self) -> str:
        """Folder of what is reported, within that of a run or of the teacher."""
        return PART if self.report_on == 'test' else ''

    @property
    def digits(self) -> int:
        """After the point, the same in a whole table."""
        return self.written.digits(largest_of(self.summary, self.teacher))

    @property
    def intervals(self) -> bool:
        return bool(self.summary['low'].notna().any())

    @property
    def titles(self) -> dict[str, str]:
        """How each method is called, finished or not: as ``--titles`` says, or by its name."""
        return {**titles_of(list(self.matrix['methods'])), **self.matrix.get('titles', {})}

    @property
    def methods(self) -> list[str]:
        """Those with a finished run, in the matrix's order."""
        return list(self.summary.index)


def read_matrix(folder: Path, metric: str | None = None, report_on: str = 'val') -> Found:
    """Read the finished runs; the others are told by name.

    Args:
        metric: Key of the metric; by default the matrix's own.
        report_on: ``'test'`` takes the numbers of the tests.

    Raises:
        ValueError: If the folder holds no matrix.
    """
    path = folder / FILE
    if not path.exists():
        raise ValueError(f'`--report` needs the folder of a matrix, {folder} has no {FILE}.')
    matrix = read_plan(path)
    metric = metric or matrix['metric']
    results, trained, failed, empty, not_started = [], [], [], [], {}
    tested_on = matrix.get('tested_on') or {} if report_on == 'test' else None
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
            trained.append(result)
            log = run / 'output.log'
            if tested_on is not None:
                log, measured = run / PART / 'output.log', _tested(result, run, tested_on.get('student'))
                if measured is None:
                    failed.append(Trouble(name, seed, _why_untested(run), log if log.exists() else None))
                    continue
                result = measured
            reason = _no_last_score(result, metric)
            if reason is not None:
                failed.append(Trouble(name, seed, reason, log))
                continue
            results.append(result)
            if result['epochs'] in result.get('nothing_found', []):
                where = 'in its last epoch' if tested_on is None else 'in the test set'
                empty.append(Trouble(name, seed, f'found nothing {where}', log))
    teacher, no_teacher = course_teacher, _ = _teacher(folder / 'teacher', metric)
    if tested_on is not None:
        teacher, no_teacher = _teacher(folder / 'teacher' / PART, metric, tested_on.get('teacher'))
    values = tabulate(results, metric)
    summary = summarize(values, list(matrix['methods']), teacher)
    digits = describe(metric).digits(largest_of(summary, teacher))
    no_gap = _no_gap(gap_of(values, teacher), teacher, matrix['no_teacher'] or no_teacher, digits)
    return Found(matrix, metric, values, summary, compare_methods(values, summary), teacher, refused, failed,
                 not_started, empty, no_gap, results, values if tested_on is None else tabulate(trained, metric),
                 course_teacher, report_on, read_duplicates(folder))


def _tested(result: dict[str, Any], run: Path, tested_on: str | None) -> dict[str, Any] | None:
    """A run's result with what the test measured in place of all validations; ``None`` without a test of that set."""
    measured = read_result(run / PART / 'result.json')
    if measured is None or measured.get('config') != tested_on:
        return None
    last = result['epochs']
    return dict(result, metrics={key: {str(last): value} for key, value in measured['metrics'].items()},
                nothing_found=[last] if measured.get('nothing_found') else [])


def _why_untested(run: Path) -> str:
    path = run / PART / FAILED
    return f'not tested: {path.read_text(errors="replace").strip()}' if path.exists() else (
        'not tested on this test set; give the command that trained it again with `--report-on test`')


def titles_of(methods: Sequence[str]) -> dict[str, str]:
    """How each method is called: a config by its file's name where that is enough."""
    short = {method: Path(method.rpartition('::')[2]).stem if method.endswith('.py') else method for method in methods}
    return {method: title if list(short.values()).count(title) == 1 else method for method, title in short.items()}


def largest_of(summary: pd.DataFrame, teacher: float | None) -> float:
    """The greatest absolute value of a table."""
    return max([*summary['mean'].abs(), abs(teacher or 0.0)])


def _teacher(folder: Path, metric: str, tested_on: str | None = None) -> tuple[float | None, str | None]:
    result = read_result(folder / 'result.json')
    if result is None:
        return None, f'the teacher has no result: {_why(folder)} (log: {folder / "output.log"})'
    if tested_on is not None and result.get('config') != tested_on:
        return None, 'the teacher was tested on another test set'
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
