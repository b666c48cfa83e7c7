"""A weight is a number, a schedule by epochs, or measured."""

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from ckd_mmdet.losses.weight import MEASURED, Weight


def over(epochs: int, **settings: Any) -> list[float]:
    weight = Weight(**settings)
    return [weight.at(epoch) for epoch in range(epochs)]


@pytest.mark.parametrize(('settings', 'expected'), [
    (dict(), [1, 1, 1, 1, 1, 1]),
    (dict(value=0.3), [0.3, 0.3, 0.3, 0.3, 0.3, 0.3]),
    (dict(value=0), [0, 0, 0, 0, 0, 0]),
    (dict(value=2, warm_up=0), [2, 2, 2, 2, 2, 2]),
    (dict(value=2, warm_up=1), [2, 2, 2, 2, 2, 2]),
    (dict(value=2, warm_up=4), [0.5, 1, 1.5, 2, 2, 2]),
    (dict(value=2, decay=(0, 4)), [2, 1.5, 1, 0.5, 0, 0]),
    (dict(value=2, decay=(2, 4)), [2, 2, 2, 1, 0, 0]),
    (dict(value=2, decay=[1, 2]), [2, 2, 0, 0, 0, 0]),
    (dict(value=2, stop=3), [2, 2, 2, 0, 0, 0]),
    (dict(value=2, stop=1), [2, 0, 0, 0, 0, 0]),
    (dict(value=2, warm_up=2, stop=4), [1, 2, 2, 2, 0, 0]),
    (dict(value=2, warm_up=2, decay=(3, 5)), [1, 2, 2, 2, 1, 0]),
    (dict(value=8, warm_up=4, decay=(0, 4)), [2, 3, 3, 2, 0, 0]),  # both at once: their product
    (dict(value=2, decay=(1, 5), stop=3), [2, 2, 1.5, 0, 0, 0]),
    (dict(value=8, warm_up=2, decay=(2, 4), stop=3), [4, 8, 8, 0, 0, 0])], ids=str)
def test_the_factor_by_epochs(settings: dict, expected: list[float]) -> None:
    assert over(6, **settings) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(('settings', 'changes'), [
    (dict(value=0.5), False), (dict(balance=0.5), False), (dict(value=2, iterations=3), False),
    (dict(warm_up=1), True), (dict(decay=(0, 4)), True), (dict(stop=1), True)], ids=str)
def test_whether_it_changes_by_epochs(settings: dict, changes: bool) -> None:
    assert Weight(**settings).changes_by_epoch is changes


@pytest.mark.parametrize(('settings', 'expected'), [
    (dict(), [False] * 5), (dict(warm_up=3), [False] * 5), (dict(value=0.0), [False] * 5),
    (dict(stop=2), [False, False, True, True, True]), (dict(decay=(1, 3)), [False, False, False, True, True]),
    (dict(decay=(1, 3), stop=2), [False, False, True, True, True]),
    (dict(decay=(0, 1), stop=4), [False, True, True, True, True])], ids=str)
def test_it_rests_where_it_is_zero_for_good(settings: dict, expected: list[bool]) -> None:
    weight = Weight(**settings)
    assert [weight.rests(epoch) for epoch in range(5)] == expected
    assert all(weight.at(epoch) == 0 for epoch in range(5) if weight.rests(epoch))


@pytest.mark.parametrize('loss_weight', [0, 1, 0.25, 2.5])
def test_a_number_is_the_value(loss_weight: float) -> None:
    weight = Weight.of(loss_weight, 'CKDLoss')
    assert (weight.value, weight.balance) == (loss_weight, None)
    assert weight.at(7) == loss_weight
    assert not weight.is_measuring


def test_a_dict_holds_the_arguments() -> None:
    weight = Weight.of(dict(value=3, warm_up=1, decay=[2, 5], stop=7), 'CKDLoss')
    assert (weight.value, weight.balance, weight.warm_up, weight.decay, weight.stop) == (3, None, 1, (2, 5), 7)
    weight = Weight.of(dict(balance=2, iterations=9, stop=7), 'CKDLoss')
    assert (weight.value, weight.balance, weight.iterations, weight.stop) == (None, 2, 9, 7)


