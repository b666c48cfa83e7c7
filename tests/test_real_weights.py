"""A detector trained on COCO, YOLOX-nano, on a photograph.

``make test DATA=FOLDER`` gives the folder of its weights, which load strictly into mmdet's config of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
import numpy as np
import pytest
import torch
from ckd_mmdet.aligners.dense import answering_as_in_training, class_rows
from ckd_mmdet.auto import distill_config
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import Candidates
from ckd_mmdet.selectors import TeacherTopK
from matplotlib import cbook
from mmdet.registry import MODELS as MMDET
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn

from tests.toys import toy_config

NANO = 'mmdet::yolox/yolox_nano_8xb8-300e_coco.py'
DATA = os.environ.get('DATA')
if not DATA:
    pytest.skip('real weights: `make test DATA=FOLDER` takes FOLDER/weights/yolox_nano_coco_mmdet.pth',
                allow_module_level=True)
WEIGHTS = Path(DATA, 'weights/yolox_nano_coco_mmdet.pth').resolve()
PERSON, TIE = 0, 27


def photograph() -> Tensor:
    """A portrait of Grace Hopper in uniform, which matplotlib has; BGR, ``(3, 416, 320)``."""
    with cbook.get_sample_data('grace_hopper.jpg') as file:
        pixels = np.asarray(Image.open(file).convert('RGB').resize((320, 416)))
    return torch.tensor(pixels[..., ::-1].copy()).permute(2, 0, 1)


def batch_of(objects: InstanceData | None = None) -> dict:
    sample = DetDataSample(metainfo=dict(img_shape=(416, 320), ori_shape=(416, 320), batch_input_shape=(416, 320),
                                         pad_shape=(416, 320), scale_factor=(1.0, 1.0), img_id=0))
    sample.gt_instances = InstanceData() if objects is None else objects
    return dict(inputs=[photograph()], data_samples=[sample])


@pytest.fixture(scope='module')
def nano() -> nn.Module:
    model = MMDET.build(get_config(NANO).model)
    load_checkpoint(model, str(WEIGHTS), strict=True)
    return model.eval()


@pytest.fixture(scope='module')
def detections(nano: nn.Module) -> InstanceData:
    return nano.test_step(batch_of())[0].pred_instances


def test_it_sees_what_is_there(detections: InstanceData) -> None:
    assert detections.labels[0] == PERSON and detections.scores[0] > 0.7


@torch.no_grad()
def test_the_rows_that_the_teacher_is_surest_of_are_its_own_detections(nano: nn.Module,
                                                                       detections: InstanceData) -> None:
    inputs = nano.data_preprocessor(batch_of())['inputs']
    with answering_as_in_training(nano.bbox_head):
        rows = class_rows(nano.bbox_head, nano.bbox_head(nano.extract_feat(inputs)))
    confidence = rows.confidence(range(80))
    chosen = TeacherTopK(64)(Candidates(torch.ones(len(rows), dtype=torch.bool), 80, confidence))
    assert chosen.sum() == 64
    labels = rows.take(chosen.nonzero().squeeze(1)).argmax(1)
    sure = detections[detections.scores > 0.3]
    assert len(sure)
    for score, label in zip(sure.scores, sure.labels, strict=True):
        assert ((confidence[chosen] - score).abs() < 1e-4)[labels == label].any()


def test_the_command_takes_it_as_teacher_and_as_student(tmp_path: Path, detections: InstanceData) -> None:
    made = distill_config(NANO, NANO, 'kd', teacher_checkpoint=WEIGHTS)
    made.model.student.init_cfg = dict(type='Pretrained', checkpoint=str(WEIGHTS))
    sure = detections[detections.scores > 0.3]
    losses = {}
    for kind in ('trained', 'random'):
        torch.manual_seed(0)
        model = MODELS.build(made.model)
        if kind == 'trained':
            model.init_weights()
        model.distillation.pair(model, None)
        for module in model.train().modules():  # the folded BatchNorm is the identity in evaluation only
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        batch = model.data_preprocessor(batch_of(InstanceData(bboxes=sure.bboxes, labels=sure.labels)), False)
        losses[kind] = float(model(**batch, mode='loss')['dense.loss_kd'])
    assert abs(losses['trained']) < 1e-4 < losses['random']


def test_a_student_of_three_classes_learns_from_it_by_a_class_map(detections: InstanceData) -> None:
    ours = ('human', 'cravat', 'bicycle')
    student = Config(dict(default_scope='mmdet', model=toy_config('retinanet', 3), train_dataloader=dict(
        dataset=dict(type='CocoDataset', metainfo=dict(classes=ours)))))
    made = distill_config(student, NANO, 'kd', teacher_checkpoint=WEIGHTS,
                          class_map=dict(human='person', cravat='tie', bicycle='bicycle'))
    assert '3 paired by `class_map`' in made.distillation.classes
    model = MODELS.build(made.model)
    model.distillation.pair(model, ours)
    known = detections[(detections.scores > 0.3) & ((detections.labels == PERSON) | (detections.labels == TIE))]
    objects = InstanceData(bboxes=known.bboxes, labels=torch.where(known.labels == TIE, 1, 0))
    found = model(**model.data_preprocessor(batch_of(objects), True), mode='loss')
    assert found['object.loss_kd'] > 0 and float(found['object.teacher_accuracy']) > 0.6
