"""The logged numbers against a plain loop."""

import pytest
import torch
from ckd_mmdet.functional import agreement

from tests.functional.loops import STUDENT, TEACHER, agreement_numbers


@pytest.mark.parametrize('noise', [0.0, 1.0, 5.0])
def test_it_equals_the_loop(noise: float) -> None:
    torch.manual_seed(0)
    teacher = torch.randn(20, 4, dtype=torch.float64)
    student = teacher + noise * torch.randn(20, 4, dtype=torch.float64)
    ours = {name: value.item() for name, value in agreement(student, teacher).items()}
    assert ours == pytest.approx(agreement_numbers(student, teacher), abs=1e-7)


def test_rows_in_another_order_are_not_found() -> None:
    rows = torch.eye(4)
    assert agreement(rows, rows)['retrieval'] == 1
    assert agreement(rows.roll(1, 0), rows)['retrieval'] == 0
    assert agreement(rows.roll(1, 0), rows)['cosine'] == 0


def test_the_teachers_row_looks_among_the_students_rows() -> None:
    # the first student row is the nearest to both teacher rows, and to each student row the first teacher row is
    teacher, student = torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[2.0, 1], [0, 1]])
    assert agreement(student, teacher)['retrieval'] == 0.5
    assert agreement(torch.tensor(STUDENT), torch.tensor(TEACHER))['retrieval'] == 1


def test_a_tie_counts_as_found() -> None:
    assert agreement(torch.ones(3, 2), torch.tensor([[1.0, 0], [0, 1], [2, 5]]))['retrieval'] == 1


def test_no_row_gives_zeros() -> None:
    assert {name: value.item() for name, value in agreement(torch.zeros(0, 3), torch.zeros(0, 3)).items()} == {
        'rows': 0, 'cosine': 0, 'retrieval': 0}


def test_it_gives_scalars_in_float32_without_gradient_and_no_name_with_loss() -> None:
    student = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast('cpu'):
        numbers = agreement(student, student.detach())
    for name, value in numbers.items():
        assert 'loss' not in name
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert not value.requires_grad
    assert numbers['cosine'].item() == pytest.approx(1, abs=1e-6)


def test_rows_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match=r'`agreement` needs `student` and `teacher` of one shape'):
        agreement(torch.zeros(2, 5), torch.zeros(3, 5))
