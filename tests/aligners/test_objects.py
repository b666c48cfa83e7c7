"""ObjectAligner: rows are objects, scored by each side in its own head's way."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from ckd_mmdet.aligners import ObjectAligner
from ckd_mmdet.aligners.decoding import decoded
from ckd_mmdet.aligners.dense import class_rows
from ckd_mmdet.aligners.scorers import Objects, best_rows, scorer_of
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.distilled import Distilled
from mmdet.models.dense_heads import CondInstBboxHead, RTMDetInsSepBNHead
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tests.aligners.scenes import answered, copied, hear, logits, prepared, task_loss, training
from tests.toys import QUERIES, paired, saved_teacher, toy_batch, toy_config, toy_model, toy_query_config

KINDS = ['faster_rcnn', 'cascade_rcnn', 'retinanet', 'fcos', 'fcos_in_strides', 'paa', 'vfnet', 'detr']
DENSE = ['retinanet', 'fcos', 'fcos_in_strides', 'gfl', 'paa', 'vfnet', 'reppoints', 'yolof']
PAIRS = [('faster_rcnn', 'retinanet'), ('detr', 'retinanet'), ('retinanet', 'faster_rcnn'), ('cascade_rcnn', 'fcos'),
         ('retinanet', 'detr')]
"""Teacher and student."""


def config_of(name: str, num_classes: int = 3) -> ConfigDict:
    config = (toy_query_config if name in QUERIES else toy_config)(name, num_classes)
    config.data_preprocessor.pad_size_divisor = 32  # DETR's is 1, and its teachers may need more
    return config


def built(name: str, seed: int = 0, num_classes: int = 3) -> nn.Module:
    return training(toy_model(config_of(name, num_classes), seed))


@pytest.fixture(params=KINDS)
def student(request: pytest.FixtureRequest) -> nn.Module:
    return built(request.param)


@pytest.fixture(params=DENSE)
def dense(request: pytest.FixtureRequest) -> nn.Module:
    return built(request.param)


@pytest.fixture
def aligner() -> ObjectAligner:
    return ObjectAligner()


def of_objects(data_samples: Sequence) -> list[tuple[int, int]]:
    """Image and label of each object."""
    return [(image, label) for image, sample in enumerate(data_samples)
            for label in sample.gt_instances.labels.tolist()]


# Every kind of head


def test_a_teacher_that_is_the_student_gives_the_same_rows(aligner: ObjectAligner, student: nn.Module) -> None:
    teacher = copied(student)
    aligner.scorings(student, teacher)
    answer = answered(aligner, teacher, hear(aligner, student))
    ours, theirs = logits(answer)
    assert len(ours) > 4
    assert torch.equal(ours, theirs)
    assert len(ours.unique(dim=0)) > 3


def test_the_student_learns_and_the_teacher_does_not(aligner: ObjectAligner, student: nn.Module) -> None:
    teacher = copied(student)
    ours, theirs = logits(answered(aligner, teacher, hear(aligner, student)))
    assert not theirs.requires_grad
    ours.square().sum().backward()
    reached = {name.split('.')[0] for name, part in student.named_parameters()
               if part.grad is not None and part.grad.any()}
    assert {'backbone', 'neck', 'roi_head' if hasattr(student, 'roi_head') else 'bbox_head'} <= reached
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_students_step_is_the_same_to_the_last_bit(aligner: ObjectAligner, student: nn.Module) -> None:
    alone, teacher = copy.deepcopy(student), copied(student)
    inputs, data_samples = prepared(alone)
    torch.manual_seed(0)
    losses = alone(inputs, data_samples, mode='loss')
    state = torch.get_rng_state()
    heard = hear(aligner, student)
    answered(aligner, teacher, heard)
    assert torch.equal(torch.get_rng_state(), state)
    assert losses.keys() == heard.losses.keys()
    for one in (losses, heard.losses):
        task_loss(one).backward()
    for one, other in zip(student.parameters(), alone.parameters(), strict=True):
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_nothing_stays_behind(aligner: ObjectAligner, student: nn.Module) -> None:
    teacher = copied(student)

    def state() -> list:
        return [(name, module.training, set(vars(module))) for model in (student, teacher)
                for name, module in model.named_modules()]

    student(*prepared(student), mode='loss')  # some heads keep something of their own from the first step on
    teacher.load_state_dict(student.state_dict())
    answered(aligner, teacher, hear(aligner, student))
    before, weights = state(), copy.deepcopy(student.state_dict())
    answered(aligner, teacher, hear(aligner, student))
    assert state() == before
    assert all(torch.equal(weights[key], value) for key, value in student.state_dict().items())
    assert not [module for model in (student, teacher) for module in model.modules() if module._forward_hooks]
    assert not vars(aligner)
    copy.deepcopy(student)
    copy.deepcopy(teacher)


@pytest.mark.parametrize('boxes', [[0, 0], [0, 4]], ids=['no object', 'one image without'])
def test_a_batch_without_objects_trains_on(aligner: ObjectAligner, student: nn.Module, boxes: list[int]) -> None:
    heard = hear(aligner, student, toy_batch(num_items=boxes))
    answer = answered(aligner, copied(student), heard)
    ours, theirs = logits(answer)
    assert torch.equal(ours, theirs)
    assert len(ours) <= sum(boxes)
    assert answer.image_ids.tolist() == [1] * len(ours)
    assert ours.requires_grad
    (task_loss(heard.losses) + ours.sum()).backward()


# Pairs


@pytest.mark.parametrize(('teacher', 'student'), PAIRS)
def test_a_whole_step_distils_across_kinds(teacher: str, student: str, tmp_path: Path) -> None:
    taught = dict(config=config_of(teacher), checkpoint=saved_teacher(tmp_path, config_of(teacher)))
    model = training(paired(dict(
        type='ckd_mmdet.Distiller', student=config_of(student), teacher=dict(check_accuracy=False, **taught),
        alignments=dict(objects=dict(aligner=dict(type='ObjectAligner'), losses=dict(loss_ckd=dict(type='CKDLoss')))))))
    assert isinstance(model, Distilled)
    data = model.data_preprocessor(toy_batch(num_items=[3, 5]), True)
    losses = model(**data, mode='loss')
    assert losses['objects.loss_ckd'] > 0
    assert 3 <= losses['objects.rows'] <= 8
    losses['objects.loss_ckd'].backward()
    assert any(part.grad is not None and part.grad.any() for part in model.backbone.parameters())


@pytest.mark.parametrize(('teacher', 'student'), PAIRS)
def test_shuffled_images_and_objects_take_their_rows_with_them(aligner: ObjectAligner, teacher: str,
                                                               student: str) -> None:
    student, teacher = built(student), built(teacher, seed=1).eval()
    batch = toy_batch(num_items=[3, 5])
    shuffled = {key: copy.deepcopy(part)[::-1] for key, part in batch.items()}
    for sample in shuffled['data_samples']:
        sample.gt_instances = sample.gt_instances[list(range(len(sample.gt_instances)))[::-1]]
    rows = []
    for one in (batch, shuffled):
        heard = hear(aligner, student, one)
        answer = answered(aligner, teacher, heard)
        rows.append((answer.image_ids, answer.labels, *logits(answer)))
        assert set(zip(answer.image_ids.tolist(), answer.labels.tolist(), strict=True)) <= set(
            of_objects(heard.data_samples))
    straight, crossed = rows
    assert len(straight[0]) >= 3
    assert torch.equal(1 - crossed[0].flip(0), straight[0])
    assert torch.equal(crossed[1].flip(0), straight[1])
    for one, other in zip(straight[2:], crossed[2:], strict=True):
        torch.testing.assert_close(one, other.flip(0), rtol=1e-4, atol=1e-4)


# Which row


def test_a_roi_head_classifies_the_ground_truth_boxes(aligner: ObjectAligner) -> None:
    student, teacher = built('retinanet'), built('cascade_rcnn', seed=1).eval()
    heard = hear(aligner, student)
    feats = teacher.extract_feat(heard.inputs)
    rois = bbox2roi([sample.gt_instances.bboxes for sample in heard.data_samples])
    theirs = scorer_of(teacher, 'teacher').of_feats(feats, heard.data_samples)[0]
    assert torch.equal(theirs.scores, teacher.roi_head._bbox_forward(2, feats, rois)['cls_score'])


def test_dropout_rests_in_the_second_call_of_a_roi_head(aligner: ObjectAligner) -> None:
    student = built('faster_rcnn')
    student.roi_head.bbox_head.shared_fcs.append(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(32)))
    student.train()
    teacher, heard = copied(student), hear(aligner, student)
    statistics = student.roi_head.bbox_head.shared_fcs[-1][1].num_batches_tracked.clone()
    state = torch.get_rng_state()
    one, other = (logits(answered(aligner, teacher, heard))[0] for _ in range(2))
    assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(student.roi_head.bbox_head.shared_fcs[-1][1].num_batches_tracked, statistics) and statistics == 1
    assert all(part.training for part in student.roi_head.modules())


def test_a_dense_head_decodes_its_rows_as_it_does_at_rest(dense: nn.Module) -> None:
    way = scorer_of(dense, 'student')
    inputs, data_samples = prepared(dense)
    metas = [sample.metainfo for sample in data_samples]
    with way.listen() as heard:
        dense(inputs, data_samples, mode='loss')
    output = heard.scores.only().output
    rows = class_rows(dense.bbox_head, output)
    wanted = torch.arange(len(rows))
    boxes = decoded(dense.bbox_head, output, rows, wanted, metas)

    head = copied(dense).bbox_head
    at_rest = head(copied(dense).extract_feat(inputs))
    # one map after the other, in the order of rows: what the head decodes where only this row has a score
    for row in torch.linspace(0, len(rows) - 1, 12).long().tolist():
        alone = decoded(head, at_rest, class_rows(head, at_rest), wanted[row:row + 1], metas)
        torch.testing.assert_close(boxes[row:row + 1], alone, rtol=0, atol=2e-2)
    assert len(boxes.unique(dim=0)) > 12  # the others are as large as the image
    assert not decoded(dense.bbox_head, output, rows, wanted[:0], metas).numel()


def anchors(student: nn.Module, index: Tensor) -> Tensor:
    """Anchors of RetinaNet's rows of the first level, which has two images of 8x8 cells with 9 anchors."""
    return student.bbox_head.prior_generator.grid_priors([(8, 8)] * 5, device='cpu')[0][index % (64 * 9)]


