"""CKD against a plain loop in float64, and against numbers worked out by hand."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from ckd_mmdet.functional import ckd_loss, other_id, same_id
from ckd_mmdet.functional import contrast as subject
from ckd_mmdet.functional.contrast import CONTRASTS, TERMS
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from tests.functional.loops import STUDENT, TEACHER, ckd_rows

S, T = torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64)


def random_pair(n: int, c: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(n, c, dtype=torch.float64), 3 * torch.randn(n, c, dtype=torch.float64)


def masks(n: int) -> dict[str, Tensor | None]:
    """Which rows are whose negatives; the diagonal holds both values."""
    torch.manual_seed(1)
    ids = torch.arange(n) % 3
    drawn = torch.rand(n, n) < 0.5  # in no order: who is whose negative is not mutual
    return dict(all=None, same=same_id(ids), other=other_id(ids), joined=same_id(ids) & other_id(torch.arange(n) // 4),
                none=torch.zeros(n, n, dtype=torch.bool), drawn=drawn)


every_mask = pytest.mark.parametrize('mask', masks(1))


@every_mask
@pytest.mark.parametrize(('contrast', 'terms', 'temperature'), list(product(CONTRASTS, TERMS, (0.1, 1.0, 2.0))))
def test_every_form_equals_the_double_loop(contrast: str, terms: str, temperature: float, mask: str) -> None:
    student, teacher = random_pair(7)
    settings = dict(temperature=temperature, contrast=contrast, terms=terms, negatives=masks(7)[mask])
    ours = ckd_loss(student, teacher, **settings)
    assert ours.shape == (7,)
    assert ours.tolist() == pytest.approx(ckd_rows(student, teacher, **settings), rel=1e-12, abs=1e-12)


def test_a_mask_of_ids_has_the_pairs_that_share_one_or_do_not() -> None:
    ids = torch.tensor([3, 8, 3])
    assert same_id(ids).tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    assert torch.equal(other_id(ids), ~same_id(ids))
    assert same_id(ids[:0]).shape == other_id(ids[:0]).shape == (0, 0)


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_row_is_compared_with_itself_whatever_the_mask_says_of_it(contrast: str) -> None:
    student, teacher = random_pair(5)
    negatives = torch.ones(5, 5, dtype=torch.bool)
    without = negatives.clone().fill_diagonal_(False)
    one, other = (ckd_loss(student, teacher, contrast=contrast, negatives=mask) for mask in (negatives, without))
    assert torch.equal(one, other)
    assert not without.diagonal().any()  # nor is the caller's mask written to


@pytest.mark.parametrize(('contrast', 'temperature', 'number'), [
    ('teacher_student', 1, 0.561218), ('teacher_student', 2, 0.797789),
    ('student_student', 1, 0.552958), ('student_student', 2, 0.778914),
    ('symmetric', 1, (0.561218 + 0.563343) / 2), ('symmetric', 2, (0.797789 + 0.798490) / 2)])
def test_it_gives_the_numbers_worked_out_by_hand(contrast: str, temperature: float, number: float) -> None:
    assert ckd_loss(S, T, contrast=contrast, temperature=temperature).mean().item() == pytest.approx(number, abs=1e-6)


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


@every_mask
@pytest.mark.parametrize(('contrast', 'terms'), list(product(CONTRASTS, TERMS)))
def test_its_gradient_is_that_of_finite_differences(contrast: str, terms: str, mask: str) -> None:
    student, teacher = random_pair(4)
    assert torch.autograd.gradcheck(
        lambda s: ckd_loss(s, teacher, temperature=0.7, contrast=contrast, terms=terms, negatives=masks(4)[mask]),
        student.requires_grad_())


def test_no_gradient_flows_to_the_teacher() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair(4))
    for contrast in CONTRASTS:
        ckd_loss(student, teacher, contrast=contrast).sum().backward()
    assert teacher.grad is None


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_the_terms_add_up_to_both(contrast: str) -> None:
    both, intra, inter = (ckd_loss(*random_pair(6), contrast=contrast, terms=terms)
                          for terms in ('both', 'intra', 'inter'))
    torch.testing.assert_close(intra + inter, both, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(('contrast', 'terms'), list(product(CONTRASTS, TERMS)))
def test_no_sample_gives_no_value_and_keeps_the_graph(contrast: str, terms: str) -> None:
    student = torch.zeros(0, 4, requires_grad=True)
    loss = ckd_loss(student, torch.zeros(0, 4), contrast=contrast, terms=terms,
                    negatives=same_id(torch.zeros(0)))
    assert loss.shape == (0,)
    loss.sum().backward()
    assert student.grad.shape == (0, 4)


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_a_sample_without_others_has_nothing_to_learn(contrast: str) -> None:
    student, teacher = random_pair(1)
    student.requires_grad_()
    loss = ckd_loss(student, teacher, contrast=contrast)
    assert loss.tolist() == pytest.approx([0], abs=1e-15)
    loss.sum().backward()
    assert student.grad.tolist()[0] == pytest.approx([0] * 5, abs=1e-15)


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_rows_of_one_image_are_a_batch_of_their_own(contrast: str) -> None:
    student, teacher = random_pair(6)
    together = ckd_loss(student, teacher, contrast=contrast, negatives=same_id(torch.tensor([3, 8, 3, 8, 8, 3])))
    for rows in ([0, 2, 5], [1, 3, 4]):
        torch.testing.assert_close(together[rows], ckd_loss(student[rows], teacher[rows], contrast=contrast))


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_who_is_no_negative_of_an_anchor_gets_no_gradient_of_it(contrast: str) -> None:
    student, teacher = random_pair(4)
    negatives = torch.zeros(4, 4, dtype=torch.bool)
    negatives[0, 2] = True
    ckd_loss(student.requires_grad_(), teacher, contrast=contrast, negatives=negatives)[0].backward()
    assert student.grad.abs().sum(1)[[1, 3]].tolist() == [0, 0]
    assert student.grad[0].any() and bool(student.grad[2].any()) == (contrast != 'student_teacher')


@pytest.mark.parametrize('size', [0, 5e-13, 1e-12, 2e-12])
@pytest.mark.parametrize('contrast', CONTRASTS)
def test_rows_shorter_than_the_epsilon_are_not_blown_up(contrast: str, size: float) -> None:
    student, teacher = random_pair(4)
    student[1] *= size / student[1].norm()
    teacher[2] *= size / teacher[2].norm()
    student.requires_grad_()
    loss = ckd_loss(student, teacher, contrast=contrast)
    assert loss.tolist() == pytest.approx(ckd_rows(student, teacher, 1.0, contrast, 'both', None), rel=1e-9)
    loss.sum().backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('n', [64, 512, 2048])
def test_a_perfect_match_against_orthogonal_negatives_reaches_the_bound(n: int) -> None:
    rows = torch.eye(n)
    bound = math.log((n - 1 + math.e) / math.e)
    assert ckd_loss(rows, rows).tolist() == pytest.approx([bound] * n, rel=1e-5)
    assert bound == pytest.approx({64: 3.185, 512: 5.242, 2048: 6.625}[n], abs=1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(('contrast', 'terms'), list(product(CONTRASTS, TERMS)))
def test_half_precision_is_only_in_the_logits(contrast: str, terms: str, dtype: torch.dtype) -> None:
    # 300^2 is beyond half precision, so is the sum over rows
    student, teacher = (100 * tensor.to(dtype) for tensor in random_pair(32))
    settings = dict(temperature=0.05, contrast=contrast, terms=terms)
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
    (dict(temperature=0), r'`ckd_loss` needs a finite `temperature` greater than 0, got 0\.'),
    (dict(temperature=-1.0), r'greater than 0, got -1\.0'),
    (dict(temperature=math.nan), r'greater than 0, got nan'),
    (dict(temperature=math.inf), r'greater than 0, got inf'),
    (dict(temperature='2'), r"greater than 0, got '2'"),
    (dict(temperature=None), r'greater than 0, got None'),
    (dict(temperature=True), r'greater than 0, got True'),
    (dict(contrast='teacher'), r"needs `contrast` to be one of \('teacher_student', .*\), got 'teacher'"),
    (dict(terms='all'), r"needs `terms` to be one of \('both', 'intra', 'inter'\), got 'all'"),
    (dict(negatives=torch.ones(3, 2) > 0), r'`negatives` of shape \(3, 3\) and dtype torch.bool, .* got \(3, 2\)'),
    (dict(negatives=torch.ones(3) > 0), r'got \(3,\) and torch.bool'),
    (dict(negatives=torch.ones(3, 3)), r'got \(3, 3\) and torch.float32; make it of ids with `same_id`')])
def test_a_wrong_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ckd_loss(S, T, **arguments)


@pytest.mark.parametrize(('student', 'teacher'), [(S, T[:2]), (S, T[:, :3]), (S[0], T[0]), (S[None], T[None])])
def test_rows_that_do_not_pair_are_refused(student: Tensor, teacher: Tensor) -> None:
    with pytest.raises(ValueError, match=r'`ckd_loss` needs `student` and `teacher` of one shape \(n, c\), got'):
        ckd_loss(student, teacher)


# many rows

CHOICES = [dict(contrast=contrast, negatives=negatives) for contrast in CONTRASTS
           for negatives in (None, other_id(torch.arange(23) % 4))]


@pytest.mark.parametrize('choice', CHOICES, ids=lambda choice: f"{choice['contrast']}, {choice['negatives'] is None}")
@pytest.mark.parametrize('pairs', [23, 23 * 5, 23 * 22])
def test_blocks_give_the_value_and_the_gradient_of_the_whole(choice: dict, pairs: int,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 23, 4, dtype=torch.float64)
    student.requires_grad_()
    found = []
    for most in (23 * 23, pairs):
        monkeypatch.setattr(subject, 'WHOLE', most)
        loss = ckd_loss(student, teacher, temperature=0.7, **choice)
        one, = torch.autograd.grad(loss[::2].sum(), student, retain_graph=True)
        again, = torch.autograd.grad(loss[::2].sum(), student)  # as where gradients are measured for a balanced weight
        found.append((loss.detach(), one, again))
    for whole, block in zip(*found, strict=True):
        torch.testing.assert_close(block, whole, rtol=0, atol=1e-12)


def test_negatives_may_be_given_by_slices() -> None:
    torch.manual_seed(0)
    student, teacher, ids = torch.randn(9, 4), torch.randn(9, 4), torch.arange(9) % 2
    by_slices = ckd_loss(student, teacher, negatives=lambda rows: other_id(ids[rows], ids))
    assert torch.equal(by_slices, ckd_loss(student, teacher, negatives=other_id(ids)))


def test_memory_grows_with_the_number_of_rows_and_not_with_its_square(tmp_path: Path,
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    n = 4096
    student, teacher = torch.randn(2, n, 8)
    peaks = []
    for most in (subject.WHOLE, n * n):
        monkeypatch.setattr(subject, 'WHOLE', most)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            ckd_loss(student.clone().requires_grad_(), teacher).mean().backward()
        profiled.export_chrome_trace(str(tmp_path / 'trace.json'))
        events = json.loads((tmp_path / 'trace.json').read_text())['traceEvents']
        allocated = [event['args']['Total Allocated'] for event in events if event['name'] == '[memory]']
        peaks.append((max(allocated) - allocated[0]) / 2**20)
    blocks, whole = peaks
    assert whole > 2 * n * n * 4 / 2**20  # the cosines and their gradient
    assert blocks < 80
