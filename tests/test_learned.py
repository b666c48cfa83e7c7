"""What distillation itself learns: trained, saved, restored, and not the student's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ckd_mmdet.alignment import build_alignment
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.runner import load_checkpoint

from tests.small_runs import distilled, run_config, student_config, train
from tests.test_runs import EPOCHS, STEPS, resumed
from tests.toys import toy_model

STOP = 2


def with_maps(teacher: dict, **options: object) -> dict:
    """CKD on RoIs and ReviewKD on the maps, which stops before the last epoch."""
    model = distilled(student_config(), teacher)
    loss = dict(type='ReviewKDLoss', mid_channels=8, loss_weight=dict(value=1.0, stop=STOP), **options)
    model['alignments']['neck'] = dict(aligner=dict(type='NeckAligner'), losses=dict(loss_review=loss))
    return model


@pytest.fixture(scope='module')
def run(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory
        ) -> tuple[Config, list[dict[str, float]]]:
    cfg = run_config(with_maps(digit_teacher), digits, tmp_path_factory.mktemp('learned'), epochs=EPOCHS, ema=True)
    return cfg, train(cfg)


def weights(cfg: Config, name: str, part: str = 'state_dict') -> dict:
    return torch.load(Path(cfg.work_dir) / name, weights_only=False)[part]


def learned(folder: str | Path, name: str) -> dict[str, torch.Tensor]:
    """What a checkpoint keeps of the losses' learned parts, by ``<alignment>.<loss>.<parameter>``."""
    kept = torch.load(Path(folder) / name, weights_only=False)['ckd_mmdet']['learned']
    return {f'{loss}.{key}': value for loss, state in kept.items() for key, value in state.items() if 'parts.' in key}


def test_learned_parts_train_and_have_a_key_of_their_own(run: tuple) -> None:
    cfg, steps = run
    first, second, last = (learned(cfg.work_dir, f'epoch_{epoch}.pth') for epoch in (1, 2, 3))
    kernels = [key for key in first if key.endswith('.weight')]
    assert kernels and all(key.startswith('neck.loss_review.parts.') for key in first)
    assert all(not torch.equal(first[key], second[key]) for key in kernels)
    assert [step['neck.loss_review'] > 0 for step in steps] == [True] * STOP * STEPS + [False] * STEPS
    assert last.keys() == first.keys()


def test_every_state_dict_is_an_ordinary_students(run: tuple) -> None:
    cfg, _ = run
    student = toy_model(student_config(), seed=7)
    names = [path.name for path in Path(cfg.work_dir).glob('*.pth')]
    assert {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'student.pth', 'student_best.pth'} < set(names)
    for name in names:
        student.load_state_dict(weights(cfg, name), strict=True)
        if not name.startswith('student'):
            averaged = weights(cfg, name, 'ema_state_dict')
            student.load_state_dict({key.removeprefix('module.'): value for key, value in averaged.items()
                                     if key.startswith('module.')}, strict=True)


def test_the_exported_student_has_none_of_them(run: tuple) -> None:
    cfg, _ = run
    toy_model(student_config(), seed=7).load_state_dict(weights(cfg, 'student.pth'), strict=True)
    plain = toy_model(student_config(), seed=8)
    load_checkpoint(plain, str(Path(cfg.work_dir) / 'epoch_2.pth'))  # mmdet's own way: what it does not know stays out
    expected = weights(cfg, 'epoch_2.pth')
    assert all(torch.equal(value, expected[key]) for key, value in plain.state_dict().items())


def test_a_resumed_run_has_them_back(run: tuple, tmp_path: Path) -> None:
    cfg, whole = run
    rest = train(resumed(cfg, Path(cfg.work_dir) / 'epoch_1.pth', tmp_path))
    assert rest == whole[STEPS:]
    ours, theirs = (torch.load(folder / f'epoch_{EPOCHS}.pth', weights_only=False)['state_dict']
                    for folder in (tmp_path, Path(cfg.work_dir)))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    ours, theirs = (learned(folder, f'epoch_{EPOCHS}.pth') for folder in (tmp_path, cfg.work_dir))
    assert theirs and all(torch.equal(ours[key], value) for key, value in theirs.items())


