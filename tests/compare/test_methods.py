"""From a method's name to its config, or to the reason why not."""

from pathlib import Path
from typing import Any

import pytest
from ckd_mmdet.compare.methods import Pair, check_names, folder_name, make_method, student_config
from ckd_mmdet.compare.schedule import check_loop, is_validated, keep_records, scale_epochs
from mmengine.config import Config

B = 'configs/baselines/faster_rcnn'
DIGITS = dict(student=f'{B}_r18w16_fpn_9e_digit_scenes.py', teacher=f'{B}_r18_fpn_9e_digit_scenes.py')
CKD = 'configs/ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def pair(epochs: int | None = None, **options: Any) -> Pair:
    return Pair(**DIGITS, checkpoint='weights.pth', epochs=epochs, options=options)


# names

def test_folders_are_safe_and_different_for_different_methods() -> None:
    assert [folder_name(name) for name in ('none', 'ckd', 'ckd+pkd')] == ['none', 'ckd', 'ckd+pkd']
    names = ['ckd:0.5', 'ckd:0,5', 'ckd:0.5+pkd:balance:0.3', 'a/kd.py', 'b/kd.py', 'ckd_mmdet::ckd/kd.py', '../kd.py',
             'ckd+' * 40]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(not set(folder) & set('/:, ') and not folder.startswith('.') and len(folder) < 70 for folder in folders)
    assert folders[3].startswith('kd-') and folders[5].startswith('kd-')


@pytest.mark.parametrize('name', ['none', 'kd', 'ckd:0.5', CKD, f'ckd_mmdet::{CKD.removeprefix("configs/")}'])
def test_methods_weights_and_configs_are_known(name: str) -> None:
    check_names([name])


@pytest.mark.parametrize(('name', 'text'), [
    ('best', "'best' is unknown; take of none, ckd, kd, dkd"), ('ckd+best:2', "'best:2' is unknown"),
    ('', "'' is unknown"), ('gone.py', 'no readable config'), ('ckd_mmdet::gone.py', 'no readable config')])
def test_an_unknown_method_is_refused_with_the_list(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_names(['ckd', name])


# the schedule

def schedule(**loop: Any) -> Config:
    return Config(dict(train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=12, **loop), param_scheduler=[
        dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
        dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
        dict(type='CosineAnnealingLR', begin=6, end=12, T_max=6, by_epoch=True)]))


@pytest.mark.parametrize(('epochs', 'end', 'milestones', 'begin', 'half'), [
    (3, 3, [2, 3], 2, 2), (24, 24, [16, 22], 12, 12), (12, 12, [8, 11], 6, 6), (1, 1, [1, 1], 0, 1)])
def test_schedules_shrink_and_grow_with_the_epochs(epochs: int, end: int, milestones: list, begin: int, half: int
                                                   ) -> None:
    cfg = schedule(val_begin=10)
    scale_epochs(cfg, epochs)
    warm_up, steps, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == epochs and cfg.train_cfg.val_begin == min(10, epochs)
    assert warm_up.end == 500
    assert (steps.end, steps.milestones) == (end, milestones)
    assert (cosine.begin, cosine.end, cosine.T_max) == (begin, end, half)


def test_the_last_epoch_is_validated_and_every_interval() -> None:
    cfg = schedule(val_interval=5, val_begin=4)
    assert [epoch for epoch in range(1, 13) if is_validated(cfg, epoch)] == [5, 10, 12]


def test_what_a_matrix_reads_is_written_whatever_the_student_s_config_says() -> None:
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=500, by_epoch=False,
                                                         save_best='coco/bbox_mAP'),
                                         logger=dict(type='LoggerHook', interval=200)),
                      visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')])))
    keep_records(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='CheckpointHook', interval=1, by_epoch=True, max_keep_ckpts=2)
    assert cfg.default_hooks.logger.interval == 50
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ['TensorboardVisBackend', 'LocalVisBackend']


