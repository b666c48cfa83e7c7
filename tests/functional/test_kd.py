"""KD against a plain loop in float64."""

import pytest
import torch
from ckd_mmdet.functional import binary_kd_loss, class_log_odds, kd_loss, standardized
from ckd_mmdet.functional.kd import EPSILON
from torch import Tensor

from tests.functional.loops import binary_kd_rows, kd_rows, log_odds_rows, standardized_rows


def random_pair(n: int = 6, c: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(n, c, dtype=torch.float64), 3 * torch.randn(n, c, dtype=torch.float64)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_it_equals_the_loop(temperature: float) -> None:
    student, teacher = random_pair()
    ours = kd_loss(student, teacher, temperature=temperature)
    assert ours.tolist() == pytest.approx(kd_rows(student, teacher, temperature), rel=1e-12)


def test_it_gives_the_number_worked_out_by_hand() -> None:
    # p = (3/4, 1/4), q = (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2
    teacher = torch.tensor([[3.0, 1.0]]).log()
    assert kd_loss(torch.zeros(1, 2), teacher).item() == pytest.approx(0.130812, abs=1e-6)


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_its_gradient_is_that_of_finite_differences(temperature: float) -> None:
    student, teacher = random_pair()
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, temperature=temperature), student.requires_grad_())


@pytest.mark.parametrize('temperature', [2.0, 4.0])
def test_the_temperature_divides_the_logits_and_its_square_multiplies_the_loss(temperature: float) -> None:
    student, teacher = random_pair()
    torch.testing.assert_close(kd_loss(student, teacher, temperature=temperature),
                               temperature**2 * kd_loss(student / temperature, teacher / temperature))


def test_the_gradient_keeps_its_size_at_high_temperature() -> None:
    student, teacher = random_pair()
    kd_loss(student.requires_grad_(), teacher, temperature=1e4).sum().backward()
    centred = [logits - logits.mean(1, keepdim=True) for logits in (student.detach(), teacher)]
    torch.testing.assert_close(student.grad, (centred[0] - centred[1]) / 5, rtol=1e-3, atol=1e-3)


def test_equal_distributions_cost_nothing() -> None:
    student, _ = random_pair()
    student.requires_grad_()
    loss = kd_loss(student, student.detach() + 7.0, temperature=3.0)  # a shift leaves the softmax
    torch.testing.assert_close(loss, torch.zeros_like(loss), rtol=0, atol=1e-12)
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), rtol=0, atol=1e-12)


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair())
    kd_loss(student, teacher).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_no_sample_gives_no_value() -> None:
    assert kd_loss(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0,)


def test_a_class_that_is_certain_gives_no_nan() -> None:
    student = torch.tensor([[0.0, 1e4], [1e4, 0.0]], requires_grad=True)
    loss = kd_loss(student, torch.tensor([[1e4, 0.0], [1e4, 0.0]]))
    loss.sum().backward()
    assert loss.tolist() == [1e4, 0]
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_logits(dtype: torch.dtype) -> None:
    student, teacher = (10 * tensor.to(dtype) for tensor in random_pair())
    with torch.autocast('cpu', dtype=dtype):
        ours = kd_loss(student, teacher, temperature=2.0)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), kd_loss(student.double(), teacher.double(), temperature=2.0),
                               rtol=1e-4, atol=1e-4)


def test_a_wrong_argument_is_named() -> None:
    with pytest.raises(ValueError, match=r'`kd_loss` needs a finite `temperature` greater than 0, got 0'):
        kd_loss(*random_pair(), temperature=0)
    with pytest.raises(ValueError, match=r'of one shape \(n, c\), got \(2, 5\) and \(3, 5\)'):
        kd_loss(torch.zeros(2, 5), torch.zeros(3, 5))


# Standardised logits


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_with_standardised_logits_it_equals_the_loop(temperature: float) -> None:
    student, teacher = random_pair()
    rows = [torch.tensor(standardized_rows(logits), dtype=torch.float64) for logits in (student, teacher)]
    ours = kd_loss(student, teacher, temperature=temperature, standardize=True)
    assert ours.tolist() == pytest.approx(kd_rows(*rows, temperature), rel=1e-12)


def test_with_standardised_logits_it_gives_the_number_worked_out_by_hand() -> None:
    # z = (-1, 0, 1) and (1, 0, -1), as the deviation of three numbers is divided by 2: 2 (e - 1/e) / (e + 1 + 1/e)
    student, teacher = torch.tensor([[2.0, 4, 6]]), torch.tensor([[1.3, 1.2, 1.1]])
    assert kd_loss(student, teacher, standardize=True).item() == pytest.approx(1.150421, abs=1e-5)


