"""DKD against a plain loop in float64."""

import math

import pytest
import torch
from ckd_mmdet.functional import dkd_loss, kd_loss
from torch import Tensor

from tests.functional.loops import dkd_rows, standardized_rows

SETTINGS = [dict(alpha=1.0, beta=8.0, temperature=4.0), dict(alpha=1.0, beta=0.25, temperature=1.0),
            dict(alpha=0.0, beta=1.0, temperature=0.5), dict(alpha=2.0, beta=0.0, temperature=2.0)]

every_setting = pytest.mark.parametrize('setting', SETTINGS, ids=str)


def random_rows(n: int = 6, c: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and labels, the first and last class among them."""
    torch.manual_seed(0)
    student, teacher = (3 * torch.randn(n, c, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.arange(n) % c


@every_setting
def test_it_equals_the_loop(setting: dict) -> None:
    student, teacher, labels = random_rows()
    ours = dkd_loss(student, teacher, labels, **setting)
    assert ours.tolist() == pytest.approx(dkd_rows(student, teacher, labels, **setting), rel=1e-12)


@every_setting
def test_with_standardised_logits_it_equals_the_loop(setting: dict) -> None:
    student, teacher, labels = random_rows()
    rows = [torch.tensor(standardized_rows(logits), dtype=torch.float64) for logits in (student, teacher)]
    ours = dkd_loss(student, teacher, labels, **setting, standardize=True)
    assert ours.tolist() == pytest.approx(dkd_rows(*rows, labels, **setting), rel=1e-12)


@pytest.mark.parametrize(('alpha', 'beta', 'expected'), [(1, 0, 0.143841), (0, 1, 0.058892), (1, 8, 0.614973)])
def test_it_gives_the_numbers_worked_out_by_hand(alpha: float, beta: float, expected: float) -> None:
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4), label 0: 1/2 log 2 + 1/2 log 2/3, and 1/2 log 3/4 + 1/2 log 3/2
    student, teacher = torch.tensor([[1.0, 2, 1]]).log(), torch.tensor([[2.0, 1, 1]]).log()
    loss = dkd_loss(student, teacher, torch.tensor([0]), alpha=alpha, beta=beta, temperature=1.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_by_default_it_is_as_released_for_cifar() -> None:
    rows = random_rows()
    torch.testing.assert_close(dkd_loss(*rows), dkd_loss(*rows, alpha=1.0, beta=8.0, temperature=4.0), rtol=0, atol=0)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_weighted_by_what_the_teacher_leaves_for_the_others_it_is_kd(temperature: float) -> None:
    student, teacher, labels = random_rows()
    target = dkd_loss(student, teacher, labels, alpha=1.0, beta=0.0, temperature=temperature)
    others = dkd_loss(student, teacher, labels, alpha=0.0, beta=1.0, temperature=temperature)
    left = 1 - (teacher / temperature).softmax(1).gather(1, labels[:, None]).squeeze(1)
    torch.testing.assert_close(target + left * others, kd_loss(student, teacher, temperature=temperature))


def test_the_others_part_does_not_see_the_labelled_class() -> None:
    student, teacher, labels = random_rows()
    moved = student.scatter(1, labels[:, None], 9.0)
    for alpha, beta, same in ((0.0, 1.0, True), (1.0, 0.0, False)):
        one, other = (dkd_loss(s, teacher, labels, alpha=alpha, beta=beta) for s in (student, moved))
        assert torch.equal(one, other) is same


@every_setting
@pytest.mark.parametrize('standardize', [False, True])
def test_its_gradient_is_that_of_finite_differences(setting: dict, standardize: bool) -> None:
    student, teacher, labels = random_rows(n=3)
    assert torch.autograd.gradcheck(lambda s: dkd_loss(s, teacher, labels, **setting, standardize=standardize),
                                    student.requires_grad_())


def test_equal_distributions_cost_nothing() -> None:
    student, _, labels = random_rows()
    loss = dkd_loss(student.requires_grad_(), student.detach() + 7.0, labels)
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher, labels = random_rows()
    dkd_loss(student.requires_grad_(), teacher.requires_grad_(), labels).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_no_sample_gives_no_value() -> None:
    assert dkd_loss(torch.zeros(0, 5), torch.zeros(0, 5), torch.zeros(0, dtype=torch.long)).shape == (0,)


def test_of_two_classes_only_the_labelled_ones_part_is_left() -> None:
    student, teacher, labels = random_rows(c=2)
    torch.testing.assert_close(dkd_loss(student, teacher, labels, beta=8.0, temperature=2.0),
                               kd_loss(student, teacher, temperature=2.0))


def test_a_class_that_is_certain_gives_no_nan() -> None:
    # labelled 0: the student is as sure of another class as it can be, where a logarithm of its probability is infinite
    student = torch.tensor([[0.0, 1e4, 0.0]], requires_grad=True)
    loss = dkd_loss(student, torch.tensor([[1e4, 0.0, 0.0]]), torch.tensor([0]), beta=1.0, temperature=1.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e4 + 5e3 - math.log(2), rel=1e-6)
    assert student.grad.isfinite().all()


def test_a_row_of_equal_logits_can_be_standardised() -> None:
    student, teacher, labels = random_rows(n=1)
    flat = torch.full_like(student, 0.1).requires_grad_()
    loss = dkd_loss(flat, teacher, labels, standardize=True)
    torch.testing.assert_close(loss, dkd_loss(torch.zeros_like(flat), teacher, labels, standardize=True))
    loss.sum().backward()
    assert flat.grad.isfinite().all()


@pytest.mark.parametrize('standardize', [False, True])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_logits(dtype: torch.dtype, standardize: bool) -> None:
    student, teacher, labels = random_rows()
    student, teacher = (10 * logits.to(dtype) for logits in (student, teacher))
    with torch.autocast('cpu', dtype=dtype):
        ours = dkd_loss(student, teacher, labels, standardize=standardize)
    assert ours.dtype == torch.float32
    exact = dkd_loss(student.double(), teacher.double(), labels, standardize=standardize)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`dkd_loss` needs a finite `temperature` greater than 0, got 0'),
    (dict(alpha=-1.0), '`dkd_loss` needs a finite `alpha` of at least 0, got -1.0'),
    (dict(beta=math.inf), '`dkd_loss` needs a finite `beta` of at least 0, got inf')])
def test_a_wrong_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dkd_loss(*random_rows(), **arguments)


@pytest.mark.parametrize(('label', 'range_'), [(-1, '-1 to 3'), (5, '0 to 5')], ids=['ignored', 'no class'])
def test_a_label_that_is_no_class_is_refused(label: int, range_: str) -> None:
    student, teacher, labels = random_rows(n=4)
    labels[1] = label
    labels[2] = 0
    with pytest.raises(ValueError, match=f'`labels` of 0 to 4, one of the 5 classes, got {range_}; leave rows without'):
        dkd_loss(student, teacher, labels)


def test_a_wrong_shape_is_named() -> None:
    labels = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r'of one shape \(n, c\), got \(2, 5\) and \(3, 5\)'):
        dkd_loss(torch.zeros(2, 5), torch.zeros(3, 5), labels)
    with pytest.raises(ValueError, match=r'`labels` of shape \(3,\), one a row, got \(2,\)'):
        dkd_loss(torch.zeros(3, 5), torch.zeros(3, 5), labels)
    with pytest.raises(ValueError, match='at least 2 classes, got 1'):
        dkd_loss(torch.zeros(2, 1), torch.zeros(2, 1), labels)
