"""The formulas once more, as plain loops over Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

Row = Sequence[float]

TEACHER = [[2.0, 0, -1, 1], [0, 3, 1, -1], [1, -1, 2, 0]]
STUDENT = [[1.0, 0.5, -1, 0], [0.5, 2, 0, -1], [0, -1, 1, 1]]


def ckd_rows(student: Tensor, teacher: Tensor, temperature: float, contrast: str, terms: str,
             negatives: Tensor | None) -> list[float]:
    """Loss of each sample, one logarithm at a time."""
    s, t = [_unit(row) for row in student.tolist()], [_unit(row) for row in teacher.tolist()]
    rows = []
    for i in range(len(s)):
        others = [j for j in range(len(s)) if j == i or negatives is None or negatives[i, j]]
        own = _dot(t[i], s[i]) / temperature
        by_teacher = _log_sum_exp([_dot(t[i], s[j]) / temperature for j in others])
        by_student = _log_sum_exp([_dot(t[j], s[i]) / temperature for j in others])
        among_students = _log_sum_exp([_dot(t[i] if j == i else s[i], s[j]) / temperature for j in others])
        inter = {'teacher_student': by_teacher, 'student_teacher': by_student, 'student_student': among_students,
                 'symmetric': (by_teacher + by_student) / 2}[contrast]
        rows.append({'both': inter - own, 'intra': -own, 'inter': inter}[terms])
    return rows


def kd_rows(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = _softmax(t, temperature), _softmax(s, temperature)
        rows.append(temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return rows


def binary_kd_rows(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    rows = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        total = 0.0
        for a, b in zip(s, t, strict=True):
            q, p = (1 / (1 + math.exp(-x / temperature)) for x in (a, b))
            total += p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
        rows.append(temperature**2 * total)
    return rows


def log_odds_rows(logits: Tensor) -> list[list[float]]:
    return [[math.log(p / sum(other for j, other in enumerate(probabilities) if j != i))
             for i, p in enumerate(probabilities)] for probabilities in (_softmax(row, 1.0) for row in logits.tolist())]


def standardized_rows(logits: Tensor) -> list[list[float]]:
    rows = []
    for row in logits.tolist():
        mean = sum(row) / len(row)
        spread = math.sqrt(sum((x - mean)**2 for x in row) / (len(row) - 1))
        rows.append([(x - mean) / (spread + 1e-7) for x in row])
    return rows


def dkd_rows(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float, beta: float,
             temperature: float) -> list[float]:
    rows = []
    for s, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        p, q = _softmax(t, temperature), _softmax(s, temperature)
        target = p[y] * math.log(p[y] / q[y]) + (1 - p[y]) * math.log((1 - p[y]) / (1 - q[y]))
        others = 0.0
        for c in range(len(p)):
            if c != y:
                a, b = p[c] / (1 - p[y]), q[c] / (1 - q[y])
                others += a * math.log(a / b)
        rows.append(temperature**2 * (alpha * target + beta * others))
    return rows


def dist_rows(student: Tensor, teacher: Tensor, beta: float, gamma: float, temperature: float) -> list[float]:
    q, p = ([_softmax(row, temperature) for row in logits.tolist()] for logits in (student, teacher))
    n, c = student.shape
    intra = sum(1 - _correlation([q[i][k] for i in range(n)], [p[i][k] for i in range(n)]) for k in range(c)) / c
    return [temperature**2 * (beta * (1 - _correlation(q[i], p[i])) + gamma * intra) for i in range(n)]


def category_rows(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, target: str) -> list[float]:
    """PCKD's contrast of each sample, both halves added; ``labels`` are one a row, or shares of each class."""
    z, y, n = student.tolist() + teacher.tolist(), labels.tolist() * 2, len(student)
    losses = []
    for a in range(2 * n):
        if target == 'centers':
            shares = y[a] if labels.ndim == 2 else [float(c == y[a]) for c in range(len(z[a]))]
            log_sum = _log_sum_exp([x / temperature for x in z[a]])
            found = sum(share * (x / temperature - log_sum) for share, x in zip(shares, z[a], strict=True))
        else:
            scores = [_dot(z[a], row) / temperature for row in z]
            scores = [score - max(scores) for score in scores]
            log_sum = math.log(sum(math.exp(scores[c]) for c in range(2 * n) if c != a) + 1e-7)
            positives = [scores[b] - log_sum for b in range(2 * n) if b != a and y[b] == y[a]]
            found = sum(positives) / len(positives)
        losses.append(-temperature / 0.07 * found)
    return [losses[k] + losses[n + k] for k in range(n)]


def feature_rows(student: Tensor, teacher: Tensor) -> list[float]:
    return [2 - 2 * _dot(_unit(s), _unit(t)) for s, t in zip(student.tolist(), teacher.tolist(), strict=True)]


def center_score_rows(embedded: Tensor, centers: Tensor) -> list[list[float]]:
    return [[_dot(_unit(row), center) for center in centers.tolist()] for row in embedded.tolist()]


def center_rows(student: Tensor, teacher: Tensor, student_biases: Tensor | None = None,
                teacher_biases: Tensor | None = None) -> list[float]:
    rows = []
    for c in range(len(student)):
        ours, theirs = student[c].tolist(), teacher[c].tolist()
        if student_biases is not None and teacher_biases is not None:
            ours, theirs = [*ours, student_biases[c].item()], [*theirs, teacher_biases[c].item()]
        rows.append(sum((a - b)**2 for a, b in zip(ours, theirs, strict=True)) / len(ours))
    return rows


def cross_entropy_rows(logits: Tensor, labels: Tensor) -> list[float]:
    rows = []
    for x, y in zip(logits.tolist(), labels.tolist(), strict=True):
        shares = y if labels.ndim == 2 else [float(c == y) for c in range(len(x))]
        rows.append(-sum(share * math.log(p) for share, p in zip(shares, _softmax(x, 1.0), strict=True)))
    return rows


def binary_cross_entropy_rows(logits: Tensor, labels: Tensor) -> list[float]:
    rows = []
    for x, y in zip(logits.tolist(), labels.tolist(), strict=True):
        shares = y if labels.ndim == 2 else [float(c == y) for c in range(len(x))]
        ps = [1 / (1 + math.exp(-value)) for value in x]
        rows.append(-sum(a * math.log(p) + (1 - a) * math.log(1 - p) for a, p in zip(shares, ps, strict=True)))
    return rows


def agreement_numbers(student: Tensor, teacher: Tensor) -> dict[str, float]:
    s, t = [_unit(row) for row in student.tolist()], [_unit(row) for row in teacher.tolist()]
    n = len(s)
    found = sum(all(_dot(t[i], s[i]) >= _dot(t[i], s[j]) for j in range(n)) for i in range(n))
    return {'rows': n, 'cosine': sum(_dot(t[i], s[i]) for i in range(n)) / n, 'retrieval': found / n}


def _unit(row: Row) -> list[float]:
    length = max(math.sqrt(_dot(row, row)), 1e-12)
    return [x / length for x in row]


def _correlation(one: Row, other: Row) -> float:
    a, b = ([x - sum(row) / len(row) for x in row] for row in (one, other))
    return _dot(a, b) / (math.sqrt(_dot(a, a)) * math.sqrt(_dot(b, b)) + 1e-8)


def _dot(one: Row, other: Row) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def _log_sum_exp(values: Row) -> float:
    return math.log(sum(math.exp(value) for value in values))


def _softmax(row: Row, temperature: float) -> list[float]:
    powers = [math.exp(x / temperature) for x in row]
    return [power / sum(powers) for power in powers]
