"""CKD against a plain loop in float64, and against numbers worked out by hand."""

import math
from itertools import product

import pytest
import torch
from ckd_mmdet.functional import ckd_loss
from ckd_mmdet.functional.contrast import NEGATIVES, TERMS
from torch import Tensor

from tests.functional.loops import STUDENT, TEACHER, ckd_rows

S, T = torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64)


def random_pair(n: int, c: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(n, c, dtype=torch.float64), 3 * torch.randn(n, c, dtype=torch.float64)


@pytest.mark.parametrize('labels', [None, [0, 1, 0, 3, 3, 3, 2], [5, 5, 5, 5, 5, 5, 5]], ids=['other', 'four', 'alike'])
@pytest.mark.parametrize('groups', [None, [4, 4, 4, 4, 4, 4, 4], [1, 0, 1, 2, 0, 1, 9]], ids=['batch', 'one', 'four'])
@pytest.mark.parametrize(('negatives', 'terms', 'temperature'), list(product(NEGATIVES, TERMS, (0.1, 1.0, 2.0))))
def test_every_form_equals_the_double_loop(negatives: str, terms: str, temperature: float,
                                           groups: list[int] | None, labels: list[int] | None) -> None:
    student, teacher = random_pair(7)
    settings = dict(temperature=temperature, negatives=negatives, terms=terms,
                    groups=None if groups is None else torch.tensor(groups),
                    labels=None if labels is None else torch.tensor(labels))
    ours = ckd_loss(student, teacher, **settings)
    assert ours.shape == (7,)
    assert ours.tolist() == pytest.approx(ckd_rows(student, teacher, **settings), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(('negatives', 'temperature', 'number'), [
    ('teacher_student', 1, 0.561218), ('teacher_student', 2, 0.797789),
    ('student_student', 1, 0.552958), ('student_student', 2, 0.778914),
    ('symmetric', 1, (0.561218 + 0.563343) / 2), ('symmetric', 2, (0.797789 + 0.798490) / 2)])
def test_it_gives_the_numbers_worked_out_by_hand(negatives: str, temperature: float, number: float) -> None:
    assert ckd_loss(S, T, negatives=negatives, temperature=temperature).mean().item() == pytest.approx(number, abs=1e-6)


@pytest.mark.parametrize(('temperature', 'number'), [(1, 0.563343), (2, 0.798490)])
def test_the_transposed_direction_is_another_loss(temperature: float, number: float) -> None:
    assert ckd_loss(T, S, temperature=temperature).mean().item() == pytest.approx(number, abs=1e-6)


def test_the_length_of_a_row_does_not_count_but_its_centre_does() -> None:
    assert ckd_loss(5 * S, T).mean().item() == pytest.approx(0.561218, abs=1e-6)
    assert ckd_loss(S, 5 * T).mean().item() == pytest.approx(0.561218, abs=1e-6)
    assert ckd_loss(S + 3, T).mean().item() == pytest.approx(0.927036, abs=1e-6)


def test_the_gradient_is_the_one_worked_out_by_hand() -> None:
    student = S.clone().requires_grad_()
    ckd_loss(student, T).mean().backward()
    assert student.grad[0].tolist() == pytest.approx([-0.003222, 0.067577, 0.030567, -0.060160], abs=1e-6)


@pytest.mark.parametrize('ids', [{}, dict(groups=torch.tensor([0, 1, 0, 1])), dict(labels=torch.tensor([2, 2, 0, 2]))],
                         ids=['batch', 'groups', 'labels'])
@pytest.mark.parametrize(('negatives', 'terms'), list(product(NEGATIVES, TERMS)))
def test_its_gradient_is_that_of_finite_differences(negatives: str, terms: str, ids: dict) -> None:
    student, teacher = random_pair(4)
    assert torch.autograd.gradcheck(
        lambda s: ckd_loss(s, teacher, temperature=0.7, negatives=negatives, terms=terms, **ids),
        student.requires_grad_())


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair(4))
    for negatives in NEGATIVES:
        ckd_loss(student, teacher, negatives=negatives).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_the_terms_add_up_to_both(negatives: str) -> None:
    both, intra, inter = (ckd_loss(*random_pair(6), negatives=negatives, terms=terms)
                          for terms in ('both', 'intra', 'inter'))
    torch.testing.assert_close(intra + inter, both, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('negatives', 'terms'), list(product(NEGATIVES, TERMS)))
def test_no_sample_gives_no_value_and_keeps_the_graph(negatives: str, terms: str) -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = ckd_loss(student, torch.zeros(0, 4), negatives=negatives, terms=terms, groups=torch.zeros(0))
    assert loss.shape == (0,)
    loss.sum().backward()
    assert student.grad.shape == (0, 4)


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_a_sample_without_others_has_nothing_to_learn(negatives: str) -> None:
    student, teacher = random_pair(1)
    student.requires_grad_()
    loss = ckd_loss(student, teacher, negatives=negatives)
    assert loss.tolist() == pytest.approx([0], abs=1e-15)
    loss.sum().backward()
    assert student.grad.tolist()[0] == pytest.approx([0] * 5, abs=1e-15)


@pytest.mark.parametrize('negatives', NEGATIVES)
def test_groups_are_separate_batches(negatives: str) -> None:
    student, teacher = random_pair(6)
    together = ckd_loss(student, teacher, negatives=negatives, groups=torch.tensor([3, 8, 3, 8, 8, 3]))
    for rows in ([0, 2, 5], [1, 3, 4]):
        torch.testing.assert_close(together[rows], ckd_loss(student[rows], teacher[rows], negatives=negatives))


@pytest.mark.parametrize('size', [0, 5e-13, 1e-12, 2e-12])
@pytest.mark.parametrize('negatives', NEGATIVES)
def test_rows_shorter_than_the_epsilon_are_not_blown_up(negatives: str, size: float) -> None:
    student, teacher = random_pair(4)
    student[1] *= size / student[1].norm()
    teacher[2] *= size / teacher[2].norm()
    student.requires_grad_()
    loss = ckd_loss(student, teacher, negatives=negatives)
    assert loss.tolist() == pytest.approx(ckd_rows(student, teacher, 1.0, negatives, 'both', None), rel=1e-9)
    loss.sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('n', [64, 512, 2048])
def test_a_perfect_match_against_orthogonal_negatives_reaches_the_bound(n: int) -> None:
    rows = torch.eye(n)
    bound = math.log((n - 1 + math.e) / math.e)
    assert ckd_loss(rows, rows).tolist() == pytest.approx([bound] * n, rel=1e-5)
    assert bound == pytest.approx({64: 3.185, 512: 5.242, 2048: 6.625}[n], abs=1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('negatives', 'terms'), list(product(NEGATIVES, TERMS)))
def test_half_precision_is_only_in_the_logits(negatives: str, terms: str, dtype: torch.dtype) -> None:
    # 300^2 is beyond half precision, so is the sum over rows
    student, teacher = (100 * tensor.to(dtype) for tensor in random_pair(32))
    settings = dict(temperature=0.05, negatives=negatives, terms=terms)
    with torch.autocast('cpu', dtype=dtype):
        ours = ckd_loss(student, teacher, **settings)
    assert ours.dtype == torch.float32
    assert ours.isfinite().all()
    torch.testing.assert_close(ours, ckd_loss(student.float(), teacher.float(), **settings), rtol=0, atol=0)
    exact = ckd_loss(student.double(), teacher.double(), **settings)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-4, atol=1e-4)