@pytest.mark.parametrize(('cfg', 'text'), [
    (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=10)), 'trains by epochs'),
    (dict(train_cfg=dict(max_epochs=1)), 'val_dataloader')])
def test_a_training_without_epochs_or_validation_is_refused(cfg: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_loop(Config(cfg))


# configs

def test_all_methods_have_the_student_s_schedule_and_data() -> None:
    methods = [make_method(name, pair(epochs=3)) for name in ('none', 'kd', CKD)]
    assert [method.refused for method in methods] == [None] * 3
    none, kd, ckd = (method.config for method in methods)
    for cfg in (kd, ckd):
        assert cfg.model.student == none.model and cfg.model.teacher.checkpoint == 'weights.pth'
        for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader', 'default_hooks',
                    'custom_hooks'):
            assert cfg[key] == none[key]
    assert none.train_cfg.max_epochs == 3
    assert len({method.digest for method in methods}) == 3


def test_the_digest_is_the_config_s_whatever_the_teacher_s_file_is_called() -> None:
    other = Pair(**{**DIGITS, 'teacher': f'./{DIGITS["teacher"]}'}, checkpoint='moved.pth', epochs=None, options={})
    assert make_method('kd', pair()).digest == make_method('kd', other).digest != make_method('kd', pair(2)).digest


def test_options_reach_every_run_and_those_of_the_student_its_model() -> None:
    options = {'optim_wrapper.optimizer.lr': 0.5, 'model.student.test_cfg.rcnn.max_per_img': 7,
               'model.teacher.check_accuracy': False}
    none, kd, ckd = (make_method(name, pair(**options)).config for name in ('none', 'kd', CKD))
    assert none.model.test_cfg.rcnn.max_per_img == 7 and 'teacher' not in none.model
    for cfg in (kd, ckd):
        assert cfg.model.student.test_cfg.rcnn.max_per_img == 7 and cfg.model.teacher.check_accuracy is False
    assert {cfg.optim_wrapper.optimizer.lr for cfg in (none, kd, ckd)} == {0.5}


def test_an_option_of_the_student_s_own_model_is_asked_for_by_its_name_in_a_distilled_one() -> None:
    with pytest.raises(ValueError, match=r'write model\.student\.test_cfg\.rcnn\.max_per_img='):
        student_config(pair(**{'model.test_cfg.rcnn.max_per_img': 7}))


def given(folder: Path, **changes: Any) -> str:
    cfg = Config.fromfile(CKD)
    cfg.merge_from_dict(changes)
    cfg.dump(folder / 'given.py')
    return str(folder / 'given.py')


@pytest.mark.parametrize(('changes', 'text'), [
    ({'train_dataloader.batch_size': 3}, 'differs from .* in `train_dataloader`; a matrix compares methods'),
    ({'model.student.test_cfg.rcnn.max_per_img': 3, 'train_cfg.max_epochs': 2}, 'in `model.student`, `train_cfg`'),
    ({'custom_hooks': [dict(type='EMAHook')]}, 'in `custom_hooks`'),
    ({'model.teacher.config': DIGITS['student']}, 'has another teacher than')])
def test_a_whole_config_may_differ_in_its_distillation_only(changes: dict, text: str, tmp_path: Path) -> None:
    method = make_method(given(tmp_path, **changes), pair())
    assert method.config is None and method.digest is None
    with pytest.raises(ValueError, match=text):
        raise ValueError(method.refused)


def test_a_plain_config_is_no_method() -> None:
    assert 'no config of a distilled student' in make_method(DIGITS['teacher'], pair()).refused


def test_a_method_that_the_pair_cannot_give_is_refused_alone() -> None:
    student = 'configs/baselines/retinanet_r18w16_fpn_12e_digit_scenes.py'
    retina = Pair(student, DIGITS['teacher'], 'weights.pth', None, {})
    refused = make_method('dist', retina)
    assert refused.config is None and 'dist' in refused.refused.lower()
    assert make_method('none', retina).config is not None