@pytest.mark.parametrize('labelled', [True, False])
def test_the_row_of_an_object_is_the_anchor_that_overlaps_it_most(labelled: bool) -> None:
    student = built('retinanet')
    nn.init.zeros_(student.bbox_head.retina_reg.weight)
    nn.init.zeros_(student.bbox_head.retina_reg.bias)  # boxes are anchors, clipped to the image
    inputs, data_samples = prepared(student)
    # anchor 4 of the cell at y = 3, x = 5 of the second image, and anchor 0 of that at y = 4, x = 2 of the first
    wanted = torch.tensor([(4 * 8 + 2) * 9, 64 * 9 + (3 * 8 + 5) * 9 + 4])
    for sample, row in zip(data_samples, wanted, strict=True):
        sample.gt_instances = InstanceData(bboxes=anchors(student, row[None]).clamp(0, 64), labels=torch.tensor([1]))
    way = scorer_of(student, 'student')
    with way.listen() as heard:
        student(inputs, data_samples, mode='loss')
    output = heard.scores.only().output
    rows = class_rows(student.bbox_head, output)
    labels = None
    if labelled:
        assert torch.equal(way.of_step(heard, data_samples)[0].scores, rows.take(wanted))
        labels = torch.full((len(rows),), 3)
        labels[wanted], labels[wanted + 1] = 1, 1
    index, found = best_rows(student.bbox_head, output, rows, labels, data_samples)
    assert torch.equal(index, wanted)
    assert found.all()


