"""One question to the teacher, as the config asks it: what is compared, which rows of it, by which losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner, is_classifier
from ckd_mmdet.classes import Scoring
from ckd_mmdet.functional import agreement
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.losses.base import zero_of
from ckd_mmdet.recipes import as_commands, methods_for
from ckd_mmdet.registry import MODELS, TASK_UTILS, build_part
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, hard, is_foreground
from ckd_mmdet.selectors import All, Chain, Selector
from torch import Tensor, nn


class Alignment:
    """Aligner, selector and losses of one entry of ``alignments``; whole once it is built.

    Args:
        name: Its key in the config, without ``loss`` and without a dot, or MMEngine would add up what it logs.
        aligner: Config of an :class:`Aligner`: what of the two models is compared.
        losses: Configs of losses by name, each of which contains ``loss``, or MMEngine would not add it up.
        selector: Config of a :class:`Selector`, or a list of them, each choosing among the rows that the one before it
            left; every row by default. Whole maps have none.
        teacher: Name of the teacher that is asked, where there are several.

    Raises:
        ValueError: If a part is unknown, a name is unfit, or a loss or selector needs what the aligner does not give.
    """

    def __init__(self, name: str, aligner: dict, losses: Mapping[str, dict], selector: dict | list[dict] | None = None,
                 teacher: str | None = None) -> None:
        if 'loss' in name or '.' in name:
            raise ValueError('`alignments` needs names without `loss` and without a dot, or its metrics would be added '
                             f'to the loss; got {name!r}.')
        where = f'`alignments.{name}'
        self.name = name
        self.teacher = teacher
        self.aligner: Aligner = build_part(TASK_UTILS, aligner, Aligner, f'{where}.aligner`')
        self.losses = _losses(losses, where)
        self.of_maps = 'maps' in self.aligner.provides
        if self.of_maps and selector is not None:
            raise ValueError(f'{where}` pairs whole maps by a {type(self.aligner).__name__}, which a `selector` cannot '
                             "choose from; leave it out, or choose the maps with the aligner's `levels`.")
        self.selector = _selector(selector, f'{where}.selector`')
        self._check_parts()

    def _check_parts(self) -> None:
        provides = self.aligner.provides | {'confidence'}
        parts: list[DistillLoss | Selector] = [*self.losses.values(), self.selector]
        for part in parts:
            lacking = part.requires - provides
            if lacking:
                why = ''.join(f' ({reason})' for what, reason in self.aligner.lacks.items() if what in lacking)
                raise ValueError(f'`alignments.{self.name}` pairs a {type(part).__name__}, which requires '
                                 f'{sorted(lacking)}, with a {type(self.aligner).__name__}, which provides '
                                 f'{sorted(self.aligner.provides)} only{why}; take another loss, selector or aligner.')

    def needing(self, *what: str) -> list[str]:
        """Selector and losses that need one of these, by the names of their classes."""
        parts: list[DistillLoss | Selector] = [self.selector, *self.losses.values()]
        return [type(part).__name__ for part in parts if part.requires & set(what)]

    def check(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring] | None:
        """How the two models score a row, ``None`` of maps; untrained models will do.

        Raises:
            ValueError: If they cannot be paired, or a loss makes no sense for what the two say.
        """
        if self.of_maps:
            self.aligner.widths(student, teacher)
            needing = self.needing('boxes')
            if needing and is_classifier(student):
                raise ValueError(f'`alignments.{self.name}` needs boxes of objects for {", ".join(needing)}, and a '
                                 f'{type(student).__name__} classifies whole images; take '
                                 f'{as_commands(["l2", "pkd", "cwd"])}.')
            return None
        scorings = self.aligner.scorings(student, teacher)
        self._check_labels(student)
        if self.needing('boxes'):
            self.aligner.check_boxes(student, teacher)
        if self.needing('masks'):
            self.aligner.check_masks(student, teacher)
        if self.needing('distributions', 'valuable'):
            self.aligner.check_distributions(student, teacher)
        if isinstance(self.selector, All):
            too_many = self.aligner.too_many_rows(student)
            if too_many:
                raise ValueError(f'`alignments.{self.name}` needs a `selector`, {too_many}; take '
                                 "`selector=dict(type='TeacherTopK', k=1024)`, for example.")
        ours, theirs = scorings
        kind = kind_of(scorings)
        fit = methods_for(type(self.aligner).__name__, pair_kind(scorings), min(one.num_classes for one in scorings))
        for key, loss in self.losses.items():
            if kind not in loss.scorings:
                raise ValueError(f'`alignments.{self.name}.losses.{key}` is a {type(loss).__name__}, which makes no '
                                 f'sense between a student with {ours} and a teacher with {theirs}; take '
                                 f'{as_commands([*fit, "l2"])}.')
        return scorings

    def _check_labels(self, student: nn.Module) -> None:
        needing = self.needing('labels')
        if needing and self.aligner.gives_labels(student) is False:
            raise ValueError(f'`alignments.{self.name}` needs labels for {", ".join(needing)}, and '
                             f'{self.aligner.why_no_labels(student)}; take `--method ckd` or `--method kd`, with '
                             '`--selector TeacherTopK:256` or none.')

    def build_parts(self, student: nn.Module, teacher: nn.Module) -> None:
        """Make what the losses learn, once, before optimizer and EMA.

        Raises:
            ValueError: If a loss cannot compare what the two models have.
        """
        if not self.needing('features', 'centers', 'maps'):
            return
        widths = self.aligner.widths(student, teacher)
        # with one seed, the student's own weights are those of it alone
        with torch.random.fork_rng(devices=[]):
            for key, loss in self.losses.items():
                try:
                    loss.build_parts(widths)
                except ValueError as error:
                    raise ValueError(f'`alignments.{self.name}.losses.{key}`: {error}') from error

    def has_ended(self, epoch: int) -> bool:
        """Whether every loss is over: the teacher need not be asked any more."""
        return all(loss.weight.has_ended(epoch) for loss in self.losses.values())

    def ended(self, device: torch.device) -> dict[str, Tensor]:
        """The losses after their end: 0 with a graph through what they learned, so that DDP misses none of it."""
        return {key: torch.zeros((), device=device) + zero_of(loss.parameters()) for key, loss in self.losses.items()}

    def compare(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int) -> dict[str, Tensor]:
        """The losses by name; ``epoch`` counts from 0."""
        return {key: loss(aligned, epoch=epoch) for key, loss in self.losses.items()}

    def measure(self, aligned: AlignedSamples | AlignedMaps, *, epoch: int) -> dict[str, Any]:
        """What is logged beside the losses, by names without ``loss``."""
        of_losses = {f'{name}_{bare_name(key)}': value for key, loss in self.losses.items()
                     for name, value in loss.metrics(aligned, epoch=epoch).items()}
        if isinstance(aligned, AlignedMaps):
            return of_losses
        plain = aligned.plain()
        found = agreement(plain.student.logits, plain.teacher.logits)
        if plain.student.logits.shape[1] == 1:  # of one score there is no direction, and no other that could win
            return dict(rows=found['rows'], **of_losses)
        accuracy = {} if plain.labels is None else dict(teacher_accuracy=_accuracy(plain, hard(plain.labels)))
        return {**found, **accuracy, **of_losses}


def build_alignment(name: str, cfg: dict) -> Alignment:
    """Build an alignment from its config, ``dict(aligner=..., losses=..., selector=..., teacher=...)``.

    Raises:
        ValueError: As :class:`Alignment`, or if the config has other keys.
    """
    needed, known = {'aligner', 'losses'}, {'aligner', 'losses', 'selector', 'teacher'}
    if not isinstance(cfg, dict) or not needed <= set(cfg) <= known:
        got = sorted(cfg) if isinstance(cfg, dict) else repr(cfg)
        raise ValueError(f'`alignments.{name}` needs the keys `aligner` and `losses`, and may have `selector` and '
                         f'`teacher`; got {got}.')
    return Alignment(name, **cfg)


def kind_of(scorings: tuple[Scoring, Scoring]) -> str:
    """``'softmax'`` or ``'sigmoid'`` where student and teacher are alike, else ``'mixed'``."""
    ours, theirs = scorings
    if ours.softmax != theirs.softmax:
        return 'mixed'
    return 'softmax' if ours.softmax else 'sigmoid'


def pair_kind(scorings: tuple[Scoring, Scoring]) -> str:
    """As :func:`kind_of`, and ``'images'`` of two classifiers: what :data:`ckd_mmdet.recipes.SUITS` asks for."""
    return 'images' if all(scoring.of_images and scoring.softmax for scoring in scorings) else kind_of(scorings)


def _losses(configs: Mapping[str, dict], where: str) -> dict[str, DistillLoss]:
    if not isinstance(configs, Mapping) or not configs:
        raise ValueError(f'{where}.losses` needs at least one loss, by name; to train the student alone, leave the '
                         f'alignment out; got {configs!r}.')
    losses = {}
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


def _accuracy(aligned: AlignedSamples, labels: Tensor) -> Tensor:
    """Share of the foreground rows whose label is the teacher's greatest score; 0 without foreground."""
    foreground = is_foreground(labels, aligned.num_classes)
    found = aligned.teacher.logits.argmax(1) == labels
    return (found & foreground).sum() / foreground.sum().clamp(min=1)


def bare_name(key: str) -> str:
    """Give a loss's name without ``loss``: MMEngine would add up whatever has it."""
    return key.replace('loss', '').strip('_')
