"""A student's file: whole, finite, and never in another's place unasked."""

import errno
import math
import os
from pathlib import Path

import pytest
import torch
from ckd_mmdet.export import export_student, write_student
from torch import nn

from tests.small_runs import run_tool


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / 'epoch_3.pth'
    weights = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).state_dict()
    weights['distiller.roi.projector.weight'] = torch.ones(1)
    torch.save(dict(meta=dict(epoch=3, iter=12, cfg='text', dataset_meta=dict(classes=('a',))), state_dict=weights,
                    optimizer=dict(state={})), path)
    return path


def test_the_student_is_weights_and_class_names(checkpoint: Path, tmp_path: Path) -> None:
    out = export_student(checkpoint, tmp_path / 'new/student.pth')
    found, trained = (torch.load(path, weights_only=True) for path in (out, checkpoint))
    assert found['meta'] == dict(epoch=3, iter=12, dataset_meta=dict(classes=('a',))) and set(found) == {
        'meta', 'state_dict'}
    assert set(found['state_dict']) == set(trained['state_dict']) - {'distiller.roi.projector.weight'}
    assert found['state_dict']._metadata == trained['state_dict']._metadata


def links(checkpoint: Path) -> list[Path]:
    soft, hard = checkpoint.with_name('soft.pth'), checkpoint.with_name('hard.pth')
    soft.symlink_to(checkpoint)
    os.link(checkpoint, hard)
    return [checkpoint, soft, hard, checkpoint.parent / '.' / checkpoint.name]


@pytest.mark.parametrize('overwrite', [False, True])
def test_the_training_checkpoint_is_never_overwritten(overwrite: bool, checkpoint: Path) -> None:
    before = checkpoint.read_bytes()
    for out in links(checkpoint):
        with pytest.raises(ValueError, match='`out` needs another file than `checkpoint`.*would be lost'):
            export_student(checkpoint, out, overwrite)
    assert checkpoint.read_bytes() == before


def test_an_existing_file_is_replaced_only_when_told(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / 'student.pth'
    out.write_text('mine')
    with pytest.raises(ValueError, match='`out` needs a new file, .*student.pth is there; .*`--overwrite`'):
        export_student(checkpoint, out)
    assert out.read_text() == 'mine'
    export_student(checkpoint, out, overwrite=True)
    assert 'state_dict' in torch.load(out, weights_only=True)
    with pytest.raises(ValueError, match=f'`out` needs a file, {tmp_path} is a folder; give {out}'):
        export_student(checkpoint, tmp_path)


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_a_diverged_student_is_not_written(value: float, tmp_path: Path) -> None:
    weights = dict(good=torch.zeros(2), number=torch.tensor(3), bad=torch.tensor([0, value]), worse=torch.tensor(value))
    with pytest.raises(ValueError, match="needs finite weights, 'bad' has NaN or infinite values.*diverged"):
        write_student(weights, {}, tmp_path / 'student.pth')
    torch.save(dict(state_dict=weights), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match="'bad' has NaN"):
        export_student(tmp_path / 'x.pth', tmp_path / 'student.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['x.pth']


def test_a_full_disk_leaves_the_old_student(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, 'No space left on device')

    out = export_student(checkpoint, tmp_path / 'student.pth')
    before = out.read_bytes()
    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'disk full, \d+\.\d MB wanted for .*student.pth'):
        export_student(checkpoint, out, overwrite=True)
    assert out.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_the_tool_overwrites_and_trusts_when_told(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                  capsys: pytest.CaptureFixture) -> None:
    run_tool(monkeypatch, 'export', checkpoint, tmp_path / 'out.pth')
    with pytest.raises(SystemExit, match='`--overwrite`'):
        run_tool(monkeypatch, 'export', checkpoint, tmp_path / 'out.pth')
    run_tool(monkeypatch, 'export', checkpoint, tmp_path / 'out.pth', '--overwrite')
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=nn.Linear(1, 1)), tmp_path / 'model.pth')
    with pytest.raises(SystemExit, match='torch.nn.modules.linear.Linear.*--trust-checkpoint'):
        run_tool(monkeypatch, 'export', tmp_path / 'model.pth', tmp_path / 'two.pth')
    run_tool(monkeypatch, 'export', tmp_path / 'model.pth', tmp_path / 'two.pth', '--trust-checkpoint')
    assert (tmp_path / 'two.pth').exists()


def test_in_half_precision_the_student_is_half_the_size_and_loads_like_another(checkpoint: Path, tmp_path: Path,
                                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, 'export', checkpoint, tmp_path / 'half.pth', '--half')
    whole = torch.load(export_student(checkpoint, tmp_path / 'whole.pth'), weights_only=False)['state_dict']
    half = torch.load(tmp_path / 'half.pth', weights_only=False)['state_dict']
    for key, value in whole.items():
        expected = value.half() if value.is_floating_point() else value
        assert half[key].dtype == expected.dtype and torch.equal(half[key], expected)


def test_a_weight_beyond_half_precision_is_refused_and_nothing_written(tmp_path: Path) -> None:
    torch.save(dict(state_dict={'a.weight': torch.tensor([1.0, 7e4])}), tmp_path / 'big.pth')
    with pytest.raises(ValueError, match="`--half` needs weights between -65504 and 65504, 'a.weight' has 70000"):
        export_student(tmp_path / 'big.pth', tmp_path / 'out.pth', half=True)
    assert not (tmp_path / 'out.pth').exists()
