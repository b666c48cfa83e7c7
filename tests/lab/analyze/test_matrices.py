"""Class-averaged logits and class correlations, against plain loops."""

import math

import numpy as np
import pytest
from ckd_mmdet.lab.analyze.matrices import class_correlation, class_means, size_of, standardised

RNG = np.random.default_rng(3)
LOGITS = RNG.normal(size=(40, 4)) * 3 + 1
LABELS = RNG.integers(0, 3, 40)  # the last class has no rows


def test_class_means_are_those_of_a_loop_and_unknown_classes_are_nan() -> None:
    found = class_means(LOGITS, LABELS)
    for label in range(3):
        own = [LOGITS[i] for i in range(40) if LABELS[i] == label]
        for column in range(4):
            assert found[label, column] == pytest.approx(sum(row[column] for row in own) / len(own))
    assert np.isnan(found[3]).all()


def test_background_without_a_score_of_its_own_is_left_out() -> None:
    labels = np.array([0, 1, 2, 2])  # 2 is background of two sigmoids
    logits = np.array([[1.0, 2.0], [3.0, 4.0], [50.0, 60.0], [70.0, 80.0]])
    assert class_means(logits, labels).tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert class_correlation(logits, labels) == pytest.approx(np.ones((2, 2)))


def test_a_standardised_row_has_mean_0_and_deviation_1_whatever_its_scale() -> None:
    means = np.array([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]])
    found = standardised(means)
    assert found[0] == pytest.approx(np.array([-2, -1, 3]) / math.sqrt(14 / 3))
    assert found[1].tolist() == [0, 0, 0]
    assert standardised(means * 7 - 3) == pytest.approx(found)


def test_correlation_counts_every_class_alike() -> None:
    found = class_correlation(LOGITS, LABELS)
    weights = [1 / sum(label == other for other in LABELS) for label in LABELS]
    total = sum(weights)

    def covariance(i: int, j: int) -> float:
        means = [sum(w * row[k] for w, row in zip(weights, LOGITS, strict=True)) / total for k in (i, j)]
        return sum(w * (row[i] - means[0]) * (row[j] - means[1])
                   for w, row in zip(weights, LOGITS, strict=True)) / total

    for i in range(4):
        for j in range(4):
            assert found[i, j] == pytest.approx(covariance(i, j) / math.sqrt(covariance(i, i) * covariance(j, j)))
    copies = np.concatenate([np.flatnonzero(LABELS == 0)] * 4 + [np.flatnonzero(LABELS != 0)])
    assert class_correlation(LOGITS[copies], LABELS[copies]) == pytest.approx(found)


def test_correlation_knows_neither_scale_nor_shift() -> None:
    assert class_correlation(LOGITS * [1, 2, 3, 4] + 5, LABELS) == pytest.approx(class_correlation(LOGITS, LABELS))


def test_a_score_that_never_changes_has_no_correlation() -> None:
    found = class_correlation(np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]]), np.array([0, 1, 1]))
    assert np.isnan(found).tolist() == [[True, True], [True, False]]


def test_the_size_of_a_difference_is_of_what_is_known() -> None:
    assert size_of(np.array([[1.0, -3.0], [np.nan, np.nan]])) == dict(mean=2.0, max=3.0)
    assert size_of(np.full((2, 2), np.nan)) == dict(mean=None, max=None)
