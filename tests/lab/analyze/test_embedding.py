"""Which rows t-SNE gets, and what it makes of classes that lie apart."""

import numpy as np
import pytest
import torch
from ckd_mmdet.lab.analyze.embedding import SHOWN, choose_rows, embed
from ckd_mmdet.samples import Side
from sklearn.metrics import silhouette_score


def test_classes_and_background_are_shown_by_as_many_rows() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 40, 7, 500])  # 3 is background
    chosen = choose_rows(labels, 3, 80)
    assert np.bincount(labels[chosen]).tolist() == [20, 20, 7, 20]
    assert (chosen == choose_rows(labels, 3, 80)).all() and (np.diff(chosen) > 0).all()


def test_of_many_classes_the_largest_are_shown() -> None:
    labels = np.repeat(np.arange(30), np.arange(2, 32))
    assert sorted(set(labels[choose_rows(labels, 30, 500)])) == list(range(30 - SHOWN, 30))


@pytest.mark.parametrize('labels', [[0, 1, 0, 1], [0] * 30, list(range(12)), [2] * 50 + [0, 1] * 3])
def test_too_few_rows_are_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match='t-SNE needs at least 10 rows that hold an object, of two classes or more'):
        choose_rows(np.array(labels), 12 if len(labels) == 12 else 2, 100)


def heaps(apart: float, width: int = 60) -> tuple[torch.Tensor, np.ndarray]:
    labels = np.repeat([0, 1, 2], 25)
    noise = np.random.default_rng(0).normal(size=(75, width))
    return torch.from_numpy(noise + apart * np.eye(3, width)[labels]), labels


def test_classes_that_lie_apart_are_heaps_of_their_own() -> None:
    features, labels = heaps(30.0)
    found = embed('teacher', Side(torch.zeros(75, 3), features), labels, 3)
    assert found.of == 'features' and found.points.shape == (75, 2)
    assert found.silhouette == pytest.approx(silhouette_score(features.numpy(), labels)) and found.silhouette > 0.6
    assert silhouette_score(found.points, labels) > 0.6
    assert (embed('teacher', Side(torch.zeros(75, 3), features), labels, 3).points == found.points).all()


def test_without_features_logits_are_embedded() -> None:
    logits, labels = heaps(30.0, width=3)
    found = embed('kd', Side(logits), labels, 3)
    assert found.of == 'logits' and silhouette_score(found.points, labels) > 0.6


def test_the_silhouette_leaves_background_out() -> None:
    features, labels = heaps(30.0)
    assert embed('kd', Side(features), labels, 2).silhouette == pytest.approx(
        silhouette_score(features[:50].numpy(), labels[:50]))
