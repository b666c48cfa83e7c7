"""The matrix from the first run to the report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ckd_mmdet.lab.compare.cautions import few_seeds
from ckd_mmdet.lab.compare.detections import Detections, find_detections, keep_detections
from ckd_mmdet.lab.compare.duplicates import check_duplicates, list_images
from ckd_mmdet.lab.compare.found import Found, read_matrix
from ckd_mmdet.lab.compare.methods import ALONE
from ckd_mmdet.lab.compare.plan import Matrix, Settings, keep_matrix, make_matrix
from ckd_mmdet.lab.compare.progress import Pace
from ckd_mmdet.lab.compare.report import write_report
from ckd_mmdet.lab.compare.runs import FAILED, TEST, Run, finish_test, keep_failure, make_runs, why_it_failed
from ckd_mmdet.lab.compare.test_set import PART
from ckd_mmdet.lab.compare.testing import make_measurements, measure
from ckd_mmdet.lab.jobs.processes import Job, cores, only_one, run_in_turn
from ckd_mmdet.lab.jobs.progress import Progress
from ckd_mmdet.lab.page.matrix import write_page
from ckd_mmdet.lab.page.render import NAME
from mmengine.config import Config

TEACHER = 'the teacher'


def run_matrix(settings: Settings, interval: float = 1.0) -> Found:
    """Train what is not yet trained, measure the teacher, write the report; progress goes to stderr.

    A run that fails is reported, and tried again by the next such command; the others go on.

    Args:
        interval: Seconds between two looks at the runs.

    Returns:
        What the folder then holds; ``table.md`` and its neighbours say the same.

    Raises:
        RuntimeError: If another command works in the folder.
        ValueError: If an argument is unfit, or the folder holds another matrix.
    """
    matrix = make_matrix(settings)
    keep_matrix(matrix, write=False)
    images = list_images(_student(matrix)) if settings.check_data else None
    with only_one(settings.out) as lock:
        keep_matrix(matrix)
        if images is not None:
            check_duplicates(images, settings.out)
        train(matrix, make_runs(matrix), lock, interval)
        if settings.report_on == 'test':
            test(matrix, lock, interval)
    return write_all(settings.out, matrix.settings.metric, settings.report_on)


def write_all(folder: Path, metric: str | None = None, report_on: str = 'val') -> Found:
    """Write the tables, the plots and ``report.html`` from a matrix's folder."""
    found = write_report(folder, metric, report_on)
    write_page(folder, found)
    return found


def train(matrix: Matrix, runs: Sequence[Run], lock: int | None, interval: float) -> None:
    """Run what is not finished, and the teacher's test first."""
    settings = matrix.settings
    places = make_places(settings.jobs)
    folder = settings.out / 'teacher'
    first, boxes = [], None
    if matrix.teacher is not None and not (folder / 'result.json').exists():
        command = [*TEST, str(matrix.teacher_file), matrix.checkpoint, '--work-dir', str(folder)]
        boxes = find_detections(matrix.teacher, 'test')
        if boxes is not None and boxes.options(folder):
            command += ['--cfg-options', *boxes.options(folder)]
        first.append(Job(TEACHER, command, folder / 'output.log', make_threads(len(places))))
    said = [f'{settings.out / NAME} shows what is finished, and reads itself anew']
    said += [f'{method.name}: refused, {method.refused.splitlines()[0]}' for method in matrix.methods if method.refused]
    few = few_seeds(len(matrix.seeds))
    if few is not None:
        said.append(few)

    def show_so_far() -> None:
        write_page(settings.out, read_matrix(settings.out, settings.metric), running=True)

    train_runs(runs, places, lock, interval, first, said, settings.keep, show_so_far, boxes)


def test(matrix: Matrix, lock: int | None, interval: float) -> None:
    """Test the teacher and the finished students on the test set, where that is not done yet."""
    settings, places = matrix.settings, make_places(matrix.settings.jobs)

    def show_so_far() -> None:
        write_page(settings.out, read_matrix(settings.out, settings.metric, settings.report_on), running=True)

    measure(make_measurements(matrix), places, make_threads(len(places)), lock, interval, show_so_far)


