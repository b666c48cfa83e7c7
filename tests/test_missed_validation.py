"""No validation is lost: a resumed run makes up the one that a kill cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from ckd_mmdet import missed_validation
from ckd_mmdet.missed_validation import MissedValidation, is_due
from ckd_mmdet.saving import checkpoint_to_resume, make_saving_atomic
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tests.tiny_runs import Killed, names, tiny_runner


class DiesIn(Hook):
    """Kills the validation of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def before_val_epoch(self, runner: Runner) -> None:
        if runner.epoch == self.epoch:
            raise Killed


class Validated(Hook):
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.epochs.append(runner.epoch)


class Parts(Hook):
    """As ``DistillHook`` composes them, without a model that it could teach."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.parts = (MissedValidation(),)

    def before_run(self, runner: Runner) -> None:
        make_saving_atomic(runner)


for moment in ('after_load_checkpoint', 'before_train', 'before_val_epoch', 'before_save_checkpoint'):
    setattr(Parts, moment, lambda self, *arguments, moment=moment, **named: [
        getattr(part, moment)(*arguments, **named) for part in self.parts])


def killed(folder: Path, epoch: int, **checkpoint: object) -> None:
    with pytest.raises(Killed):
        tiny_runner(folder, [Parts(), DiesIn(epoch)], save_best='acc', **checkpoint).train()


def resumed(folder: Path, **checkpoint: object) -> list[int]:
    """The epochs that the resumed run validates."""
    seen = Validated()
    tiny_runner(folder, [Parts(), seen], checkpoint_to_resume(folder), save_best='acc', **checkpoint).train()
    return seen.epochs


@pytest.mark.parametrize(('epoch', 'validated'), [(1, [1, 2, 3]), (2, [2, 3]), (3, [3])])
def test_a_validation_that_was_cut_off_is_made_up(epoch: int, validated: list[int], tmp_path: Path) -> None:
    killed(tmp_path, epoch)
    assert resumed(tmp_path) == validated
    assert names(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_3.pth']
    hub = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)['message_hub']['runtime_info']
    assert hub['best_score'] == 3.0 and Path(hub['best_ckpt']).name == 'best_acc_epoch_2.pth'


def test_a_checkpoint_that_knows_its_validation_is_not_validated_again(tmp_path: Path) -> None:
    killed(tmp_path, 3, max_keep_ckpts=-1)
    (tmp_path / 'epoch_3.pth').unlink()  # the second, the best, was saved anew with its score
    assert resumed(tmp_path, max_keep_ckpts=-1) == [3]


def test_without_it_the_last_epoch_is_never_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rest guards against."""
    killed(tmp_path, 3)
    monkeypatch.setattr(missed_validation, 'is_due', lambda runner: False)
    assert resumed(tmp_path) == []


def test_a_best_checkpoint_that_is_cut_off_goes_and_the_next_best_is_saved(tmp_path: Path) -> None:
    killed(tmp_path, 3)
    best = tmp_path / 'best_acc_epoch_2.pth'
    best.write_bytes(best.read_bytes()[:100])
    assert resumed(tmp_path) == [3]
    assert names(tmp_path) == ['best_acc_epoch_3.pth', 'epoch_3.pth']


def test_a_best_checkpoint_that_is_whole_stays_the_best(tmp_path: Path) -> None:
    killed(tmp_path, 3)
    (tmp_path / 'best_acc_epoch_1.pth').write_bytes(b'PK half')  # of a kill between two bests
    resumed(tmp_path)
    assert names(tmp_path) == ['best_acc_epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize(('done', 'due'), [(0, False), (1, False), (2, True), (3, False), (4, True), (5, True)])
def test_what_is_due_is_what_the_loop_validates(done: int, due: bool, tmp_path: Path) -> None:
    seen = Validated()
    runner = tiny_runner(tmp_path, [seen], save_best='acc')
    runner._train_loop.update(max_epochs=5, val_interval=3, val_begin=2, dynamic_intervals=[(2, 2)])
    runner._val_evaluator.metrics[0].compute_metrics = lambda results: dict(acc=0.0)
    runner.train()
    assert (done in seen.epochs) == due
    runner.train_loop._epoch, runner.train_loop._iter = done, 2 * done
    assert is_due(runner) == due
    runner.train_loop._iter = 2 * done + 1
    assert not is_due(runner)
    assert json.dumps(seen.epochs) == '[2, 4, 5]'
