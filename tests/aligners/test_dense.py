"""Labels and refusals of DenseAligner."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from ckd_mmdet.aligners import DenseAligner
from ckd_mmdet.aligners.dense import class_rows
from ckd_mmdet.aligners.dense_labels import loss_labels
from ckd_mmdet.alignment import build_alignment
from mmengine.logging import MessageHub
from torch import nn

from tests.aligners.scenes import Heard, answered, copied, hear, training
from tests.toys import toy_config, toy_model
from tests.waits import Waits


def built(name: str, seed: int = 0) -> nn.Module:
    return training(toy_model(toy_config(name), seed))


# Labels


@pytest.mark.parametrize('name', ['retinanet', 'atss', 'gfl', 'yolof'])
def test_labels_are_those_of_the_heads_own_assignment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    student, targets = built(name), []
    own = student.bbox_head.get_targets
    monkeypatch.setattr(student.bbox_head, 'get_targets', lambda *a, **k: targets.append(own(*a, **k)) or targets[-1])
    answer = answered(DenseAligner(), copied(student), hear(DenseAligner(), student))
    if name in ('atss', 'gfl'):
        labels, weights = targets[0][1:3]
    else:
        labels, weights = targets[0][:2]
    if isinstance(labels, torch.Tensor):  # YOLOF's one level
        labels, weights = [labels], [weights]
    labels, weights = (torch.cat([level.flatten() for level in one]) for one in (labels, weights))
    assert torch.equal(answer.labels, labels.masked_fill(weights <= 0, -1))
    assert ((answer.labels >= 0) & (answer.labels < 3)).any()


def test_labels_of_points_are_those_of_the_heads_own_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    student, targets = built('fcos'), []
    own = student.bbox_head.get_targets
    monkeypatch.setattr(student.bbox_head, 'get_targets', lambda *a, **k: targets.append(own(*a, **k)) or targets[-1])
    answer = answered(DenseAligner(), copied(student), hear(DenseAligner(), student))
    assert torch.equal(answer.labels, torch.cat(targets[0][0]))
    assert ((answer.labels >= 0) & (answer.labels < 3)).any()


@pytest.fixture(params=[0, 4])
def tood(request: pytest.FixtureRequest) -> Iterator[nn.Module]:
    """In its first epoch, and in the one from which on it takes another loss."""
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch')
    hub.update_info('epoch', request.param)
    yield built('tood')
    hub.update_info('epoch', before)


def test_tood_gives_labels_before_and_after_it_changes_its_loss(tood: nn.Module) -> None:
    answer = answered(DenseAligner(), copied(tood), hear(DenseAligner(), tood))
    assert ((answer.labels >= 0) & (answer.labels < 3)).any()


def test_toods_probabilities_become_logits(tood: nn.Module) -> None:
    student = tood
    heard = hear(DenseAligner(), student)
    answer = answered(DenseAligner(), copied(student), heard)
    maps = heard.tape.scores.only().output[0]
    probabilities = torch.cat([level.permute(0, 2, 3, 1).reshape(-1, 3) for level in maps])
    torch.testing.assert_close(answer.student.take(torch.arange(len(probabilities))).sigmoid(), probabilities,
                               rtol=1e-4, atol=1e-5)


def test_a_head_that_reorders_its_rows_gives_no_labels() -> None:
    student = built('paa')
    answer = answered(DenseAligner(), copied(student), hear(DenseAligner(), student))
    rows = torch.arange(len(answer.student))
    assert torch.equal(answer.student.take(rows), answer.teacher.take(rows))
    assert answer.labels is None
    assert answer.no_labels == 'its PAAHead reorders its rows before `loss_cls`, or leaves some out'


def reordered(loss: nn.Module, args: tuple) -> tuple:
    return args[0].flip(0), *args[1:]


def shortened(loss: nn.Module, args: tuple) -> tuple:
    return args[0][:-1], args[1][:-1], args[2][:-1]


def of_two_kinds(loss: nn.Module, args: tuple) -> tuple:
    return args[0], args[1].float(), args[2]


@pytest.mark.parametrize('change, reason', [
    (reordered, 'reorders its rows before `loss_cls`, or leaves some out'),
    (shortened, 'reorders its rows before `loss_cls`, or leaves some out'),
    (of_two_kinds, 'has no whole number a row as target of `loss_cls`'),
])
def test_labels_of_other_rows_are_not_trusted(change: Callable, reason: str) -> None:
    student = built('retinanet')
    loss, own = student.bbox_head.loss_cls, student.bbox_head.loss_cls.forward
    loss.register_forward_pre_hook(change)
    loss.forward = lambda scores, target, weight, **rest: own(scores, target.long(), weight, **rest)
    answer = answered(DenseAligner(), copied(student), hear(DenseAligner(), student))
    assert answer.labels is None
    assert answer.no_labels == f'its RetinaHead {reason}'


def test_labels_of_a_student_that_diverged_are_there_all_the_same() -> None:
    student = built('retinanet')
    torch.nn.init.constant_(student.bbox_head.retina_cls.bias, float('nan'))
    heard = hear(DenseAligner(), student)
    answer = answered(DenseAligner(), built('retinanet'), heard)
    assert answer.student.take(torch.arange(5)).isnan().all()
    assert (answer.labels >= 0).any() and not answer.no_labels


# The order of the rows: read in the first steps, left on the device later


@pytest.fixture
def read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('ckd_mmdet.aligners.dense_labels.STEPS_READ', 2)


def labels_of(aligner: DenseAligner, heard: Heard, *changes: Callable) -> tuple[tuple, list[str]]:
    """What :func:`loss_labels` gives of a step, whose loss's arguments may be changed, and how it waits."""
    tape = heard.tape
    if changes:
        tape = replace(tape, targets=[copy.copy(tap) for tap in tape.targets])
        for tap in tape.targets:
            tap.calls = [replace(call, args=change(tap.module, call.args)) for call in tap.calls for change in changes]
    rows = class_rows(tape.head, tape.scores.only().output)
    with Waits() as waits:
        found = loss_labels(tape, rows, aligner._in_order)
    return found, waits.seen


