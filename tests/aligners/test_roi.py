"""What RoIAligner refuses, and how it pairs a head with stages with one that has none."""

import copy

import pytest
import torch
from ckd_mmdet.aligners import RoIAligner
from torch import nn

from tests.aligners.scenes import ask, copied, hear
from tests.toys import toy_config, toy_model


def built(name: str, num_classes: int = 3, seed: int = 0) -> nn.Module:
    return toy_model(toy_config(name, num_classes), seed).train()


# Before training


@pytest.mark.parametrize('sides', [('retinanet', 'faster_rcnn'), ('faster_rcnn', 'retinanet')])
def test_a_detector_without_roi_head_is_refused(sides: tuple[str, str]) -> None:
    side = ('student', 'teacher')[sides.index('retinanet')]
    message = (f'`RoIAligner` needs a {side} with `roi_head.bbox_head`, got a RetinaNet; it serves two-stage detectors '
               'such as Faster, Mask and Cascade R-CNN')
    with pytest.raises(ValueError, match=message):
        RoIAligner().check(*map(built, sides))


@pytest.mark.parametrize('stage', [None, 3, -1])
@pytest.mark.parametrize('sides', [('cascade_rcnn', 'faster_rcnn'), ('faster_rcnn', 'cascade_rcnn')])
def test_a_head_with_stages_needs_one_of_them(sides: tuple[str, str], stage: int | None) -> None:
    side = ('student', 'teacher')[sides.index('cascade_rcnn')]
    message = f"`RoIAligner` needs a `stage` from 0 to 2 for the stages of the {side}'s CascadeRoIHead, got {stage}"
    with pytest.raises(ValueError, match=message):
        RoIAligner(stage).check(*map(built, sides))


def test_a_stage_where_neither_head_has_any_is_refused() -> None:
    with pytest.raises(ValueError, match='got `stage=0`, but neither model has a RoI head with stages; leave'):
        RoIAligner(stage=0).check(built('faster_rcnn'), built('mask_rcnn'))


def test_other_classes_are_refused() -> None:
    message = r'needs as many classes in the teacher \(5\) as in the student \(3\); give a teacher trained on the same'
    with pytest.raises(ValueError, match=message):
        RoIAligner().check(built('faster_rcnn'), built('faster_rcnn', num_classes=5))


def test_other_logits_for_the_same_classes_are_refused() -> None:
    teacher = built('faster_rcnn')
    teacher.roi_head.bbox_head.fc_cls = nn.Linear(32, 6)
    with pytest.raises(ValueError, match=r'needs as many logits a RoI in the teacher \(6\) as in the student \(4\)'):
        RoIAligner().check(built('faster_rcnn'), teacher)


def test_a_head_that_scores_elsewhere_is_refused() -> None:
    student = built('faster_rcnn')
    del student.roi_head.bbox_head.fc_cls
    with pytest.raises(ValueError, match='needs a student whose RoI head scores classes in a layer `fc_cls`; '
                                         'Shared2FCBBoxHead has none'):
        RoIAligner().check(student, built('faster_rcnn'))


# In the first step


def test_a_loss_over_other_rows_than_the_heads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    student = built('faster_rcnn')
    head, own = student.roi_head.bbox_head, student.roi_head.bbox_head.loss
    monkeypatch.setattr(head, 'loss', lambda scores, *args, **kwargs: own(scores.flip(0), *args, **kwargs))
    heard = hear(RoIAligner(), student)
    with pytest.raises(RuntimeError, match='expected `roi_head.bbox_head.loss_cls` to be called with the rows that '
                                           '`roi_head.bbox_head` gave, saw another tensor'):
        ask(RoIAligner(), copied(student), heard)


def test_a_loss_without_one_label_a_row_is_refused() -> None:
    student = built('faster_rcnn')
    student.roi_head.bbox_head.loss_cls.register_forward_pre_hook(
        lambda loss, args: (args[0], nn.functional.one_hot(args[1], 4).float(), *args[2:]))
    heard = hear(RoIAligner(), student)
    n = len(heard.tape.scores.only().output[0])
    with pytest.raises(RuntimeError, match=rf'with one label a row, shape \({n},\), saw \({n}, 4\)'):
        ask(RoIAligner(), copied(student), heard)


def test_a_head_that_is_called_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    student = built('faster_rcnn')
    roi_head, own = student.roi_head, student.roi_head._bbox_forward
    monkeypatch.setattr(roi_head, '_bbox_forward', lambda *args: own(*args) and own(*args))
    heard = hear(RoIAligner(), student)
    with pytest.raises(RuntimeError, match='expected one call of roi_head.bbox_head, saw 2'):
        ask(RoIAligner(), copied(student), heard)


def test_a_stage_that_is_left_out_although_there_are_rows_is_refused() -> None:
    student = built('cascade_rcnn')
    student.roi_head.num_stages = 1
    heard = hear(RoIAligner(stage=1), student)
    with pytest.raises(RuntimeError, match='expected one call of roi_head.bbox_roi_extractor, saw 0'):
        ask(RoIAligner(stage=1), copied(student), heard)


def test_a_student_that_was_not_heard_is_refused() -> None:
    student = built('faster_rcnn')
    heard = hear(RoIAligner(), student)
    with RoIAligner().listen(student) as heard.tape:
        pass
    with pytest.raises(RuntimeError, match='expected one call of roi_head.bbox_head, saw 0'):
        ask(RoIAligner(), copied(student), heard)


def test_double_heads_with_their_two_sets_of_rois_are_refused() -> None:
    student = built('double_head_rcnn')
    heard = hear(RoIAligner(), student)
    with pytest.raises(RuntimeError, match='expected one call of roi_head.bbox_roi_extractor, saw 2'):
        ask(RoIAligner(), copied(student), heard)


# One side with stages, the other without


def same_classifier(cascade: nn.Module, stage: int, faster: nn.Module) -> None:
    """Give one stage of ``cascade``, and all that comes before it, the weights of ``faster``."""
    for part in ('backbone', 'neck'):
        getattr(cascade, part).load_state_dict(getattr(faster, part).state_dict())
    head = cascade.roi_head.bbox_head[stage]
    for part in ('shared_fcs', 'fc_cls'):
        getattr(head, part).load_state_dict(getattr(faster.roi_head.bbox_head, part).state_dict())


@pytest.mark.parametrize('stage', [0, 1, 2])
def test_a_cascade_teaches_a_plain_student_from_the_given_stage(stage: int) -> None:
    student, teacher, aligner = built('faster_rcnn'), built('cascade_rcnn', seed=1).eval(), RoIAligner(stage)
    same_classifier(teacher, stage, student)
    aligner.check(student, teacher)
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)


@pytest.mark.parametrize('stage', [0, 1, 2])
def test_a_plain_teacher_teaches_the_given_stage_of_a_cascade(stage: int) -> None:
    student, teacher, aligner = built('cascade_rcnn'), built('faster_rcnn', seed=1).eval(), RoIAligner(stage)
    same_classifier(student, stage, teacher)
    aligner.check(student, teacher)
    aligned = ask(aligner, teacher, hear(aligner, student))
    assert torch.equal(aligned.student.logits, aligned.teacher.logits)


def test_the_teacher_looks_at_its_own_features() -> None:
    student = built('faster_rcnn')
    teacher = copy.deepcopy(student).eval()
    with torch.no_grad():
        teacher.neck.fpn_convs[0].conv.weight.mul_(2)
    aligned = ask(RoIAligner(), teacher, hear(RoIAligner(), student))
    assert (aligned.student.logits != aligned.teacher.logits).any()
