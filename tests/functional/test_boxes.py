"""Losses of boxes against plain loops in float64, and boxes by hand."""

from __future__ import annotations

import pytest
import torch
from ckd_mmdet.functional import bounded_loss, box_loss, overlap
from torch import Tensor

STUDENT, TEACHER = [[0., 0, 10, 10], [5, 5, 15, 25]], [[2., 0, 12, 10], [20, 5, 30, 25]]


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def overlap_of(a: list[float], b: list[float], generalized: bool) -> float:
    inner = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - inner
    around = area([min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])])
    return inner / union - (generalized and (around - union) / around)


def row(s: list[float], t: list[float], y: list[float], kind: str, margin: float) -> float:
    if kind in ('iou', 'giou'):
        return 1 - overlap_of(s, t, kind == 'giou')
    if kind == 'l1':
        return sum(abs(s[i] - t[i]) / max(t[i % 2 + 2] - t[i % 2], 1) for i in range(4))
    ours, theirs = (sum(((b[i] - y[i]) / max(y[i % 2 + 2] - y[i % 2], 1))**2 for i in range(4)) for b in (s, t))
    return ours if ours + margin > theirs else 0.0


def boxes(n: int, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=draw, dtype=torch.float64) * 30
    return torch.cat([corners, corners + 2 + torch.rand(n, 2, generator=draw, dtype=torch.float64) * 30], 1)


@pytest.mark.parametrize('n', [0, 1, 9])
@pytest.mark.parametrize(('kind', 'margin'), [('giou', 0), ('iou', 0), ('l1', 0), ('bounded', 0), ('bounded', 0.5)])
def test_it_is_the_loop(kind: str, margin: float, n: int) -> None:
    student, teacher, truth = (boxes(n, seed) for seed in range(3))
    expected = [row(*three, kind, margin) for three in zip(student.tolist(), teacher.tolist(), truth.tolist(),
                                                           strict=True)]
    found = box_loss(student, teacher, kind=kind, truth=truth, margin=margin)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_two_boxes_by_hand() -> None:
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    torch.testing.assert_close(overlap(student, teacher), torch.tensor([2 / 3, 0.0]))
    torch.testing.assert_close(overlap(student, teacher, generalized=True), torch.tensor([2 / 3, -0.2]))


def test_a_student_better_than_the_teacher_has_reached_its_bound() -> None:
    truth, student, teacher = (torch.tensor(rows) for rows in (
        [[0., 0, 0, 0], [1, 0, 0, 0]], [[.5, 0, 0, 0], [1, .1, 0, 0]], [[.1, 0, 0, 0], [0, 0, 0, 0]]))
    assert bounded_loss(student - truth, teacher - truth).tolist() == [.25, 0]


@pytest.mark.parametrize('kind', ['giou', 'iou', 'l1', 'bounded'])
def test_gradient_flows_to_the_student_alone(kind: str) -> None:
    student, teacher, truth = (boxes(5, seed).requires_grad_() for seed in range(3))
    settings = dict(kind=kind, truth=truth.detach(), margin=9.0)  # or the teacher might bound all rows
    assert torch.autograd.gradcheck(lambda s: box_loss(s, teacher, **settings), student)
    box_loss(student, teacher, **settings).sum().backward()
    assert teacher.grad is None and student.grad.any()


@pytest.mark.parametrize('kind', ['giou', 'iou', 'l1'])
def test_boxes_without_area_and_equal_ones_have_finite_losses_and_gradients(kind: str) -> None:
    student = torch.tensor([[5., 5, 5, 5], [9, 9, 3, 3], [0, 0, 4, 4]], requires_grad=True)
    loss = box_loss(student, torch.tensor([[5., 5, 5, 5], [1, 1, 2, 2], [0, 0, 4, 4]]), kind=kind)
    loss.sum().backward()
    assert loss.isfinite().all() and student.grad.isfinite().all() and loss[2] == 0


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(kind='diou'), '`box_loss` needs `kind` to be one of'),
    (dict(margin=-1.0), '`box_loss` needs a finite `margin` of at least 0, got -1.0'),
    (dict(kind='bounded'), "`box_loss` of `kind='bounded'` needs `truth`"),
    (dict(teacher=boxes(2, 0)), r'`student` and `teacher` of one shape \(n, 4\), got \(3, 4\) and \(2, 4\)')])
def test_what_cannot_be_compared_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        box_loss(**{'student': boxes(3, 0), 'teacher': boxes(3, 1), **settings})
