"""The models that distillation is compared with on CIFAR-100, as backbones of an ``ImageClassifier``.

They need no MMPretrain themselves. Importing this registers them::

    model = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='ckd_mmdet.CifarWideResNet', depth=16, widen_factor=2),
        neck=dict(type='GlobalAveragePooling'), head=dict(type='LinearClsHead', num_classes=100, in_channels=128))
"""

from .mobile import CifarMobileNetV2, CifarShuffleNetV1, CifarShuffleNetV2
from .mobilenet_v1 import MobileNetV1
from .residual import CifarResNet, CifarWideResNet
from .vgg import CifarVGG

__all__ = ['ZOO', 'CifarMobileNetV2', 'CifarResNet', 'CifarShuffleNetV1', 'CifarShuffleNetV2', 'CifarVGG',
           'CifarWideResNet', 'MobileNetV1']

ZOO: dict[str, dict] = {
    **{arch: dict(type='ckd_mmdet.CifarResNet', arch=arch)
       for arch in ('resnet8', 'resnet14', 'resnet20', 'resnet32', 'resnet44', 'resnet56', 'resnet110', 'resnet8x4',
                    'resnet32x4')},
    'ResNet18': dict(type='ckd_mmdet.CifarResNet', arch='resnet18'),
    'ResNet50': dict(type='ckd_mmdet.CifarResNet', arch='resnet50'),
    **{f'wrn_{depth}_{widen}': dict(type='ckd_mmdet.CifarWideResNet', depth=depth, widen_factor=widen)
       for depth in (16, 40) for widen in (1, 2)},
    **{f'vgg{depth}': dict(type='ckd_mmdet.CifarVGG', depth=depth) for depth in (8, 11, 13, 16, 19)},
    'MobileNetV2': dict(type='ckd_mmdet.CifarMobileNetV2'),
    'ShuffleV1': dict(type='ckd_mmdet.CifarShuffleNetV1'),
    'ShuffleV2': dict(type='ckd_mmdet.CifarShuffleNetV2'),
}
"""Config of each backbone by the name that it has in the distillation literature."""
