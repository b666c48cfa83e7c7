"""DIST against a plain loop in float64."""

import math

import pytest
import torch
from ckd_mmdet.functional import dist_loss
from ckd_mmdet.functional.dist import EPSILON
from torch import Tensor

from tests.functional.loops import dist_rows

SETTINGS = [dict(beta=1.0, gamma=1.0, temperature=1.0), dict(beta=2.0, gamma=2.0, temperature=4.0),
            dict(beta=1.0, gamma=0.0, temperature=0.5), dict(beta=0.0, gamma=3.0, temperature=2.0)]

every_setting = pytest.mark.parametrize('setting', SETTINGS, ids=str)


def random_pair(n: int = 6, c: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(n, c, dtype=torch.float64), 3 * torch.randn(n, c, dtype=torch.float64)


@every_setting
def test_it_equals_the_loop(setting: dict) -> None:
    student, teacher = random_pair()
    ours = dist_loss(student, teacher, **setting)
    assert ours.tolist() == pytest.approx(dist_rows(student, teacher, **setting), rel=1e-12)


@pytest.mark.parametrize(('beta', 'gamma', 'expected'), [(1, 0, 1.5), (0, 1, 5 / 3), (1, 2, 1.5 + 10 / 3)])
def test_it_gives_the_numbers_worked_out_by_hand(beta: float, gamma: float, expected: float) -> None:
    # p = (2, 1, 1) / 4 and (1, 2, 1) / 4, q the other way round. In a row the correlation of (-1, 2, -1) with
    # (2, -1, -1) is -1/2; over the rows it is -1 for the first two classes, and the third does not vary: 0.
    rows = torch.tensor([[2.0, 1, 1], [1, 2, 1]]).log()
    loss = dist_loss(rows.flip(0), rows, beta=beta, gamma=gamma)
    assert loss.tolist() == pytest.approx([expected, expected], abs=1e-5)


def test_by_default_both_parts_count_once_and_nothing_is_softened() -> None:
    pair = random_pair()
    torch.testing.assert_close(dist_loss(*pair), dist_loss(*pair, beta=1.0, gamma=1.0, temperature=1.0), rtol=0, atol=0)


@pytest.mark.parametrize('temperature', [2.0, 4.0])
def test_the_temperature_divides_the_logits_and_its_square_multiplies_the_loss(temperature: float) -> None:
    student, teacher = random_pair()
    torch.testing.assert_close(dist_loss(student, teacher, temperature=temperature),
                               temperature**2 * dist_loss(student / temperature, teacher / temperature))


def test_the_part_of_the_batch_is_the_same_for_every_sample_and_the_other_is_the_samples_own() -> None:
    student, teacher = random_pair()
    shared = dist_loss(student, teacher, beta=0.0)
    assert shared.unique().numel() == 1
    own = dist_loss(student, teacher, gamma=0.0)
    assert own.unique().numel() == 6
    torch.testing.assert_close(dist_loss(student[2:3], teacher[2:3], gamma=0.0), own[2:3])
    torch.testing.assert_close(dist_loss(student, teacher), own + shared)
    assert abs(dist_loss(student[:4], teacher[:4], beta=0.0)[0] - shared[0]) > 1e-2


@every_setting
def test_its_gradient_is_that_of_finite_differences(setting: dict) -> None:
    student, teacher = random_pair(n=4, c=3)
    assert torch.autograd.gradcheck(lambda s: dist_loss(s, teacher, **setting), student.requires_grad_())


def test_equal_distributions_cost_nothing() -> None:
    student, _ = random_pair()
    loss = dist_loss(student.requires_grad_(), student.detach() + 7.0)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-4)  # the epsilon leaves a trace
    loss.mean().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-4)


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair())
    dist_loss(student, teacher).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_no_sample_gives_no_value() -> None:
    assert dist_loss(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)


def test_one_sample_has_no_relation_over_the_batch() -> None:
    student, teacher = random_pair(n=1)
    loss = dist_loss(student.requires_grad_(), teacher, beta=0.0, gamma=2.0)
    assert loss.tolist() == [2.0]
    loss.sum().backward()
    assert not student.grad.any()


def test_a_row_of_equal_logits_is_uncorrelated_and_its_gradient_is_bounded_by_the_epsilon() -> None:
    student, teacher = torch.full((1, 3), 0.1, requires_grad=True), torch.tensor([[2.0, 0, -1]])
    loss = dist_loss(student, teacher, gamma=0.0)
    assert loss.item() == pytest.approx(1, abs=1e-6)
    loss.sum().backward()
    assert student.grad.isfinite().all()
    assert 0.01 / EPSILON < student.grad.abs().max() <= 1 / EPSILON


def test_where_the_teacher_does_not_vary_there_is_nothing_to_learn() -> None:
    student = torch.tensor([[2.0, 0, -1], [0, 1, 1]], requires_grad=True)
    loss = dist_loss(student, torch.zeros(2, 3))
    assert loss.tolist() == pytest.approx([2, 2], abs=1e-6)
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros(2, 3), rtol=0, atol=1e-6)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_logits(dtype: torch.dtype) -> None:
    student, teacher = (tensor.to(dtype) for tensor in random_pair())
    with torch.autocast('cpu', dtype=dtype):
        ours = dist_loss(student, teacher, temperature=2.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), dist_loss(student.double(), teacher.double(), temperature=2.0),
                               rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_certain_rows_in_half_precision_give_no_nan(dtype: torch.dtype) -> None:
    student = (1000 * torch.eye(4)).to(dtype).requires_grad_()
    loss = dist_loss(student, student.detach().flip(0))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`dist_loss` needs a finite `temperature` greater than 0, got 0'),
    (dict(beta=-1.0), '`dist_loss` needs a finite `beta` of at least 0, got -1.0'),
    (dict(gamma=math.nan), '`dist_loss` needs a finite `gamma` of at least 0, got nan')])
def test_a_wrong_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dist_loss(*random_pair(), **arguments)


def test_a_wrong_shape_is_named() -> None:
    with pytest.raises(ValueError, match=r'of one shape \(n, c\), got \(2, 5\) and \(3, 5\)'):
        dist_loss(torch.zeros(2, 5), torch.zeros(3, 5))
