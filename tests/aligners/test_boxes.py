"""Boxes of rows: each side's by its own coder, as the head itself would predict them, and the true one beside."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import pytest
import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.aligners.decoding import decoded
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.boxes import Truths
from ckd_mmdet.cached.teacher import asking_cache
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.functional import overlap, valuable_region
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedSamples, Answer, is_foreground
from ckd_mmdet.taps import ModuleTap
from mmdet.testing import demo_mm_inputs
from torch import nn

from tests.aligners.scenes import Heard, answered, copied, hear, training
from tests.toys import toy_config, toy_model

ROI = {'faster_rcnn': {}, 'double_head_rcnn': {}, 'cascade_rcnn': dict(stage=1)}
CASES: dict[str, tuple[str, str, dict]] = {name: ('RoIAligner', name, arguments) for name, arguments in ROI.items()}
# Anchors, points, points in strides, distributions, a square root of deltas, boxes about points; and an RPN.
DENSE = ('retinanet', 'fcos', 'fcos_in_strides', 'gfl', 'atss', 'yolof', 'paa', 'reppoints')
CASES |= {name: ('DenseAligner', name, {}) for name in DENSE}
CASES['rpn'] = ('DenseAligner', 'faster_rcnn', dict(head='rpn_head'))
CASES |= {'detr': ('QueryAligner', 'detr', {}), 'dab_detr': ('QueryAligner', 'dab_detr', dict(layers='all')),
          **{f'objects of {name}': ('ObjectAligner', name, {}) for name in ('cascade_rcnn', 'retinanet', 'dab_detr')}}
every_case = pytest.mark.parametrize('name', CASES)
every_roi = pytest.mark.parametrize('name', ROI)
every_dense = pytest.mark.parametrize('name', DENSE)


@cache
def scene(name: str) -> tuple[Aligner, nn.Module, Heard]:
    """Of each case one step of one student, for all tests."""
    kind, detector, arguments = CASES[name]
    aligner, student = TASK_UTILS.get(kind)(**arguments), training(toy_model(toy_config(detector)))
    return aligner, student, hear(aligner, student)


def pairing(aligner: Aligner, loss: dict, classes: SharedClasses, scoring: Scoring) -> RowPairing:
    config = dict(type=type(aligner).__name__, **{key: value for key, value in vars(aligner).items()
                                                  if not key.startswith('_')})
    return RowPairing(build_alignment('rows', dict(aligner=config, losses=dict(loss_boxes=loss))), (scoring,) * 2,
                      classes)


def rows_of(name: str, teacher: nn.Module | None = None, **loss: Any) -> tuple[Answer, AlignedSamples]:
    """What the aligner answers and, of every row, what a BoxLoss is given."""
    aligner, student, heard = scene(name)
    teacher = copied(student) if teacher is None else teacher
    aligner.check_boxes(student, teacher)
    answer = answered(aligner, teacher, heard)
    scoring = aligner.scorings(student, teacher)[0]
    made = pairing(aligner, dict(type='BoxLoss', **loss), SharedClasses.all(scoring.num_classes), scoring)
    return answer, made.choose(answer)


@every_case
def test_a_teacher_that_is_the_student_gives_the_same_boxes(name: str) -> None:
    _, aligned = rows_of(name)
    assert torch.equal(aligned.student.boxes, aligned.teacher.boxes) and aligned.student.boxes.dtype == torch.float32
    assert len(aligned) >= 6 and len(aligned.student.boxes.unique(dim=0)) > len(aligned) // 2


@every_case
def test_another_teacher_gives_other_boxes_and_gradient_reaches_the_student_alone(name: str) -> None:
    _, student, heard = scene(name)
    teacher = toy_model(toy_config(CASES[name][1]), seed=1).eval()
    _, aligned = rows_of(name, teacher)
    assert (aligned.student.boxes != aligned.teacher.boxes).any(1).all() and not aligned.teacher.boxes.requires_grad
    learning = [parameter for part in (student.backbone, student.neck) for parameter in part.parameters()
                if parameter.requires_grad]
    found = torch.autograd.grad(aligned.student.boxes.sum(), learning, retain_graph=True, allow_unused=True)
    assert any(gradient is not None and gradient.any() for gradient in found)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@every_case
def test_no_row_keeps_the_graph(name: str) -> None:
    aligner, student, heard = scene(name)
    answer = answered(aligner, copied(student), heard)
    none = torch.zeros(0, dtype=torch.long)
    boxes = answer.boxes[0].take(none, none)
    assert boxes.shape == (0, 4) and boxes.requires_grad


@every_roi
def test_boxes_of_rois_are_those_that_the_head_predicts_for_the_class_of_the_row(name: str) -> None:
    aligner, student, heard = scene(name)
    _, aligned = rows_of(name)
    head = heard.tape.scores.module
    scores, deltas = heard.tape.scores.calls[-1].output
    rois = heard.tape.rois.calls[-1].arg(1, 'rois')
    for image in (0, 1):
        here = rois[:, 0] == image
        size = heard.data_samples[image].metainfo['img_shape']
        predicted = head.predict_by_feat((rois[here],), (scores[here],), (deltas[here],),
                                         [dict(img_shape=size, scale_factor=(1, 1))])[0].bboxes
        predicted = predicted.reshape(int(here.sum()), -1, 4)
        for boxes, label, of_class in zip(aligned.student.boxes[here], aligned.labels[here], predicted, strict=True):
            if label < aligned.num_classes:
                cut = torch.stack([side.clamp(0, size[1 - i % 2]) for i, side in enumerate(boxes)])
                torch.testing.assert_close(cut, of_class[min(int(label), len(of_class) - 1)])
    assert aligned.boxed.any() and torch.equal(aligned.boxed, is_foreground(aligned.labels, aligned.num_classes))


@every_roi
def test_the_true_box_of_a_roi_is_the_one_that_the_head_regresses_to(name: str) -> None:
    aligner, student, _ = scene(name)
    roi_head = student.roi_head
    head = roi_head.bbox_head if aligner.stage is None else roi_head.bbox_head[aligner.stage]
    with ModuleTap(head.loss_bbox, 'loss_bbox') as regressed:
        heard = hear(aligner, student)
    answer = answered(aligner, copied(student), heard)
    made = pairing(aligner, dict(type='BoxLoss', weight_by='better'), SharedClasses.all(3), Scoring(3, True))
    aligned = made.choose(answer)
    targets = regressed.only().arg(1, 'target')
    assert len(targets) == aligned.boxed.sum() > 0
    expected = head.bbox_coder.decode(answer.regions[aligned.boxed], targets)
    torch.testing.assert_close(aligned.truths[aligned.boxed], expected, atol=1e-3, rtol=0)


@every_dense
def test_boxes_of_anchors_are_those_that_the_head_predicts(name: str) -> None:
    _, student, heard = scene(name)
    answer, _ = rows_of(name)
    head, output = heard.tape.head, heard.tape.scores.only().output
    metas = [sample.metainfo for sample in heard.data_samples]
    size, every = metas[0]['img_shape'], torch.arange(len(answer.student))
    predicted = decoded(head, output, answer.student, every[::3], metas)  # so that each level and image has some
    found = answer.boxes[0].take(every[::3], None)
    cut = torch.stack([found[:, i].clamp(0, size[1 - i % 2]) for i in range(4)], 1)
    torch.testing.assert_close(cut, predicted)


def test_the_true_box_of_an_anchor_is_the_one_that_the_teachers_box_is_at() -> None:
    _, aligned = rows_of('retinanet', weight_by='better')
    _, _, heard = scene('retinanet')
    objects = is_foreground(aligned.labels, aligned.num_classes).nonzero().squeeze(1)
    assert len(objects) > 3
    for i in objects.tolist():
        truth = heard.data_samples[aligned.image_ids[i]].gt_instances
        of_class = truth.bboxes[truth.labels == aligned.labels[i]]
        greatest = max(overlap(box, aligned.teacher.boxes[i]) for box in of_class)
        assert overlap(aligned.truths[i], aligned.teacher.boxes[i]) == greatest


@pytest.mark.parametrize('name', ['detr', 'dab_detr', 'objects of cascade_rcnn', 'objects of retinanet'])
def test_the_true_box_of_an_object_is_its_own(name: str) -> None:
    _, aligned = rows_of(name, weight_by='better')
    _, _, heard = scene(name)
    truth = torch.cat([sample.gt_instances.bboxes for sample in heard.data_samples])
    assert torch.equal(aligned.truths, truth.repeat(len(aligned) // len(truth), 1))


@pytest.mark.parametrize('name', ['objects of cascade_rcnn', 'objects of dab_detr'])
def test_where_the_teacher_knows_some_objects_only_the_boxes_are_of_these(name: str) -> None:
    aligner, student, heard = scene(name)
    answer = answered(aligner, copied(student), heard, SharedClasses((2,), (2,)))
    labels = [sample.gt_instances.labels for sample in heard.data_samples]
    assert 0 < len(answer.labels) < sum(map(len, labels)) and (answer.labels == 2).all()
    every = torch.arange(len(answer.labels))
    ours, theirs = (boxes.take(every, answer.labels) for boxes in answer.boxes)
    torch.testing.assert_close(ours, theirs)
    truth = torch.cat([sample.gt_instances.bboxes[label == 2]
                       for sample, label in zip(heard.data_samples, labels, strict=True)])
    assert torch.equal(answer.regions, truth)


def test_boxes_of_queries_are_those_that_the_head_predicts() -> None:
    aligner, student, _ = scene('detr')
    heard = hear(aligner, student, demo_mm_inputs(2, (3, 48, 80), num_items=[3, 5], num_classes=3))  # wider than high
    aligned = pairing(aligner, dict(type='BoxLoss'), SharedClasses.all(3), Scoring(3, True)).choose(
        answered(aligner, copied(student), heard))
    scores, boxes = heard.tape.head.only().output
    head = copy.deepcopy(student.bbox_head)
    head.test_cfg = dict(max_per_img=scores.shape[2])
    for image, sample in enumerate(heard.data_samples):
        meta = dict(sample.metainfo, scale_factor=(1, 1))
        predicted = head.predict_by_feat(scores[:, [image]], boxes[:, [image]], [meta], rescale=False)[0]
        predicted = predicted.bboxes[predicted.scores.argsort(descending=True)]
        size = meta['img_shape']
        for box in aligned.student.boxes[aligned.image_ids == image]:
            cut = torch.stack([side.clamp(0, size[1 - i % 2]) for i, side in enumerate(box)])
            assert (predicted - cut).abs().amax(1).min() < 1e-3


@pytest.mark.parametrize('name', ['tood', 'vfnet'])
def test_a_dense_head_whose_boxes_are_written_otherwise_is_refused(name: str) -> None:
    models = toy_model(toy_config(name)), toy_model(toy_config('atss'))
    aligner = TASK_UTILS.get('DenseAligner')()
    for side, pair in (('student', models), ('teacher', models[::-1])):
        with pytest.raises(ValueError, match=f"does not know how the {side}'s {type(models[0].bbox_head).__name__}"):
            aligner.check_boxes(*pair)
        with pytest.raises(ValueError, match=f"does not know how the {side}'s {type(models[0]).__name__} writes its"):
            TASK_UTILS.get('ObjectAligner')().check_boxes(*pair)


def test_distributions_of_edges_are_those_of_the_rows_and_their_mean_is_the_box() -> None:
    aligner, student, heard = scene('gfl')
    teacher = copied(student)
    aligner.check_distributions(student, teacher)
    answer = answered(aligner, teacher, heard)
    losses = dict(loss_ld=dict(type='LDLoss', region='valuable'), loss_boxes=dict(type='BoxLoss'))
    made = RowPairing(build_alignment('rows', dict(
        aligner=dict(type='DenseAligner'), losses=losses, selector=dict(type='NearObjects'))), (Scoring(3, False),) * 2,
        SharedClasses.all(3))
    aligned = made.choose(answer)
    assert torch.equal(aligned.student.distributions, aligned.teacher.distributions)
    assert aligned.student.distributions.requires_grad and not aligned.teacher.distributions.requires_grad
    rows, bins = torch.arange(len(answer.student)), torch.arange(17.0)
    distances = (answer.boxes[0].distributions(rows).softmax(2) * bins).sum(2)
    boxes = answer.boxes[0].take(rows, None)
    ratio = (boxes[:, 2:] - boxes[:, :2]) / (distances[:, 2:] + distances[:, :2])
    strides = torch.tensor(student.bbox_head.prior_generator.strides)[answer.level_ids]
    torch.testing.assert_close(ratio, strides.float())
    # the region, anchor by anchor
    near = answer.valuable()
    objects = is_foreground(answer.labels, 3)
    chosen = (objects | near) & (answer.labels >= 0)
    assert torch.equal(aligned.labels, answer.labels[chosen]) and torch.equal(aligned.valuable, near[chosen])
    assert (near & ~objects).any() and not (objects | near).all()
    regressed = answer.boxes[0]
    every = torch.cat([torch.cat([level] * 2) for level in regressed._levels(rows.device)])
    for image, sample in enumerate(heard.data_samples):
        here = answer.image_ids == image
        levels = every[here].split([len(level) for level in regressed._levels(rows.device)])
        assert torch.equal(near[here], valuable_region(levels, sample.gt_instances.bboxes))


@pytest.mark.parametrize('aligner', ['DenseAligner', 'QueryAligner', 'ObjectAligner', 'RoIAligner'])
def test_a_cache_has_no_boxes_and_says_so(aligner: str) -> None:
    cfg = dict(aligner=dict(type=aligner), losses=dict(loss_boxes=dict(type='BoxLoss')))
    with pytest.raises(ValueError, match="requires \\['boxes'\\].*a cache keeps the teacher's scores and not where"):
        build_alignment('rows', asking_cache('rows', cfg))


def test_plain_deltas_and_other_bins_are_refused_where_distributions_are_asked_for() -> None:
    gfl, atss, fewer = (toy_model(config) for config in (toy_config('gfl'), toy_config('atss'), toy_config('gfl')))
    fewer.bbox_head.reg_max = 8
    aligner = TASK_UTILS.get('DenseAligner')()
    for side, pair in (('student', (atss, gfl)), ('teacher', (gfl, atss))):
        with pytest.raises(ValueError, match=f"the {side}'s ATSSHead regresses plain numbers; take `--method boxes`"):
            aligner.check_distributions(*pair)
    with pytest.raises(ValueError, match="the student's head has 17, the teacher's 9; take `--method boxes`"):
        aligner.check_distributions(gfl, fewer)


def test_each_side_has_the_box_of_the_class_as_it_numbers_them() -> None:
    aligner, student, heard = scene('faster_rcnn')
    answer = answered(aligner, copied(student), heard)
    made = pairing(aligner, dict(type='BoxLoss'), SharedClasses((1, 2), (2, 0)), Scoring(3, True))
    aligned = made.choose(answer)
    rows = made.allowed(answer, made.classes.labels(answer.labels, 3)).nonzero().squeeze(1)
    numbers = {0: (1, 2), 1: (2, 0)}
    assert set(numbers) <= set(aligned.labels.tolist())
    for which, side in enumerate((aligned.student, aligned.teacher)):
        wanted = torch.tensor([numbers[label][which] if label in numbers else -1 for label in aligned.labels.tolist()])
        objects = wanted >= 0
        expected = answer.boxes[which].take(rows[objects], wanted[objects])
        assert torch.equal(side.boxes[objects], expected)


def test_the_true_box_is_of_the_rows_own_image_and_class() -> None:
    truths = Truths(torch.tensor([[0., 0, 10, 10], [1, 1, 11, 11], [0, 0, 10, 10.5]]), torch.tensor([0, 1, 1]),
                    torch.tensor([0, 0, 1]))
    regions = torch.tensor([[0., 0, 10, 10]]).repeat(3, 1)
    found = truths.nearest(regions, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
    assert torch.equal(found, truths.boxes)
    assert overlap(found[1], regions[1]) < 1  # though another object fits better
    none = Truths(torch.zeros(0, 4), *(torch.zeros(0, dtype=torch.long) for _ in range(2)))
    assert torch.equal(none.nearest(regions, torch.zeros(3), torch.zeros(3)), regions)


@pytest.mark.parametrize('side', [0, 1])
def test_a_roi_head_without_boxes_is_refused(side: int) -> None:
    models = [toy_model(toy_config('faster_rcnn')) for _ in range(2)]
    models[side].roi_head.bbox_head.with_reg = False
    with pytest.raises(ValueError, match=f"the {('student', 'teacher')[side]}'s Shared2FCBBoxHead has none, or"):
        TASK_UTILS.get('RoIAligner')().check_boxes(*models)
