"""Preview of any loss of rows: whose difficulty it is, what it is compared with, and what is logged."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ckd_mmdet.functional import binary_cross_entropy, cross_entropy, preview_weights
from ckd_mmdet.losses import CKDLoss, DISTLoss, DKDLoss, KDLoss, MaskLoss, Preview, RowLoss
from ckd_mmdet.registry import MODELS, build_part
from ckd_mmdet.samples import AlignedSamples, Side

from tests.losses.test_contract import ROW_LOSSES, made, rows

CLASSES = 4


def classified(n: int = 8, seed: int = 0) -> AlignedSamples:
    """Of a classifier: as many scores as classes."""
    torch.manual_seed(seed)
    student, teacher = (3 * torch.randn(n, CLASSES) for _ in range(2))
    return AlignedSamples(Side(student.requires_grad_()), Side(teacher), CLASSES, torch.arange(n) % CLASSES,
                          torch.arange(n))


def in_views(samples: AlignedSamples, views: int = 4) -> AlignedSamples:
    """Each image in several views, each with its own scores; the plain ones come last."""
    torch.manual_seed(1)
    n = len(samples)
    sides = [Side(torch.cat([torch.randn((views - 1) * n, CLASSES), side.logits]))
             for side in (samples.student, samples.teacher)]
    order = torch.arange(views - 1, -1, -1).repeat_interleave(n)
    return AlignedSamples(*sides, CLASSES, samples.labels.repeat(views), samples.image_ids.repeat(views), views=order)


def mean_of(kind: type[RowLoss], values: torch.Tensor, samples: AlignedSamples) -> torch.Tensor:
    """Over the rows that the loss is of; of masks only those with an object."""
    return values.sum() / (samples.labels < CLASSES).sum() if kind is MaskLoss else values.mean()


def test_of_a_classifier_the_difficulty_is_the_students_cross_entropy_over_the_mean_of_the_batch() -> None:
    samples, preview = classified(), Preview()
    losses = F.cross_entropy(samples.student.logits, samples.labels, reduction='none').detach()
    difficulty = losses / losses.mean()
    torch.testing.assert_close(preview.difficulty(samples), difficulty)
    torch.testing.assert_close(preview.weights(samples, 0), preview_weights(difficulty, 1.005))
    assert (preview.weights(samples, 0) < 1).any()
    assert not preview.weights(samples, 0).requires_grad


def test_the_epoch_counts_from_0_and_what_is_admitted_grows() -> None:
    preview = Preview(1.5)
    assert [preview.threshold(epoch) for epoch in range(3)] == [1.5, 2.25, 3.375]
    samples = classified()
    weights = [preview.weights(samples, epoch) for epoch in range(9)]
    assert all((late >= early).all() for early, late in zip(weights[:-1], weights[1:], strict=True))
    assert (weights[0] < 1).any() and (weights[8] == 1).all()


def test_of_a_detector_foreground_and_background_are_apart() -> None:
    samples = KDLoss().counted(rows(64))
    labels = samples.labels
    assert all(((labels == kind).sum() > 1) for kind in (0, CLASSES))
    found = Preview().difficulty(samples)
    losses = F.cross_entropy(samples.student.logits, labels, reduction='none').detach()
    for part in ((labels >= 0) & (labels < CLASSES), labels == CLASSES):
        torch.testing.assert_close(found[part], losses[part] / losses[part].mean())


def test_rows_to_be_ignored_have_no_difficulty() -> None:
    with pytest.raises(ValueError, match='got -1 to 4; leave rows without a label out'):
        Preview().difficulty(rows(64))


def test_of_a_sigmoid_head_it_is_the_binary_cross_entropy() -> None:
    samples = replace(classified(), scoring='sigmoid', labels=torch.tensor([0, 1, 2, 3, 4, 4, 4, 4]))
    found = Preview().difficulty(samples)
    losses = binary_cross_entropy(samples.student.logits, samples.labels).detach()
    expected = [*(losses[:4] / losses[:4].mean()), *(losses[4:] / losses[4:].mean())]
    assert found.tolist() == pytest.approx([float(x) for x in expected])


def test_of_mixed_images_it_is_the_cross_entropy_of_the_soft_labels() -> None:
    samples = classified()
    soft = torch.rand(8, CLASSES).softmax(1)
    losses = cross_entropy(samples.student.logits, soft).detach()
    mixed = replace(samples, labels=soft)
    torch.testing.assert_close(Preview().difficulty(mixed), losses / losses.mean())
    assert KDLoss(preview=dict())(mixed).isfinite()
    assert Preview().metrics(mixed, 0)['preview_admitted'] > 0


def test_every_view_has_the_weight_of_its_images_plain_one() -> None:
    samples = classified()
    alone, shared = Preview().weights(samples, 0), Preview().weights(in_views(samples), 0)
    assert torch.equal(shared, alone.repeat(4))
    shuffled = torch.randperm(32)
    assert torch.equal(Preview().weights(in_views(samples).select(shuffled), 0), shared[shuffled])


def test_views_of_an_image_without_its_plain_one_are_refused() -> None:
    samples = in_views(classified())
    for kept in (torch.arange(31), torch.cat([torch.arange(32), torch.tensor([31])])):  # missing, and there twice
        with pytest.raises(ValueError, match=r'`KDLoss` with `preview` needs exactly one plain view \(0\) of every '
                                             'image'):
            Preview(name='KDLoss').weights(samples.select(kept), 0)
    with pytest.raises(ValueError, match='`KDLoss` with `preview` needs `image_ids` beside `views`'):
        Preview(name='KDLoss').weights(replace(samples, image_ids=None), 0)


def test_a_label_out_of_range_is_named_with_the_loss() -> None:
    samples = classified()
    samples.labels[0] = CLASSES  # background, which a classifier does not know
    with pytest.raises(ValueError, match='`CKDLoss` with `preview`: `cross_entropy` needs `labels` of 0 to 3 for rows '
                                         'of 4 scores, got 0 to 4'):
        CKDLoss(preview=dict(base=1.005))(samples)


every_loss = pytest.mark.parametrize('kind', ROW_LOSSES)


@every_loss
def test_any_loss_of_rows_may_carry_it(kind: type[RowLoss]) -> None:
    loss, plain = made(kind, preview=dict(base=1.1), loss_weight=0.5), made(kind, loss_weight=0.5)
    samples = rows(32)
    counted = loss.counted(samples)
    weights = preview_weights(loss.preview.difficulty(counted), 1.1**3)
    assert (weights < 1).any()
    expected = 0.5 * mean_of(kind, weights * plain.per_sample(counted, epoch=2), counted)
    torch.testing.assert_close(loss(samples, epoch=2), expected)
    assert loss(samples, epoch=2) < plain(samples, epoch=2)


@every_loss
def test_a_config_may_ask_for_it_and_then_labels_are_required(kind: type[RowLoss]) -> None:
    loss = build_part(MODELS, dict(type=kind.__name__, preview=dict()), RowLoss, '`here`')
    assert loss.preview.base == 1.005
    assert loss.requires == kind().requires | {'labels'}
    assert loss.scorings == kind().scorings - {'mixed'}
    assert kind().preview is None
    assert kind.requires == kind().requires  # the class is as it was


@every_loss
def test_no_gradient_flows_through_the_weights(kind: type[RowLoss]) -> None:
    loss, plain = made(kind, preview=dict(base=1.1)), made(kind)
    one, other = rows(32), rows(32)
    loss(one).backward()
    counted = plain.counted(other)
    mean_of(kind, loss.preview.weights(counted, 0).clone() * plain.per_sample(counted, epoch=0), counted).backward()
    for ours, theirs in zip(one.student.tensors(), other.student.tensors(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None)
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad)


def test_where_everything_is_admitted_nothing_changes() -> None:
    samples = rows(32)
    assert KDLoss(preview=dict(base=64.0))(samples) == KDLoss()(samples)


def test_of_anchors_that_count_alone_the_mean_is_over_them() -> None:
    loss = CKDLoss(anchors='foreground', preview=dict(base=1.1))
    samples = loss.counted(rows(32))
    counted = samples.labels < CLASSES
    weights = loss.preview.weights(samples, 0)
    assert (weights[counted] < 1).any()
    expected = (weights * CKDLoss().per_sample(samples, epoch=0))[counted].mean()
    torch.testing.assert_close(loss(samples), expected)


@pytest.mark.parametrize('loss', [CKDLoss(), KDLoss(), DKDLoss(), DISTLoss(), KDLoss(preview=dict(base=1.005))])
def test_of_several_views_only_the_plain_one_counts(loss: RowLoss) -> None:
    samples = classified()
    assert loss(in_views(samples)) == loss(samples)


@pytest.mark.parametrize('loss', [DKDLoss(), CKDLoss(anchors='foreground')])
def test_losses_that_read_one_class_a_row_refuse_soft_labels(loss: RowLoss) -> None:
    mixed = replace(classified(), labels=torch.full((8, CLASSES), 0.25))
    with pytest.raises(ValueError, match=fr'`{type(loss).__name__}` needs one class a row, labels of shape \(8,\), got '
                                         r'soft ones of shape \(8, 4\); leave mixup and CutMix out'):
        loss(mixed)


def test_the_mean_weight_the_admitted_share_and_the_threshold_are_logged_over_the_rows_with_a_label() -> None:
    samples = rows(64)
    loss = KDLoss(preview=dict(base=1.1))
    known = samples.labels >= 0
    assert not known.all()
    difficulty = loss.preview.difficulty(samples.select(known.nonzero().squeeze(1)))
    found = loss.metrics(samples, epoch=4)
    assert {key: value.shape for key, value in found.items()} == {
        'preview_weight': (), 'preview_admitted': (), 'preview_threshold': ()}
    threshold = 1.1**5
    assert found['preview_weight'].item() == pytest.approx(preview_weights(difficulty, threshold).mean().item())
    assert found['preview_admitted'].item() == pytest.approx((difficulty <= threshold).float().mean().item())
    assert 0 < found['preview_admitted'] < 1
    assert found['preview_threshold'].item() == pytest.approx(threshold)
    assert not any('loss' in key for key in found)  # or MMEngine would add them up
    assert not any(value.requires_grad for value in found.values())


@pytest.mark.parametrize('n', [0, 5])
def test_without_a_labelled_row_what_is_logged_is_0_and_the_loss_is_a_number(n: int) -> None:
    samples = replace(rows(n), labels=torch.full((n,), -1))
    loss = KDLoss(preview=dict(base=1.1))
    found = loss.metrics(samples, epoch=0)
    assert (found['preview_weight'], found['preview_admitted']) == (0, 0)
    assert found['preview_threshold'].item() == pytest.approx(1.1)
    assert loss(samples) == KDLoss()(samples)


def test_a_loss_without_it_logs_nothing() -> None:
    assert KDLoss().metrics(rows(8), epoch=0) == {}


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_the_weights_of_half_precision_are_in_float32(dtype: torch.dtype) -> None:
    samples = classified()
    half = replace(samples, student=Side(samples.student.logits.detach().to(dtype)))
    with torch.autocast('cpu', dtype=dtype):
        weights = Preview().weights(half, 0)
    assert weights.dtype == torch.float32
    exact = replace(half, student=Side(half.student.logits.float()))
    torch.testing.assert_close(weights, Preview().weights(exact, 0))


@pytest.mark.parametrize(('preview', 'message'), [
    (dict(base=0.9), 'needs a finite `base` of at least 1 in its `preview`, got 0.9.'),
    (dict(base=math.inf), 'needs a finite `base` of at least 1 in its `preview`, got inf.'),
    (dict(base=math.nan), 'needs a finite `base` of at least 1 in its `preview`, got nan.'),
    (dict(base='1'), "needs a finite `base` of at least 1 in its `preview`, got '1'."),
    (dict(base=True), 'needs a finite `base` of at least 1 in its `preview`, got True.'),
    (dict(bases=1), "needs a `preview` of None or dict(base=1.005), got {'bases': 1}."),
    (True, 'needs a `preview` of None or dict(base=1.005), got True.'),
    (1.005, 'needs a `preview` of None or dict(base=1.005), got 1.005.')], ids=str)
@every_loss
def test_a_wrong_preview_is_refused_in_the_name_of_its_loss(kind: type[RowLoss], preview: Any, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        kind(preview=preview)
    assert str(refused.value) == f'`{kind.__name__}` {message}'
