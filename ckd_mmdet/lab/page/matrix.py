"""The page of a matrix."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckd_mmdet.lab.compare.cautions import cautions
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.metric import describe
from ckd_mmdet.lab.compare.report import (
    ON_TEST,
    difference_text,
    mean_text,
    not_started,
    p_text,
    seconds_text,
    seeds_text,
    share_text,
)
from ckd_mmdet.lab.compare.runs import read_result
from ckd_mmdet.lab.compare.statistics import curves, gap_of
from ckd_mmdet.lab.compare.verdict import verdict
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.page.boxes import classes_table, errors_table, photographs, photographs_note, read_kept
from ckd_mmdet.lab.page.charts import Chart, difference_chart, line_chart
from ckd_mmdet.lab.page.differences import common, read_differences
from ckd_mmdet.lab.page.logs import agreement_charts, cost_table, parameters, read_logs, read_runs
from ckd_mmdet.lab.page.names import groups, names_of, styles_of
from ckd_mmdet.lab.page.render import NAME, render
from ckd_mmdet.lab.page.tables import Row, Table, cell, number, without_empty_columns

REFRESH = 20
"""Seconds, while the matrix is trained."""
SIZES = {'_s': 'small', '_m': 'medium', '_l': 'large'}
"""COCO's areas: below 32², up to 96² and above, in pixels of the image's file."""


def write_page(folder: Path, found: Found, *, running: bool = False) -> Path:
    """Write ``report.html`` into the matrix's folder.

    Args:
        running: Whether runs still train: the page then reads itself anew until it is written for the last time.
    """
    path = folder / NAME
    write_whole(path, render('matrix.html', **content(folder, found, running)))
    return path


def content(folder: Path, found: Found, running: bool) -> dict[str, Any]:
    """All that the page says."""
    student, teacher = (Path(found.matrix[key]['config'].rpartition('::')[2]).stem for key in ('student', 'teacher'))
    return dict(
        title=f'{student}, taught by {teacher}' + (', on the test set' if found.report_on == 'test' else ''),
        status=_status(found, running), refresh=REFRESH if running else None,
        verdict=verdict(found), results=results_table(found), notes=_notes(found), differences=_differences(found),
        curves=_curves(found), sizes=sizes_table(folder, found), pairs=pairs_table(found),
        troubles=_troubles(found), origin=_origin(folder, found), command=_command(found),
        **_of_boxes(folder, found), **_of_logs(folder, found, running), **_of_configs(folder, found))


def _of_boxes(folder: Path, found: Found) -> dict[str, Any]:
    titles, (kept, teacher) = names_of(found), read_kept(folder, found)
    shown, seed = photographs(found, kept, teacher)
    return dict(classes=classes_table(kept, teacher, titles), errors=errors_table(kept, teacher, titles),
                photographs=shown, photographs_note=photographs_note(seed), whose='the students still err')


def _of_logs(folder: Path, found: Found, running: bool) -> dict[str, Any]:
    logs = read_logs(folder, found)
    return dict(agreement=agreement_charts(logs, found), cost=cost_table(folder, logs, found),
                cost_note='Medians over the seeds, on this machine, beside whatever else it did.',
                parameters='' if running else parameters(folder, found))


def _of_configs(folder: Path, found: Found) -> dict[str, Any]:
    methods = found.matrix['methods']
    settings = read_differences({name: folder / 'configs' / f'{method["folder"]}.py'
                                 for name, method in methods.items()}, ALONE)
    titles, same = names_of(found), common(settings)
    return dict(settings_common=same, settings_of={
        titles[method]: {key: value for key, value in own.items() if key not in same}
        for method, own in settings.items()})


def results_table(found: Found) -> Table:
    """The numbers of ``table.md``."""
    titles, digits, metric = names_of(found), found.digits, found.written
    head = ['method', f'{metric.title}, mean ± sd', f'Δ{metric.points} to the student alone'
            + (' [95 % CI]' if found.intervals else ''), 'p (Holm)', 'gap closed', 's/step', 'seeds']
    rows = [Row([(titles[method], titles[method]), cell(mean_text(row, digits), row['mean']),
                 cell(difference_text(row, method, digits), row['difference']),
                 cell(p_text(row['p_holm']), row['p_holm']), cell(share_text(row), row['share']),
                 cell(seconds_text(row['seconds']), row['seconds']), cell(seeds_text(row), row['seeds'])])
            for method, row in found.summary.iterrows()]
    if found.teacher is not None:
        rows.append(Row([('teacher', 'teacher'), number(found.teacher, f'.{digits}f'), *[('', '')] * 5], teacher=True))
    return without_empty_columns(Table(head, rows)) if found.methods else Table()


def pairs_table(found: Found) -> Table:
    """Every two methods, the better one first."""
    titles, digits = names_of(found), found.digits
    rows = [Row([(f'{titles[pair["method"]]} − {titles[pair["other"]]}', titles[pair['method']]),
                 cell(f'{pair["difference"]:+.{digits}f} [{pair["low"]:+.{digits}f}, {pair["high"]:+.{digits}f}]',
                      pair['difference']), number(pair['pairs'], '.0f')])
            for _, pair in found.pairs.iterrows()]
    return Table(['methods', f'Δ {found.written.difference} [95 % CI]', 'seeds'], rows)


def sizes_table(folder: Path, found: Found) -> Table:
    """The same metric of small, medium and large objects, where the validation set has such."""
    titles, rows = names_of(found), []
    for method in found.methods:
        rows.append(Row([(titles[method], titles[method]), *(
            number(_mean([_last(run, f'{found.metric}{size}') for run in found.results if run['method'] == method]),
                   '.3f') for size in SIZES)]))
    teacher = read_result(folder / 'teacher' / found.part / 'result.json')
    if teacher is not None and found.teacher is not None:
        rows.append(Row([('teacher', 'teacher'), *(
            number(_mean([teacher['metrics'].get(f'{found.metric}{size}')]), '.3f') for size in SIZES)], teacher=True))
    table = without_empty_columns(Table(['method', *(f'{name} objects' for name in SIZES.values())], rows))
    return table if len(table.head) > 1 else Table()


def _last(run: Mapping[str, Any], metric: str) -> float | None:
    return run['metrics'].get(metric, {}).get(str(run['epochs']))


def _mean(values: list[float | None]) -> float | None:
    """Of the values that are scores: COCO's -1 says that there are no such objects."""
    known = [value for value in values if value is not None and value >= 0]
    return sum(known) / len(known) if known else None


