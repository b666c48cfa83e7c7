"""BatchNorm folded into the convolution before it: the same function at rest, with fewer steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from ckd_mmdet.aligners import extract_maps, input_channels, levels_of
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

PROBE = 128
"""Side in pixels of the image by which convolutions and their BatchNorm are found."""
MOST_CHANGED = 1e-3
"""By how much folding may change a level's features, relative to the greatest of them."""


@torch.no_grad()
def fold_batch_norms(model: nn.Module) -> None:
    """Fold each BatchNorm of backbone and neck that normalises what a convolution gives, in place.

    Which these are is seen on an image of noise, not by names: a module is folded if both were called once, one with
    what the other gave. BatchNorm of a convolution that others use too stays as it is.

    Args:
        model: In evaluation mode.

    Raises:
        ValueError: If there is none, or the features are others afterwards.
    """
    kind, weight = type(model).__name__, next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, input_channels(model), PROBE, PROBE, generator=generator).to(weight)
    pairs, before = _pairs(model, image)
    if not pairs:
        raise ValueError(f'`teacher.fuse` folds BatchNorm into the convolution before it, and the {kind} has none in '
                         'its backbone and neck; leave `fuse` out.')
    names = {module: name for name, module in model.named_modules()}
    for conv, norm in pairs:
        _put(model, names[conv], fuse_conv_bn_eval(conv, norm))
        _put(model, names[norm], nn.Identity())
    after = levels_of(extract_maps(model, image))
    changes = [(one - other).abs().max() / one.abs().max() for one, other in zip(before, after, strict=True)]
    if max(changes) > MOST_CHANGED:
        raise ValueError(f'`teacher.fuse`: the {kind} gives other features once its BatchNorm is folded, as it uses '
                         'what its convolutions give elsewhere too; leave `fuse` out.')


def _pairs(model: nn.Module, image: Tensor) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Sequence[Tensor]]:
    """Convolutions and their BatchNorm, and the features of an image."""
    outputs: list[tuple[nn.Module, Tensor, Tensor]] = []

    def record(module: nn.Module, args: Any, output: Tensor) -> None:
        outputs.append((module, args[0], output))

    hooks = [module.register_forward_hook(record) for module in model.modules()
             if type(module) is nn.Conv2d or isinstance(module, nn.BatchNorm2d) and module.track_running_stats]
    try:
        features = levels_of(extract_maps(model, image))
    finally:
        for hook in hooks:
            hook.remove()
    calls = Counter(module for module, _, _ in outputs)
    owners = Counter(module for _, module in model.named_modules(remove_duplicate=False))
    # all outputs are kept, so that no two of them share an id
    gave = {id(output): module for module, _, output in outputs if type(module) is nn.Conv2d}
    found = [(gave[id(given)], norm) for norm, given, _ in outputs
             if isinstance(norm, nn.BatchNorm2d) and id(given) in gave]
    return [pair for pair in found if all(calls[part] == owners[part] == 1 for part in pair)], features


def _put(model: nn.Module, name: str, part: nn.Module) -> None:
    holder, _, attribute = name.rpartition('.')
    setattr(model.get_submodule(holder), attribute, part)
