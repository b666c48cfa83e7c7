"""Losses between feature maps, level by level."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from ckd_mmdet.functional import cwd_loss, l2_loss, pkd_loss
from ckd_mmdet.functional.checks import positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor, nn

from .base import DistillLoss
from .regions import Region


class MapLoss(DistillLoss[AlignedMaps]):
    """Sum over the levels of the mean of a loss that each image has.

    The student's maps are brought to the teacher's width first, by a 1x1 convolution a level that is learned with the
    student and not needed after it. Under autocast it may compute in half precision, the loss computes in float32.

    Args:
        project: Whether to learn it: ``None`` where the widths differ, ``True`` on every level, ``False`` on none.
        loss_weight: Factor of the sum.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'maps'})

    def __init__(self, project: bool | None = None, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(loss_weight)
        if project is not None and not isinstance(project, bool):
            raise ValueError(f'`{type(self).__name__}` needs a `project` of None, True or False, got {project!r}.')
        self.project = project

    @property
    def projectors(self) -> nn.ModuleList:
        """One a level, from the student's maps to the teacher's width; none before :meth:`build_parts`."""
        return self.parts

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        if len(widths.student) != len(widths.teacher) or not widths.student:
            raise ValueError(f'`{type(self).__name__}` needs as many levels of the student as of the teacher, at least '
                             f'one, got {len(widths.student)} and {len(widths.teacher)}; choose levels that both have.')
        return [self.projector(level, widths) for level in range(len(widths.student))]

    def projector(self, level: int, widths: Widths) -> nn.Module:
        """What is learned on a level.

        Raises:
            ValueError: If the widths differ and nothing is to be learned.
        """
        student, teacher = widths.student[level], widths.teacher[level]
        if self.project or (self.project is None and student != teacher):
            return nn.Conv2d(student, teacher, 1)
        if student != teacher:
            raise ValueError(f'`{type(self).__name__}` with `project=False` needs maps of one width, got {student} '
                             f'channels of the student and {teacher} of the teacher on level {level}; take '
                             '`project=None`, which learns a 1x1 convolution between them.')
        return nn.Identity()

    def unweighted(self, aligned: AlignedMaps, *, epoch: int) -> Tensor:
        self.check_built()
        levels = len(self.projectors), len(aligned.student), len(aligned.teacher)
        if len(set(levels)) > 1:
            raise ValueError(f'`{type(self).__name__}` was built for {levels[0]} levels, got {levels[1]} of the '
                             f'student and {levels[2]} of the teacher; give the levels whose widths it was built for.')
        pairs = zip(self.projected(aligned.student), aligned.teacher, strict=True)
        return torch.stack([self.per_image(level, student, teacher, aligned).mean()
                            for level, (student, teacher) in enumerate(pairs)]).sum()

    def of_student(self, aligned: AlignedMaps) -> list[Tensor]:
        return list(aligned.student)

    def projected(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The student's maps in the teacher's width, shape ``(N, d_t, h, w)`` each."""
        return [projector(level) for projector, level in zip(self.projectors, maps, strict=True)]

    @abstractmethod
    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        """Loss of each image on one level, shape ``(N,)``, ``N >= 1``, float32.

        Args:
            level: Which one, from 0.
            student: The student's maps in the teacher's width, shape ``(N, d_t, h, w)``.
            teacher: The teacher's, of the same shape.
            aligned: All levels, and what is known of the images.
        """


@MODELS.register_module()
class L2Loss(MapLoss):
    """Mean squared difference of the maps, summed over the levels (the hint of FitNet, arXiv 1412.6550).

    Args:
        project: As of :class:`MapLoss`.
        region: Which places count: ``None``, all of them; ``'gt'``, ``'fine'`` or ``'decoupled'``, those of the true
            objects, see :class:`ckd_mmdet.losses.regions.Region`.
        background: Weight of the other places beside them, at least 0; of ``'decoupled'`` alone, 4 by default.
        loss_weight: Factor of the sum. FGFI's 0.01, of sums over the channels, is 0.005 times their number here;
            DeFeat's 3 and 12 for necks on VOC are 1.5.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, project: bool | None = None, region: str | None = None, background: float | None = None,
                 loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(project, loss_weight)
        self.region = Region(region, background, 'L2Loss')
        if region is not None:
            self.requires = self.requires | {'boxes'}

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        return l2_loss(student, teacher, self.region.weights(aligned, level))


@MODELS.register_module()
class PKDLoss(MapLoss):
    """Lack of correlation of each channel with the teacher's, summed over the levels (PKD, arXiv 2207.02039).

    It is of the images of one process together: under DDP the loss is the mean of the ranks' own values, not the value
    of the joined batch. Scale and offset of a channel do not count, so that it suits a teacher of another architecture.
    Mean and spread of a channel are of all places, whatever the ``region``.

    Args:
        project: As of :class:`MapLoss`.
        region: Which places count: ``None``, all of them; ``'gt'``, ``'fine'`` or ``'decoupled'``, those of the true
            objects, see :class:`ckd_mmdet.losses.regions.Region`.
        background: Weight of the other places beside them, at least 0; of ``'decoupled'`` alone, 4 by default.
        loss_weight: Factor of the sum.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, project: bool | None = None, region: str | None = None, background: float | None = None,
                 loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(project, loss_weight)
        self.region = Region(region, background, 'PKDLoss')
        if region is not None:
            self.requires = self.requires | {'boxes'}

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        return pkd_loss(student, teacher, self.region.weights(aligned, level))


@MODELS.register_module()
class CWDLoss(MapLoss):
    """Divergence of where each channel is active, summed over the levels (CWD, arXiv 2011.13256).

    Args:
        temperature: Of the softmax over the places, greater than 0; 1 as released.
        project: As of :class:`MapLoss`.
        loss_weight: Factor of the sum; 10 as in mmrazor, for five levels.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, temperature: float = 1.0, project: bool | None = None,
                 loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(project, loss_weight)
        positive(temperature, 'temperature', 'CWDLoss')
        self.temperature = temperature

    def per_image(self, level: int, student: Tensor, teacher: Tensor, aligned: AlignedMaps) -> Tensor:
        return cwd_loss(student, teacher, self.temperature)
