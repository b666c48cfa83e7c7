"""A student whose preprocessor resizes or pads whole batches: the teacher is asked about the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ckd_mmdet.distilled  # noqa: F401  registers it
import pytest
import torch
from mmengine.logging import MessageHub
from torch import nn

from tests.aligners.scenes import training
from tests.toys import paired, saved_teacher, toy_batch, toy_config

STUDENTS = {
    'RoIAligner': ('faster_rcnn', {}),
    'DenseAligner': ('retinanet', dict(selector=dict(type='TeacherTopK', k=32))),
    'QueryAligner': ('detr', {}),
    'ObjectAligner': ('retinanet', {}),
    'ObjectAligner on RoIs': ('faster_rcnn', {}),
}
"""The toy detector that an aligner is tried on, and what its alignment needs beside."""
AUGMENTS = {
    'padded': ([dict(type='BatchFixedSizePad', size=(96, 128))], (96, 128)),
    'resized': ([dict(type='BatchResize', scale=(96, 128), pad_size_divisor=32)], (96, 96)),
    'of random size': ([dict(type='BatchSyncRandomResize', random_size_range=(128, 128), interval=1)], (128, 128)),
}


@pytest.fixture(params=STUDENTS)
def model(request: pytest.FixtureRequest, augments: list[dict], tmp_path: Path) -> nn.Module:
    """A student with batch augments, taught by a copy of itself."""
    name, more = STUDENTS[request.param]
    student, config = toy_config(name), toy_config(name)
    student.data_preprocessor.update(pad_size_divisor=32, batch_augments=augments)
    teacher = dict(config=config, checkpoint=saved_teacher(tmp_path, config, seed=0), check_accuracy=False)
    part = dict(aligner=dict(type=request.param.split()[0]), losses=dict(loss_kd=dict(type='KDLoss')), **more)
    return training(paired(dict(type='ckd_mmdet.Distiller', student=student, teacher=teacher,
                                alignments=dict(part=part))))


@pytest.fixture(params=AUGMENTS)
def augments(request: pytest.FixtureRequest) -> list[dict]:
    return AUGMENTS[request.param][0]


@pytest.fixture
def shape(augments: list[dict]) -> tuple[int, int]:
    """What an image of 64x64 becomes."""
    return next(shape for known, shape in AUGMENTS.values() if known is augments)


@pytest.fixture
def inputs(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(MessageHub.get_current_instance().runtime_info, 'iter', 0)
    model.data_preprocessor(toy_batch(num_items=[3, 5]), True)  # one batch later another size is drawn
    return model.data_preprocessor(toy_batch(num_items=[3, 5]), True)


def test_a_teacher_that_is_the_student_agrees_with_it(model: nn.Module, inputs: dict, shape: tuple[int, int]) -> None:
    assert inputs['inputs'].shape[2:] == shape
    torch.manual_seed(0)
    logged = model(**inputs, mode='loss')
    agreed = {key: float(logged[f'part.{key}'].detach()) for key in ('rows', 'cosine', 'retrieval', 'loss_kd')}
    assert agreed.pop('rows') >= 6
    assert agreed == pytest.approx(dict(cosine=1.0, retrieval=1.0, loss_kd=0.0), abs=1e-6)
