"""Shipped configs with random weights or none, and their trainings cut down to two steps on made data."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401
import numpy as np
import pytest
import torch
from ckd_mmdet.config import read_config
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.registry import DATASETS, MODELS
from PIL import Image
from torch import nn


def clear_pretrained(cfg: Any) -> None:
    """Take back every ``init_cfg`` and ``pretrained``, which would download, in place."""
    if isinstance(cfg, dict):
        for key in cfg:
            if key in ('init_cfg', 'pretrained'):
                cfg[key] = None
            else:
                clear_pretrained(cfg[key])
    elif isinstance(cfg, list | tuple):
        for part in cfg:
            clear_pretrained(part)


def build(cfg: Config) -> nn.Module:
    model = copy.deepcopy(cfg.model)
    clear_pretrained(model)
    if cfg.get('data_preprocessor'):
        model.data_preprocessor = copy.deepcopy(cfg.data_preprocessor)
    model._scope_ = cfg.get('default_scope', 'mmdet')
    return MODELS.build(model)


@contextmanager
def shapes_alone() -> Iterator[None]:
    """Models are built without memory; their data preprocessors' few numbers are read, and stay."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (BaseDataPreprocessor, ImgDataPreprocessor, *_of_classifiers()):
            patch.setattr(kind, '__init__', _on_cpu(kind.__init__))
        patch.setattr(torch, 'linspace', _on_cpu(torch.linspace))  # MMPretrain's ResNet reads them too
        with torch.device('meta'):
            yield


def _on_cpu(function: Any) -> Any:
    def called(*args: Any, **kwargs: Any) -> Any:
        with torch.device('cpu'):
            return function(*args, **kwargs)
    return called


def _of_classifiers() -> list[type]:
    try:
        from mmpretrain.models import ClsDataPreprocessor
    except ImportError:
        return []
    return [ClsDataPreprocessor]


def narrow(model: Any) -> None:
    """An eighth of a ResNet's channels, few layers and queries of a transformer, in place; heads and necks stay."""
    if model.backbone.type == 'ResNet' and 'base_channels' not in model.backbone:
        model.backbone.base_channels = model.backbone.stem_channels = 8
        model.neck.in_channels = [width // 8 for width in model.neck.in_channels]
    if 'num_queries' in model:
        model.num_queries, model.encoder.num_layers, model.decoder.num_layers = 20, 1, 2
        if 'dn_cfg' in model:
            model.dn_cfg.group_cfg.num_dn_queries = 10


class RandomTeachers:
    """Checkpoints of models with random weights, saved once for each config and device.

    Made on the device ``meta``, one is of shapes alone, and fits models on that device.

    Args:
        folder: Where they are saved.
        narrowed: Whether the models are :func:`narrow`.
    """

    def __init__(self, folder: Path, narrowed: bool = False) -> None:
        self.folder, self.narrowed, self.saved = folder, narrowed, {}

    def __call__(self, teacher: dict) -> dict:
        """The teacher's config with such a checkpoint."""
        name = teacher['config']
        key = name, str(torch.empty(0).device)
        cfg = read_config(name)
        if self.narrowed and cfg.default_scope == 'mmdet':
            narrow(cfg.model)
            teacher = {**teacher, 'config': cfg.to_dict()}
        if key not in self.saved:
            self.saved[key] = str(self.folder / f'{len(self.saved)}.pth')
            meta = dict(dataset_meta=CocoDataset.METAINFO) if name.endswith('coco.py') else {}
            model = build(cfg)
            if hasattr(model, 'level_embed'):  # as the memory was until init_weights(), now and then NaN
                nn.init.normal_(model.level_embed)
            torch.save(dict(meta=meta, state_dict=model.state_dict()), self.saved[key])
        # without memory a tensor is rebuilt by a function that no ordinary checkpoint asks for, and no image is read
        shapes = dict(trusted=True, check_preprocessing=False) if key[1] == 'meta' else {}
        return {**teacher, 'checkpoint': self.saved[key], 'check_accuracy': False, **shapes}


def write_tiny_coco(root: Path) -> None:
    """Two noise images with three boxes each, where COCO's training set would lie."""
    (root / 'annotations').mkdir(parents=True)
    (root / 'train2017').mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / f'train2017/{i}.jpg')
        images.append(dict(id=i, file_name=f'{i}.jpg', width=96, height=64))
        for category, box in ((1, [4, 6, 40, 30]), (18, [50, 10, 30, 40]), (80, [20, 30, 24, 24])):
            x, y, w, h = box
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            boxes.append(dict(id=len(boxes), image_id=i, category_id=category, bbox=box, area=w * h, iscrowd=0,
                              segmentation=[outline]))
    categories = [dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
    coco = dict(images=images, annotations=boxes, categories=categories)
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(coco))


def two_steps(cfg: Config, folder: Path, scenes: Path) -> Config:
    """The training cut down to two steps of a few images: tiny COCO, two of ``scenes``, or ten handwritten digits."""
    cfg = copy.deepcopy(cfg)
    clear_pretrained(cfg.model)
    loader, per_epoch = cfg.train_dataloader, 1
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    if cfg.get('default_scope') == 'mmpretrain':
        per_epoch, pack = 2, loader.dataset.pipeline[-1]
        loader.batch_size = 5
        names = (DATASETS.get(f'mmpretrain.{loader.dataset.type}') or DATASETS.get(loader.dataset.type)).METAINFO
        loader.dataset = dict(type='ckd_mmdet.HandwrittenDigits', images_per_class=1, pipeline=[pack],
                              metainfo=dict(names or {}))
    else:
        narrow(cfg.model.student)
        _small_images(cfg, folder, scenes)
    cfg.train_cfg.update(dict(max_iters=2) if 'max_iters' in cfg.train_cfg else dict(max_epochs=2 // per_epoch))
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 1
    cfg.update(work_dir=str(folder), experiment_name=folder.name, log_level='WARNING', randomness=dict(seed=0))
    return cfg


def _small_images(cfg: Config, folder: Path, scenes: Path) -> None:
    dataset = cfg.train_dataloader.dataset
    if 'digit_scenes' in dataset.data_root:
        dataset.update(data_root=str(scenes), indices=2)
    else:
        write_tiny_coco(folder / 'coco')
        dataset.data_root = str(folder / 'coco')
    for step in dataset.pipeline:
        if step.type in ('Resize', 'RandomChoiceResize'):
            step.update(dict(scale=(96, 64)) if 'scale' in step else dict(scales=[(96, 64)]))
        if step.type == 'RandomChoice':  # DETR's: one of two ways to resize
            step.update(transforms=[[dict(type='Resize', scale=(96, 64), keep_ratio=True)]])
    if 'rcnn' in cfg.model.student.get('train_cfg', {}):
        cfg.model.student.train_cfg.rcnn.sampler.num = 32
