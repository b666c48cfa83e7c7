"""What was chosen, and why, in a few lines of text."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ckd_mmdet.text import plain
from mmengine.config import Config


def explain(cfg: Config) -> str:
    """What :func:`distill_config` chose and why, a few lines of text."""
    rows = [('teacher', f"{named(cfg.model.teacher.config)}, weights {cfg.model.teacher.checkpoint}"),
            *(('method', chosen) for chosen in cfg.distillation.get('method', [])),
            *(('aligner', chosen) for chosen in cfg.distillation.aligner),
            *(('', f'({reason})') for reason in cfg.distillation.refused)]
    seen: dict[str, list[str]] = {}  # the stages of a cascade are alike
    for name, alignment in cfg.model.alignments.items():
        losses = [f'{call({**loss, "loss_weight": None})}, weight {loss.loss_weight}'
                  for loss in alignment.losses.values()]
        seen.setdefault(f'{" and ".join(losses)}, on {rows_of(alignment)}', []).append(name)
    rows += [('loss', f'{text} ({", ".join(names)})') for text, names in seen.items()]
    costs: dict[str, list[str]] = {}
    for name, words in cfg.distillation.rows.items():
        costs.setdefault(words, []).append(name)
    rows += [('rows', f'{words} ({", ".join(names)})') for words, names in costs.items()]
    rows.append(('classes', cfg.distillation.classes))
    if cfg.get('work_dir'):
        rows.append(('config', os.path.join(cfg.work_dir, os.path.basename(cfg.filename))))
    return '\n'.join(f'{name:<10}{plain(text)}' for name, text in rows)


def rows_of(alignment: Mapping[str, Any]) -> str:
    """What the selectors leave, in words."""
    if 'selector' not in alignment:
        return 'maps'
    chain = alignment['selector'] if isinstance(alignment['selector'], list) else [alignment['selector']]
    return f'the rows of {", then ".join(map(call, chain))}'


def named(config: str | Path | Config | dict) -> str:
    """The name of a config: its path or file name, where it has one."""
    if isinstance(config, str | Path):
        return str(config)
    return getattr(config, 'filename', None) or 'a given config'


def call(cfg: Mapping[str, Any]) -> str:
    """``TeacherTopK(k=1024)`` from its config."""
    given = ', '.join(f'{key}={value!r}' for key, value in cfg.items() if key != 'type' and value is not None)
    return f'{cfg["type"]}({given})' if given else cfg['type']
