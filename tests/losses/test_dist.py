"""Every hyper-parameter of DISTLoss reaches the formula."""

import pytest
import torch
from ckd_mmdet.functional import dist_loss
from ckd_mmdet.losses import DISTLoss
from ckd_mmdet.samples import AlignedSamples, Side

SETTINGS = [dict(beta=2.0), dict(gamma=0.5), dict(temperature=4.0)]


@pytest.fixture
def samples() -> AlignedSamples:
    torch.manual_seed(0)
    return AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 3)


def test_by_default_it_is_the_released_loss(samples: AlignedSamples) -> None:
    expected = dist_loss(samples.student.logits, samples.teacher.logits, beta=1.0, gamma=1.0, temperature=1.0).mean()
    assert DISTLoss()(samples) == expected


@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_each_setting_reaches_the_formula(samples: AlignedSamples, setting: dict) -> None:
    loss = DISTLoss(**setting, loss_weight=0.1)(samples)
    assert loss == 0.1 * dist_loss(samples.student.logits, samples.teacher.logits, **setting).mean()
    assert loss != DISTLoss(loss_weight=0.1)(samples)


def test_it_requires_class_distributions_and_no_labels() -> None:
    assert DISTLoss().requires == {'logits'}
    assert DISTLoss().scorings == {'softmax'}


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`DISTLoss` needs a finite `temperature` greater than 0, got 0'),
    (dict(beta=-1), '`DISTLoss` needs a finite `beta` of at least 0, got -1'),
    (dict(gamma=-2), '`DISTLoss` needs a finite `gamma` of at least 0, got -2')])
def test_a_wrong_argument_is_named_when_it_is_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DISTLoss(**arguments)
