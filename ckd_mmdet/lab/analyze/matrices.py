"""What a model says of each class on the mean, and how its classes vary together."""

from __future__ import annotations

import numpy as np
from ckd_mmdet.lab.analyze.rows import ImageRows

KINDS = ('logits', 'standardised', 'correlation')


def class_means(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean logits of the rows of each class.

    Args:
        logits: Shape ``(n, c)``.
        labels: Shape ``(n,)``; those of ``c`` and more, background of heads without a score for it, are left out.

    Returns:
        Shape ``(c, c)``, row: true class, column: score; NaN in the rows of classes that have none.
    """
    means = np.full((logits.shape[1],) * 2, np.nan)
    for label in range(logits.shape[1]):
        own = labels == label
        if own.any():
            means[label] = logits[own].mean(0)
    return means


def standardised(means: np.ndarray) -> np.ndarray:
    """Each row with mean 0 and standard deviation 1, of the population: how it ranks the classes, whatever its scale.

    A row of equal values becomes 0.
    """
    centred = means - means.mean(1, keepdims=True)
    deviation = centred.std(1, keepdims=True)
    return np.divide(centred, deviation, out=centred.copy(), where=deviation > 0)


def class_correlation(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    r"""Pearson's correlation of every two scores over the rows, each class counting as much as any other.

    With weights :math:`w_i = 1 / n_{y_i}` of the rows of label :math:`y_i`, of which there are :math:`n_{y_i}`. The
    differences of these matrices between teacher and student are the picture of CRD (arXiv 1910.10699) and later works.

    Args:
        logits: Shape ``(n, c)``.
        labels: Shape ``(n,)``, as of :func:`class_means`.

    Returns:
        Shape ``(c, c)``; NaN where a score is the same in all rows.
    """
    own = labels < logits.shape[1]
    logits, labels = logits[own].astype(float), labels[own]
    if not len(labels):
        return np.full((logits.shape[1],) * 2, np.nan)
    weights = 1 / np.bincount(labels)[labels]
    centred = logits - np.average(logits, axis=0, weights=weights)
    covariance = np.atleast_2d(np.einsum('n,ni,nj->ij', weights, centred, centred))
    deviation = np.sqrt(np.diag(covariance))
    deviation[deviation == 0] = np.nan
    return covariance / np.outer(deviation, deviation)


def matrix(kind: str, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One of :data:`KINDS`, shape ``(c, c)``."""
    if kind == 'correlation':
        return class_correlation(logits, labels)
    means = class_means(logits, labels)
    return means if kind == 'logits' else standardised(means)


def differences(kind: str, rows: ImageRows) -> np.ndarray:
    """The student's matrix less the teacher's, over the same rows; shape ``(c, c)``."""
    student, teacher = (matrix(kind, side.logits.numpy(), rows.labels)
                        for side in (rows.samples.student, rows.samples.teacher))
    return student - teacher


def size_of(difference: np.ndarray) -> dict[str, float | None]:
    """Mean and maximum of the absolute values that are there."""
    known = np.abs(difference[~np.isnan(difference)])
    return dict(mean=float(known.mean()), max=float(known.max())) if len(known) else dict(mean=None, max=None)
