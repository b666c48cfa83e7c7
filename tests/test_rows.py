"""Rows where they lie, against the flattened copy that they spare."""

from __future__ import annotations

import math

import pytest
import torch
from ckd_mmdet.rows import SIGMOID, SOFTMAX, MapRows, Ranking, TableRows
from torch import Tensor

from tests.waits import Waits

IMAGES, ANCHORS, COLUMNS = 2, 3, 4
SIZES = ((4, 5), (2, 3), (1, 1))
RANKINGS = {'softmax': SOFTMAX, 'sigmoid': SIGMOID, 'probabilities': Ranking(softmax=False, activated=True),
            'square root of the product': Ranking(softmax=False, geometric=True)}
INDICES = [[], [0], [161, 3, 3, 120, 0, 160, 3]]


def maps() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(IMAGES, ANCHORS, COLUMNS, *size, dtype=torch.float64, requires_grad=True) for size in SIZES]


def qualities() -> list[Tensor]:
    return [torch.rand(IMAGES, ANCHORS, *size, dtype=torch.float64) for size in SIZES]


def by_loops(levels: list[Tensor]) -> tuple[Tensor, list[int], list[int]]:
    """Every row in the order of mmdet's losses, its image and its level."""
    rows, images, numbers = [], [], []
    for number, level in enumerate(levels):
        for image in range(IMAGES):
            for y in range(level.shape[-2]):
                for x in range(level.shape[-1]):
                    for anchor in range(ANCHORS):
                        rows.append(level[image, anchor, ..., y, x])
                        images.append(image)
                        numbers.append(number)
    return torch.stack(rows), images, numbers


def confidence_by_loops(ranking: Ranking, scores: Tensor, columns: list[int], quality: Tensor | None) -> list[float]:
    found = []
    for i, row in enumerate(scores.tolist()):
        def probability(column: int, row: list[float] = row) -> float:
            if ranking.activated:
                return row[column]
            if ranking.softmax:
                return math.exp(row[column]) / sum(math.exp(score) for score in row)
            return 1 / (1 + math.exp(-row[column]))
        best = max(probability(column) for column in columns)
        best = best if quality is None else best * quality[i].item()
        found.append(math.sqrt(best) if ranking.geometric else best)
    return found


def test_rows_lie_in_the_order_of_the_losses() -> None:
    levels = maps()
    rows, (expected, images, numbers) = MapRows(levels, SIGMOID), by_loops(levels)
    assert len(rows) == len(expected)
    assert torch.equal(rows.take(torch.arange(len(rows))), expected)
    assert rows.image_ids().tolist() == images
    assert rows.level_ids().tolist() == numbers


