"""One question to the teacher: what is paired, which of it counts, and the losses over it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.classes import SharedClasses, shared_columns, shared_rows
from ckd_mmdet.functional import agreement
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.losses.base import zero_of
from ckd_mmdet.registry import MODELS, TASK_UTILS, build_part
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Answer, Candidates, Side, Widths, hard, is_foreground
from ckd_mmdet.selectors import All, Chain, Selector
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


def build_alignment(name: str, cfg: dict) -> Alignment:
    """Build an alignment from its config, ``dict(aligner=..., losses=..., selector=..., teacher=...)``.

    Args:
        name: Its key in the config.
        cfg: ``aligner``, the config of an :class:`Aligner`; ``losses``, configs of losses by name, each of which
            contains ``loss``, or MMEngine would not add it up; ``selector``, the config of a :class:`Selector`, or a
            list of them, each choosing among the rows that the one before it left, every row by default; ``teacher``,
            its name where there are several.

    Raises:
        ValueError: If a part is unknown, a name is unfit, or a loss or selector needs what the aligner does not give.
    """
    if 'loss' in name or '.' in name:
        raise ValueError(f'`alignments` needs names without `loss` and without a dot, or its metrics would be added to '
                         f'the loss; got {name!r}.')
    where = f'`alignments.{name}'
    if not {'aligner', 'losses'} <= set(cfg) <= {'aligner', 'losses', 'selector', 'teacher'}:
        raise ValueError(f'{where}` needs the keys `aligner` and `losses`, and may have `selector` and `teacher`; '
                         f'got {sorted(cfg)}.')
    aligner = build_part(TASK_UTILS, cfg['aligner'], Aligner, f'{where}.aligner`')
    losses = _losses(cfg['losses'], where)
    if 'maps' not in aligner.provides:
        selector = _selector(cfg.get('selector'), f'{where}.selector`')
        return RowAlignment(name, aligner, losses, selector, cfg.get('teacher'))
    if cfg.get('selector') is not None:
        raise ValueError(f'{where}` pairs whole maps by a {type(aligner).__name__}, which a `selector` cannot choose '
                         "from; leave it out, or choose the maps with the aligner's `levels`.")
    return MapAlignment(name, aligner, losses, cfg.get('teacher'))


class Alignment(nn.Module, ABC):
    """Aligner and losses; built with the Distiller, it then meets both models.

    Args:
        name: The alignment's key in the config, for errors.
        aligner: Pairs what the two models say.
        losses: Over what was paired, by name.
        teacher: Name of the teacher that is asked, where there are several.

    Raises:
        ValueError: If a loss needs what the aligner does not give.
    """

    def __init__(self, name: str, aligner: Aligner, losses: nn.ModuleDict, teacher: str | None = None) -> None:
        super().__init__()
        self.name = name
        self.aligner = aligner
        self.losses = losses
        self.teacher = teacher
        for loss in losses.values():
            self._check_fits(loss)

    def _check_fits(self, part: DistillLoss | Selector) -> None:
        lacking = part.requires - self.aligner.provides
        if lacking:
            why = ''.join(f' ({reason})' for what, reason in self.aligner.lacks.items() if what in lacking)
            raise ValueError(f'`alignments.{self.name}` pairs a {type(part).__name__}, which requires '
                             f'{sorted(lacking)}, with a {type(self.aligner).__name__}, which provides '
                             f'{sorted(self.aligner.provides)} only{why}; take another loss, selector or aligner.')

    @abstractmethod
    def meet(self, student: nn.Module, teacher: nn.Module, class_map: bool) -> None:
        """Check that the two models can be paired, before training, and make what the losses learn.

        Args:
            student: The student's detector.
            teacher: The teacher's.
            class_map: Whether the classes are paired later, by :meth:`share`, when the data set's names are known.

        Raises:
            ValueError: If they cannot, or if a loss makes no sense for what the two say.
        """

    def share(self, shared: SharedClasses) -> None:  # noqa: B027  maps know no classes
        """Distil these classes only.

        Raises:
            ValueError: If they are too few for a loss.
        """

    @abstractmethod
    def align(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any,
              data_samples: Sequence[BaseDataElement]) -> AlignedSamples | AlignedMaps:
        """Ask the teacher, as :meth:`Aligner.ask` does, and keep what counts.

        Raises:
            RuntimeError: If the student's head behaves otherwise than is needed.
        """

    def forward(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int) -> dict[str, Tensor]:
        """Losses over what was paired, and what is logged beside them."""
        logged = {f'{name}_{bare_name(key)}': value for key, loss in self.losses.items()
                  for name, value in loss.metrics(aligned, epoch=epoch).items()}
        return {**{key: loss(aligned, epoch=epoch) for key, loss in self.losses.items()}, **self.metrics(aligned),
                **logged}

    @abstractmethod
    def metrics(self, aligned: AlignedSamples | AlignedMaps) -> dict[str, Any]:
        """What is logged beside the losses, by names without ``loss``."""

    def _build_parts(self, widths: Widths) -> None:
        with torch.random.fork_rng(devices=[]):  # with one seed, the student's own weights are those of it alone
            for key, loss in self.losses.items():
                try:
                    loss.build_parts(widths)
                except ValueError as error:
                    raise ValueError(f'`alignments.{self.name}.losses.{key}`: {error}') from error

    def rests(self, epoch: int) -> bool:
        """Whether every loss is over: the teacher need not be asked any more."""
        return all(loss.weight.rests(epoch) for loss in self.losses.values())

    def resting(self, device: torch.device) -> dict[str, Tensor]:
        """The losses of a rest: 0 with a graph through what they learned, so that DDP misses none of it."""
        return {key: torch.zeros((), device=device) + zero_of(loss.parameters()) for key, loss in self.losses.items()}


class RowAlignment(Alignment):
    """Rows of class scores, of which a selector chooses some."""

    def __init__(self, name: str, aligner: Aligner, losses: nn.ModuleDict, selector: Selector,
                 teacher: str | None = None) -> None:
        super().__init__(name, aligner, losses, teacher)
        self.select = selector
        self._check_fits(selector)

    def meet(self, student: nn.Module, teacher: nn.Module, class_map: bool) -> None:
        self.scorings = self.aligner.check(student, teacher)
        if isinstance(self.select, All):
            self.aligner.check_without_selector(student, f'`alignments.{self.name}`')
        ours, theirs = self.scorings
        self.background = ours.background and theirs.background
        if ours.softmax == theirs.softmax:
            self.scoring = 'softmax' if ours.softmax else 'sigmoid'
        else:
            self.scoring = 'mixed'
        way_out = ('take a loss that compares directions only, such as CKDLoss' if self.scoring == 'mixed' else
                   'take a CKDLoss or a plain KDLoss')
        for key, loss in self.losses.items():
            if self.scoring not in loss.scorings:
                raise ValueError(f'`alignments.{self.name}.losses.{key}` is a {type(loss).__name__}, which makes no '
                                 f'sense between a student with {ours} and a teacher with {theirs}; {way_out}.')
        if self._needing('features', 'centers'):
            self._build_parts(self.aligner.widths(student, teacher))
        self.shared: SharedClasses | None = None
        if not class_map:
            if ours.num_classes != theirs.num_classes:
                raise ValueError(f'`alignments.{self.name}` needs as many classes in the teacher '
                                 f'({theirs.num_classes}) as in the student ({ours.num_classes}); pair them with '
                                 "`teacher.class_map='name'`, or give a teacher trained on the same categories.")
            self.share(SharedClasses.all(ours.num_classes))

    def share(self, shared: SharedClasses) -> None:
        if self.scorings[0].num_classes == self.scorings[1].num_classes == 1:
            shared = SharedClasses.all(1)  # a class-agnostic head, an RPN's say, knows no names
        columns = len(shared) + self.background
        for key, loss in self.losses.items():
            if columns < loss.least_columns:
                raise ValueError(f'`alignments.{self.name}.losses.{key}` is a {type(loss).__name__}, which needs rows '
                                 f'of at least {loss.least_columns} scores, and student and teacher share {columns} '
                                 'only; take a KDLoss here.')
        self.shared = shared
        self.aligner.shared = None if shared == SharedClasses.all(self.scorings[1].num_classes) else shared

    def align(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any,
              data_samples: Sequence[BaseDataElement]) -> AlignedSamples:
        return self.choose(self.aligner.ask(teacher, feats, tape, data_samples))

    def choose(self, answer: Answer) -> AlignedSamples:
        """The selector's rows, each with the scores of the shared classes.

        Raises:
            RuntimeError: If labels are needed and the student's head gives none.
        """
        if self.shared is None:
            raise RuntimeError("`teacher.class_map` pairs classes by name, and the data set's names are not known yet: "
                               'train through the Runner with `DistillHook`, or call `Distiller.share(...)`.')
        labels = answer.labels
        if labels is None:
            self._check_no_labels(answer)
        else:
            labels = self.shared.labels(labels, self.scorings[0].num_classes)
        rows = self.select(Candidates(answer.teacher.confidence(self.shared.teacher), len(self.shared),
                                      None if labels is None else hard(labels), answer.image_ids, answer.level_ids))
        if labels is not None:
            rows = rows[self._known(labels[rows])]
        student, teacher = (self._side(answer, which, rows) for which in range(2))
        labels, image_ids, views = (None if part is None else part[rows]
                                    for part in (labels, answer.image_ids, answer.views))
        return AlignedSamples(student, teacher, len(self.shared), labels, image_ids, self.scoring, views)

    def _known(self, labels: Tensor) -> Tensor:
        """Which rows do not hold an object that the teacher has no class for: it would say that it is background."""
        return labels != -2 if labels.ndim == 1 else labels.sum(1) > 1 - 1e-3

    def _side(self, answer: Answer, which: int, rows: Tensor) -> Side:
        """What the student (0) or the teacher (1) says of the chosen rows, by shared classes."""
        scores, scoring = (answer.student, answer.teacher)[which], self.scorings[which]
        classes = (self.shared.student, self.shared.teacher)[which]
        logits = shared_columns(scores.take(rows), scoring, classes, self.background)
        if answer.layers is None:
            needing = self._needing('features', 'centers')
            if needing and len(rows):
                raise RuntimeError(f'`alignments.{self.name}` needs features for {", ".join(needing)}, and one of the '
                                   'heads gives other scores than its last layer; take losses of logits here')
            return Side(logits)
        layer = answer.layers[which]
        centers = shared_rows(layer.weight, scoring, classes, self.background)
        if any(one.bias is None for one in answer.layers):  # one has none: there is nothing to compare them with
            return Side(logits, layer.features[rows], centers)
        return Side(logits, layer.features[rows], centers, shared_rows(layer.bias, scoring, classes, self.background))

    def _needing(self, *what: str) -> list[str]:
        """Selector and losses that need one of these."""
        return [type(part).__name__ for part in (self.select, *self.losses.values()) if part.requires & set(what)]

    def _check_no_labels(self, answer: Answer) -> None:
        needing = self._needing('labels')
        if needing:
            raise RuntimeError(f'`alignments.{self.name}` needs labels for {", ".join(needing)}, and this student '
                               f'gives none: {answer.no_labels}. Take a selector and losses that need only logits, '
                               'such as TeacherTopK with CKDLoss or KDLoss.')

    def metrics(self, aligned: AlignedSamples) -> dict[str, Any]:
        plain = aligned.plain()
        accuracy = {} if plain.labels is None else dict(teacher_accuracy=_accuracy(plain))
        return {**agreement(plain.student.logits, plain.teacher.logits), **accuracy}

    def resting(self, device: torch.device) -> dict[str, Tensor]:
        return {**super().resting(device), 'rows': torch.zeros((), device=device)}


class MapAlignment(Alignment):
    """Feature maps, level by level."""

    def meet(self, student: nn.Module, teacher: nn.Module, class_map: bool) -> None:
        self._build_parts(self.aligner.widths(student, teacher))

    def align(self, teacher: nn.Module, feats: Sequence[Tensor], tape: Any,
              data_samples: Sequence[BaseDataElement]) -> AlignedMaps:
        return self.aligner.ask(teacher, feats, tape, data_samples)

    def metrics(self, aligned: AlignedMaps) -> dict[str, Any]:
        return {}


def _losses(configs: dict[str, dict], where: str) -> nn.ModuleDict:
    if not configs:
        raise ValueError(f'{where}.losses` needs at least one loss; to train the student alone, leave the '
                         'alignment out.')
    losses = nn.ModuleDict()
    for key, cfg in configs.items():
        if 'loss' not in key or '.' in key:
            raise ValueError(f'{where}.losses` needs names that contain `loss` and no dot, or it would not be '
                             f'added up; got {key!r}, call it {"loss_" + key.replace(".", "_")!r}.')
        losses[key] = build_part(MODELS, cfg, DistillLoss, f'{where}.losses.{key}`')
    return losses


def _selector(cfg: dict | list[dict] | None, where: str) -> Selector:
    if cfg is None:
        return All()
    if isinstance(cfg, list | tuple):
        parts = [build_part(TASK_UTILS, part, Selector, f'{where}[{i}]') for i, part in enumerate(cfg)]
        return All() if all(isinstance(part, All) for part in parts) else Chain(parts)
    return build_part(TASK_UTILS, cfg, Selector, where)


def _accuracy(aligned: AlignedSamples) -> Tensor:
    """Share of the foreground rows whose label is the teacher's greatest score; 0 without foreground."""
    labels = hard(aligned.labels)
    foreground = is_foreground(labels, aligned.num_classes)
    found = aligned.teacher.logits.argmax(1) == labels
    return (found & foreground).sum() / foreground.sum().clamp(min=1)


def bare_name(key: str) -> str:
    """Give a loss's name without ``loss``: MMEngine would add up whatever has it."""
    return key.replace('loss', '').strip('_')
