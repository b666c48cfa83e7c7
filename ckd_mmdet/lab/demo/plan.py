"""What the demo runs: its settings, its commands, and where an interrupted one goes on."""

from __future__ import annotations

import json
import math
import shlex
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ckd_mmdet.config import read_config
from ckd_mmdet.lab.jobs.files import digest, write_whole
from ckd_mmdet.lab.jobs.logs import whole_epochs
from mmengine.config import Config

CONFIGS = {
    'teacher': 'configs/baselines/faster_rcnn_r18_fpn_9e_digit_scenes.py',
    'alone': 'configs/baselines/faster_rcnn_r18w16_fpn_9e_digit_scenes.py',
    'ckd': 'configs/ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py',
}
TITLES = {'teacher': 'teacher', 'alone': 'student alone', 'ckd': 'student with CKD'}
STEP_SECONDS = {'teacher': 0.39, 'alone': 0.20, 'ckd': 0.28}
"""Of a training step on two slow cores, each run with its threads: what the first estimate of the time stands on."""
START_SECONDS, VALIDATION_SECONDS = 10.0, 0.1
"""To start a run; to validate an image."""


@dataclass(frozen=True)
class Settings:
    """One demo: its folder, its data, and the epochs where they are not the configs' own."""

    folder: Path
    data: Path
    train: int
    val: int
    epochs: int | None = None


FULL = Settings(Path('work_dirs/demo'), Path('data/digit_scenes'), train=1200, val=300)
QUICK = Settings(Path('work_dirs/demo_quick'), Path('data/digit_scenes_quick'), train=160, val=40, epochs=3)


@dataclass(frozen=True)
class Run:
    """One training."""

    name: str
    config: str
    work_dir: Path
    options: tuple[str, ...]
    epochs: int
    epoch_steps: int
    val: int

    @property
    def title(self) -> str:
        return TITLES[self.name]

    @property
    def student(self) -> Path:
        """Weights that the finished run leaves."""
        return self.work_dir / 'student.pth'

    @property
    def seconds(self) -> float:
        """About how long the whole of it takes on two slow cores."""
        return START_SECONDS + self.steps * STEP_SECONDS[self.name] + self.val * VALIDATION_SECONDS

    @property
    def steps(self) -> int:
        return self.epochs * self.epoch_steps

    def seconds_left(self, step: int) -> float:
        """About how much of that is left after ``step``; before the first it still has to start."""
        if self.is_finished():
            return 0.0
        done = START_SECONDS + step * STEP_SECONDS[self.name] if step else 0.0
        return self.seconds - done

    def progress(self, step: int) -> str:
        """How far the run is after ``step``, in words."""
        if self.is_finished():
            return 'done'
        if step == self.steps:
            return 'validates'
        return f'{step / self.steps:.0%}' if step else 'starts'

    def last_epoch(self) -> int:
        """The last epoch with a whole checkpoint, 0 where there is none."""
        return max(whole_epochs(self.work_dir), default=0)

    def checkpoint(self, epoch: int) -> Path:
        return self.work_dir / f'epoch_{epoch}.pth'

    def is_finished(self) -> bool:
        return self.last_epoch() == self.epochs and zipfile.is_zipfile(self.student)

    def command(self, resume: int = 0) -> list[str]:
        """The training's command line, from the start or from epoch ``resume``'s checkpoint."""
        command = [sys.executable, 'tools/train.py', self.config, '--work-dir', str(self.work_dir)]
        # what is there of a run that cannot go on is of no use
        command += ['--resume', str(self.checkpoint(resume))] if resume else ['--overwrite']
        return [*command, '--cfg-options', *self.options]

    def test_command(self) -> list[str]:
        """The evaluation's, for a run that was stopped between its last checkpoint and its validation."""
        return [sys.executable, 'tools/test.py', self.config, str(self.checkpoint(self.epochs)),
                '--work-dir', str(self.work_dir), '--cfg-options', *self.options]


def make_runs(settings: Settings) -> dict[str, Run]:
    """The three runs, by name, in the order of the table."""
    runs: dict[str, Run] = {}
    for name, config in CONFIGS.items():
        cfg = read_config(config)
        epochs = settings.epochs or cfg.train_cfg.max_epochs
        # mmengine removes the old checkpoint before it writes the new one: with one alone, a kill could lose both
        options = ['default_hooks.logger.interval=10', 'default_hooks.checkpoint.max_keep_ckpts=2']
        options += _data_options(settings, cfg) + _epoch_options(settings)
        if name == 'ckd':
            options.append(f'model.teacher.checkpoint={runs["teacher"].student}')
            if settings.epochs:  # a teacher of two or three epochs is hardly above chance
                options.append('model.teacher.check_accuracy=False')
        steps = math.ceil(settings.train / cfg.train_dataloader.batch_size)
        runs[name] = Run(name, config, settings.folder / name, tuple(options), epochs, steps, settings.val)
    return runs


def data_command(settings: Settings) -> list[str]:
    return [sys.executable, 'tools/make_digit_scenes.py', '--out', str(settings.data),
            '--train', str(settings.train), '--val', str(settings.val)]


def as_typed(command: list[str], threads: int) -> str:
    """A command line for the reader to repeat."""
    return shlex.join([f'OMP_NUM_THREADS={threads}', '.venv/bin/python', *command[1:]])


def keep_settings(settings: Settings, runs: dict[str, Run]) -> None:
    """Write down what the folder's runs are made of, or see that they are made of the same.

    Raises:
        ValueError: If the folder holds runs of other settings: going on with them would mix two demos.
    """
    made_of: dict[str, dict[str, Any]] = {
        name: dict(options=list(run.options), config=digest(read_config(run.config))) for name, run in runs.items()}
    made_of['data'] = dict(train=settings.train, val=settings.val)
    path = settings.folder / 'settings.json'
    if not path.exists():
        settings.folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(made_of, indent=2) + '\n')
        return
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f'{path} cannot be read, it is empty or cut off ({error}). Remove or rename the folder, then '
                         'start the demo again.') from error
    other = [name for name in made_of if not isinstance(found, dict) or found.get(name) != made_of[name]]
    if other:
        raise ValueError(f'{settings.folder} holds a demo of other settings ({", ".join(other)} differ): configs '
                         'or options have changed since. Remove or rename the folder, then start the demo again.')


def _data_options(settings: Settings, cfg: Config) -> list[str]:
    root = f'{settings.data}/'
    if cfg.train_dataloader.dataset.data_root == root:
        return []
    loaders = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')]
    return loaders + [f'{split}_evaluator.ann_file={root}annotations/val.json' for split in ('val', 'test')]


def _epoch_options(settings: Settings) -> list[str]:
    if not settings.epochs:
        return []
    epochs = settings.epochs
    return [f'train_cfg.max_epochs={epochs}', f'train_cfg.val_interval={epochs}', 'param_scheduler.0.end=20',
            f'param_scheduler.1.end={epochs}', f'param_scheduler.1.milestones=[{max(1, epochs - 1)}]']
