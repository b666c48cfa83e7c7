"""The CIFAR zoo against the published models: parameter counts, names and shapes, logits.

``cifar_zoo.json.gz`` has, of each model with 100 classes as in mdistiller (MIT) and RepDistiller (BSD-2), the number of
parameters, the names and shapes of its state dict, and what it answered to :func:`images` with :func:`published`'s
weights: the first five logits of the first image, and the sum of all logits.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ckd_mmdet.classification import require_mmpretrain
from ckd_mmdet.classification.backbones import ZOO, CifarMobileNetV2, CifarResNet, CifarVGG, CifarWideResNet
from ckd_mmdet.classification.backbones.mobile import channel_shuffle
from ckd_mmdet.classification.published import read_published, translate
from mmengine.registry import MODELS
from torch import Tensor, nn

REFERENCE = json.loads(gzip.decompress((Path(__file__).parent / 'cifar_zoo.json.gz').read_bytes()))


def published(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights of these shapes by the reference's formula, drawn in their order."""
    generator = np.random.default_rng(21)
    return {name: torch.from_numpy(_filled(name, shape, generator)) for name, shape in shapes.items()}


def _filled(name: str, shape: list[int], generator: np.random.Generator) -> np.ndarray:
    if name.endswith('num_batches_tracked'):
        return np.zeros(shape, dtype=np.int64)
    a = generator.normal(size=shape).astype(np.float32)
    if name.endswith('running_var'):
        return np.abs(a) + np.float32(0.5)
    if name.endswith('running_mean'):
        return np.float32(0.1) * a
    if len(shape) == 1:
        return np.float32(0.1) * a + np.float32(name.endswith('weight'))
    return a * np.float32(np.sqrt(2 / np.prod(shape[1:])))


def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(22).normal(size=(2, 3, 32, 32)).astype(np.float32))


