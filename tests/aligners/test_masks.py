"""Masks of rows: which RoI each is of, and of which class."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from ckd_mmdet.aligners import RoIAligner
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.teacher import asking_cache
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.losses import MaskLoss
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.samples import AlignedSamples
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hub import get_config
from torch import nn

from tests.aligners.scenes import Heard, answered, copied, hear, training
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

STAGES = {'mask_rcnn': None, 'cascade_mask_rcnn': 1}
every_case = pytest.mark.parametrize('name', STAGES)


@cache
def scene(name: str, objects: int) -> tuple[RoIAligner, nn.Module, Heard]:
    aligner, student = RoIAligner(stage=STAGES[name]), training(toy_model(toy_config(name)))
    return aligner, student, hear(aligner, student, toy_batch(num_items=[objects, objects], with_mask=True))


def rows_of(name: str, teacher: nn.Module, classes: SharedClasses | None = None, objects: int = 4,
            selector: str = 'All') -> AlignedSamples:
    aligner, student, heard = scene(name, objects)
    alignment = build_alignment('rows', dict(aligner=dict(type='RoIAligner', stage=aligner.stage),
                                             selector=dict(type=selector), losses=dict(loss_m=dict(type='MaskLoss'))))
    scorings = alignment.check(student, teacher)
    pairing = RowPairing(alignment, scorings, classes or SharedClasses.all(3))
    return pairing.choose(answered(aligner, teacher, heard))


def other(name: str, num_classes: int = 3) -> nn.Module:
    return toy_model(toy_config(name, num_classes), seed=1).eval()


@every_case
def test_a_teacher_that_is_the_student_gives_the_same_masks(name: str) -> None:
    aligned = rows_of(name, copied(scene(name, 4)[1]))
    objects = aligned.labels < 3
    assert 2 < objects.sum() < len(objects) and aligned.student.masks.shape == (len(objects), 28, 28)
    assert torch.equal(aligned.student.masks[objects], aligned.teacher.masks[objects])
    assert not MaskLoss()(aligned)
    assert len(aligned.student.masks[objects].flatten(1).unique(dim=0)) > 2


@every_case
def test_gradient_reaches_the_students_mask_head_and_backbone_and_nothing_of_the_teacher(name: str) -> None:
    student, teacher = scene(name, 4)[1], other(name)
    aligned = rows_of(name, teacher, selector='Foreground')
    loss = MaskLoss()(aligned)
    assert loss > 0 and not aligned.teacher.masks.requires_grad
    heads = student.roi_head.mask_head
    head = heads if STAGES[name] is None else heads[STAGES[name]]
    learning = [head.conv_logits.weight, student.neck.fpn_convs[0].conv.weight]
    assert all(gradient.any() for gradient in torch.autograd.grad(loss, learning, retain_graph=True))
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_each_mask_is_of_its_own_roi_and_of_the_class_that_both_know_it_by() -> None:
    name, teacher = 'mask_rcnn', other('mask_rcnn', num_classes=5)
    _, student, heard = scene(name, 4)
    aligned = rows_of(name, teacher, SharedClasses((0, 1, 2), (4, 0, 3)))
    rois = heard.tape.rois.only().arg(1, 'rois')
    for row in (aligned.labels < 3).nonzero().squeeze(1).tolist():
        label = int(aligned.labels[row])
        for model, masks, column in ((student, aligned.student.masks, label),
                                     (teacher, aligned.teacher.masks, [4, 0, 3][label])):
            alone = model.roi_head._mask_forward(model.extract_feat(heard.inputs), rois[row:row + 1])['mask_preds']
            torch.testing.assert_close(masks[row], alone[0, column], rtol=1e-4, atol=1e-4)


def test_the_loss_is_the_mean_over_rows_that_hold_an_object() -> None:
    aligned = rows_of('mask_rcnn', other('mask_rcnn'))
    objects = (aligned.labels < 3).nonzero().squeeze(1)
    each = [MaskLoss(temperature=2.0, loss_weight=1.0)(aligned.select(objects[i:i + 1])) for i in range(len(objects))]
    torch.testing.assert_close(MaskLoss(temperature=2.0, loss_weight=0.5)(aligned), 0.5 * torch.stack(each).mean())


def test_no_object_gives_no_loss_and_keeps_the_graph() -> None:
    aligned = rows_of('mask_rcnn', other('mask_rcnn'), objects=0)
    assert len(aligned) and (aligned.labels == 3).all()
    assert MaskLoss()(aligned) == 0 and MaskLoss()(aligned).requires_grad


def test_one_mask_for_all_classes_is_of_every_class() -> None:
    config = toy_config('mask_rcnn')
    config.roi_head.mask_head.class_agnostic = True
    aligned = rows_of('mask_rcnn', toy_model(config, seed=1).eval())
    assert aligned.teacher.masks.shape == aligned.student.masks.shape


def test_a_mask_head_that_was_given_other_rois_is_refused() -> None:
    aligner, student, heard = scene('mask_rcnn', 4)
    answer = answered(aligner, copied(student), heard)
    call, = heard.tape.masks.rois.calls
    other_rois = copy.copy(heard.tape.masks.rois)
    other_rois.calls = [replace(call, args=(call.args[0], call.args[1].flip(0)))]
    tape = replace(heard.tape.masks, rois=other_rois)
    masks = partial(answer.masks.func, tape, *answer.masks.args[1:])
    with pytest.raises(RuntimeError, match='roi_head.mask_head to be given the RoIs that hold an object, in their'):
        masks()


def test_masks_of_another_size_are_refused() -> None:
    config = toy_config('mask_rcnn')
    config.roi_head.mask_roi_extractor.roi_layer.output_size = 7
    with pytest.raises(ValueError, match=r"masks of equal height and width, .*\(28, 28\), the teacher's \(14, 14\)"):
        rows_of('mask_rcnn', toy_model(config))


@pytest.mark.parametrize('student, teacher, text', [
    ('faster_rcnn', 'faster_rcnn', 'the student has no mask head in its StandardRoIHead; take `--method features`'),
    ('mask_rcnn', 'faster_rcnn', 'the teacher has no mask head in its StandardRoIHead'),
    ('retinanet', 'retinanet', r'rows of a DenseAligner \(RTMDet-Ins and CondInst make each mask by filters'),
    ('deformable_detr', 'deformable_detr', r'rows of a QueryAligner \(its queries have none\); take'),
])
def test_detectors_without_such_masks_are_refused(student: str, teacher: str, text: str) -> None:
    configs = [Config(dict(default_scope='mmdet', model=toy_config(name))) for name in (student, teacher)]
    with pytest.raises(ValueError, match=text):
        distill_config(*configs, 'masks', teacher_checkpoint='weights.pth')


def own_masks(name: str) -> Config:
    if name != 'rtmdet_ins':
        return Config(dict(default_scope='mmdet', model=toy_config(name)))
    model = copy.deepcopy(get_config('mmdet::rtmdet/rtmdet-ins_tiny_8xb32-300e_coco.py').model)  # small as it is
    model.backbone.init_cfg = None
    return Config(dict(default_scope='mmdet', model=model))


OF_ROIS = r'`RoIAligner` compares masks of Mask R-CNN and its kin, and the student makes them in a way of its own in'
OF_FILTERS = r"`method='masks'` has no recipe for the rows of a DenseAligner \(RTMDet-Ins and CondInst make each mask"


@pytest.mark.parametrize('name, text', [
    ('htc', f'{OF_ROIS} its HybridTaskCascadeRoIHead; take'), ('scnet', f'{OF_ROIS} its SCNetRoIHead; take'),
    ('rtmdet_ins', OF_FILTERS), ('condinst', OF_FILTERS)])
def test_masks_made_in_another_way_are_refused_and_each_way_out_works(name: str, text: str) -> None:
    model = own_masks(name)
    with pytest.raises(ValueError, match=text) as refused:
        distill_config(model, model, 'masks', teacher_checkpoint='weights.pth')
    ways = re.findall(r'`--method (\w+)`', str(refused.value))
    assert len(ways) >= 2
    for way in ways:
        distill_config(model, model, way, teacher_checkpoint='weights.pth')


def test_a_cached_teacher_has_no_masks() -> None:
    cfg = dict(aligner=dict(type='RoIAligner'), losses=dict(loss_masks=dict(type='MaskLoss')))
    with pytest.raises(ValueError, match="a cache keeps the teacher's scores and no masks"):
        build_alignment('roi', asking_cache('roi', cfg))


def test_a_step_of_the_method_has_its_loss(tmp_path: Path) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('mask_rcnn')))
    made = distill_config(model, model, 'masks+features', teacher_checkpoint=saved_teacher(tmp_path, model.model))
    student = MODELS.build(made.model)
    student.distillation.pair(student, None)
    batch = student.data_preprocessor(toy_batch(num_items=[3, 3], with_mask=True), True)
    losses = student.train()(**batch, mode='loss')
    assert losses['roi.loss_masks'] > 0 and losses['roi.gradient_ratio_masks'] > 0
