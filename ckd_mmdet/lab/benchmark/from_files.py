"""The same distillation with a cache of its teacher, written for the batch of a benchmark."""

from __future__ import annotations

import copy
from pathlib import Path

from ckd_mmdet.alignment import Alignment
from ckd_mmdet.cached.build import Asked, Kept, begin, header_of, part_of
from ckd_mmdet.cached.container import shard_path, write_shard
from ckd_mmdet.cached.teacher import CachedTeacher, asking_cache
from ckd_mmdet.distillation import Distillation
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.registry import TASK_UTILS, build
from mmengine.config import Config
from torch import nn

from .variants import teacher_of


def from_files(student: nn.Module, cfg: Config, batch: dict, folder: Path) -> Distillation:
    """A distillation like the student's own, whose teacher is a cache.

    Args:
        student: The distilled student, paired, with its live teacher.
        cfg: Its config.
        batch: What it is trained on, before preprocessing.
        folder: Where the cache is written.
    """
    live = student.distillation
    parts = [part_of(pairing.alignment, pairing, Kept()) for pairing in live.pairings.values()
             if isinstance(pairing, RowPairing)]
    asked = Asked(teacher_of(student), parts, student.data_preprocessor)
    records = asked.of_batch(**student.data_preprocessor(copy.deepcopy(batch), training=True))
    layers = {name: tensor for part in parts for name, tensor in part.tensors(asked.teacher).items()}
    begin(folder, header_of(asked, [], [], [key[0] for key, _ in records]), layers)
    write_shard(shard_path(folder, 0), records)
    teacher = CachedTeacher(folder)
    teacher.model.to(next(student.parameters()).device)
    made = Distillation({None: teacher}, {name: _asking(name, alignment, cfg)
                                          for name, alignment in live.alignments.items()})
    made.pair(student, None)
    made.judgements.clear()  # the pictures are made up
    return made


def _asking(name: str, alignment: Alignment, cfg: Config) -> Alignment:
    """An alignment with the same losses."""
    settings = asking_cache(name, cfg.model.alignments[name])['aligner']
    kind = settings['type'] if isinstance(settings['type'], type) else TASK_UTILS.get(settings['type'])
    made = copy.copy(alignment)
    made.aligner = build(kind, {key: value for key, value in settings.items() if key != 'type'}, '`aligner`')
    return made
