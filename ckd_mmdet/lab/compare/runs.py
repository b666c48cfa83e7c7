"""One training of the matrix: its command, how far it is, and the result that makes it finished."""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import mmengine
import torch
from ckd_mmdet import __version__
from ckd_mmdet.lab.compare.detections import Detections, find_detections
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import Matrix
from ckd_mmdet.lab.compare.schedule import is_validated
from ckd_mmdet.lab.jobs.files import write_whole
from ckd_mmdet.lab.jobs.logs import read_records, scalar_files, whole_epochs
from ckd_mmdet.lab.jobs.processes import tail
from mmengine.config import Config

TRAIN = (sys.executable, '-m', 'ckd_mmdet', 'train')
TEST = (sys.executable, '-m', 'ckd_mmdet', 'test')
NO_METRICS = ('step', 'epoch', 'iter', 'time', 'data_time', 'memory')
PLACE = re.compile(rb'Epoch\(train\)\s*\[(\d+)\]\[\s*(\d+)/(\d+)\]')
"""Epoch, step in it and steps of it, in a line of mmengine's log."""
FAILED = 'failed.txt'


@dataclass(frozen=True)
class Run:
    """One method with one seed."""

    method: str
    seed: int
    config: Path
    folder: Path
    epochs: int
    is_validated: Callable[[int], bool]
    """Whether the training validates after an epoch."""
    digest: str | None
    detections: Detections | None = None
    """Where its validation finds boxes."""

    @property
    def title(self) -> str:
        return f'{self.method}, seed {self.seed}'

    @property
    def result_file(self) -> Path:
        return self.folder / 'result.json'

    @property
    def log(self) -> Path:
        return self.folder / 'output.log'

    def is_finished(self) -> bool:
        """Whether its result is there, whole, and of this config."""
        result = read_result(self.result_file, of_run=True)
        return result is not None and result['config'] == self.digest

    def resumable_epoch(self) -> int:
        """The last epoch to go on from, 0 where there is none.

        mmengine saves an epoch before it validates it: where the validation was cut off, the epoch is trained again.
        """
        validated = read_validations(self.folder)
        return max((epoch for epoch in whole_epochs(self.folder)
                    if epoch <= self.epochs and (epoch in validated or not self.is_validated(epoch))), default=0)

    def command(self) -> list[str]:
        """The training's command line, from the start or from where it was interrupted."""
        command = [*TRAIN, str(self.config), '--work-dir', str(self.folder)]
        epoch = self.resumable_epoch()
        # what is there of a run that cannot go on is of no use
        command += ['--resume', str(self.folder / f'epoch_{epoch}.pth')] if epoch else ['--overwrite']
        kept = self.detections.options(self.folder) if self.detections else []
        return [*command, '--cfg-options', *kept, f'randomness.seed={self.seed}']

    def finish(self, seconds: float, device: str, keep: bool) -> dict[str, Any]:
        """Write the result of a training that has ended, and remove the checkpoints, except ``student.pth``.

        Args:
            seconds: That the process took, from where it was resumed.
            keep: Whether the checkpoints stay.

        Raises:
            ValueError: If the last epoch was not validated.
            OSError: If the result cannot be written; the run is not finished then.
        """
        validations = read_validations(self.folder)
        if self.epochs not in validations:
            raise ValueError(f'no validation of its last epoch, {self.epochs}, is logged')
        metrics: dict[str, dict[str, float | None]] = {}
        for epoch, found in sorted(validations.items()):
            for key, value in found.items():
                metrics.setdefault(key, {})[str(epoch)] = value if math.isfinite(value) else None  # JSON knows no NaN
        result = dict(method=self.method, seed=self.seed, epochs=self.epochs, metrics=metrics,
                      nothing_found=[epoch for epoch, found in sorted(validations.items()) if not found],
                      seconds_per_step=step_seconds(self.folder), seconds=round(seconds, 1), device=device,
                      config=self.digest, versions=versions())
        write_whole(self.result_file, json.dumps(result, indent=2) + '\n')
        if not keep:
            for checkpoint in self.folder.glob('*.pth'):
                if checkpoint.name != 'student.pth':
                    checkpoint.unlink()
            (self.folder / 'last_checkpoint').unlink(missing_ok=True)  # it names one of them
        return result


