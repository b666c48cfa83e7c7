import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from ckd_mmdet.aligners import NeckAligner, extract_maps, is_classifier
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.classification.aligner import ImageAligner
from ckd_mmdet.distilled import Distilled
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from torch import nn

from .toys import PREPROCESSOR, aligned, batch, built, classifier_config, distiller_config, paired, saved

KD = dict(loss_kd=dict(type='ckd_mmdet.KDLoss'))
PCKD = dict(loss_contrast=dict(type='ckd_mmdet.CategoryContrastLoss', preview=dict(base=1.005)),
            loss_centers=dict(type='ckd_mmdet.CenterAlignmentLoss'),
            loss_features=dict(type='ckd_mmdet.FeatureAlignmentLoss', expansion=2))


@pytest.fixture(scope='module')
def student() -> nn.Module:
    return built(classifier_config())


def in_views(model: nn.Module, views: int) -> nn.Module:
    model = copy.deepcopy(model)
    model.data_preprocessor.views = views
    return model


def test_a_copy_of_the_student_gives_equal_rows(student: nn.Module) -> None:
    student = copy.deepcopy(student).eval()
    samples, _ = aligned(student, copy.deepcopy(student), *batch())
    for ours, theirs in zip(samples.student.tensors(), samples.teacher.tensors(), strict=True):
        assert torch.equal(ours, theirs)
    assert [tuple(part.shape) for part in samples.student.tensors()] == [(6, 4), (6, 64), (4, 64), (4,)]
    assert samples.scoring == 'softmax'
    assert samples.num_classes == 4


def test_an_image_has_the_confidence_of_its_likeliest_class(student: nn.Module) -> None:
    student = copy.deepcopy(student).eval()
    (inputs, samples), aligner = batch(), ImageAligner()
    with torch.no_grad(), aligner.listen(student) as tape:
        student(inputs, samples, mode='loss')
        answer = aligner.ask(student, student.extract_feat(inputs, stage='backbone'), tape, samples)
        predicted = student(inputs, samples, mode='predict')
    expected = torch.stack([sample.pred_score.max() for sample in predicted])
    for rows in (answer.student, answer.teacher):
        torch.testing.assert_close(rows.confidence(range(4)), expected)


def test_logits_features_and_centers_belong_together(student: nn.Module) -> None:
    samples, _ = aligned(student, built(classifier_config('resnet14')), *batch())
    for side in (samples.student, samples.teacher):
        assert torch.allclose(F.linear(side.features, side.centers, side.biases), side.logits, atol=1e-6)
    assert samples.student.logits.requires_grad
    assert samples.student.features.requires_grad
    assert not any(part.requires_grad for part in (samples.teacher.logits, samples.teacher.features))
    assert samples.labels.tolist() == [int(sample.gt_label) for sample in batch()[1]]
    assert samples.image_ids.tolist() == list(range(6))
    assert samples.views is None


def test_a_mixed_batch_has_soft_labels(student: nn.Module) -> None:
    inputs, data_samples = batch()
    scores = torch.rand(6, 4).softmax(1)
    for sample, score in zip(data_samples, scores, strict=True):
        sample.set_gt_score(score)
    samples, _ = aligned(student, copy.deepcopy(student), inputs, data_samples)
    assert torch.equal(samples.labels, scores)
    for sample in data_samples:
        sample.set_gt_score(F.one_hot(sample.gt_label[0], 4).float())
    samples, _ = aligned(student, copy.deepcopy(student), inputs, data_samples)
    assert samples.labels.tolist() == [int(sample.gt_label) for sample in data_samples]


