"""Pictures while a student trains: what it finds on the same validation images after every epoch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.registry import HOOKS
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from mmengine.structures import BaseDataElement


@HOOKS.register_module()
class DrawTeacherAndStudent(Hook):
    """Draws a detector's student on the first validation images, and once the ground truth and the teachers.

    The pictures go to the visualizer's backends, as those of mmdet's ``DetVisualizationHook`` do: ``photo0_student`` at
    the number of finished epochs, or of iterations where a run counts these; ``photo0_truth`` and ``photo0_teacher`` at
    0. With a plain student there is no teacher to draw. Of several teachers each has its name, ``photo0_teacher_big``.
    Where EMA is on, it is the averaged student, the one that is validated.

    Args:
        images: Number of validation images, from the first, at least 1.
        interval: Validations from one picture of the student to the next, at least 1.
        threshold: Least score that is drawn, from 0 to 1.

    Raises:
        ValueError: If an argument is out of its range, or the run has no detector or no visualizer to draw with.
    """

    # before EMAHook takes the averaged weights away
    priority = 'ABOVE_NORMAL'

    def __init__(self, images: int = 4, interval: int = 1, threshold: float = 0.3) -> None:
        for name, value in (('images', images), ('interval', interval)):
            if type(value) is not int or value < 1:
                raise ValueError(f'`DrawTeacherAndStudent` needs whole `{name}` of at least 1, got {value!r}.')
        if not 0 <= threshold <= 1:
            raise ValueError(f'`DrawTeacherAndStudent` needs a `threshold` from 0 to 1, got {threshold!r}.')
        self.images = images
        self.interval = interval
        self.threshold = threshold
        self.validations = 0

    def before_run(self, runner: Runner) -> None:
        if not hasattr(runner.visualizer, '_draw_instances'):
            raise ValueError('`DrawTeacherAndStudent` needs a visualizer of detections, and the run has a '
                             f"{type(runner.visualizer).__name__}; set `visualizer=dict(type='DetLocalVisualizer', "
                             "vis_backends=[dict(type='LocalVisBackend')], name='visualizer')`, or leave the hook out.")

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.validations += 1
        if (self.validations - 1) % self.interval:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        dataset = runner.val_dataloader.dataset
        step = runner.iter if isinstance(runner.train_loop, IterBasedTrainLoop) else runner.epoch
        for place in range(min(self.images, len(dataset))):
            batch = model.data_preprocessor(pseudo_collate([dataset[place]]), False)
            if self.validations == 1:
                self._draw(runner, f'photo{place}_truth', batch['data_samples'][0], None)
                self._draw_teachers(runner, model, place, batch)
            with torch.no_grad():
                found = model(**_own(batch), mode='predict')
            self._draw(runner, f'photo{place}_student', found[0], None, step)

    def _draw_teachers(self, runner: Runner, model: Any, place: int, batch: dict) -> None:
        teachers = model.distillation.teachers if isinstance(model, Distilled) else {}
        for name, teacher in teachers.items():
            found = teacher.predict(**_own(batch))
            self._draw(runner, f'photo{place}_teacher' + ('' if name is None else f'_{name}'), found[0],
                       teacher.classes)

    def _draw(self, runner: Runner, name: str, sample: BaseDataElement, classes: Sequence[str] | None,
              step: int = 0) -> None:
        """Give a picture to the backends: of predictions where the sample has some, else of its ground truth."""
        from mmcv import imread

        visualizer, predicted = runner.visualizer, 'pred_instances' in sample
        meta = visualizer.dataset_meta
        if classes is not None:
            visualizer.dataset_meta = {**(meta or {}), 'classes': classes, 'palette': None}
        elif not meta:
            visualizer.dataset_meta = runner.val_dataloader.dataset.metainfo
        try:
            visualizer.add_datasample(name, imread(sample.img_path, channel_order='rgb'), sample,
                                      draw_gt=not predicted, draw_pred=predicted, pred_score_thr=self.threshold,
                                      step=step)
        finally:
            visualizer.dataset_meta = meta or visualizer.dataset_meta


def _own(batch: dict) -> dict[str, Any]:
    """The batch with samples of its own: predictions are written into them."""
    return dict(inputs=batch['inputs'], data_samples=copy.deepcopy(batch['data_samples']))
