"""Every hyper-parameter of DKDLoss reaches the formula, and rows without a label do not."""

import pytest
import torch
from ckd_mmdet.functional import dkd_loss
from ckd_mmdet.losses import DKDLoss
from ckd_mmdet.samples import AlignedSamples, Side

SETTINGS = [dict(alpha=2.0), dict(beta=0.25), dict(temperature=1.0), dict(standardize=True)]


@pytest.fixture
def samples() -> AlignedSamples:
    """Three classes; the third row is background, the fourth and the last are to be ignored."""
    torch.manual_seed(0)
    return AlignedSamples(Side(torch.randn(6, 4, requires_grad=True)), Side(torch.randn(6, 4)), 3,
                          torch.tensor([0, 2, 3, -1, 1, -2]))


LABELLED = [0, 1, 2, 4]


def test_by_default_it_is_the_released_loss(samples: AlignedSamples) -> None:
    expected = dkd_loss(samples.student.logits[LABELLED], samples.teacher.logits[LABELLED], samples.labels[LABELLED],
                        alpha=1.0, beta=8.0, temperature=4.0, standardize=False).mean()
    assert DKDLoss()(samples) == expected


@pytest.mark.parametrize('setting', SETTINGS, ids=str)
def test_each_setting_reaches_the_formula(samples: AlignedSamples, setting: dict) -> None:
    loss = DKDLoss(**setting, loss_weight=0.1)(samples)
    assert loss == 0.1 * dkd_loss(samples.student.logits[LABELLED], samples.teacher.logits[LABELLED],
                                  samples.labels[LABELLED], **setting).mean()
    assert loss != DKDLoss(loss_weight=0.1)(samples)


def test_rows_to_be_ignored_get_no_gradient_and_are_not_counted(samples: AlignedSamples) -> None:
    DKDLoss()(samples).backward()
    assert samples.student.logits.grad.any(1).nonzero().squeeze(1).tolist() == LABELLED


def test_a_label_beyond_the_scores_is_named(samples: AlignedSamples) -> None:
    samples.labels[0] = 4
    with pytest.raises(ValueError, match='`dkd_loss` needs `labels` of 0 to 3, one of the 4 classes, got 1 to 4'):
        DKDLoss()(samples)


def test_without_a_labelled_row_it_is_zero_with_a_graph() -> None:
    student = torch.randn(3, 4, requires_grad=True)
    loss = DKDLoss()(AlignedSamples(Side(student), Side(torch.randn(3, 4)), 3, torch.full((3,), -1)))
    assert loss == 0
    loss.backward()
    assert student.grad is not None
    assert not student.grad.any()


def test_it_requires_labels_and_class_distributions() -> None:
    assert DKDLoss().requires == {'logits', 'labels'}
    assert DKDLoss().scorings == {'softmax'}


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`DKDLoss` needs a finite `temperature` greater than 0, got 0'),
    (dict(alpha=-1), '`DKDLoss` needs a finite `alpha` of at least 0, got -1'),
    (dict(beta=-2), '`DKDLoss` needs a finite `beta` of at least 0, got -2')])
def test_a_wrong_argument_is_named_when_it_is_built(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DKDLoss(**arguments)