def test_a_low_temperature_does_not_overflow() -> None:
    student, teacher = (tensor.float() for tensor in random_pair(8))
    assert ckd_loss(student, teacher, temperature=1e-4).isfinite().all()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), r'`ckd_loss` needs a `temperature` greater than 0, got 0\.'),
    (dict(temperature=-1.0), r'greater than 0, got -1\.0'),
    (dict(temperature=math.nan), r'greater than 0, got nan'),
    (dict(negatives='teacher'), r"needs `negatives` to be one of \('teacher_student', .*\), got 'teacher'"),
    (dict(terms='all'), r"needs `terms` to be one of \('both', 'intra', 'inter'\), got 'all'"),
    (dict(groups=torch.zeros(2)), r'needs `groups` of shape \(3,\), one id a row, got \(2,\)'),
    (dict(groups=torch.zeros(3, 1)), r'got \(3, 1\)')])
def test_a_wrong_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ckd_loss(S, T, **arguments)


@pytest.mark.parametrize(('student', 'teacher'), [(S, T[:2]), (S, T[:, :3]), (S[0], T[0]), (S[None], T[None])])
def test_rows_that_do_not_pair_are_refused(student: Tensor, teacher: Tensor) -> None:
    with pytest.raises(ValueError, match=r'`ckd_loss` needs `student` and `teacher` of one shape \(n, c\), got'):
        ckd_loss(student, teacher)
