"""Checks shared by the formulas."""

from __future__ import annotations

import math
from numbers import Real
from typing import TypeGuard

import torch
from torch import Tensor


def paired_logits(student: Tensor, teacher: Tensor, function: str) -> tuple[Tensor, Tensor]:
    """Check that both are ``(n, c)`` and give them in at least float32, the teacher's without gradient.

    Raises:
        ValueError: If the shapes are not equal or not two-dimensional.
    """
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(
            f'`{function}` needs `student` and `teacher` of one shape (n, c), got '
            f'{tuple(student.shape)} and {tuple(teacher.shape)}; give row i of both for the same '
            'sample, over the same classes.')
    return in_one_precision(student, teacher)


def in_one_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the wider of their precisions, at least float32; the teacher's without gradient."""
    exact = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(exact), teacher.detach().to(exact)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether it is a number, and neither infinite nor NaN; ``True`` is no number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def positive(value: float, argument: str, function: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number greater than 0."""
    if not (is_finite(value) and value > 0):
        raise ValueError(f'`{function}` needs a finite `{argument}` greater than 0, got {value!r}.')


def not_negative(value: float, argument: str, function: str) -> None:
    """Raise ``ValueError`` unless ``value`` is a finite number of at least 0."""
    if not (is_finite(value) and value >= 0):
        raise ValueError(f'`{function}` needs a finite `{argument}` of at least 0, got {value!r}.')


def one_of(value: str | None, choices: tuple[str | None, ...], argument: str, function: str) -> None:
    """Raise ``ValueError`` unless ``value`` is among ``choices``."""
    if value not in choices:
        raise ValueError(f'`{function}` needs `{argument}` to be one of {choices}, got {value!r}.')
