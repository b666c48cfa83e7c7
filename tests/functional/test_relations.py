"""Relations among rows, and which rows are negatives, against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from ckd_mmdet.functional import little_overlap, relation_loss, told_apart


def cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


@pytest.mark.parametrize('seed', range(3))
def test_relations_are_the_double_loop(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    n, d, k = (int(size) for size in torch.randint(2, 7, (3,), generator=draw))
    student = torch.randn(n, d, generator=draw, dtype=torch.float64).requires_grad_()
    teacher = torch.randn(n, k, generator=draw, dtype=torch.float64).requires_grad_()
    drawn = torch.rand(n, n, generator=draw) < 0.6
    s, t = student.tolist(), teacher.tolist()
    for mask, allowed in ((None, torch.ones(n, n, dtype=torch.bool)), (drawn.__getitem__, drawn)):
        expected = []
        for i in range(n):
            others = [j for j in range(n) if j != i and allowed[i, j]]
            squares = [(cosine(s[i], s[j]) - cosine(t[i], t[j]))**2 for j in others]
            expected.append(sum(squares) / (2 * max(len(others), 1)))
        assert relation_loss(student, teacher, negatives=mask).tolist() == pytest.approx(expected, rel=1e-10, abs=1e-14)
    assert torch.autograd.gradcheck(lambda rows: relation_loss(rows, teacher), student)
    relation_loss(student, teacher).sum().backward()
    assert student.grad.any() and teacher.grad is None


def test_equal_rows_in_a_turned_space_have_no_loss_and_one_row_or_none_neither() -> None:
    rows = torch.randn(5, 4, dtype=torch.float64)
    turned = 3 * rows @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    assert relation_loss(turned, rows).abs().max() < 1e-12
    assert relation_loss(rows[:1], turned[1:2]).tolist() == [0] and relation_loss(rows[:0], rows[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r'needs rows \(n, d\) and \(n, k\) of the same samples'):
        relation_loss(rows, rows[:3])


def test_regions_of_one_image_that_overlap_much_are_no_negatives() -> None:
    regions = torch.tensor([[0., 0, 10, 10], [2, 0, 12, 10], [20, 20, 30, 30], [0, 0, 10, 10]])
    images = torch.tensor([0, 0, 0, 1])
    found = little_overlap(regions, images, 0.5)  # 2/3 between the first two
    assert found.tolist() == [[False, False, True, True], [False, False, True, True], [True, True, False, True],
                              [True, True, True, False]]
    assert little_overlap(regions, images, 0.7)[0, 1]
    assert torch.equal(little_overlap(regions, images, 0.5, slice(1, 3)), found[1:3])


def test_rows_are_told_apart_by_the_probability_of_different_classes() -> None:
    rows = torch.tensor([[0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    apart = [[1 - sum(p * q for p, q in zip(a, b, strict=True)) for b in rows.tolist()] for a in rows.tolist()]
    for least in (0.0, 0.3, 0.6, 0.95):
        expected = [[value >= least for value in row] for row in apart]
        assert told_apart(rows, least).tolist() == expected
        assert told_apart(rows, least, slice(1, 2)).tolist() == expected[1:2]
