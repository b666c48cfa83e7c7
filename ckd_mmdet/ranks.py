"""One process of several must not stop alone: the others would wait for it in their next collective call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor


@contextmanager
def stopping_together(device: torch.device) -> Iterator[dict[str, Tensor]]:
    """Raise on every rank what is raised, or found, on one.

    Inside it no rank may call another: it is the place for what each does alone. It yields a dict for what was found
    on the device without waiting for it, by the error's text: scalars that are true where the text is. They are read
    when the ``with`` is left, all in one wait.

    Args:
        device: That of the model, on which the ranks exchange their flags.

    Raises:
        RuntimeError: If a scalar is true, or another rank stopped.
    """
    faults: dict[str, Tensor] = {}
    error: Exception | None = None
    try:
        yield faults
    except (RuntimeError, ValueError) as raised:
        if get_world_size() == 1:
            raise
        error = raised
    if not faults and get_world_size() == 1:
        return
    found = torch.stack([flag.to(device) for flag in faults.values()]) if faults else torch.zeros(1, device=device)
    stops = found.any().int() if error is None else torch.ones((), dtype=torch.int, device=device)
    all_reduce(stops, 'max')
    if not stops.item():
        return
    if error is not None:
        raise error
    for text, flag in faults.items():
        if flag:
            raise RuntimeError(text)
    raise RuntimeError('another process of this training has stopped; its own error says why.')
