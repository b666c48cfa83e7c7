"""The commands, as a user types them: most in this process, where imports cost nothing."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ckd_mmdet.export import export_student
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.lab.jobs.commands import told_in_one_line
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.runner import CheckpointLoader

from tests.small_runs import ROOT, distilled, metrics, run_config, run_tool, student_config
from tests.toys import toy_config, toy_model


@pytest.fixture(scope='module')
def trained(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configs ``plain.py`` and ``distilled.py``, and a run of the latter by ``tools/train.py``."""
    folder = tmp_path_factory.mktemp('tools')
    for name, model in (('plain', student_config()), ('distilled', distilled(student_config(), digit_teacher))):
        cfg = run_config(model, digits, folder / 'unused', epochs=1)
        cfg.pop('work_dir')
        cfg.dump(folder / f'{name}.py')
    with pytest.MonkeyPatch.context() as patch:
        run_tool(patch, 'train', folder / 'distilled.py', '--work-dir', folder / 'run')
    return folder


def measured(monkeypatch: pytest.MonkeyPatch, config: Path, checkpoint: Path, work_dir: Path, *more: str
             ) -> tuple[dict, list]:
    """What ``tools/test.py`` measured, and its predictions."""
    out = work_dir / 'predictions.pkl'
    run_tool(monkeypatch, 'test', config, checkpoint, '--work-dir', work_dir, '--out', out, *more)
    return metrics(work_dir), pickle.loads(out.read_bytes())


def same_predictions(ours: list, theirs: list, tolerance: float = 0.0) -> bool:
    """Whether they are equal, to the last bit by default, and any."""
    return len(ours) == len(theirs) == 4 and all(len(prediction['pred_instances']['scores']) for prediction in ours) \
        and all(torch.allclose(a['pred_instances'][key], b['pred_instances'][key], tolerance, tolerance)
                for a, b in zip(ours, theirs, strict=True) for key in ('bboxes', 'scores', 'labels'))


def without_times(written: dict) -> dict:
    return {key: value for key, value in written.items() if not key.endswith('time')}


def test_plain_and_distillation_config_test_the_same(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                     ) -> None:
    checkpoint = trained / 'run/epoch_1.pth'
    plain, ours = measured(monkeypatch, trained / 'plain.py', checkpoint, tmp_path / 'plain')
    student, theirs = measured(monkeypatch, trained / 'distilled.py', checkpoint, tmp_path / 'distilled',
                               '--cfg-options', 'model.teacher.checkpoint=gone.pth')  # the teacher is not needed
    assert without_times(plain) == without_times(student) and 'coco/bbox_mAP' in plain
    assert same_predictions(ours, theirs)


