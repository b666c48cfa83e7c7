"""What a trained student finds in its validation images, for the page of one training."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet.lab.compare.detections import LEAST_SCORE, find_detections, keep_detections, read_detections
from ckd_mmdet.lab.compare.metric import evaluators
from ckd_mmdet.lab.compare.runs import TEST
from ckd_mmdet.lab.demo.detect import detect
from ckd_mmdet.lab.demo.picture import Detections
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.jobs.processes import tail
from ckd_mmdet.teacher import FrozenTeacher
from ckd_mmdet.text import for_config
from mmdet.utils import register_all_modules
from mmengine.config import Config

FOLDER = 'report'
"""In the work dir."""


def validate(work_dir: Path) -> dict[str, Any] | None:
    """Validate ``student.pth`` and keep what it finds; what was kept since it was written is taken as it is.

    Returns:
        As of :func:`ckd_mmdet.lab.compare.detections.summarize`; ``None`` of what is no detector that mmdet's
        ``CocoMetric`` validates, or without a student.

    Raises:
        RuntimeError: If the validation fails.
    """
    folder, weights = work_dir / FOLDER, work_dir / 'student.pth'
    if not weights.is_file() or not (work_dir / 'student.py').is_file():
        return None
    cfg = Config.fromfile(work_dir / 'student.py')
    for evaluator in evaluators(cfg):
        evaluator.pop('outfile_prefix', None)  # of a run of compare.py, where its own validation left them
    if find_detections(cfg) is None:
        return None
    kept = folder / 'detections.json'
    if not kept.exists() or kept.stat().st_mtime < weights.stat().st_mtime:
        cfg.test_dataloader, cfg.test_evaluator = copy.deepcopy(cfg.val_dataloader), copy.deepcopy(cfg.val_evaluator)
        cfg.test_cfg = {}
        folder.mkdir(exist_ok=True)
        write_whole(folder / 'validation.py', for_config(cfg.pretty_text))
        where = find_detections(cfg, 'test')
        assert where is not None
        command = [*TEST, str(folder / 'validation.py'), str(weights), '--work-dir', str(folder), '--cfg-options',
                   *where.options(folder)]
        with open(folder / 'output.log', 'w') as log:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT).returncode
        if code:
            lines = '\n'.join(f'    {line}' for line in tail(folder / 'output.log'))
            raise RuntimeError(f'the validation of {weights} failed (log: {folder / "output.log"}):\n\n{lines}')
        keep_detections(folder, where)
    return read_detections(folder)


def teacher_on(photographs: list[dict[str, Any]], teacher: Mapping[str, Any]) -> dict[str, Any]:
    """What the teacher finds on the same photographs, in the same form.

    Args:
        photographs: As kept of the student.
        teacher: Its config in the student's, with ``config`` and ``checkpoint``.

    Raises:
        ValueError, OSError: If it cannot be read, or has no pipeline of its own to read images by.
    """
    register_all_modules(init_default_scope=True)  # by which inference builds the teacher's pipeline
    with redirect_stdout(None):  # MMEngine says from where it reads
        made = FrozenTeacher(**{key: teacher[key] for key in ('config', 'checkpoint', 'trusted') if key in teacher})
    if 'test_dataloader' not in made.config or not made.classes:
        raise ValueError('its config has no `test_dataloader`, or no names of classes')
    model: Any = made.model
    model.cfg = made.config
    there = [one for one in photographs if Path(one['file']).is_file()]
    found = detect(model, [Path(one['file']) for one in there])
    return dict(photographs=[dict(one, boxes=_named(own, made.classes)) for one, own in zip(there, found, strict=True)])


def _named(found: Detections, classes: Sequence[str]) -> list[list[Any]]:
    kept = found.above(LEAST_SCORE)
    scores = kept.scores if kept.scores is not None else np.ones(len(kept.labels))
    return [[x, y, right - x, bottom - y, classes[label], round(float(score), 3)]
            for (x, y, right, bottom), label, score in zip(kept.boxes.tolist(), kept.labels, scores, strict=True)]
