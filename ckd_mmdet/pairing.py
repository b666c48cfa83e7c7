"""How a student's rows or maps and the teacher's are paired; made once, when models and class names are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from ckd_mmdet.alignment import Alignment, kind_of, pair_kind
from ckd_mmdet.classes import Scoring, SharedClasses, match_classes, shared_columns, shared_rows
from ckd_mmdet.functional import class_log_odds
from ckd_mmdet.recipes import as_commands, methods_for
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Answer, Candidates, Side, hard, is_foreground
from ckd_mmdet.teacher import FrozenTeacher
from ckd_mmdet.text import few, quoted
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


@dataclass(frozen=True)
class Pairing(ABC):
    """What an alignment compares; it does not change while the student trains."""

    alignment: Alignment

    def listen(self, student: nn.Module) -> AbstractContextManager[Any]:
        """Record the student's forward pass, inside the ``with`` only; yields the tape for :meth:`ask`."""
        return self.alignment.aligner.listen(student)

    @abstractmethod
    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any, data_samples: Sequence[BaseDataElement]
            ) -> tuple[AlignedSamples | AlignedMaps, Mapping[str, Tensor]]:
        """Let the teacher answer for what the student spoke of.

        Args:
            teacher: The frozen model.
            feats: What its ``extract_feat`` gave for the batch, one ``(N, d, h, w)`` a level.
            tape: What :meth:`listen` recorded.
            data_samples: The batch's ground truth and meta information, ``N`` of them.

        Returns:
            What the losses compare, and what must not be, see :attr:`ckd_mmdet.samples.Answer.faults`.

        Raises:
            RuntimeError: If the student's head behaves otherwise than the aligner needs.
        """


class MapPairing(Pairing):
    """Feature maps, level by level."""

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any, data_samples: Sequence[BaseDataElement]
            ) -> tuple[AlignedMaps, Mapping[str, Tensor]]:
        maps = self.alignment.aligner.ask(teacher, feats, tape, data_samples, None)
        assert isinstance(maps, AlignedMaps)  # as the aligner's `provides` says
        return maps, {}


