"""The quality loss against a plain loop in float64."""

import math

import pytest
import torch
from ckd_mmdet.functional import quality_kd_loss
from torch import Tensor

STUDENT, TEACHER = [[0., 1, -2], [-1, .5, 0]], [[1., 2, -3], [-2, -1, 0]]


def quality_rows(student: Tensor, teacher: Tensor, beta: float) -> list[float]:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for a, b in zip(s, t, strict=True):
            q, p = 1 / (1 + math.exp(-a)), 1 / (1 + math.exp(-b))
            total -= abs(p - q)**beta * (p * math.log(q) + (1 - p) * math.log(1 - q))
        rows.append(total)
    return rows


def pair(n: int = 5, classes: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(n + classes)
    return tuple(3 * torch.randn(n, classes, generator=draw, dtype=torch.float64) for _ in range(2))


@pytest.mark.parametrize(('n', 'classes', 'beta'), [(1, 1, 1.0), (5, 4, 1.0), (7, 3, 2.0), (4, 2, 0), (0, 3, 1.0)])
def test_it_is_the_loop(n: int, classes: int, beta: float) -> None:
    student, teacher = pair(n, classes)
    expected = torch.tensor(quality_rows(student, teacher, beta), dtype=torch.float64)
    torch.testing.assert_close(quality_kd_loss(student, teacher, beta=beta), expected)


def test_two_rows_by_hand() -> None:
    loss = quality_kd_loss(torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64))
    assert loss.sum().item() == pytest.approx(0.602405, abs=1e-6)


def test_gradient_flows_to_the_student_alone_and_through_the_weight() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in pair())
    assert torch.autograd.gradcheck(lambda s: quality_kd_loss(s, teacher), student)
    quality_kd_loss(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad.all()


def test_equal_rows_cost_nothing() -> None:
    student = pair()[0].requires_grad_()
    loss = quality_kd_loss(student, student.detach())
    assert not loss.any()
    loss.sum().backward()
    assert not student.grad.any()


def test_far_logits_in_half_precision_stay_finite() -> None:
    loss = quality_kd_loss(torch.tensor([[6e4, -6e4]], dtype=torch.float16), torch.tensor([[-6e4, 6e4]]).half())
    assert loss.dtype == torch.float32 and loss.isfinite().all()


@pytest.mark.parametrize('beta', [0.5, -1.0, math.inf, True])
def test_a_beta_out_of_its_range_is_refused(beta: float) -> None:
    with pytest.raises(ValueError, match=f'needs a finite `beta` that is 0 or at least 1, got {beta}'):
        quality_kd_loss(*pair(), beta=beta)
