"""The demo from its first command to its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ckd_mmdet import __version__
from ckd_mmdet.config import read_config
from ckd_mmdet.lab.demo import plan, report
from ckd_mmdet.lab.demo.detect import count_parameters, detect, load_student
from ckd_mmdet.lab.demo.picture import draw, read_truth
from ckd_mmdet.lab.demo.plan import Run, Settings
from ckd_mmdet.lab.jobs.logs import scalar_files
from ckd_mmdet.lab.jobs.processes import Job, cores, only_one, run_together
from ckd_mmdet.lab.jobs.progress import Progress
from tqdm import tqdm

DATA_SECONDS, PICTURE_SECONDS = 10.0, 10.0
PICTURES = 5


def run_demo(settings: Settings) -> Path:
    """Make the data, train what is not yet trained, and write the report; progress goes to stderr.

    Returns:
        The report's path; ``comparison.png`` lies beside it.

    Raises:
        JobFailed: If a command fails; the other that runs beside it is ended.
        RuntimeError: If another demo works in the folder.
        ValueError: If the folder holds a demo of other settings.
    """
    runs = plan.make_runs(settings)
    with only_one(settings.folder) as lock:
        plan.keep_settings(settings, runs)
        stages = make_stages(settings, runs)
        with Progress(sum(stage.seconds for stage in stages) + PICTURE_SECONDS) as bar:
            past = 0.0
            for stage in stages:
                stage.work(bar, past, lock)
                past += stage.seconds
            bar.show(past, 'the picture')
            results = _finish(settings, runs)
            bar.show(past + PICTURE_SECONDS, 'done')
            elapsed = bar.elapsed
    _print(settings, results, elapsed)
    return settings.folder / 'report.md'


@dataclass(frozen=True)
class Stage:
    """Trainings that run at the same time, or with none the data's making."""

    runs: Sequence[Run]
    data: Job | None = None

    @property
    def seconds(self) -> float:
        return max((run.seconds for run in self.runs), default=DATA_SECONDS)

    @property
    def threads(self) -> int:
        return threads(len(self.runs))

    def work(self, bar: Progress, past: float, lock: int) -> None:
        """Do what is not yet done, after ``past`` seconds of the plan."""
        for jobs in self.jobs(bar):
            base = {run.name: run.last_epoch() for run in self.runs}
            logs = {run.name: scalar_files(run.work_dir) for run in self.runs}

            def watch(base: dict = base, logs: dict = logs) -> None:
                steps = {run: report.steps_done(run.work_dir, logs[run.name]) or base[run.name] * run.epoch_steps
                         for run in self.runs}
                left = max((run.seconds_left(steps[run]) for run in self.runs), default=0.0)
                bar.show(past + self.seconds - left, _doing(steps) or 'making DigitScenes')

            run_together(jobs, watch, lock)

    def jobs(self, bar: Progress) -> Iterator[list[Job]]:
        """The jobs to run together; then, seldom, the validations that an interruption cut off."""
        if self.data is not None:
            yield [self.data]
        todo = [run for run in self.runs if not run.is_finished()]
        for run in self.runs:
            if run not in todo:
                bar.say(f'{run.title}: found finished in {run.work_dir}')
            elif run.last_epoch():
                bar.say(f'{run.title}: continues after epoch {run.last_epoch()} of {run.epochs}')
        yield [_job(run, run.command(run.last_epoch()), self.threads) for run in todo]
        untested = [run for run in self.runs if report.find_scores(run) is None]
        yield [_job(run, run.test_command(), self.threads) for run in untested]


def make_stages(settings: Settings, runs: dict[str, Run]) -> list[Stage]:
    """The data; teacher and student alone together, neither needs the other; then CKD, which needs the teacher."""
    data = Job('making DigitScenes', plan.data_command(settings), settings.folder / 'data.log', threads(1))
    return [Stage([], data), Stage([runs['teacher'], runs['alone']]), Stage([runs['ckd']])]


def threads(side_by_side: int) -> int:
    """Threads for each of so many runs at a time. More than eight do not help models of this size."""
    return min(8, max(1, cores() // max(1, side_by_side)))


def _job(run: Run, command: list[str], with_threads: int) -> Job:
    return Job(f'the {run.title}', command, run.work_dir / 'output.log', with_threads)


def _doing(steps: dict[Run, int]) -> str:
    return ', '.join(f'{run.title} {run.progress(done)}' for run, done in steps.items())


def _finish(settings: Settings, runs: dict[str, Run]) -> dict[str, report.Result]:
    """Measure the students, draw the picture, write the report."""
    names, truths, classes = read_truth(settings.data / 'annotations/val.json', PICTURES)
    images = [settings.data / 'val' / name for name in names]
    together = {run.name: stage.threads for stage in make_stages(settings, runs) for run in stage.runs}
    results, columns = {}, {}
    for name, run in runs.items():
        model = load_student(run)
        scores = report.find_scores(run)
        if scores is None:
            raise RuntimeError(f'no validation is logged in {run.work_dir}; remove the folder and start the demo again')
        results[name] = report.Result(run.title, scores, count_parameters(model), run.student.stat().st_size,
                                      report.step_seconds(run), together[name])
        columns[f'{run.title} (mAP {scores[0]:.3f})'] = detect(model, images)
    draw(images, truths, columns, classes, settings.folder / 'comparison.png')
    commands = {'the data': plan.as_typed(plan.data_command(settings), 1)}
    commands |= {run.title: plan.as_typed(run.command(), together[run.name]) for run in runs.values()}
    report.write_report(settings.folder / 'report.md', results, picture='comparison.png', commands=commands,
                        settings=_describe(settings, runs), quick=settings.epochs is not None)
    return results


def _describe(settings: Settings, runs: dict[str, Run]) -> dict[str, str]:
    cfg = read_config(runs['ckd'].config)
    losses = '; '.join(f'{name}: {part.aligner.type}, rows {part.selector.type}, '
                       + ', '.join(f'{loss.type} with weight {loss.loss_weight}' for loss in part.losses.values())
                       for name, part in cfg.model.alignments.items())
    return {
        'images': f'{settings.train} to train, {settings.val} to validate',
        'epochs': f'{runs["ckd"].epochs}, in batches of {cfg.train_dataloader.batch_size}, the same for all three',
        'optimizer': f'{cfg.optim_wrapper.optimizer.type}, learning rate {cfg.optim_wrapper.optimizer.lr}',
        'seed': f'{cfg.randomness.seed}, the same for all three',
        'distillation': losses,
        'versions': f'ckd_mmdet {__version__}, PyTorch {torch.__version__}',
    }


def _print(settings: Settings, results: dict[str, report.Result], elapsed: float) -> None:
    print(f'\n{report.table(list(results.values()))}\n\n{report.verdict(**results)}\n')
    for caution in report.cautions(settings.epochs is not None):
        print(f'- {caution}')
    print(f'\nreport:  {settings.folder / "report.md"}\npicture: {settings.folder / "comparison.png"}')
    print(f'The demo took {tqdm.format_interval(elapsed)} (without what was found finished).')
