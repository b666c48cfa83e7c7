"""Every hyper-parameter of CKDLoss reaches the formula."""

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
                          image_ids=torch.tensor([0, 0, 1, 1, 1, 3]))


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


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`CKDLoss` needs a `temperature` greater than 0, got 0'),
    (dict(negatives='all'), r"`CKDLoss` needs `negatives` to be one of .*, got 'all'"),
    (dict(terms='own'), r"`CKDLoss` needs `terms` to be one of .*, got 'own'"),
    (dict(within='rank'), r"`CKDLoss` needs `within` to be one of \('batch', 'image'\), got 'rank'")])
def test_a_wrong_argument_is_named_when_it_is_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CKDLoss(**arguments)
