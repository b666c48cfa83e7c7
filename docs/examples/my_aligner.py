"""An aligner: the mean of each level's feature map, whatever the strides of the two models are."""

from __future__ import annotations

from collections.abc import Sequence

from ckd_mmdet.aligners import Aligner, features_of, levels_of
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedMaps, Widths
from ckd_mmdet.taps import ModuleTap
from torch import Tensor, nn


@TASK_UTILS.register_module()
class PooledAligner(Aligner):
    """Pairs the mean over each level's map, shape ``(N, d, 1, 1)``, of two detectors with an FPN."""

    provides = frozenset({'maps'})

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        ours, theirs = student.neck, teacher.neck
        if ours.num_outs != theirs.num_outs:
            raise ValueError(f'`PooledAligner` needs as many levels in the teacher ({theirs.num_outs}) as in the '
                             f'student ({ours.num_outs}); set `num_outs` of the student.')
        return Widths((ours.out_channels,) * ours.num_outs, (theirs.out_channels,) * theirs.num_outs)

    def listen(self, student: nn.Module) -> ModuleTap:
        return features_of(student)  # records inside the `with` only

    def ask(self, teacher, feats, tape: ModuleTap, data_samples, classes=None) -> AlignedMaps:
        return AlignedMaps(pooled(levels_of(tape.only().output)), [level.detach() for level in pooled(feats)])


def pooled(levels: Sequence[Tensor]) -> list[Tensor]:
    return [level.mean((2, 3), keepdim=True) for level in levels]
