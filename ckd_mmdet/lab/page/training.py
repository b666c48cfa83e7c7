"""The page of one training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from ckd_mmdet.config import DISTILLER
from ckd_mmdet.lab.compare.metric import describe, main_metric
from ckd_mmdet.lab.compare.plan import FILE
from ckd_mmdet.lab.compare.runs import read_validations, step_seconds, versions
from ckd_mmdet.lab.compare.statistics import why_none
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.jobs.logs import read_records, scalar_files
from ckd_mmdet.lab.page.boxes import errors_table, gallery_of, photographs_note
from ckd_mmdet.lab.page.charts import Chart, line_chart
from ckd_mmdet.lab.page.differences import flat
from ckd_mmdet.lab.page.logs import AGREEMENT, by_epoch, count_parameters
from ckd_mmdet.lab.page.names import IN_A_CHART
from ckd_mmdet.lab.page.render import NAME, render
from ckd_mmdet.lab.page.tables import Row, Table, number, without_empty_columns
from ckd_mmdet.lab.page.validation import teacher_on, validate
from mmengine.config import Config

POINTS = 40
"""Of a curve by iterations."""
STUDENT = 'student'


def write_training_page(work_dir: Path, validated: bool = True) -> Path:
    """Write ``report.html`` into a training's work dir.

    Args:
        validated: Whether ``student.pth`` is run over the validation images, for classes, photographs and errors.

    Raises:
        ValueError: If the folder holds no training.
        RuntimeError: If the validation fails.
    """
    if (work_dir / FILE).exists():
        raise ValueError(f'{work_dir} holds a matrix; `tools/compare.py --report {work_dir}` writes its page.')
    configs = sorted(work_dir.glob('*/vis_data/config.py'))
    validations, logs = read_validations(work_dir), read_training(work_dir)
    if not configs or logs.empty and not validations:
        raise ValueError(f'`WORK_DIR` needs the folder of a training of tools/train.py, {work_dir} has no log of one '
                         '(*/vis_data/scalars.json).')
    path = work_dir / NAME
    write_whole(path, render('training.html', **content(work_dir, Config.fromfile(configs[-1]), validations, logs,
                                                        validated)))
    return path


def content(work_dir: Path, cfg: Config, validations: Mapping[int, Mapping[str, float]], logs: pd.DataFrame,
            validated: bool) -> dict[str, Any]:
    """All that the page says."""
    by = 'epoch' if 'epoch' in logs or logs.empty else 'iteration'
    kept, notes = validate(work_dir) if validated else None, []
    columns = {STUDENT: kept} if kept else {}
    teacher = cfg.model.get('teacher') if cfg.model.get('type') == DISTILLER else None
    if kept and teacher and 'config' in teacher:
        try:
            columns = {'teacher': teacher_on(kept['photographs'], teacher), **columns}
        except (OSError, ValueError) as error:
            notes.append(f'Without the photographs of the teacher: {error}')
    return dict(
        title='/'.join(work_dir.resolve().parts[-2:]), refresh=None,
        status=f'Written on {time.strftime("%Y-%m-%d at %H:%M")}.',
        verdict=verdict(cfg, validations, by), notes=notes, metrics=metrics_table(validations, by),
        curves=[*metric_charts(validations, by), *loss_charts(logs, by)], agreement=agreement(logs, by),
        classes=classes_table(kept), photographs=gallery_of(columns) if columns else [],
        photographs_note=photographs_note(), whose='the student still errs',
        errors=errors_table({STUDENT: {0: kept}}, None, {STUDENT: STUDENT}) if kept else Table(),
        cost=cost_table(work_dir, logs), cost_note='On this machine, beside whatever else it did.', parameters='',
        distillation={key: value for key, value in flat(cfg.to_dict()['model'], 'model')
                      if key.startswith(('model.teacher', 'model.alignments'))} if teacher else {},
        origin=origin(work_dir, cfg))


def read_training(work_dir: Path) -> pd.DataFrame:
    """The training records of a run; without epochs in parts of the iterations, at most :data:`POINTS` of them."""
    records = [record for path in scalar_files(work_dir) for record in read_records(path) if 'loss' in record]
    logs = pd.DataFrame(records)
    if not logs.empty and 'epoch' not in logs:
        width = math.ceil(logs['step'].max() / POINTS)
        logs['iteration'] = (logs['step'] / width).apply(math.ceil) * width
    return logs


def verdict(cfg: Config, validations: Mapping[int, Mapping[str, float]], by: str) -> str:
    """How good the student became, and when it was best."""
    try:
        key = main_metric(cfg)
    except ValueError:
        key = next((key for found in validations.values() for key in found), '')
    scores = {step: found[key] for step, found in validations.items()
              if key in found and why_none(key, found[key]) is None}
    if not scores:
        return 'No validation is logged.'
    metric, last, best = describe(key), max(scores), max(scores, key=lambda step: scores[step])
    digits = metric.digits(max(map(abs, scores.values())))
    said = f'{metric.title} {scores[last]:.{digits}f} after {by} {last}'
    if best != last:
        said += f', and {scores[best]:.{digits}f} at its best, after {by} {best}'
    return f'{said}. To see what the method gains, compare with the student alone: tools/compare.py.'


def metrics_table(validations: Mapping[int, Mapping[str, float]], by: str) -> Table:
    """Every validation, the last one first."""
    keys = list(dict.fromkeys(key for found in validations.values() for key in found))
    rows = [Row([(str(step), step), *(number(_score(found, key), '.3f') for key in keys)])
            for step, found in sorted(validations.items(), reverse=True)]
    return without_empty_columns(Table([by, *(describe(key).title for key in keys)], rows)) if rows else Table()


def metric_charts(validations: Mapping[int, Mapping[str, float]], by: str) -> list[Chart]:
    """A chart for the metrics of each evaluator."""
    groups: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for found in validations.values() for key in found):
        groups.setdefault(key.partition('/')[0], []).append(key)
    made = []
    for keys in groups.values():
        means = {key: {step: _score(found, key) for step, found in sorted(validations.items())} for key in keys}
        lines = {describe(key).title: pd.DataFrame(dict(mean=mean, std=math.nan)) for key, mean in means.items()}
        made += charts('Validation', lines, by)
    return made


def loss_charts(logs: pd.DataFrame, by: str) -> list[Chart]:
    """The task's losses, and those of distillation."""
    losses = [key for key in logs.columns if 'loss' in key and key != 'loss']
    made = []
    for title, keys in (("The student's own losses", [key for key in losses if '.' not in key]),
                        ('Losses of distillation, with their weights', [key for key in losses if '.' in key])):
        made += charts(title, {key: _curve(logs, key, by) for key in keys}, by)
    return made