def test_the_distillers_own_preprocessing_is_kept_in_testing(trained: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = Config.fromfile(trained / 'distilled.py')
    cfg.model.data_preprocessor = cfg.model.student.pop('data_preprocessor')
    cfg.dump(tmp_path / 'outside.py')
    checkpoint = trained / 'run/epoch_1.pth'
    _, ours = measured(monkeypatch, tmp_path / 'outside.py', checkpoint, tmp_path / 'outside')
    _, theirs = measured(monkeypatch, trained / 'plain.py', checkpoint, tmp_path / 'plain')
    assert same_predictions(ours, theirs)


def test_training_again_resumes_and_exports(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, 'train', trained / 'distilled.py', '--work-dir', tmp_path, '--resume',
             trained / 'run/epoch_1.pth', '--cfg-options', 'train_cfg.max_epochs=2')
    assert sorted(path.name for path in tmp_path.glob('*.pth') if 'best' not in path.name) == [
        'epoch_2.pth', 'student.pth']
    run_tool(monkeypatch, 'train', trained / 'distilled.py', '--work-dir', tmp_path, '--resume', '--cfg-options',
             'train_cfg.max_epochs=3')
    assert torch.load(tmp_path / 'student.pth', weights_only=False)['meta']['epoch'] == 3
    exported = Config.fromfile(tmp_path / 'student.py')
    assert not exported.resume and exported.load_from is None
    # earlier versions wrote the run's own `resume` there, which a student without an optimizer cannot serve
    run_tool(monkeypatch, 'test', tmp_path / 'student.py', tmp_path / 'student.pth', '--work-dir', tmp_path / 'tested',
             '--cfg-options', 'resume=True')
    assert metrics(tmp_path / 'tested')


@pytest.mark.parametrize('last', [None, '', 'epoch_2.pth'], ids=['missing', 'empty', 'of a cut file'])
def test_resume_takes_the_newest_whole_checkpoint(last: str | None, trained: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    content = (trained / 'run/epoch_1.pth').read_bytes()
    (tmp_path / 'epoch_1.pth').write_bytes(content)
    (tmp_path / 'epoch_2.pth').write_bytes(content[:-50])
    if last is not None:
        (tmp_path / 'last_checkpoint').write_text(last and str(tmp_path / last))
    resumed = []
    monkeypatch.setattr('mmengine.runner.Runner.train', lambda runner: resumed.append((runner._resume,
                                                                                       runner._load_from)))
    run_tool(monkeypatch, 'train', trained / 'distilled.py', '--work-dir', tmp_path, '--resume')
    assert resumed == [(True, str(tmp_path / 'epoch_1.pth'))]
    run_tool(monkeypatch, 'train', trained / 'distilled.py', '--work-dir', tmp_path / 'new', '--resume')
    assert resumed[1] == (False, None)


class Runs:
    """Its pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def test_train_and_test_run_no_code_of_a_checkpoint_unless_told(trained: Path, tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = torch.load(trained / 'run/epoch_1.pth', weights_only=False)
    marker, checkpoint = tmp_path / 'ran', tmp_path / 'x.pth'
    torch.save({**loaded, 'meta': {**loaded['meta'], 'x': Runs(f'touch {marker}')}}, checkpoint)
    for name in ('train', 'test'):  # what they do first
        monkeypatch.setattr(f'mmengine.runner.Runner.{name}',
                            lambda runner: CheckpointLoader.load_checkpoint(runner._load_from))
    config = trained / 'plain.py'
    for command in (('test', config, checkpoint), ('train', config, '--resume', checkpoint)):
        with pytest.raises(ValueError, match=r'x.pth asks for `posix.system`.*--trust-checkpoint'):
            run_tool(monkeypatch, *command, '--work-dir', tmp_path)
        assert not marker.exists()
        run_tool(monkeypatch, *command, '--work-dir', tmp_path, '--trust-checkpoint')
        marker.unlink()


def test_test_refuses_other_weights(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = torch.load(trained / 'run/student.pth', weights_only=False)
    weights = loaded['state_dict']
    others = {'another width': toy_model(toy_config('faster_rcnn', num_classes=3)).state_dict(),
              'another prefix': {f'detector.{key}': value for key, value in weights.items()}}
    monkeypatch.setattr('mmengine.runner.Runner.test', lambda runner: runner.load_or_resume())
    for name, other in others.items():
        torch.save(dict(state_dict=other, meta=loaded['meta']), tmp_path / f'{name}.pth')
        with pytest.raises(ValueError, match=f'`checkpoint` needs the weights of the model .*{name}.pth. does not fit'):
            run_tool(monkeypatch, 'test', trained / 'plain.py', tmp_path / f'{name}.pth', '--work-dir', tmp_path / name)


def test_test_takes_off_the_names_of_wrappers(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = torch.load(trained / 'run/student.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict={f'model.{key}': value for key, value in weights.items()}), tmp_path / 'wrapped.pth')
    loaded = []
    monkeypatch.setattr('mmengine.runner.Runner.test', lambda runner: (runner.load_or_resume(),
                                                                       loaded.append(runner.model.state_dict())))
    run_tool(monkeypatch, 'test', trained / 'plain.py', tmp_path / 'wrapped.pth', '--work-dir', tmp_path)
    assert all(torch.equal(value, weights[key]) for key, value in loaded[0].items())


def test_train_works_with_a_plain_config(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, 'train', trained / 'plain.py', '--work-dir', tmp_path, '--auto-scale-lr', '--cfg-options',
             'auto_scale_lr.base_batch_size=8', 'optim_wrapper.optimizer.lr=0.02')
    loaded = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)
    toy_model(student_config()).load_state_dict(loaded['state_dict'], strict=True)
    assert 'ckd_mmdet' not in loaded['meta']
    assert loaded['optimizer']['param_groups'][0]['initial_lr'] == pytest.approx(0.01)  # batch 4 instead of 8


def test_test_works_outside_the_repository(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, out = trained / 'run/student.pth', tmp_path / 'out.pkl'
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/test.py'), str(trained / 'plain.py'), str(checkpoint), '--out', str(out),
         '--work-dir', str(tmp_path / 'sub'), '--show-dir', 'pictures'],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ | {'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Average Precision' in done.stdout
    assert len(list((tmp_path / 'sub').glob('*/pictures/*.png'))) == 4
    _, ours = measured(monkeypatch, trained / 'plain.py', trained / 'run/epoch_1.pth', tmp_path / 'here')
    # another process may round otherwise: kernels are chosen by where the memory lies
    assert same_predictions(pickle.loads(out.read_bytes()), ours, 1e-4)


def test_test_time_augmentation_is_the_configs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = Config.fromfile(trained / 'distilled.py')
    cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
    keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip', 'flip_direction')
    cfg.tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[
        [dict(type='Resize', scale=(64, 64), keep_ratio=True)],
        [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)],
        [dict(type='LoadAnnotations', with_bbox=True)],
        [dict(type='PackDetInputs', meta_keys=keys)]])]
    cfg.dump(tmp_path / 'tta.py')
    plain, once = measured(monkeypatch, tmp_path / 'tta.py', trained / 'run/epoch_1.pth', tmp_path / 'once')
    flipped, twice = measured(monkeypatch, tmp_path / 'tta.py', trained / 'run/epoch_1.pth', tmp_path / 'tta', '--tta')
    assert set(without_times(plain)) == set(without_times(flipped))
    assert same_predictions(once, once) and same_predictions(twice, twice) and not same_predictions(once, twice)


def test_export_writes_the_plain_student(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_tool(monkeypatch, 'export', trained / 'run/epoch_1.pth', tmp_path / 'student.pth')
    ours, theirs = (torch.load(path, weights_only=False)
                    for path in (tmp_path / 'student.pth', trained / 'run/student.pth'))
    assert set(ours) == {'meta', 'state_dict'} and tuple(ours['meta']['dataset_meta']['classes']) == CLASSES
    toy_model(student_config()).load_state_dict(ours['state_dict'], strict=True)
    assert all(torch.equal(value, theirs['state_dict'][key]) for key, value in ours['state_dict'].items())


def test_export_leaves_out_what_distillation_itself_learned(tmp_path: Path) -> None:
    torch.save(dict(state_dict={'backbone.w': torch.ones(1), 'distiller.roi.w': torch.ones(1)}, optimizer={},
                    meta=dict(epoch=3, cfg='long')), tmp_path / 'epoch_3.pth')
    written = torch.load(export_student(tmp_path / 'epoch_3.pth', tmp_path / 'out.pth'), weights_only=False)
    assert list(written['state_dict']) == ['backbone.w'] and written['meta'] == dict(epoch=3)


@pytest.mark.skipif(is_cuda_available(), reason='needs a machine without a GPU')
def test_amp_without_a_gpu_is_one_clear_error(trained: Path, monkeypatch: pytest.MonkeyPatch,
                                              capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'train', trained / 'distilled.py', '--amp')
    assert 'error: --amp needs a GPU, and none is here; train without it' in capsys.readouterr().err


@pytest.mark.parametrize(('tool', 'arguments', 'text'), [
    ('train', ['--auto-scale-lr'], 'add `auto_scale_lr = dict'),
    ('test', ['{run}/epoch_1.pth', '--tta'], '--tta needs `tta_model` and `tta_pipeline`'),
    ('test', ['{run}/epoch_9.pth'], 'checkpoint needs a file that exists, {run}/epoch_9.pth does not'),
    ('test', ['{run}/epoch_1.pth', '--out', 'out.json'], '--out needs a file that ends in .pkl, got out.json')])
def test_a_tool_says_what_it_lacks(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture,
                                   tool: str, arguments: list[str], text: str) -> None:
    run = trained / 'run'
    with pytest.raises(SystemExit) as stopped:
        run_tool(monkeypatch, tool, trained / 'plain.py', *(argument.format(run=run) for argument in arguments))
    assert text.format(run=run) in capsys.readouterr().err + str(stopped.value)


@pytest.mark.parametrize(('error', 'code'), [
    (KeyboardInterrupt(), 130), (ValueError('`seeds` needs numbers'), '\n`seeds` needs numbers'),
    (OSError(28, 'No space left on device'), '\n[Errno 28] No space left on device'),
    (ImportError('needs mmpretrain'), '\nneeds mmpretrain')])
def test_a_long_command_ends_without_a_traceback(error: BaseException, code: int | str,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = {}
    monkeypatch.setattr('signal.signal', handlers.__setitem__)
    with pytest.raises(SystemExit) as stopped, told_in_one_line():
        raise error
    assert stopped.value.code == code
    with pytest.raises(KeyboardInterrupt):
        handlers[signal.SIGTERM](signal.SIGTERM, None)
