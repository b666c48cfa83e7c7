"""What a user may get wrong with classifiers, and what is said of it."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ckd_mmdet.choice import choose_alignment
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.hook import check_labels, check_schedules
from ckd_mmdet.losses import CenterAlignmentLoss, ReviewKDLoss
from ckd_mmdet.samples import Widths
from mmengine.dataset import pseudo_collate
from mmengine.runner import IterBasedTrainLoop
from mmpretrain.datasets import CustomDataset
from torch import nn

from tests.small_runs import ROOT

from .toys import batch, built, classifier_config, distiller_config, paired, saved

LOSSES = dict(
    loss_ckd=dict(type='ckd_mmdet.CKDLoss', preview=dict(base=1.005)), loss_kd=dict(type='ckd_mmdet.KDLoss'),
    loss_dkd=dict(type='ckd_mmdet.DKDLoss'), loss_dist=dict(type='ckd_mmdet.DISTLoss'),
    loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss'), loss_centers=dict(type='ckd_mmdet.CenterAlignmentLoss'),
    loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=1))


@pytest.fixture
def distiller(tmp_path: Path) -> Distilled:
    teacher = classifier_config('resnet14')
    return paired(distiller_config(classifier_config(), teacher, saved(built(teacher), tmp_path / 't.pth'), LOSSES))


def trains(distiller: Distilled, inputs: torch.Tensor, samples: list) -> dict:
    total, logged = distiller.parse_losses(distiller(inputs, samples, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in distiller.parameters())
    return logged


def test_a_batch_of_one_class_trains_on(distiller: Distilled) -> None:
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_label(2)
    assert trains(distiller, inputs, samples)['image.rows'] == 6


def test_a_batch_of_one_image_trains_on(distiller: Distilled) -> None:
    assert trains(distiller, *batch(images=1))['image.rows'] == 1


def test_a_mixed_batch_is_refused_by_losses_that_need_one_class(distiller: Distilled) -> None:
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_score(torch.full((4,), 0.25))
    with pytest.raises(ValueError, match='`DKDLoss` needs one class a row'):
        distiller(inputs, samples, mode='loss')


def train_with_labels(distiller: Distilled, labels: list[int]) -> None:
    dataset = SimpleNamespace(metainfo={}, get_gt_labels=lambda: np.array(labels))
    check_labels(distiller.distillation, dataset)


@pytest.mark.parametrize('labels', [[0, 4], [-1, 3]])
def test_labels_outside_the_range_are_refused_before_training(distiller: Distilled, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=f'labels from 0 to 3, as the student scores 4 classes, and has some from '
                                         f'{labels[0]} to {labels[1]}'):
        train_with_labels(distiller, labels)


def test_labels_within_it_are_not(distiller: Distilled) -> None:
    train_with_labels(distiller, [0, 3])


@pytest.mark.parametrize('arch', ['resnet20', 'resnet8x4'])
def test_a_checkpoint_of_another_depth_or_width_is_refused(arch: str, tmp_path: Path) -> None:
    other = built(classifier_config(arch, width=256 if arch == 'resnet8x4' else 64))
    with pytest.raises(ValueError, match='`teacher.checkpoint` needs the weights of the given config'):
        built(distiller_config(classifier_config(), classifier_config('resnet14'), saved(other, tmp_path / 'o.pth'),
                               LOSSES))


def test_views_are_judged_by_the_plain_one(distiller: Distilled) -> None:
    """Of a teacher that never saw turned images, turned ones say nothing."""
    distiller.data_preprocessor.views = 4
    trains(distiller, *batch(views=4))
    assert distiller.distillation.judgements['image'].counts[1, :-1].sum() == 6


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/torn.png').write_bytes(b'no image')
    dataset = CustomDataset(data_root=str(tmp_path), pipeline=[
        dict(type='mmcv.LoadImageFromFile'), dict(type='mmpretrain.PackInputs')])
    with pytest.raises((AssertionError, OSError, ValueError), match='torn.png'):
        pseudo_collate([dataset[0]])


def test_a_student_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    teacher = built(classifier_config())
    with pytest.raises(ValueError, match='needs an `ImageClassifier` of mmpretrain as student, got a Sequential'):
        choose_alignment(nn.Sequential(nn.Linear(1, 1)), teacher)


def test_views_without_a_teacher_are_refused(tmp_path: Path) -> None:
    student = classifier_config()
    student['data_preprocessor'] = dict(student['data_preprocessor'], type='ckd_mmdet.ViewsPreprocessor')
    with pytest.raises(ValueError, match='makes several views of an image, and a student alone cannot tell'):
        built(dict(type='ckd_mmdet.Distiller', student=student))


def test_rows_of_mixed_images_can_be_selected(distiller: Distilled, tmp_path: Path) -> None:
    config = distiller_config(classifier_config(), classifier_config('resnet14'), str(tmp_path / 't.pth'),
                              dict(loss_kd=dict(type='ckd_mmdet.KDLoss')), selector=dict(type='ckd_mmdet.Foreground'))
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_score(torch.full((4,), 0.25))
    assert trains(paired(config), inputs, samples)['image.rows'] == 6


def test_the_logged_loss_is_the_sum(distiller: Distilled) -> None:
    logged = trains(distiller, *batch())
    parts = [value for name, value in logged.items() if 'loss' in name and name != 'loss']
    assert float(logged['loss'].detach()) == pytest.approx(sum(float(part.detach()) for part in parts), rel=1e-5)
    assert logged['task_loss'] < logged['loss']


def test_a_preview_in_a_run_by_iterations_is_refused(distiller: Distilled) -> None:
    loop = IterBasedTrainLoop.__new__(IterBasedTrainLoop)
    with pytest.raises(ValueError, match='`image.loss_ckd` has a `preview` that grows by epochs'):
        check_schedules(distiller.distillation, SimpleNamespace(train_loop=loop))


def test_data_with_several_labels_an_image_may_be_distilled_by_maps(distiller: Distilled, tmp_path: Path) -> None:
    config = distiller_config(classifier_config(), classifier_config('resnet14'), str(tmp_path / 't.pth'), {})
    config['alignments'] = dict(neck=dict(aligner=dict(type='ckd_mmdet.NeckAligner'),
                                          losses=dict(loss_l2=dict(type='ckd_mmdet.L2Loss'))))
    dataset = SimpleNamespace(metainfo={}, get_gt_labels=lambda: np.array([[0], [1, 2]]))  # as it raises there
    check_labels(paired(config).distillation, dataset)


def test_centers_cannot_be_balanced() -> None:
    with pytest.raises(ValueError, match='`CenterAlignmentLoss` needs a `loss_weight` that is given'):
        CenterAlignmentLoss(loss_weight='balance:0.5')


def test_one_level_cannot_be_reviewed() -> None:
    with pytest.raises(ValueError, match='`ReviewKDLoss` needs at least two levels, .* `out_indices`'):
        ReviewKDLoss().build_parts(Widths((64,), (64,)))


def test_a_shipped_config_without_mmpretrain_names_the_extra() -> None:
    code = ('import sys; sys.modules["mmpretrain"] = None\n'
            'from ckd_mmdet.config import read_config\n'
            f'read_config({str(ROOT / "configs/classification/baselines/resnet8_30e_digits.py")!r})')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert 'Install the extra `classification`' in done.stderr, done.stderr
