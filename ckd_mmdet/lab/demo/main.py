"""A demo: a teacher, trained or shipped, then a matrix of methods and seeds."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ckd_mmdet.config import read_config
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.compare.main import make_places, run_matrix, train_runs
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import Settings
from ckd_mmdet.lab.compare.runs import FAILED, Run
from ckd_mmdet.lab.compare.schedule import is_validated, keep_records
from ckd_mmdet.lab.jobs.files import digest, write_whole
from ckd_mmdet.lab.jobs.processes import only_one
from ckd_mmdet.options import merge_options
from ckd_mmdet.text import for_config
from mmengine.config import Config


@dataclass(frozen=True)
class Demo:
    """Where it works, and with what."""

    folder: Path
    teacher: str
    student: str
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    checkpoint: str | None = None
    """Of a teacher that is shipped; ``None`` trains one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """``--cfg-options`` of every run."""
    jobs: int | None = None
    """Runs at a time; by default one a core."""

    @property
    def matrix(self) -> Path:
        return self.folder / 'matrix'

    @property
    def weights(self) -> str:
        """The teacher's."""
        return self.checkpoint or str(self.folder / 'teacher/student.pth')


def run_demo(demo: Demo, seeds: Sequence[int], interval: float = 1.0) -> Found:
    """Train what is not yet trained of the teacher and of the matrix; progress goes to stderr.

    Args:
        seeds: Of the students; those of before stay in the table. The teacher has one, its config's.
        interval: Seconds between two looks at the runs.

    Raises:
        RuntimeError: If another demo works in the folder, or the teacher's training fails.
        ValueError: If the folder holds a demo of other settings, or the seeds make no sense.
    """
    with only_one(demo.folder) as lock:
        settings = Settings(demo.student, demo.teacher, demo.methods, seeds, demo.matrix, demo.weights,
                            options=demo.options, jobs=demo.jobs)
        if demo.checkpoint is None:
            _train_teacher(demo, lock, interval)
        print(f'The students: {", ".join(demo.methods)}, each with the seeds {", ".join(map(str, seeds))}.',
              file=sys.stderr, flush=True)
        return run_matrix(settings, interval)


def _train_teacher(demo: Demo, lock: int, interval: float) -> None:
    teacher = make_teacher(demo)
    train_runs([teacher], make_places(1), lock, interval)
    if not teacher.is_finished() or not Path(demo.weights).exists():
        ended = teacher.folder / FAILED
        reason = ended.read_text().strip() if ended.exists() else f'{demo.weights} is gone'
        raise RuntimeError(f'the teacher cannot teach: {reason} (log: {teacher.log}). Remove {teacher.folder} to '
                           'train it anew.')


def make_teacher(demo: Demo) -> Run:
    """The teacher's training, its config written down as the matrix's are.

    Raises:
        ValueError: If the folder holds a teacher of another config.
    """
    cfg = read_config(demo.teacher)
    merge_options(cfg, {key: value for key, value in demo.options.items() if 'loader' in key or 'evaluator' in key})
    keep_records(cfg)
    path = demo.folder / 'teacher.py'
    if path.exists() and digest(Config.fromfile(path)) != digest(cfg):
        raise ValueError(f'{demo.folder} holds a demo of other settings: {demo.teacher} has changed since. Remove or '
                         'rename the folder, then start the demo again.')
    write_whole(path, for_config(cfg.pretty_text))
    return Run('teacher', cfg.get('randomness', {}).get('seed') or 0, path, demo.folder / 'teacher',
               cfg.train_cfg.max_epochs, partial(is_validated, cfg), Method('teacher', cfg).digest)
