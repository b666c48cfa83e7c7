"""Pairing of two image classifiers, and of the views of their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from ckd_mmdet.aligners import Aligner, is_classifier
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.rows import SOFTMAX, TableRows
from ckd_mmdet.samples import Answer, LastLayer, Widths
from ckd_mmdet.taps import ModuleTap
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


@dataclass(frozen=True)
class ImageTape:
    """The calls of the student's last layer in one step, and the number of views of each image."""

    last_layer: ModuleTap
    views: int


@TASK_UTILS.register_module()
class ImageAligner(Aligner):
    """Pairs images: each a row, its logits those of the head's last, linear layer.

    For any two ``ImageClassifier`` of MMPretrain whose heads score classes by one ``nn.Linear`` with a softmax. A row's
    feature is the input of that layer, whose rows are the category centres. Labels are soft where the data
    preprocessor mixes images (mixup, CutMix): student and teacher see the same mixed batch.

    Where the student's data preprocessor gives each image in several views (its ``views``, as
    :class:`ckd_mmdet.ViewsPreprocessor` has), a row is a view, and the student's own loss and accuracy see the plain
    views only: while listening, its head gives their rows alone. That is the one change that we make to a task loss.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'features', 'centers'})
    tells_views_apart = True

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        return _scoring(student, 'student'), _scoring(teacher, 'teacher')

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        return Widths(*((_last_layer(model, side).in_features,)
                        for model, side in ((student, 'student'), (teacher, 'teacher'))))

    def rows_in_words(self, student: nn.Module) -> str:
        return 'one an image'

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[ImageTape]:
        views = getattr(student.data_preprocessor, 'views', 1)
        with ModuleTap(_last_layer(student, 'student'), "the head's last layer") as recorded:
            plain_only = student.head.register_forward_hook(_PlainViews(views)) if views > 1 else None
            try:
                yield ImageTape(recorded, views)
            finally:
                if plain_only is not None:
                    plain_only.remove()

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: ImageTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        ours, our_layer = _recorded(tape.last_layer)
        with torch.no_grad(), ModuleTap(_last_layer(teacher, 'teacher'), "the teacher's last layer") as recorded:
            teacher.head(teacher.neck(feats) if teacher.with_neck else feats)
        theirs, their_layer = _recorded(recorded)
        images = torch.arange(len(data_samples), device=ours.device)
        if len(ours) != tape.views * len(images):
            raise RuntimeError(f'expected {tape.views} views of {len(images)} images, saw {len(ours)} rows')
        views = torch.arange(tape.views, device=ours.device).repeat_interleave(len(images)) if tape.views > 1 else None
        return Answer(TableRows(ours, SOFTMAX), TableRows(theirs, SOFTMAX),
                      torch.cat([_labels(data_samples)] * tape.views), images.repeat(tape.views),
                      layers=(our_layer, their_layer.detach()), views=views)


@dataclass(frozen=True)
class _PlainViews:
    """A forward hook that keeps the plain views, the first of the views of a batch, one after another."""

    views: int

    def __call__(self, head: nn.Module, args: tuple, scores: Tensor) -> Tensor:
        feats: Any = args[0]
        while not isinstance(feats, Tensor):  # a tuple of levels, of tokens within them
            feats = feats[-1]
        return scores[:len(feats) // self.views]  # of what came in: with two alignments there are two hooks


def _recorded(tap: ModuleTap) -> tuple[Tensor, LastLayer]:
    """Scores of a last layer, and the layer."""
    call = tap.only()
    return call.output, LastLayer(call.arg(0, 'input'), tap.module.weight, tap.module.bias)


def _last_layer(model: nn.Module, side: str) -> nn.Linear:
    """The linear layer of a classifier's head that gives its scores.

    Raises:
        ValueError: If it is no classifier, or its head has no such layer or several.
    """
    if not is_classifier(model):
        raise ValueError(f'`ImageAligner` needs an `ImageClassifier` of mmpretrain as {side}, got a '
                         f'{type(model).__name__}.')
    head = model.head
    classes = getattr(head, 'num_classes', None)
    layers = [module for module in (head.modules() if head is not None else ())
              if type(module) is nn.Linear and module.out_features == classes]
    if len(layers) != 1:
        raise ValueError(f'`ImageAligner` needs a {side} whose head scores its classes by one linear layer, and '
                         f"{type(head).__name__} has {len(layers)} of {classes} outputs; take a classifier with a "
                         'LinearClsHead, or with another head that ends in an `nn.Linear`.')
    return layers[0]


def _scoring(model: nn.Module, side: str) -> Scoring:
    classes = _last_layer(model, side).out_features
    head = model.head
    if getattr(getattr(head, 'loss_module', None), 'use_sigmoid', False) or 'MultiLabel' in type(head).__name__:
        raise ValueError(f'`ImageAligner` needs a {side} that gives an image one class, by a softmax; its '
                         f'{type(head).__name__} gives it several, by sigmoids.')
    return Scoring(classes, True, of_images=True)


def _labels(data_samples: Sequence[BaseDataElement]) -> Tensor:
    """Shape ``(N,)``, or ``(N, c)`` where images are mixed."""
    if 'gt_score' in data_samples[0]:
        scores = torch.stack([sample.gt_score for sample in data_samples])
        hard = scores.max(1)
        return hard.indices if bool((hard.values == 1).all()) else scores
    return torch.cat([sample.gt_label for sample in data_samples])