def image_classifier(backbone: dict, width: int) -> nn.Module:
    return MODELS.build(dict(
        type='mmpretrain.ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=100, in_channels=width)))


@pytest.fixture(scope='module', params=sorted(REFERENCE))
def model(request: pytest.FixtureRequest) -> SimpleNamespace:
    """A classifier of the zoo with the published weights, in eval mode, and its reference."""
    reference = SimpleNamespace(**REFERENCE[request.param])
    weights = published(reference.shapes)
    classifier = image_classifier(ZOO[request.param], reference.pooled_dim)
    classifier.load_state_dict(translate(weights))  # strict: refuses what is missing or left over
    return SimpleNamespace(classifier=classifier.eval(), weights=weights, reference=reference)


def test_the_zoo_has_all_published_models() -> None:
    assert set(ZOO) == set(REFERENCE)


def test_parameters_are_as_many_as_published(model: SimpleNamespace) -> None:
    assert sum(weight.numel() for weight in model.classifier.parameters()) == model.reference.parameters


def test_each_published_name_gets_a_name_of_its_own(model: SimpleNamespace) -> None:
    ours = model.classifier.state_dict()
    names = translate({name: name for name in model.weights})
    assert len(names) == len(model.weights) and set(names) == set(ours)
    assert {name: list(ours[name].shape) for name in names} == {
        name: model.reference.shapes[theirs] for name, theirs in names.items()}


@torch.no_grad()
def test_logits_are_those_of_the_published_model(model: SimpleNamespace) -> None:
    logits = model.classifier(images(), mode='tensor')
    assert logits[0, :5].tolist() == pytest.approx(model.reference.logits_first, rel=1e-3)
    assert logits.sum().item() == pytest.approx(model.reference.logits_sum, rel=1e-3)


# one of each kind, the smallest; the sizes are those of the maps of 32x32 images
KINDS = {
    'resnet8': [(16, 32), (32, 16), (64, 8)],
    'ResNet50': [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    'wrn_16_1': [(16, 32), (32, 16), (64, 8)],
    'vgg8': [(64, 32), (128, 16), (256, 8), (512, 4), (512, 4)],
    'MobileNetV2': [(8, 16), (12, 16), (16, 8), (32, 4), (48, 4), (80, 2), (1280, 2)],
    'ShuffleV1': [(240, 16), (480, 8), (960, 4)],
    'ShuffleV2': [(116, 16), (232, 8), (1024, 4)],
}
every_kind = pytest.mark.parametrize('name', KINDS)


@every_kind
def test_maps_of_all_stages_come_out_in_order(name: str) -> None:
    backbone = MODELS.build(dict(ZOO[name], out_indices=range(len(KINDS[name])))).eval()
    with torch.no_grad():
        maps = backbone(images())
    assert [tuple(m.shape) for m in maps] == [(2, width, side, side) for width, side in KINDS[name]]
    assert backbone.out_channels == KINDS[name][-1][0]


@every_kind
@torch.no_grad()
def test_no_stage_changes_the_map_that_went_before(name: str) -> None:
    count = len(KINDS[name])
    backbone = MODELS.build(dict(ZOO[name], out_indices=range(count))).eval()
    maps = [m.clone() for m in backbone(images())]
    x = backbone.enter(images())
    for index, (stage, expected) in enumerate(zip(backbone.stages, maps, strict=True)):
        x = getattr(backbone, stage)(x)
        torch.testing.assert_close(backbone.leave(x) if index == count - 1 else x, expected)


@every_kind
def test_a_training_step_reaches_every_weight(name: str) -> None:
    from mmpretrain.structures import DataSample

    torch.manual_seed(0)
    classifier = image_classifier(ZOO[name], KINDS[name][-1][0])
    classifier.init_weights()
    labels = [DataSample().set_gt_label(label) for label in (3, 99)]
    classifier(images(), labels, mode='loss')['loss'].backward()
    gradients = {name: weight.grad for name, weight in classifier.named_parameters()}
    assert [name for name, grad in gradients.items() if grad is None or not grad.isfinite().all()] == []
    assert [name for name, grad in gradients.items() if not grad.any()] == []


@pytest.mark.parametrize('name', ['resnet8', 'wrn_16_1', 'vgg8', 'MobileNetV2'])
def test_convolutions_start_with_the_variance_of_the_published_models(name: str) -> None:
    torch.manual_seed(0)
    backbone = MODELS.build(ZOO[name])
    backbone.init_weights()
    convolutions = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d) and layer.groups == 1]
    for layer in convolutions:
        published_std = (2 / (layer.kernel_size[0] ** 2 * layer.out_channels)) ** 0.5
        assert layer.weight.std().item() == pytest.approx(published_std, rel=0.2)


@pytest.mark.parametrize('name', ['ShuffleV1', 'ShuffleV2'])
def test_shuffle_nets_start_as_torch_draws_them(name: str) -> None:
    backbone = MODELS.build(ZOO[name])
    drawn = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.init_weights()
    assert all(torch.equal(drawn[key], value) for key, value in backbone.state_dict().items())


@pytest.mark.parametrize(('kind', 'arguments', 'message'), [
    (CifarResNet, dict(arch='resnet21'), 'needs one of resnet8, resnet14, .*, got .resnet21.'),
    (CifarWideResNet, dict(depth=18), r'needs 6 n \+ 4 \(10, 16, .*\), got 18'),
    (CifarWideResNet, dict(depth=4), r'needs 6 n \+ 4 \(10, 16, .*\), got 4'),
    (CifarWideResNet, dict(depth=16, widen_factor=0), 'at least 1, got 0'),
    (CifarVGG, dict(depth=12), 'needs one of 8, 11, 13, 16, 19, got 12'),
    (CifarMobileNetV2, dict(out_indices=(3, 7)), r'stages 0 to 6 .*, got \(3, 7\)'),
    (CifarVGG, dict(depth=8, out_indices=()), r'stages 0 to 4 .*, got \(\)'),
])
def test_a_model_that_does_not_exist_is_refused(kind: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_a_published_file_is_read_as_a_state_dict_of_ours(tmp_path: Path, prefix: str) -> None:
    weights = published(REFERENCE['wrn_16_2']['shapes'])
    file = tmp_path / 'ckpt_epoch_240.pth'
    torch.save(dict(epoch=240, model={prefix + name: weight for name, weight in weights.items()}), file)
    classifier = image_classifier(ZOO['wrn_16_2'], 128)
    classifier.load_state_dict(read_published(file))
    assert torch.equal(classifier.head.fc.weight, weights['fc.weight'])
    assert torch.equal(classifier.backbone.layer1[0].downsample.weight, weights['block1.layer.0.convShortcut.weight'])


@pytest.mark.parametrize('content', [dict(state_dict={}), dict(model=3), [1]])
def test_a_file_without_published_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match='needs the weights under the key `model`.*other.pth has none there'):
        read_published(tmp_path / 'other.pth')


def test_weights_of_another_model_are_refused() -> None:
    with pytest.raises(RuntimeError, match='size mismatch'):
        image_classifier(ZOO['wrn_16_1'], 64).load_state_dict(translate(published(REFERENCE['wrn_16_2']['shapes'])))


def test_without_mmpretrain_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    require_mmpretrain()
    monkeypatch.setitem(sys.modules, 'mmpretrain', None)
    with pytest.raises(ImportError, match=r'need mmpretrain.*ckd_mmdet\[onedl,classification\]'):
        require_mmpretrain()


@pytest.mark.parametrize('groups', [2, 3])
def test_channels_are_shuffled_as_by_torch(groups):
    x = torch.arange(2 * 12.).reshape(2, 12, 1, 1)
    assert torch.equal(channel_shuffle(x, groups), torch.nn.functional.channel_shuffle(x, groups))
