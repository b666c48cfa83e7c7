"""One run: where it goes on, and what makes it finished."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
import torch
from ckd_mmdet.lab.compare.runs import (
    Run,
    epochs_done,
    finish_test,
    make_runs,
    read_validations,
    step_seconds,
    why_it_failed,
)
from ckd_mmdet.lab.jobs.files import write_whole

from tests.lab.compare.matrices import a_matrix


def a_run(folder: Path) -> Run:
    run = make_runs(a_matrix(folder, ['kd'], [4]))[0]
    run.folder.mkdir(parents=True)
    return run


def checkpoint(run: Run, epoch: int) -> None:
    torch.save(dict(meta=dict(epoch=epoch, iter=4 * epoch), state_dict={}, optimizer={}),
               run.folder / f'epoch_{epoch}.pth')


def log(folder: Path, *records: dict, started: str = '1') -> Path:
    path = folder / started / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def step(epoch: int, time: float) -> dict:
    return dict(loss=1.0, time=time, epoch=epoch, step=epoch)


def validation(epoch: int, score: float) -> dict:
    return {'coco/bbox_mAP': score, 'data_time': 0.1, 'time': 9.0, 'step': epoch}


def test_runs_come_seed_by_seed(tmp_path: Path) -> None:
    runs = make_runs(a_matrix(tmp_path, ['none', 'kd'], [0, 5]))
    assert [run.title for run in runs] == ['none, seed 0', 'kd, seed 0', 'none, seed 5', 'kd, seed 5']
    assert runs[3].folder == tmp_path / 'runs/kd/5'
    assert runs[3].command()[-2:] == ['--cfg-options', 'randomness.seed=5'] and '--resume' not in runs[3].command()


def test_a_run_goes_on_from_the_last_epoch_that_is_saved_and_validated(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    checkpoint(run, 1)
    assert run.resumable_epoch() == 0  # its validation was cut off
    log(run.folder, validation(1, 0.1))
    checkpoint(run, 2)
    command = run.command()
    assert command[command.index('--resume') + 1] == str(run.folder / 'epoch_1.pth')
    log(run.folder, validation(2, 0.2), started='2')
    assert run.resumable_epoch() == 2
    (run.folder / 'epoch_2.pth').write_bytes((run.folder / 'epoch_2.pth').read_bytes()[:20])  # killed while it wrote
    assert run.resumable_epoch() == 1


def test_of_an_epoch_validated_twice_the_second_counts_and_half_a_line_does_not(tmp_path: Path) -> None:
    log(tmp_path, step(1, 0.1), validation(1, 0.1), validation(2, 0.2))
    path = log(tmp_path, step(2, 0.1), validation(2, 0.25), started='2')
    path.write_text(path.read_text() + '{"coco/bbox_mAP": 0.9, "st')
    assert read_validations(tmp_path) == {1: {'coco/bbox_mAP': 0.1}, 2: {'coco/bbox_mAP': 0.25}}


def test_the_time_of_a_step_is_the_median_after_the_first_epoch(tmp_path: Path) -> None:
    assert step_seconds(tmp_path) is None
    log(tmp_path, step(1, 9.0), step(1, 5.0), step(1, 7.0))
    assert step_seconds(tmp_path) == 6.0  # a run of one epoch: without its first line
    log(tmp_path, *(step(2, time) for time in (0.1, 0.2, 0.9)), started='2')
    assert step_seconds(tmp_path) == 0.2


def test_a_finished_run_leaves_its_result_and_the_student(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log(run.folder, step(1, 0.5), validation(1, 0.1), step(2, 0.25), validation(3, 0.3))
    for epoch in (2, 3):
        checkpoint(run, epoch)
    (run.folder / 'student.pth').write_text('weights')
    (run.folder / 'last_checkpoint').write_text('epoch_3.pth')
    assert not run.is_finished()
    run.finish(12.34, 'CPU', keep=False)
    result = json.loads(run.result_file.read_text())
    assert result['metrics'] == {'coco/bbox_mAP': {'1': 0.1, '3': 0.3}}
    assert (result['method'], result['seed'], result['epochs'], result['seconds_per_step']) == ('kd', 4, 3, 0.25)
    assert result['config'] == run.digest and set(result['versions']) == {'ckd_mmdet', 'torch', 'mmengine'}
    assert run.is_finished()
    assert {path.name for path in run.folder.iterdir() if path.is_file()} == {'result.json', 'student.pth'}


def test_an_epoch_in_which_nothing_was_found_is_validated(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    nothing = dict(data_time=0.1, time=0.2, step=3)  # all that mmdet's CocoMetric leaves
    log(run.folder, step(1, 0.5), validation(1, 0.1), nothing)
    checkpoint(run, 3)
    assert run.resumable_epoch() == 3
    result = run.finish(1.0, 'CPU', keep=False)
    assert result['nothing_found'] == [3] and result['metrics'] == {'coco/bbox_mAP': {'1': 0.1}}
    assert run.is_finished()


def test_a_result_is_valid_json_whatever_was_measured(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log(run.folder, validation(2, math.inf), validation(3, math.nan))
    run.finish(1.0, 'CPU', keep=False)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    result = json.loads(run.result_file.read_text(), parse_constant=refuse)
    assert result['metrics'] == {'coco/bbox_mAP': {'2': None, '3': None}} and result['nothing_found'] == []


def test_checkpoints_stay_where_they_are_asked_for(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log(run.folder, validation(3, 0.3))
    checkpoint(run, 3)
    run.finish(1.0, 'CPU', keep=True)
    assert (run.folder / 'epoch_3.pth').exists()


def test_a_run_without_its_last_validation_is_not_finished(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log(run.folder, validation(2, 0.2))
    with pytest.raises(ValueError, match='no validation of its last epoch, 3, is logged'):
        run.finish(1.0, 'CPU', keep=False)
    assert not run.is_finished()


@pytest.mark.parametrize('when', ['write', 'fsync', 'replace'])
def test_a_full_disk_leaves_no_half_result_and_the_checkpoints(when: str, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path)
    log(run.folder, validation(3, 0.3))
    checkpoint(run, 3)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(*(('builtins.open', full) if when == 'write' else (os, when, full)))
        with pytest.raises(OSError, match='No space left'):
            run.finish(1.0, 'CPU', keep=False)
    assert not run.is_finished()
    assert [path.name for path in run.folder.iterdir() if path.is_file()] == ['epoch_3.pth']
    run.finish(1.0, 'CPU', keep=False)
    assert run.is_finished()


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / 'table.md', 'before')
    monkeypatch.setattr(os, 'fsync', lambda number: (_ for _ in ()).throw(OSError(errno.ENOSPC, 'full')))
    with pytest.raises(OSError):
        write_whole(tmp_path / 'table.md', 'after')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['before']


@pytest.mark.parametrize('text', ['', '{"metrics": {"coco', '[]', '{}'])
def test_a_broken_result_does_not_count(text: str, tmp_path: Path) -> None:
    run = a_run(tmp_path)
    run.result_file.write_text(text)
    assert not run.is_finished()


def test_a_result_of_another_config_does_not_count(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    log(run.folder, validation(3, 0.3))
    run.finish(1.0, 'CPU', keep=False)
    run.result_file.write_text(run.result_file.read_text().replace(run.digest, 'another'))
    assert not run.is_finished()


def test_progress_is_the_last_line_about_a_step_of_this_start(tmp_path: Path) -> None:
    path = tmp_path / 'output.log'
    assert epochs_done(path) is None
    path.write_text('... Epoch(train)  [3][ 50/200]  lr: 1\n... Epoch(val) [3][10/20]\n')
    assert epochs_done(path) == 2.25
    size = path.stat().st_size
    assert epochs_done(path, since=size) is None
    path.write_text(path.read_text() + 'x' * 100_000 + '\nEpoch(train)  [4][200/200]\n')
    assert epochs_done(path, since=size) == 4.0


@pytest.mark.parametrize(('how', 'text', 'reason'), [
    ('ended with exit code 1', 'Traceback\nRuntimeError: chance level\n', 'RuntimeError: chance level'),
    ('ended with exit code 1', 'torch.OutOfMemoryError: CUDA\nterminated\n', 'torch.OutOfMemoryError: CUDA'),
    ('ended with exit code 2', 'usage: train\n\n--amp needs a GPU\n', '--amp needs a GPU'),
    ('was ended by signal 9', 'Epoch(train) [1][10/20]\n', 'was ended by signal 9'),
    ('ended with exit code 1', '', 'ended with exit code 1')])
def test_the_reason_of_a_failure_is_one_line(how: str, text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / 'output.log').write_text(text)
    assert why_it_failed(how, tmp_path / 'output.log') == reason


def test_the_teacher_s_metrics_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='left no metrics'):
        finish_test(tmp_path)
    (tmp_path / '1').mkdir()
    (tmp_path / '1/1.json').write_text(json.dumps({'coco/bbox_mAP': 0.5, 'time': 1.0}))
    assert finish_test(tmp_path)['metrics'] == {'coco/bbox_mAP': 0.5}
