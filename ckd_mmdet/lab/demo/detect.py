"""The finished students as plain mmdet detectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401  before mmdet
import torch
from ckd_mmdet.config import plain_student, read_config
from ckd_mmdet.lab.demo.picture import Boxes
from ckd_mmdet.lab.demo.plan import Run
from mmdet.apis import inference_detector
from mmdet.utils import register_all_modules
from mmengine.registry import MODELS
from torch import nn


def load_student(run: Run) -> nn.Module:
    """The run's plain student, with the weights of ``student.pth``; nothing of the distillation is built."""
    register_all_modules(init_default_scope=True)
    cfg = read_config(run.config)
    plain_student(cfg)
    model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(run.student, map_location='cpu', weights_only=True)['state_dict'], strict=True)
    model.cfg = cfg  # where mmdet's inference finds the pipeline
    return model.eval()


def detect(model: nn.Module, images: Sequence[Path]) -> list[Boxes]:
    """What the detector finds in each image, in the image's pixels."""
    found = inference_detector(model, [str(image) for image in images])
    instances = [sample.pred_instances.cpu() for sample in found]
    return [Boxes(each.bboxes.numpy(), each.labels.numpy(), each.scores.numpy()) for each in instances]


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
