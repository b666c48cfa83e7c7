"""What a user may get wrong with classifiers, and what is said of it."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ckd_mmdet.distiller import Distiller
from ckd_mmdet.hooks import DistillHook, TeacherJudgement
from mmengine.dataset import pseudo_collate
from mmpretrain.datasets import CustomDataset
from torch import nn

from .toys import batch, built, classifier_config, distiller_config, saved

LOSSES = dict(
    loss_ckd=dict(type='ckd_mmdet.CKDLoss', preview=dict(base=1.005)), loss_kd=dict(type='ckd_mmdet.KDLoss'),
    loss_dkd=dict(type='ckd_mmdet.DKDLoss'), loss_dist=dict(type='ckd_mmdet.DISTLoss'),
    loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss'), loss_centers=dict(type='ckd_mmdet.CenterAlignmentLoss'),
    loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=1))


@pytest.fixture
def distiller(tmp_path: Path) -> Distiller:
    teacher = classifier_config('resnet14')
    made = built(distiller_config(classifier_config(), teacher, saved(built(teacher), tmp_path / 't.pth'), LOSSES))
    made.has_hook = True
    return made


def trains(distiller: Distiller, inputs: torch.Tensor, samples: list) -> dict:
    total, logged = distiller.parse_losses(distiller(inputs, samples, mode='loss'))
    total.backward()
    assert torch.isfinite(total)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in distiller.parameters())
    return logged


def test_a_batch_of_one_class_trains_on(distiller: Distiller) -> None:
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_label(2)
    assert trains(distiller, inputs, samples)['image.rows'] == 6


def test_a_batch_of_one_image_trains_on(distiller: Distiller) -> None:
    assert trains(distiller, *batch(images=1))['image.rows'] == 1


def test_a_mixed_batch_is_refused_by_losses_that_need_one_class(distiller: Distiller) -> None:
    inputs, samples = batch()
    for sample in samples:
        sample.set_gt_score(torch.full((4,), 0.25))
    with pytest.raises(ValueError, match='`DKDLoss` needs one class a row'):
        distiller(inputs, samples, mode='loss')


def train_with_labels(distiller: Distiller, labels: list[int]) -> None:
    dataset = SimpleNamespace(metainfo={}, get_gt_labels=lambda: np.array(labels))
    hook = DistillHook()
    hook.distiller = distiller
    hook.before_train(SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), train_loop=None))


@pytest.mark.parametrize('labels', [[0, 4], [-1, 3]])
def test_labels_outside_the_range_are_refused_before_training(distiller: Distiller, labels: list[int]) -> None:
    with pytest.raises(ValueError, match=f'labels from 0 to 3, as the student scores 4 classes, and has some from '
                                         f'{labels[0]} to {labels[1]}'):
        train_with_labels(distiller, labels)


def test_labels_within_it_are_not(distiller: Distiller) -> None:
    train_with_labels(distiller, [0, 3])


@pytest.mark.parametrize('arch', ['resnet20', 'resnet8x4'])
def test_a_checkpoint_of_another_depth_or_width_is_refused(arch: str, tmp_path: Path) -> None:
    other = built(classifier_config(arch, width=256 if arch == 'resnet8x4' else 64))
    with pytest.raises(ValueError, match='`teacher.checkpoint` needs the weights of the given config'):
        built(distiller_config(classifier_config(), classifier_config('resnet14'), saved(other, tmp_path / 'o.pth'),
                               LOSSES))


def test_views_are_judged_by_the_plain_one(distiller: Distiller) -> None:
    """Of a teacher that never saw turned images, turned ones say nothing."""
    distiller.data_preprocessor.views = 4
    judgement = TeacherJudgement()
    judgement.listen(distiller.distiller.values())
    trains(distiller, *batch(views=4))
    judgement.stop_listening()
    assert judgement.seen == 6


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    (tmp_path / 'cat').mkdir()
    (tmp_path / 'cat/torn.png').write_bytes(b'no image')
    dataset = CustomDataset(data_root=str(tmp_path), pipeline=[dict(type='LoadImageFromFile'),
                                                               dict(type='PackInputs')])
    with pytest.raises(Exception, match='torn.png'):
        pseudo_collate([dataset[0]])


def test_a_student_that_is_no_classifier_is_refused(tmp_path: Path) -> None:
    teacher = built(classifier_config())
    from ckd_mmdet.attach import choose_alignment
    with pytest.raises(ValueError, match='needs an `ImageClassifier` of mmpretrain as student, got a Sequential'):
        choose_alignment(nn.Sequential(nn.Linear(1, 1)), teacher)