def _differences(found: Found) -> Chart | None:
    summary = found.summary.drop(index=ALONE, errors='ignore').dropna(subset=['difference'])
    summary = summary.sort_values('difference', ascending=False, kind='stable')
    if summary.empty:
        return None
    table = found.values[found.values['last']].pivot(index='seed', columns='method', values='value')
    seeds = {method: (table[method] - table[ALONE]).dropna().tolist() for method in summary.index}
    said = 'dot: mean; ' + ('bar: 95 % confidence interval; ' if found.intervals else '') + 'tick: one seed'
    return difference_chart(f'Difference to the student alone ({said})', summary, seeds, names_of(found),
                            styles_of(found), f'Δ {found.written.difference}',
                            gap_of(found.values, found.teacher) if found.no_gap is None else None)


def _curves(found: Found) -> list[Chart]:
    if found.course['epoch'].nunique() < 2:
        return []  # a point is no curve
    lines, titles, styles = curves(found.course), names_of(found), styles_of(found)
    band = ', mean over the seeds ± sd' if lines['count'].max() > 1 else ''
    charts = []
    for group in groups(found) or [[]]:
        shown = [method for method in (ALONE, *group) if method in lines.index]
        charts.append(line_chart(
            f'Validation {describe(found.metric).title} by epoch{band}',
            {titles[method]: lines.loc[method] for method in shown},
            {titles[method]: styles[method] for method in shown}, 'epoch', found.course_teacher))
    return charts


def _notes(found: Found) -> list[str]:
    notes = [ON_TEST] if found.report_on == 'test' else []
    if found.intervals:
        notes.append("Δ is the mean of the paired differences over the seeds, with Student's interval for one method "
                     'at a time. p is of the paired t-test, adjusted by Holm for all methods of the table; the verdict '
                     'goes by it. s/step compares only within this table.')
    if found.no_gap is None:
        notes.append(f'The gap of teacher and student alone is {gap_of(found.values, found.teacher):.{found.digits}f}'
                     f'{found.written.points}, taken as known in its shares.')
    return notes + cautions(found)


def _status(found: Found, running: bool) -> str:
    done = int(found.values['last'].sum())
    asked = len(found.matrix['seeds']) * sum(not method['refused'] for method in found.matrix['methods'].values())
    return (f'Finished runs: {done}{f" of {asked}" if running else ""}. Written on '
            f'{time.strftime("%Y-%m-%d at %H:%M")}.')


def _troubles(found: Found) -> dict[str, list[str]]:
    said = {'Counted as 0': list(map(str, found.empty)), 'Refused before training': list(map(str, found.refused)),
            'Failed or not finished': list(map(str, found.failed)),
            'Not started': [not_started(found)] if found.not_started else []}
    return {title: lines for title, lines in said.items() if lines}


def _origin(folder: Path, found: Found) -> dict[str, str]:
    runs = [run for own in read_runs(folder, found).values() for run in own]
    versions = {', '.join(f'{name} {version}' for name, version in (run.get('versions') or {}).items()) for run in runs}
    devices = {str(run.get('device', '')) for run in runs}
    plan = found.matrix
    said = {'student': plan['student']['config'], 'teacher': plan['teacher']['config'],
            "teacher's weights": f'{plan["teacher_checkpoint"]["path"]} ({plan["teacher_checkpoint"]["digest"]})',
            'epochs': str(plan['epochs']), 'seeds': ', '.join(map(str, plan['seeds'])), 'metric': found.metric,
            'versions': '; '.join(sorted(versions)), 'device': '; '.join(sorted(devices)), 'folder': str(folder)}
    return {name: value for name, value in said.items() if value}


def _command(found: Found) -> str:
    """The command that trains this matrix."""
    plan = found.matrix
    words = ['python', 'tools/compare.py', plan['student']['config'], '--teacher', plan['teacher']['config'],
             '--teacher-checkpoint', plan['teacher_checkpoint']['path'], '--methods', *plan['methods'], '--seeds',
             *map(str, plan['seeds']), '--epochs', str(plan['epochs'])]
    options = dict(plan['options'])
    if found.report_on == 'test':
        words += ['--report-on', 'test']
        options |= (plan.get('tested_on') or {}).get('options', {})
    if options:
        words += ['--cfg-options', *(f'{key}={value if isinstance(value, str) else json.dumps(value)}'
                                     for key, value in options.items())]
    return shlex.join(words)
