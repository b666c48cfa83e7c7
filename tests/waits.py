"""How often the host waits for the device."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAIT = {'_local_scalar_dense', 'nonzero', 'masked_select', '_unique2', 'unique_dim', 'unique_consecutive', 'is_nonzero',
        'equal'}
BY_MASK = {'index', 'index_put', 'index_put_', '_index_put_impl_'}
"""Operators that look for a mask's places first, as `nonzero` does."""


class Waits(TorchDispatchMode):
    """Counts, inside a ``with``, the operators whose result the host needs, or whose size it must learn.

    On a GPU each of them waits for all work before it. They are the same on a CPU, where they are counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Iterable[type], args: tuple = (),
                           kwargs: dict | None = None) -> Any:
        kwargs, name = kwargs or {}, function.overloadpacket.__name__
        masks = [part for part in args[1] if isinstance(part, Tensor) and part.dtype == torch.bool] \
            if name in BY_MASK else []
        repeats = name == 'repeat_interleave' and kwargs.get('output_size') is None
        if name in WAIT or masks or repeats:
            self.seen.append(name)
        return function(*args, **kwargs)