@pytest.mark.parametrize(('change', 'text'), [
    (lambda kept: kept.pop('ckd_mmdet'), 'has nothing under the key `ckd_mmdet`.* a run without a teacher wrote it'),
    (lambda kept: kept['state_dict'].update({kept.pop('ckd_mmdet') and 'distiller.x': torch.ones(1)}),
     'an older version of ckd_mmdet wrote it. Start a new run from its weights with `load_from`'),
    (lambda kept: kept['ckd_mmdet']['learned'].pop('neck.loss_review'),
     'distilled by other losses: its checkpoint has roi.loss_ckd, the config neck.loss_review, roi.loss_ckd'),
    (lambda kept: kept['ckd_mmdet']['learned']['neck.loss_review'].popitem(), '`neck.loss_review` has learned other')])
def test_resuming_without_what_was_learned_is_refused(run: tuple, tmp_path: Path, change: Callable, text: str) -> None:
    cfg, _ = run
    kept = torch.load(Path(cfg.work_dir) / 'epoch_2.pth', weights_only=False)
    change(kept)
    torch.save(kept, tmp_path / 'changed.pth')
    with pytest.raises(ValueError, match=text):
        train(resumed(cfg, tmp_path / 'changed.pth', tmp_path))


def test_the_student_starts_from_the_weights_of_the_student_alone(digit_teacher: dict) -> None:
    models = []
    for config in (student_config(), with_maps(digit_teacher)):
        models.append(toy_model(config))
        torch.manual_seed(5)
        models[-1].init_weights()
    alone, ours = (model.state_dict() for model in models)
    assert all(torch.equal(value, ours[key]) for key, value in alone.items())


def test_the_optimizer_has_them(digit_teacher: dict) -> None:
    student = toy_model(with_maps(digit_teacher))
    parts = {id(part) for part in student.distillation.losses['neck.loss_review'].parameters()}
    optimizer = build_optim_wrapper(student, dict(optimizer=dict(type='SGD', lr=0.1))).optimizer
    assert parts and parts < {id(part) for group in optimizer.param_groups for part in group['params']}


def test_a_schedule_by_epochs_is_refused_in_a_run_by_iterations(digits: Path, digit_teacher: dict, tmp_path: Path
                                                               ) -> None:
    cfg = run_config(with_maps(digit_teacher), digits, tmp_path)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=4)
    with pytest.raises(ValueError, match=r'`neck.loss_review` has a `loss_weight` that changes by epochs, and this run '
                                         'is counted in iterations'):
        train(cfg)


def test_pckd_on_rois_trains_and_resumes_with_its_embeddings(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    losses = dict(loss_contrast=dict(type='CategoryContrastLoss', preview=dict(base=1.005), loss_weight=0.05),
                  loss_centers=dict(type='CenterAlignmentLoss'), loss_features=dict(type='FeatureAlignmentLoss'))
    model = distilled(student_config(), digit_teacher, losses, selector=dict(type='ForegroundPlus', k=16))
    cfg = run_config(model, digits, tmp_path / 'whole', epochs=2)
    whole = train(cfg)
    assert all(step[f'roi.{key}'] > 0 for step in whole for key in losses)
    thresholds = [step['roi.preview_threshold_contrast'] for step in whole]
    assert thresholds == pytest.approx([1.005] * STEPS + [1.005**2] * STEPS)
    first, last = (learned(cfg.work_dir, f'epoch_{epoch}.pth') for epoch in (1, 2))
    assert {key.split('.')[1] for key in first} == {'loss_contrast', 'loss_features'}
    assert not any(torch.equal(first[key], last[key]) for key in first)
    assert train(resumed(cfg, tmp_path / 'whole' / 'epoch_1.pth', tmp_path / 'rest')) == whole[STEPS:]
    toy_model(student_config()).load_state_dict(weights(cfg, 'student.pth'), strict=True)


def test_pckd_on_anchors_is_refused_in_one_sentence() -> None:
    cfg = dict(aligner=dict(type='DenseAligner'), selector=dict(type='Foreground'),
               losses=dict(loss_contrast=dict(type='CategoryContrastLoss')))
    with pytest.raises(ValueError, match='a dense head scores by a convolution that the anchors of all places share: '
                                         'it has no category centres'):
        build_alignment('dense', cfg)
