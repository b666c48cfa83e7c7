"""What every distillation loss is: rows or maps in, one weighted number out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Widths
from torch import Tensor, nn

from .preview import Preview
from .weight import Weight


class DistillLoss(nn.Module, ABC):
    """A loss between what student and teacher say of the same things.

    Args:
        loss_weight: Factor, applied once, in :meth:`forward`: a number, a schedule by epochs, or ``'balance:0.5'``;
            see :class:`Weight`. ``0`` switches the loss off and keeps it in the graph.

    Raises:
        ValueError: If ``loss_weight`` is out of its range.
    """

    requires: ClassVar[frozenset[str]]
    """What the aligner must provide, of ``{'logits', 'labels', 'image_ids', 'features', 'centers', 'maps'}``."""
    scorings: ClassVar[frozenset[str]] = frozenset({'softmax', 'sigmoid', 'mixed'})
    """Kinds of heads between which it makes sense, see :class:`ckd_mmdet.samples.AlignedSamples`."""
    least_columns: ClassVar[int] = 1
    """Fewest scores of a row that it can compare."""

    def __init__(self, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__()
        self.weight = Weight.of(loss_weight, type(self).__name__)

    def build_parts(self, widths: Widths) -> None:  # noqa: B027  most learn nothing
        """Make what the loss learns; called once, at build, before optimizer and EMA.

        Raises:
            ValueError: If the loss cannot compare maps or features of these widths.
        """

    def metrics(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int) -> dict[str, Tensor]:
        """What may be logged beside the loss, scalars by names without ``loss``; ``epoch`` counts from 0."""
        return {}

    def forward(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int = 0) -> Tensor:
        """Give the weighted loss, shape ``()``; ``epoch`` counts from 0.

        Without rows, or with a weight of 0, it is 0 with a graph through the student and everything learned.
        """
        weight = self.weight.at(epoch)
        if not weight or not len(aligned):
            return zero_of([*self.parameters(), *self.of_student(aligned)])
        return weight * self.unweighted(aligned, epoch=epoch)

    @abstractmethod
    def unweighted(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int) -> Tensor:
        """The loss of at least one row or image, shape ``()``, float32."""

    @abstractmethod
    def of_student(self, aligned: AlignedSamples | AlignedMaps) -> list[Tensor]:
        """The student's tensors."""


class RowLoss(DistillLoss):
    """Mean of a loss that each row has; of images in several views only the plain one counts, where not said otherwise.

    Args:
        loss_weight: See :class:`DistillLoss`.
        preview: ``dict(base=1.005)`` lets rows that are hard for the student count little as yet, see :class:`Preview`;
            ``None``: every row counts in full.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits'})
    all_views: ClassVar[bool] = False
    """Whether every view of an image counts."""

    def __init__(self, loss_weight: float | str | Mapping = 1.0, preview: Mapping | None = None) -> None:
        super().__init__(loss_weight)
        self.preview = Preview.of(preview, type(self).__name__)
        if self.preview is not None:
            self.requires = self.requires | {'labels'}
            self.scorings = self.scorings - {'mixed'}  # nobody says which side is whose, nor has it a background

    def forward(self, aligned: AlignedSamples, *, epoch: int = 0) -> Tensor:
        return super().forward(self.counted(aligned), epoch=epoch)

    def counted(self, samples: AlignedSamples) -> AlignedSamples:
        """The rows that the mean is over."""
        return samples if self.all_views else samples.plain()

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        return self.previewed(aligned, epoch=epoch).mean()

    def previewed(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        """Loss of each row times its preview weight, shape ``(n,)``."""
        rows = self.per_sample(samples, epoch=epoch)
        return rows if self.preview is None else self.preview.weights(samples, epoch) * rows

    def metrics(self, aligned: AlignedSamples, *, epoch: int) -> dict[str, Tensor]:
        return {} if self.preview is None else self.preview.metrics(self.counted(aligned), epoch)

    def of_student(self, aligned: AlignedSamples) -> list[Tensor]:
        return aligned.student.tensors()

    @abstractmethod
    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        """Loss of each row, shape ``(n,)``, ``n >= 1``."""


def labelled(samples: AlignedSamples, loss: DistillLoss) -> AlignedSamples:
    """The rows whose label is not negative.

    Raises:
        ValueError: If labels are soft.
    """
    check_hard(samples, loss)
    return samples.select((samples.labels >= 0).nonzero().squeeze(1))


def check_hard(samples: AlignedSamples, loss: DistillLoss) -> None:
    """Raise ``ValueError`` where a row has no class of its own."""
    if samples.labels.ndim != 1:
        raise ValueError(f'`{type(loss).__name__}` needs one class a row, labels of shape ({len(samples)},), got soft '
                         f'ones of shape {tuple(samples.labels.shape)}; leave mixup and CutMix out, or take a KDLoss.')


def zero_of(tensors: Iterable[Tensor]) -> Tensor:
    """Zero with a graph to each of the tensors, whatever they hold: on no rank of a DDP run is one left out."""
    return sum(torch.atleast_1d(tensor)[:0].sum().float() for tensor in tensors)
