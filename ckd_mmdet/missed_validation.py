"""A validation that a killed run did not finish is made up when the run goes on."""

from __future__ import annotations

import bisect
import zipfile
from pathlib import Path

from ckd_mmdet.saving import BACKEND
from mmengine.dist import barrier, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

KEY = 'ckd_mmdet_validated'
"""Whether a checkpoint was saved after the validation of its own weights: best scores and schedulers know of it."""


class MissedValidation(Hook):
    """Validates the resumed weights before the first step, where their checkpoint does not know of it.

    MMEngine saves an epoch before it validates it, and counts it as done when it is resumed: a kill in between would
    lose the validation, and the best checkpoint or a learning rate that goes by it. Where the killed run had finished
    the validation, it is done twice, with the same result.
    """

    validated: int | None = None
    """The iteration whose weights were validated last, or are now."""
    missed = False

    def before_val_epoch(self, runner: Runner) -> None:
        self.validated = runner.iter

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint[KEY] = self.validated == checkpoint['meta'].get('iter')

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.missed = bool(runner._resume) and not checkpoint.get(KEY, False)

    def before_train(self, runner: Runner) -> None:
        if runner._resume:
            forget_broken_best(runner)
        if not self.missed:
            return
        self.missed = False
        if is_due(runner):
            when = f'epoch {runner.epoch}' if _by_epoch(runner) else f'iteration {runner.iter}'
            print_log(f'The checkpoint of {when} was saved before its validation: it is validated now.',
                      logger='current')
            runner.val_loop.run()


def is_due(runner: Runner) -> bool:
    """Whether the training loop validates after the steps that a resumed run has behind it."""
    loop = runner.train_loop
    if runner.val_loop is None or not isinstance(loop, EpochBasedTrainLoop | IterBasedTrainLoop) or not runner.iter:
        return False
    if _by_epoch(runner):
        if runner.iter != runner.epoch * len(runner.train_dataloader):  # in the middle of an epoch
            return False
        done, last = runner.epoch, runner.max_epochs
    else:
        done, last = runner.iter, runner.max_iters
    # as its `_decide_current_val_interval`
    interval = loop.dynamic_intervals[bisect.bisect(loop.dynamic_milestones, done + 1) - 1]
    return done >= loop.val_begin and (done % interval == 0 or done == last)


def forget_broken_best(runner: Runner) -> None:
    """Remove best checkpoints that are cut off, and the scores of best ones that are lost: the next best is saved."""
    hub = runner.message_hub
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook) or not hook.save_best or not _is_ours(hook):
            continue
        folder = Path(hook.out_dir)
        broken = [path for path in folder.glob('best_*.pth') if not zipfile.is_zipfile(path)]
        lost = [name for name, path in hub.runtime_info.items() if name.startswith('best_ckpt') and not any(
            zipfile.is_zipfile(one) for one in (path, folder / Path(path).name))]  # a work dir may be copied
        barrier()  # every process has looked before one removes
        for name in lost:
            hub.pop_info(name)
            hub.pop_info(name.replace('best_ckpt', 'best_score', 1))
        for path in broken:
            print_log(f'{path} is cut off, and is removed.', logger='current')
            if is_main_process():
                path.unlink(missing_ok=True)


def _is_ours(hook: CheckpointHook) -> bool:
    """Whether it saves on this disk, by :mod:`ckd_mmdet.saving`."""
    return (hook.backend_args or {}).get('backend') == BACKEND


def _by_epoch(runner: Runner) -> bool:
    return isinstance(runner.train_loop, EpochBasedTrainLoop)
