"""Crossed heads: the student's features pass the last layers of the teacher's head (CrossKD, arXiv 2306.11369)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import SSDHead
from torch import Tensor, nn

TOWERS = ('cls', 'reg')
"""A dense head has a tower of layers before its class scores, and one before its boxes."""
Recorded = Mapping[str, Sequence[ModuleTap]]
"""Of each tower the calls of one layer: of one module, or of one a level."""


def towers_of(head: nn.Module) -> dict[str, list[list[nn.Module]]]:
    """Layers of a dense head's two towers, by :data:`TOWERS`: one list that all levels share, or one a level.

    Empty where the head has no such towers: SSD's ``cls_convs`` are the scores themselves, and TOOD has one tower for
    both.
    """
    if isinstance(head, SSDHead):
        return {}
    found = {}
    for name in TOWERS:
        by_level, convs = getattr(head, f'multi_level_{name}_convs', None), getattr(head, f'{name}_convs', None)
        if by_level is None and isinstance(convs, nn.ModuleList) and any(isinstance(one, nn.ModuleList)
                                                                         for one in convs):
            by_level = convs
        if by_level is not None:
            found[name] = [list(level) for level in by_level]
        elif isinstance(convs, nn.ModuleList | nn.Sequential):
            found[name] = [list(convs)]
    return found if len(found) == len(TOWERS) else {}


def layer_of(head: nn.Module, through: int) -> int:
    """The layer that ``through`` means, negative ones counted from the end of the student's towers."""
    return through if through >= 0 else _depth(head) + through


def check_crossing(student: nn.Module, teacher: nn.Module, through: int) -> None:
    """Refuse heads that cannot be crossed.

    Args:
        student: Its dense head.
        teacher: The same of the teacher.
        through: As of :class:`ckd_mmdet.aligners.DenseAligner`.

    Raises:
        ValueError: If a head has no towers, there is no such layer, or widths differ.
    """
    heads = dict(student=student, teacher=teacher)
    for side, head in heads.items():
        if not towers_of(head):
            raise ValueError(f'`DenseAligner(through={through})` crosses heads with layers `cls_convs` and `reg_convs` '
                             f"before their scores and boxes, and the {side}'s {type(head).__name__} has none; leave "
                             '`through` out, or take `--method kd`.')
    layer, last = layer_of(student, through), min(map(_depth, heads.values()))
    if not 0 <= layer <= last:
        has = ' and '.join(f"the {side}'s {type(head).__name__} has {_depth(head)}" for side, head in heads.items())
        raise ValueError(f'`DenseAligner` needs `through` from 0 to {last}, as of layers before scores and boxes {has}'
                         f', got {through}; set `aligner.through` of the alignment.')
    ours, theirs = (_widths(head, layer) for head in heads.values())
    if ours != theirs:
        equal = [one for one in range(last + 1) if _widths(student, one) == _widths(teacher, one)]
        way_out = f'give `through` {" or ".join(map(str, equal))}' if equal else 'take `--method kd`'
        raise ValueError(f"`DenseAligner(through={through})` feeds the teacher's {type(teacher).__name__} with the "
                         f"student's features, which need its width, {theirs} channels for scores and boxes behind "
                         f'layer {layer}, got {ours}; {way_out}.')


@contextmanager
def recording(head: nn.Module, layer: int) -> Iterator[Recorded]:
    """Record the features behind a layer of the student's head, within the ``with``; behind layer 0 there are none."""
    with ExitStack() as taps:
        yield {name: [taps.enter_context(ModuleTap(lane[layer - 1], f'{name}_convs[{layer - 1}]')) for lane in lanes]
               for name, lanes in towers_of(head).items() if layer}


def crossed(head: nn.Module, feats: Sequence[Tensor], inputs: Sequence[Tensor], recorded: Recorded, layer: int) -> Any:
    """What the teacher's head gives for the student's features behind a layer.

    Gradient reaches the student's features, and nothing of the teacher.

    Args:
        head: The teacher's, in the mode in which it shall answer.
        feats: The teacher's features, one ``(N, d, h, w)`` a level.
        inputs: What the student's head was given, the same.
        recorded: As of :func:`recording`, of the student's step.
        layer: Number of the student's layers that stand in the place of the teacher's, from 0.

    Raises:
        RuntimeError: If a layer is called otherwise than once a level.
    """
    with _learning_nothing(head):
        if not layer:
            return head(inputs)
        with ExitStack() as hooks:
            left = [hooks.enter_context(_giving(lane[layer - 1], features))
                    for name, lanes in towers_of(head).items()
                    for lane, features in zip(lanes, _by_lane(recorded[name], len(feats), len(lanes)), strict=True)]
            output = head([level.detach() for level in feats])
        if any(left):
            raise RuntimeError(f"expected the teacher's {type(head).__name__} to call its layer {layer} once a level, "
                               'saw fewer calls; leave `through` out')
        return output


def _depth(head: nn.Module) -> int:
    return min(len(lane) for lanes in towers_of(head).values() for lane in lanes)


def _widths(head: nn.Module, layer: int) -> tuple[Any, ...]:
    """Channels behind a layer, of each tower; those of the inputs behind layer 0."""
    if not layer:
        return (getattr(head, 'in_channels', None),)
    return tuple(_width(lanes[0][layer - 1]) for lanes in towers_of(head).values())


def _width(layer: nn.Module) -> int | None:
    """Channels that a layer gives; ``None`` where it does not say."""
    own = getattr(layer, 'out_channels', None)
    return own or next((width for part in reversed(list(layer.children())) if (width := _width(part))), None)


def _by_lane(taps: Sequence[ModuleTap], levels: int, lanes: int) -> list[list[Tensor]]:
    """The recorded features for each of the teacher's lists of layers, which all levels share, or one has."""
    features = [call.output for tap in taps for call in tap.calls]
    if len(features) != levels:
        raise RuntimeError(f'expected a call of {taps[0].name} for each of {levels} levels, saw {len(features)}; leave '
                           '`through` out')
    return [features] if lanes == 1 else [[level] for level in features]


@contextmanager
def _giving(layer: nn.Module, features: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Let a layer give these, call by call, in the place of its own output; yields those that are left."""
    left = list(features)
    hook = layer.register_forward_hook(lambda module, args, output: left.pop(0))
    try:
        yield left
    finally:
        hook.remove()


@contextmanager
def _learning_nothing(module: nn.Module) -> Iterator[None]:
    """Gradient passes the module, and none stays with its parameters."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
