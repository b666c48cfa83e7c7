"""What distillation itself learns: trained, saved, restored, and not the student's."""

from pathlib import Path

import pytest
import torch
from ckd_mmdet.alignment import build_alignment
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from mmengine.runner.checkpoint import load_state_dict

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


def learned(state: dict) -> dict:
    return {key: value for key, value in state.items() if key.startswith('distiller.')}


def test_learned_parts_train_and_lie_under_distiller(run: tuple) -> None:
    cfg, steps = run
    first, second, last = (learned(weights(cfg, f'epoch_{epoch}.pth')) for epoch in (1, 2, 3))
    kernels = [key for key in first if key.endswith('.weight')]
    assert kernels and all(key.startswith('distiller.neck.losses.loss_review.') for key in first)
    assert all(not torch.equal(first[key], second[key]) for key in kernels)
    assert any('distiller.' in key for key in weights(cfg, 'epoch_1.pth', 'ema_state_dict'))
    assert [step['neck.loss_review'] > 0 for step in steps] == [True] * STOP * STEPS + [False] * STEPS
    assert last.keys() == first.keys()


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


def test_the_student_starts_from_the_weights_of_the_student_alone(digit_teacher: dict) -> None:
    models = []
    for config in (student_config(), with_maps(digit_teacher)):
        models.append(toy_model(config))
        torch.manual_seed(5)
        models[-1].init_weights()
    alone, distiller = (model.state_dict() for model in models)
    assert all(torch.equal(value, distiller[key]) for key, value in alone.items())
    assert learned(distiller)


def test_the_optimizer_has_them(digit_teacher: dict) -> None:
    distiller = toy_model(with_maps(digit_teacher))
    names = {name for name, _ in distiller.named_parameters()}
    assert {name for name in names if name.startswith('distiller.')}
    assert not [name for name in names if 'teacher' in name]
    load_state_dict(distiller, distiller.state_dict(), strict=True)


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
    first, last = (learned(weights(cfg, f'epoch_{epoch}.pth')) for epoch in (1, 2))
    assert {'.'.join(key.split('.')[3:6]) for key in first} == {'loss_contrast.embeddings.student',
            'loss_contrast.embeddings.teacher', 'loss_features.mlp.0', 'loss_features.mlp.1', 'loss_features.mlp.3'}
    assert not any(torch.equal(first[key], last[key]) for key in first)
    assert train(resumed(cfg, tmp_path / 'whole' / 'epoch_1.pth', tmp_path / 'rest')) == whole[STEPS:]
    assert not learned(torch.load(tmp_path / 'whole' / 'student.pth', weights_only=False)['state_dict'])


def test_pckd_on_anchors_is_refused_in_one_sentence() -> None:
    cfg = dict(aligner=dict(type='DenseAligner'), selector=dict(type='Foreground'),
               losses=dict(loss_contrast=dict(type='CategoryContrastLoss')))
    with pytest.raises(ValueError, match='a dense head scores by a convolution that the anchors of all places share: '
                                         'it has no category centres'):
        build_alignment('dense', cfg)
