"""A run resumed from the end of an epoch gives the model the inputs that it would have had without the stop."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
import torch
from ckd_mmdet.seeding import ExactResume
from mmdet.models import data_preprocessors
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from tests.small_runs import Record, run_config

EPOCHS, STEPS = 3, 4
SIZE = (64, 64)
START = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
         dict(type='Resize', scale=SIZE, keep_ratio=True)]
FLIP = dict(type='RandomFlip', prob=0.5)
PACK = dict(type='PackDetInputs')
MOSAIC = dict(type='CachedMosaic', img_scale=SIZE, max_cached_images=5)
MIXUP = dict(type='CachedMixUp', img_scale=SIZE, max_cached_images=3)
CROP = dict(type='RandomCrop', crop_size=SIZE)

LARGER = dict(type='BatchSyncRandomResize', random_size_range=(96, 160))
AUGMENTS = {
    'none': None,
    'padded': [dict(type='BatchFixedSizePad', size=(96, 80))],
    'resized': [dict(type='BatchResize', scale=(96, 72), pad_size_divisor=32)],
    'of random size': [dict(**LARGER, interval=3)],  # drawn in the middle of epochs
    'seldom of another size': [dict(**LARGER, interval=7)],  # drawn after step 7, kept until step 14
    'of random size, padded': [dict(**LARGER, interval=1), dict(type='BatchFixedSizePad', size=(192, 192))],
}
PIPELINES = {
    'CachedMosaic': [*START, MOSAIC, CROP, FLIP, PACK],
    'CachedMixUp': [*START, MIXUP, FLIP, PACK],
    'both': [*START, MOSAIC, CROP, MIXUP, FLIP, PACK],
    'both, in another': [*START, dict(type='RandomApply', transforms=[MOSAIC, CROP, MIXUP], prob=0.9), FLIP, PACK],
}
MIXED = [dict(type='Mosaic', img_scale=SIZE), dict(type='RandomAffine', border=(-32, -32)),
         dict(type='MixUp', img_scale=SIZE), FLIP, PACK]


@MODELS.register_module()
class PreprocessedInSeveralWays(BaseDataPreprocessor):
    """Gives what MMDetection's preprocessor makes of a batch with each of some ``batch_augments``."""

    def __init__(self, batch_augments: dict[str, list | None]) -> None:
        super().__init__()
        self.ways = nn.ModuleDict({name: MODELS.build(dict(type='DetDataPreprocessor', batch_augments=augments))
                                   for name, augments in batch_augments.items()})

    def forward(self, data: dict, training: bool = False) -> dict:
        return dict(batches={name: way(copy.deepcopy(data), training) for name, way in self.ways.items()})


@MODELS.register_module()
class DigestOfInputs(BaseModel):
    """Learns nothing, and logs a number for the inputs and boxes that it is given, which is another for others."""

    def __init__(self, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batches: dict[str, dict], mode: str) -> dict[str, Tensor]:
        logged = dict(loss=self.weight.sum())
        for name, batch in batches.items():
            inputs, boxes = batch['inputs'], [sample.gt_instances.bboxes for sample in batch['data_samples']]
            digest = hashlib.sha256(b''.join(part.numpy().tobytes() for part in (inputs, *boxes))).digest()
            logged[name] = torch.tensor(float(int.from_bytes(digest[:3], 'big')))
            logged[f'height, {name}'] = torch.tensor(float(inputs.shape[2]))
        return logged


def config(data: Path, work_dir: Path, workers: int = 0, augments: dict | None = None,
           pipeline: list | None = None) -> Config:
    preprocessor = dict(type='PreprocessedInSeveralWays', batch_augments=augments or dict(none=None))
    cfg = run_config(dict(type='DigestOfInputs', data_preprocessor=preprocessor), data, work_dir, epochs=EPOCHS,
                     workers=workers)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    cfg.default_hooks.checkpoint.save_best = None
    if pipeline is not None:
        cfg.train_dataloader.dataset.pipeline = pipeline
    return cfg


def steps(cfg: Config, *hooks: Hook) -> list[dict[str, float]]:
    runner, record = Runner.from_cfg(cfg), Record()
    for hook in (record, *hooks, ExactResume()):
        runner.register_hook(hook)
    runner.train()
    runner.train_dataloader._iterator = None  # ends persistent workers at once
    return record.steps


def check_that_resuming_is_exact(cfg: Config, folder: Path) -> list[dict[str, float]]:
    """Gives what the whole run logged."""
    whole, again = steps(cfg), cfg.copy()
    again.merge_from_dict(dict(work_dir=str(folder / 'rest'), experiment_name=f'{cfg.experiment_name}_rest', resume=True,
                               load_from=str(Path(cfg.work_dir) / 'epoch_2.pth')))
    rest = steps(again)
    assert len(whole) == EPOCHS * STEPS and rest == whole[2 * STEPS:]
    assert len({step['none'] for step in whole}) == len(whole)  # or equal steps would say little
    return whole


@pytest.fixture(params=[0, 2])
def workers(request: pytest.FixtureRequest) -> int:
    return request.param


def test_every_batch_augment_is_tried() -> None:
    batch = {name for name, part in vars(data_preprocessors).items() if name.startswith('Batch')}
    assert batch == {augment['type'] for augments in AUGMENTS.values() for augment in augments or ()}


def test_with_batch_augments(workers: int, digits: Path, tmp_path: Path) -> None:
    whole = check_that_resuming_is_exact(config(digits, tmp_path, workers, AUGMENTS), tmp_path)
    sizes = {name: [step[f'height, {name}'] for step in whole] for name in AUGMENTS}
    assert len(set(sizes['none'])) == 1 and len(set(sizes['of random size'])) > 1
    assert sizes['seldom of another size'][6] != sizes['seldom of another size'][7]


@pytest.mark.parametrize(('name', 'workers'), [*((name, 0) for name in PIPELINES), ('both', 2)])
def test_with_cached_images(name: str, workers: int, digits: Path, tmp_path: Path) -> None:
    check_that_resuming_is_exact(config(digits, tmp_path, workers, pipeline=PIPELINES[name]), tmp_path)


def test_with_a_data_set_that_mixes_images(workers: int, digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path, workers, pipeline=START[:2])
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=cfg.train_dataloader.dataset,
                                        pipeline=MIXED)
    check_that_resuming_is_exact(cfg, tmp_path)


@pytest.mark.parametrize('workers', [0, 2])
def test_with_a_pipeline_that_changes_with_the_epoch(workers: int, digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path, workers, pipeline=PIPELINES['CachedMosaic'])
    cfg.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=PIPELINES['CachedMixUp'])]
    check_that_resuming_is_exact(cfg, tmp_path)