def test_the_order_of_rows_is_read_in_the_first_steps_only(read_twice: None) -> None:
    aligner = DenseAligner()
    heard = hear(aligner, built('retinanet'))
    steps = [labels_of(aligner, heard) for _ in range(4)]
    assert [waits for _, waits in steps] == [['_local_scalar_dense']] * 2 + [[]] * 2
    assert [list(faults.values()) for (_, _, faults), _ in steps] == [[], [], [False], [False]]
    for (labels, why_not, _), _ in steps:
        assert torch.equal(labels, steps[0][0][0]) and not why_not


def test_a_loss_that_reorders_its_rows_later_is_a_fault_of_the_answer(read_twice: None) -> None:
    aligner = DenseAligner()
    heard = hear(aligner, built('retinanet'))
    for _ in range(2):
        labels_of(aligner, heard)
    (_, _, faults), waits = labels_of(copy.deepcopy(aligner), heard, reordered)
    (text, happened), = faults.items()
    assert happened and not happened.ndim and not waits
    assert text == ('expected RetinaHead to give its rows to `bbox_head.loss_cls` in the order of its maps, as in the '
                    'first 2 steps, saw another order, so that the labels are those of other rows; take a selector and '
                    'losses that need no labels, such as TeacherTopK with CKDLoss or KDLoss')


def test_a_student_that_diverges_later_is_no_fault_of_the_order(read_twice: None) -> None:
    aligner, student = DenseAligner(), built('retinanet')
    heard = hear(aligner, student)
    for _ in range(2):
        labels_of(aligner, heard)
    torch.nn.init.constant_(student.bbox_head.retina_cls.bias, float('nan'))
    (_, _, faults), _ = labels_of(aligner, hear(aligner, student))
    assert [bool(happened) for happened in faults.values()] == [False]


def test_a_loss_that_reordered_its_rows_once_is_not_read_again() -> None:
    aligner = DenseAligner()
    heard = hear(aligner, built('retinanet'))
    (first, reason, _), waits = labels_of(aligner, heard, reordered)
    assert first is None and len(waits) == 1
    again, waits = labels_of(aligner, heard)
    assert again == (None, reason, {}) and not waits


@pytest.mark.parametrize('name', ['paa', 'yolof'])
def test_a_loss_of_other_rows_by_their_number_alone_is_never_read(name: str) -> None:
    heard = hear(DenseAligner(), built(name))
    changes = [shortened] if name == 'yolof' else []
    (labels, reason, _), waits = labels_of(DenseAligner(), heard, *changes)
    assert labels is None and 'reorders its rows before `loss_cls`, or leaves some out' in reason and not waits