def test_standardised_rows_have_no_mean_and_spread_one() -> None:
    rows = standardized(random_pair()[0])
    torch.testing.assert_close(rows.mean(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(rows.std(1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6)


def test_standardised_logits_have_neither_scale_nor_offset() -> None:
    student, teacher = random_pair()
    torch.testing.assert_close(kd_loss(5 * student - 2, 0.3 * teacher + 7, standardize=True),
                               kd_loss(student, teacher, standardize=True), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(kd_loss(5 * student - 2, teacher), kd_loss(student, teacher), rtol=0.1)


def test_with_standardised_logits_its_gradient_is_that_of_finite_differences() -> None:
    student, teacher = random_pair()
    assert torch.autograd.gradcheck(lambda s: kd_loss(s, teacher, temperature=2.0, standardize=True),
                                    student.requires_grad_())


def test_a_row_of_equal_logits_is_the_uniform_distribution_and_its_gradient_is_bounded_by_the_epsilon() -> None:
    student = torch.full((1, 3), 0.1, requires_grad=True)
    teacher = torch.tensor([[1.3, 1.2, 1.1]])
    loss = kd_loss(student, teacher, standardize=True)
    torch.testing.assert_close(loss, kd_loss(torch.zeros(1, 3), teacher, standardize=True))
    loss.sum().backward()
    assert student.grad.isfinite().all()
    assert 0.01 / EPSILON < student.grad.abs().max() <= 1 / EPSILON
    assert kd_loss(teacher, torch.zeros(1, 3), standardize=True).isfinite()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_logits_in_half_precision_are_standardised_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (10 * tensor.to(dtype) for tensor in random_pair())
    student[0] = 0.1
    with torch.autocast('cpu', dtype=dtype):
        ours = kd_loss(student, teacher, standardize=True)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), kd_loss(student.double(), teacher.double(), standardize=True),
                               rtol=1e-4, atol=1e-4)


def test_no_gradient_flows_to_a_standardised_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair())
    kd_loss(student, teacher, standardize=True).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


def test_no_sample_can_be_standardised_and_one_logit_cannot() -> None:
    assert kd_loss(torch.zeros(0, 5), torch.zeros(0, 5), standardize=True).shape == (0,)
    with pytest.raises(ValueError, match='`standardized` needs rows of at least 2 logits, got 1; one has no spread'):
        kd_loss(torch.zeros(2, 1), torch.zeros(2, 1), standardize=True)


# One sigmoid a class


@pytest.mark.parametrize('temperature', [0.5, 1.0, 4.0])
def test_the_binary_form_equals_the_loop(temperature: float) -> None:
    student, teacher = random_pair()
    ours = binary_kd_loss(student, teacher, temperature=temperature)
    assert ours.tolist() == pytest.approx(binary_kd_rows(student, teacher, temperature), rel=1e-12)


def test_the_binary_form_gives_the_number_worked_out_by_hand() -> None:
    # p = 3/4, q = 1/2, the two terms as above; and an equal class
    assert binary_kd_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([[3.0, torch.e]]).log()).item() == pytest.approx(
        0.130812, abs=1e-6)


def test_the_binary_forms_gradient_is_that_of_finite_differences() -> None:
    student, teacher = random_pair()
    assert torch.autograd.gradcheck(lambda s: binary_kd_loss(s, teacher, temperature=2.0), student.requires_grad_())


def test_the_binary_form_is_finite_where_a_probability_is_zero_or_one() -> None:
    student = torch.tensor([[1000.0, -1000.0, 0.0]], requires_grad=True)
    loss = binary_kd_loss(student, torch.tensor([[1000.0, -1000.0, 1000.0]]))
    assert loss.item() == pytest.approx(0.693147, abs=1e-5)
    loss.sum().backward()
    assert student.grad.isfinite().all()


def test_no_gradient_of_the_binary_form_flows_to_the_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair())
    binary_kd_loss(student, teacher).sum().backward()
    assert teacher.grad is None


# A softmax as sigmoids


@pytest.mark.parametrize('classes', [2, 3, 7])
def test_log_odds_equal_the_loop(classes: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, classes, dtype=torch.float64)
    assert class_log_odds(logits).tolist() == [pytest.approx(row, rel=1e-12) for row in log_odds_rows(logits)]


def test_a_sigmoid_of_the_log_odds_is_the_softmax() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64)
    assert torch.allclose(class_log_odds(logits).sigmoid(), logits.softmax(1), rtol=1e-12)


def test_log_odds_are_finite_where_one_class_has_it_all() -> None:
    logits = torch.tensor([[200.0, 0.0, -200.0]], requires_grad=True)
    odds = class_log_odds(logits)
    assert odds.tolist() == [[200.0, -200.0, -400.0]]
    odds.sum().backward()
    assert logits.grad.isfinite().all()
    assert class_log_odds(logits.detach().half()).dtype == torch.float32


def test_the_gradient_of_log_odds_is_that_of_finite_differences() -> None:
    logits = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(class_log_odds, logits)


def test_one_logit_has_no_odds() -> None:
    with pytest.raises(ValueError, match='`class_log_odds` needs rows of at least 2 logits, got 1'):
        class_log_odds(torch.zeros(3, 1))
