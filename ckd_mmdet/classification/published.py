"""The teachers that RepDistiller (BSD-2) and mdistiller (MIT) publish for CIFAR-100, as weights of our classifiers.

They were trained on RGB images with the mean (0.5071, 0.4867, 0.4408) and the standard deviation (0.2675, 0.2565,
0.2761), of values between 0 and 1 (mdistiller's ``dataset/cifar100.py``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from mmengine.runner import CheckpointLoader
from torch import Tensor

HEAD = re.compile(r'(?:fc|linear|classifier|classifier\.0)\.(weight|bias)')
"""Names of the last, linear layer; all others are the backbone's."""


def read_published(checkpoint: str | Path) -> dict[str, Tensor]:
    """Read a published teacher as the state dict of an ``ImageClassifier`` with a backbone of ours.

    ::

        classifier.load_state_dict(read_published('resnet32x4_vanilla/ckpt_epoch_240.pth'))

    or, for anything that takes an ordinary checkpoint::

        torch.save(dict(state_dict=read_published(...)), 'resnet32x4.pth')

    Args:
        checkpoint: Path or address of a file with the weights under the key ``model``.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has no weights under this key.
    """
    loaded = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    weights = loaded.get('model') if isinstance(loaded, dict) else None
    if not isinstance(weights, Mapping):
        raise ValueError(f'`checkpoint` needs the weights under the key `model`, as RepDistiller and mdistiller publish'
                         f' them; {checkpoint} has none there. A checkpoint of MMPretrain needs no translation.')
    return translate(weights)


def translate(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give published weights the names that they have in an ``ImageClassifier`` with a ``LinearClsHead``.

    Args:
        published: Weights under their published names, of any of the models in ``ZOO``.

    Returns:
        The same weights under our names, in the same order.
    """
    return {_our_name(name.removeprefix('module.')): weight for name, weight in published.items()}


def _our_name(name: str) -> str:
    if head := HEAD.fullmatch(name):
        return f'head.fc.{head[1]}'
    # wide residual networks count their stages from 1, VGG and MobileNetV2 from 0
    name = re.sub(r'^block(\d)\.layer\.', r'layer\1.', name)
    name = re.sub(r'^(?:block|blocks\.)(\d)\.', lambda stage: f'layer{int(stage[1]) + 1}.', name)
    name = re.sub(r'\.(?:shortcut|convShortcut)\.', '.downsample.', name)
    return f'backbone.{name}'
