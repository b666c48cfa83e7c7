"""An ordinary student out of a training checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.runner import CheckpointLoader


def export_student(checkpoint: str | Path, out: str | Path) -> Path:
    """Write the student's weights and class names, nothing of the optimizer and nothing of the distillation.

    Args:
        checkpoint: A checkpoint of a distilled or a plain run. With EMA, mmengine keeps the averaged weights under
            ``state_dict``: those are taken.
        out: File to write.

    Returns:
        ``out``.

    Raises:
        ValueError: If ``checkpoint`` holds no ``state_dict``.
    """
    loaded = CheckpointLoader.load_checkpoint(str(checkpoint), map_location='cpu')
    if 'state_dict' not in loaded:
        raise ValueError(f'`checkpoint` needs a training checkpoint with a `state_dict`, {checkpoint} has none.')
    meta = loaded.get('meta', {})
    kept = {key: meta[key] for key in ('dataset_meta', 'ckd_mmdet', 'epoch', 'iter') if key in meta}
    weights = {key: value for key, value in loaded['state_dict'].items() if not key.startswith('distiller.')}
    torch.save(dict(meta=kept, state_dict=weights), out)
    return Path(out)