@dataclass(frozen=True)
class RowPairing(Pairing):
    """Rows of class scores: which of them may be chosen, and the columns that mean the same on both sides.

    A row comes a short way: the aligner finds it on both sides, where it lies (:class:`Answer`); what must not count is
    filtered out (:meth:`allowed`); the selector chooses; and only then are the shared columns copied.

    Raises:
        ValueError: If the shared classes are too few for a loss.
    """

    scorings: tuple[Scoring, Scoring]
    """How student and teacher score a row."""
    classes: SharedClasses
    """What both know."""

    def __post_init__(self) -> None:
        columns = len(self.classes) + self.background
        for key, loss in self.alignment.losses.items():
            where = f'`alignments.{self.alignment.name}.losses.{key}`'
            if columns < loss.least_columns:
                aligner, kind = type(self.alignment.aligner).__name__, pair_kind(self.scorings)
                way_out = methods_for(aligner, kind, len(self.classes))
                raise ValueError(f'{where} is a {type(loss).__name__}, which needs rows of at least '
                                 f'{loss.least_columns} scores ({loss.why_columns}), and student and teacher share '
                                 f'{columns} only; take {as_commands([*way_out, "l2"])}.')
            try:
                loss.check(len(self.classes), self.background)
            except ValueError as error:
                raise ValueError(f'{where}: {error}') from error

    @property
    def background(self) -> bool:
        """Whether the last shared column is background's."""
        return all(scoring.background for scoring in self.scorings)

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any, data_samples: Sequence[BaseDataElement]
            ) -> tuple[AlignedSamples, Mapping[str, Tensor]]:
        same = self.classes == SharedClasses.all(self.scorings[1].num_classes)
        answer = self.alignment.aligner.ask(teacher, feats, tape, data_samples, None if same else self.classes)
        assert isinstance(answer, Answer)  # as the aligner's `provides` says
        return self.choose(answer), answer.faults

    def choose(self, answer: Answer) -> AlignedSamples:
        """The selector's rows, each with the scores of the shared classes.

        Raises:
            RuntimeError: If labels are needed and the student's head gives none.
        """
        labels = answer.labels
        if labels is None:
            self._check_no_labels(answer)
        else:
            labels = self.classes.labels(labels, self.scorings[0].num_classes)
        valuable = None
        if self.alignment.needing('valuable'):
            assert answer.valuable is not None  # as the aligner's `check_distributions` says
            valuable = answer.valuable()
        rows = self._select(answer, labels, valuable).nonzero().squeeze(1)  # the one wait for the device
        labels, image_ids, views = (None if part is None else part[rows]
                                    for part in (labels, answer.image_ids, answer.views))
        if answer.layers is None:
            self._check_no_features(len(rows))
        student, teacher = (self._side(answer, which, rows) for which in range(2))
        aligned = AlignedSamples(student, teacher, len(self.classes), labels, image_ids, kind_of(self.scorings), views,
                                 filtered=True, valuable=None if valuable is None else valuable[rows])
        if self.alignment.needing('regions'):
            assert answer.regions is not None  # as the aligner's `provides` says
            aligned = replace(aligned, regions=answer.regions[rows])
        if self.alignment.needing('distributions'):
            aligned = self._distributed(aligned, answer, rows)
        if self.alignment.needing('masks'):
            aligned = self._masked(aligned, answer, rows)
        return self._boxed(aligned, answer, rows) if self.alignment.needing('boxes') else aligned

    def _masked(self, aligned: AlignedSamples, answer: Answer, rows: Tensor) -> AlignedSamples:
        """The chosen rows with the masks of both sides, of the row's class."""
        assert answer.masks is not None and aligned.labels is not None  # as `check_masks` and `requires` say
        ours, theirs = (masks.take(rows, self._numbered(aligned.labels, which))
                        for which, masks in enumerate(answer.masks()))
        return replace(aligned, student=replace(aligned.student, masks=ours),
                       teacher=replace(aligned.teacher, masks=theirs))

    def _distributed(self, aligned: AlignedSamples, answer: Answer, rows: Tensor) -> AlignedSamples:
        """The chosen rows with the distributions of both sides' edges."""
        assert answer.boxes is not None  # as the aligner's `check_distributions` says
        ours, theirs = (boxes.distributions(rows) for boxes in answer.boxes)
        return replace(aligned, student=replace(aligned.student, distributions=ours),
                       teacher=replace(aligned.teacher, distributions=theirs.detach()))

    def _boxed(self, aligned: AlignedSamples, answer: Answer, rows: Tensor) -> AlignedSamples:
        """The chosen rows with the boxes of both sides, and where losses ask for it the true ones.

        Raises:
            RuntimeError: If a head has boxes of objects only, and nobody says which rows hold one.
        """
        assert answer.boxes is not None and answer.truths is not None  # as the aligner's `provides` says
        of_objects = any(boxes.of_objects for boxes in answer.boxes)
        if aligned.labels is None and of_objects:
            raise RuntimeError(f'`alignments.{self.alignment.name}` needs labels for boxes of RoIs, and this student '
                               f'gives none: {answer.no_labels}. Take losses that need no boxes here')
        classes = [None if aligned.labels is None else self._numbered(aligned.labels, which) for which in range(2)]
        with torch.no_grad():
            theirs = answer.boxes[1].take(rows, classes[1])
        truths = None
        if classes[0] is not None and self.alignment.needing('truths'):
            assert aligned.image_ids is not None  # every aligner gives them
            regions = theirs if answer.regions is None else answer.regions[rows]
            truths = answer.truths.nearest(regions, classes[0], aligned.image_ids)
        boxed = None
        if of_objects and aligned.labels is not None:
            boxed = is_foreground(aligned.labels, aligned.num_classes)
        return replace(aligned, student=replace(aligned.student, boxes=answer.boxes[0].take(rows, classes[0])),
                       teacher=replace(aligned.teacher, boxes=theirs), boxed=boxed, truths=truths)

    def _numbered(self, labels: Tensor, which: int) -> Tensor:
        """Labels as the student (0) or the teacher (1) numbers its classes; background becomes some class."""
        classes, labels = (self.classes.student, self.classes.teacher)[which], labels.clamp(max=len(self.classes) - 1)
        if classes == tuple(range(len(classes))):
            return labels
        return torch.tensor(classes).to(labels.device, non_blocking=True)[labels]

    def _select(self, answer: Answer, labels: Tensor | None, valuable: Tensor | None) -> Tensor:
        """The chosen rows, shape ``(n,)``, bool; ``labels`` are of the shared classes."""
        selector = self.alignment.selector
        confidence = answer.teacher.confidence(self.classes.teacher) if 'confidence' in selector.requires else None
        return selector(Candidates(self.allowed(answer, labels), len(self.classes), confidence,
                                   None if labels is None else hard(labels), answer.image_ids, answer.level_ids,
                                   valuable))

    @staticmethod
    def allowed(answer: Answer, labels: Tensor | None) -> Tensor:
        """Rows that may be chosen, shape ``(n,)``, bool.

        Not those to be ignored, nor those of an object that the teacher has no class for: it would say that this is
        background. A mixed image counts where the teacher knows all that is in it.
        """
        if labels is None:
            assert answer.image_ids is not None  # every aligner gives them
            return torch.ones_like(answer.image_ids, dtype=torch.bool)
        return labels >= 0 if labels.ndim == 1 else labels.sum(1) > 1 - 1e-3

    def _side(self, answer: Answer, which: int, rows: Tensor) -> Side:
        """What the student (0) or the teacher (1) says of the chosen rows, by shared classes."""
        writer = 1 if answer.crossed else which  # of the scores: a crossed head's are the teacher's
        scores, scoring = (answer.student, answer.teacher)[which], self.scorings[writer]
        classes = (self.classes.student, self.classes.teacher)[writer]
        whole = scores.take(rows)
        logits = shared_columns(whole, scoring, classes, self.background)
        if answer.layers is None:
            mixed = kind_of(self.scorings) == 'mixed' and scoring.softmax
            return Side(logits, log_odds=class_log_odds(whole)[:, list(classes)] if mixed else None)
        layer, other = answer.layers[which], answer.layers[1 - which]
        centers = shared_rows(layer.weight, scoring, classes, self.background)
        if layer.bias is None or other.bias is None:  # one has none: there is nothing to compare them with
            return Side(logits, layer.features[rows], centers)
        return Side(logits, layer.features[rows], centers, shared_rows(layer.bias, scoring, classes, self.background))

    def _check_no_labels(self, answer: Answer) -> None:
        needing = self.alignment.needing('labels')
        if needing:
            raise RuntimeError(f'`alignments.{self.alignment.name}` needs labels for {", ".join(needing)}, and this '
                               f'student gives none: {answer.no_labels}. Take a selector and losses that need only '
                               'logits, such as TeacherTopK with CKDLoss or KDLoss.')

    def _check_no_features(self, rows: int) -> None:
        needing = self.alignment.needing('features', 'centers')
        if needing and rows:
            raise RuntimeError(f'`alignments.{self.alignment.name}` needs features for {", ".join(needing)}, and one '
                               'of the heads gives other scores than its last layer; take losses of logits here')


