"""At every moment of a save something whole is there, and it is what is found."""

import errno
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ckd_mmdet import saving
from ckd_mmdet.files import part_of, write_whole
from ckd_mmdet.saving import (
    BACKEND,
    checkpoint_to_resume,
    is_whole,
    make_saving_atomic,
    newest_whole_checkpoint,
    read_outline,
)
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from torch import nn

from tests.tiny_runs import MOMENTS, Killed, kill_at, names, tiny_runner


class Atomic(Hook):
    def before_run(self, runner: Runner) -> None:
        make_saving_atomic(runner)


def toy_runner(work_dir: Path, atomic: bool = True, resume: Path | None = None, **checkpoint: object) -> Runner:
    return tiny_runner(work_dir, [Atomic()] if atomic else [], resume, **checkpoint)


# the moments of a save

@pytest.mark.parametrize('save_best', [False, True], ids=['', 'best'])
@pytest.mark.parametrize('moment', MOMENTS)
def test_a_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(moment: str, save_best: bool, tmp_path: Path) -> None:
    more = dict(save_best='acc') if save_best else {}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at(moment, 2, patch)
        toy_runner(tmp_path, **more).train()
    found = checkpoint_to_resume(tmp_path)
    is_renamed = moment == 'removal' or 'last_checkpoint' in moment
    assert found == tmp_path / f'epoch_{2 if is_renamed else 1}.pth'
    if save_best:
        assert 'best_acc_epoch_1.pth' in names(tmp_path)
    runner = toy_runner(tmp_path, resume=found, **more)
    runner.train()
    assert runner.epoch == 3 and (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_3.pth')
    assert [name for name in names(tmp_path) if 'best' not in name] == ['epoch_3.pth'] and is_whole(
        tmp_path / 'epoch_3.pth')
    assert not list(tmp_path.glob('.*'))


def test_without_it_mmengine_loses_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the rest guards against; where MMEngine mends it, ours can go."""
    put = saving.LocalBackend.put
    monkeypatch.setattr(saving.LocalBackend, 'put', lambda self, obj, path: (
        (_ for _ in ()).throw(Killed) if 'epoch_2' in str(path) else put(self, obj, path)))
    with pytest.raises(Killed):
        toy_runner(tmp_path, atomic=False).train()
    assert names(tmp_path) == []


def test_an_old_best_checkpoint_goes_when_the_new_one_is_whole(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, 'replace', lambda source, target: (
            (_ for _ in ()).throw(Killed) if 'best_acc_epoch_2' in str(target) else Path(source).rename(target)))
        toy_runner(tmp_path, save_best='acc').train()
    assert names(tmp_path) == ['best_acc_epoch_1.pth', 'epoch_2.pth']
    toy_runner(tmp_path / 'whole', save_best='acc').train()
    assert names(tmp_path / 'whole') == ['best_acc_epoch_2.pth', 'epoch_3.pth']
    assert torch.load(tmp_path / 'whole/best_acc_epoch_2.pth', weights_only=False)['meta']['epoch'] == 2


@pytest.mark.parametrize('keep, checkpoint', [
    (1, {}), (2, {}), (-1, {}), (1, dict(by_epoch=False)), (1, dict(out_dir='elsewhere')),
    (1, dict(backend_args=dict(backend='local'))), (1, dict(file_client_args=dict(backend='disk')))], ids=str)
def test_as_many_checkpoints_stay_as_are_to_be_kept(keep: int, checkpoint: dict, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runner = toy_runner(tmp_path / 'run', max_keep_ckpts=keep, **checkpoint)
    runner.train()
    folder = tmp_path / ('elsewhere/run' if 'out_dir' in checkpoint else 'run')
    series = 'iter' if checkpoint.get('by_epoch') is False else 'epoch'
    assert names(folder) == [f'{series}_{n}.pth' for n in range(1, 4)][-keep if keep > 0 else 0:]
    hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    assert hook.backend_args['backend'] == BACKEND and hook.file_client_args is None
    assert newest_whole_checkpoint(tmp_path / 'run').resolve() == folder / f'{series}_3.pth'


def test_a_storage_of_ones_own_is_left_alone(tmp_path: Path) -> None:
    hooks = [CheckpointHook(backend_args=dict(backend='petrel')), CheckpointHook(out_dir='s3://bucket/runs')]
    before = [dict(vars(hook)) for hook in hooks]
    make_saving_atomic(SimpleNamespace(hooks=hooks, work_dir=str(tmp_path)))
    assert [vars(hook) for hook in hooks] == before


def test_a_second_call_and_a_second_run_change_nothing(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path)
    make_saving_atomic(runner)
    before = len(runner.hooks)
    runner.train()  # its hook calls again
    assert len(runner.hooks) == before and names(tmp_path) == ['epoch_3.pth']


def test_what_a_failed_run_wanted_to_remove_is_no_other_runs(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at('write', 2, patch)
        toy_runner(tmp_path / 'killed').train()
    toy_runner(tmp_path / 'other').train()
    assert names(tmp_path / 'killed') == ['epoch_1.pth']


def test_a_run_that_goes_on_in_another_folder_takes_nothing_from_the_first(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        kill_at('write', 2, patch)
        toy_runner(tmp_path / 'first', save_best='acc').train()
    left = names(tmp_path / 'first')
    assert left == ['best_acc_epoch_1.pth', 'epoch_1.pth']
    toy_runner(tmp_path / 'second', resume=tmp_path / 'first/epoch_1.pth', save_best='acc').train()
    assert names(tmp_path / 'first') == left
    assert names(tmp_path / 'second') == ['best_acc_epoch_2.pth', 'epoch_3.pth']


# a full disk

def no_space(*unused: object) -> None:
    raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_full_disk_is_said_and_what_was_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / 'x.pth', b'before')
    monkeypatch.setattr(os, 'fsync', no_space)
    with pytest.raises(OSError, match=r'disk full, 3\.5 MB wanted for .*x\.pth, \d+\.\d MB are free'):
        write_whole(tmp_path / 'x.pth', bytes(3_500_000))
    assert [path.name for path in tmp_path.iterdir()] == ['x.pth'] and (tmp_path / 'x.pth').read_bytes() == b'before'


def test_a_run_on_a_full_disk_can_go_on_later(tmp_path: Path) -> None:
    runner = toy_runner(tmp_path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=r'disk full, \d+\.\d MB wanted'):
        patch.setattr(os, 'replace', lambda source, target: (
            no_space() if Path(target).name == 'epoch_2.pth' else Path(source).rename(target)))
        runner.train()
    assert checkpoint_to_resume(tmp_path) == tmp_path / 'epoch_1.pth'


# what is found

def save(path: Path, step: int, **more: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=dict(epoch=step, iter=2 * step), state_dict=nn.Linear(1, 1).state_dict(), optimizer={},
                    **more), path)
    return path


def last(folder: Path, text: str) -> None:
    (folder / 'last_checkpoint').write_text(text)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    'missing': (lambda folder: None, 'last_checkpoint is missing'),
    'empty': (lambda folder: last(folder, ''), 'last_checkpoint is empty'),
    'half-written': (lambda folder: last(folder, str(folder / 'epoch_3.pth')[:-3]), 'which is not there'),
    'of a removed file': (lambda folder: last(folder, str(folder / 'epoch_9.pth')), "epoch_9.pth', which is not there"),
    'of a file that is cut off': (lambda folder: (cut(save(folder / 'epoch_4.pth', 4)),
                                                  last(folder, str(folder / 'epoch_4.pth')))[0],
                                  'epoch_4.pth, which is cut off'),
    'of a file that is empty': (lambda folder: ((folder / 'epoch_4.pth').touch(),
                                                last(folder, str(folder / 'epoch_4.pth'))), 'cut off'),
    'of an older file': (lambda folder: last(folder, str(folder / 'epoch_2.pth')), 'epoch_2.pth is not the newest'),
    'no text': (lambda folder: (folder / 'last_checkpoint').write_bytes(b'\xff\xfe'), 'which is not there'),
}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    lines: list[str] = []
    monkeypatch.setattr(saving, 'print_log', lambda text, logger: lines.append(text))
    yield lines


@pytest.mark.parametrize('name', BROKEN)
def test_the_newest_whole_checkpoint_is_found_and_it_is_said_why(name: str, tmp_path: Path, said: list[str]) -> None:
    for step in (2, 3, 10):
        save(tmp_path / f'epoch_{step}.pth', step)
    (tmp_path / 'epoch_10.pth').unlink()
    spoil, why = BROKEN[name]
    spoil(tmp_path)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / 'epoch_3.pth'
    assert len(said) == 1 and why in said[0] and said[0].endswith(f'newest whole checkpoint is {tmp_path}/epoch_3.pth.')


def test_the_named_checkpoint_needs_no_words(tmp_path: Path, said: list[str]) -> None:
    for step in (9, 10):
        save(tmp_path / f'epoch_{step}.pth', step)
    last(tmp_path, str(tmp_path / 'epoch_10.pth'))
    assert newest_whole_checkpoint(str(tmp_path)) == tmp_path / 'epoch_10.pth' and said == []


def test_epochs_are_ordered_as_numbers_and_iterations_by_what_was_trained(tmp_path: Path) -> None:
    for step in (9, 10):
        save(tmp_path / f'epoch_{step}.pth', step)
    save(tmp_path / 'iter_19.pth', 9)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / 'epoch_10.pth'
    save(tmp_path / 'iter_22.pth', 11)
    assert newest_whole_checkpoint(tmp_path) == tmp_path / 'iter_22.pth'


def test_a_student_a_best_one_and_a_part_are_nothing_to_resume_from(tmp_path: Path) -> None:
    def weights(name: str) -> None:
        torch.save(dict(meta=dict(epoch=9, iter=18), state_dict={}), tmp_path / name)

    weights('student.pth')
    weights('best_acc_epoch_9.pth')
    save(tmp_path / 'x.pth', 9).rename(part_of(tmp_path / 'epoch_9.pth'))
    assert checkpoint_to_resume(tmp_path) is None  # a part is no checkpoint
    save(tmp_path / 'epoch_1.pth', 1)
    assert checkpoint_to_resume(tmp_path) == tmp_path / 'epoch_1.pth'


def test_checkpoints_of_which_none_is_whole_are_refused(tmp_path: Path) -> None:
    cut(save(tmp_path / 'epoch_1.pth', 1))
    save(tmp_path / 'epoch_2.pth', 2).write_bytes(b'')
    with pytest.raises(ValueError, match=r'`--resume` needs a whole checkpoint.*epoch_1.pth, epoch_2.pth.*cut off'):
        checkpoint_to_resume(tmp_path)
    assert newest_whole_checkpoint(tmp_path / 'never') is None


def test_a_copied_work_dir_goes_on_from_its_own_files(tmp_path: Path) -> None:
    save(tmp_path / 'first/epoch_1.pth', 1)
    last(tmp_path / 'first', str(tmp_path / 'first/epoch_1.pth'))
    save(tmp_path / 'copy/epoch_1.pth', 1)
    last(tmp_path / 'copy', str(tmp_path / 'first/epoch_1.pth'))
    assert newest_whole_checkpoint(tmp_path / 'copy') == tmp_path / 'copy/epoch_1.pth'


def test_no_cut_of_a_checkpoint_is_whole(tmp_path: Path) -> None:
    path = save(tmp_path / 'epoch_1.pth', 1)
    content = path.read_bytes()
    for end in {*range(0, len(content), 61), len(content) - 1}:
        path.write_bytes(content[:end])
        assert not is_whole(path), end


class Runs:
    def __reduce__(self) -> tuple:
        return os.system, ('exit 3',)


def test_a_look_at_a_checkpoint_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, 'system', os.system)
    path = save(tmp_path / 'epoch_1.pth', 1, message_hub=[Runs(), pickle.PickleBuffer])
    called = []
    monkeypatch.setattr(os, 'system', called.append)
    assert read_outline(path).epoch == 1 and called == []
