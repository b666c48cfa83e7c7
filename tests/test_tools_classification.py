"""The commands with classifiers, as a user types them."""

import pickle
from pathlib import Path

import pytest
import torch
from ckd_mmdet.teacher import build_model
from mmengine.config import Config

from tests.small_classifiers import classifier_config, distilled, run_config
from tests.small_runs import metrics, run_tool

CKD = dict(loss_ckd=dict(type='ckd_mmdet.CKDLoss', loss_weight=10.0))


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``teacher.py``, ``plain.py`` and ``distilled.py``, and runs of the first and the last."""
    folder = tmp_path_factory.mktemp('classifiers')
    run_config(classifier_config('resnet14')).dump(folder / 'teacher.py')
    run_config(classifier_config()).dump(folder / 'plain.py')
    model = distilled(classifier_config(), folder / 'teacher.py', folder / 'teacher/student.pth', CKD)
    run_config(model).dump(folder / 'distilled.py')
    with pytest.MonkeyPatch.context() as patch:
        for name in ('teacher', 'distilled'):
            run_tool(patch, 'train', folder / f'{name}.py', '--work-dir', folder / name)
    return folder


def measured(patch: pytest.MonkeyPatch, config: Path, checkpoint: Path, work_dir: Path, *more: str
             ) -> tuple[dict, torch.Tensor]:
    """What ``tools/test.py`` measured, and the scores that it wrote, shape ``(20, 10)``."""
    out = work_dir / 'predictions.pkl'
    run_tool(patch, 'test', config, checkpoint, '--work-dir', work_dir, '--out', out, *more)
    found = {key: value for key, value in metrics(work_dir).items() if not key.endswith('time')}
    return found, torch.stack([one['pred_score'] for one in pickle.loads(out.read_bytes())])


def test_plain_and_distillation_config_test_the_same_top_1_and_top_5(trained: Path, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = trained / 'distilled/epoch_2.pth'
    plain, ours = measured(monkeypatch, trained / 'plain.py', checkpoint, tmp_path / 'plain')
    student, theirs = measured(monkeypatch, trained / 'distilled.py', checkpoint, tmp_path / 'distilled',
                               '--cfg-options', 'model.teacher.checkpoint=gone.pth')
    assert plain == student and set(plain) == {'accuracy/top1', 'accuracy/top5'}
    assert ours.shape == (20, 10) and torch.equal(ours, theirs)


def test_the_distilled_student_is_an_ordinary_classifier(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                         ) -> None:
    run_tool(monkeypatch, 'export', trained / 'distilled/epoch_2.pth', tmp_path / 'student.pth')
    model = build_model(Config.fromfile(trained / 'plain.py'))
    for path in (trained / 'distilled/student.pth', tmp_path / 'student.pth'):
        model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)


def test_a_plain_config_is_distilled_by_its_teacher_s_name(trained: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (trained / 'plain.py', '--teacher', trained / 'teacher.py', '--teacher-checkpoint',
                 trained / 'teacher/student.pth', '--work-dir', tmp_path, '--method', 'ckd')
    run_tool(monkeypatch, 'train', *arguments, '--cfg-options', 'model.teacher.check_accuracy=False')
    ours, theirs = (torch.load(path / 'student.pth', weights_only=False)['state_dict']
                    for path in (tmp_path, trained / 'distilled'))
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_predictions_are_drawn_into_the_work_dir(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                 ) -> None:
    run_tool(monkeypatch, 'test', trained / 'plain.py', trained / 'distilled/student.pth', '--work-dir', tmp_path,
             '--show-dir', 'pictures')
    assert len(list((tmp_path / 'pictures').glob('*.png'))) == 20


def test_test_time_augmentation_is_the_configs(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = trained / 'distilled/student.pth'
    with pytest.raises(SystemExit, match="--tta needs `tta_model` .*; mmpretrain's `AverageClsScoreTTA`"):
        run_tool(monkeypatch, 'test', trained / 'plain.py', checkpoint, '--tta')
    cfg = Config.fromfile(trained / 'plain.py')
    cfg.tta_model = dict(type='AverageClsScoreTTA')
    cfg.tta_pipeline = [dict(type='TestTimeAug', transforms=[
        [dict(type='RandomFlip', prob=1.), dict(type='RandomFlip', prob=0.)], [dict(type='PackInputs')]])]
    cfg.dump(tmp_path / 'tta.py')
    _, once = measured(monkeypatch, tmp_path / 'tta.py', checkpoint, tmp_path / 'once')
    _, twice = measured(monkeypatch, tmp_path / 'tta.py', checkpoint, tmp_path / 'twice', '--tta')
    assert once.shape == twice.shape and not torch.equal(once, twice)
