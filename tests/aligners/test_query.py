"""QueryAligner: rows are objects, found on each side by the queries that its own head matches to them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from ckd_mmdet.aligners import QueryAligner
from ckd_mmdet.aligners.query import Queries
from ckd_mmdet.classes import Scoring, SharedClasses
from torch import Tensor, nn

from tests.aligners.scenes import answered, copied, hear, logits, prepared, task_loss, training
from tests.toys import QUERIES, toy_batch, toy_config, toy_model, toy_query_config

MANY = toy_batch(num_items=[2, 20])
"""More objects than queries in the second image."""


def built(name: str, seed: int = 0, **config: int) -> nn.Module:
    model = toy_model(toy_query_config(name, **config), seed)
    for module in model.modules():  # an attention has one by default, which no config names
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return training(model)


@pytest.fixture(params=QUERIES)
def student(request: pytest.FixtureRequest) -> nn.Module:
    return built(request.param)


@pytest.fixture
def aligner() -> QueryAligner:
    return QueryAligner()


def objects(data_samples: Sequence) -> tuple[list[int], list[int]]:
    """Labels and images of the ground truth."""
    return ([label for sample in data_samples for label in sample.gt_instances.labels.tolist()],
            [image for image, sample in enumerate(data_samples) for _ in sample.gt_instances.labels])


def test_a_teacher_that_is_the_student_gives_the_same_rows(aligner: QueryAligner, student: nn.Module) -> None:
    teacher = copied(student)
    aligner.scorings(student, teacher)
    heard = hear(aligner, student)
    answer = answered(aligner, teacher, heard)
    ours, theirs = logits(answer)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)  # denoising queries change the order of sums
    assert len(ours.unique(dim=0)) == 8
    assert (answer.labels.tolist(), answer.image_ids.tolist()) == objects(heard.data_samples)
    assert answer.level_ids.tolist() == [1] * 8


def test_queries_that_ddq_drops_as_copies_of_others_are_never_matched(aligner: QueryAligner) -> None:
    student = built('ddq')
    heard = hear(aligner, student)
    free, found = Queries.recorded(heard.tape).logits(-1, heard.data_samples)
    head = student.bbox_head
    masks = head.cache_dict['distinct_query_mask'][-1]  # one for each head of the attention, (N * heads, q, q)
    recorded = Queries.recorded(heard.tape)
    queries = [recorded._match(-1, image, sample) for image, sample in enumerate(heard.data_samples)]
    for image, matched in enumerate(queries):
        masks[image * head.cache_dict['num_heads'], 0, matched[0]] = False  # the first object's
    again = Queries.recorded(heard.tape)
    for image, (sample, matched) in enumerate(zip(heard.data_samples, queries, strict=True)):
        assert matched[0] >= 0 and matched[0] not in again._match(-1, image, sample)
    assert found.all() and not torch.equal(again.logits(-1, heard.data_samples)[0][0], free[0])


def test_every_layer_answers_for_every_object(student: nn.Module) -> None:
    aligner = QueryAligner(layers='all')
    heard = hear(aligner, student)
    answer = answered(aligner, copied(student), heard)
    ours, theirs = logits(answer)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)
    labels, images = objects(heard.data_samples)
    assert (answer.labels.tolist(), answer.image_ids.tolist()) == (labels * 2, images * 2)
    assert answer.level_ids.tolist() == [0] * 8 + [1] * 8
    torch.testing.assert_close(ours[8:], logits(answered(QueryAligner(), copied(student), heard))[0])
    assert not torch.equal(ours[:8], ours[8:])


def test_another_teacher_gives_other_rows(aligner: QueryAligner, student: nn.Module) -> None:
    teacher = built('detr', seed=1).eval()
    ours, theirs = logits(answered(aligner, teacher, hear(aligner, student)))
    assert (ours[:, :3] != theirs[:, :3]).any(1).all()


def test_the_student_learns_and_the_teacher_does_not(aligner: QueryAligner, student: nn.Module) -> None:
    teacher = copied(student)
    ours, theirs = logits(answered(aligner, teacher, hear(aligner, student)))
    assert not theirs.requires_grad
    ours.square().sum().backward()
    reached = {name.split('.')[0] for name, part in student.named_parameters()
               if part.grad is not None and part.grad.any()}
    assert {'backbone', 'neck', 'encoder', 'decoder', 'bbox_head'} <= reached
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_students_step_is_the_same_to_the_last_bit(aligner: QueryAligner, student: nn.Module) -> None:
    alone, teacher = copy.deepcopy(student), copied(student)
    inputs, data_samples = prepared(alone)
    torch.manual_seed(0)
    losses = alone(inputs, data_samples, mode='loss')
    state = torch.get_rng_state()
    heard = hear(aligner, student)
    answered(aligner, teacher, heard)
    assert torch.equal(torch.get_rng_state(), state)
    assert losses.keys() == heard.losses.keys()
    for key, value in losses.items():
        one, other = (torch.stack(loss) if isinstance(loss, list) else loss for loss in (value, heard.losses[key]))
        assert torch.equal(one, other), key
    for one in (losses, heard.losses):
        task_loss(one).backward()
    for one, other in zip(student.parameters(), alone.parameters(), strict=True):
        assert one.grad is None or torch.equal(one.grad, other.grad)


def test_nothing_stays_behind(aligner: QueryAligner, student: nn.Module) -> None:
    teacher, before = copied(student), dict(vars(aligner))
    answered(aligner, teacher, hear(aligner, student))
    assert not [module for model in (student, teacher) for module in model.modules() if module._forward_hooks]
    assert dict(vars(aligner)) == before
    copy.deepcopy(student)
    copy.deepcopy(aligner)


def test_swapped_images_swap_their_rows(aligner: QueryAligner, student: nn.Module) -> None:
    batch, teacher = toy_batch(num_items=[3, 5]), built('conditional_detr', seed=1).eval()
    straight = answered(aligner, teacher, hear(aligner, student, batch))
    crossed = answered(aligner, teacher, hear(aligner, student, {key: part[::-1] for key, part in batch.items()}))
    order = torch.tensor([5, 6, 7, 0, 1, 2, 3, 4])
    assert torch.equal(crossed.labels[order], straight.labels)
    assert torch.equal(1 - crossed.image_ids[order], straight.image_ids)
    for one, other in zip(logits(straight), logits(crossed), strict=True):
        torch.testing.assert_close(one, other[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('boxes', [[0, 0], [0, 4]], ids=['no object', 'one image without'])
def test_a_batch_without_objects_trains_on(aligner: QueryAligner, student: nn.Module, boxes: list[int]) -> None:
    heard = hear(aligner, student, toy_batch(num_items=boxes))
    answer = answered(aligner, copied(student), heard)
    ours, theirs = logits(answer)
    assert len(ours) == len(theirs) == len(answer.labels) == len(answer.image_ids) == sum(boxes)
    assert ours.requires_grad
    (task_loss(heard.losses) + ours.sum()).backward()


def test_the_rows_are_those_of_the_heads_own_targets(aligner: QueryAligner, student: nn.Module,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    seen, own = [], student.bbox_head._get_targets_single

    def recorded(scores: Tensor, boxes: Tensor, gt: object, meta: dict) -> tuple:
        found = own(scores, boxes, gt, meta)
        seen.append((scores.detach(), found[0]))
        return found

    monkeypatch.setattr(student.bbox_head, '_get_targets_single', recorded)
    heard = hear(aligner, student)
    monkeypatch.undo()
    ours, answer = logits(answered(aligner, copied(student), heard))[0], answered(aligner, copied(student), heard)
    # its loss matches the layers in turn, an image at a time; those that give a row its own label are what we look for
    own_rows = [(tuple(row.tolist()), int(label)) for scores, labels in seen[2:4]
                for row, label in zip(scores[labels < 3], labels[labels < 3], strict=True)]
    rows = [(tuple(row.tolist()), int(label)) for row, label in zip(ours.detach(), answer.labels, strict=True)]
    assert sorted(rows) == sorted(own_rows)


def test_an_object_without_a_query_is_left_out_on_both_sides() -> None:
    student, aligner = built('conditional_detr'), QueryAligner()
    many = toy_query_config('detr')
    many.num_queries = 30
    teacher = training(toy_model(many)).eval()
    heard = hear(aligner, student, MANY)
    answer = answered(aligner, teacher, heard)
    queries, found = Queries.recorded(heard.tape).logits(-1, heard.data_samples)
    assert answer.image_ids.tolist() == [0] * 2 + [1] * 12
    labels = torch.cat([sample.gt_instances.labels for sample in heard.data_samples])
    assert torch.equal(answer.labels, labels[found])
    ours, theirs = logits(answer)
    assert torch.equal(ours, queries[found])
    asked = Queries.asked(teacher, teacher.extract_feat(heard.inputs), heard.data_samples)
    assert torch.equal(theirs, asked.logits(-1, heard.data_samples)[0][found])


def test_objects_that_the_teacher_has_no_class_for_are_left_out_and_the_others_found_by_its_own_numbers() -> None:
    student, teacher, aligner = built('dab_detr'), built('detr', seed=1, num_classes=2).eval(), QueryAligner()
    heard = hear(aligner, student)
    labels, images = objects(heard.data_samples)
    answer = answered(aligner, teacher, heard, SharedClasses((0, 2), (1, 0)))
    assert 1 in labels
    kept = [i for i, label in enumerate(labels) if label != 1]
    assert answer.labels.tolist() == [labels[i] for i in kept]
    assert answer.image_ids.tolist() == [images[i] for i in kept]

    renumbered = copy.deepcopy(heard.data_samples)
    for sample in renumbered:
        gt = sample.gt_instances[sample.gt_instances.labels != 1]
        gt.labels = torch.where(gt.labels == 0, 1, 0)
        sample.gt_instances = gt
    expected = Queries.asked(teacher, teacher.extract_feat(heard.inputs), renumbered).logits(-1, renumbered)[0]
    ours, theirs = logits(answer)
    assert torch.equal(theirs, expected)
    assert torch.equal(ours, Queries.recorded(heard.tape).logits(-1, heard.data_samples)[0][kept])
    assert [sample.gt_instances.labels.tolist() for sample in heard.data_samples] == [labels[:3], labels[3:]]


def test_heads_say_how_they_score(aligner: QueryAligner) -> None:
    assert aligner.scorings(built('detr'), built('dino')) == (Scoring(3, True), Scoring(3, False))


# Refusals


def test_layers_are_last_or_all() -> None:
    with pytest.raises(ValueError, match=r"needs `layers` to be 'last' or 'all', got 'first'"):
        QueryAligner(layers='first')


def test_all_layers_need_as_many_on_both_sides() -> None:
    student, teacher = built('detr'), built('dab_detr', layers=3)
    with pytest.raises(ValueError, match=r"as many decoder layers in the teacher \(3\) as in the student \(2\)"):
        QueryAligner(layers='all').scorings(student, teacher)
    QueryAligner().scorings(student, teacher)


def test_a_detector_without_queries_is_refused(aligner: QueryAligner) -> None:
    with pytest.raises(ValueError, match=r'needs a teacher with queries.*this RetinaNet has a RetinaHead'):
        aligner.scorings(built('detr'), toy_model(toy_config('retinanet')))
    with pytest.raises(ValueError, match=r'needs a student with queries.*this FasterRCNN has none'):
        aligner.scorings(toy_model(toy_config('faster_rcnn')), built('detr'))


def test_a_teacher_without_an_assigner_is_refused(aligner: QueryAligner) -> None:
    config = toy_query_config('detr')
    config.train_cfg = None
    with pytest.raises(ValueError, match=r"needs the teacher's `bbox_head.assigner`.*`train_cfg.assigner`"):
        aligner.scorings(built('detr'), toy_model(config))
