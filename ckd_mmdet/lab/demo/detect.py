"""Finished detectors, as plain mmdet ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401  before mmdet
from ckd_mmdet.checkpoints import load_weights, read_checkpoint
from ckd_mmdet.lab.demo.picture import Detections
from mmdet.apis import inference_detector
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn


def load_detector(cfg: Config, checkpoint: Path) -> nn.Module:
    """A plain detector with the weights of a ``student.pth``, or of a teacher."""
    register_all_modules(init_default_scope=True)
    model = MODELS.build(cfg.model)
    _, weights = read_checkpoint(checkpoint, 'checkpoint')
    load_weights(model, weights, str(checkpoint), cfg.filename, 'checkpoint')
    model.cfg = cfg  # where mmdet's inference finds the pipeline
    return model.eval()


def detect(model: nn.Module, images: Sequence[Path]) -> list[Detections]:
    """What the detector finds in each image, in the image's pixels."""
    found = inference_detector(model, [str(image) for image in images])
    instances = [sample.pred_instances.cpu() for sample in found]
    return [Detections(each.bboxes.numpy(), each.labels.numpy(), each.scores.numpy()) for each in instances]
