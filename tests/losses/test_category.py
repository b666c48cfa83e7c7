"""PCKD's losses: what they learn, which rows they are over, and every hyper-parameter."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ckd_mmdet.functional import category_contrast, center_alignment, feature_alignment
from ckd_mmdet.losses import CategoryContrastLoss, CenterAlignmentLoss, DistillLoss, FeatureAlignmentLoss
from ckd_mmdet.losses.norm import ChannelNorm
from ckd_mmdet.samples import AlignedSamples, Side, Widths
from torch import nn

from tests.functional.loops import category_rows, center_score_rows, feature_rows

CLASSES = 4
WIDTHS, SAME = Widths((3,), (5,)), Widths((5,), (5,))
LEARNING = [CategoryContrastLoss, FeatureAlignmentLoss, CenterAlignmentLoss]

every_loss = pytest.mark.parametrize('kind', LEARNING)


def samples(n: int = 8, widths: Widths = WIDTHS, views: int = 1) -> AlignedSamples:
    """Of a classifier; in float64, every tensor would take a gradient; the fourth image is to be ignored."""
    torch.manual_seed(1)

    def side(width: int) -> Side:
        shapes = (n * views, CLASSES), (n * views, width), (CLASSES, width), (CLASSES,)
        return Side(*(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes))

    labels = torch.arange(n) % CLASSES
    labels[3:4] = -1
    return AlignedSamples(side(*widths.student), side(*widths.teacher), CLASSES, labels.repeat(views),
                          torch.arange(n).repeat(views), views=torch.arange(views).repeat_interleave(n))


def built(kind: type[DistillLoss], widths: Widths = WIDTHS, seed: int = 0, **settings: Any) -> DistillLoss:
    if kind is CenterAlignmentLoss:
        settings = dict(project=widths.student != widths.teacher) | settings
    torch.manual_seed(seed)
    loss = kind(**settings)
    loss.build_parts(widths)
    return loss.double()


@pytest.mark.parametrize('target', ['samples', 'centers'])
def test_the_contrast_equals_the_loop_from_its_own_weights(target: str) -> None:
    loss, aligned = built(CategoryContrastLoss, temperature=2.0, target=target, loss_weight=0.05), samples(views=4)
    assert dict(loss.named_parameters()).keys() == {'parts.0.weight', 'parts.0.bias', 'parts.1.weight', 'parts.1.bias'}
    kept = aligned.labels >= 0
    assert kept.sum() == 28
    scores = []
    for name, side in (('student', aligned.student), ('teacher', aligned.teacher)):
        weight, bias = (getattr(loss.embeddings[name], part) for part in ('weight', 'bias'))
        embedded = aligned.student.features[kept] @ weight.T + bias  # the student's, in both
        scores.append(torch.tensor(center_score_rows(embedded, side.centers), dtype=torch.float64))
    rows = category_rows(*scores, aligned.labels[kept], 2.0, target)
    assert loss(aligned).item() == pytest.approx(0.05 * sum(rows) / 28, rel=1e-9)


def test_by_default_the_contrast_is_the_released_one() -> None:
    loss = CategoryContrastLoss()
    assert (loss.temperature, loss.target, loss.preview) == (4, 'samples', None)
    assert loss.scorings == {'softmax'}
    assert loss.requires == {'logits', 'labels', 'features', 'centers'}


def test_the_contrast_reaches_the_students_features_and_centers_and_both_embeddings() -> None:
    loss, aligned = built(CategoryContrastLoss), samples()
    loss(aligned).backward()
    learned = [*loss.parameters(), aligned.student.features, aligned.student.centers]
    assert all(tensor.grad.any() and tensor.grad.isfinite().all() for tensor in learned)
    assert aligned.student.features.grad.any(1).tolist() == (aligned.labels >= 0).tolist()
    assert aligned.teacher.centers.grad is None


def test_the_teacher_enters_the_contrast_through_its_centers_alone() -> None:
    loss, aligned = built(CategoryContrastLoss), samples()
    other = replace(aligned.teacher, logits=aligned.teacher.logits + 1, features=aligned.teacher.features + 1)
    assert loss(replace(aligned, teacher=other)) == loss(aligned)
    moved = replace(aligned.teacher, centers=aligned.teacher.centers * 2)
    assert abs(loss(replace(aligned, teacher=moved)) - loss(aligned)) > 1e-3


def test_of_a_detectors_rows_background_is_a_category() -> None:
    loss, aligned = built(CategoryContrastLoss), replace(samples(), num_classes=CLASSES - 1)
    assert (aligned.labels == aligned.num_classes).any()
    loss(aligned).backward()
    assert aligned.student.features.grad[aligned.labels == aligned.num_classes].any(1).all()


def test_without_a_labelled_row_the_contrast_is_zero_with_a_graph() -> None:
    loss, aligned = built(CategoryContrastLoss), replace(samples(), labels=torch.full((8,), -1))
    value = loss(aligned)
    assert value == 0
    value.backward()
    for tensor in [*loss.parameters(), aligned.student.features, aligned.student.centers]:
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_soft_labels_are_contrasted_with_centers_and_refused_among_samples() -> None:
    aligned = replace(samples(), labels=torch.rand(8, CLASSES).softmax(1))
    loss = built(CategoryContrastLoss, target='centers')
    value = loss(aligned)
    value.backward()
    assert value.isfinite()
    assert aligned.student.features.grad.any(1).all()
    hard = replace(aligned, labels=torch.arange(8) % CLASSES)
    torch.testing.assert_close(loss(replace(hard, labels=F.one_hot(hard.labels, CLASSES).float())), loss(hard))
    with pytest.raises(ValueError, match=r"`category_contrast` with `target='samples'` needs one class a row, .* got "
                                         r"soft ones of shape \(8, 4\).* Take `target='centers'`"):
        built(CategoryContrastLoss)(aligned)


def test_a_label_beyond_the_centers_is_named() -> None:
    aligned = samples()
    aligned.labels[2] = CLASSES
    with pytest.raises(ValueError, match='`category_contrast` needs `labels` of 0 to 3 for rows of 4 scores, got 0 to '
                                         '4'):
        built(CategoryContrastLoss)(aligned)


@pytest.mark.parametrize('is_training', [True, False])
def test_feature_alignment_is_that_of_the_mlps_output(is_training: bool) -> None:
    loss, aligned = built(FeatureAlignmentLoss, expansion=2, loss_weight=20.0), samples(views=4)
    loss.train(is_training)
    shapes = {key: tuple(part.shape) for key, part in loss.mlp.named_parameters()}
    assert shapes == {'0.weight': (10, 3), '0.bias': (10,), '1.weight': (10,), '1.bias': (10,),
                      '3.weight': (5, 10), '3.bias': (5,)}
    with torch.no_grad():
        for part in loss.mlp.state_dict().values():
            part.uniform_(0.5, 1.5)
    state = {key: part.clone() for key, part in loss.mlp.state_dict().items()}
    kept = aligned.labels >= 0
    hidden = aligned.student.features[kept] @ state['0.weight'].T + state['0.bias']
    mean, variance = ((hidden.mean(0), hidden.var(0, correction=0)) if is_training else
                      (state['1.running_mean'], state['1.running_var']))
    hidden = (hidden - mean) / (variance + 1e-5).sqrt() * state['1.weight'] + state['1.bias']
    out = hidden.clamp(min=0) @ state['3.weight'].T + state['3.bias']
    rows = feature_rows(out, aligned.teacher.features[kept])
    assert len(rows) == 28  # every view
    assert loss(aligned).item() == pytest.approx(20 * sum(rows) / 28, rel=1e-9)


def test_the_mlp_is_as_wide_as_released() -> None:
    loss = built(FeatureAlignmentLoss)
    assert [type(part) for part in loss.mlp] == [nn.Linear, ChannelNorm, nn.ReLU, nn.Linear]
    assert loss.mlp[0].out_features == 16 * 5
    assert loss.requires == {'logits', 'features'}


def test_center_alignment_is_over_weights_and_biases_of_layers_of_one_width() -> None:
    loss, aligned = built(CenterAlignmentLoss, SAME, loss_weight=0.5), samples(widths=SAME)
    assert not list(loss.parameters())
    whole = [torch.cat([side.centers, side.biases[:, None]], 1) for side in (aligned.student, aligned.teacher)]
    torch.testing.assert_close(loss(aligned), 0.5 * F.mse_loss(*whole))
    loss(aligned).backward()
    assert aligned.student.centers.grad.any() and aligned.student.biases.grad.any()
    assert aligned.teacher.centers.grad is None and aligned.teacher.biases.grad is None
    assert loss.requires == {'centers'}


def test_center_alignment_of_layers_without_biases_is_over_the_weights() -> None:
    loss, aligned = built(CenterAlignmentLoss, SAME), samples(widths=SAME)
    aligned = replace(aligned, student=replace(aligned.student, biases=None),
                      teacher=replace(aligned.teacher, biases=None))
    torch.testing.assert_close(loss(aligned), F.mse_loss(aligned.student.centers, aligned.teacher.centers))


def test_widths_that_differ_are_refused_when_the_models_meet() -> None:
    with pytest.raises(ValueError, match="`CenterAlignmentLoss` compares last layers of one width, got 3 inputs of the "
                                         "student's and 5 of the teacher's; take `project=True`"):
        CenterAlignmentLoss().build_parts(WIDTHS)


@pytest.mark.parametrize('widths', [WIDTHS, SAME])
def test_a_projector_is_learned_when_asked(widths: Widths) -> None:
    loss, aligned = built(CenterAlignmentLoss, widths, project=True), samples(widths=widths)
    weight = loss.projector.weight
    assert [tuple(part.shape) for part in loss.parameters()] == [(5, widths.student[0])]
    expected = center_alignment(aligned.student.centers @ weight.T, aligned.teacher.centers, aligned.student.biases,
                                aligned.teacher.biases).mean()
    value = loss(aligned)
    torch.testing.assert_close(value, expected)
    value.backward()
    assert weight.grad.any()
    with torch.no_grad():
        weight -= 0.01 * weight.grad
    assert loss(aligned) < value


@pytest.mark.parametrize(('n', 'weight', 'epoch'), [(0, 1.0, 0), (8, 0.0, 0), (8, dict(value=1.0, stop=1), 1)],
                         ids=['no row', 'no weight', 'over'])
@every_loss
def test_what_does_not_count_is_zero_with_a_graph(kind: type[DistillLoss], n: int, weight: float | dict, epoch: int
                                                  ) -> None:
    loss, aligned = built(kind, loss_weight=weight), samples(n)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    with torch.no_grad():
        for tensor in aligned.student.tensors():
            tensor.fill_(math.nan)  # nor is it computed
    value = loss(aligned, epoch=epoch)
    assert value.shape == ()
    assert value == 0
    value.backward()
    learned = list(loss.parameters())
    assert learned
    for tensor in [*learned, *aligned.student.tensors()]:
        assert tensor.grad is not None
        assert not tensor.grad.any()
    assert all(torch.equal(part, before[key]) for key, part in loss.state_dict().items())  # the statistics too


@every_loss
def test_one_image_is_enough(kind: type[DistillLoss]) -> None:
    loss, aligned = built(kind), samples(1)
    value = loss(aligned)
    value.backward()
    assert value.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())


@every_loss
def test_what_it_learned_comes_back_from_its_state_dict(kind: type[DistillLoss]) -> None:
    loss, other, aligned = built(kind), built(kind, seed=1), samples()
    assert abs(loss(aligned) - other(aligned)) > 1e-4
    other.load_state_dict(loss.state_dict(), strict=True)
    assert other(aligned) == loss(aligned)


@every_loss
def test_a_copy_shares_nothing(kind: type[DistillLoss]) -> None:
    loss, aligned = built(kind), samples()
    value = loss(aligned)
    twin = copy.deepcopy(loss)
    assert twin(aligned) == value
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert loss(aligned) == value


@every_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_under_autocast_what_is_learned_computes_in_its_own_precision(kind: type[DistillLoss], dtype: torch.dtype
                                                                     ) -> None:
    loss, aligned = built(kind).float(), samples(64)
    half = replace(aligned, **{name: replace(side, **{part: getattr(side, part).detach().to(dtype) for part in (
        'logits', 'features', 'centers', 'biases')}) for name, side in (('student', aligned.student),
                                                                        ('teacher', aligned.teacher))})
    with torch.autocast('cpu', dtype=dtype):
        value = loss(half)
    assert value.dtype == torch.float32
    assert loss(half) == value


@every_loss
def test_before_it_knows_the_widths_it_says_what_is_missing(kind: type[DistillLoss]) -> None:
    with pytest.raises(RuntimeError, match=fr'`{kind.__name__}` does not know the widths of what it compares yet: call '
                                           r'`build_parts\(widths\)` once'):
        kind()(samples())


@every_loss
def test_widths_of_maps_are_refused(kind: type[DistillLoss]) -> None:
    with pytest.raises(ValueError, match=fr'`{kind.__name__}` needs one width of features a side, got \[8, 8\] of the '
                                         r'student and \[8\] of the teacher'):
        kind().build_parts(Widths((8, 8), (8,)))


@pytest.mark.parametrize(('kind', 'arguments', 'message'), [
    (CategoryContrastLoss, dict(temperature=0), '`CategoryContrastLoss` needs a finite `temperature` greater than 0'),
    (CategoryContrastLoss, dict(target='batch'), '`CategoryContrastLoss` needs `target` to be one of .* got \'batch\''),
    (FeatureAlignmentLoss, dict(expansion=0), '`FeatureAlignmentLoss` needs a whole `expansion` of at least 1, got 0'),
    (FeatureAlignmentLoss, dict(expansion=1.5), 'a whole `expansion` of at least 1, got 1.5'),
    (FeatureAlignmentLoss, dict(expansion=True), 'a whole `expansion` of at least 1, got True'),
    (CenterAlignmentLoss, dict(project=None), '`CenterAlignmentLoss` needs a `project` of True or False, got None')])
def test_a_wrong_argument_is_named_when_it_is_built(kind: type[DistillLoss], arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


def test_a_previewed_contrast_weights_its_rows_and_its_views_share_the_weight() -> None:
    loss = built(CategoryContrastLoss, preview=dict(base=1.005))
    aligned = samples(n=6, views=4)
    aligned = replace(aligned, labels=(torch.arange(6) % CLASSES).repeat(4))
    weights = loss.preview.weights(aligned, 0)
    assert (weights < 1).any() and (weights == 1).any()
    assert torch.equal(weights, weights[:6].repeat(4))
    rows = loss.per_sample(aligned, epoch=0)
    torch.testing.assert_close(loss(aligned), (weights * rows).mean())
    assert rows.shape == (24,)
    plain = replace(aligned.select(torch.arange(6)), views=None)
    assert torch.equal(loss.preview.weights(plain, 0), weights[:6])


def test_the_formulas_are_the_published_ones() -> None:
    """Nothing stands between the loss of a row and its formula."""
    aligned = samples()
    contrast, features = built(CategoryContrastLoss), built(FeatureAlignmentLoss)
    kept = contrast.counted(aligned)
    embedded = [contrast.embeddings[name](kept.student.features) for name in ('student', 'teacher')]
    scores = [F.normalize(rows, dim=1) @ side.centers.T for rows, side in zip(embedded, (kept.student, kept.teacher),
                                                                              strict=True)]
    torch.testing.assert_close(contrast.per_sample(kept, epoch=0), category_contrast(*scores, kept.labels))
    torch.testing.assert_close(features.per_sample(aligned, epoch=0),
                               feature_alignment(features.mlp(aligned.student.features), aligned.teacher.features))
