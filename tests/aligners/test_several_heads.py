"""A teacher in the shape of Co-DETR: several heads over one neck, of which the queries' is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ckd_mmdet.aligners import NeckAligner, ObjectAligner, QueryAligner
from ckd_mmdet.choice import choose_alignment
from ckd_mmdet.config import read_config
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor, nn

from tests.aligners.scenes import answered, hear, logits, task_loss, training
from tests.toys import toy_config, toy_model

CONFIG = read_config(Path(__file__).parents[1] / 'wild/configs/several_heads.py').model
STUDENTS = {'faster_rcnn': ObjectAligner, 'retinanet': ObjectAligner, 'dab_detr': QueryAligner, 'dino': QueryAligner}


@pytest.fixture(scope='module')
def teacher() -> nn.Module:
    return toy_model(CONFIG, seed=1).eval().requires_grad_(False)


def student_of(name: str) -> nn.Module:
    return training(toy_model(toy_config(name, num_classes=5)))


@pytest.mark.parametrize('name', STUDENTS)
def test_its_queries_answer_for_the_objects_of_any_student(name: str, teacher: nn.Module) -> None:
    student = student_of(name)
    choice = choose_alignment(student, teacher)
    assert [one['type'] for one in choice.aligners.values()] == [STUDENTS[name].__name__]
    heard = hear(STUDENTS[name](), student)
    answer = answered(STUDENTS[name](), teacher, heard)
    ours, theirs = logits(answer)
    assert len(ours) == len(theirs) > 0 and ours.requires_grad and not theirs.requires_grad
    metas = [sample.metainfo for sample in heard.data_samples]
    queries = teacher.query_head(teacher.extract_feat(heard.inputs), metas)[0][-1]  # (N, q, c)
    for row, image in zip(theirs, answer.image_ids, strict=True):
        assert (queries[image] == row).all(1).sum() == 1
    assert (task_loss(heard.losses) + ours.square().sum()).isfinite()


@pytest.mark.parametrize('attends', [True, False])
def test_its_boxes_are_parts_of_the_image_or_of_the_padded_batch(attends: bool, teacher: nn.Module,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_of('faster_rcnn')
    heard = hear(ObjectAligner(), student)
    for sample in heard.data_samples:  # its lower half is padding
        sample.set_metainfo(dict(img_shape=(32, 64), batch_input_shape=(64, 64)))
        sample.gt_instances.bboxes[:, 1::2] /= 2
    of_image, of_batch = ([bbox_xyxy_to_cxcywh(sample.gt_instances.bboxes) / torch.tensor([64, height, 64, height])
                           for sample in heard.data_samples] for height in (32, 64))
    seen = []

    def head(feats: object, metas: list[dict]) -> tuple[Tensor, Tensor]:
        seen.extend(meta['img_shape'] for meta in metas)
        boxes = torch.zeros(2, 20, 4)  # the first queries have the boxes of the one reading, the next of the other
        for image, readings in enumerate(zip(of_image, of_batch, strict=True)):
            boxes[image, :2 * len(readings[0])] = torch.cat(readings)
        numbers = torch.arange(20.).expand(2, 20)
        return torch.stack([numbers] * 5, 2)[None] / 1000, boxes[None]

    monkeypatch.setattr(teacher.query_head, 'forward', head)
    monkeypatch.setattr(teacher, 'with_attn_mask', attends)
    _, theirs = logits(answered(ObjectAligner(), teacher, heard))
    counts = [len(boxes) for boxes in of_image]
    expected = [(0 if attends else count) + number for count in counts for number in range(count)]
    assert (theirs[:, 0] * 1000).round().int().tolist() == expected
    assert seen == [(32, 64) if attends else (64, 64)] * 2


def test_its_maps_are_compared_level_by_level(teacher: nn.Module) -> None:
    aligner, student = NeckAligner(levels=[0, 1, 2], teacher_levels=[0, 1, 2]), student_of('retinanet')
    assert aligner.widths(student, teacher).teacher == (32, 32, 32)
    answer = answered(aligner, teacher, hear(aligner, student))
    assert [level.shape[-1] for level in answer.teacher] == [8, 4, 2]


@pytest.mark.parametrize('aligner', [ObjectAligner(), QueryAligner()])
def test_as_student_it_is_refused_with_the_way_out(aligner: ObjectAligner | QueryAligner, teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match='cannot listen to that of a SeveralHeads as student; take `--method l2`'):
        aligner.scorings(teacher, teacher)


def test_its_layers_are_not_asked_one_by_one(teacher: nn.Module) -> None:
    with pytest.raises(ValueError, match="SeveralHeads has it in its `query_head`; take `layers='last'`"):
        QueryAligner(layers='all').scorings(student_of('dino'), teacher)
