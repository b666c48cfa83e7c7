"""Every choice of CKDLoss reaches the formula: anchors, negatives and the loss itself."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from ckd_mmdet.functional import ckd_loss, little_overlap, other_id, relation_loss, same_id, told_apart
from ckd_mmdet.losses import CKDLoss, RowLoss
from ckd_mmdet.registry import MODELS, build_part
from ckd_mmdet.samples import AlignedSamples, Side, Widths
from torch import Tensor

SETTINGS = [dict(temperature=0.3), dict(contrast='student_student'), dict(contrast='student_teacher'),
            dict(contrast='symmetric'), dict(terms='intra'), dict(terms='inter'),
            dict(temperature=2.0, contrast='symmetric', terms='inter')]


@pytest.fixture
def samples() -> AlignedSamples:
    """Three classes; 3 is background."""
    torch.manual_seed(0)
    return AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 3,
                          image_ids=torch.tensor([0, 0, 1, 1, 1, 3]), labels=torch.tensor([0, 3, 0, 0, 2, 3]))


def rows(samples: AlignedSamples, **settings: Any) -> Tensor:
    return ckd_loss(samples.student.logits, samples.teacher.logits, **settings)


def test_by_default_it_is_the_released_loss(samples: AlignedSamples) -> None:
    released = dict(temperature=1.0, contrast='teacher_student', terms='both', negatives=None)
    assert CKDLoss()(samples) == rows(samples, **released).mean()
    assert CKDLoss(anchors='all', negatives='all')(samples) == CKDLoss()(samples)
    assert CKDLoss().requires == {'logits'}


@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_each_setting_reaches_the_formula(samples: AlignedSamples, setting: dict) -> None:
    loss = CKDLoss(**setting, loss_weight=0.1)(samples)
    assert loss == 0.1 * rows(samples, **setting).mean()
    assert loss != CKDLoss(loss_weight=0.1)(samples)


@pytest.mark.parametrize(('negatives', 'requires'), [
    ('same_image', ['logits', 'image_ids']), (['same_image'], ['logits', 'image_ids']),
    ('other_label', ['logits', 'labels']), (('other_label',), ['logits', 'labels']),
    (['other_label', 'same_image'], ['logits', 'labels', 'image_ids'])], ids=str)  # of sets, workers read other orders
def test_negatives_are_those_that_fulfil_every_rule(samples: AlignedSamples, negatives: Any, requires: list) -> None:
    loss = CKDLoss(negatives=negatives)
    assert loss.requires == set(requires)
    mask = torch.ones(6, 6, dtype=torch.bool)
    if 'same_image' in negatives:
        mask &= same_id(samples.image_ids)
    if 'other_label' in negatives:
        mask &= other_id(samples.labels)
    assert loss(samples) == rows(samples, negatives=mask).mean()
    assert loss(samples) != CKDLoss()(samples)


def test_of_foreground_anchors_every_row_is_a_negative(samples: AlignedSamples) -> None:
    loss = CKDLoss(anchors='foreground', loss_weight=2.0)
    assert loss.requires == {'logits', 'labels'}
    torch.testing.assert_close(loss(samples), 2 * rows(samples)[[0, 2, 3, 4]].mean())


def test_anchors_and_negatives_are_chosen_apart(samples: AlignedSamples) -> None:
    loss = CKDLoss(anchors='foreground', negatives='other_label')
    expected = rows(samples, negatives=other_id(samples.labels))[[0, 2, 3, 4]].mean()
    torch.testing.assert_close(loss(samples), expected)


def test_without_a_foreground_anchor_the_loss_is_0_with_a_graph(samples: AlignedSamples) -> None:
    student = samples.student.logits.requires_grad_()
    loss = CKDLoss(anchors='foreground')(replace(samples, labels=torch.full((6,), 3)))
    loss.backward()
    assert loss == 0 and not student.grad.any()


@pytest.mark.parametrize('setting', [dict(negatives='other_label'), dict(anchors='foreground')], ids=str)
def test_what_needs_one_class_a_row_refuses_the_soft_labels_of_mixup(samples: AlignedSamples, setting: dict) -> None:
    mixed = replace(samples, labels=torch.rand(6, 3).softmax(1))
    with pytest.raises(ValueError, match=r'`CKDLoss` needs one class a row, .*of shape \(6, 3\); leave mixup'):
        CKDLoss(**setting)(mixed)
    assert CKDLoss()(mixed).isfinite()


@pytest.mark.parametrize(('setting', 'part'), [
    (dict(negatives='other_label'), 'labels'), (dict(anchors='foreground'), 'labels'),
    (dict(negatives='same_image'), 'image_ids'), (dict(preview=dict()), 'labels')], ids=str)
def test_rows_without_what_it_reads_are_refused_in_one_sentence(samples: AlignedSamples, setting: dict, part: str
                                                                ) -> None:
    with pytest.raises(ValueError, match=f'`CKDLoss` .*needs `{part}` of the rows, got None; take an aligner that'):
        CKDLoss(**setting)(replace(samples, **{part: None}))


@pytest.mark.parametrize('terms', ['both', 'inter'])
@pytest.mark.parametrize(('background', 'way_out'), [(True, 'leave that out of `negatives`, or take a KDLoss'),
                                                     (False, 'take a KDLoss')])
def test_negatives_of_another_label_need_a_second_class(samples: AlignedSamples, terms: str, background: bool,
                                                        way_out: str) -> None:
    loss = CKDLoss(negatives=['same_image', 'other_label'], terms=terms)
    with pytest.raises(ValueError, match="`CKDLoss` with `negatives='other_label'` needs at least two classes, and "
                                         f'student and teacher share one: .* no negatives; {way_out}'):
        loss.check(1, background)
    loss.check(2, background)
    for other in (CKDLoss(), CKDLoss(negatives='same_image'), CKDLoss(negatives='other_label', terms='intra')):
        other.check(1, background)  # these have something to say of one class
        one = replace(samples, labels=torch.zeros(6, dtype=torch.int64),
                      student=Side(samples.student.logits.clone().requires_grad_()))
        other(one).backward()
        assert one.student.logits.grad.any()


def test_what_check_refuses_would_be_0_for_every_student(samples: AlignedSamples) -> None:
    one = replace(samples, labels=torch.zeros(6, dtype=torch.int64))
    assert CKDLoss(negatives='other_label')(one).item() == pytest.approx(0, abs=1e-6)


# On features, by regions, by what the teacher is sure of, and relations


@pytest.fixture
def rois(samples: AlignedSamples) -> AlignedSamples:
    """The same rows with features of two widths and regions, of which the first two overlap."""
    torch.manual_seed(1)
    regions = torch.tensor([[0., 0, 10, 10], [1, 0, 11, 10], [0, 0, 10, 10], [5, 5, 9, 9], [20, 20, 30, 30],
                            [0, 0, 9, 9]])
    sides = [replace(side, features=torch.randn(6, width, requires_grad=True)) for side, width in
             ((samples.student, 5), (samples.teacher, 7))]
    return replace(samples, student=sides[0], teacher=sides[1], regions=regions)


def built(**settings: Any) -> CKDLoss:
    loss = CKDLoss(**settings)
    loss.build_parts(Widths((5,), (7,)))
    return loss


def test_features_are_compared_after_a_linear_map_that_learns(rois: AlignedSamples) -> None:
    loss = built(on='features', contrast='student_teacher', temperature=0.1)
    assert loss.requires == {'logits', 'features'} and loss.least_columns == 1
    mapped = rois.student.features @ loss.parts[0].weight.T
    torch.testing.assert_close(loss(rois), ckd_loss(mapped, rois.teacher.features, temperature=0.1,
                                                    contrast='student_teacher').mean())
    loss(rois).backward()
    assert loss.parts[0].weight.grad.any() and rois.student.features.grad.any() and rois.teacher.features.grad is None
    with pytest.raises(RuntimeError, match='does not know the widths'):
        CKDLoss(on='features')(rois)


def test_the_student_as_anchor_gets_gradient_by_its_own_loss_alone(samples: AlignedSamples) -> None:
    student = samples.student.logits.clone().requires_grad_()
    for contrast, others in (('student_teacher', False), ('teacher_student', True)):
        gradient, = torch.autograd.grad(ckd_loss(student, samples.teacher.logits, contrast=contrast)[0], student)
        assert gradient[0].any() and bool(gradient[1:].any()) == others


def test_negatives_that_are_none_are_left_out(rois: AlignedSamples) -> None:
    loss = CKDLoss(overlap=0.5, negatives='other_label')
    assert loss.requires == {'logits', 'labels', 'regions', 'image_ids'}
    mask = little_overlap(rois.regions, rois.image_ids, 0.5) & other_id(rois.labels)
    torch.testing.assert_close(loss(rois), rows(rois, negatives=mask).mean())
    assert loss(rois) != CKDLoss(negatives='other_label')(rois)
    sure = CKDLoss(difference=0.7)
    assert sure.scorings == {'softmax'} and sure.requires == {'logits'}
    mask = told_apart(rois.teacher.logits.softmax(1), 0.7)
    assert 0 < (~mask).sum() - 6 < 30
    torch.testing.assert_close(sure(rois), rows(rois, negatives=mask).mean())


def test_relations_stand_in_the_place_of_repulsion(rois: AlignedSamples) -> None:
    torch.testing.assert_close(CKDLoss(terms='relations')(rois),
                               relation_loss(rois.student.logits, rois.teacher.logits).mean())
    loss = built(terms='relations', on='features', negatives='same_image')
    assert not len(loss.parts)
    expected = relation_loss(rois.student.features, rois.teacher.features,
                             negatives=same_id(rois.image_ids).__getitem__)
    torch.testing.assert_close(loss(rois), expected.mean())


NEGATIVES = r"`CKDLoss` needs `negatives` to be 'all', one of \('same_image', 'other_label'\) or a list of these, got "


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(anchors='some'), r"`CKDLoss` needs `anchors` to be one of \('all', 'foreground'\), got 'some'"),
    (dict(temperature=0), '`CKDLoss` needs a finite `temperature` greater than 0, got 0'),
    (dict(contrast='all'), r"`CKDLoss` needs `contrast` to be one of .*, got 'all'"),
    (dict(on='maps'), r"`CKDLoss` needs `on` to be one of \('logits', 'features'\), got 'maps'"),
    (dict(overlap=1.5), '`CKDLoss` needs `overlap` from 0 to 1, or None, got 1.5'),
    (dict(difference=-1), '`CKDLoss` needs `difference` from 0 to 1, or None, got -1'),
    (dict(terms='relations', temperature=0.1), 'compares cosines .*; leave `temperature` and `contrast` out'),
    (dict(on='features', negatives_of='all'), "of other ranks, and `on='features'` needs more; leave `negatives_of`"),
    (dict(overlap=0.5, negatives_of='all'), 'and `overlap` needs more; leave `negatives_of` out'),
    (dict(terms='own'), r"`CKDLoss` needs `terms` to be one of .*, got 'own'"),
    (dict(negatives='own'), f"{NEGATIVES}'own'."), (dict(negatives=None), f'{NEGATIVES}None.'),
    (dict(negatives=[]), rf'{NEGATIVES}\[\].'), (dict(negatives=['all']), rf"{NEGATIVES}\['all'\]."),
    (dict(negatives=[['same_image']]), NEGATIVES), (dict(negatives={'other_label': 1}), NEGATIVES),
    (dict(negatives='symmetric'), f"{NEGATIVES}'symmetric'; .* write `contrast='symmetric'`"),
    (dict(negatives='student_student'), "write `contrast='student_student'`")])
def test_a_wrong_argument_is_named_when_it_is_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CKDLoss(**arguments)


@pytest.mark.parametrize(('old', 'now'), [
    (dict(within='image'), "has no argument `within` any more; write `negatives='same_image'`"),
    (dict(same_label='left_out'), "has no argument `same_label` any more; write `negatives='other_label'`")])
def test_a_config_with_an_argument_of_before_says_what_to_write_now(old: dict, now: str) -> None:
    with pytest.raises(ValueError, match=f'`here`: `CKDLoss` {now}'):
        build_part(MODELS, dict(type='CKDLoss', **old), RowLoss, '`here`')
