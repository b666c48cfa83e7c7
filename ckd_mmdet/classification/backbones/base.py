"""What the CIFAR backbones share: stages one after another, and the feature maps that are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

HE_NORMAL: list[dict] = [dict(type='Kaiming', layer='Conv2d'), dict(type='Constant', val=1, layer='BatchNorm2d')]
"""Convolutions normal with the variance 2 / (kernel size x output channels), as most of these models have it."""


class StagedBackbone(BaseModule):
    """Layers before the stages (``enter``), the stages ``layer1``, ``layer2``, ..., and layers after them (``leave``).

    A subclass registers its layers, the stages under these names, and says what happens in ``enter`` and ``leave``.

    Args:
        stages: The stages, in order.
        out_channels: Channels of the last feature map, those that a classification head sees.
        out_indices: The stages whose maps come out, counted from 0, or back from -1.
        init_cfg: How MMEngine initialises the weights; by default they stay as torch draws them.

    Raises:
        ValueError: If ``out_indices`` names no stage, or one that is not there.
    """

    def __init__(self, stages: Sequence[nn.Module], out_channels: int, out_indices: Sequence[int],
                 init_cfg: Sequence[dict] | dict | None = None) -> None:
        super().__init__(init_cfg)
        count = len(stages)
        if not out_indices or not all(-count <= index < count for index in out_indices):
            raise ValueError(f'`out_indices` of {type(self).__name__} needs some of its stages 0 to {count - 1} (or -1 '
                             f'for the last), got {out_indices}.')
        self.out_channels = out_channels
        self.out_indices = {index % count for index in out_indices}
        self.stages = [f'layer{number}' for number in range(1, count + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps ``(N, d, h, w)`` of the stages in ``out_indices``, in order, from images ``(N, 3, H, W)``."""
        x = self.enter(images)
        maps = []
        for index, name in enumerate(self.stages):
            x = getattr(self, name)(x)
            if index == len(self.stages) - 1:
                x = self.leave(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def enter(self, images: Tensor) -> Tensor:
        """The input of the first stage; the images themselves where nothing stands before it."""
        return images

    def leave(self, x: Tensor) -> Tensor:
        """The last feature map from the last stage's output; that output itself where nothing follows."""
        return x


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution without bias that keeps height and width at stride 1."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without bias."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, groups=groups, bias=False)


def depthwise3x3(channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution of each channel alone, without bias."""
    return nn.Conv2d(channels, channels, 3, stride, padding=1, groups=channels, bias=False)