@pytest.mark.parametrize('index', INDICES, ids=str)
def test_taken_rows_and_their_gradient_are_those_of_the_copy(index: list[int]) -> None:
    levels, index = maps(), torch.tensor(index, dtype=torch.long)
    taken, expected = MapRows(levels, SIGMOID).take(index), by_loops(levels)[0][index]
    assert torch.equal(taken, expected)
    weights = torch.randn_like(taken)
    gradients = [torch.autograd.grad((part * weights).sum(), levels) for part in (taken, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_rows_that_are_not_finite_spoil_no_others_gradient() -> None:
    levels = maps()
    with torch.no_grad():
        levels[0].fill_(math.nan)
    MapRows(levels, SIGMOID).take(torch.tensor([121, 160])).square().sum().backward()
    assert all(level.grad.isfinite().all() for level in levels)


def test_nothing_of_the_rows_waits_for_the_device() -> None:
    rows, index = MapRows(maps(), SOFTMAX, qualities()), torch.tensor([161, 3, 3, 0])
    with Waits() as waits:
        rows.take(index).sum().backward()
        rows.table(index)
        rows.image_ids(), rows.level_ids()
        rows.confidence([0, 1]), rows.confidence([2, 0])
        rows.table(index).confidence([2, 0])
    assert waits.seen == []


def test_waits_are_counted() -> None:
    some = torch.arange(4.)
    with Waits() as waits:
        some[some > 1], (some > 1).nonzero(), some.sum().item(), torch.equal(some, some)
        some.unique(), some.repeat_interleave(torch.tensor(2)), some[torch.tensor([1])], bool(some.any())
    assert waits.seen == ['index', 'nonzero', '_local_scalar_dense', 'equal', '_unique2', 'repeat_interleave',
                          '_local_scalar_dense']


# Confidence


@pytest.mark.parametrize('columns', [[0, 1, 2, 3], [1, 2], [3, 0], [2]], ids=str)
@pytest.mark.parametrize('with_quality', [False, True], ids=['', 'with quality'])
@pytest.mark.parametrize('ranking', RANKINGS.values(), ids=RANKINGS)
def test_confidence_is_the_best_probability_among_the_given_columns(ranking: Ranking, with_quality: bool,
                                                                    columns: list[int]) -> None:
    levels, quality = maps(), qualities() if with_quality else None
    if ranking.activated:
        levels = [level.sigmoid() for level in levels]
    table, of_table = by_loops(levels)[0], by_loops(quality)[0] if with_quality else None
    expected = torch.tensor(confidence_by_loops(ranking, table, columns, of_table))
    for rows in (MapRows(levels, ranking, quality), TableRows(table, ranking, of_table)):
        found = rows.confidence(columns)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        assert not found.requires_grad


def test_a_row_shifted_by_a_constant_has_the_same_confidence_by_a_softmax_and_another_by_sigmoids() -> None:
    torch.manual_seed(0)
    scores = torch.randn(50, 5)
    shifted = scores + torch.linspace(-30, 30, 50)[:, None]
    softmax = [TableRows(part, SOFTMAX).confidence([0, 1, 2, 3]) for part in (scores, shifted)]
    torch.testing.assert_close(*softmax, rtol=1e-4, atol=0)
    sigmoid = [TableRows(part, SIGMOID).confidence([0, 1, 2, 3]) for part in (scores, shifted)]
    assert not torch.equal(sigmoid[0].argsort(), sigmoid[1].argsort())


def test_a_softmax_is_over_the_background_and_the_classes_that_do_not_count_too() -> None:
    rows = TableRows(torch.tensor([[2., 1., 0.], [2., 1., 9.], [9., 1., 0.]]), SOFTMAX)
    assert rows.confidence([1]).tolist() == pytest.approx([0.2447, 0.0003, 0.0003], abs=1e-4)


@pytest.mark.parametrize('ranking', RANKINGS.values(), ids=RANKINGS)
def test_confidence_in_half_precision_is_a_finite_float32_up_to_one(ranking: Ranking) -> None:
    scores = torch.tensor([[60000., -60000., 0.], [-60000., -60000., -60000.], [-20., -20., 20.]]).half()
    found = TableRows(scores.clamp(0, 1) if ranking.activated else scores, ranking).confidence([0, 1])
    assert found.dtype == torch.float32
    assert found[0] == 1 and ((found >= 0) & (found <= 1)).all()


def test_no_row_has_no_confidence() -> None:
    for ranking in RANKINGS.values():
        assert TableRows(torch.zeros(0, 4), ranking).confidence([0, 1]).shape == (0,)


# Rows that leave the maps


@pytest.mark.parametrize('ranking', RANKINGS.values(), ids=RANKINGS)
def test_chosen_rows_keep_their_confidence(ranking: Ranking) -> None:
    levels = [level.sigmoid() for level in maps()] if ranking.activated else maps()
    rows, index = MapRows(levels, ranking, qualities()), torch.tensor([161, 3, 3, 120])
    table = rows.table(index)
    assert torch.equal(table.scores, rows.take(index))
    torch.testing.assert_close(table.confidence([0, 2]), rows.confidence([0, 2])[index], rtol=1e-5, atol=0)
    for chosen in (torch.tensor([1, 3]), torch.tensor([False, True, False, True])):
        assert torch.equal(table.select(chosen).confidence([0, 2]), table.confidence([0, 2])[[1, 3]])


def test_probabilities_are_taken_as_logits() -> None:
    levels = [level.sigmoid() for level in maps()]
    rows = MapRows(levels, RANKINGS['probabilities'])
    every = torch.arange(len(rows))
    torch.testing.assert_close(rows.take(every).sigmoid(), rows.as_given(every).float())
