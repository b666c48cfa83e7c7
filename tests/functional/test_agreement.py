"""The logged numbers against a plain loop."""

import pytest
import torch
from ckd_mmdet.functional import agreement
from torch.utils._python_dispatch import TorchDispatchMode

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


@pytest.mark.parametrize('n', [1024, 1025, 2500, 8192])
def test_of_many_rows_1024_at_even_distances_stand_for_all(n: int) -> None:
    torch.manual_seed(0)
    teacher = torch.randn(n, 6)
    student = teacher + torch.randn(n, 6)
    chosen = [k * n // 1024 for k in range(1024)]
    assert chosen[0] == 0 and len(set(chosen)) == 1024 and n - n / 1024 - 1 <= chosen[-1] < n
    numbers, sample = agreement(student, teacher), agreement(student[chosen], teacher[chosen])
    assert numbers['rows'] == n
    assert (numbers['cosine'], numbers['retrieval']) == (sample['cosine'], sample['retrieval'])
    assert 0 < numbers['retrieval'] < 1


def test_of_many_rows_no_tensor_is_larger_than_the_cosines_of_1024() -> None:
    class Largest(TorchDispatchMode):
        elements = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and not func.is_view:
                self.elements = max(self.elements, out.numel())
            return out

    rows = torch.randn(8192, 81)
    with Largest() as largest:
        agreement(rows, rows)
    assert largest.elements == 1024**2
