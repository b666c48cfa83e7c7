"""A pair of the corpus, as its user goes on: attach, two steps, validate, and test the student alone."""

from __future__ import annotations

import contextlib
import json
import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import torch
from ckd_mmdet.config import read_config, stated_class_names
from ckd_mmdet.teacher import build_model

from .data import make_data
from .pairs import CONFIGS, Wild

ROOT = Path(__file__).parents[2]
_runs = iter(range(10**6))


def prepare(folder: Path) -> None:
    """Lay out configs and data in an empty folder, as a user's project."""
    shutil.copytree(CONFIGS, folder, dirs_exist_ok=True)
    make_data(folder / 'data')


def run(pair: Wild, method: str, folder: Path) -> dict[str, float]:
    """Train two steps and test the plain student, in a folder that was prepared.

    Returns:
        What the last step logged.

    Raises:
        RuntimeError: If no distillation loss was logged, or one that is not finite.
    """
    with _inside(folder):
        work_dir = Path('work_dirs', f'{pair.student}_{method}_{pair.teacher}')
        checkpoint = _teacher(pair.teacher)
        _tool('train', f'{pair.student}.py', '--teacher', f'{pair.teacher}.py', '--teacher-checkpoint', checkpoint,
              '--method', method, '--work-dir', str(work_dir), '--cfg-options', 'model.teacher.check_accuracy=False',
              *pair.options)
        _tool('test', f'{pair.student}.py', str(work_dir / 'student.pth'), '--work-dir', str(work_dir / 'tested'),
              '--cfg-options', *[option.replace('model.student.', 'model.') for option in pair.options])
        return _last_step(work_dir)


def _teacher(name: str) -> str:
    """The checkpoint of a teacher that has learned nothing, with the names that mmdet writes."""
    path = Path(f'{name}.pth')
    if not path.exists():
        cfg = read_config(f'{name}.py')
        names = stated_class_names(cfg)
        torch.manual_seed(0)
        meta = dict(dataset_meta=dict(classes=names)) if names else {}
        torch.save(dict(meta=meta, state_dict=build_model(cfg).state_dict()), path)
    return str(path)


def _last_step(work_dir: Path) -> dict[str, float]:

    log, = work_dir.glob('*/vis_data/scalars.json')
    steps = [step for line in log.read_text().splitlines() if 'loss' in (step := json.loads(line))]
    found = {key: value for key, value in steps[-1].items()
             if '.loss' in key and not re.match(r'd\d', key)}  # d0 is a decoder layer of DETR's
    if not found or not all(torch.tensor(value).isfinite() for value in found.values()):
        raise RuntimeError(f'expected distillation losses that are finite, saw {found}')
    return found


def _tool(name: str, *words: str) -> None:
    argv = [f'tools/{name}.py', *words, f'experiment_name=wild_{next(_runs)}']
    with patch.object(sys, 'argv', argv), patch.dict(os.environ, LOCAL_RANK='0'):
        runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def attempts(pairs: Sequence[Wild]) -> list[tuple[Wild, str]]:
    return [(pair, method) for pair in pairs for method in pair.methods]