def test_each_loss_of_a_head_is_read_in_its_own_first_steps(read_twice: None) -> None:
    hub, aligner = MessageHub.get_current_instance(), DenseAligner()
    before, waits = hub.get_info('epoch'), []
    student = built('tood')
    for epoch in (0, 0, 0, 4, 4, 4):
        hub.update_info('epoch', epoch)
        waits.append(len(labels_of(aligner, hear(aligner, student))[1]))
    hub.update_info('epoch', before)
    assert waits == [1, 1, 0, 1, 1, 0]


def test_an_answer_waits_for_nothing_once_the_order_is_known(read_twice: None) -> None:
    aligner, student = DenseAligner(), built('fcos')
    heard, teacher = hear(aligner, student), copied(student)
    feats = teacher.extract_feat(heard.inputs)
    for _ in range(2):
        aligner.ask(teacher, feats, heard.tape, heard.data_samples)
    with Waits() as waits:
        answer = aligner.ask(teacher, feats, heard.tape, heard.data_samples)
        rows = answer.teacher.confidence([0, 2]).topk(8).indices
        answer.teacher.take(rows), answer.student.take(rows), answer.labels[rows]
    assert waits.seen == []


# Refusals


@pytest.mark.parametrize('student, teacher, message', [
    ('retinanet', 'yolof', "needs a teacher whose YOLOFHead has the strides of the student's RetinaHead, "
                           r'\[8, 16, 32, 64, 128\], got \[32\]; take an ObjectAligner'),
    ('retinanet', 'atss', r"has the anchors a cell of the student's RetinaHead, \[9, 9, 9, 9, 9\], "
                          r'got \[1, 1, 1, 1, 1\]'),
    ('retinanet', 'faster_rcnn', r'needs a teacher with a dense head `bbox_head`, and the FasterRCNN has no such '
                                 r"module; give `head` one of \['rpn_head'\]"),
])
def test_heads_that_do_not_fit_are_refused(student: str, teacher: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DenseAligner().scorings(built(student), built(teacher))


def test_other_anchors_are_refused() -> None:
    config = toy_config('retinanet')
    config.bbox_head.anchor_generator.octave_base_scale = 8
    message = (r"needs a teacher whose RetinaHead has the anchors of the student's RetinaHead; on level 0 they are "
               r"\(width, height\) \[\(45, 23\), .*, the teacher's \[\(91, 45\), .*; take an ObjectAligner")
    with pytest.raises(ValueError, match=message):
        DenseAligner().scorings(built('retinanet'), toy_model(config))


@pytest.mark.parametrize('head, fact', [('box_head', 'has no such module'), ('neck', 'has a FPN there')])
def test_a_head_that_does_not_exist_is_refused_with_those_that_do(head: str, fact: str) -> None:
    with pytest.raises(ValueError, match=rf"needs a student with a dense head `{head}`, and the RetinaNet {fact}; give "
                                         r"`head` one of \['bbox_head'\]"):
        DenseAligner(head).scorings(built('retinanet'), built('retinanet'))


def test_maps_of_other_sizes_are_refused_in_the_first_step() -> None:
    student = built('retinanet')
    teacher = copied(student)
    heard = hear(DenseAligner(), student)
    feats = teacher.extract_feat(torch.zeros(2, 3, 128, 64))
    with pytest.raises(RuntimeError, match="expected the teacher's RetinaHead to give class maps of the student's"):
        DenseAligner().ask(teacher, feats, heard.tape, heard.data_samples)


@pytest.mark.parametrize('selector', [None, dict(type='All'), [], [dict(type='All')]])
def test_every_anchor_is_refused_with_their_number(selector: dict | list | None) -> None:
    alignment = build_alignment('dense', dict(aligner=dict(type='DenseAligner'), selector=selector,
                                              losses=dict(loss_ckd=dict(type='CKDLoss'))))
    model = built('retinanet')
    with pytest.raises(ValueError, match=r'`alignments.dense` needs a `selector`, every anchor of a RetinaHead would '
                                         r'be too many: an image of 800x1333 has 200,700 rows here, and comparing each '
                                         r"with each would take 150 GiB; take `selector=dict\(type='TeacherTopK', k="):
        alignment.check(model, model)
