"""Labels of a dense head's rows, overheard from its own loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from ckd_mmdet.rows import MapRows
from ckd_mmdet.taps import Call, ModuleTap
from mmdet.models.dense_heads import (
    AutoAssignHead,
    CenterNetUpdateHead,
    FreeAnchorRetinaHead,
    PAAHead,
    PISARetinaHead,
    SSDHead,
    VFNetHead,
    YOLACTHead,
    YOLOV3Head,
    YOLOXHead,
)
from torch import Tensor, nn

from .crossed import Recorded

PROBES = 256
"""Rows of a loss's call that are compared before its labels are trusted."""
STEPS_READ = 20
"""Steps in which the host waits for that comparison."""
REORDERED = -1
"""Instead of a number of steps: the loss takes its rows in another order."""
WITHOUT_LABELS = (AutoAssignHead, CenterNetUpdateHead, FreeAnchorRetinaHead, PAAHead, PISARetinaHead, SSDHead,
                  VFNetHead, YOLACTHead, YOLOV3Head, YOLOXHead)
"""Heads of mmdet whose loss takes other rows than their maps have, or no whole numbers: docs/supported.md has why."""


@dataclass(frozen=True)
class DenseTape:
    """What the student's dense head said in one step."""

    head: nn.Module
    scores: ModuleTap
    targets: Sequence[ModuleTap]
    """Calls of the modules by which the head computes its classification loss."""
    towers: Recorded
    """Calls of the layer whose features the teacher's head is given; of none where heads are not crossed."""


def loss_labels(tape: DenseTape, rows: MapRows,
                in_order: dict[str, int] | None = None) -> tuple[Tensor | None, str, dict[str, Tensor]]:
    """Labels that the student's own loss used.

    A loss that takes the rows in another order would give wrong labels without a sign: at every step some rows of each
    call are compared with the maps. Once a loss took its rows in order for :data:`STEPS_READ` steps, the result is not
    read any more, for which the host would wait, but given back.

    Args:
        in_order: Of each loss, by its tap's name, the steps in which it did, or :data:`REORDERED`; kept up to date
            here. Without one the result is always read.

    Returns:
        Labels, shape ``(n,)``, -1 where the weight is zero, or ``None``; why there are none; and what may have
        happened, as :attr:`ckd_mmdet.samples.Answer.faults`.
    """
    head, in_order = type(tape.head).__name__, {} if in_order is None else in_order
    called = [tap for tap in tape.targets if tap.calls]
    if not called:
        return None, f'its {head} calls no module `loss_cls`', {}
    calls, name = [call for tap in called for call in tap.calls], ' and '.join(tap.name for tap in called)
    reordered: tuple[None, str, dict] = None, f'its {head} reorders its rows before `loss_cls`, or leaves some out', {}
    differs = _differs([call.arg(0, 'pred', 'cls_score') for call in calls], rows)
    if differs is None or in_order.get(name) == REORDERED:
        return reordered
    read = in_order.get(name, 0) < STEPS_READ
    if read:
        in_order[name] = REORDERED if differs else in_order.get(name, 0) + 1
        if in_order[name] == REORDERED:
            return reordered
    labels = [_label(call) for call in calls]
    if any(label is None for label in labels):
        return None, f'its {head} has no whole number a row as target of `loss_cls`', {}
    return torch.cat(labels), '', {} if read else {_fault(head, name): differs}


def _fault(head: str, loss: str) -> str:
    return (f'expected {head} to give its rows to `{loss}` in the order of its maps, as in the first {STEPS_READ} '
            'steps, saw another order, so that the labels are those of other rows; take a selector and losses that '
            'need no labels, such as TeacherTopK with CKDLoss or KDLoss')


def _label(call: Call) -> Tensor | None:
    """Label of each row of a loss's call, -1 where its weight is zero; ``None`` if there is no whole number a row."""
    target, weight = call.arg(1, 'target', 'label'), call.get(2, 'weight', 'label_weight')
    label = target[0] if isinstance(target, tuple) else target  # GFL's second part is the quality
    if label.shape != call.arg(0, 'pred', 'cls_score').shape[:1] or label.is_floating_point():
        return None
    return label if weight is None else label.masked_fill(weight.reshape(len(label), -1).amax(1) <= 0, -1)


@torch.no_grad()
def _differs(parts: Sequence[Tensor], rows: MapRows) -> Tensor | None:
    """Whether the parts are other rows than all of ``rows`` in order, looked at in some of each; a bool, not read.

    ``None`` where they are by their shapes alone.
    """
    if any(part.ndim != 2 or part.shape[1] != rows.maps[0].shape[2] for part in parts):
        return None
    if sum(len(part) for part in parts) != len(rows):
        return None
    differ, start = [], 0
    for part in parts:
        probes = torch.linspace(0, max(len(part) - 1, 0), min(PROBES, len(part)), device=part.device).long()
        ours, theirs = part[probes], rows.as_given(start + probes).to(part.dtype)
        # a student that has diverged reorders nothing
        differ.append(((ours != theirs) & ~(ours.isnan() & theirs.isnan())).any())
        start += len(part)
    return torch.stack(differ).any()