def agreement(logs: pd.DataFrame, by: str) -> list[Chart]:
    """How far the student agrees with its teacher."""
    return [chart for name, title in AGREEMENT.items()
            for chart in charts(title, {key: _curve(logs, key, by) for key in logs.columns
                                        if key.partition('.')[2].startswith(name)}, by, height=240)]


def charts(title: str, lines: Mapping[str, pd.DataFrame], by: str, height: float = 300) -> list[Chart]:
    """Lines in as many charts as their legends need; those of one point are left out."""
    shown = {name: line for name, curve in lines.items() if len(line := curve.dropna(subset=['mean'])) > 1}
    names = list(shown)
    return [line_chart(title, {name: shown[name] for name in names[start:start + IN_A_CHART]},
                       {name: place + 1 for place, name in enumerate(names[start:start + IN_A_CHART])}, by,
                       height=height) for start in range(0, len(names), IN_A_CHART)]


def classes_table(kept: Mapping[str, Any] | None) -> Table:
    """Average precision by class."""
    return Table(['class', STUDENT], [Row([(name, name), number(value, '.3f')])
                                      for name, value in kept['classes'].items()]) if kept else Table()


def cost_table(work_dir: Path, logs: pd.DataFrame) -> Table:
    """Seconds and memory of a step, and the size of the student."""
    memory = logs['memory'].max() if 'memory' in logs else None
    weights = work_dir / 'student.pth'
    count = count_parameters(weights) if weights.is_file() else None
    row = Row([(STUDENT, STUDENT), number(step_seconds(work_dir), '.3g'), number(memory, '.0f'),
               number(count and count / 1e6, '.3g')])
    return without_empty_columns(Table(['', 's/step', 'GPU memory, MB', 'parameters, million'], [row]))


def origin(work_dir: Path, cfg: Config) -> dict[str, str]:
    """Where the training came from."""
    said = {'folder': str(work_dir), 'seed': str((cfg.get('randomness') or {}).get('seed') or ''),
            'versions of this page': ', '.join(f'{name} {version}' for name, version in versions().items())}
    return {name: value for name, value in said.items() if value}


def _curve(logs: pd.DataFrame, key: str, by: str) -> pd.DataFrame:
    return by_epoch(logs.assign(epoch=logs[by], seed=0), key)


def _score(found: Mapping[str, float], key: str) -> float:
    value = found.get(key)
    return math.nan if value is None or why_none(key, value) else value


