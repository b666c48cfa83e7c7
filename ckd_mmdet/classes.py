"""The classes that student and teacher share, and the columns of their scores that mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from ckd_mmdet.text import quoted
from torch import Tensor


@dataclass(frozen=True)
class Scoring:
    """How a head writes the scores of a row."""

    num_classes: int
    softmax: bool
    """One distribution; otherwise one sigmoid a class."""
    of_images: bool = False
    """Of a classifier, where nothing is background."""

    @property
    def background(self) -> bool:
        """Whether the last column is background's."""
        return self.softmax and not self.of_images

    def __str__(self) -> str:
        classes = f'{self.num_classes} class{"" if self.num_classes == 1 else "es"}'
        return (f'{classes}{" and background" if self.background else ""} '
                f'({"softmax" if self.softmax else "sigmoid"})')


@dataclass(frozen=True)
class SharedClasses:
    """Class ``student[i]`` of the student is class ``teacher[i]`` of the teacher."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]

    @classmethod
    def all(cls, num_classes: int) -> SharedClasses:
        """The same classes in the same order."""
        return cls(tuple(range(num_classes)), tuple(range(num_classes)))

    def __len__(self) -> int:
        return len(self.student)

    def labels(self, labels: Tensor, num_classes: int) -> Tensor:
        """The student's labels ``(n,)`` as numbers of shared classes.

        Args:
            labels: 0 to ``num_classes - 1``; ``num_classes`` is background, negative is to be ignored.
            num_classes: Number of the student's classes.

        Returns:
            Shape ``(n,)``; ``len(self)`` is background, -1 to be ignored, -2 an object that the teacher has no class
            for. Soft labels ``(n, num_classes)`` become ``(n, len(self))``.
        """
        if self.student == tuple(range(num_classes)):  # a table's copy to the device would be waited for
            return labels if labels.ndim == 2 else labels.clamp(min=-1)
        if labels.ndim == 2:
            return labels[:, list(self.student)]
        table = torch.full((num_classes + 2,), -2, device=labels.device)
        table[list(self.student)] = torch.arange(len(self), device=labels.device)
        table[num_classes], table[-1] = len(self), -1
        return table[labels.clamp(min=-1)]


def match_classes(student: Sequence[str | None], teacher: Sequence[str],
                  class_map: str | Mapping[str, str]) -> SharedClasses:
    """Pair the student's classes with the teacher's.

    Args:
        student: Names of the student's classes, in the order of its scores.
        teacher: The same of the teacher.
        class_map: ``'name'`` pairs equal names; a dict names the teacher's class for each of the student's, and what
            it leaves out has none.

    Raises:
        ValueError: If no class is shared, or the map names a class that is not there or one of the teacher's twice.
    """
    if not isinstance(class_map, Mapping):
        if class_map != 'name':
            raise ValueError(f"`teacher.class_map` needs to be 'name' or a dict from the student's names to the "
                             f"teacher's, got {class_map!r}.")
        class_map = {name: name for name in student if name is not None and name in teacher}
        if not class_map:
            raise ValueError(f"`teacher.class_map='name'` finds no class that student and teacher share. The student "
                             f"knows {quoted(student)}; the teacher knows {quoted(teacher)}. Give a dict from the "
                             "student's names to the teacher's (to the tools, as `--class-map "
                             "OURS=THEIRS ...`), or another teacher.")
    for side, names, known in (('student', class_map, student), ('teacher', class_map.values(), teacher)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f'`teacher.class_map` names {quoted(unknown)}, which the {side} does not know; it knows '
                             f'{quoted(known)}.')
        twice = [name for name in names if known.count(name) > 1]
        if twice:
            raise ValueError(f'`teacher.class_map` needs names that stand for one class each; the {side} has several '
                             f'called {quoted(twice)}. Leave them out with a dict, or rename them in '
                             '`metainfo.classes`.')
    if not class_map:
        raise ValueError('`teacher.class_map` needs at least one pair of classes, got an empty dict.')
    if len(set(class_map.values())) < len(class_map):
        raise ValueError("`teacher.class_map` needs another class of the teacher for each of the student's, got "
                         f'{dict(class_map)}.')
    shared = [(i, teacher.index(class_map[name])) for i, name in enumerate(student)
              if name is not None and name in class_map]
    return SharedClasses(*map(tuple, zip(*shared, strict=True)))


def shared_columns(scores: Tensor, scoring: Scoring, classes: tuple[int, ...], background: bool) -> Tensor:
    r"""Scores of the shared classes, then of background where both sides have it.

    Background then holds every class that is not shared, so that the probabilities of a softmax stay what they were:

    .. math:: b' = \log \Big( e^{b} + \sum_{c \notin \mathrm{shared}} e^{s_c} \Big)

    Args:
        scores: Raw scores as the head wrote them, shape ``(m, c)``.
        scoring: How it writes them.
        classes: Indices of the shared classes, in the order wanted.
        background: Whether the last column of the result is background; only of scores that have one.

    Returns:
        Shape ``(m, len(classes) + background)``.
    """
    whole = scoring.num_classes + scoring.background
    if classes == tuple(range(scoring.num_classes)) and background == scoring.background and scores.shape[1] == whole:
        return scores
    chosen = scores[:, list(classes)]
    if not background:
        return chosen
    others = [column for column in range(scores.shape[1]) if column not in set(classes)]
    return torch.cat([chosen, scores[:, others].logsumexp(1, keepdim=True)], 1)


def shared_rows(table: Tensor, scoring: Scoring, classes: tuple[int, ...], background: bool) -> Tensor:
    """Rows of the shared classes in a last layer's weights or biases, then background's where both sides have it.

    Args:
        table: One row a score, shape ``(c, ...)``.
        scoring: How the head writes its scores.
        classes: Indices of the shared classes, in the order wanted.
        background: Whether background's row is wanted.

    Returns:
        Shape ``(len(classes) + background, ...)``.
    """
    rows = [*classes, *([scoring.num_classes] if background else [])]
    return table if rows == list(range(len(table))) else table[rows]
