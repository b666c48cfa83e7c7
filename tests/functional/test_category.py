"""PCKD's three losses against plain loops in float64."""

import math

import pytest
import torch
from ckd_mmdet.functional import category_contrast, center_alignment, center_scores, feature_alignment
from torch import Tensor

from tests.functional.loops import category_rows, center_rows, center_score_rows, feature_rows

SETTINGS = [dict(temperature=4.0, target='samples'), dict(temperature=0.5, target='samples'),
            dict(temperature=4.0, target='centers'), dict(temperature=1.0, target='centers')]
BY_HAND = torch.tensor([[1, 0, 0.5], [0.2, 0.8, -0.1], [0.9, 0.1, 0.4], [0, 1, 0.1]], dtype=torch.float64)

every_setting = pytest.mark.parametrize('setting', SETTINGS, ids=str)


def random_rows(n: int = 6, c: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Scores by both centres, and labels, of which one stands alone."""
    torch.manual_seed(0)
    student, teacher = (2 * torch.randn(n, c, dtype=torch.float64) for _ in range(2))
    labels = torch.arange(n) % (c - 1)
    labels[-1:] = c - 1
    return student, teacher, labels


@every_setting
def test_the_contrast_equals_the_loop(setting: dict) -> None:
    rows = random_rows()
    assert category_contrast(*rows, **setting).tolist() == pytest.approx(category_rows(*rows, **setting), rel=1e-12)


def test_the_contrast_gives_the_numbers_worked_out_by_hand() -> None:
    found = category_contrast(BY_HAND[:2], BY_HAND[2:], torch.tensor([0, 1]))
    # l_0 + l_2 and l_1 + l_3 of 53.66386, 57.16492, 54.36162, 56.35627
    assert found.tolist() == pytest.approx([108.02548, 113.52119], abs=5e-6)


def test_the_contrast_with_centers_gives_the_number_worked_out_by_hand() -> None:
    student, teacher = torch.tensor([[2.0, 1, 1]]).log(), torch.tensor([[1.0, 2, 1]]).log()
    # -(1 / 0.07) (log 1/2 + log 1/4)
    found = category_contrast(student, teacher, torch.tensor([0]), temperature=1.0, target='centers')
    assert found.item() == pytest.approx(3 * math.log(2) / 0.07, rel=1e-6)


def test_by_default_the_contrast_is_as_released() -> None:
    rows = random_rows()
    torch.testing.assert_close(category_contrast(*rows), category_contrast(*rows, temperature=4.0, target='samples'),
                               rtol=0, atol=0)


def test_the_contrast_with_centers_takes_soft_labels() -> None:
    student, teacher, labels = random_rows()
    soft = torch.rand(6, 4, dtype=torch.float64).softmax(1)
    found = category_contrast(student, teacher, soft, target='centers')
    assert found.tolist() == pytest.approx(category_rows(student, teacher, soft, 4.0, 'centers'), rel=1e-12)
    hard = torch.nn.functional.one_hot(labels, 4).float()
    torch.testing.assert_close(category_contrast(student, teacher, hard, target='centers'),
                               category_contrast(student, teacher, labels, target='centers'))


def test_the_contrast_among_samples_refuses_soft_labels_by_name() -> None:
    student, teacher, _ = random_rows()
    with pytest.raises(ValueError, match=r"`category_contrast` with `target='samples'` needs one class a row, `labels` "
                                         r'of shape \(6,\), got soft ones of shape \(6, 4\).*'
                                         "Take `target='centers'`, or leave mixup and CutMix out"):
        category_contrast(student, teacher, torch.full((6, 4), 0.25))


@every_setting
def test_the_contrasts_gradient_is_that_of_finite_differences_on_both_sides(setting: dict) -> None:
    # small scores: where the epsilon counts, the maximum that is subtracted without gradient does too
    student, teacher, labels = random_rows(n=4, c=3)
    student, teacher = 0.3 * student, 0.3 * teacher
    assert torch.autograd.gradcheck(lambda s, t: category_contrast(s, t, labels, **setting),
                                    (student.requires_grad_(), teacher.requires_grad_()))


def test_the_order_of_the_samples_does_not_count() -> None:
    student, teacher, labels = random_rows()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(category_contrast(student[order], teacher[order], labels[order]),
                               category_contrast(student, teacher, labels)[order])


@pytest.mark.parametrize('target', ['samples', 'centers'])
def test_towards_its_category_a_sample_costs_less(target: str) -> None:
    student, teacher, labels = random_rows()
    nearer = [rows.clone().requires_grad_() for rows in (student, teacher)]
    before = category_contrast(*nearer, labels, target=target).mean()
    before.backward()
    with torch.no_grad():
        moved = [rows - 1e-3 * rows.grad for rows in nearer]
    assert category_contrast(*moved, labels, target=target).mean() < before


def test_only_the_numbers_of_the_labels_that_differ_count_among_samples() -> None:
    student, teacher, labels = random_rows()
    renamed = 3 - labels
    same = category_contrast(student, teacher, renamed)
    torch.testing.assert_close(same, category_contrast(student, teacher, labels))
    other = category_contrast(student, teacher, renamed, target='centers')
    assert (other - category_contrast(student, teacher, labels, target='centers')).abs().min() > 1e-3


@every_setting
def test_no_sample_gives_no_value_with_a_graph(setting: dict) -> None:
    empty = torch.zeros(0, 4, requires_grad=True)
    found = category_contrast(empty, empty, torch.zeros(0, dtype=torch.long), **setting)
    assert found.shape == (0,)
    found.sum().backward()
    assert empty.grad.shape == (0, 4)


@pytest.mark.parametrize('scale', [1.0, 100.0])
def test_one_sample_has_its_other_half_and_one_category_has_everything(scale: float) -> None:
    for n in (1, 5):
        student, teacher, _ = (scale * part for part in random_rows(n=n))
        found = category_contrast(student.requires_grad_(), teacher, torch.zeros(n, dtype=torch.long))
        assert found.isfinite().all()
        found.sum().backward()
        assert student.grad.isfinite().all()


def test_one_small_sample_costs_nothing_up_to_the_epsilon() -> None:
    rows = torch.tensor([[0.1, 0.2]])
    assert category_contrast(rows, rows, torch.tensor([0])).item() == pytest.approx(0, abs=1e-4)


@every_setting
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_scores(setting: dict, dtype: torch.dtype) -> None:
    student, teacher, labels = random_rows(n=64)
    student, teacher = student.to(dtype), teacher.to(dtype)
    with torch.autocast('cpu', dtype=dtype):
        ours = category_contrast(student, teacher, labels, **setting)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), category_contrast(student.double(), teacher.double(), labels, **setting),
                               rtol=1e-4, atol=1e-4)


@every_setting
def test_great_scores_give_no_nan(setting: dict) -> None:
    student, teacher, labels = random_rows()
    student = (1000 * student).float().requires_grad_()
    found = category_contrast(student, 1000 * teacher.float(), labels, **setting)
    found.sum().backward()
    assert found.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(temperature=0), '`category_contrast` needs a finite `temperature` greater than 0, got 0'),
    (dict(target='batch'), r"`category_contrast` needs `target` to be one of \('samples', 'centers'\), got 'batch'")])
def test_a_wrong_argument_of_the_contrast_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        category_contrast(*random_rows(), **arguments)


@pytest.mark.parametrize('target', ['samples', 'centers'])
@pytest.mark.parametrize('wrong', [-1, 4])
def test_a_label_without_a_center_is_named(target: str, wrong: int) -> None:
    student, teacher, labels = random_rows()
    labels[1] = wrong
    with pytest.raises(ValueError, match='`category_contrast` needs `labels` of 0 to 3 for rows of 4 scores, got '
                                         f'{min(wrong, 0)} to {max(wrong, 3)}'):
        category_contrast(student, teacher, labels, target=target)


def test_wrong_shapes_of_the_contrast_are_named() -> None:
    student, teacher, labels = random_rows()
    with pytest.raises(ValueError, match=r'`category_contrast` needs `student` and `teacher` of one shape, .* got '
                                         r'\(6, 4\) and \(5, 4\)'):
        category_contrast(student, teacher[:5], labels)
    with pytest.raises(ValueError, match=r'`category_contrast` needs `labels` of shape \(6,\), one a row.*got \(5,\)'):
        category_contrast(student, teacher, labels[:5])


def test_center_scores_equal_the_loop() -> None:
    torch.manual_seed(0)
    embedded, centers = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    expected = torch.tensor(center_score_rows(embedded, centers), dtype=torch.float64)
    torch.testing.assert_close(center_scores(embedded, centers), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(center_scores(5 * embedded, 2 * centers), 2 * expected)
    assert center_scores(embedded[:0], centers).shape == (0, 4)
    inputs = embedded.requires_grad_(), centers.requires_grad_()
    assert torch.autograd.gradcheck(center_scores, inputs)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_center_scores_are_in_float32_under_autocast(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    embedded, centers = torch.randn(5, 64).to(dtype), torch.randn(4, 64)
    with torch.autocast('cpu', dtype=dtype):
        found = center_scores(embedded, centers)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, center_scores(embedded.float(), centers))


def test_widths_that_differ_have_no_center_scores() -> None:
    with pytest.raises(ValueError, match=r'`center_scores` needs `embedded` \(n, d\) and `centers` \(c, d\) of one '
                                         r'width, got \(5, 3\) and \(4, 2\); embed'):
        center_scores(torch.zeros(5, 3), torch.zeros(4, 2))


def features() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


def test_feature_alignment_equals_the_loop() -> None:
    pair = features()
    assert feature_alignment(*pair).tolist() == pytest.approx(feature_rows(*pair), rel=1e-12)
    assert feature_alignment(torch.tensor([[3.0, 4]]), torch.tensor([[4.0, 3]])).item() == pytest.approx(2 - 48 / 25)


def test_feature_alignment_sees_directions_alone_and_is_0_where_they_are_equal() -> None:
    student, teacher = features()
    torch.testing.assert_close(feature_alignment(3 * student, 7 * teacher), feature_alignment(student, teacher))
    assert feature_alignment(2 * teacher, teacher).tolist() == pytest.approx([0] * 5, abs=1e-12)
    assert feature_alignment(-teacher, teacher).tolist() == pytest.approx([4] * 5)


def test_feature_alignments_gradient_is_the_students_alone() -> None:
    student, teacher = (tensor.requires_grad_() for tensor in features())
    assert torch.autograd.gradcheck(lambda s: feature_alignment(s, teacher), student)
    feature_alignment(student, teacher).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_features_in_half_precision_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = (tensor.to(dtype) for tensor in features())
    found = feature_alignment(student, teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, feature_alignment(student.float(), teacher.float()))


def test_a_feature_of_zeros_costs_2_and_no_feature_nothing() -> None:
    assert feature_alignment(torch.zeros(1, 3), torch.ones(1, 3)).tolist() == [2]
    assert feature_alignment(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)


def test_features_of_two_widths_are_named() -> None:
    with pytest.raises(ValueError, match=r'`feature_alignment` needs .* of one shape, .* got \(5, 3\) and \(5, 2\)'):
        feature_alignment(torch.zeros(5, 3), torch.zeros(5, 2))


def layers() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Centres of student and teacher, then biases."""
    torch.manual_seed(0)
    return tuple(torch.randn(shape, dtype=torch.float64) for shape in ((4, 3), (4, 3), (4,), (4,)))


def test_center_alignment_equals_the_loop_and_torchs_own_over_the_whole_layer() -> None:
    student, teacher, ours, theirs = layers()
    assert center_alignment(student, teacher).tolist() == pytest.approx(center_rows(student, teacher), rel=1e-12)
    found = center_alignment(student, teacher, ours, theirs)
    assert found.tolist() == pytest.approx(center_rows(student, teacher, ours, theirs), rel=1e-12)
    whole = [torch.cat([centers, biases[:, None]], 1) for centers, biases in ((student, ours), (teacher, theirs))]
    torch.testing.assert_close(found.mean(), torch.nn.functional.mse_loss(*whole))


def test_center_alignment_gives_the_number_worked_out_by_hand() -> None:
    centers = torch.tensor([[1.0, 2]]), torch.tensor([[0.0, 4]])
    assert center_alignment(*centers).tolist() == [2.5]
    assert center_alignment(*centers, torch.tensor([3.0]), torch.tensor([1.0])).tolist() == [3]


def test_center_alignments_gradient_is_the_students_alone() -> None:
    student, teacher, ours, theirs = (tensor.requires_grad_() for tensor in layers())
    assert torch.autograd.gradcheck(lambda w, b: center_alignment(w, teacher, b, theirs), (student, ours))
    center_alignment(student, teacher, ours, theirs).sum().backward()
    assert student.grad.any() and ours.grad.any()
    assert teacher.grad is None and theirs.grad is None


def test_layers_in_half_precision_are_compared_in_float32() -> None:
    half = [tensor.half() for tensor in layers()]
    found = center_alignment(*half)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, center_alignment(*(tensor.float() for tensor in half)))


@pytest.mark.parametrize(('change', 'message'), [
    (lambda s, t, a, b: (s, t[:, :2], a, b), r'of one shape \(c, d\), got \(4, 3\) and \(4, 2\)'),
    (lambda s, t, a, b: (s, t[:3], a, b), r'got \(4, 3\) and \(3, 3\); give the last layers of the same categories'),
    (lambda s, t, a, b: (s, t, a, None), "biases of both sides or of none, got the student's only"),
    (lambda s, t, a, b: (s, t, None, b), "biases of both sides or of none, got the teacher's only"),
    (lambda s, t, a, b: (s, t, a, b[:3]), r'of shape \(4,\), one a category, got \(4,\) and \(3,\)')])
def test_layers_that_do_not_fit_are_named(change: object, message: str) -> None:
    with pytest.raises(ValueError, match=f'`center_alignment` needs .*{message}'):
        center_alignment(*change(*layers()))
