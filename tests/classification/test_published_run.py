"""PCKD's published configuration, with ten images in the place of CIFAR-100, which nobody has here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.config import read_config
from ckd_mmdet.teacher import build_model
from mmengine.config import Config
from mmpretrain.datasets import CIFAR100

from tests.small_runs import ROOT, train

STEPS, EPOCHS = 2, 2


def run(work_dir: Path, teacher: Path, **changes: Any) -> list[dict[str, float]]:
    cfg = read_config(ROOT / 'configs/classification/pckd/pckd_wrn_40_2-wrn_16_2_240e_cifar100.py')
    cfg.model.teacher = dict(config=str(ROOT / cfg.model.teacher.config), checkpoint=str(teacher), check_accuracy=False)
    loader = cfg.train_dataloader
    loader.update(batch_size=5, num_workers=0, persistent_workers=False)
    loader.dataset = dict(type='ckd_mmdet.HandwrittenDigits', images_per_class=1, pipeline=loader.dataset.pipeline,
                          metainfo=dict(classes=CIFAR100.METAINFO['classes']))
    cfg.train_cfg.update(max_epochs=EPOCHS)
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1),
                             logger=dict(type='LoggerHook', interval=1))
    cfg.update(work_dir=str(work_dir), experiment_name=work_dir.name, log_level='WARNING', randomness=dict(seed=3),
               **changes)
    return train(Config(cfg.to_dict()))


def learned(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=False)['ckd_mmdet']['learned']
    return {f'{loss}.{key}': value for loss, part in state.items() for key, value in part.items() if 'parts.' in key}


@pytest.fixture(scope='module')
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('teacher') / 'wrn_40_2.pth'
    cfg = read_config(ROOT / 'configs/classification/baselines/wrn_40_2_240e_cifar100.py')
    torch.save(dict(state_dict=build_model(cfg).state_dict()), path)
    return path


def test_it_steps_and_resumes_with_its_learned_embeddings(teacher: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / 'whole', teacher)
    assert len(whole) == STEPS * EPOCHS
    for key in ('image.loss_contrast', 'image.loss_centers', 'image.loss_features', 'task_loss'):
        assert all(0 < step[key] < float('inf') for step in whole)
    assert all(step['image.rows'] == 5 for step in whole)
    first, last = (learned(tmp_path / f'whole/epoch_{epoch}.pth') for epoch in (1, 2))
    assert {key.split('.')[1] for key in first} == {'loss_contrast', 'loss_features'}
    assert not any(torch.equal(first[key], last[key]) for key in first)
    rest = run(tmp_path / 'rest', teacher, resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth'))
    assert rest == whole[STEPS:]
    assert all(torch.equal(value, last[key]) for key, value in learned(tmp_path / 'rest/epoch_2.pth').items())
    assert set(torch.load(tmp_path / 'whole/student.pth', weights_only=False)) == {'meta', 'state_dict'}