def test_only_rows_of_the_objects_class_and_image_are_looked_at() -> None:
    student = built('retinanet')
    inputs, data_samples = prepared(student)
    output = student.bbox_head(student.extract_feat(inputs))
    rows = class_rows(student.bbox_head, output)
    images = rows.image_ids()
    objects = of_objects(data_samples)
    here = objects[0]
    assert here[1] in [label for image, label in objects if image == 1]
    labels = torch.where(images == 0, here[1], 3)  # all anchors of the first image are of one class, none of the second
    found = best_rows(student.bbox_head, output, rows, labels, data_samples)[1]
    assert found.tolist() == [place == here for place in objects]
    assert 0 < found.sum() < [image for image, _ in objects].count(0)


def test_an_object_without_a_row_is_left_out_on_both_sides(aligner: ObjectAligner,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    student, teacher = built('retinanet'), built('faster_rcnn', seed=1).eval()
    heard = hear(aligner, student)
    scorer = type(heard.tape.scorer)
    own = scorer.of_step

    def losing_two(self: object, *args: object) -> Objects:
        rows, found, boxes = own(self, *args)
        return rows, found & (torch.arange(len(found)) != 1) & (torch.arange(len(found)) != 6), boxes

    whole = answered(aligner, teacher, heard)
    monkeypatch.setattr(scorer, 'of_step', losing_two)
    answer = answered(aligner, teacher, heard)
    assert len(whole.labels) == 8
    kept = torch.tensor([0, 2, 3, 4, 5, 7])
    assert torch.equal(answer.labels, whole.labels[kept])
    assert torch.equal(answer.image_ids, whole.image_ids[kept])
    for one, other in zip(logits(answer), logits(whole), strict=True):
        assert torch.equal(one, other[kept])
    for one, other in zip(answer.boxes, whole.boxes, strict=True):
        assert torch.equal(one.take(torch.arange(6), answer.labels), other.take(kept, answer.labels))


@pytest.mark.parametrize('kind', ['faster_rcnn', 'retinanet', 'detr'])
def test_a_teacher_of_other_classes_finds_the_objects_by_its_own_numbers(aligner: ObjectAligner, kind: str) -> None:
    student, teacher = built('faster_rcnn'), built(kind, seed=1, num_classes=1).eval()
    heard = hear(aligner, student)
    answer = answered(aligner, teacher, heard, SharedClasses((2,), (0,)))
    places = of_objects(heard.data_samples)
    assert {0, 1, 2} & {label for _, label in places} > {2}
    assert answer.image_ids.tolist() == [image for image, label in places if label == 2]
    assert answer.labels.unique().tolist() == [2]
    assert of_objects(heard.data_samples) == places


# Refusals


def test_heads_say_how_they_score(aligner: ObjectAligner) -> None:
    assert aligner.scorings(built('retinanet'), built('cascade_rcnn')) == (Scoring(3, False), Scoring(3, True))


@pytest.mark.parametrize(('spoil', 'message'), [
    (lambda model: setattr(model, 'bbox_head', nn.Linear(1, 1)), r'needs a student with a RoI head.*has a Linear'),
    (lambda model: delattr(model, 'bbox_head'), r'needs a student with a RoI head.*has no `bbox_head`'),
    (lambda model: setattr(model.bbox_head, '__class__', type('Own', (type(model.bbox_head),), dict(
        predict_by_feat=lambda self: None))), r"does not know how the student's Own decodes its boxes"),
], ids=['no detector head', 'none', 'own decoding'])
def test_an_unknown_head_is_refused_by_name(aligner: ObjectAligner, spoil: object, message: str) -> None:
    student = built('retinanet')
    spoil(student)
    with pytest.raises(ValueError, match=message):
        aligner.scorings(student, built('retinanet'))


def test_a_roi_head_that_needs_more_than_boxes_is_refused(aligner: ObjectAligner) -> None:
    student = built('faster_rcnn')
    own = type(student.roi_head)
    student.roi_head.__class__ = type('Sparse', (own,), dict(_bbox_forward=lambda self, x, rois, object_feats: None))
    with pytest.raises(ValueError, match=r"the teacher's Sparse for the class of a box: it needs object_feats"):
        aligner.scorings(built('retinanet'), student)


def head_with_masks(name: str) -> nn.Module:
    """A head that predicts boxes and masks, of two levels."""
    torch.manual_seed(0)
    if name == 'rtmdet_ins':
        head = RTMDetInsSepBNHead(3, 16, feat_channels=16, stacked_convs=1, share_conv=True,
                                  anchor_generator=dict(type='MlvlPointGenerator', offset=0, strides=[8, 16]),
                                  bbox_coder=dict(type='DistancePointBBoxCoder'), norm_cfg=dict(type='BN'))
        for part in head.rtm_reg:
            nn.init.constant_(part.bias, 1.0)  # all boxes have a size
        return head.eval()
    return CondInstBboxHead(3, 16, feat_channels=16, stacked_convs=1, strides=(8, 16), num_params=169, norm_cfg=None,
                            regress_ranges=((-1, 64), (64, 1e8))).eval()


@pytest.mark.parametrize('name', ['rtmdet_ins', 'condinst'])
def test_boxes_of_heads_with_masks_are_their_points_and_distances(name: str) -> None:
    head, feats = head_with_masks(name), [torch.randn(2, 16, 8, 8), torch.randn(2, 16, 4, 4)]
    output = head(feats)
    rows = class_rows(head, output)
    metas = [dict(img_shape=(64, 64), scale_factor=(1, 1))] * 2
    boxes = decoded(head, output, rows, torch.arange(len(rows)), metas)
    points = [level[:, :2] for level in head.prior_generator.grid_priors([(8, 8), (4, 4)], device='cpu')]
    expected = []
    for level, at in zip(output[1], points, strict=True):
        for image in level:
            left, top, right, bottom = image.flatten(1)
            expected.append(torch.stack([at[:, 0] - left, at[:, 1] - top, at[:, 0] + right, at[:, 1] + bottom], 1))
    assert torch.allclose(boxes, torch.cat(expected).clamp(0, 64), atol=1e-4)
