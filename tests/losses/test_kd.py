"""Every hyper-parameter of KDLoss reaches the formula."""

from dataclasses import replace

import pytest
import torch
from ckd_mmdet.functional import binary_kd_loss, class_log_odds, kd_loss, quality_kd_loss
from ckd_mmdet.losses import KDLoss
from ckd_mmdet.samples import AlignedSamples, Side
from torch import Tensor


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_the_temperature_reaches_the_formula(temperature: float) -> None:
    torch.manual_seed(0)
    samples = AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 3)
    expected = kd_loss(samples.student.logits, samples.teacher.logits, temperature=temperature).mean()
    assert KDLoss(temperature, loss_weight=0.5)(samples) == 0.5 * expected
    assert KDLoss(3.0, loss_weight=0.5)(samples) != 0.5 * expected


def test_by_default_nothing_is_softened() -> None:
    assert KDLoss().temperature == 1


def test_a_wrong_temperature_is_named_when_it_is_built() -> None:
    with pytest.raises(ValueError, match='`KDLoss` needs a finite `temperature` greater than 0, got -1'):
        KDLoss(-1)


def test_between_sigmoid_heads_it_is_the_binary_form() -> None:
    torch.manual_seed(0)
    samples = AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 4, scoring='sigmoid')
    expected = binary_kd_loss(samples.student.logits, samples.teacher.logits, temperature=2.0).mean()
    assert KDLoss(2.0)(samples) == expected


def test_one_probability_of_a_softmax_is_refused() -> None:
    """It is always 1: the loss would be 0 for every student. One sigmoid is none of that."""
    one = AlignedSamples(Side(torch.randn(6, 1)), Side(torch.randn(6, 1)), 1)
    with pytest.raises(ValueError, match='`KDLoss` between softmax heads needs rows of at least 2 scores, got 1'):
        KDLoss()(one)
    assert KDLoss()(replace(one, scoring='sigmoid')) > 0


def test_standardised_logits_reach_the_formula_and_are_refused_between_sigmoid_heads() -> None:
    torch.manual_seed(0)
    samples = AlignedSamples(Side(torch.randn(6, 4)), Side(torch.randn(6, 4)), 3)
    loss = KDLoss(2.0, standardize=True, loss_weight=0.5)
    expected = kd_loss(samples.student.logits, samples.teacher.logits, temperature=2.0, standardize=True).mean()
    assert loss(samples) == 0.5 * expected
    assert KDLoss(2.0, loss_weight=0.5)(samples) != 0.5 * expected
    assert loss.scorings == {'softmax'}
    assert KDLoss(2.0).scorings == {'softmax', 'sigmoid', 'mixed'}


@pytest.mark.parametrize('classes', [1, 3])
def test_between_a_softmax_and_a_sigmoid_it_compares_the_probabilities_of_each_class(classes: int) -> None:
    torch.manual_seed(0)
    softmax, sigmoid = torch.randn(6, classes + 1), torch.randn(6, classes)
    odds = class_log_odds(softmax)[:, :classes]
    assert torch.allclose(odds.sigmoid(), softmax.softmax(1)[:, :classes], atol=1e-6)
    one, other = Side(softmax[:, :classes], log_odds=odds), Side(sigmoid)
    assert KDLoss()(AlignedSamples(one, other, classes, scoring='mixed')) == binary_kd_loss(odds, sigmoid).mean()
    assert KDLoss()(AlignedSamples(other, one, classes, scoring='mixed')) == binary_kd_loss(sigmoid, odds).mean()
    # equal probabilities, written in two ways
    assert KDLoss()(AlignedSamples(one, Side(odds), classes, scoring='mixed')) == pytest.approx(0, abs=1e-6)


def dense(n: int = 6, classes: int = 4) -> AlignedSamples:
    torch.manual_seed(0)
    return AlignedSamples(Side(torch.randn(n, classes)), Side(torch.randn(n, classes)), classes,
                          torch.tensor([0, 4, 4, 2, 4, 4][:n]), scoring='sigmoid')


def test_the_quality_loss_with_its_beta_is_the_formula_and_suits_no_pair_of_softmax_heads() -> None:
    samples = dense()
    expected = quality_kd_loss(samples.student.logits, samples.teacher.logits, beta=2.0).mean()
    assert KDLoss(kind='quality', beta=2.0)(samples) == expected != KDLoss(kind='quality')(samples)
    assert KDLoss(kind='quality').scorings == {'sigmoid', 'mixed'}


@pytest.mark.parametrize(('positives', 'divisor'), [(None, 2.0), (torch.tensor(3.5), 3.5), (torch.tensor(0.0), 1.0)],
                         ids=['of this process', 'of all ranks', 'none on any rank'])
def test_normalised_by_positives_it_is_the_sum_over_rows_with_an_object(positives: Tensor, divisor: float) -> None:
    loss, samples = KDLoss(normalize='positives'), replace(dense(), positives=positives)
    torch.testing.assert_close(loss(samples), 6 * KDLoss()(samples) / divisor)
    assert loss.requires == {'logits', 'labels'} and loss.counts_positives and not KDLoss().counts_positives


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(kind='focal'), r"`KDLoss` needs `kind` to be one of \('divergence', 'quality'\), got 'focal'"),
    (dict(normalize='rows'), r"`KDLoss` needs `normalize` to be one of \('weights', 'positives'\), got 'rows'"),
    (dict(beta=0.5), '`KDLoss` needs a finite `beta` that is 0 or at least 1, got 0.5'),
    (dict(kind='quality', temperature=2.0), 'compares probabilities as they are; leave `temperature`')])
def test_a_wrong_setting_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KDLoss(**settings)
