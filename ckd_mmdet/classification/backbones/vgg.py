"""VGG for images of 32x32."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ckd_mmdet.registry import MODELS
from torch import nn

from .base import HE_NORMAL, StagedBackbone

CONVOLUTIONS = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Of each depth, how many in each stage; the depth counts the three linear layers of the ImageNet model too."""
CHANNELS = (3, 64, 128, 256, 512, 512)


@MODELS.register_module()
class CifarVGG(StagedBackbone):
    """VGG with batch normalisation (arXiv 1409.1556) and without hidden linear layers.

    Args:
        depth: 8, 11, 13, 16 or 19.
        out_indices: The stages whose feature maps come out; those of 32x32 images have the sizes 32, 16, 8, 4 and 4.
        init_cfg: MMEngine's initialisation.

    Raises:
        ValueError: If ``depth`` is another, or ``out_indices`` names a stage that is not there.
    """

    def __init__(self, depth: int, out_indices: Sequence[int] = (-1,),
                 init_cfg: Sequence[dict] | dict | None = HE_NORMAL) -> None:
        if depth not in CONVOLUTIONS:
            raise ValueError(f'`depth` of CifarVGG needs one of {", ".join(map(str, CONVOLUTIONS))}, got {depth}.')
        halved = (False, True, True, True, False)
        stages = [_stage(number, *ends, halve)
                  for number, ends, halve in zip(CONVOLUTIONS[depth], pairwise(CHANNELS), halved, strict=True)]
        super().__init__(stages, CHANNELS[-1], out_indices, init_cfg)


def _stage(convolutions: int, in_channels: int, out_channels: int, halve: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in [in_channels] + [out_channels] * (convolutions - 1):
        layers += [nn.Conv2d(before, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]
    stage = nn.Sequential()
    if halve:
        stage.add_module('pool', nn.MaxPool2d(2))  # by name: the others are numbered alike in all stages
    for number, layer in enumerate(layers):
        stage.add_module(str(number), layer)
    return stage
