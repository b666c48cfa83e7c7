"""A row's confidence is the score by which its own detector would rank it: against what mmdet's heads predict."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from ckd_mmdet.aligners import DenseAligner, ObjectAligner, QueryAligner, RoIAligner
from ckd_mmdet.aligners.dense import answering_as_in_training, class_rows
from ckd_mmdet.aligners.roi import roi_rows
from ckd_mmdet.lab.coverage.confidence import Heads, unlike_predict
from ckd_mmdet.lab.coverage.families import model_of, smallest_config
from ckd_mmdet.lab.coverage.shrink import shrunk
from ckd_mmdet.rows import SIGMOID, SOFTMAX, MapRows, TableRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.registry import MODELS
from torch import Tensor, nn

from tests.aligners.scenes import answered, copied, hear, prepared, training
from tests.toys import QUERIES, TWO_STAGE, toy_batch, toy_config, toy_model

# One of each kind of rule, as mmdet's config of the family has it.
DENSE = ['retinanet', 'fcos', 'atss', 'gfl', 'paa', 'yolox', 'yolo', 'ssd', 'centernet', 'rtmdet', 'vfnet', 'tood',
         'autoassign', 'ddod', 'sabl', 'condinst', 'yolact', 'reppoints']
QUALITY = {'fcos', 'atss', 'paa', 'yolox', 'yolo', 'autoassign', 'ddod', 'sabl', 'condinst'}


@lru_cache
def dense(family: str) -> tuple[nn.Module, Answer, ModuleTap, list]:
    """A detector of a family at rest, what a DenseAligner would ask it, and the batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(shrunk(model_of(smallest_config(family)))).eval()
    inputs, samples = prepared(model, toy_batch(num_items=[2, 2], with_mask=True))
    head = model.bbox_head
    with torch.no_grad(), ModuleTap(head, 'bbox_head') as heard, answering_as_in_training(head):
        rows = class_rows(head, head(model.extract_feat(inputs)))
    return model, Answer(rows, rows, image_ids=rows.image_ids()), heard, samples


@pytest.mark.parametrize('family', DENSE)
def test_anchors_have_the_confidence_that_their_head_predicts(family: str) -> None:
    _, answer, heard, samples = dense(family)
    assert unlike_predict(answer, heard, samples) == ''
    assert (answer.teacher.quality is not None) == (family in QUALITY)


@pytest.mark.parametrize('family', DENSE)
def test_the_comparison_sees_another_rule(family: str) -> None:
    _, answer, heard, samples = dense(family)
    rows = answer.teacher
    another = MapRows(rows.maps, SIGMOID) if rows.quality or rows.ranking != SIGMOID else \
        MapRows(rows.maps, SIGMOID, [torch.full_like(level[:, :, 0], 0.9) for level in rows.maps])
    wrong = Answer(rows, another, image_ids=answer.image_ids)
    assert 'predicts' in unlike_predict(wrong, heard, samples)


@pytest.mark.parametrize('case', ['faster_rcnn', 'cascade_rcnn', 'sabl'])
def test_rois_have_the_confidence_that_their_head_predicts(case: str) -> None:
    config, aligner = toy_config('faster_rcnn' if case == 'sabl' else case), RoIAligner()
    if case == 'cascade_rcnn':
        aligner = RoIAligner(stage=1)
    if case == 'sabl':
        head = model_of('sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py').roi_head.bbox_head
        head.update(num_classes=3, cls_in_channels=16, reg_in_channels=16, roi_feat_size=7, cls_out_channels=32,
                    reg_offset_out_channels=16, reg_cls_out_channels=16)
        config.roi_head.bbox_head = head
    assert_as_predicted(aligner, training(toy_model(config)))


@pytest.mark.parametrize('case', ['detr', 'deformable_detr', 'dino', 'ddq'])
def test_queries_have_the_confidence_that_their_head_predicts(case: str) -> None:
    assert_as_predicted(QueryAligner(), training(toy_model(toy_config(case))))


def assert_as_predicted(aligner: RoIAligner | QueryAligner, student: nn.Module) -> None:
    heard, teacher = hear(aligner, student), copied(student)
    with Heads(teacher, [aligner]) as heads:
        answer = answered(aligner, teacher, heard)
    assert unlike_predict(answer, heads.taps[0], heard.data_samples) == ''
    for ranking, quality in ((answer.teacher.ranking, torch.full((len(answer.teacher),), 0.9)),
                             (SIGMOID if answer.teacher.ranking.softmax else SOFTMAX, None)):
        wrong = replace(answer, teacher=TableRows(answer.teacher.scores, ranking, quality))
        assert 'predicts' in unlike_predict(wrong, heads.taps[0], heard.data_samples)