def pair(alignment: Alignment, student: nn.Module, teacher: FrozenTeacher, classes: Sequence[str | None] | None
         ) -> Pairing:
    """Pair two models.

    Args:
        alignment: What is to be compared.
        student: The student.
        teacher: Its teacher.
        classes: Name of each of the student's classes, in the order of its scores; ``None`` where the data set has no
            names.

    Raises:
        ValueError: If the models or the classes cannot be paired.
    """
    scorings = alignment.check(student, teacher.model)
    if scorings is None:
        return MapPairing(alignment)
    shared = shared_classes(f'`alignments.{alignment.name}`', teacher, classes, scorings)
    return RowPairing(alignment, scorings, shared)


def shared_classes(where: str, teacher: FrozenTeacher, classes: Sequence[str | None] | None,
                   scorings: tuple[Scoring, Scoring]) -> SharedClasses:
    """The classes that student and teacher share: the same ones, or those that ``teacher.class_map`` pairs.

    Raises:
        ValueError: If names are missing, their number is not that of the scores, or they differ without a
            ``class_map``.
    """
    counts = tuple(scoring.num_classes for scoring in scorings)
    if counts == (1, 1):
        return SharedClasses.all(1)  # a class-agnostic head, an RPN's say, has no names
    if teacher.class_map is None:
        check_counts(where, scorings)
        _check_same(teacher, classes)
        return SharedClasses.all(counts[0])
    if classes is None or teacher.classes is None:
        whose = "the data set's `metainfo`" if classes is None else f'the teacher ({teacher.name})'
        raise ValueError(f'`teacher.class_map` needs class names, and {whose} has none; set `metainfo.classes` of '
                         'the training data set, or take a checkpoint that mmdet wrote.')
    for side, names, count in zip(('student', 'teacher'), (classes, teacher.classes), counts, strict=True):
        if count != len(names) and not (side == 'teacher' and count > len(names)):  # what has no name stays out
            raise ValueError(f'{where}: the {side} scores {count} classes, and {len(names)} have names '
                             f'({quoted(names)}); set `num_classes` of its head, or the names, so that they agree.')
    return match_classes(classes, teacher.classes, teacher.class_map)


def check_counts(where: str, scorings: tuple[Scoring, Scoring]) -> None:
    """Raise ``ValueError`` where the same classes are expected, and their numbers differ."""
    ours, theirs = scorings
    if ours.num_classes != theirs.num_classes:
        raise ValueError(f'{where} needs as many classes in the teacher ({theirs.num_classes}) as in the student '
                         f"({ours.num_classes}); pair them with `teacher.class_map='name'`, or give a teacher trained "
                         'on the same categories.')


def _check_same(teacher: FrozenTeacher, classes: Sequence[str | None] | None) -> None:
    taught = teacher.classes
    if classes is None or taught is None or tuple(classes) == taught:
        return
    differing = [f'{i}: {ours!r} in the data, {theirs!r} for the teacher'
                 for i, (ours, theirs) in enumerate(zip(classes, taught, strict=False)) if ours != theirs]
    raise ValueError(
        f'the teacher ({teacher.name}) knows other classes than the data set: '
        f'{len(taught)} against {len(classes)}; {few(differing, 5, "; ", total=False) or "the first ones agree"}. '
        "Pair them with `teacher.class_map='name'`, or give a teacher "
        'trained on the same categories in the same order.')
