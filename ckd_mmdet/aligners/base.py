"""What every aligner does: listen to the student, then ask the teacher."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from ckd_mmdet.boxes import Truths
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.samples import AlignedMaps, Answer, Widths
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


class Aligner(ABC):
    """Pairs row ``i`` of the student with row ``i`` of the teacher, or map with map.

    A wrong pairing never raises, it only trains to a lower mAP: every aligner is tested with a teacher that is a
    copy of the student, whose rows or maps must be equal.
    """

    provides: ClassVar[frozenset[str]]
    """What it gives to losses and selectors: of ``{'logits', 'labels', 'image_ids', 'level_ids', 'features',
    'centers', 'boxes', 'truths', 'distributions', 'valuable', 'masks', 'regions'}``, or ``{'maps', 'boxes'}``."""
    lacks: ClassVar[Mapping[str, str]] = {}
    """Why it cannot give some of them."""

    tells_views_apart: ClassVar[bool] = False
    """Whether it can tell the plain view of an image from its others."""

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        """How student and teacher write the scores of a row, where rows are paired; untrained models will do.

        Raises:
            ValueError: If the two models cannot be paired.
        """
        raise NotImplementedError

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        """Channels of the maps of student and teacher, or of the features of a row.

        Asked before training, where maps are paired or a loss needs features or centres.

        Raises:
            ValueError: If the two models cannot be paired.
        """
        raise NotImplementedError

    def check_boxes(self, student: nn.Module, teacher: nn.Module) -> None:  # noqa: B027  most provide none
        """Refuse heads whose boxes it cannot decode; asked before training, where a loss needs boxes of rows.

        Raises:
            ValueError: If one of the two has such a head.
        """

    def check_distributions(self, student: nn.Module, teacher: nn.Module) -> None:  # noqa: B027  most provide none
        """Refuse heads that do not predict where a box's edges are as distributions over as many bins.

        Raises:
            ValueError: If one of the two has such a head.
        """

    def check_masks(self, student: nn.Module, teacher: nn.Module) -> None:  # noqa: B027  most provide none
        """Refuse models without masks of rows; asked before training, where a loss needs them.

        Raises:
            ValueError: If one of the two has none.
        """

    def gives_labels(self, student: nn.Module) -> bool | None:
        """Whether the student's rows have labels; ``None`` where only training shows."""
        return 'labels' in self.provides

    def why_no_labels(self, student: nn.Module) -> str:
        """Why the student's rows have none, where :meth:`gives_labels` says so."""
        return f'the loss of a {type(student).__name__} gives its rows none (docs/supported.md has why)'

    def rows_in_words(self, student: nn.Module) -> str:
        """How many rows are paired, in words."""
        return 'one an object'

    def too_many_rows(self, student: nn.Module) -> str:
        """Why every row would be too many, where it would; else ''."""
        return ''

    @abstractmethod
    def listen(self, student: nn.Module) -> AbstractContextManager[Any]:
        """Record the student's own forward pass, inside the ``with`` only; it yields the tape for :meth:`ask`."""

    @abstractmethod
    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer | AlignedMaps:
        """Let the teacher answer for the rows that the student spoke of, or for the same maps.

        Args:
            teacher: The frozen teacher.
            feats: What the teacher's ``extract_feat`` gave for the batch, one ``(N, d, h, w)`` a level.
            tape: What :meth:`listen` recorded.
            data_samples: The batch's ground truth and meta information, ``N`` of them.
            classes: What student and teacher share, where the teacher numbers its classes differently or lacks some.

        Raises:
            RuntimeError: If the student's head behaves otherwise than the aligner needs.
        """


def true_boxes(data_samples: Sequence[BaseDataElement]) -> Truths:
    """The batch's objects."""
    truth = [sample.gt_instances for sample in data_samples]
    return Truths.of([get_box_tensor(one.bboxes) for one in truth], [one.labels for one in truth])
