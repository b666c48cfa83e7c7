"""The Runner's side of distillation: the data set's classes, the teacher in the checkpoint's meta, exact resuming."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet import __version__
from ckd_mmdet.alignment import Alignment, RowAlignment
from ckd_mmdet.classes import match_classes
from ckd_mmdet.distiller import Distiller
from ckd_mmdet.export import export_student
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.losses.weight import Weight
from ckd_mmdet.registry import HOOKS
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, hard, is_foreground
from ckd_mmdet.seeding import seed_epoch
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.dist import get_rank, is_main_process
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner, find_latest_checkpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

SEEN_ROWS = 200
"""Foreground rows after which the teacher's accuracy is judged."""


@HOOKS.register_module()
class DistillHook(Hook):
    """What only the Runner knows.

    Before training it compares the data set's class names with the teacher's; in the first steps it stops a run whose
    teacher classifies the rows at chance level (one asked for maps alone is not judged); it seeds every epoch from
    ``(seed, epoch, rank)``, workers included, so that a resumed run continues as if never stopped; it keeps the digest
    of the teacher's weights, and what balanced weights were measured, in each checkpoint's ``meta``; at the logger's
    interval it lets the Distiller measure gradients; at the end it writes ``student.pth``. With a plain student it does
    the seeding and the export alone.
    """

    # after CheckpointHook, whose last checkpoint is exported
    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        model = _unwrap(runner.model)
        self.distiller = model if isinstance(model, Distiller) and model.teachers else None
        if self.distiller is None:
            return
        self.distiller.has_hook = True
        self.judgements = {name: TeacherJudgement() for name, teacher in self.distiller.teachers.items()
                           if teacher.check_accuracy}
        self.logger_hook = next((hook for hook in runner.hooks if isinstance(hook, LoggerHook)), None)

    def before_train(self, runner: Runner) -> None:
        if self.distiller is None:
            return
        _check_schedules(self.distiller, runner)
        dataset = runner.train_dataloader.dataset
        for name in self.distiller.teachers:
            pair_classes(self.distiller, name, dataset.metainfo.get('classes'))
        _check_labels(self.distiller, dataset)

    def before_train_epoch(self, runner: Runner) -> None:
        seed_epoch(runner.train_dataloader, runner.seed, runner.epoch, get_rank())

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if self.distiller is None:
            return
        self.distiller.measures_gradients = self.logger_hook is not None and _is_logged(self.logger_hook, batch_idx,
                                                                                        runner.train_dataloader)
        for name, judgement in self.judgements.items():
            judgement.listen(_alignments_of(self.distiller, name))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if self.distiller is None:
            return
        for name, judgement in list(self.judgements.items()):
            judgement.stop_listening()
            if judgement.seen >= SEEN_ROWS:
                judgement.pronounce(self.distiller.teachers[name].name)
                del self.judgements[name]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.distiller is None:
            return
        teachers = self.distiller.teachers.values()
        measured = {name: weight.ratios for name, weight in _weights(self.distiller).items() if weight.ratios}
        checkpoint['meta']['ckd_mmdet'] = dict(version=__version__, teacher=[teacher.name for teacher in teachers],
                                               teacher_digest=self._digests(), gradient_ratios=measured)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        known = checkpoint.get('meta', {}).get('ckd_mmdet', {})
        if self.distiller is None or not runner._resume or 'teacher_digest' not in known:
            return
        digests = known['teacher_digest']
        if isinstance(digests, str):  # before there could be several
            digests = {None: digests}
        if digests != self._digests():
            checkpoints = ', '.join(teacher.checkpoint for teacher in self.distiller.teachers.values())
            raise ValueError(f"the run to be resumed was taught by other weights than the teacher's ({checkpoints}); "
                             'give the same `teacher.checkpoint`, or start a new run with `load_from` instead of '
                             '`--resume`.')
        for name, weight in _weights(self.distiller).items():
            weight.ratios = list(known.get('gradient_ratios', {}).get(name, []))

    def after_train(self, runner: Runner) -> None:
        if not is_main_process():
            return
        checkpoint = find_latest_checkpoint(runner.work_dir)
        if checkpoint is not None:
            out = Path(runner.work_dir) / 'student.pth'
            export_student(checkpoint, out)
            runner.logger.info(f'The plain student is in {out}.')

    def _digests(self) -> dict[str | None, str]:
        if not hasattr(self, '_teacher_digests'):  # frozen: once is enough
            self._teacher_digests = {name: teacher.digest() for name, teacher in self.distiller.teachers.items()}
        return self._teacher_digests