def test_a_dict_without_a_value_means_one() -> None:
    assert Weight.of(dict(stop=7), 'CKDLoss').value == 1


@pytest.mark.parametrize(('text', 'balance'), [('balance:0.5', 0.5), ('balance:2', 2.0), ('balance:1e-3', 0.001)])
def test_a_text_is_a_balance(text: str, balance: float) -> None:
    weight = Weight.of(text, 'CKDLoss')
    assert (weight.value, weight.balance) == (None, balance)
    assert weight.iterations == MEASURED == 50
    assert weight.is_measuring


def test_before_anything_was_measured_it_counts_once() -> None:
    weight = Weight.of('balance:0.5', 'CKDLoss')
    assert weight.base == 1
    assert weight.at(0) == 1


def test_a_balanced_weight_is_the_balance_over_the_median_of_the_ratios_so_far() -> None:
    weight = Weight(balance=0.5, iterations=4)
    seen = []
    for ratio in (2.0, 0.25, 0.5, 100.0):
        weight.ratios.append(ratio)
        seen.append(weight.base)
    assert seen == pytest.approx([0.5 / 2, 0.5 / 1.125, 0.5 / 0.5, 0.5 / 1.25])


def test_it_measures_for_so_many_iterations() -> None:
    weight = Weight(balance=0.5, iterations=2)
    measuring = []
    for ratio in (1.0, 3.0):
        measuring.append(weight.is_measuring)
        weight.ratios.append(ratio)
    assert [*measuring, weight.is_measuring] == [True, True, False]
    assert weight.base == 0.25


def test_a_value_is_never_measured() -> None:
    weight = Weight(value=0.5)
    assert not weight.is_measuring
    weight.ratios.append(4.0)
    assert weight.base == 0.5


def test_a_schedule_multiplies_what_was_measured() -> None:
    weight = Weight(balance=0.5, warm_up=2, decay=(2, 4), stop=9)
    weight.ratios.append(0.125)
    assert [weight.at(epoch) for epoch in range(5)] == [2, 4, 4, 2, 0]


def test_what_one_weight_measured_another_does_not_know() -> None:
    weight = Weight(balance=0.5)
    twin = copy.deepcopy(weight)
    weight.ratios.append(4.0)
    assert not twin.ratios and not Weight(balance=0.5).ratios


@pytest.mark.parametrize('ratios', [[], [2.0, 0.25, 1e-300], [2.0, 0.25, 0.5, 1 / 3]], ids=['none', 'some', 'all'])
def test_what_was_measured_is_its_state_to_the_last_bit(ratios: list[float]) -> None:
    weight, other = Weight(balance=0.5, iterations=4), Weight(balance=0.5, iterations=4)
    weight.ratios, other.ratios = ratios, [7.0]
    other.load_state_dict(weight.state_dict(), strict=True)
    assert other.ratios == ratios and other.base == weight.base
    for twin in (copy.deepcopy(weight), pickle.loads(pickle.dumps(weight))):
        assert twin.ratios == ratios and twin.is_measuring == weight.is_measuring


def test_its_state_never_changes_its_size_and_that_of_a_given_value_is_empty() -> None:
    weight, sizes = Weight(balance=0.5, iterations=3), []
    for ratio in (1.0, 2.0, 3.0):
        sizes.append(weight.get_extra_state().shape)
        weight.ratios.append(ratio)
    assert {*sizes, weight.get_extra_state().shape} == {(3,)}
    assert weight.get_extra_state().dtype == torch.float64
    given = Weight(value=0.5)
    assert given.get_extra_state().shape == (0,)
    given.load_state_dict(given.state_dict(), strict=True)
    assert given.base == 0.5


def test_a_state_of_more_iterations_is_kept_whole() -> None:
    long, short = Weight(balance=0.5, iterations=4), Weight(balance=0.5, iterations=2)
    long.ratios = [1.0, 2.0, 4.0]
    short.load_state_dict(long.state_dict(), strict=True)
    assert short.ratios == [1.0, 2.0, 4.0] and not short.is_measuring
    assert short.get_extra_state().tolist() == [1, 2, 4]


