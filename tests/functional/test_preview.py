"""Preview's thresholds, difficulties and weights, against plain loops and numbers worked out by hand."""

import math

import pytest
import torch
from ckd_mmdet.functional import (
    binary_cross_entropy,
    cross_entropy,
    preview_threshold,
    preview_weights,
    relative_difficulty,
)
from torch import Tensor

from tests.functional.loops import binary_cross_entropy_rows, cross_entropy_rows

LOSSES = torch.tensor([0.2, 0.5, 1.0, 2.3], dtype=torch.float64)  # of the mean 1
ENTROPIES = {cross_entropy: cross_entropy_rows, binary_cross_entropy: binary_cross_entropy_rows}

every_entropy = pytest.mark.parametrize('entropy', ENTROPIES)


def random_rows(n: int = 6, c: int = 4) -> tuple[Tensor, Tensor]:
    """Logits and labels, the first and the last class among them."""
    torch.manual_seed(0)
    return 3 * torch.randn(n, c, dtype=torch.float64), torch.arange(n) % c


@pytest.mark.parametrize(('epoch', 'expected'), [(1, [1, 1, 1, 0.00504]), (240, [1, 1, 1, 1])])
def test_it_gives_the_weights_worked_out_by_hand(epoch: int, expected: list[float]) -> None:
    weights = preview_weights(relative_difficulty(LOSSES), preview_threshold(epoch))
    assert weights.tolist() == pytest.approx(expected, abs=5e-6)


def test_the_threshold_is_a_power_of_its_base_and_grows() -> None:
    assert preview_threshold(1) == 1.005
    assert preview_threshold(240) == pytest.approx(3.3102, abs=1e-4)
    assert preview_threshold(3, base=2.0) == 8
    assert preview_threshold(5, base=1.0) == 1


def test_a_threshold_beyond_all_numbers_admits_everything() -> None:
    assert preview_threshold(10**6, base=2.0) == math.inf
    assert preview_weights(torch.tensor([1e30]), math.inf).tolist() == [1]


@pytest.mark.parametrize('epoch', [0, -1])
def test_an_epoch_counted_from_0_is_refused(epoch: int) -> None:
    with pytest.raises(ValueError, match=f'`preview_threshold` needs an `epoch` of at least 1, counted from 1, got '
                                         f"{epoch}; add 1 to MMEngine's"):
        preview_threshold(epoch)


@pytest.mark.parametrize('base', [0.99, 0.0, -1.0, math.inf, math.nan])
def test_a_base_that_does_not_grow_is_refused(base: float) -> None:
    with pytest.raises(ValueError, match=f'`preview_threshold` needs a finite `base` of at least 1, got {base}'):
        preview_threshold(1, base)


def test_what_lies_on_the_threshold_is_easy_and_beyond_it_the_weight_is_a_bell() -> None:
    difficulty = torch.tensor([0.0, 1.5, 1.6, 3.0], dtype=torch.float64)
    assert preview_weights(difficulty, 1.5).tolist() == pytest.approx([1, 1, math.exp(-2.56), math.exp(-9)], rel=1e-12)


def test_the_weights_have_no_gradient() -> None:
    losses = LOSSES.clone().requires_grad_()
    assert not preview_weights(losses, 1.0).requires_grad
    assert not relative_difficulty(losses).requires_grad


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_weights_and_difficulties_are_at_least_in_float32(dtype: torch.dtype) -> None:
    losses = LOSSES.to(dtype)
    assert relative_difficulty(losses).dtype == preview_weights(losses, 1.0).dtype == torch.float32
    torch.testing.assert_close(relative_difficulty(losses), relative_difficulty(losses.float()))
    assert preview_weights(LOSSES, 1.0).dtype == torch.float64


def test_difficulty_is_the_loss_over_the_mean() -> None:
    torch.testing.assert_close(relative_difficulty(3 * LOSSES), LOSSES)


def test_background_has_a_mean_of_its_own() -> None:
    losses = torch.tensor([2.0, 0.1, 4.0, 0.3])
    found = relative_difficulty(losses, torch.tensor([False, True, False, True]))
    assert found.tolist() == pytest.approx([2 / 3, 0.5, 4 / 3, 1.5])
    for all_of_it in (True, False):
        torch.testing.assert_close(relative_difficulty(losses, torch.full((4,), all_of_it)),
                                   relative_difficulty(losses))


