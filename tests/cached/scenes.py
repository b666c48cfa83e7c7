"""A toy run on a few scenes, and the cache of its teacher."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.cached.build import Kept, build_cache
from ckd_mmdet.lab.datasets.digit_scenes import CLASSES
from mmengine.config import Config

from tests.small_runs import run_config
from tests.toys import saved_teacher, toy_config

ALIGNMENTS = dict(
    objects=dict(object=dict(aligner=dict(type='ObjectAligner'), losses=dict(loss_kd=dict(type='KDLoss')))),
    deformable_detr=dict(query=dict(aligner=dict(type='QueryAligner', layers='all'),
                                    losses=dict(loss_kd=dict(type='KDLoss')))),
    retinanet=dict(dense=dict(aligner=dict(type='DenseAligner'), selector=dict(type='TeacherTopK', k=24),
                              losses=dict(loss_kd=dict(type='KDLoss')))),
    faster_rcnn=dict(roi=dict(aligner=dict(type='RoIAligner'), losses=dict(loss_kd=dict(type='KDLoss'))),
                     rpn=dict(aligner=dict(type='DenseAligner', head='rpn_head'),
                              selector=dict(type='TeacherTopK', k=16), losses=dict(loss_kd=dict(type='KDLoss')))))


def toy_run(name: str, data: Path, folder: Path, **run: Any) -> Config:
    """A distilled run of a toy on 16 scenes, flipped or not."""
    config = toy_config('retinanet' if name == 'objects' else name, num_classes=len(CLASSES))
    checkpoint = saved_teacher(folder, config, classes=CLASSES)
    teacher = dict(config=copy.deepcopy(config), checkpoint=checkpoint, check_accuracy=False)
    model = dict(type='ckd_mmdet.Distiller', student=config, teacher=teacher, alignments=ALIGNMENTS[name])
    return run_config(model, data, folder / 'run', **run)


def cached(cfg: Config, out: Path, **kept: Any) -> Config:
    """The same run with a cache of its teacher, which is written."""
    build_cache(cfg, out, Kept(**{'k': 64, 'boxes': 16, **kept}), say=lambda text: None)
    made = Config(cfg.to_dict())
    made.model.teacher = dict(cache=str(out), check_accuracy=False)
    return made


def half(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.half().float()
