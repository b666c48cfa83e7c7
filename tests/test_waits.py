"""Device waits of a training step: on a GPU each stops the host until everything before it is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ckd_mmdet.auto import distill_config
from ckd_mmdet.distillation import LOGGED
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import nn

from tests.toys import saved_teacher, toy_batch, toy_config, toy_model
from tests.waits import Waits


def waits(model: nn.Module, batch: dict) -> int:
    torch.manual_seed(0)
    data = model.data_preprocessor(batch, True)
    with Waits() as counted:
        model.parse_losses(model(**data, mode='loss'))
    return len(counted.seen)


@pytest.mark.parametrize(('name', 'most', 'method'), [
    ('retinanet', 5, 'ckd'), ('retinanet', 5, 'kd'), ('retinanet', 5, 'bckd'), ('gfl', 5, 'ld:1'),
    ('faster_rcnn', 3, 'ckd'), ('faster_rcnn', 3, 'kd'), ('faster_rcnn', 3, 'boxes')])
def test_distilling_adds_few_device_waits_to_a_step(name: str, most: int, method: str, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Config(dict(model=toy_config(name), default_scope='mmdet'))
    config = distill_config(plain, plain, method, teacher_checkpoint=saved_teacher(tmp_path, plain.model))
    student = MODELS.build(config.model)
    student.distillation.pair(student, None)
    alone, batch = toy_model(toy_config(name)), toy_batch(num_items=[3, 5])
    student.load_state_dict(alone.state_dict(), strict=True)
    info = MessageHub.get_current_instance().runtime_info
    monkeypatch.setitem(info, LOGGED, False)
    for _ in range(21):  # the order of dense labels is checked with a wait in the first steps
        student(**student.data_preprocessor(batch, True), mode='loss')
    assert waits(student, batch) - waits(alone, batch) <= most
    monkeypatch.setitem(info, LOGGED, True)  # the counter sees what it should
    assert waits(student, batch) > waits(alone, batch)
