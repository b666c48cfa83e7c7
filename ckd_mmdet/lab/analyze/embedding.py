"""t-SNE of features: points of one class together, as far as the model tells the classes apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ckd_mmdet.lab.analyze.rows import ImageRows
from ckd_mmdet.samples import Side
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

SHOWN = 10
"""Classes at most, as many as can be told apart by colour."""
LEAST = 10
"""Rows: with fewer, neighbourhoods say nothing."""
WIDTH = 50
"""Principal components that t-SNE gets, as its authors advise for wide features."""


@dataclass(frozen=True)
class Embedding:
    """The points of one model."""

    name: str
    points: np.ndarray
    """Shape ``(m, 2)``."""
    labels: np.ndarray
    """Shape ``(m,)``."""
    of: str
    """``'features'`` or ``'logits'``."""
    silhouette: float
    """Of the features themselves, not of the points; without background, which is no class of its own."""


def choose_rows(labels: np.ndarray, num_classes: int, count: int) -> np.ndarray:
    """Which rows are shown: of each class the same number, as far as it has them, drawn with a fixed seed.

    Args:
        labels: Shape ``(n,)``; ``num_classes`` is background.
        num_classes: Number of foreground classes; of more than :data:`SHOWN` those with the most rows are shown.
        count: At most so many rows in all.

    Returns:
        Indices, shape ``(m,)``, ascending.

    Raises:
        ValueError: If the foreground rows are fewer than :data:`LEAST`, or of one class.
    """
    sizes = np.bincount(labels, minlength=num_classes + 1)
    shown = sorted(np.argsort(-sizes[:num_classes], kind='stable')[:SHOWN].tolist())
    shown = [label for label in shown if sizes[label]]
    each = max(1, count // max(1, len(shown) + bool(sizes[num_classes])))
    draw = np.random.default_rng(0)
    chosen = [draw.permutation(np.flatnonzero(labels == label))[:each] for label in (*shown, num_classes)]
    foreground = sum(map(len, chosen[:-1]))
    if foreground < LEAST or len(shown) < 2 or foreground <= len(shown):
        raise ValueError(f't-SNE needs at least {LEAST} rows that hold an object, of two classes or more, got '
                         f'{foreground} of {len(shown)}; take more images with `--batches`, or more `--rows`.')
    return np.sort(np.concatenate(chosen))


def embed(name: str, side: Side, labels: np.ndarray, num_classes: int) -> Embedding:
    """Embed the rows of one side by scikit-learn's t-SNE with a fixed seed: features, or logits where it has none."""
    of = 'logits' if side.features is None else 'features'
    values = getattr(side, of).numpy().astype(np.float64)
    values = values.reshape(len(values), -1)
    foreground = labels < num_classes
    silhouette = float(silhouette_score(values[foreground], labels[foreground]))
    if min(values.shape) > WIDTH:
        values = PCA(WIDTH, svd_solver='full').fit_transform(values)
    perplexity = min(30.0, (len(values) - 1) / 3)
    points = TSNE(perplexity=perplexity, init='pca' if values.shape[1] > 1 else 'random', learning_rate='auto',
                  random_state=0).fit_transform(values)
    return Embedding(name, points, labels, of, silhouette)


def embed_all(rows: list[ImageRows], count: int) -> list[Embedding]:
    """The teacher, on the first student's rows, then every student on its own."""
    num_classes = rows[0].samples.num_classes
    found = []
    for i, one in enumerate(rows):
        index = choose_rows(one.labels, num_classes, count)
        labels = one.labels[index]
        sides = ([('teacher', one.samples.teacher)] if not i else []) + [(one.name, one.samples.student)]
        found += [embed(name, _take(side, index), labels, num_classes) for name, side in sides]
    return found


def _take(side: Side, index: np.ndarray) -> Side:
    return Side(side.logits[index], None if side.features is None else side.features[index])
