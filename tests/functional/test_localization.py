"""LD against a plain loop in float64, and its region against one over anchors and objects."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from ckd_mmdet.functional import ld_loss, valuable_region
from torch import Tensor

from tests.functional.test_boxes import overlap_of

STUDENT = [[0., 1, 2], [1, 0, 0], [0, 0, 0], [2, -1, 0]]
TEACHER = [[0., 3, 0], [2, 0, -1], [1, 0, 1], [2, -1, 0]]


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def ld_row(student: list, teacher: list, temperature: float) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        q, p = softmax(s, temperature), softmax(t, temperature)
        total += temperature**2 / len(s) * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / 4


def pair(n: int = 4, bins: int = 5) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n + bins)
    return tuple(3 * torch.randn(n, 4, bins, generator=draw, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(('n', 'bins', 'temperature'), [(0, 3, 1.0), (1, 17, 10.0), (5, 2, 0.5)])
def test_it_is_the_loop(n: int, bins: int, temperature: float) -> None:
    student, teacher = pair(n, bins)
    expected = [ld_row(*rows, temperature) for rows in zip(student.tolist(), teacher.tolist(), strict=True)]
    torch.testing.assert_close(ld_loss(student, teacher, temperature=temperature),
                               torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(('temperature', 'expected'), [(1.0, 0.108804), (10.0, 0.153016)])
def test_one_box_by_hand(temperature: float, expected: float) -> None:
    loss = ld_loss(torch.tensor([STUDENT]).double(), torch.tensor([TEACHER]).double(), temperature=temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_gradient_flows_to_the_student_alone_and_equal_rows_cost_nothing() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in pair())
    assert torch.autograd.gradcheck(lambda s: ld_loss(s, teacher), student)
    ld_loss(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad.any()
    assert ld_loss(student, student.detach()).abs().max() < 1e-9


@pytest.mark.parametrize(('change', 'words'), [
    (dict(temperature=0), '`ld_loss` needs a finite `temperature` greater than 0, got 0'),
    (dict(teacher=pair(4, 6)[1]), r'of one shape \(n, 4, bins\), got \(4, 4, 5\) and \(4, 4, 6\)')])
def test_what_cannot_be_compared_is_refused(change: dict, words: str) -> None:
    student, teacher = pair()
    with pytest.raises(ValueError, match=words):
        ld_loss(**{'student': student, 'teacher': teacher, **change})


# the region

def diou_of(a: list[float], b: list[float]) -> float:
    apart = sum(((a[i] + a[i + 2] - b[i] - b[i + 2]) / 2)**2 for i in (0, 1))
    diagonal = sum((max(a[i + 2], b[i + 2]) - min(a[i], b[i]))**2 for i in (0, 1))
    return overlap_of(a, b, False) - apart / diagonal


def region_by_loops(levels: list[list], objects: list) -> list[bool]:
    valuable = [False] * sum(map(len, levels))
    every = [anchor for level in levels for anchor in level]
    for box in objects:
        overlaps = []
        for level in levels:
            def apart(a: list[float], box: list[float] = box) -> float:
                return sum((a[i] + a[i + 2] - box[i] - box[i + 2])**2 for i in (0, 1))
            overlaps += [overlap_of(anchor, box, False) for anchor in sorted(level, key=apart)[:9]]
        threshold = statistics.mean(overlaps) + statistics.stdev(overlaps)
        for i, anchor in enumerate(every):
            valuable[i] |= threshold / 4 <= diou_of(anchor, box) < threshold
    return valuable


def grid(size: int, stride: int) -> Tensor:
    return torch.tensor([[x * stride - 4. * stride + .1, y * stride - 4. * stride, x * stride + 4. * stride,
                          y * stride + 4. * stride] for y in range(size) for x in range(size)])


def test_the_region_is_the_loop_over_anchors_and_objects() -> None:
    levels, objects = [grid(8, 8), grid(4, 16), grid(2, 32)], torch.tensor([[5., 7, 44, 41], [20, 3, 61, 30]])
    found = valuable_region(levels, objects)
    assert found.tolist() == region_by_loops([level.tolist() for level in levels], objects.tolist())
    assert 0 < found.sum() < len(found)


def test_no_anchor_is_valuable_without_an_object() -> None:
    assert valuable_region([grid(2, 8), grid(1, 16)], torch.zeros(0, 4)).tolist() == [False] * 5


def test_the_values_of_diou_by_hand() -> None:
    assert diou_of([0, 0, 10, 10], [2, 0, 12, 10]) == pytest.approx(.650273, abs=1e-6)
    assert diou_of([5, 5, 15, 25], [20, 5, 30, 25]) == pytest.approx(-.219512, abs=1e-6)
