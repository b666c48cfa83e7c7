"""Residual networks for images of 32x32: no pooling before the first stage, which keeps the image's size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ckd_mmdet.registry import MODELS
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from .base import HE_NORMAL, StagedBackbone, conv1x1, conv3x3


class Plan(NamedTuple):
    """A residual network: its block, how many in each stage, and the channels after the first layer and each stage."""

    block: type[BasicBlock | Bottleneck]
    blocks: tuple[int, ...]
    channels: tuple[int, ...]


PLANS = {
    **{f'resnet{6 * n + 2}': Plan(BasicBlock, (n, n, n), (16, 16, 32, 64)) for n in (1, 2, 3, 5, 7, 9, 18)},
    **{f'resnet{6 * n + 2}x4': Plan(BasicBlock, (n, n, n), (32, 64, 128, 256)) for n in (1, 5)},
    'resnet18': Plan(BasicBlock, (2, 2, 2, 2), (64, 64, 128, 256, 512)),
    'resnet50': Plan(Bottleneck, (3, 4, 6, 3), (64, 256, 512, 1024, 2048)),
}


@MODELS.register_module()
class CifarResNet(StagedBackbone):
    """ResNet for images of 32x32 (arXiv 1512.03385, section 4.2; shortcuts that change the shape are convolutions).

    Args:
        arch: ``'resnet8'``, ``'resnet14'``, 20, 32, 44, 56, 110: three stages of 16, 32 and 64 channels;
            ``'resnet8x4'``, ``'resnet32x4'``: of 64, 128 and 256; ``'resnet18'``, ``'resnet50'``: the four stages of
            the ImageNet models of this depth.
        out_indices: The stages whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``arch`` is none of these, or ``out_indices`` names a stage that is not there.
    """

    def __init__(self, arch: str, out_indices: Sequence[int] = (-1,),
                 init_cfg: Sequence[dict] | dict | None = HE_NORMAL) -> None:
        if arch not in PLANS:
            raise ValueError(f'`arch` of CifarResNet needs one of {", ".join(PLANS)}, got {arch!r}.')
        block, blocks, channels = PLANS[arch]
        strides = [1] + [2] * (len(blocks) - 1)
        stages = [_residual_stage(block, number, *ends, stride)
                  for number, ends, stride in zip(blocks, pairwise(channels), strides, strict=True)]
        super().__init__(stages, channels[-1], out_indices, init_cfg)
        self.conv1 = conv3x3(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[0])

    def enter(self, images: Tensor) -> Tensor:
        return self.bn1(self.conv1(images)).relu_()


def _residual_stage(block: type[BasicBlock | Bottleneck], blocks: int, in_channels: int, out_channels: int,
                    stride: int) -> nn.Sequential:
    shortcut = None
    if stride > 1 or in_channels != out_channels:
        shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
    planes = out_channels // block.expansion
    return nn.Sequential(block(in_channels, planes, stride, shortcut),
                         *(block(out_channels, planes) for _ in range(blocks - 1)))


@MODELS.register_module()
class CifarWideResNet(StagedBackbone):
    """Wide ResNet without dropout (arXiv 1605.07146), *wrn_d_k* of the distillation literature.

    Args:
        depth: ``6 n + 4`` with ``n`` blocks in each of the three stages.
        widen_factor: The stages have 16, 32 and 64 channels times this.
        out_indices: The stages whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``depth`` is not ``6 n + 4``, ``widen_factor`` is less than 1, or ``out_indices`` names a stage
            that is not there.
    """

    def __init__(self, depth: int, widen_factor: int = 1, out_indices: Sequence[int] = (-1,),
                 init_cfg: Sequence[dict] | dict | None = HE_NORMAL) -> None:
        blocks, rest = divmod(depth - 4, 6)
        if rest or blocks < 1:
            raise ValueError(f'`depth` of CifarWideResNet needs 6 n + 4 (10, 16, 22, 28, 34, 40, ...), got {depth}.')
        if widen_factor < 1:
            raise ValueError(f'`widen_factor` of CifarWideResNet needs to be at least 1, got {widen_factor}.')
        channels = (16, *(width * widen_factor for width in (16, 32, 64)))
        stages = [nn.Sequential(PreActivationBlock(before, after, stride),
                                *(PreActivationBlock(after, after) for _ in range(blocks - 1)))
                  for (before, after), stride in zip(pairwise(channels), (1, 2, 2), strict=True)]
        super().__init__(stages, channels[-1], out_indices, init_cfg)
        self.conv1 = conv3x3(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[-1])

    def enter(self, images: Tensor) -> Tensor:
        return self.conv1(images)

    def leave(self, x: Tensor) -> Tensor:
        return self.bn1(x).relu_()


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each of two convolutions; a shortcut that changes the shape comes after the first.

    Without a change of shape the shortcut is the input itself (arXiv 1603.05027).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.downsample = None
        if stride > 1 or in_channels != out_channels:
            self.downsample = conv1x1(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        active = self.bn1(x).relu_()
        shortcut = x if self.downsample is None else self.downsample(active)
        return shortcut + self.conv2(self.bn2(self.conv1(active)).relu_())
