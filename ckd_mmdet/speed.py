"""How fast the teacher answers: half precision, folded BatchNorm, channels last, a compiled body."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.aligners import extract_maps, is_classifier
from ckd_mmdet.aligners.dense import class_columns
from ckd_mmdet.folding import fold_batch_norms
from mmengine.device import get_device
from torch import Tensor, nn
from torch.utils._pytree import tree_map

PRECISIONS = (None, 'fp32', 'bf16', 'fp16', 'auto')
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
NATIVE_BF16 = {'avx512_bf16', 'amx_bf16', 'bf16'}
"""Of the words by which Linux describes a processor, those that stand for arithmetic in bfloat16."""
AMPERE = (8, 0)
"""NVIDIA's first generation that computes in bfloat16."""


@dataclass(frozen=True)
class TeacherSpeed:
    """How the teacher computes; it never changes how the student does.

    Args:
        precision: ``None``: as the student's step does, in half precision under ``--amp``. ``'fp32'``: always in
            float32. ``'bf16'`` and ``'fp16'``: convolutions and matrix products of its body, its transformer and its
            heads by autocast; the features of its neck and its logits leave as float32, and the last layer of RoI
            heads, queries and classifiers computes in float32. ``'auto'``: bf16 where the device computes it natively,
            else float32.
        channels_last: Whether its weights and inputs lie in memory channels last.
        fuse: Whether each BatchNorm of backbone and neck is folded into the convolution before it.
        compile: Whether backbone and neck are compiled, for images of any size.

    Raises:
        ValueError: If an argument is none of these, or no device here computes in that precision.
    """

    precision: str | None = None
    channels_last: bool = False
    fuse: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f'`teacher.precision` needs one of {PRECISIONS}, got {self.precision!r}.')
        for name in ('channels_last', 'fuse', 'compile'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'`teacher.{name}` needs True or False, got {getattr(self, name)!r}.')
        self.dtype(torch.device(get_device()))

    def dtype(self, device: torch.device) -> torch.dtype | None:
        """The type in which the teacher computes on a device; ``None`` where the student's step decides.

        Raises:
            ValueError: If the device cannot.
        """
        if self.precision is None:
            return None
        if self.precision == 'auto':
            return torch.bfloat16 if computes_bf16(device.type) else torch.float32
        if self.precision == 'fp16' and device.type == 'cpu':
            raise ValueError("`teacher.precision='fp16'` needs a GPU, and the teacher is on a CPU; take 'bf16', 'auto' "
                             "or 'fp32'.")
        return DTYPES[self.precision]

    def computing(self, device: torch.device) -> AbstractContextManager:
        """The precision, for what is called within the ``with``."""
        dtype = self.dtype(device)
        if dtype is None:
            return nullcontext()
        if dtype == torch.float32:
            return torch.autocast(device.type, enabled=False)
        return torch.autocast(device.type, dtype=dtype)

    def prepare(self, model: nn.Module) -> None:
        """Make a trained model in evaluation mode ready, in place.

        Raises:
            ValueError: If there is no BatchNorm to fold, or folding changes the features.
        """
        if self.fuse:
            fold_batch_norms(model)
        if self.channels_last:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # its stubs lack it
        if self.precision is not None:
            for part in parts_in_half(model):
                part.forward = partial(_computing, self, part)
            for part in last_layers(model):
                part.forward = partial(_in_float32, part)

    def body(self, model: nn.Module) -> Callable[[Tensor], Sequence[Tensor]]:
        """What gives a model's features ``(N, d, h', w')``, one a level, for inputs ``(N, 3, h, w)``."""
        extract = partial(extract_maps, model)
        return torch.compile(extract, dynamic=True) if self.compile else extract

    def features(self, body: Callable[[Tensor], Sequence[Tensor]], inputs: Tensor) -> Sequence[Tensor]:
        """What a body gives for inputs."""
        if self.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with self.computing(inputs.device):
            features = body(inputs)
        return features if self.precision is None else tree_map(_widened, features)

    def told(self, device: torch.device) -> str:
        """In words, what it is on a device; '' where nothing was chosen."""
        dtype = self.dtype(device)
        words = [] if dtype is None else [f'in {str(dtype).removeprefix("torch.")}']
        if self.precision == 'auto' and dtype == torch.float32:
            words[0] += f' (this {device.type} does not compute bfloat16 natively)'
        choices = {'with channels last': self.channels_last, 'with BatchNorm folded': self.fuse,
                   'compiled': self.compile}
        words += [word for word, chosen in choices.items() if chosen]
        return ', '.join(words)


def _computing(speed: TeacherSpeed, part: nn.Module, *args: Any, **kwargs: Any) -> Any:
    device = next(part.parameters()).device
    with speed.computing(device):
        return tree_map(_widened, type(part).forward(part, *args, **kwargs))


def _in_float32(part: nn.Module, inputs: Tensor) -> Tensor:
    with torch.autocast(inputs.device.type, enabled=False):
        return type(part).forward(part, inputs.float())


def _widened(value: Any) -> Any:
    narrow = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if narrow else value


@cache
def computes_bf16(device: str) -> bool:
    """Whether the devices of a kind compute in bfloat16 natively, as far as is known.

    Args:
        device: ``'cpu'`` or ``'cuda'``; of others it is not known.
    """
    if device == 'cuda':
        return all(torch.cuda.get_device_capability(i) >= AMPERE for i in range(torch.cuda.device_count()))
    described = Path('/proc/cpuinfo')
    return device == 'cpu' and described.exists() and bool(NATIVE_BF16 & set(described.read_text().split()))


def parts_in_half(model: nn.Module) -> list[nn.Module]:
    """What computes after the neck and is worth half precision: dense heads, RoI heads, transformers."""
    roi_head = getattr(model, 'roi_head', None)
    found = [part for part in model.modules() if class_columns(part) is not None]
    for holder, names in ((roi_head, ('bbox_head', 'shared_head')), (model, ('encoder', 'decoder'))):
        for name in names:
            part = getattr(holder, name, None)
            found += list(part) if isinstance(part, nn.ModuleList) else [part] if isinstance(part, nn.Module) else []
    return list(dict.fromkeys(found))


def last_layers(model: nn.Module) -> list[nn.Module]:
    """The small layers that end in class scores: ``fc_cls`` of RoI heads, all of a query or a classifier's head."""
    head = getattr(model, 'head' if is_classifier(model) else 'bbox_head', None)
    if not isinstance(head, nn.Module) or class_columns(head) is not None:
        head = None
    found = [part for name, part in model.named_modules() if name.rpartition('.')[2] == 'fc_cls']
    return found + [part for part in (head.modules() if head is not None else ()) if type(part) is nn.Linear]
