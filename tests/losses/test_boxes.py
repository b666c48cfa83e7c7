"""BoxLoss: which rows count, how much each, and by what the sum is divided."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from ckd_mmdet.functional import box_loss, class_log_odds, overlap
from ckd_mmdet.losses import BoxLoss
from ckd_mmdet.samples import AlignedSamples, Side
from torch import Tensor


def boxes(seed: int, n: int = 6) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=draw) * 10
    return torch.cat([corners, corners + 10 + 10 * torch.rand(n, 2, generator=draw)], 1)


def rows(scoring: str = 'sigmoid') -> AlignedSamples:
    """Six rows of three classes, of which the second, the third and the last hold an object."""
    torch.manual_seed(0)
    sides = [Side(torch.randn(6, 3 + (scoring == 'softmax')), boxes=boxes(seed)) for seed in (0, 1)]
    if scoring == 'mixed':
        sides[0] = replace(sides[0], log_odds=class_log_odds(torch.randn(6, 4))[:, :3])
    labels = torch.tensor([3, 0, 2, 3, 3, 1])
    return AlignedSamples(*sides, 3, labels, torch.arange(6) // 3, scoring, truths=boxes(2))


def by_hand(samples: AlignedSamples, weights: list[float], **settings: str) -> Tensor:
    values = box_loss(samples.student.boxes, samples.teacher.boxes, truth=samples.truths, **settings)
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)


def probabilities(samples: AlignedSamples, side: Side) -> Tensor:
    if samples.scoring == 'softmax':
        return side.logits.softmax(1)[:, :3]
    return (side.logits if side.log_odds is None else side.log_odds).sigmoid()


def test_by_default_it_is_the_mean_of_the_rows_times_its_weight() -> None:
    samples = rows()
    torch.testing.assert_close(BoxLoss(loss_weight=0.5)(samples), 0.5 * by_hand(samples, [1.0] * 6, kind='giou'))
    torch.testing.assert_close(BoxLoss('iou')(samples), by_hand(samples, [1.0] * 6, kind='iou'))


@pytest.mark.parametrize('scoring', ['softmax', 'sigmoid', 'mixed'])
@pytest.mark.parametrize('weight_by', ['gap', 'confidence'])
def test_rows_weigh_by_the_probabilities_of_the_foreground(weight_by: str, scoring: str) -> None:
    samples = rows(scoring)
    ours, theirs = (probabilities(samples, side).tolist() for side in (samples.student, samples.teacher))
    weights = [max(abs(a - b) if weight_by == 'gap' else b for a, b in zip(*pair, strict=True))
               for pair in zip(ours, theirs, strict=True)]
    torch.testing.assert_close(BoxLoss(weight_by=weight_by)(samples), by_hand(samples, weights, kind='giou'))


def test_rows_count_where_the_teacher_is_nearer_to_the_true_box() -> None:
    samples = rows()
    ours, theirs = (overlap(side.boxes, samples.truths) for side in (samples.student, samples.teacher))
    weights = [float(i in (1, 2, 5) and theirs[i] > ours[i]) for i in range(6)]
    assert 0 < sum(weights) < 3
    torch.testing.assert_close(BoxLoss(weight_by='better')(samples), by_hand(samples, weights, kind='giou'))


def test_bounded_counts_rows_with_an_object_alone() -> None:
    samples, counted = rows(), [0.0, 1, 1, 0, 0, 1]
    torch.testing.assert_close(BoxLoss('bounded')(samples), by_hand(samples, counted, kind='bounded'))
    assert BoxLoss('bounded', margin=9.0)(samples) > BoxLoss('bounded')(samples)


def test_rows_without_a_box_do_not_count_and_get_no_gradient() -> None:
    samples = replace(rows(), boxed=torch.tensor([False, True, True, False, False, True]))
    samples.student.boxes.requires_grad_()
    loss = BoxLoss()(samples)
    torch.testing.assert_close(loss, by_hand(samples, [0.0, 1, 1, 0, 0, 1], kind='giou'))
    loss.backward()
    assert samples.student.boxes.grad.any(1).tolist() == [False, True, True, False, False, True]


@pytest.mark.parametrize('weight_by', ['gap', 'confidence'])
def test_the_weight_of_rows_without_a_box_is_not_in_the_divisor(weight_by: str) -> None:
    samples, loss = rows(), BoxLoss(weight_by=weight_by)
    weights = [weight * (i in (1, 2, 5)) for i, weight in enumerate(loss.weights(samples).tolist())]
    boxed = replace(samples, boxed=torch.tensor([False, True, True, False, False, True]))
    torch.testing.assert_close(loss(boxed), by_hand(samples, weights, kind='giou'))


def test_where_no_row_counts_it_is_zero_with_a_graph() -> None:
    samples = rows()
    samples.student.boxes.requires_grad_()
    loss = BoxLoss(weight_by='better')(replace(samples, labels=torch.full((6,), 3)))
    assert loss == 0
    loss.backward()
    assert not samples.student.boxes.grad.any()


@pytest.mark.parametrize(('positives', 'divisor'), [(None, 3.0), (torch.tensor(4.5), 4.5)])
def test_it_may_be_divided_by_the_rows_with_an_object(positives: Tensor | None, divisor: float) -> None:
    samples = replace(rows(), positives=positives)
    loss = BoxLoss(weight_by='gap', normalize='positives')
    total = BoxLoss(weight_by='gap')(samples) * loss.weights(samples).sum()
    torch.testing.assert_close(loss(samples), total / divisor)


def test_it_says_what_it_requires() -> None:
    assert BoxLoss(weight_by='gap').requires == {'logits', 'boxes'}
    assert BoxLoss(normalize='positives').requires == {'logits', 'boxes', 'labels'}
    for loss in (BoxLoss('bounded'), BoxLoss(weight_by='better')):
        assert loss.requires == {'logits', 'boxes', 'labels', 'truths'}


def test_the_mean_overlap_of_the_rows_that_count_is_logged() -> None:
    samples = replace(rows(), boxed=torch.tensor([True] * 2 + [False] * 4))
    expected = overlap(samples.student.boxes, samples.teacher.boxes)[:2].mean()
    torch.testing.assert_close(BoxLoss().metrics(samples, epoch=0), dict(box_overlap=expected))


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(kind='diou'), '`BoxLoss` needs `kind` to be one of'),
    (dict(weight_by='iou'), r"`BoxLoss` needs `weight_by` to be one of \(None, 'gap', 'confidence', 'better'\), got"),
    (dict(normalize='rows'), '`BoxLoss` needs `normalize` to be one of'),
    (dict(kind='bounded', margin=-0.1), '`BoxLoss` needs a finite `margin` of at least 0, got -0.1'),
    (dict(margin=0.1), "`BoxLoss` needs `kind='bounded'` for a `margin`, got 'giou'")])
def test_a_wrong_setting_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BoxLoss(**settings)


def test_rows_without_boxes_are_refused() -> None:
    samples = rows()
    with pytest.raises(ValueError, match='`BoxLoss` needs `boxes` of the rows, got None'):
        BoxLoss()(replace(samples, student=Side(samples.student.logits)))
