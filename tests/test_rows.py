"""Rows where they lie, against the flattened copy that they spare."""

from __future__ import annotations

import pytest
import torch
from ckd_mmdet.rows import MapRows, TableRows
from torch import Tensor

IMAGES, ANCHORS, COLUMNS = 2, 3, 4
SIZES = ((4, 5), (2, 3), (1, 1))


def maps() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(IMAGES, ANCHORS, COLUMNS, *size, requires_grad=True) for size in SIZES]


def by_loops(levels: list[Tensor]) -> tuple[Tensor, list[int], list[int]]:
    """Every row in the order of mmdet's losses, its image and its level."""
    rows, images, numbers = [], [], []
    for number, level in enumerate(levels):
        for image in range(IMAGES):
            for y in range(level.shape[3]):
                for x in range(level.shape[4]):
                    for anchor in range(ANCHORS):
                        rows.append(level[image, anchor, :, y, x])
                        images.append(image)
                        numbers.append(number)
    return torch.stack(rows), images, numbers


def test_rows_lie_in_the_order_of_the_losses() -> None:
    levels = maps()
    rows, (expected, images, numbers) = MapRows(levels), by_loops(levels)
    assert len(rows) == len(expected)
    assert torch.equal(rows.take(torch.arange(len(rows))), expected)
    assert rows.image_ids().tolist() == images
    assert rows.level_ids().tolist() == numbers


@pytest.mark.parametrize('index', [[], [0], [161, 3, 3, 120, 0, 160]], ids=str)
def test_any_rows_can_be_taken(index: list[int]) -> None:
    levels, index = maps(), torch.tensor(index, dtype=torch.long)
    assert torch.equal(MapRows(levels).take(index), by_loops(levels)[0][index])


def test_taken_rows_carry_gradient_to_their_places_alone() -> None:
    levels = maps()
    MapRows(levels).take(torch.tensor([7, 130])).sum().backward()
    assert [int(level.grad.sum()) for level in levels] == [COLUMNS, COLUMNS, 0]


@pytest.mark.parametrize('columns', [[0, 1, 2, 3], [1, 2], [3, 0], [2]], ids=str)
def test_confidence_is_the_greatest_of_the_given_columns(columns: list[int]) -> None:
    levels = maps()
    expected = by_loops(levels)[0][:, columns].amax(1)
    for rows in (MapRows(levels), TableRows(by_loops(levels)[0])):
        assert torch.equal(rows.confidence(columns), expected)
        assert not rows.confidence(columns).requires_grad


def test_no_row_has_no_confidence() -> None:
    assert TableRows(torch.zeros(0, 4)).confidence([0, 1]).shape == (0,)
