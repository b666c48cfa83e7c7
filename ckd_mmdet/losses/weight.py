"""How much a distillation loss counts: a number, by epochs, or measured against the task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

import torch
from ckd_mmdet.functional.checks import is_finite
from torch import Tensor, nn

MEASURED = 50
"""Iterations over which a balanced weight is measured."""
KEYS = ('value', 'balance', 'warm_up', 'decay', 'stop', 'iterations')
"""Of a ``loss_weight`` that is a dict."""


class Weight(nn.Module):
    r"""Factor of a loss: :math:`w \cdot \min\big(1, \frac{e + 1}{u}\big) \cdot d(e)` in the epoch :math:`e`, from 0.

    :math:`u` is ``warm_up``, the number of epochs over which the weight rises; :math:`d` falls linearly from 1 at the
    start of the epoch ``decay[0]`` to 0 at the start of ``decay[1]``; from the epoch ``stop`` on the factor is 0.
    :math:`w` is ``value``; or, where ``balance`` is given, it is such that the loss's gradient on the student's
    features has ``balance`` times the norm of the task losses': the median over the first ``iterations``, during which
    the median so far is used, fixed then. What was measured is in the ``state_dict``; nothing is learned.

    Args:
        value: :math:`w \ge 0`; 1 by default.
        balance: Ratio of the gradients' norms, greater than 0, instead of ``value``.
        warm_up: Number of epochs.
        decay: First and last epoch of the fall.
        stop: First epoch without the loss.
        iterations: Over which ``balance`` is measured, at least 1.
        name: Whose weight it is, for errors.

    Raises:
        ValueError: If a number is out of its range, or both ``value`` and ``balance`` are given.
    """

    def __init__(self, value: float | None = None, balance: float | None = None, warm_up: int = 0,
                 decay: tuple[int, int] | None = None, stop: int | None = None, iterations: int = MEASURED, *,
                 name: str = 'Weight') -> None:
        super().__init__()
        if value is not None and balance is not None:
            raise ValueError(f'`{name}` needs a `loss_weight` with either `value` or `balance`, got both.')
        if balance is None:
            value = 1.0 if value is None else value
            if not (is_finite(value) and value >= 0):
                raise ValueError(f'`{name}` needs a finite `loss_weight` of at least 0, got {value!r}.')
        elif not (is_finite(balance) and balance > 0):
            raise ValueError(f'`{name}` needs a finite `balance` greater than 0 in its `loss_weight`, got {balance!r}.')
        for key, count, least in (('warm_up', warm_up, 0), ('stop', 1 if stop is None else stop, 1),
                                  ('iterations', iterations, 1)):
            if not _is_whole(count) or count < least:
                raise ValueError(f'`{name}` needs a whole `{key}` of at least {least} in its `loss_weight`, got '
                                 f'{count}.')
        if decay is not None and not _is_span(decay):
            raise ValueError(f'`{name}` needs a `decay` of a first and a later last epoch in its `loss_weight`, got '
                             f'{decay}.')
        self.value = value
        self.balance = balance
        self.warm_up = warm_up
        self.decay = None if decay is None else (decay[0], decay[1])
        self.stop = stop
        self.iterations = iterations
        self.ratios: list[float] = []
        """Ratios measured so far, of the loss with the weight 1, greater than 0."""

    @classmethod
    def of(cls, loss_weight: float | str | Mapping, name: str) -> Weight:
        """Read a config's ``loss_weight``: ``0.5``, ``'balance:0.5'``, or a dict of this class's arguments.

        Raises:
            ValueError: If it is none of these, or of a wrong number.
        """
        if isinstance(loss_weight, str):
            kind, _, ratio = loss_weight.partition(':')
            try:
                balance = float(ratio) if kind == 'balance' else None
            except ValueError:
                balance = None
            if balance is None:
                raise ValueError(f"`{name}` needs a `loss_weight` that is a number, a dict or 'balance:RATIO', as in "
                                 f"'balance:0.5', got {loss_weight!r}.")
            return cls(balance=balance, name=name)
        if isinstance(loss_weight, Mapping):
            if not set(loss_weight) <= set(KEYS):
                raise ValueError(f'`{name}` needs a `loss_weight` of the keys value or balance, warm_up, decay, stop '
                                 f'and iterations, got {list(loss_weight)}.')
            return cls(**loss_weight, name=name)
        if loss_weight is None:  # not a forgotten value, which would be 1
            raise ValueError(f'`{name}` needs a finite `loss_weight` of at least 0, got None.')
        return cls(loss_weight, name=name)

    def at(self, epoch: int) -> float:
        """The factor in an epoch, counted from 0."""
        factor = 0.0 if self.stop is not None and epoch >= self.stop else 1.0
        if self.warm_up:
            factor *= min(1.0, (epoch + 1) / self.warm_up)
        if self.decay is not None:
            first, last = self.decay
            factor *= min(1.0, max(0.0, (last - epoch) / (last - first)))
        return self.base * factor

    @property
    def base(self) -> float:
        """:math:`w`: the value, or what was measured so far; 1 before anything was."""
        if self.balance is None:
            return 1.0 if self.value is None else self.value
        return self.balance / statistics.median(self.ratios) if self.ratios else 1.0

    @property
    def changes_by_epoch(self) -> bool:
        """Whether it is a schedule by epochs."""
        return bool(self.warm_up) or self.decay is not None or self.stop is not None

    @property
    def is_measuring(self) -> bool:
        """Whether ``balance`` is still being measured."""
        return self.value is None and len(self.ratios) < self.iterations

    def get_extra_state(self) -> Tensor:
        """What was measured, NaN where nothing was yet: shape ``(iterations,)``, float64; ``(0,)`` of a given value.

        The size never changes: an average of models copies states onto each other.
        """
        size = 0 if self.balance is None else max(self.iterations, len(self.ratios))
        state = torch.full((size,), math.nan, dtype=torch.float64)
        state[:len(self.ratios)] = torch.tensor(self.ratios[:size], dtype=torch.float64)
        return state

    def set_extra_state(self, state: Tensor) -> None:
        self.ratios = [ratio for ratio in state.tolist() if not math.isnan(ratio)]

    def has_ended(self, epoch: int) -> bool:
        """Whether the loss is over, in this epoch and after it."""
        return (self.stop is not None and epoch >= self.stop) or (self.decay is not None and epoch >= self.decay[1])


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_span(value: object) -> bool:
    """Whether it is an epoch and a later one."""
    return (isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_whole, value))
            and 0 <= value[0] < value[1])
