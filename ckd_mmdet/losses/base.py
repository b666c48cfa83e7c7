"""What every distillation loss is: rows or maps in, one weighted number out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar, Generic, TypeVar

import torch
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Widths, is_foreground
from torch import Tensor, nn

from .preview import Preview
from .weight import Weight

Aligned = TypeVar('Aligned', AlignedSamples, AlignedMaps)


class DistillLoss(nn.Module, ABC, Generic[Aligned]):
    """A loss between what student and teacher say of the same things.

    Its ``state_dict`` has what it learned, ``parts``, and what its balanced weight measured, ``weight``.

    Args:
        loss_weight: Factor, applied once, in :meth:`forward`: a number, a schedule by epochs, or ``'balance:0.5'``;
            see :class:`Weight`. ``0`` switches the loss off and keeps it in the graph.

    Raises:
        ValueError: If ``loss_weight`` is out of its range.
    """

    requires: frozenset[str]
    """What the aligner must provide, of ``{'logits', 'labels', 'image_ids', 'features', 'centers', 'boxes',
    'truths', 'distributions', 'valuable', 'masks',
    'regions'}``, or of ``{'maps', 'boxes'}``."""
    scorings: frozenset[str] = frozenset({'softmax', 'sigmoid', 'mixed'})
    """Kinds of heads between which it makes sense, see :class:`ckd_mmdet.samples.AlignedSamples`."""
    least_columns: int = 1
    """Fewest scores of a row that it can compare."""
    why_columns: ClassVar[str] = ''
    """Why, where it needs more than one."""
    needs_all_ranks: bool = False
    """Whether it looks at the rows of all ranks, see :attr:`ckd_mmdet.samples.AlignedSamples.joined`."""
    counts_positives: bool = False
    """Whether it is divided by :attr:`ckd_mmdet.samples.AlignedSamples.positives`, of all ranks."""
    renamed: ClassVar[Mapping[str, str]] = {}
    """Arguments of earlier versions, and what to write now."""

    def __init__(self, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__()
        self.weight = Weight.of(loss_weight, type(self).__name__)
        self.parts = nn.ModuleList()
        """All that it learns; names of parameters in it are numbers, ``weight`` and ``bias``, which no pattern of a
        user's ``paramwise_cfg`` is meant for. None before :meth:`build_parts`."""
        self.is_built = False

    def check(self, num_classes: int, background: bool) -> None:  # noqa: B027  most suit any number
        """Refuse what cannot teach anything; called once the classes are known that both models share.

        Args:
            num_classes: Number of foreground classes that they share.
            background: Whether rows have a score for background beside them.

        Raises:
            ValueError: If the loss would be the same for every student.
        """

    def build_parts(self, widths: Widths) -> None:
        """Make what the loss learns; called once, at build, before optimizer and EMA.

        Raises:
            ValueError: If the loss cannot compare maps or features of these widths.
            RuntimeError: If it was called before: the optimizer may hold the parts of then.
        """
        if self.is_built:
            raise RuntimeError(f'`{type(self).__name__}.build_parts` makes what the loss learns once, and was called '
                               'again; build another loss.')
        self.parts.extend(self.new_parts(widths))
        self.is_built = True

    def new_parts(self, widths: Widths) -> Sequence[nn.Module]:
        """What is learned, with numbers for names inside; nothing by default.

        Raises:
            ValueError: If the loss cannot compare maps or features of these widths.
        """
        return ()

    def check_built(self) -> None:
        """Raise ``RuntimeError`` before :meth:`build_parts`."""
        if not self.is_built:
            raise RuntimeError(f'`{type(self).__name__}` does not know the widths of what it compares yet: call '
                               '`build_parts(widths)` once, before training.')

    def metrics(self, aligned: Aligned, *, epoch: int) -> dict[str, Tensor]:
        """What may be logged beside the loss, scalars by names without ``loss``; ``epoch`` counts from 0."""
        return {}

    def forward(self, aligned: Aligned, *, epoch: int = 0) -> Tensor:
        """Give the weighted loss, shape ``()``; ``epoch`` counts from 0.

        Without rows, or with a weight of 0, it is 0 with a graph through the student and everything learned.
        """
        weight = self.weight.at(epoch)
        if not weight or not len(aligned):
            return zero_of([*self.parameters(), *self.of_student(aligned)])
        return weight * self.unweighted(aligned, epoch=epoch)

    @abstractmethod
    def unweighted(self, aligned: Aligned, *, epoch: int) -> Tensor:
        """The loss of at least one row or image, shape ``()``, float32."""

    @abstractmethod
    def of_student(self, aligned: Aligned) -> list[Tensor]:
        """The student's tensors."""


class RowLoss(DistillLoss[AlignedSamples]):
    """Mean of a loss that each row has.

    Rows to be ignored count for nothing. Of images in several views only the plain one counts, where not said
    otherwise.

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
        """The rows that the loss is of: without those to be ignored, and of the plain views where only they count."""
        rows = samples if self.all_views else samples.plain()
        if rows.filtered or rows.labels is None or rows.labels.ndim == 2:
            return rows
        return rows.select((rows.labels >= 0).nonzero().squeeze(1))

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


def given(part: Tensor | None, name: str, loss: DistillLoss) -> Tensor:
    """The tensor, where it is there.

    Raises:
        ValueError: If it is not.
    """
    if part is None:
        raise ValueError(f'`{type(loss).__name__}` needs `{name}` of the rows, got None; take an aligner that provides '
                         f'{sorted(loss.requires)}.')
    return part


def hard_labels(samples: AlignedSamples, loss: DistillLoss) -> Tensor:
    """Labels of rows that have one class each, shape ``(n,)``.

    Raises:
        ValueError: If there are none, or soft ones.
    """
    labels = given(samples.labels, 'labels', loss)
    if labels.ndim != 1:
        raise ValueError(f'`{type(loss).__name__}` needs one class a row, labels of shape ({len(samples)},), got soft '
                         f'ones of shape {tuple(labels.shape)}; leave mixup and CutMix out, or take a KDLoss.')
    return labels


def positives(samples: AlignedSamples, loss: DistillLoss) -> Tensor:
    """Number of rows with an object, over ranks on the average, at least 1; shape ``()``, float32."""
    if samples.positives is not None:
        return samples.positives.clamp(min=1)
    return is_foreground(hard_labels(samples, loss), samples.num_classes).sum().float().clamp(min=1)


def zero_of(tensors: Iterable[Tensor]) -> Tensor:
    """Zero with a graph to each of the tensors, whatever they hold: on no rank of a DDP run is one left out."""
    zeros = [(tensor if tensor.ndim else tensor[None])[:0].sum().float() for tensor in tensors]
    return torch.stack(zeros).sum() if zeros else torch.zeros(())


def feature_widths(widths: Widths, loss: DistillLoss) -> tuple[int, int]:
    """Widths of the student's and of the teacher's features."""
    if len(widths.student) != 1 or len(widths.teacher) != 1:
        raise ValueError(f'`{type(loss).__name__}` needs one width of features a side, got {list(widths.student)} of '
                         f'the student and {list(widths.teacher)} of the teacher; take an aligner of rows.')
    return widths.student[0], widths.teacher[0]


def in_full(part: nn.Module, rows: Tensor) -> Tensor:
    """What a learned part makes of rows, in its own precision: autocast would halve it."""
    with torch.autocast(rows.device.type, enabled=False):
        return part(rows.to(next(part.parameters()).dtype))