def make_runs(matrix: Matrix) -> list[Run]:
    """Seed by seed, so that what is finished first can be compared; refused methods have none."""
    def run(method: Method, config: Config, seed: int) -> Run:
        return Run(method.name, seed, matrix.method_file(method),
                   matrix.settings.out / 'runs' / method.folder / str(seed), config.train_cfg.max_epochs,
                   partial(is_validated, config), method.digest,
                   find_detections(config))

    return [run(method, method.config, seed)
            for seed in matrix.seeds for method in matrix.methods if method.config is not None]


def read_result(path: Path, *, of_run: bool = False) -> dict[str, Any] | None:
    """A result that is whole; ``None`` where there is none.

    Args:
        path: ``result.json``.
        of_run: Whether it is a training's, with metrics by epoch, or the teacher's.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(result, dict) or not isinstance(result.get('metrics'), dict):
        return None
    if of_run:
        shaped = {'method', 'seed', 'epochs', 'config', 'seconds_per_step'} <= set(result) and all(
            isinstance(values, dict) and all(epoch.isdecimal() and _is_number(value) for epoch, value in values.items())
            for values in result['metrics'].values())
    else:
        shaped = all(_is_number(value) for value in result['metrics'].values())
    return result if shaped else None


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def read_validations(folder: Path) -> dict[int, dict[str, float]]:
    """The metrics of each validation of a run by epoch; of an epoch validated twice those of the second time.

    None where the detector found nothing: mmdet's CocoMetric measures nothing then.
    """
    return {int(record['step']): {key: float(value) for key, value in record.items()
                                  if key not in NO_METRICS and isinstance(value, int | float)}
            for path in scalar_files(folder) for record in read_records(path)
            if 'loss' not in record and 'step' in record}


def step_seconds(folder: Path) -> float | None:
    """The median of the logged times of a step, without the first epoch, which warms up; ``None`` without any.

    A run of one epoch has no other, there its first line is left out. mmengine logs means over some steps. The time is
    the machine's of that hour: compare it within a matrix only.
    """
    records = [record for path in scalar_files(folder) for record in read_records(path)
               if 'loss' in record and 'time' in record]
    times = [record['time'] for record in records if record.get('epoch', 1) > 1]
    times = times or [record['time'] for record in records[1:] or records]
    return statistics.median(times) if times else None


def epochs_done(log: Path, since: int = 0) -> float | None:
    """Epochs behind the last line about a training step, as in 1.5; ``None`` where there is no such line.

    Args:
        since: Bytes at the log's begin that are an earlier start's.
    """
    if not log.exists():
        return None
    with open(log, 'rb') as file:
        file.seek(max(since, log.stat().st_size - (1 << 16)))
        found = PLACE.findall(file.read())
    if not found:
        return None
    epoch, step, steps = map(int, found[-1])
    return epoch - 1 + step / steps


def why_it_failed(how: str, log: Path) -> str:
    """One line: of a program's own error its text, else how it ended."""
    lines = [line.strip() for line in tail(log) if line.strip()]
    if 'signal' in how or 'did not start' in how or not lines:
        return how
    errors = [line for line in lines if re.match(r'[\w.]*(Error|Exception|Interrupt|Exit)\b', line)]
    return errors[-1] if errors else lines[-1]


def keep_failure(folder: Path, reason: str) -> None:
    """Write down why a run or the teacher's test failed, for the report, where the disk takes it."""
    try:
        write_whole(folder / FAILED, reason + '\n')
    except OSError as error:
        print(f'{folder / FAILED}: {error}', file=sys.stderr)


def finish_test(folder: Path, config: str | None = None) -> dict[str, Any]:
    """Keep what ``tools/test.py`` measured in a folder.

    Args:
        config: Digest of what was tested, where that can change.

    Raises:
        ValueError: If it left no metrics.
        OSError: If the result cannot be written.
    """
    written = [record for path in sorted(folder.glob('[0-9]*/*.json')) for record in read_records(path)]
    if not written:
        raise ValueError('its test has left no metrics')
    measured = {key: value for key, value in written[-1].items()
                if key not in NO_METRICS and isinstance(value, int | float)}
    result = dict(metrics={key: value for key, value in measured.items() if math.isfinite(value)}, versions=versions())
    if config is not None:
        result |= dict(config=config, nothing_found=not measured)
    write_whole(folder / 'result.json', json.dumps(result, indent=2) + '\n')
    return result


def versions() -> dict[str, str]:
    return dict(ckd_mmdet=__version__, torch=torch.__version__, mmengine=mmengine.__version__)
