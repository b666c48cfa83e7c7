"""What a training leaves to its user: an ordinary student, with the plain config that it loads into."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from ckd_mmdet.config import plain_student
from ckd_mmdet.export import export_student, write_student
from ckd_mmdet.files import write_whole
from ckd_mmdet.text import for_config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner


class StudentExport(Hook):
    """Writes ``student.pth`` and ``student.py`` into the work dir, and ``student_best.pth`` where the best is saved.

    The weights are those of the model of this run when its last step is taken, averaged where EMA averages them: a
    validation that fails after it loses nothing.
    """

    written: tuple[int, int] | None = None
    """Epoch and iteration of what was written."""

    def before_run(self, runner: Runner) -> None:
        if is_main_process() and runner.cfg.filename:
            mend_dumped_config(Path(runner.work_dir, Path(runner.cfg.filename).name))

    def after_train_epoch(self, runner: Runner) -> None:
        if not _by_iterations(runner) and runner.epoch + 1 == runner.max_epochs:
            self._write(runner, runner.epoch + 1, runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if _by_iterations(runner) and runner.iter + 1 == runner.max_iters:
            self._write(runner, 0, runner.iter + 1)

    def after_train(self, runner: Runner) -> None:
        epoch = 0 if _by_iterations(runner) else runner.epoch
        if self.written != (epoch, runner.iter):  # stopped early, or resumed at its end
            self._write(runner, epoch, runner.iter)
        self._export_best(runner)

    def _write(self, runner: Runner, epoch: int, iterations: int) -> None:
        self.written = epoch, iterations
        if not is_main_process():
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        meta = dict(epoch=epoch, iter=iterations, dataset_meta=runner.train_dataloader.dataset.metainfo)
        # as a checkpoint: hooks such as EMAHook put their weights into it
        checkpoint = dict(meta=meta, state_dict=model.state_dict(), message_hub={}, optimizer={}, param_schedulers=[])
        runner.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        out = Path(runner.work_dir) / 'student.pth'
        write_student(checkpoint['state_dict'], checkpoint['meta'], out)
        cfg = copy.deepcopy(runner.cfg)
        plain_student(cfg)
        if cfg.get('resume'):  # a test by this config would ask the student for an optimizer
            cfg.resume, cfg.load_from = False, None
        write_whole(out.with_suffix('.py'), for_config(cfg.pretty_text))
        when = f'after epoch {epoch}' if epoch else f'after {iterations} iterations'
        runner.logger.info(f'The plain student {when} is in {out}, its config in {out.with_suffix(".py")}.')

    def _export_best(self, runner: Runner) -> None:
        if not is_main_process():
            return
        for hook in runner.hooks:
            if not isinstance(hook, CheckpointHook) or not hook.save_best:
                continue
            best = getattr(hook, 'best_ckpt_path_dict', None) or {None: getattr(hook, 'best_ckpt_path', None)}
            for metric, path in best.items():
                if path is not None and Path(path).is_file():
                    name = 'student_best.pth' if metric is None else f'student_best_{metric.replace("/", "_")}.pth'
                    out = export_student(path, Path(runner.work_dir) / name, overwrite=True)
                    runner.logger.info(f'The plain student of {Path(path).name} is in {out}.')


def mend_dumped_config(path: Path) -> None:
    """Let the config that the Runner has written be read as it was: ``{{ ... }}`` in a text of it is no variable."""
    text = path.read_text() if path.is_file() else ''
    if '{{' in text:
        write_whole(path, for_config(text))


def _by_iterations(runner: Runner) -> bool:
    return isinstance(runner.train_loop, IterBasedTrainLoop)
