"""A checkpoint's pickle, read by names that are known: what a checkpoint holds, and nothing that runs code.

``torch.load(weights_only=True)`` is not enough here. MMEngine's own checkpoints hold its ``HistoryBuffer``, whose
pickle calls ``builtins.getattr``; torch can allow that only for all attributes of everything, and torch 2.1 to 2.3
cannot allow anything. An unpickler of our own does the same for every version of torch, and stands in for
:mod:`pickle` as the ``pickle_module`` of ``torch.load``.
"""

from __future__ import annotations

import _compat_pickle
import argparse
import collections
import copyreg
import datetime
import functools
import pathlib
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from torch import Tensor, nn


class Refused(pickle.UnpicklingError):
    """The pickle wants something that no checkpoint needs; the text is its name."""


class Unpickler(pickle._Unpickler):
    """Finds what is named in :func:`known`, calls it, and sets the state of instances alone."""

    # of the unpickler written in Python, which typeshed takes for the one written in C
    proto: int
    stack: list[Any]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if self.proto < 3:  # torch's own protocol is 2, which writes Python 2's names
            renamed = _compat_pickle.IMPORT_MAPPING.get(module, module), name
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), renamed)
        name = f'{module}.{name}'
        if name not in known():
            raise Refused(name)
        return known()[name]

    def load_build(self) -> None:
        # a state given to a function or a class would change it for the whole process
        if not isinstance(self.stack[-2], STATEFUL):
            raise Refused(f'the state of {type(self.stack[-2]).__name__}')
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build


def load(file: BinaryIO, **options: Any) -> Any:
    """As ``pickle.load``, which ``torch.load`` calls for files older than torch 1.6."""
    return Unpickler(file, **options).load()


STATEFUL = (Tensor, nn.Parameter, collections.OrderedDict, HistoryBuffer, np.ndarray, np.dtype, ConfigDict,
            argparse.Namespace)
ATTRIBUTES = {
    HistoryBuffer: ('min', 'max', 'mean', 'current'),
    OneCycleParamScheduler: ('_annealing_cos', '_annealing_linear'),
}
"""Of which class a pickle may take which functions: ``HistoryBuffer`` writes down its statistics by them."""


def _getattr(owner: Any, name: str) -> Any:
    if isinstance(owner, type) and name in ATTRIBUTES.get(owner, ()):
        return getattr(owner, name)
    raise Refused(f'builtins.getattr({owner!r}, {name!r})')


def _encode(text: str, encoding: str) -> bytes:
    """How NumPy and pickle write bytes in the old protocols; another codec's name would import a module."""
    if encoding not in ('latin1', 'latin-1'):
        raise Refused(f'_codecs.encode to {encoding!r}')
    return text.encode('latin1')


def _reconstructor(cls: type, base: type, state: Any) -> Any:
    if cls not in STATEFUL:
        raise Refused(f'copyreg._reconstructor of {cls!r}')
    return copyreg._reconstructor(cls, base, state)  # type: ignore[attr-defined]


@functools.cache
def known() -> dict[str, Callable]:
    """What a checkpoint may name: plain values, NumPy's arrays, torch's tensors, and the few classes of MMEngine's.

    Under the names of NumPy 1 and 2, whichever is installed here.
    """
    plain = (complex, bytearray, set, frozenset, slice, range, bytes, int, float, str, bool, list, tuple, dict, object)
    found: dict[str, Callable] = {f'builtins.{kind.__name__}': kind for kind in plain}
    found.update({'builtins.getattr': _getattr, '_codecs.encode': _encode, 'copyreg._reconstructor': _reconstructor,
                  'argparse.Namespace': argparse.Namespace})
    found.update({f'collections.{kind.__name__}': kind
                  for kind in (collections.OrderedDict, collections.Counter, collections.defaultdict,
                               collections.deque)})
    found.update({f'datetime.{kind.__name__}': kind
                  for kind in (datetime.date, datetime.datetime, datetime.timedelta)})
    for module in ('pathlib', 'pathlib._local'):  # the second since Python 3.13
        found.update({f'{module}.{name}': pathlib.Path for name in ('PosixPath', 'WindowsPath')})
        found.update({f'{module}.Pure{name}': pathlib.PurePath for name in ('PosixPath', 'WindowsPath')})
    found.update({'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
                  'mmengine.config.config.ConfigDict': ConfigDict,
                  f'{OneCycleParamScheduler.__module__}.OneCycleParamScheduler': OneCycleParamScheduler})
    found.update({f'{owner.__module__}.{owner.__name__}.{name}': getattr(owner, name)  # protocols since 4
                  for owner, names in ATTRIBUTES.items() for name in names})
    return {**found, **_numpys(), **_torchs()}


def _numpys() -> dict[str, Callable]:
    # 1.26 has a `_core`, too, with next to nothing in it
    core = np._core if hasattr(np, '_core') and not np.__version__.startswith('1.') else np.core
    found: dict[str, Callable] = {'numpy.ndarray': np.ndarray, 'numpy.dtype': np.dtype}
    found.update({f'numpy.{kind.__name__}': kind for kind in {*np.sctypeDict.values()}
                  if kind not in (np.object_, np.void)})
    for name in ('core', '_core'):
        found[f'numpy.{name}.multiarray._reconstruct'] = core.multiarray._reconstruct
        found[f'numpy.{name}.multiarray.scalar'] = core.multiarray.scalar
        found[f'numpy.{name}.numeric._frombuffer'] = core.numeric._frombuffer
    return found


def _torchs() -> dict[str, Callable]:
    rebuild = ('_rebuild_tensor', '_rebuild_tensor_v2', '_rebuild_tensor_v3', '_rebuild_parameter',
               '_rebuild_parameter_with_state', '_rebuild_sparse_tensor', '_rebuild_qtensor',
               '_rebuild_device_tensor_from_numpy', '_rebuild_meta_tensor_no_storage')
    found = {f'torch._utils.{name}': getattr(torch._utils, name) for name in rebuild if hasattr(torch._utils, name)}
    kinds = (torch.dtype, torch.layout, torch.qscheme)
    found.update({f'torch.{name}': value for name, value in vars(torch).items() if isinstance(value, kinds)})
    found.update({'torch.Size': torch.Size, 'torch.device': torch.device, 'torch.Tensor': Tensor,
                  'torch._tensor.Tensor': Tensor, 'torch._tensor._rebuild_from_type_v2':
                  torch._tensor._rebuild_from_type_v2, 'torch.nn.parameter.Parameter': nn.Parameter,
                  'torch.serialization._get_layout': torch.serialization._get_layout,
                  'torch.torch_version.TorchVersion': torch.torch_version.TorchVersion})
    return found
