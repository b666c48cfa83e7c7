"""A run that dies at one of six moments ends as one that was never stopped; ``python -m tests.kills`` tries more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ckd_mmdet.hook import DistillHook
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.kills import EpochScore, Moments, faults, train
from tests.tiny_runs import Killed, tiny_runner


def tiny(folder: Path, resume: Path | None, hook: Hook) -> Runner:
    hooks = [dict(type='EMAHook', momentum=0.1), DistillHook(), hook]
    runner = tiny_runner(folder, hooks, resume, save_best='acc', rule='greater')
    runner._val_evaluator = Evaluator(EpochScore())
    return runner


@pytest.fixture(scope='module')
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was never stopped, and its moments."""
    folder, moments = tmp_path_factory.mktemp('kills') / 'whole', Moments()
    train(tiny, folder, moments)
    return folder, moments.names


def kill() -> None:
    raise Killed


MOMENTS: dict[str, Callable[[str], bool]] = {
    'a checkpoint half written': lambda name: name == 'half of .epoch_2.pth.part',
    'a checkpoint just renamed': lambda name: name == 'after replace of epoch_2.pth',
    'last_checkpoint emptied': lambda name: name == 'empty last_checkpoint',
    'the old checkpoint not yet removed': lambda name: name == 'before unlink of epoch_1.pth',
    'the best checkpoint not yet renamed': lambda name: name == 'before replace of best_acc_epoch_2.pth',
    'the last validation not begun': lambda name: name == 'before validation 3'}


@pytest.mark.parametrize('name', MOMENTS)
def test_a_killed_run_ends_as_one_that_was_never_stopped(name: str, whole: tuple[Path, list[str]], tmp_path: Path
                                                         ) -> None:
    folder, names = whole
    at = next(i for i, moment in enumerate(names) if MOMENTS[name](moment))
    with pytest.raises(Killed):
        train(tiny, tmp_path / 'run', Moments(at, kill))
    train(tiny, tmp_path / 'run', Moments())
    assert faults(folder, tmp_path / 'run') == []


def test_a_difference_is_a_fault(whole: tuple[Path, list[str]], tmp_path: Path) -> None:
    folder, _ = whole
    train(tiny, tmp_path / 'run', Moments())
    assert faults(folder, tmp_path / 'run') == []
    path = tmp_path / 'run/student.pth'
    loaded = torch.load(path, weights_only=False)
    next(iter(loaded['state_dict'].values())).add_(1e-6)
    torch.save(loaded, path)
    (tmp_path / 'run/best_acc_epoch_1.pth').touch()
    assert [one.split(':')[0].split(' ')[0] for one in faults(folder, tmp_path / 'run')] == ['files', 'student.pth']
