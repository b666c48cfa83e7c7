"""LDLoss: which rows count, how much each, and by what the sum is divided."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ckd_mmdet.functional import ld_loss
from ckd_mmdet.losses import LDLoss
from ckd_mmdet.samples import AlignedSamples, Side
from torch import Tensor


@pytest.fixture
def rows() -> AlignedSamples:
    """Of three classes; the second and the third row hold an object, the third to fifth are near one."""
    torch.manual_seed(0)
    sides = [Side(torch.randn(6, 3), distributions=torch.randn(6, 4, 5)) for _ in range(2)]
    near = torch.tensor([False, False, True, True, True, False])
    return AlignedSamples(*sides, 3, torch.tensor([3, 0, 2, 3, 3, 3]), scoring='sigmoid', valuable=near)


def values(samples: AlignedSamples) -> Tensor:
    return ld_loss(samples.student.distributions, samples.teacher.distributions)


@pytest.mark.parametrize(('region', 'counted'), [('all', range(6)), ('positives', (1, 2)), ('valuable', (3, 4))])
def test_it_is_the_mean_of_the_rows_of_its_region(rows: AlignedSamples, region: str, counted: range) -> None:
    torch.testing.assert_close(LDLoss(region=region, loss_weight=0.5)(rows), 0.5 * values(rows)[list(counted)].mean())


def test_rows_weigh_by_the_students_confidence_and_the_released_sum_is_not_divided(rows: AlignedSamples) -> None:
    weights = rows.student.logits.sigmoid().amax(1)[1:3]
    total = (weights * values(rows)[1:3]).sum()
    settings = dict(region='positives', weight_by='confidence')
    torch.testing.assert_close(LDLoss(**settings)(rows), total / weights.sum())
    torch.testing.assert_close(LDLoss(**settings, normalize='sum', loss_weight=0.25)(rows), total / 4)


def test_the_temperature_reaches_the_formula(rows: AlignedSamples) -> None:
    expected = ld_loss(rows.student.distributions, rows.teacher.distributions, temperature=2.0).mean()
    assert LDLoss(2.0)(rows) == expected != LDLoss()(rows)


def test_where_the_region_is_empty_it_is_zero_with_a_graph(rows: AlignedSamples) -> None:
    rows.student.distributions.requires_grad_()
    loss = LDLoss(region='valuable')(replace(rows, valuable=torch.zeros(6, dtype=torch.bool)))
    assert loss == 0
    loss.backward()
    assert not rows.student.distributions.grad.any()


def test_it_says_what_it_requires() -> None:
    assert LDLoss().requires == {'logits', 'distributions'}
    assert LDLoss(region='positives').requires == {'logits', 'distributions', 'labels'}
    assert LDLoss(region='valuable').requires == {'logits', 'distributions', 'labels', 'valuable'}


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(temperature=0), '`LDLoss` needs a finite `temperature` greater than 0, got 0'),
    (dict(region='vlr'), r"`LDLoss` needs `region` to be one of \('all', 'positives', 'valuable'\), got 'vlr'"),
    (dict(weight_by='gap'), r"`LDLoss` needs `weight_by` to be one of \(None, 'confidence'\), got 'gap'"),
    (dict(normalize='mean'), '`LDLoss` needs `normalize` to be one of')])
def test_a_wrong_setting_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LDLoss(**settings)
