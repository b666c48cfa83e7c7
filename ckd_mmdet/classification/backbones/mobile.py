"""Small networks of depthwise convolutions, for images of 32x32: MobileNetV2, ShuffleNetV1 and V2."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from ckd_mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from .base import HE_NORMAL, StagedBackbone, conv1x1, conv3x3, depthwise3x3


@MODELS.register_module()
class CifarMobileNetV2(StagedBackbone):
    """MobileNetV2 of half the width (arXiv 1801.04381); the last layer keeps its 1280 channels.

    Unlike the paper's, its first block has a convolution before the depthwise one too, and the first and sixth stage
    keep the map's size. The maps of 32x32 images have the sizes 16, 16, 8, 4, 4, 2 and 2.

    Args:
        out_indices: The stages, of seven, whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``out_indices`` names a stage that is not there.
    """

    def __init__(self, out_indices: Sequence[int] = (-1,),
                 init_cfg: Sequence[dict] | dict | None = HE_NORMAL) -> None:
        channels = (16, 8, 12, 16, 32, 48, 80, 160)
        blocks = (1, 2, 3, 4, 3, 3, 1)
        strides = (1, 1, 2, 2, 1, 2, 1)
        expansions = (1, 6, 6, 6, 6, 6, 6)
        stages = [nn.Sequential(InvertedResidual(before, after, stride, expansion),
                                *(InvertedResidual(after, after, 1, expansion) for _ in range(number - 1)))
                  for number, (before, after), stride, expansion
                  in zip(blocks, pairwise(channels), strides, expansions, strict=True)]
        super().__init__(stages, 1280, out_indices, init_cfg)
        self.conv1 = nn.Sequential(conv3x3(3, channels[0], 2), nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(conv1x1(channels[-1], 1280), nn.BatchNorm2d(1280), nn.ReLU(inplace=True))

    def enter(self, images: Tensor) -> Tensor:
        return self.conv1(images)

    def leave(self, x: Tensor) -> Tensor:
        return self.conv2(x)


class InvertedResidual(nn.Module):
    """Widen, convolve each channel, narrow without ReLU; the input is added where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.conv = nn.Sequential(
            conv1x1(in_channels, wide), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
            depthwise3x3(wide, stride), nn.BatchNorm2d(wide), nn.ReLU(inplace=True),
            conv1x1(wide, out_channels), nn.BatchNorm2d(out_channels))
        self.keeps_shape = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.keeps_shape else self.conv(x)


@MODELS.register_module()
class CifarShuffleNetV1(StagedBackbone):
    """ShuffleNet with three groups (arXiv 1707.01083); a 1x1 convolution stands before the first stage.

    The maps of 32x32 images have the sizes 16, 8 and 4.

    Args:
        out_indices: The stages, of three, whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``out_indices`` names a stage that is not there.
    """

    def __init__(self, out_indices: Sequence[int] = (-1,), init_cfg: Sequence[dict] | dict | None = None) -> None:
        channels = (24, 240, 480, 960)
        # in the first unit a group would have few channels: its first convolution has none
        stages = [nn.Sequential(GroupedUnit(before, after, groups=1 if before == channels[0] else 3, halve=True),
                                *(GroupedUnit(after, after, groups=3, halve=False) for _ in range(blocks - 1)))
                  for blocks, (before, after) in zip((4, 8, 4), pairwise(channels), strict=True)]
        super().__init__(stages, channels[-1], out_indices, init_cfg)
        self.conv1 = conv1x1(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[0])

    def enter(self, images: Tensor) -> Tensor:
        return self.bn1(self.conv1(images)).relu_()


class GroupedUnit(nn.Module):
    """Narrow in groups, shuffle them, convolve each channel, widen in three groups.

    The input is added; where the map is halved, its average joins as further channels instead. Unlike the paper's, the
    unit has a ReLU after the depthwise convolution too.

    Args:
        in_channels: Channels before.
        out_channels: Channels after, the joined ones included.
        groups: Groups of the first convolution and of the shuffle.
        halve: Whether the map's sides become half as long.
    """

    def __init__(self, in_channels: int, out_channels: int, groups: int, halve: bool) -> None:
        super().__init__()
        own = out_channels - in_channels if halve else out_channels
        narrow = own // 4
        self.groups = groups
        self.halve = halve
        self.conv1 = conv1x1(in_channels, narrow, groups=groups)
        self.bn1 = nn.BatchNorm2d(narrow)
        self.conv2 = depthwise3x3(narrow, stride=2 if halve else 1)
        self.bn2 = nn.BatchNorm2d(narrow)
        self.conv3 = conv1x1(narrow, own, groups=3)
        self.bn3 = nn.BatchNorm2d(own)

    def forward(self, x: Tensor) -> Tensor:
        out = channel_shuffle(self.bn1(self.conv1(x)).relu_(), self.groups)
        out = self.bn2(self.conv2(out)).relu_()
        out = self.bn3(self.conv3(out))
        if self.halve:
            return torch.cat([out, avg_pool2d(x, 3, stride=2, padding=1)], dim=1).relu_()
        return (out + x).relu_()


@MODELS.register_module()
class CifarShuffleNetV2(StagedBackbone):
    """ShuffleNetV2 of the width 1 (arXiv 1807.11164); a 1x1 convolution stands before the first stage.

    The maps of 32x32 images have the sizes 16, 8 and 4.

    Args:
        out_indices: The stages, of three, whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``out_indices`` names a stage that is not there.
    """

    def __init__(self, out_indices: Sequence[int] = (-1,), init_cfg: Sequence[dict] | dict | None = None) -> None:
        channels = (24, 116, 232, 464)
        stages = [nn.Sequential(HalvingUnit(before, after), *(SplitUnit(after) for _ in range(blocks - 1)))
                  for blocks, (before, after) in zip((4, 8, 4), pairwise(channels), strict=True)]
        super().__init__(stages, 1024, out_indices, init_cfg)
        self.conv1 = conv1x1(3, channels[0])
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.conv2 = conv1x1(channels[-1], 1024)
        self.bn2 = nn.BatchNorm2d(1024)

    def enter(self, images: Tensor) -> Tensor:
        return self.bn1(self.conv1(images)).relu_()

    def leave(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(x)).relu_()


class SplitUnit(nn.Module):
    """Half of the channels pass, the other half goes through three convolutions; then the halves are shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv1x1(half, half)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = depthwise3x3(half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(half, half)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        passing, out = x.chunk(2, dim=1)
        out = self.bn1(self.conv1(out)).relu_()
        out = self.bn2(self.conv2(out))
        out = self.bn3(self.conv3(out)).relu_()
        return channel_shuffle(torch.cat([passing, out], dim=1), 2)


class HalvingUnit(nn.Module):
    """All channels go through two branches that halve the map, one of two and one of three convolutions; shuffled."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = depthwise3x3(in_channels, stride=2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv1x1(in_channels, half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv1x1(in_channels, half)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = depthwise3x3(half, stride=2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv1x1(half, half)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x: Tensor) -> Tensor:
        short = self.bn1(self.conv1(x))
        short = self.bn2(self.conv2(short)).relu_()
        long = self.bn3(self.conv3(x)).relu_()
        long = self.bn4(self.conv4(long))
        long = self.bn5(self.conv5(long)).relu_()
        return channel_shuffle(torch.cat([short, long], dim=1), 2)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """The first channel of each group, then the second of each, ...; torch 2.1's own has no gradient."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
