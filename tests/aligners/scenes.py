"""A toy student, a batch, and what an aligner hears and asks of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.samples import AlignedSamples, Answer, Side
from torch import Tensor, nn

from tests.toys import toy_batch

# Each aligner, the toy detector that it is tried on, and its arguments.
CASES = {
    'faster_rcnn': ('RoIAligner', 'faster_rcnn', {}),
    'mask_rcnn': ('RoIAligner', 'mask_rcnn', {}),
    'dynamic_rcnn': ('RoIAligner', 'dynamic_rcnn', {}),
    'double_head_rcnn': ('RoIAligner', 'double_head_rcnn', {}),
    'cascade_rcnn stage 0': ('RoIAligner', 'cascade_rcnn', dict(stage=0)),
    'cascade_rcnn stage 1': ('RoIAligner', 'cascade_rcnn', dict(stage=1)),
    'cascade_rcnn stage 2': ('RoIAligner', 'cascade_rcnn', dict(stage=2)),
    'cascade_mask_rcnn stage 1': ('RoIAligner', 'cascade_mask_rcnn', dict(stage=1)),
    'rpn': ('DenseAligner', 'faster_rcnn', dict(head='rpn_head')),
    'retinanet': ('DenseAligner', 'retinanet', {}),
    'fcos': ('DenseAligner', 'fcos', {}),
    'gfl': ('DenseAligner', 'gfl', {}),
    'gfl, crossed': ('DenseAligner', 'gfl', dict(through=1)),
    'yolof': ('DenseAligner', 'yolof', {}),
    'detr': ('QueryAligner', 'detr', {}),
    'conditional_detr, all layers': ('QueryAligner', 'conditional_detr', dict(layers='all')),
    'objects of RoIs': ('ObjectAligner', 'faster_rcnn', {}),
    'objects of anchors': ('ObjectAligner', 'retinanet', {}),
    'objects of queries': ('ObjectAligner', 'dab_detr', {}),
}


@dataclass
class Heard:
    """One training step of the student, overheard."""

    student: nn.Module
    losses: dict[str, Any]
    tape: Any
    inputs: Tensor
    data_samples: list


def training(model: nn.Module) -> nn.Module:
    """In the training mode, but for BatchNorm, so that a copy in the evaluation mode has the same features."""
    for module in model.train().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def copied(student: nn.Module) -> nn.Module:
    """A teacher that is the student: its rows must be the student's."""
    return copy.deepcopy(student).eval()


def prepared(student: nn.Module, batch: dict[str, Any] | None = None) -> tuple[Tensor, list]:
    """Inputs and data samples of two images with three and five boxes, or of ``batch``."""
    if batch is None:
        batch = toy_batch(num_items=[3, 5], with_mask=student.with_mask)
    data = student.data_preprocessor(copy.deepcopy(batch), training=True)
    return data['inputs'], data['data_samples']


def hear(aligner: Aligner, student: nn.Module, batch: dict[str, Any] | None = None, seed: int = 0) -> Heard:
    """Let the student train on a batch; the same ``seed`` samples the same proposals."""
    inputs, data_samples = prepared(student, batch)
    torch.manual_seed(seed)
    with aligner.listen(student) as tape:
        losses = student(inputs, data_samples, mode='loss')
    return Heard(student, losses, tape, inputs, data_samples)


def answered(aligner: Aligner, teacher: nn.Module, heard: Heard, classes: SharedClasses | None = None) -> Answer:
    feats = teacher.extract_feat(heard.inputs)  # with gradient: the aligner itself must stop it
    return aligner.ask(teacher, feats, heard.tape, heard.data_samples, classes)


def logits(answer: Answer) -> tuple[Tensor, Tensor]:
    """All rows of student and teacher."""
    every = torch.arange(len(answer.student))
    return answer.student.take(every), answer.teacher.take(every)


def ask(aligner: Aligner, teacher: nn.Module, heard: Heard, rows: Tensor | None = None) -> AlignedSamples:
    """The given rows of the teacher's answer, or all, with the scores as the heads wrote them."""
    answer = answered(aligner, teacher, heard)
    rows = torch.arange(len(answer.student)) if rows is None else rows
    labels, images = (None if part is None else part[rows] for part in (answer.labels, answer.image_ids))
    num_classes = aligner.scorings(heard.student, teacher)[0].num_classes
    return AlignedSamples(Side(answer.student.take(rows)), Side(answer.teacher.take(rows)), num_classes, labels, images)


def task_loss(losses: dict[str, Any]) -> Tensor:
    return sum(torch.stack(value if isinstance(value, list) else [value]).sum()
               for key, value in losses.items() if 'loss' in key)


def sampling_everything(config: dict) -> dict:
    """Nothing left to chance: every proposal is sampled."""
    config = copy.deepcopy(config)
    rcnn = config.get('train_cfg', {}).get('rcnn', [])
    for stage in rcnn if isinstance(rcnn, list) else [rcnn]:
        stage.sampler.num = 512
    if 'rpn' in config.get('train_cfg', {}):
        config.train_cfg.rpn.sampler.num = 10_000
    return config
