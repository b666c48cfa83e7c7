"""Masks of RoIs: the teacher's mask head on those of the student's RoIs that hold an object."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from ckd_mmdet.masks import MaskRows
from ckd_mmdet.taps import ModuleTap
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from torch import Tensor, nn

KNOWN = (StandardRoIHead._mask_forward, CascadeRoIHead._mask_forward)
"""How a RoI head may make its masks: from its RoIs and the neck's maps alone. HTC and SCNet look at more."""


@dataclass(frozen=True)
class MaskTape:
    """What the student's mask head was given, and said, in one step."""

    rois: ModuleTap
    masks: ModuleTap


@dataclass(frozen=True)
class MaskBranch:
    """The mask branch of a RoI head, or of one of its stages."""

    extractor: nn.Module
    head: nn.Module

    @classmethod
    def of(cls, model: nn.Module, stage: int | None) -> MaskBranch | None:
        """``None`` where there is none, or one that is not read here."""
        roi_head = model.roi_head
        if (not getattr(roi_head, 'with_mask', False) or type(roi_head)._mask_forward not in KNOWN
                or getattr(roi_head, 'share_roi_extractor', False)):
            return None
        parts = roi_head.mask_roi_extractor, roi_head.mask_head
        if isinstance(parts[1], nn.ModuleList):
            assert stage is not None  # as the aligner has seen
            return cls(parts[0][stage], parts[1][stage])
        return cls(*parts)

    @property
    def size(self) -> tuple[int, ...] | None:
        """Height and width of its masks in pixels; ``None`` where the head does not say."""
        if type(self.head) is not FCNMaskHead:
            return None
        factor = self.head.scale_factor if self.head.upsample_method else 1
        return tuple(factor * side for side in self.extractor.roi_layers[0].output_size)

    def masks(self, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Logits ``(k, c, h, w)`` of RoIs ``(k, 5)``."""
        masks: Tensor = self.head(self.extractor(feats[:self.extractor.num_inputs], rois))
        return masks

    @contextmanager
    def recording(self) -> Iterator[MaskTape]:
        """Record its calls within the ``with``."""
        with ModuleTap(self.extractor, 'roi_head.mask_roi_extractor') as rois, \
                ModuleTap(self.head, 'roi_head.mask_head') as masks:
            yield MaskTape(rois, masks)


def check_branches(student: nn.Module, teacher: nn.Module, stage: int | None) -> None:
    """Refuse models without masks that can be compared.

    Raises:
        ValueError: If one of the two has none, or they have other sizes.
    """
    sizes = []
    for model, side in ((student, 'student'), (teacher, 'teacher')):
        branch, name = MaskBranch.of(model, stage), type(model.roi_head).__name__
        if branch is None:
            fact = (f'makes them in a way of its own in its {name}' if getattr(model.roi_head, 'with_mask', False)
                    else f'has no mask head in its {name}')
            raise ValueError(f'`RoIAligner` compares masks of Mask R-CNN and its kin, and the {side} {fact}; take '
                             '`--method features` or `--method boxes`.')
        sizes.append(branch.size)
    if None not in sizes and sizes[0] != sizes[1]:
        raise ValueError(f'`RoIAligner` compares masks of equal height and width, and those of the student have '
                         f"{sizes[0]}, the teacher's {sizes[1]}; take `--method features` or `--method boxes`.")


def paired_masks(tape: MaskTape, teacher: MaskBranch, feats: Sequence[Tensor], rois: Tensor, positive: Tensor
                 ) -> tuple[MaskRows, MaskRows]:
    """Masks of student and teacher for the student's RoIs that hold an object.

    Args:
        tape: What the student's mask head said.
        teacher: The teacher's branch.
        feats: Features of its neck, one ``(N, d, h, w)`` a level.
        rois: All RoIs of the student, shape ``(n, 5)``.
        positive: Which of them hold an object, shape ``(n,)``, bool.

    Raises:
        RuntimeError: If the student's mask head was given other RoIs than those, in their order, or the teacher's
            masks are of another size.
    """
    given, ours = tape.rois.only().arg(1, 'rois'), tape.masks.only().output
    order = (positive.cumsum(0) - 1).clamp(min=0, max=max(len(given) - 1, 0))
    # the rows have been waited for: there is nothing left on the device
    if int(positive.sum()) != len(given) or not torch.equal(given, rois[positive]):
        raise RuntimeError(f'expected {tape.masks.name} to be given the RoIs that hold an object, in their order, saw '
                           f'{len(given)} others; leave losses of masks out here')
    with torch.no_grad():
        theirs = teacher.masks(feats, given)
    if theirs.shape[2:] != ours.shape[2:]:
        raise RuntimeError(f"expected the teacher's masks to have the student's height and width, "
                           f'{tuple(ours.shape[2:])}, saw {tuple(theirs.shape[2:])}; leave losses of masks out here')
    return MaskRows(ours, order), MaskRows(theirs, order)
