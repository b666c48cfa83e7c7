"""Runs of a single weight, in milliseconds: what is saved and when, and what a kill leaves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import mmengine.hooks.checkpoint_hook as theirs
import pytest
import torch
from ckd_mmdet import files
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset


class Killed(BaseException):
    """Nothing in the process catches it, as nothing outlives SIGKILL."""


class Numbers(Dataset):
    metainfo = dict(classes=('a',))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.rand(1)


class Model(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, inputs: list, mode: str = 'tensor', **unused: object) -> object:
        out = self.layer(torch.stack(list(inputs)))
        return dict(loss=out.sum()) if mode == 'loss' else [out]


class Score(BaseMetric):
    """Best in epoch 2 of 3."""

    runner: Runner

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(acc=[1.0, 3.0, 2.0][self.runner.epoch - 1])


_numbers = iter(range(1000))


def tiny_runner(work_dir: Path, hooks: Sequence[Hook | dict], resume: Path | None = None, **checkpoint: object
                ) -> Runner:
    """Three epochs of two steps; each saves, and is validated where ``save_best`` is given.

    Args:
        work_dir: Of the run.
        hooks: Beside a ``CheckpointHook``.
        resume: The checkpoint to go on from.
        checkpoint: The ``CheckpointHook``'s arguments.
    """
    hook = dict(type='CheckpointHook', **{'interval': 1, 'max_keep_ckpts': 1, **checkpoint})
    score = Score()
    validated = dict(val_dataloader=dict(batch_size=1, dataset=Numbers(), sampler=dict(type='DefaultSampler'),
                                         num_workers=0),
                     val_cfg=dict(), val_evaluator=Evaluator(score)) if 'save_best' in checkpoint else {}
    by_epoch = hook.get('by_epoch', True)
    sampler = dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler')
    score.runner = Runner(
        Model(), str(work_dir), default_scope='mmengine', experiment_name=f'tiny_{next(_numbers)}', log_level='ERROR',
        train_dataloader=dict(batch_size=1, dataset=Numbers(), sampler=sampler, num_workers=0),
        train_cfg=dict(by_epoch=True, max_epochs=3) if by_epoch else dict(by_epoch=False, max_iters=3),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), **validated,
        default_hooks=dict(checkpoint=hook, logger=None), custom_hooks=list(hooks), randomness=dict(seed=0),
        load_from=None if resume is None else str(resume), resume=resume is not None, cfg=Config(dict(model={})))
    return score.runner


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob('*.pth'))


MOMENTS = ('write', 'half written', 'sync', 'rename', 'last_checkpoint', 'half last_checkpoint', 'last_checkpoint anew',
           'removal')


def kill_at(moment: str, epoch: int, patch: pytest.MonkeyPatch) -> None:
    """Let the process die at a moment of an epoch's first save."""
    name = f'epoch_{epoch}.pth'
    fsync, replace, unlink, opened = os.fsync, os.replace, Path.unlink, open

    def dying(file: object, *arguments: object, **options: object) -> object:
        if str(file).endswith(f'.{name}.part') and moment in ('write', 'half written'):
            if moment == 'half written':
                with opened(file, 'wb') as part:
                    part.write(b'PK\x03\x04 half')
            raise Killed
        return opened(file, *arguments, **options)

    def dying_last(file: object, *arguments: object, **options: object) -> object:
        if str(file).endswith('last_checkpoint') and saved(file):
            if moment == 'half last_checkpoint':
                opened(file, 'w').close()
            if moment in ('last_checkpoint', 'half last_checkpoint'):
                raise Killed
        return opened(file, *arguments, **options)

    def saved(last: object) -> bool:
        return Path(last).with_name(name).exists()

    def dying_sync(number: int) -> None:
        if moment == 'sync' and os.path.realpath(f'/proc/self/fd/{number}').endswith(f'.{name}.part'):
            raise Killed
        fsync(number)

    def dying_replace(source: object, target: object) -> None:
        if moment == 'rename' and Path(target).name == name:
            raise Killed
        if moment == 'last_checkpoint anew' and Path(target).name == 'last_checkpoint' and saved(target):
            raise Killed
        replace(source, target)

    def dying_unlink(path: Path, missing_ok: bool = False) -> None:
        if moment == 'removal' and path.name == f'epoch_{epoch - 1}.pth':
            raise Killed
        unlink(path, missing_ok=missing_ok)

    patch.setattr(files, 'open', dying, raising=False)
    patch.setattr(theirs, 'open', dying_last, raising=False)
    patch.setattr(os, 'fsync', dying_sync)
    patch.setattr(os, 'replace', dying_replace)
    patch.setattr(Path, 'unlink', dying_unlink)