def test_one_sample_is_as_hard_as_the_mean_and_no_sample_has_no_difficulty() -> None:
    assert relative_difficulty(torch.tensor([3.0])).tolist() == [1]
    assert preview_weights(torch.ones(1), preview_threshold(1)).tolist() == [1]
    assert relative_difficulty(torch.zeros(0)).shape == preview_weights(torch.zeros(0), 1.0).shape == (0,)


def test_where_every_sample_is_mastered_none_is_hard() -> None:
    assert relative_difficulty(torch.zeros(3)).tolist() == [0, 0, 0]


@every_entropy
def test_an_entropy_equals_the_loop(entropy: object) -> None:
    logits, labels = random_rows()
    assert entropy(logits, labels).tolist() == pytest.approx(ENTROPIES[entropy](logits, labels), rel=1e-12)


@every_entropy
def test_an_entropy_of_soft_labels_equals_the_loop(entropy: object) -> None:
    logits, _ = random_rows()
    soft = torch.rand(6, 4, dtype=torch.float64).softmax(1)
    assert entropy(logits, soft).tolist() == pytest.approx(ENTROPIES[entropy](logits, soft), rel=1e-12)


@every_entropy
def test_soft_labels_of_one_class_are_that_class(entropy: object) -> None:
    logits, labels = random_rows()
    hard = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(entropy(logits, hard), entropy(logits, labels))


def test_of_a_sigmoid_head_background_is_no_class_at_all() -> None:
    logits, _ = random_rows(n=2)
    torch.testing.assert_close(binary_cross_entropy(logits, torch.tensor([4, 4])),
                               binary_cross_entropy(logits, torch.zeros(2, 4)))


@every_entropy
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_an_entropy_in_half_precision_is_in_float32(entropy: object, dtype: torch.dtype) -> None:
    logits, labels = random_rows()
    with torch.autocast('cpu', dtype=dtype):
        found = entropy(logits.to(dtype), labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, entropy(logits.to(dtype).float(), labels))


@every_entropy
def test_no_row_has_no_entropy(entropy: object) -> None:
    assert entropy(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0,)


@pytest.mark.parametrize(('entropy', 'last'), [(cross_entropy, 3), (binary_cross_entropy, 4)])
@pytest.mark.parametrize('wrong', [-1, 5])
def test_a_label_out_of_range_is_named(entropy: object, last: int, wrong: int) -> None:
    logits, labels = random_rows()
    labels[2] = wrong
    low, high = min(wrong, 0), max(wrong, 3)
    with pytest.raises(ValueError, match=f'`{entropy.__name__}` needs `labels` of 0 to {last} for rows of 4 scores, '
                                         f'got {low} to {high}; leave rows without a label out'):
        entropy(logits, labels)


@every_entropy
@pytest.mark.parametrize(('labels', 'message'), [
    (torch.zeros(5, dtype=torch.long), r'needs `labels` of shape \(6,\), one a row, or soft ones of shape \(6, 4\) '
                                       r'and a floating dtype, got \(5,\) of torch.int64'),
    (torch.zeros(6, 4, dtype=torch.long), r'got \(6, 4\) of torch.int64'),
    (torch.zeros(6), r'needs soft `labels` of shape \(6, 4\), one share a class, got \(6,\)'),
    (torch.zeros(6, 3), r'needs soft `labels` of shape \(6, 4\), one share a class, got \(6, 3\)'),
    (torch.full((6, 4), -0.5), 'needs soft `labels` of at least 0, got -0.5')], ids=str)
def test_labels_of_another_kind_are_named(entropy: object, labels: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        entropy(random_rows()[0], labels)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r'`preview_weights` needs `difficulty` of shape \(n,\), one a row, got '
                                         r'\(2, 3\)'):
        preview_weights(torch.zeros(2, 3), 1.0)
    with pytest.raises(ValueError, match=r'`relative_difficulty` needs `losses` of shape \(n,\), one a row, got \(\)'):
        relative_difficulty(torch.tensor(1.0))
    with pytest.raises(ValueError, match=r'`relative_difficulty` needs `background` of shape \(4,\), one a row, got '
                                         r'\(3,\)'):
        relative_difficulty(LOSSES, torch.zeros(3, dtype=torch.bool))
