"""The Runner's side of distillation: the data set's classes, the verdict on the teacher, what checkpoints keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ckd_mmdet import __version__
from ckd_mmdet.cached.teacher import CachedTeacher
from ckd_mmdet.checkpoints import report_fit, weights_of
from ckd_mmdet.distillation import LOGGED, Distillation
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.image_check import CheckImages
from ckd_mmdet.inheritance import Inheriting
from ckd_mmdet.labels import has_objects, settle_label_names
from ckd_mmdet.log_groups import LogGroups
from ckd_mmdet.missed_validation import MissedValidation
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.registry import HOOKS
from ckd_mmdet.saving import make_saving_atomic
from ckd_mmdet.seeding import ExactResume
from ckd_mmdet.student_export import StudentExport
from ckd_mmdet.text import plain
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.optim import AmpOptimWrapper
from mmengine.runner import FlexibleRunner, IterBasedTrainLoop, Runner
from torch import Tensor
from torch.utils.data import DataLoader

JUDGED_EVERY = 10
"""Steps between two looks at how often the teacher was right, until it is judged."""
KEY = 'ckd_mmdet'
"""Where a checkpoint keeps what distillation learned, and by which teacher."""


@HOOKS.register_module()
class DistillHook(Hook):
    """What only the Runner knows; with a plain student, all of it but the teaching.

    Its parts, each a hook of its own: :class:`Teaching`, :class:`ckd_mmdet.inheritance.Inheriting`, :class:`Guard`,
    :class:`ckd_mmdet.seeding.ExactResume`, :class:`ckd_mmdet.image_check.CheckImages`,
    :class:`ckd_mmdet.student_export.StudentExport`,
    :class:`ckd_mmdet.missed_validation.MissedValidation`, and :class:`ckd_mmdet.log_groups.LogGroups`. Checkpoints are
    written whole, see :mod:`ckd_mmdet.saving`.

    Args:
        patience: Number of steps in a row whose loss may be NaN or infinite before the run stops.
    """

    # after CheckpointHook, whose checkpoints it completes
    priority = 'LOWEST'

    def __init__(self, patience: int = 5) -> None:
        teaching = Teaching()
        # the last validates, before the first step: once all the others are ready
        self.parts: Sequence[Hook] = (ExactResume(), CheckImages(), LogGroups(), teaching, Inheriting(teaching),
                                      Guard(patience), StudentExport(), MissedValidation())

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner, FlexibleRunner):
            raise ValueError(
                f"distillation trains with MMEngine's `Runner`, and this is a `{type(runner).__name__}`, whose "
                'strategies may split parameters among ranks (FSDP, DeepSpeed, Colossal-AI); what distillation learns '
                "is saved from one rank's own; leave `runner_type` and `strategy` out.")
        make_saving_atomic(runner)
        for part in self.parts:
            part.before_run(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for part in self.parts:
            part.after_load_checkpoint(runner, checkpoint)

    def before_train(self, runner: Runner) -> None:
        for part in self.parts:
            part.before_train(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        for part in self.parts:
            part.before_train_epoch(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        for part in self.parts:
            part.before_train_iter(runner, batch_idx, data_batch)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        for part in self.parts:
            part.after_train_iter(runner, batch_idx, data_batch, outputs)

    def after_train_epoch(self, runner: Runner) -> None:
        for part in self.parts:
            part.after_train_epoch(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        for part in self.parts:
            part.before_val_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        for part in self.parts:
            part.after_val_epoch(runner, metrics)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        for part in self.parts:
            part.before_save_checkpoint(runner, checkpoint)

    def after_train(self, runner: Runner) -> None:
        for part in self.parts:
            part.after_train(runner)


class Teaching(Hook):
    """Pairs student and teacher when the data set is known, has the teacher judged, and keeps what is learned.

    What the losses learned and measured, and the digest of the teachers' weights, stand in a checkpoint under a key of
    their own, ``'ckd_mmdet'``.
    """

    distillation: Distillation | None = None
    """``None`` of a student alone."""

    def before_run(self, runner: Runner) -> None:
        model = _unwrap(runner.model)
        self.distillation = model.distillation if isinstance(model, Distilled) else None
        self.digests = {} if self.distillation is None else {name: teacher.digest() for name, teacher in
                                                             self.distillation.teachers.items()}
        # before the evaluator and checkpoints take the names as they were written
        self.names = settle_label_names(runner, allow_missing=bool(runner.cfg.get('allow_missing_classes')))
        self.logger_hook = next((hook for hook in runner.hooks if isinstance(hook, LoggerHook)), None)

    def before_train(self, runner: Runner) -> None:
        dataset = runner.train_dataloader.dataset
        if self.names.note:
            print_log(self.names.note, logger='current')
        if not has_objects(dataset):
            raise ValueError('the training data set has no object of its classes; look at `metainfo.classes` and '
                             '`ann_file`.')
        if self.distillation is None:
            return
        names = self.names.of_objects
        check_schedules(self.distillation, runner)
        for teacher in self.distillation.teachers.values():
            teacher.match_preprocessing(_unwrap(runner.model).data_preprocessor, runner.cfg)
            if isinstance(teacher, CachedTeacher):
                teacher.match_images(dataset)
            speed = teacher.speed.told(next(teacher.model.parameters()).device)
            if speed:
                print_log(f'The teacher ({teacher.name}) computes {speed}.', logger='current')
        self.distillation.pair(_unwrap(runner.model), names)
        _log_classes(self.distillation, names)
        check_labels(self.distillation, dataset)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        logged = self.logger_hook is not None and _is_logged(self.logger_hook, batch_idx, runner.train_dataloader)
        runner.message_hub.update_info(LOGGED, logged, resumed=False)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if self.distillation is not None and (runner.iter + 1) % JUDGED_EVERY == 0:
            self.distillation.judge()

    def after_train(self, runner: Runner) -> None:
        runner.message_hub.pop_info(LOGGED)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.distillation is not None:
            checkpoint[KEY] = dict(
                version=__version__, teacher=[teacher.name for teacher in self.distillation.teachers.values()],
                teacher_digest=self.digests, learned=self.distillation.state())

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            print_log(report_fit(_unwrap(runner.model), weights_of(checkpoint, str(runner._load_from), 'load_from')),
                      logger='current')
            return
        if self.distillation is None:
            return
        if KEY not in checkpoint:
            older = any(key.startswith('distiller.') for key in checkpoint['state_dict'])
            raise ValueError(
                'the checkpoint to be resumed has nothing under the key `ckd_mmdet`, where what distillation learned '
                f'stands: {"an older version of ckd_mmdet" if older else "a run without a teacher"} wrote it. Start a '
                'new run from its weights with `load_from` (`--cfg-options load_from=FILE`) instead of `--resume`.')
        kept = checkpoint[KEY]
        if kept['teacher_digest'] != self.digests:
            checkpoints = ', '.join(teacher.checkpoint for teacher in self.distillation.teachers.values())
            raise ValueError(f"the run to be resumed was taught by other weights than the teacher's ({checkpoints}); "
                             'give the same `teacher.checkpoint`, or start a new run with `load_from` instead of '
                             '`--resume`.')
        self.distillation.load_state(kept['learned'])


class Guard(Hook):
    """Stops a run whose loss is NaN or infinite for several steps in a row, and names the first loss that was.

    Steps that a GradScaler skips as it looks for its scale do not count.

    Args:
        patience: That number of steps, at least 1.
    """

    def __init__(self, patience: int) -> None:
        if type(patience) is not int or patience < 1:
            raise ValueError(f'`DistillHook` needs a whole `patience` of at least 1, got {patience!r}.')
        self.patience = patience
        self.bad: list[str] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        losses = outputs or {}
        total = losses.get('loss')
        if total is None or _is_finite(total):  # the logger reads it too
            self.bad = []
            return
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, AmpOptimWrapper) and wrapper.loss_scaler.get_scale() > 1:
            return
        self.bad.append(next((key for key, value in losses.items()
                              if key != 'loss' and 'loss' in key and not _is_finite(value)), 'loss'))
        if len(self.bad) >= self.patience:
            raise RuntimeError(
                f'the loss was not finite in {self.patience} steps in a row, the last one step {runner.iter + 1}; the '
                f'first of the losses that were not was `{self.bad[0]}`. The student has diverged: lower the learning '
                'rate, clip its gradients (`optim_wrapper.clip_grad`), or lower the `loss_weight`. The checkpoints '
                'before it are whole.')


def _is_finite(value: Tensor | float) -> bool:
    return math.isfinite(value.detach() if isinstance(value, Tensor) else value)


def _unwrap(model: BaseModel) -> BaseModel:
    return model.module if is_model_wrapper(model) else model


def _is_logged(hook: LoggerHook, step: int, dataloader: DataLoader) -> bool:
    """Whether it writes a line after a step of the epoch, counted from 0: also after the last one of a short epoch."""
    return hook.every_n_inner_iters(step, hook.interval) or (
        hook.end_of_epoch(dataloader, step) and (not hook.ignore_last or len(dataloader) <= hook.interval))


def check_schedules(distillation: Distillation, runner: Runner) -> None:
    """Refuse what changes by epochs in a run that counts none."""
    if not isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    way_out = 'and this run is counted in iterations; set `train_cfg.by_epoch=True` and `max_epochs`, or'
    for name, loss in distillation.losses.items():
        if loss.weight.changes_by_epoch:
            raise ValueError(f'`{name}` has a `loss_weight` that changes by epochs, {way_out} give a constant weight.')
        if getattr(loss, 'preview', None) is not None:
            raise ValueError(f'`{name}` has a `preview` that grows by epochs, {way_out} leave it out.')


def _log_classes(distillation: Distillation, classes: Sequence[str | None] | None) -> None:
    """Say which classes each teacher with a ``class_map`` shares."""
    assert distillation.pairings is not None
    said = set()
    for pairing in distillation.pairings.values():
        teacher = distillation.teachers[pairing.alignment.teacher]
        if teacher.class_map is None or not isinstance(pairing, RowPairing) or teacher.name in said:
            continue
        taught = teacher.classes
        if classes is None or taught is None or len(classes) != pairing.scorings[0].num_classes:
            continue  # an RPN's one class has none of these names
        said.add(teacher.name)
        shared = pairing.classes
        pairs = ', '.join(str(classes[ours]) if classes[ours] == taught[theirs]
                          else f'{classes[ours]} (as {taught[theirs]})'
                          for ours, theirs in zip(shared.student, shared.teacher, strict=True))
        print_log(plain(f'The teacher ({teacher.name}) knows {len(shared)} of the {len(classes)} classes: {pairs}.'),
                  logger='current')


def check_labels(distillation: Distillation, dataset: Any) -> None:
    """Refuse labels that a classifier has no score for; on a GPU they would end in an assertion of CUDA's."""
    assert distillation.pairings is not None
    paired = [pairing for pairing in distillation.pairings.values() if isinstance(pairing, RowPairing)]
    if not paired or not hasattr(dataset, 'get_gt_labels'):  # MMPretrain's
        return
    labels = dataset.get_gt_labels()
    for pairing in paired:
        classes = pairing.scorings[0].num_classes
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f'the training data set needs labels from 0 to {classes - 1}, as the student scores '
                             f'{classes} classes, and has some from {labels.min()} to {labels.max()}; set '
                             "`num_classes` of the student's head, or mend the annotations.")
