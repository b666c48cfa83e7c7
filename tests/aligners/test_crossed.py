"""Crossed heads: what the teacher's last layers make of the student's features."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.aligners import DenseAligner
from ckd_mmdet.aligners.crossed import check_crossing, crossed, layer_of, recording, towers_of
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.teacher import asking_cache
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.pairing import RowPairing
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from tests.aligners.scenes import Heard, answered, copied, hear, training
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model

NORM = dict(type='BN')
SIZES = ((8, 8), (4, 4))
POINTS = dict(type='MlvlPointGenerator', offset=0, strides=[8, 16])
ANCHORS = dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=1, ratios=[1.0], strides=[8, 16])
HEADS: dict[str, dict] = {
    'shared': dict(type='RetinaHead', stacked_convs=2, norm_cfg=NORM, anchor_generator=ANCHORS),
    'lists by level': dict(type='RetinaSepBNHead', num_ins=2, stacked_convs=2, norm_cfg=NORM,
                           anchor_generator=ANCHORS),
    'lists by level that share weights': dict(type='RTMDetSepBNHead', stacked_convs=2, norm_cfg=NORM,
                                              anchor_generator=POINTS, with_objectness=False, share_conv=True),
    'sequences by level': dict(type='YOLOXHead', stacked_convs=2, strides=[8, 16]),
}


def built(name: str, seed: int, **other: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = MODELS.build({**HEADS[name], 'num_classes': 3, 'in_channels': 8, 'feat_channels': 8, **other})
        for layer in head.modules():  # as after some training: each level's own
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.weight, 0.5, 2)
        return head


def maps(seed: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 8, *size, generator=draw).requires_grad_() for size in SIZES]


def flat(output: tuple) -> Tensor:
    return torch.cat([level.flatten() for part in output for level in part])


def joined(student: nn.Module, teacher: nn.Module, layer: int) -> nn.Module:
    """A head made of the student's first layers and the teacher's others."""
    head = copy.deepcopy(teacher)
    for name, lanes in towers_of(head).items():
        for theirs, ours in zip(lanes, towers_of(student)[name], strict=True):
            for i in range(layer):
                theirs[i].load_state_dict(ours[i].state_dict())
    return head


@pytest.mark.parametrize('layer', [0, 1, 2])
@pytest.mark.parametrize('name', HEADS)
def test_it_is_a_head_of_the_students_first_and_the_teachers_last_layers(name: str, layer: int) -> None:
    student, teacher, ours, theirs = built(name, 0).eval(), built(name, 1).eval(), maps(0), maps(1)
    before = copy.deepcopy(teacher.state_dict())
    with recording(student, layer) as recorded:
        student(ours)
    found = flat(crossed(teacher, theirs, ours, recorded, layer))
    assert torch.equal(found, flat(joined(student, teacher, layer)(ours)))
    found.square().sum().backward()
    # gradient: the student's layers up to there, in all levels, and nothing of the teacher
    for lane in [lane for lanes in towers_of(student).values() for lane in lanes]:
        for i, part in enumerate(lane):
            learns = any(weight.grad is not None and weight.grad.any() for weight in part.parameters())
            assert learns == (i < layer), part
    assert all(level.grad is not None for level in ours) and all(level.grad is None for level in theirs)
    assert all(weight.grad is None and weight.requires_grad for weight in teacher.parameters())
    after = teacher.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any(part._forward_hooks for head in (student, teacher) for part in head.modules())


def test_a_head_that_shares_its_layers_teaches_one_that_has_them_by_level() -> None:
    student, teacher, ours = built('lists by level', 0).eval(), built('shared', 1).eval(), maps(0)
    check_crossing(student, teacher, 1)
    with recording(student, 1) as recorded:
        student(ours)
    found = crossed(teacher, maps(1), ours, recorded, 1)
    for level, (one, scores) in enumerate(zip(ours, found[0], strict=True)):
        behind = teacher.cls_convs[1](student.cls_convs[level][0](one))
        torch.testing.assert_close(scores, teacher.retina_cls(behind), rtol=0, atol=0)


def test_negative_layers_count_from_the_end() -> None:
    head = built('shared', 0)
    assert [layer_of(head, through) for through in (0, 2, -1, -2)] == [0, 2, 1, 0]


def test_a_layer_that_is_called_otherwise_than_once_a_level_is_refused() -> None:
    student, teacher, ours = built('shared', 0), built('shared', 1), maps(0)
    with recording(student, 1) as recorded:
        student(ours[:1])
    with pytest.raises(RuntimeError, match=r'a call of cls_convs\[0\] for each of 2 levels, saw 1; leave'):
        crossed(teacher, ours, ours, recorded, 1)
    with recording(student, 1) as recorded:
        student(ours)
    teacher.forward = lambda feats: None
    with pytest.raises(RuntimeError, match="the teacher's RetinaHead to call its layer 1 once a level, saw fewer"):
        crossed(teacher, ours, ours, recorded, 1)


# In a detector: rows, boxes, labels, classes


@cache
def scene() -> tuple[nn.Module, Heard]:
    student = training(toy_model(toy_config('gfl')))
    return student, hear(DenseAligner(through=1), student)


def test_rows_and_boxes_are_the_teachers_where_it_is_the_student() -> None:
    student, heard = scene()
    answer = answered(DenseAligner(through=1), copied(student), heard)
    every = torch.arange(len(answer.student))
    assert torch.equal(answer.student.take(every), answer.teacher.take(every))
    assert torch.equal(answer.boxes[0].take(every, None), answer.boxes[1].take(every, None))
    plain = answered(DenseAligner(), copied(student), heard)
    assert torch.equal(answer.labels, plain.labels) and ((answer.labels >= 0) & (answer.labels < 3)).any()


def test_boxes_of_crossed_rows_teach_the_students_layers_of_boxes() -> None:
    student, heard = scene()
    answer = answered(DenseAligner(through=1), toy_model(toy_config('gfl'), seed=1).eval(), heard)
    boxes = answer.boxes[0].take(torch.arange(len(answer.student)), None)
    learning = [*student.bbox_head.reg_convs.parameters(), student.bbox_head.gfl_reg.weight]
    *of_layer, of_last = torch.autograd.grad(boxes.sum(), learning, retain_graph=True, allow_unused=True)
    assert all(gradient.any() for gradient in of_layer) and of_last is None


def test_crossed_scores_are_of_the_classes_that_the_teacher_has_for_the_students() -> None:
    student, heard = scene()
    teacher = training(toy_model(toy_config('gfl', num_classes=5), seed=1)).eval()
    cfg = dict(aligner=dict(type='DenseAligner', through=1), selector=dict(type='TeacherTopK', k=9),
               losses=dict(loss_kd=dict(type='KDLoss')))
    alignment = build_alignment('dense', cfg)
    scorings = alignment.check(student, teacher)
    assert [scoring.num_classes for scoring in scorings] == [3, 5]
    pairing = RowPairing(alignment, scorings, SharedClasses((0, 2), (4, 1)))
    feats = teacher.extract_feat(heard.inputs)
    aligned, _ = pairing.ask(teacher, feats, heard.tape, heard.data_samples)
    answer = answered(alignment.aligner, teacher, heard)
    every = torch.arange(len(answer.student))
    for side, rows in ((aligned.student, answer.student), (aligned.teacher, answer.teacher)):
        whole = rows.take(every)[:, [4, 1]]
        assert side.logits.shape[1] == 2
        assert (side.logits[:, None] == whole[None]).all(2).any(1).all()


def test_a_step_has_both_losses_and_plain_kd_beside_them_is_warned_of(tmp_path: Path) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('gfl')))
    made = distill_config(model, model, 'crosskd+kd', teacher_checkpoint=saved_teacher(tmp_path, model.model))
    with warnings_of('ckd_mmdet.distilled') as said:
        student = MODELS.build(made.model)
    assert len(said) == 1 and said[0].startswith('`alignments.dense_kd` compares class scores of the head that '
                                                 '`alignments.dense` crosses; the paper of CrossKD')
    student.distillation.pair(student, None)
    student.train()
    losses = student(**student.data_preprocessor(toy_batch(num_items=[3, 3]), True), mode='loss')
    ratios = [float(losses[f'dense.gradient_ratio_{name}']) for name in ('quality', 'boxes')]
    assert all(ratio > 0 for ratio in ratios) and losses['dense.loss_boxes'] > 0 < losses['dense.loss_quality']


@contextmanager
def warnings_of(module: str) -> Iterator[list[str]]:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f'{module}.print_log', lambda text, **_: said.append(text))
        yield said


# Refusals


def retina(**other: Any) -> nn.Module:
    return built('shared', 0, **other)


@pytest.mark.parametrize('student, teacher, through, text', [
    (retina(), retina(), 3, "`through` from 0 to 2, as of layers before scores and boxes the student's RetinaHead has 2"
                            " and the teacher's RetinaHead has 2, got 3; set `aligner.through`"),
    (retina(), retina(), -3, 'got -3; set'),
    (retina(), retina(stacked_convs=1), 2, "from 0 to 1, .*the teacher's RetinaHead has 1, got 2"),
    (retina(), retina(feat_channels=16), 1, r"feeds the teacher's RetinaHead with the student's features, .*\(16, 16\) "
                                            r'channels .* behind layer 1, got \(8, 8\); give `through` 0\.'),
    (retina(), retina(in_channels=16), 0, r'\(16,\) .* got \(8,\); give `through` 1 or 2\.'),
    (retina(), retina(in_channels=16, feat_channels=16), 1, 'take `--method kd`'),
])
def test_heads_that_cannot_be_crossed_are_refused(student: nn.Module, teacher: nn.Module, through: int, text: str
                                                  ) -> None:
    with pytest.raises(ValueError, match=text):
        check_crossing(student, teacher, through)


@pytest.mark.parametrize('through', [1.0, True, '1'])
def test_a_layer_is_a_whole_number(through: Any) -> None:
    with pytest.raises(ValueError, match=f'needs a whole number as `through`, or None, got {re.escape(repr(through))}'):
        DenseAligner(through=through)


@pytest.mark.parametrize('name, text', [
    ('tood', "crosses heads with layers `cls_convs` and `reg_convs` .*the student's TOODHead has none; leave"),
    ('yolof', "the student's YOLOFHead has none; leave `through` out, or take `--method kd`"),
    ('faster_rcnn', "`method='crosskd'` has no recipe for the rows of a RoIAligner; take `--method"),
    ('deformable_detr', "`method='crosskd'` has no recipe for the rows of a QueryAligner; take `--method"),
    ('vfnet', "does not know how the student's VFNetHead writes its boxes"),
])
def test_the_method_is_refused_for_other_heads(name: str, text: str) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config(name)))
    with pytest.raises(ValueError, match=text):
        distill_config(model, model, 'crosskd', teacher_checkpoint='weights.pth')


@pytest.mark.parametrize('name', ['tood', 'yolof'])
@pytest.mark.parametrize('method', ['crosskd', 'pckd'])
def test_each_way_out_of_a_refusal_works_on_heads_that_cannot_be_crossed(name: str, method: str) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config(name)))
    with pytest.raises(ValueError) as refused:
        distill_config(model, model, method, teacher_checkpoint='weights.pth')
    ways = re.findall(r'`--method (\w+)`', str(refused.value))
    assert ways and 'crosskd' not in ways
    for way in ways:
        distill_config(model, model, way, teacher_checkpoint='weights.pth')


@pytest.mark.parametrize('through', [5, -4])
def test_a_layer_out_of_range_is_refused_with_the_option_to_set(through: int) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('retinanet')))
    with pytest.raises(ValueError, match=rf'needs `through` from 0 to 1, .*, got {through}; set `aligner.through` of'):
        distill_config(model, model, 'crosskd', teacher_checkpoint='weights.pth',
                       options={'model.alignments.dense.aligner.through': through})


def test_a_cached_teacher_has_no_head() -> None:
    with pytest.raises(ValueError, match='`alignments.dense.aligner` has `through`, as `--method crosskd`: .*live'):
        asking_cache('dense', dict(aligner=dict(type='DenseAligner', through=-1), losses={}))
