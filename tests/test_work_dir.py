"""A work dir takes one training: not a second beside it, and none in place of another unasked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from ckd_mmdet.work_dir import LOCK, held, refuse_a_training, remove_training
from mmengine.config import Config

from tests.small_runs import distilled, run_config, run_tool, student_config


def config(folder: Path, **more: object) -> Config:
    return Config(dict(work_dir=str(folder), **more))


@pytest.mark.parametrize('name', ['epoch_3.pth', 'iter_300.pth', 'last_checkpoint', 'student.pth',
                                  'best_coco_bbox_mAP_epoch_3.pth'])
def test_a_work_dir_that_holds_a_training_is_refused_with_three_ways_out(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=f'holds one .{name}.*--resume.*--work-dir.*--overwrite'):
        refuse_a_training(config(tmp_path), overwrite=False)
    refuse_a_training(config(tmp_path), overwrite=True)


def test_logs_and_configs_are_no_training(tmp_path: Path) -> None:
    (tmp_path / '20260101_000000').mkdir()
    (tmp_path / 'config.py').touch()
    refuse_a_training(config(tmp_path), overwrite=False)
    refuse_a_training(config(tmp_path / 'new'), overwrite=False)


def test_to_overwrite_removes_the_checkpoints_and_nothing_else(tmp_path: Path) -> None:
    for name in ('epoch_12.pth', 'last_checkpoint', 'student.pth', 'student_best.pth', 'config.py', 'teacher.pth'):
        (tmp_path / name).touch()
    remove_training(config(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['config.py', 'teacher.pth']


def test_two_trainings_at_once_are_one_too_many(tmp_path: Path) -> None:
    with held(config(tmp_path / 'run')):
        with pytest.raises(ValueError, match=rf'another training works in .*run, .* \(process {os.getpid()}\)'), \
                held(config(tmp_path / 'run')):
            pass
        with held(config(tmp_path / 'other')):
            pass
    with held(config(tmp_path / 'run')):
        pass


def test_only_the_first_process_of_a_launcher_holds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        with held(config(tmp_path / rank, launcher='pytorch')):
            assert (tmp_path / rank / LOCK).exists() == (rank == '0')
    with held(config(tmp_path / 'alone')):  # each of several trainings that a queue started
        assert (tmp_path / 'alone' / LOCK).exists()


def test_an_orphan_keeps_the_work_dir_until_it_dies(tmp_path: Path) -> None:
    ready, told = os.pipe()
    launcher = os.fork()
    if not launcher:
        if not os.fork():
            with held(config(tmp_path)):
                os.write(told, str(os.getpid()).encode().ljust(16))
                signal.pause()
        os._exit(0)
    os.waitpid(launcher, 0)
    orphan = int(os.read(ready, 16))
    try:
        with pytest.raises(ValueError, match=rf'process {orphan}\b'), held(config(tmp_path)):
            pass
    finally:
        os.kill(orphan, signal.SIGKILL)
    while Path(f'/proc/{orphan}').exists() and Path(f'/proc/{orphan}/stat').read_text().split()[2] != 'Z':
        pass
    with held(config(tmp_path)):
        pass


@pytest.mark.parametrize('kind', ['plain', 'distilled'])
def test_the_tool_refuses_a_finished_work_dir_and_overwrites_when_told(
        kind: str, digits: Path, digit_teacher: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = student_config()
    cfg = run_config(student if kind == 'plain' else distilled(student, digit_teacher), digits, tmp_path / 'run',
                     epochs=1)
    cfg.dump(tmp_path / 'config.py')
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/epoch_9.pth').touch()
    with pytest.raises(ValueError, match='--overwrite'):
        run_tool(monkeypatch, 'train', tmp_path / 'config.py')
    with held(cfg), pytest.raises(ValueError, match='another training works in'):
        run_tool(monkeypatch, 'train', tmp_path / 'config.py', '--overwrite')
    assert (tmp_path / 'run/epoch_9.pth').exists()
    if kind == 'distilled':
        return
    run_tool(monkeypatch, 'train', tmp_path / 'config.py', '--overwrite')
    assert sorted(path.name for path in (tmp_path / 'run').glob('*epoch*')) == [
        'best_coco_bbox_mAP_epoch_1.pth', 'epoch_1.pth']


def test_to_resume_and_to_overwrite_at_once_is_refused(monkeypatch: pytest.MonkeyPatch,
                                                       capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'train', 'config.py', '--resume', '--overwrite')
    assert 'give one of them' in capsys.readouterr().err