def train_runs(runs: Sequence[Run], places: Sequence[Mapping[str, str]], lock: int | None, interval: float = 1.0,
               first: Sequence[Job] = (), said: Sequence[str] = (), keep: bool = False,
               after: Callable[[], None] = lambda: None, boxes: Detections | None = None) -> None:
    """Train those that are not finished, under one bar.

    Args:
        places: As of :func:`make_places`.
        lock: As of :func:`ckd_mmdet.lab.jobs.processes.run_in_turn`.
        interval: Seconds between two looks at the runs.
        first: Jobs before the trainings.
        said: Lines before anything is said of the runs.
        keep: Whether a finished run keeps its checkpoints.
        after: Called before the first job and after each one.
        boxes: Where the jobs of ``first`` find boxes.
    """
    todo = [run for run in runs if not run.is_finished()]
    with Progress(sum(run.epochs for run in todo) or 1) as bar:
        by_title = {run.title: run for run in todo}
        work = _Work(bar, Pace(todo, len(places)), keep, _device(places), by_title, after, boxes)
        for line in said:
            bar.say(line)
        for run in runs:
            if run not in todo:
                bar.say(f'{run.title}: found finished')
            elif work.pace.base[run]:
                bar.say(f'{run.title}: continues after epoch {work.pace.base[run]} of {run.epochs}')
        threads = make_threads(len(places))
        after()
        jobs = [*first, *(Job(run.title, run.command(), run.log, threads) for run in todo)]
        run_in_turn(jobs, places, work.started, work.ended, work.show, lock, interval)


@dataclass
class _Work:
    """What is done when a job starts and ends."""

    bar: Progress
    pace: Pace
    keep: bool
    device: str
    runs: Mapping[str, Run]
    """By the titles of their jobs; the teacher's test has none."""
    after: Callable[[], None]
    boxes: Detections | None
    """Where the teacher's test finds boxes."""

    def started(self, job: Job) -> None:
        (job.log.parent / FAILED).unlink(missing_ok=True)
        if job.title in self.runs:
            shutil.rmtree(job.log.parent / PART, ignore_errors=True)  # of the student that is trained anew
            self.pace.start(self.runs[job.title])

    def ended(self, job: Job, how: str | None) -> None:
        run = self.runs.get(job.title)
        seconds = 0.0 if run is None else self.pace.end(run)
        reason = None if how is None else why_it_failed(how, job.log)
        if reason is None:
            try:
                if run is None:
                    finish_test(job.log.parent)
                else:
                    run.finish(seconds, self.device, self.keep)
            except (OSError, ValueError) as error:
                reason = str(error)
        if reason is None:
            self.bar.say(f'{job.title}: finished')
            self._keep_boxes(job.log.parent, self.boxes if run is None else run.detections)
        else:
            keep_failure(job.log.parent, reason)
            self.bar.say(f'{job.title}: FAILED, {reason} (log: {job.log})')
        try:
            self.after()
        except OSError as error:  # a full disk: the runs go on, and the report is written at the end
            self.bar.say(f'the page was not written: {error}')

    def _keep_boxes(self, folder: Path, where: Detections | None) -> None:
        """What the page shows of them; the run has its result without them."""
        try:
            if where is not None:
                keep_detections(folder, where)
        except (OSError, ValueError, KeyError) as error:
            self.bar.say(f'{folder}: its boxes will not be in report.html: {error!r}')

    def show(self) -> None:
        doing = [f'{run.title} {self.pace.reached(run) / run.epochs:.0%}' for run in self.pace.running]
        waiting = f', {len(self.pace.waiting)} wait' if self.pace.waiting else ''
        self.bar.show_left(self.pace.done(), self.pace.left(), '; '.join(doing) + waiting)


def make_places(jobs: int | None) -> list[Mapping[str, str]]:
    """The environment of each of so many runs at a time: with GPUs one of them, in turn.

    Args:
        jobs: By default one a GPU, without GPUs one a core.
    """
    gpus = visible_gpus()
    if not gpus:
        return [{} for _ in range(jobs or cores())]
    return [dict(CUDA_VISIBLE_DEVICES=gpus[place % len(gpus)]) for place in range(jobs or len(gpus))]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',') if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def make_threads(places: int) -> int:
    """Threads of a run: one on CPU, where each run has a core; with GPUs its share of the cores, at most eight."""
    return min(8, max(1, cores() // places)) if visible_gpus() else 1


def _student(matrix: Matrix) -> Config:
    return next(method.config for method in matrix.methods if method.name == ALONE and method.config is not None)


def _device(places: Sequence[Mapping[str, str]]) -> str:
    what = torch.cuda.get_device_name(0) if visible_gpus() else 'CPU, one thread'
    return f'{what}, {len(places)} at a time'


def default_out(student: str, teacher: str) -> Path:
    """Folder of a matrix that was given none."""
    return Path('work_dirs') / f'compare_{Path(student).stem}_{Path(teacher).stem}'
