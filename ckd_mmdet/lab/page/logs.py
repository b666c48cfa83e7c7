"""What the page reads from the logs of the runs: how far student and teacher agree, and what training costs."""

from __future__ import annotations

from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ckd_mmdet.checkpoints import read_checkpoint
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.runs import read_result
from ckd_mmdet.lab.jobs.logs import read_records, scalar_files
from ckd_mmdet.lab.page.charts import Chart, line_chart
from ckd_mmdet.lab.page.names import groups, names_of, styles_of
from ckd_mmdet.lab.page.tables import Row, Table, cell, number, without_empty_columns

AGREEMENT = {
    'cosine': "Cosine of the student's rows with the teacher's",
    'retrieval': 'Share of rows whose nearest student row is their own',
    'teacher_accuracy': 'Share of foreground rows in which the teacher is right',
    'box_overlap': "IoU of the student's boxes with the teacher's"}
"""What is logged beside the losses, by the part of the key after the alignment's name."""


def read_runs(folder: Path, found: Found) -> dict[str, list[dict[str, Any]]]:
    """The results of the finished runs that the table counts, by method."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for method in found.methods:
        seeds = found.values.loc[found.values['last'] & (found.values['method'] == method), 'seed']
        paths = [folder / 'runs' / found.matrix['methods'][method]['folder'] / f'{seed}/result.json' for seed in seeds]
        runs[method] = [result for path in paths if (result := read_result(path, of_run=True)) is not None]
    return runs


def read_logs(folder: Path, found: Found) -> pd.DataFrame:
    """The training records of the runs that the table counts: columns ``method``, ``seed`` and those of the log."""
    last = found.values[found.values['last']]
    records = [dict(record, method=method, seed=seed)
               for method, seed in zip(last['method'], last['seed'], strict=True)
               for path in scalar_files(folder / 'runs' / found.matrix['methods'][method]['folder'] / str(seed))
               for record in read_records(path) if 'loss' in record and 'epoch' in record]
    return pd.DataFrame(records, columns=None if records else ['method', 'seed', 'epoch'])


def agreement_charts(logs: pd.DataFrame, found: Found) -> list[Chart]:
    """How far the students agree with their teacher by epoch, a chart for each value of each alignment."""
    titles, styles, charts = names_of(found), styles_of(found), []
    for name, title in AGREEMENT.items():
        keys = [key for key in logs.columns if key.partition('.')[2].startswith(name)]
        for key, group in product(keys, groups(found)):
            lines = {method: by_epoch(logs[logs['method'] == method], key) for method in group}
            shown = [method for method in group if len(lines[method]) > 1]
            if shown:
                charts.append(line_chart(title if len(keys) == 1 else f'{title} ({key})',
                                         {titles[method]: lines[method] for method in shown},
                                         {titles[method]: styles[method] for method in shown}, 'epoch', height=240))
    return charts


def by_epoch(logs: pd.DataFrame, key: str) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of what a key logged, by epoch."""
    by_run = logs.groupby(['epoch', 'seed'])[key].mean().dropna()
    return by_run.groupby('epoch').agg(['mean', 'std'])


def cost_table(folder: Path, logs: pd.DataFrame, found: Found) -> Table:
    """Seconds and memory of a step, and how long a run took."""
    titles, runs, rows = names_of(found), read_runs(folder, found), []
    steps = found.summary['seconds']
    for method in found.methods:
        own = logs[logs['method'] == method]
        memory = own['memory'].max() if 'memory' in own else None
        whole = pd.Series([run.get('seconds') for run in runs[method]], dtype=float).median() / 60
        share = steps[method] / steps[ALONE] if ALONE in steps.index else None
        rows.append(Row([(titles[method], titles[method]), number(steps[method], '.3g'),
                         cell(f'{share:.2f} ×', share) if share is not None else ('', ''), number(memory, '.0f'),
                         number(whole, '.1f')]))
    return without_empty_columns(Table(
        ['method', 's/step', 'of the student alone', 'GPU memory, MB', 'minutes a run'], rows))


def parameters(folder: Path, found: Found) -> str:
    """The sizes of student and teacher in words; ``''`` where neither checkpoint is on this disk."""
    students = [folder / 'runs' / found.matrix['methods'][method]['folder'] / str(seed) / 'student.pth'
                for method, seed in zip(found.values['method'], found.values['seed'], strict=True)]
    paths: dict[str, Any] = {'student': next((path for path in students if path.is_file()), None),
                             'teacher': Path(found.matrix['teacher_checkpoint']['path'])}
    counts = {who: count_parameters(path) for who, path in paths.items() if path is not None and path.is_file()}
    said = ', '.join(f'{who} {count / 1e6:.3g} million' for who, count in counts.items() if count)
    return f'Parameters: {said}.' if said else ''


def count_parameters(checkpoint: Path) -> int | None:
    """Numbers in a checkpoint, without the running means of normalisation; ``None`` if it cannot be read."""
    try:
        with redirect_stdout(None):  # MMEngine says from where it reads
            _, weights = read_checkpoint(checkpoint, 'checkpoint')
    except ValueError:
        return None
    return sum(weight.numel() for name, weight in weights.items()
               if torch.is_floating_point(weight) and not name.endswith(('running_mean', 'running_var')))