class TeacherJudgement:
    """Is the teacher right more often than a model that knows nothing?

    The accuracy is the mean over classes of the share of rows that the teacher gives their label, so that no constant
    answer beats ``1 / (classes + 1)``, background counted, however unbalanced the classes are.
    """

    def __init__(self) -> None:
        self.counts: dict[int, list[int]] = {}
        self.handles: list = []

    def listen(self, alignments: Iterable[Alignment]) -> None:
        self.handles = [alignment.register_forward_hook(self._count) for alignment in alignments]

    def stop_listening(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _count(self, alignment: nn.Module, args: tuple[AlignedSamples | AlignedMaps],
               output: dict[str, Tensor]) -> None:
        if isinstance(args[0], AlignedMaps) or args[0].labels is None:
            return
        aligned = args[0].plain()
        labels = hard(aligned.labels)
        found = aligned.teacher.logits.argmax(1) == labels
        foreground = is_foreground(labels, aligned.num_classes)
        for label, hit in zip(labels[foreground].tolist(), found[foreground].tolist(), strict=True):
            count = self.counts.setdefault(label, [0, 0])
            count[0] += hit
            count[1] += 1

    @property
    def seen(self) -> int:
        return sum(total for _, total in self.counts.values())

    def pronounce(self, teacher: str) -> None:
        """Raise ``RuntimeError`` at chance level, up to three standard errors of a random answer's accuracy."""
        accuracy = float(np.mean([hits / total for hits, total in self.counts.values()]))
        # of one class alone, a constant answer is right always or never: only never is a sign
        chance = 1 / (len(self.counts) + 1) if len(self.counts) > 1 else 0.0
        limit = chance + 3 * (chance * (1 - chance) / self.seen) ** 0.5
        if accuracy <= limit:
            raise RuntimeError(
                f'the teacher ({teacher}) is right on {accuracy:.1%} of the first {self.seen} foreground rows (mean '
                f'over {len(self.counts)} classes), no better than chance ({chance:.1%}, limit {limit:.1%}): the run '
                'stops before it trains a student on noise. Usual causes: swapped colour channels or another '
                "normalisation in the teacher's config, classes in another order, weights of another model. If the "
                'teacher is meant to be so, set `teacher.check_accuracy=False`.')


def _unwrap(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model


def _alignments_of(distiller: Distiller, teacher: str | None) -> list[Alignment]:
    return [alignment for alignment in distiller.distiller.values() if alignment.teacher == teacher]


def _losses(distiller: Distiller) -> dict[str, DistillLoss]:
    """Every loss, by ``<alignment>.<loss>``."""
    return {f'{name}.{key}': loss for name, alignment in distiller.distiller.items()
            for key, loss in alignment.losses.items()}


def _is_logged(hook: LoggerHook, step: int, dataloader: DataLoader) -> bool:
    """Whether it writes a line after a step of the epoch, counted from 0: also after the last one of a short epoch."""
    return hook.every_n_inner_iters(step, hook.interval) or (
        hook.end_of_epoch(dataloader, step) and (not hook.ignore_last or len(dataloader) <= hook.interval))


def _weights(distiller: Distiller) -> dict[str, Weight]:
    return {name: loss.weight for name, loss in _losses(distiller).items()}


def _check_schedules(distiller: Distiller, runner: Runner) -> None:
    """Refuse what changes by epochs in a run that counts none."""
    if not isinstance(runner.train_loop, IterBasedTrainLoop):
        return
    way_out = 'and this run is counted in iterations; set `train_cfg.by_epoch=True` and `max_epochs`, or'
    for name, loss in _losses(distiller).items():
        if loss.weight.changes_by_epoch:
            raise ValueError(f'`{name}` has a `loss_weight` that changes by epochs, {way_out} give a constant weight.')
        if getattr(loss, 'preview', None) is not None:
            raise ValueError(f'`{name}` has a `preview` that grows by epochs, {way_out} leave it out.')


def pair_classes(distiller: Distiller, name: str | None, classes: Sequence[str] | None) -> None:
    """Compare the class names, or pair them where the teacher has a ``class_map``.

    Args:
        distiller: With a teacher.
        name: Of the teacher, where there are several.
        classes: Names of the data set's classes, in the order of the student's scores.

    Raises:
        ValueError: If they differ without a ``class_map``, or cannot be paired by it.
    """
    teacher = distiller.teachers[name]
    paired = [alignment for alignment in _alignments_of(distiller, name) if isinstance(alignment, RowAlignment)]
    if not paired:
        return  # maps know no classes
    if teacher.class_map is None:
        _check_classes(teacher, classes)
        return
    for names, whose in ((classes, "the data set's `metainfo`"), (teacher.classes, f'the teacher ({teacher.name})')):
        if names is None:
            raise ValueError(f'`teacher.class_map` needs class names, and {whose} has none; set `metainfo.classes` of '
                             'the training data set, or take a checkpoint that mmdet wrote.')
    for alignment in paired:
        for side, names, scoring in zip(('student', 'teacher'), (classes, teacher.classes), alignment.scorings,
                                        strict=True):
            if scoring.num_classes not in (1, len(names)):
                raise ValueError(f'`alignments.{alignment.name}`: the {side} scores {scoring.num_classes} classes, and '
                                 f'{len(names)} have names ({", ".join(names[:5])}, ...); set `num_classes` of its '
                                 'head, or the names, so that they agree.')
    shared = match_classes(classes, teacher.classes, teacher.class_map)
    distiller.share(shared, name)
    pairs = ', '.join(classes[ours] if classes[ours] == teacher.classes[theirs]
                      else f'{classes[ours]} (as {teacher.classes[theirs]})'
                      for ours, theirs in zip(shared.student, shared.teacher, strict=True))
    print_log(f'The teacher ({teacher.name}) knows {len(shared)} of the {len(classes)} classes: {pairs}.',
              logger='current')


def _check_labels(distiller: Distiller, dataset: Any) -> None:
    """Refuse labels that a classifier has no score for; on a GPU they would end in an assertion of CUDA's."""
    paired = [alignment for alignment in distiller.distiller.values() if isinstance(alignment, RowAlignment)]
    if not paired or not hasattr(dataset, 'get_gt_labels'):  # MMPretrain's
        return
    labels = dataset.get_gt_labels()
    for alignment in paired:
        classes = alignment.scorings[0].num_classes
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            raise ValueError(f'the training data set needs labels from 0 to {classes - 1}, as the student scores '
                             f'{classes} classes, and has some from {labels.min()} to {labels.max()}; set '
                             "`num_classes` of the student's head, or mend the annotations.")


def _check_classes(teacher: FrozenTeacher, classes: Sequence[str] | None) -> None:
    taught = teacher.classes
    if classes is None or taught is None or tuple(classes) == taught:
        return
    differing = [f'{i}: {ours!r} in the data, {theirs!r} for the teacher'
                 for i, (ours, theirs) in enumerate(zip(classes, taught, strict=False)) if ours != theirs]
    raise ValueError(
        f'the teacher ({teacher.name}) knows other classes than the data set: '
        f'{len(taught)} against {len(classes)}; {"; ".join(differing[:5]) or "the first ones agree"}'
        f'{"; ..." if len(differing) > 5 else ""}. Pair them with `teacher.class_map=\'name\'`, or give a teacher '
        'trained on the same categories in the same order.')
