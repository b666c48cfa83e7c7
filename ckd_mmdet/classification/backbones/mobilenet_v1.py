"""MobileNetV1 for images of 224x224, a student of the distillation literature that MMPretrain does not have."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ckd_mmdet.registry import MODELS
from torch import Tensor, nn

from .base import HE_NORMAL, StagedBackbone, conv1x1, conv3x3, depthwise3x3

CHANNELS = (32, 64, 128, 256, 512, 1024)
"""After the first convolution and each stage."""


@MODELS.register_module()
class MobileNetV1(StagedBackbone):
    """MobileNet of full width (arXiv 1704.04861, table 1).

    It has 3,206,976 parameters, 4,231,976 with a linear layer of 1000 classes. The maps of 224x224 images have the
    sizes 112, 56, 28, 14 and 7.

    Args:
        out_indices: The stages, of five, whose feature maps come out.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``out_indices`` names a stage that is not there.
    """

    def __init__(self, out_indices: Sequence[int] = (-1,),
                 init_cfg: Sequence[dict] | dict | None = HE_NORMAL) -> None:
        blocks = (1, 2, 2, 6, 2)
        strides = (1, 2, 2, 2, 2)
        stages = [nn.Sequential(_block(before, after, stride), *(_block(after, after, 1) for _ in range(number - 1)))
                  for number, (before, after), stride in zip(blocks, pairwise(CHANNELS), strides, strict=True)]
        super().__init__(stages, CHANNELS[-1], out_indices, init_cfg)
        self.conv1 = nn.Sequential(conv3x3(3, CHANNELS[0], 2), nn.BatchNorm2d(CHANNELS[0]), nn.ReLU(inplace=True))

    def enter(self, images: Tensor) -> Tensor:
        return self.conv1(images)


def _block(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """A convolution of each channel, then one across them."""
    return nn.Sequential(
        depthwise3x3(in_channels, stride), nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True),
        conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))