def test_of_several_views_the_students_own_loss_sees_the_plain_ones_only(student: nn.Module) -> None:
    student = in_views(student, 4).eval()
    student.head.cal_acc = True
    inputs, data_samples = batch(views=4)
    samples, losses = aligned(student, copy.deepcopy(student), inputs, data_samples)
    student.data_preprocessor.views = 1
    plain = student(inputs[:6], data_samples, mode='loss')
    assert torch.allclose(losses['loss'], plain['loss'])
    assert losses['accuracy_top-1'] == plain['accuracy_top-1']
    assert len(samples) == 24
    assert samples.views.tolist() == [view for view in range(4) for _ in range(6)]
    assert samples.image_ids.tolist() == list(range(6)) * 4
    assert torch.equal(samples.labels, torch.cat([sample.gt_label for sample in data_samples]).repeat(4))
    assert torch.allclose(samples.plain().student.logits, student(inputs[:6]), atol=1e-6)


def test_two_alignments_hear_all_views(student: nn.Module) -> None:
    student = in_views(student, 2)
    inputs, data_samples = batch(views=2)
    first, second = ImageAligner(), ImageAligner()
    with first.listen(student) as one, second.listen(student) as two:
        student(inputs, data_samples, mode='loss')
    assert len(one.last_layer.only().output) == len(two.last_layer.only().output) == 12


def test_listening_leaves_no_hook(student: nn.Module) -> None:
    student = in_views(student, 2)
    with ImageAligner().listen(student):
        assert student.head._forward_hooks
    assert not any(module._forward_hooks for module in student.modules())


def test_views_that_the_preprocessor_did_not_make_are_refused(student: nn.Module) -> None:
    with pytest.raises(RuntimeError, match='expected 2 views of 6 images, saw 6 rows'):
        inputs, data_samples = batch()
        aligner = ImageAligner()
        with aligner.listen(in_views(student, 2)) as tape:
            tape.last_layer.module(torch.zeros(6, 64))
        aligner.ask(student, extract_maps(student, inputs), tape, data_samples)


@pytest.mark.parametrize(('head', 'why'), [
    (dict(type='mmpretrain.ClsHead'), 'ClsHead has 0 of None outputs'),
    (dict(type='mmpretrain.ArcFaceClsHead', num_classes=4, in_channels=64), 'ArcFaceClsHead has 0 of 4 outputs'),
    (dict(type='mmpretrain.MultiLabelLinearClsHead', num_classes=4, in_channels=64), 'gives it several'),
])
def test_a_head_without_a_linear_last_layer_is_refused(head: dict, why: str, student: nn.Module) -> None:
    teacher = built(dict(classifier_config(), head=head))
    with pytest.raises(ValueError, match=why):
        ImageAligner().scorings(student, teacher)


def test_other_models_are_refused(student: nn.Module) -> None:
    assert is_classifier(student)
    with pytest.raises(ValueError, match='needs an `ImageClassifier` of mmpretrain as teacher, got a Linear'):
        ImageAligner().scorings(student, nn.Linear(1, 1))


def test_a_transformers_head_is_heard() -> None:
    config = dict(type='mmpretrain.ImageClassifier', data_preprocessor=dict(PREPROCESSOR), backbone=dict(
        type='mmpretrain.VisionTransformer', arch=dict(embed_dims=16, num_layers=1, num_heads=2,
                                                       feedforward_channels=16), img_size=32, patch_size=16),
        head=dict(type='mmpretrain.VisionTransformerClsHead', num_classes=4, in_channels=16, hidden_dim=8))
    model = built(config).eval()
    samples, _ = aligned(in_views(model, 2), copy.deepcopy(model), *batch(views=2))
    assert torch.equal(samples.student.logits, samples.teacher.logits)
    assert samples.student.features.shape == (12, 8)


def step(distiller: Distilled, views: int = 1) -> dict:
    losses = distiller(*batch(views=views), mode='loss')
    total, logged = distiller.parse_losses(losses)
    total.backward()
    return logged


