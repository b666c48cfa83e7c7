"""The demo of classification: a teacher of handwritten digits, then a matrix of methods and seeds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ckd_mmdet.classification import require_mmpretrain
from ckd_mmdet.config import read_config
from ckd_mmdet.lab.compare.main import make_places, run_matrix, train_runs
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import Settings
from ckd_mmdet.lab.compare.report import Found
from ckd_mmdet.lab.compare.runs import FAILED, Run
from ckd_mmdet.lab.compare.schedule import is_validated, keep_records
from ckd_mmdet.lab.jobs.files import digest, write_whole
from ckd_mmdet.lab.jobs.processes import only_one
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

    @property
    def matrix(self) -> Path:
        return self.folder / 'matrix'


DIGITS = Demo(Path('work_dirs/demo_classification'), 'configs/classification/baselines/resnet20_8e_digits.py',
              'configs/classification/baselines/resnet8_30e_digits.py',
              ('none', 'kd', 'ckd', 'pckd'), (0, 1, 2, 3, 4))


def run_demo(demo: Demo, seeds: Sequence[int], interval: float = 1.0) -> Found:
    """Train the teacher, then what is not yet trained of the matrix; progress goes to stderr.

    Args:
        seeds: Of the students; those of before stay in the table. The teacher has one, its config's.
        interval: Seconds between two looks at the runs.

    Raises:
        ImportError: If mmpretrain is missing.
        RuntimeError: If another demo works in the folder, or the teacher's training fails.
        ValueError: If the folder holds a demo of other settings, or the seeds make no sense.
    """
    require_mmpretrain()
    with only_one(demo.folder) as lock:
        settings = Settings(demo.student, demo.teacher, demo.methods, seeds, demo.matrix, str(student_of(demo)))
        teacher = make_teacher(demo)
        train_runs([teacher], make_places(1), lock, interval)
        if not teacher.is_finished() or not student_of(demo).exists():
            ended = teacher.folder / FAILED
            reason = ended.read_text().strip() if ended.exists() else f'{student_of(demo)} is gone'
            raise RuntimeError(f'the teacher cannot teach: {reason} (log: {teacher.log}). Remove {teacher.folder} to '
                               'train it anew.')
        print(f'Now the students: {", ".join(demo.methods)}, each with the seeds {", ".join(map(str, seeds))}.',
              file=sys.stderr, flush=True)
        return run_matrix(settings, interval)


def student_of(demo: Demo) -> Path:
    """The trained teacher's weights."""
    return demo.folder / 'teacher/student.pth'


def make_teacher(demo: Demo) -> Run:
    """The teacher's training, its config written down as the matrix's are.

    Raises:
        ValueError: If the folder holds a teacher of another config.
    """
    cfg = read_config(demo.teacher)
    keep_records(cfg)
    path = demo.folder / 'teacher.py'
    if path.exists() and digest(Config.fromfile(path)) != digest(cfg):
        raise ValueError(f'{demo.folder} holds a demo of other settings: {demo.teacher} has changed since. Remove or '
                         'rename the folder, then start the demo again.')
    write_whole(path, for_config(cfg.pretty_text))
    return Run('teacher', cfg.get('randomness', {}).get('seed') or 0, path, demo.folder / 'teacher',
               cfg.train_cfg.max_epochs, partial(is_validated, cfg), Method('teacher', cfg).digest)
