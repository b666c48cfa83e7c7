"""The tests of a finished matrix: each student, and the teacher, once on the test set."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckd_mmdet.lab.compare.detections import Detections, find_detections, keep_detections
from ckd_mmdet.lab.compare.plan import FILE, Matrix
from ckd_mmdet.lab.compare.runs import TEST, finish_test, keep_failure, make_runs, read_result, why_it_failed
from ckd_mmdet.lab.compare.test_set import PART
from ckd_mmdet.lab.jobs.files import digest
from ckd_mmdet.lab.jobs.processes import Job, run_in_turn
from ckd_mmdet.lab.jobs.progress import Progress


@dataclass(frozen=True)
class Measurement:
    """A student of one run, or the teacher, on the test set."""

    title: str
    folder: Path
    config: Path
    checkpoint: str
    digest: str
    """Of the config: another test set measures anew."""
    detections: Detections | None

    @property
    def log(self) -> Path:
        return self.folder / 'output.log'

    def is_finished(self) -> bool:
        result = read_result(self.folder / 'result.json')
        return result is not None and result.get('config') == self.digest

    def command(self) -> list[str]:
        """The test's command line."""
        command = [*TEST, str(self.config), self.checkpoint, '--work-dir', str(self.folder)]
        kept = self.detections.options(self.folder) if self.detections else []
        return [*command, '--cfg-options', *kept] if kept else command


def make_measurements(matrix: Matrix) -> list[Measurement]:
    """The teacher, then the finished runs; of one whose ``student.pth`` is gone the failure is written down."""
    found = []
    if matrix.teacher_on_test is not None:
        cfg = matrix.teacher_on_test
        found.append(Measurement('test of the teacher', matrix.settings.out / 'teacher' / PART,
                                 matrix.config_file('the_teacher_on_test'), matrix.checkpoint, digest(cfg),
                                 find_detections(cfg, 'test')))
    cfg = matrix.student_on_test
    for run in make_runs(matrix):
        if cfg is None or not run.is_finished():
            continue
        student = run.folder / 'student.pth'
        one = Measurement(f'test of {run.title}', run.folder / PART, matrix.config_file('the_student_on_test'),
                          str(student), digest(cfg), find_detections(cfg, 'test'))
        if student.exists() or one.is_finished():
            found.append(one)
        else:
            one.folder.mkdir(exist_ok=True)
            keep_failure(one.folder, f'{student} is gone, so there is nothing to test; remove {run.result_file} and '
                                     'give the command again to train it anew')
    return found


def measure(measurements: Sequence[Measurement], places: Sequence[Mapping[str, str]], threads: int, lock: int | None,
            interval: float, after: Callable[[], None]) -> None:
    """Test what is not tested yet; progress goes to stderr, and a failed test leaves its reason for the report.

    Args:
        places: As of :func:`ckd_mmdet.lab.compare.main.make_places`.
        threads: Of one test.
        lock: As of :func:`ckd_mmdet.lab.jobs.processes.run_in_turn`.
        interval: Seconds between two looks at the tests.
        after: Called after each test.
    """
    todo = {one.title: one for one in measurements if not one.is_finished()}
    done: list[str] = []
    with Progress(len(todo) or 1) as bar:
        for one in measurements:
            if one.title not in todo:
                bar.say(f'{one.title}: found finished')

        def started(job: Job) -> None:
            # what an earlier test left could be taken for this one's
            shutil.rmtree(job.log.parent, ignore_errors=True)

        def ended(job: Job, how: str | None) -> None:
            done.append(job.title)
            reason = _finish(todo[job.title], how)
            bar.say(f'{job.title}: ' + ('finished' if reason is None else f'FAILED, {reason} (log: {job.log})'))
            try:
                after()
            except OSError as error:  # a full disk: the tests go on, and the report is written at the end
                bar.say(f'the page was not written: {error}')

        def show() -> None:
            bar.show_left(len(done), None, f'{len(todo) - len(done)} tests')

        jobs = [Job(one.title, one.command(), one.log, threads) for one in todo.values()]
        run_in_turn(jobs, places, started, ended, show, lock, interval)


def check_tested(folder: Path) -> None:
    """See that a matrix's folder holds tests.

    Raises:
        ValueError: If it holds none.
    """
    if (folder / FILE).exists() and not any(folder.glob(f'runs/*/*/{PART}/result.json')):
        raise ValueError(f'`--report-on test` needs tests of the students, {folder} holds none; give the command that '
                         'trained the matrix again with `--report-on test`: it trains nothing anew.')


def _finish(one: Measurement, how: str | None) -> str | None:
    """Keep what was measured; else why there is nothing."""
    reason = None if how is None else why_it_failed(how, one.log)
    if reason is None:
        try:
            finish_test(one.folder, one.digest)
        except (OSError, ValueError) as error:
            reason = str(error)
    if reason is not None:
        keep_failure(one.folder, reason)
        return reason
    try:
        if one.detections is not None:
            keep_detections(one.folder, one.detections)
    except (OSError, ValueError, KeyError) as error:  # it has its result without them
        print(f'{one.folder}: its boxes will not be in report.html: {error!r}')
    return None
