"""Every hyper-parameter of CKDLoss reaches the formula."""

from dataclasses import replace

import pytest
import torch
from ckd_mmdet.functional import ckd_loss
from ckd_mmdet.losses import CKDLoss
from ckd_mmdet.samples import AlignedSamples, Side

SETTINGS = [dict(temperature=0.3), dict(negatives='student_student'), dict(negatives='symmetric'), dict(terms='intra'),
            dict(terms='inter'), dict(temperature=2.0, negatives='symmetric', terms='inter')]


@pytest.fixture
def samples() -> AlignedSamples:
    torch.manual_seed(0)
    return AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 3,
                          image_ids=torch.tensor([0, 0, 1, 1, 1, 3]), labels=torch.tensor([0, 3, 0, -1, 2, 3]))


def test_by_default_it_is_the_released_loss(samples: AlignedSamples) -> None:
    expected = ckd_loss(samples.student.logits, samples.teacher.logits, temperature=1.0, negatives='teacher_student',
                        terms='both', groups=None).mean()
    assert CKDLoss()(samples) == expected


@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_each_setting_reaches_the_formula(samples: AlignedSamples, setting: dict) -> None:
    loss = CKDLoss(**setting, loss_weight=0.1)(samples)
    assert loss == 0.1 * ckd_loss(samples.student.logits, samples.teacher.logits, **setting).mean()
    assert loss != CKDLoss(loss_weight=0.1)(samples)


def test_within_an_image_only_its_own_rows_are_contrasted(samples: AlignedSamples) -> None:
    loss = CKDLoss(within='image')
    assert loss(samples) == ckd_loss(samples.student.logits, samples.teacher.logits, groups=samples.image_ids).mean()
    assert loss(samples) != CKDLoss()(samples)


def test_only_within_an_image_it_requires_image_ids() -> None:
    assert CKDLoss(within='image').requires == {'logits', 'image_ids'}
    assert CKDLoss().requires == {'logits'}


def test_rows_of_one_label_can_be_left_out_of_each_others_negatives(samples: AlignedSamples) -> None:
    loss = CKDLoss(same_label='left_out')
    assert loss.requires == {'logits', 'labels'}
    assert loss(samples) == ckd_loss(samples.student.logits, samples.teacher.logits, labels=samples.labels).mean()
    assert loss(samples) != CKDLoss()(samples)


def test_of_foreground_anchors_every_row_is_a_negative(samples: AlignedSamples) -> None:
    loss = CKDLoss(anchors='foreground', loss_weight=2.0)
    assert loss.requires == {'logits', 'labels'}
    rows = ckd_loss(samples.student.logits, samples.teacher.logits)  # labels 0, 0 and 2; 3 is background, -1 ignored
    torch.testing.assert_close(loss(samples), 2 * (rows[0] + rows[2] + rows[4]) / 3)


def test_without_a_foreground_anchor_the_loss_is_0_with_a_graph(samples: AlignedSamples) -> None:
    student = samples.student.logits.requires_grad_()
    loss = CKDLoss(anchors='foreground')(replace(samples, labels=torch.full((6,), 3)))
    loss.backward()
    assert loss == 0 and not student.grad.any()


@pytest.mark.parametrize('setting', [dict(same_label='left_out'), dict(anchors='foreground')], ids=str)
def test_what_needs_one_class_a_row_refuses_the_soft_labels_of_mixup(samples: AlignedSamples, setting: dict) -> None:
    mixed = replace(samples, labels=torch.rand(6, 3).softmax(1))
    with pytest.raises(ValueError, match=r'`CKDLoss` needs one class a row, .*of shape \(6, 3\); leave mixup'):
        CKDLoss(**setting)(mixed)
    assert CKDLoss()(mixed).isfinite()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(same_label='out'), r"`CKDLoss` needs `same_label` to be one of \('negative', 'left_out'\), got 'out'"),
    (dict(anchors='some'), r"`CKDLoss` needs `anchors` to be one of \('all', 'foreground'\), got 'some'"),
    (dict(temperature=0), '`CKDLoss` needs a `temperature` greater than 0, got 0'),
    (dict(negatives='all'), r"`CKDLoss` needs `negatives` to be one of .*, got 'all'"),
    (dict(terms='own'), r"`CKDLoss` needs `terms` to be one of .*, got 'own'"),
    (dict(within='rank'), r"`CKDLoss` needs `within` to be one of \('batch', 'image'\), got 'rank'")])
def test_a_wrong_argument_is_named_when_it_is_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CKDLoss(**arguments)