@pytest.mark.parametrize('family', ['yolox', 'yolo', 'fcos', 'paa'])
def test_rows_without_an_object_have_no_confidence_and_the_quality_alone_can_put_a_row_first(family: str) -> None:
    model, answer, heard, _ = dense(family)
    least = int(answer.teacher.confidence([0, 1, 2])[:answer.teacher.lengths[0]].argmin())  # of the first level

    def with_quality(first: float) -> MapRows:
        output = copy.deepcopy(heard.only().output)
        for number, level in enumerate(output[0]):
            quality = level.unflatten(1, (-1, model.bbox_head.num_attrib))[:, :, 4] if family == 'yolo' else \
                output[2][number]
            quality.fill_(-20)
            if not number:
                quality.permute(0, 2, 3, 1)[unraveled(least, quality)] = first
        return class_rows(model.bbox_head, output)

    nothing = with_quality(-20).confidence([0, 1, 2])
    assert nothing.max() < (1e-4 if family == 'paa' else 1e-8)  # PAA takes the square root
    assert with_quality(20).confidence([0, 1, 2]).argmax() == least


def unraveled(row: int, quality: Tensor) -> tuple:
    """Image, y, x and anchor of a row of a level ``(N, A, h, w)``."""
    return np.unravel_index(row, quality.permute(0, 2, 3, 1).shape)


@pytest.mark.parametrize('name', ['fcos', 'paa', 'retinanet', 'faster_rcnn', 'detr'])
def test_objects_have_the_confidence_of_the_rows_that_speak_of_them(name: str) -> None:
    student = training(toy_model(toy_config(name)))
    teacher, aligner = copied(student), ObjectAligner()
    heard = hear(aligner, student)
    objects = answered(aligner, teacher, heard).teacher
    if name in TWO_STAGE or name in QUERIES:
        every = objects.scores.softmax(1)[:, :3].amax(1)
    else:
        every = answered(DenseAligner(), teacher, hear(DenseAligner(), student)).teacher.confidence([0, 1, 2])
        assert (objects.quality is not None) == (name in QUALITY)
    assert len(objects)
    assert torch.isclose(objects.confidence([0, 1, 2])[:, None], every, rtol=1e-5, atol=0).any(1).all()


# A trained head


@pytest.fixture(scope='module')
def trained() -> tuple[TableRows, Tensor]:
    """A RoI head that has learned to tell three kinds of blobs from what lies between them, and its background rows."""
    generator = torch.Generator().manual_seed(0)
    head = toy_model(toy_config('faster_rcnn')).roi_head.bbox_head
    kinds = torch.randn(3, 16, 7, 7, generator=generator)

    def rois(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(12, (n,), generator=generator).clamp(max=3)  # three in four are background
        clean = torch.cat([kinds, torch.zeros(1, 16, 7, 7)])[labels]
        between = torch.rand(n, 3, generator=generator) @ kinds.flatten(1) * 0.6
        clean = torch.where((labels == 3)[:, None, None, None], between.view(n, 16, 7, 7), clean)
        return clean + torch.randn(n, 16, 7, 7, generator=generator), labels

    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for _ in range(100):
        features, labels = rois(128)
        optimizer.zero_grad()
        head.loss_cls(head(features)[0], labels).backward()
        optimizer.step()
    features, labels = rois(1000)
    with torch.no_grad(), ModuleTap(head, 'bbox_head') as heard:
        scores = head(features)[0]
    assert (scores.argmax(1) == labels).float().mean() > 0.8
    return roi_rows(heard, scores, torch.zeros(1000, 5)), (labels == 3).nonzero().squeeze(1)


def top(scores: Tensor, k: int = 64) -> set[int]:
    return set(scores.topk(k).indices.tolist())


def test_the_likeliest_background_rows_of_a_trained_head_are_those_of_greatest_softmax_probability(
        trained: tuple[TableRows, Tensor]) -> None:
    rows, background = trained
    rows = rows.select(background)
    chosen = top(rows.confidence([0, 1, 2]))
    assert chosen == top(rows.scores.softmax(1)[:, :3].amax(1))
    greatest_logit, no_background = rows.scores[:, :3].amax(1), 1 - rows.scores.softmax(1)[:, 3]
    assert len(chosen & top(greatest_logit)) < 60
    assert len(chosen & top(no_background)) < 64
