"""A toy student, a batch, and what an aligner hears and asks of them."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.samples import AlignedSamples
from ckd_mmdet.selectors import All, Selector
from torch import Tensor, nn

from tests.toys import toy_batch

# Each aligner, and the toy detector and stage that it is tried on.
CASES = {
    'faster_rcnn': ('RoIAligner', 'faster_rcnn', None),
    'mask_rcnn': ('RoIAligner', 'mask_rcnn', None),
    'dynamic_rcnn': ('RoIAligner', 'dynamic_rcnn', None),
    'cascade_rcnn stage 0': ('RoIAligner', 'cascade_rcnn', 0),
    'cascade_rcnn stage 1': ('RoIAligner', 'cascade_rcnn', 1),
    'cascade_rcnn stage 2': ('RoIAligner', 'cascade_rcnn', 2),
    'cascade_mask_rcnn stage 1': ('RoIAligner', 'cascade_mask_rcnn', 1),
}


@dataclass
class Heard:
    """One training step of the student, overheard."""

    losses: dict[str, Any]
    tape: Any
    inputs: Tensor
    data_samples: list


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
    return Heard(losses, tape, inputs, data_samples)


def ask(aligner: Aligner, teacher: nn.Module, heard: Heard, select: Selector | None = None) -> AlignedSamples:
    feats = teacher.extract_feat(heard.inputs)  # with gradient: the aligner itself must stop it
    return aligner.ask(teacher, feats, heard.tape, heard.data_samples, select or All())


def task_loss(losses: dict[str, Any]) -> Tensor:
    return sum(torch.stack(value if isinstance(value, list) else [value]).sum()
               for key, value in losses.items() if 'loss' in key)
