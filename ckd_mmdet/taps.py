"""Catching the calls of a module, only inside a ``with``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Call:
    """One call of a module: its arguments and what it gave back."""

    args: tuple
    kwargs: Mapping[str, Any]
    output: Any

    def get(self, position: int, *names: str) -> Any | None:
        """Argument that the caller gave by position or as one of ``names``; ``None`` where it gave neither."""
        if position < len(self.args):
            return self.args[position]
        return next((self.kwargs[name] for name in names if name in self.kwargs), None)

    def arg(self, position: int, *names: str) -> Any:
        """The same for an argument that must be there.

        Raises:
            RuntimeError: If it is not, or is ``None``.
        """
        found = self.get(position, *names)
        if found is None:
            raise RuntimeError(f'expected the argument `{names[0]}` at position {position} of a call with '
                               f'{len(self.args)} positional and the keyword arguments {sorted(self.kwargs)}')
        return found


@dataclass
class ModuleTap(AbstractContextManager):
    """Records each call of ``module`` until the ``with`` is left; no hook stays behind.

    A call that does not go through ``module(...)`` (``module.forward(...)``) is not seen.
    """

    module: nn.Module
    name: str
    calls: list[Call] = field(default_factory=list)

    def __enter__(self) -> ModuleTap:
        self._hook = self.module.register_forward_hook(self._record, with_kwargs=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._hook.remove()

    def _record(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        self.calls.append(Call(args, kwargs, output))

    def only(self) -> Call:
        """The single call.

        Raises:
            RuntimeError: If there were more or none.
        """
        if len(self.calls) != 1:
            raise RuntimeError(f'expected one call of {self.name}, saw {len(self.calls)}')
        return self.calls[0]
