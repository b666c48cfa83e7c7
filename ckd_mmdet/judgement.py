"""Is the teacher right more often than a model that knows nothing?"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, hard, is_foreground
from mmengine import dist

SEEN_ROWS = 200
"""Foreground rows, over all ranks, after which the teacher's accuracy is judged."""
WAITED_FOR = 50 * SEEN_ROWS
"""Rows after which no second class is waited for."""
GOOD = 0.75
"""A teacher that is right in this share of each class's rows must always pass."""


class TeacherJudgement:
    """Counts how often the teacher gives foreground rows their label, and stops a run in which that is chance.

    The accuracy is the mean over the classes seen of the share of their rows to which the teacher gives their label. A
    constant answer reaches exactly :math:`1/K` of :math:`K` classes, however unbalanced they are, so that is chance;
    a random answer scatters about it with the standard error :math:`\\sqrt{\\sum_c p (1 - p) / n_c} / K`, where
    :math:`p = 1/K` and class :math:`c` has :math:`n_c` rows. The teacher must be better by more than three of them.

    Classes with so few rows that a good teacher could fail by chance do not count. Where that leaves one, only a
    teacher that is never right is refused.

    Its answer is its greatest score, background among them. A random answer is then right less often than
    :math:`1/K`, so the limit errs on the side of refusal by little, and a teacher that only says background has
    accuracy 0.

    Args:
        num_classes: Number of foreground classes, by which the rows are labelled.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        # hits and rows; the last column takes what is not counted, as choosing rows would wait for the device
        self.counts = torch.zeros(2, num_classes + 1, dtype=torch.int64)

    def count(self, aligned: AlignedSamples | AlignedMaps) -> None:
        """Add the foreground rows of the plain views, without a wait for the device.

        Maps and rows without labels have no accuracy and are passed over. A soft label counts as its likeliest class.

        Raises:
            ValueError: If the rows have another number of classes.
        """
        if isinstance(aligned, AlignedMaps) or aligned.labels is None:
            return
        if aligned.num_classes != self.num_classes:
            raise ValueError(f'`TeacherJudgement` was made for {self.num_classes} classes and got rows of '
                             f'{aligned.num_classes}; make one for each alignment.')
        labels = hard(aligned.labels)
        counted = is_foreground(labels, self.num_classes)
        if aligned.views is not None:  # of a teacher that never saw turned images, turned ones say nothing
            counted = counted & (aligned.views == 0)
        hits = counted & (aligned.teacher.logits.argmax(1) == labels)
        columns = torch.where(counted, labels, self.num_classes)
        self.counts = self.counts.to(labels.device)
        self.counts.index_add_(1, columns, torch.stack([hits, counted]).to(self.counts.dtype))

    def verdict(self, teacher: str) -> bool:
        """Judge what all ranks have counted, with one wait for the device.

        Every rank must call it at the same step. Each then gets the same answer or the same error, so none is left
        waiting for another.

        Args:
            teacher: Its name, for the error.

        Returns:
            Whether the teacher has passed. ``False``: too few rows were seen as yet, fewer than 200 or nearly all of
            one class; ask again later.

        Raises:
            RuntimeError: If the accuracy is chance.
        """
        counts = self.counts.clone()
        dist.all_reduce(counts)
        hits, rows = counts[:, :-1].tolist()
        seen = sum(rows)
        if seen < SEEN_ROWS:
            return False
        classes = _counting(hits, rows)
        # of one class alone a constant answer is right always or never: only never is a sign
        if len(classes) == 1 and sum(hits):
            return self.num_classes == 1 or seen >= WAITED_FOR
        chance = 1 / len(classes) if len(classes) > 1 else 0.0
        accuracy = sum(hit / total for hit, total in classes) / len(classes)
        limit = chance + 3 * _standard_error(chance, classes)
        if accuracy <= limit:
            raise RuntimeError(
                f'the teacher ({teacher}) is right on {accuracy:.1%} of the first {seen} foreground rows (mean over '
                f'{len(classes)} classes), no better than chance ({chance:.1%}, limit {limit:.1%}): the run stops '
                'before it trains a student on noise. Usual causes: swapped colour channels or another normalisation '
                "in the teacher's config, classes in another order, weights of another model. If the teacher is meant "
                'to be so, set `teacher.check_accuracy=False`.')
        return True


def _counting(hits: Sequence[int], rows: Sequence[int]) -> list[tuple[int, int]]:
    """Hits and rows of the classes that are common enough, the rarest first; at least of the commonest."""
    classes = sorted(((hit, total) for hit, total in zip(hits, rows, strict=True) if total), key=lambda pair: pair[1])
    while len(classes) > 1 and not _is_fair(classes):
        del classes[0]
    return classes


def _is_fair(classes: Sequence[tuple[int, int]]) -> bool:
    """Whether a good teacher would pass, three standard errors of its own below its share included."""
    chance = 1 / len(classes)
    return chance + 3 * _standard_error(chance, classes) <= GOOD - 3 * _standard_error(GOOD, classes)


def _standard_error(share: float, classes: Sequence[tuple[int, int]]) -> float:
    """Of the accuracy of an answer that is right with this probability, whatever the class."""
    return sqrt(sum(share * (1 - share) / total for _, total in classes)) / len(classes)
