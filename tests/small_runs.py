"""Whole training runs of a toy detector on a handful of DigitScenes, in this process."""

from __future__ import annotations

import itertools
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from ckd_mmdet.config import add_hook
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.toys import toy_config

ROOT = Path(__file__).parents[1]
_runs = itertools.count()


def student_config() -> dict:
    """A toy Faster R-CNN for the ten digits, with mmdet's own preprocessing."""
    return toy_config('faster_rcnn', num_classes=len(CLASSES))


def distilled(student: dict, teacher: dict, losses: dict[str, dict] | None = None, **roi: Any) -> dict:
    """A Distiller with one alignment, ``roi``; a random teacher may teach it."""
    losses = losses or dict(loss_ckd=dict(type='CKDLoss'))
    return dict(type='ckd_mmdet.Distiller', student=student, teacher=dict(check_accuracy=False, **teacher),
                alignments=dict(roi=dict(aligner=dict(type='RoIAligner'), losses=losses, **roi)))


def run_config(model: dict, data: Path, work_dir: Path, *, epochs: int = 2, workers: int = 0,
               ema: bool = False) -> Config:
    """A run of 4 steps an epoch with random flips, validated and saved after every epoch."""
    start = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
             dict(type='Resize', scale=(64, 64), keep_ratio=True)]
    meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')

    def loader(split: str, pipeline: list, **dataset: Any) -> dict:
        return dict(
            batch_size=4, num_workers=workers, persistent_workers=workers > 0,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            dataset=dict(type='CocoDataset', data_root=str(data), metainfo=dict(classes=CLASSES),
                         ann_file=f'annotations/{split}.json', data_prefix=dict(img=f'{split}/'), pipeline=pipeline,
                         **dataset))

    train = loader('train', [*start, dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')])
    val = loader('val', [*start, dict(type='PackDetInputs', meta_keys=meta_keys)], test_mode=True)
    evaluator = dict(type='CocoMetric', ann_file=str(data / 'annotations/val.json'), metric='bbox')
    return Config(dict(
        default_scope='mmdet', model=model, work_dir=str(work_dir), experiment_name=f'run_{next(_runs)}',
        train_dataloader=train, val_dataloader=val, test_dataloader=val, val_evaluator=evaluator,
        test_evaluator=evaluator, train_cfg=dict(by_epoch=True, max_epochs=epochs, val_interval=1), val_cfg=dict(),
        test_cfg=dict(), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01, momentum=0.9)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, save_best='coco/bbox_mAP'),
                           logger=dict(type='LoggerHook', interval=1)),
        custom_hooks=[dict(type='EMAHook', momentum=0.1, update_buffers=True)] if ema else [],
        randomness=dict(seed=3), log_level='WARNING'))


class Record(Hook):
    """Keeps what each step logged."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        self.steps.append({key: float(value) for key, value in outputs.items()})


def train(cfg: Config) -> list[dict[str, float]]:
    """What the steps of the run logged."""
    add_hook(cfg)
    runner, record = Runner.from_cfg(cfg), Record()
    runner.register_hook(record)
    runner.train()
    for loop in filter(None, (runner.train_loop, runner.val_loop)):
        loop.dataloader._iterator = None  # ends persistent workers at once; the garbage collector waits 5 s for each
    return record.steps


def run_tool(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str | Path) -> None:
    """Run ``tools/<name>.py`` in this process; ``--cfg-options`` come last."""
    argv = [f'tools/{name}.py', *map(str, arguments)]
    if name in ('train', 'test'):
        # MMEngine keeps what it logs by the experiment's name
        argv += [*(['--cfg-options'] if '--cfg-options' not in argv else []), f'experiment_name=run_{next(_runs)}']
    with monkeypatch.context() as patch:
        patch.setattr(sys, 'argv', argv)
        patch.setenv('LOCAL_RANK', '0')  # the tool sets it, the context takes it back
        runpy.run_path(str(ROOT / 'tools' / f'{name}.py'), run_name='__main__')


def metrics(work_dir: Path) -> dict[str, float]:
    """What the only test run in ``work_dir`` wrote."""
    written, = work_dir.glob('*/*.json')
    return json.loads(written.read_text())
