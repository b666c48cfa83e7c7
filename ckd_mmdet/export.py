"""An ordinary student out of a training checkpoint."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.checkpoints import LEARNED, read_checkpoint
from ckd_mmdet.files import write_whole
from torch import Tensor


def export_student(checkpoint: str | Path, out: str | Path, overwrite: bool = False, half: bool = False) -> Path:
    """Write the student's weights and class names, nothing of the optimizer and nothing of the distillation.

    Args:
        checkpoint: A checkpoint of a distilled or a plain run. With EMA, mmengine keeps the averaged weights under
            ``state_dict``: those are taken.
        out: File to write.
        overwrite: Whether an existing file may be replaced.
        half: Whether the weights are written in half precision: half the size, loaded like others.

    Returns:
        ``out``.

    Raises:
        ValueError: If ``checkpoint`` holds no ``state_dict``, or weights that are not finite; if ``out`` is there.
        OSError: If it cannot be written.
    """
    out = Path(out)
    if out.exists():
        if os.path.exists(checkpoint) and os.path.samefile(checkpoint, out):
            raise ValueError(f'`out` needs another file than `checkpoint`, {out} is the same: the training checkpoint '
                             'would be lost.')
        if out.is_dir():
            raise ValueError(f'`out` needs a file, {out} is a folder; give {out / "student.pth"}.')
        if not overwrite:
            raise ValueError(f'`out` needs a new file, {out} is there; give another name, or allow it with '
                             '`--overwrite` (in Python, `overwrite=True`).')
    loaded, weights = read_checkpoint(checkpoint, 'checkpoint')
    if 'state_dict' not in loaded:
        raise ValueError(f'`checkpoint` needs a training checkpoint with a `state_dict`, {checkpoint} has none.')
    meta = loaded.get('meta')
    return write_student(in_half(weights) if half else weights, meta if isinstance(meta, Mapping) else {}, out)


def in_half(weights: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Weights in half precision.

    Raises:
        ValueError: If a finite one is beyond its range, 65504.
    """
    halved: OrderedDict[str, Any] = OrderedDict()
    for key, value in weights.items():
        is_real = isinstance(value, Tensor) and value.is_floating_point()
        halved[key] = value.half() if is_real else value
        if is_real and bool((halved[key].isfinite() != value.isfinite()).any()):
            raise ValueError(f'`--half` needs weights between -65504 and 65504, {key!r} has {value.abs().max():g}; '
                             'export without it.')
    if hasattr(weights, '_metadata'):
        halved._metadata = weights._metadata  # type: ignore[attr-defined]  # where torch keeps it
    return halved


def write_student(state_dict: Mapping[str, Tensor], meta: Mapping[str, Any], out: str | Path) -> Path:
    """Write a plain student's file, whole or not at all; an existing one is replaced.

    Args:
        state_dict: The weights; what distillation learned is left out.
        meta: Of a training checkpoint; the class names, the teacher, epoch and iteration are kept.
        out: File to write.

    Returns:
        ``out``.

    Raises:
        ValueError: If a weight is not finite.
        OSError: If it cannot be written; of a full disk the text says how much was wanted.
    """
    weights: OrderedDict[str, Any] = OrderedDict(
        (key, value.detach().cpu() if isinstance(value, Tensor) else value)
        for key, value in state_dict.items() if not key.startswith(LEARNED))
    if hasattr(state_dict, '_metadata'):
        weights._metadata = state_dict._metadata  # type: ignore[attr-defined]  # where torch keeps it
    for key, value in weights.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            raise ValueError(f'a student needs finite weights, {key!r} has NaN or infinite values: the training '
                             f'diverged. {out} was not written; export an earlier checkpoint, and train with a lower '
                             'learning rate or loss weight.')
    kept = {key: meta[key] for key in ('dataset_meta', 'ckd_mmdet', 'epoch', 'iter') if key in meta}
    content = io.BytesIO()
    torch.save(dict(meta=kept, state_dict=weights), content)
    write_whole(Path(out), content.getvalue())
    return Path(out)