def test_it_has_nothing_that_is_learned_or_averaged() -> None:
    assert not list(Weight(balance=0.5).parameters()) and not list(Weight(balance=0.5).buffers())


NUMBER = '`CKDLoss` needs a finite `loss_weight` of at least 0, got '
BALANCE = '`CKDLoss` needs a finite `balance` greater than 0 in its `loss_weight`, got '
WHAT = "`CKDLoss` needs a `loss_weight` that is a number, a dict or 'balance:RATIO', as in 'balance:0.5', got "
KEYS = '`CKDLoss` needs a `loss_weight` of the keys value or balance, warm_up, decay, stop and iterations, got '
DECAY = '`CKDLoss` needs a `decay` of a first and a later last epoch in its `loss_weight`, got '


def whole(key: str, least: int) -> str:
    return f'`CKDLoss` needs a whole `{key}` of at least {least} in its `loss_weight`, got '


@pytest.mark.parametrize(('loss_weight', 'message'), [
    (-1, f'{NUMBER}-1.'), (math.inf, f'{NUMBER}inf.'), (math.nan, f'{NUMBER}nan.'), (True, f'{NUMBER}True.'),
    (None, f'{NUMBER}None.'), ([1.0], f'{NUMBER}[1.0].'), (dict(value='a'), f"{NUMBER}'a'."),
    (dict(value=-2), f'{NUMBER}-2.'),
    ('balance:0', f'{BALANCE}0.0.'), ('balance:-1', f'{BALANCE}-1.0.'), ('balance:nan', f'{BALANCE}nan.'),
    ('balance:inf', f'{BALANCE}inf.'), (dict(balance=True), f'{BALANCE}True.'),
    (dict(balance='0.5'), f"{BALANCE}'0.5'."),
    ('0.5', f"{WHAT}'0.5'."), ('balance', f"{WHAT}'balance'."), ('balance:', f"{WHAT}'balance:'."),
    ('balance:needs', f"{WHAT}'balance:needs'."), ('balanced:0.5', f"{WHAT}'balanced:0.5'."),
    (dict(weight=1.0, stop=3), f"{KEYS}['weight', 'stop']."), (dict(name='A'), f"{KEYS}['name']."),
    ({1: 2}, f'{KEYS}[1].'),
    (dict(value=1, balance=1), '`CKDLoss` needs a `loss_weight` with either `value` or `balance`, got both.'),
    (dict(warm_up=-1), f'{whole("warm_up", 0)}-1.'), (dict(warm_up=1.5), f'{whole("warm_up", 0)}1.5.'),
    (dict(warm_up=None), f'{whole("warm_up", 0)}None.'), (dict(warm_up=True), f'{whole("warm_up", 0)}True.'),
    (dict(stop=0), f'{whole("stop", 1)}0.'), (dict(stop='3'), f'{whole("stop", 1)}3.'),
    (dict(iterations=0), f'{whole("iterations", 1)}0.'), (dict(iterations=None), f'{whole("iterations", 1)}None.'),
    (dict(decay=(3, 3)), f'{DECAY}(3, 3).'), (dict(decay=(4, 3)), f'{DECAY}(4, 3).'),
    (dict(decay=(-1, 3)), f'{DECAY}(-1, 3).'), (dict(decay=(3,)), f'{DECAY}(3,).'),
    (dict(decay=(1, 2, 3)), f'{DECAY}(1, 2, 3).'), (dict(decay=5), f'{DECAY}5.'), (dict(decay='ab'), f'{DECAY}ab.'),
    (dict(decay=(0, 2.5)), f'{DECAY}(0, 2.5).'), (dict(decay=(None, 3)), f'{DECAY}(None, 3).')], ids=str)
def test_a_wrong_weight_is_refused_in_the_name_of_its_loss(loss_weight: Any, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        Weight.of(loss_weight, 'CKDLoss')
    assert str(refused.value) == message