def test_a_classifier_learns_all_of_pckd(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = built(classifier_config('resnet14'))
    distiller = paired(distiller_config(classifier_config(), classifier_config('resnet14'),
                                       saved(teacher, tmp_path / 't.pth'), PCKD))
    distiller.data_preprocessor.views = 4
    MessageHub.get_current_instance().update_info('epoch', 0)
    logged = step(distiller, views=4)
    assert {'image.loss_contrast', 'image.loss_centers', 'image.loss_features', 'image.preview_weight_contrast',
            'image.preview_admitted_contrast', 'image.preview_threshold_contrast'} <= set(logged)
    assert logged['image.preview_threshold_contrast'] == pytest.approx(1.005)
    learned = [name for name, _ in distiller.named_parameters() if name.startswith('ckd_mmdet.')]
    assert len(learned) == 4 + 6
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_maps_of_the_backbones_are_paired(tmp_path: Path) -> None:
    student, wide = classifier_config(), classifier_config('resnet8x4', width=256)
    for config in (student, wide):
        config['backbone']['out_indices'] = (0, 1, 2)
    config = distiller_config(student, wide, saved(built(wide), tmp_path / 't.pth'), KD)
    config['alignments']['neck'] = dict(aligner=dict(type='ckd_mmdet.NeckAligner'), losses=dict(
        loss_review=dict(type='ckd_mmdet.ReviewKDLoss', mid_channels=8)))
    distiller = paired(config)
    logged = step(distiller)
    assert logged['neck.loss_review'] > 0
    assert logged['neck.gradient_ratio_review'] > 0
    assert all(parameter.grad is not None for parameter in distiller.parameters())


def test_tokens_are_no_maps() -> None:
    model = built(dict(type='mmpretrain.ImageClassifier', data_preprocessor=dict(PREPROCESSOR), backbone=dict(
        type='mmpretrain.VisionTransformer', arch=dict(embed_dims=16, num_layers=1, num_heads=2,
                                                       feedforward_channels=16), img_size=512, patch_size=256)))
    with pytest.raises(ValueError, match=r"the student's features have shapes \[\(1, 16\)\]; take a method of rows"):
        NeckAligner().widths(model, model)


def test_the_students_weights_are_those_of_it_alone(tmp_path: Path) -> None:
    teacher = saved(built(classifier_config('resnet14')), tmp_path / 't.pth')
    torch.manual_seed(3)
    alone = built(classifier_config())
    torch.manual_seed(3)
    distilled = built(distiller_config(classifier_config(), classifier_config('resnet14'), teacher, PCKD))
    for name, value in alone.state_dict().items():
        assert torch.equal(distilled.state_dict()[name], value), name


def test_centers_of_another_width_are_refused_at_build(tmp_path: Path) -> None:
    wide = classifier_config('resnet8x4', width=256)
    with pytest.raises(ValueError, match=r'losses.loss_centers`: .* got 64 inputs .* 256 of the teacher'):
        built(distiller_config(classifier_config(), wide, saved(built(wide), tmp_path / 't.pth'), PCKD))


def test_other_classes_are_refused_at_build(tmp_path: Path) -> None:
    five = classifier_config(classes=5)
    with pytest.raises(ValueError, match=r'as many classes in the teacher \(5\) as in the student \(4\)'):
        built(distiller_config(classifier_config(), five, saved(built(five), tmp_path / 't.pth'), KD))


def test_shared_classes_are_paired_by_their_centers(tmp_path: Path, student: nn.Module) -> None:
    teacher = built(classifier_config(classes=5))
    config = distiller_config(classifier_config(), classifier_config(classes=5), saved(teacher, tmp_path / 't.pth'),
                              PCKD)
    config['teacher']['class_map'] = 'name'
    distiller = built(config)
    distiller.distillation.teachers[None].classes = ('d', 'x', 'b', 'y', 'a')
    distiller.distillation.pair(distiller, ('a', 'b', 'c', 'd'))
    assert distiller.distillation.pairings['image'].classes == SharedClasses((0, 1, 3), (4, 2, 0))
    samples = distiller.distillation.align(distiller, distiller.forward_alone, *batch())['image']
    assert torch.equal(samples.teacher.centers, teacher.head.fc.weight[[4, 2, 0]])
    assert torch.equal(samples.student.centers, distiller.head.fc.weight[[0, 1, 3]])
    assert samples.teacher.biases.shape == (3,)
    assert set(samples.labels.tolist()) <= {0, 1, 2}  # images of the class 2 are left out
    assert len(samples) == sum(int(sample.gt_label) != 2 for sample in batch()[1])


def test_a_teacher_of_other_normalisation_gets_its_own(tmp_path: Path) -> None:
    theirs = classifier_config()
    theirs['data_preprocessor'] = dict(type='mmpretrain.ClsDataPreprocessor', mean=[100.0] * 3, std=[50.0] * 3,
                                       to_rgb=True)
    distiller = paired(distiller_config(classifier_config(), theirs, saved(built(theirs), tmp_path / 't.pth'), KD))
    images = torch.randint(256, (6, 3, 32, 32)).float()
    ours, wanted = (images - 127.5) / 64, (images.flip(1) - 100) / 50
    samples = batch()[1]
    assert torch.allclose(distiller.distillation.teachers[None].renormalize(ours, [(32, 32)] * 6), wanted, atol=1e-5)
    distiller.distillation.teachers[None].extract_feat(torch.cat([ours, ours]), samples)  # two views, six samples


def test_published_weights_are_read_as_they_are(tmp_path: Path) -> None:
    teacher = built(classifier_config('resnet14'))
    published = {name.removeprefix('backbone.').replace('head.fc', 'fc'): value
                 for name, value in teacher.state_dict().items()}
    torch.save(dict(epoch=240, model=published, best_acc=0.7), tmp_path / 'ckpt_epoch_240.pth')
    distiller = paired(distiller_config(classifier_config(), classifier_config('resnet14'),
                                       str(tmp_path / 'ckpt_epoch_240.pth'), KD))
    assert torch.equal(distiller.distillation.teachers[None].model.head.fc.weight, teacher.head.fc.weight)


def test_it_works_without_mmpretrain_until_a_classifier_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / 'c.py').write_text("default_scope = 'mmpretrain'\nmodel = dict(type='ImageClassifier')\n")
    code = ('import sys; sys.modules["mmpretrain"] = None\n'
            'import ckd_mmdet.auto, ckd_mmdet.distilled, ckd_mmdet.hook, ckd_mmdet.classification.aligner\n'
            'from ckd_mmdet.config import read_config\n'
            f'read_config({str(tmp_path / "c.py")!r})')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=False)
    assert 'Install the extra `classification`' in done.stderr, done.stderr


def test_configs_with_lists_of_selectors_work(student: nn.Module) -> None:
    samples, _ = aligned(student, copy.deepcopy(student), *batch(),
                         selector=ConfigDict(type='ckd_mmdet.PerImageCap', k=1))
    assert len(samples) == 6


@pytest.mark.parametrize('loss', [dict(type='FGDLoss'), dict(type='L2Loss', region='gt'),
                                  dict(type='PKDLoss', region='decoupled')])
def test_a_loss_of_objects_is_refused_for_classifiers(loss: dict, tmp_path: Path) -> None:
    teacher = saved(built(classifier_config('resnet14')), tmp_path / 't.pth')
    cfg = distiller_config(classifier_config(), classifier_config('resnet14'), teacher, PCKD)
    cfg['alignments'] = dict(neck=dict(aligner=dict(type='NeckAligner'), losses=dict(loss_maps=loss)))
    text = (f'`alignments.neck` needs boxes of objects for {loss["type"]}, and a ImageClassifier classifies whole '
            'images; take `--method l2` or `--method pkd`')
    with pytest.raises(ValueError, match=text):
        built(cfg)
