"""From a method's name to its config, or to the reason why not."""

import copy
import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ckd_mmdet.cached.header import Header
from ckd_mmdet.config import read_config
from ckd_mmdet.lab.compare import methods
from ckd_mmdet.lab.compare.methods import Pair, check_names, folder_name, make_method, student_config
from ckd_mmdet.lab.compare.schedule import check_loop, is_validated, keep_records, scale_epochs
from ckd_mmdet.losses.weight import Weight
from ckd_mmdet.teacher import build_model
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop
from torch.optim import SGD
from torch.utils.data import DataLoader

B = 'configs/baselines/faster_rcnn'
DIGITS = dict(student=f'{B}_r18w16_fpn_9e_digit_scenes.py', teacher=f'{B}_r18_fpn_9e_digit_scenes.py')
CKD = 'configs/ckd/ckd_faster_rcnn_r18-r18w16_fpn_9e_digit_scenes.py'
ROOT = Path(__file__).resolve().parents[3]


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
    ('best', "'best' is unknown; take of none, ckd, ckd_released, kd, dkd"), ('ckd+best:2', "'best:2' is unknown"),
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
    (3, 3, [2, 3], 2, 1), (24, 24, [16, 22], 12, 12), (12, 12, [8, 11], 6, 6), (1, 1, [1, 1], 0, 1)])
def test_schedules_shrink_and_grow_with_the_epochs(epochs: int, end: int, milestones: list, begin: int, half: int
                                                   ) -> None:
    cfg = schedule(val_begin=10)
    scale_epochs(cfg, epochs)
    warm_up, steps, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == epochs and cfg.train_cfg.val_begin == min(10, epochs)
    assert warm_up.end == 500
    assert (steps.end, steps.milestones) == (end, milestones)
    assert (cosine.begin, cosine.end, cosine.T_max) == (begin, end, half)


def test_loss_weights_that_change_by_epochs_keep_their_share_of_the_way() -> None:
    def scaled(epochs: int) -> list:
        cfg = schedule()
        cfg.model = dict(alignments=dict(roi=dict(losses=dict(
            loss_a=dict(loss_weight=dict(value=2.0, warm_up=4, decay=(6, 9), stop=9)),
            loss_b=dict(loss_weight=dict(balance=0.5, decay=[10, 11])), loss_c=dict(loss_weight=3.0), loss_d={}))))
        scale_epochs(cfg, epochs)
        losses = cfg.model.alignments.roi.losses.to_dict()
        for loss in losses.values():
            Weight.of(loss.get('loss_weight', 1.0), 'Weight')  # each is one that can be built
        return [loss.get('loss_weight') for loss in losses.values()]

    assert scaled(24) == [dict(value=2.0, warm_up=8, decay=(12, 18), stop=18), dict(balance=0.5, decay=(20, 22)),
                          3.0, None]
    assert scaled(4) == [dict(value=2.0, warm_up=1, decay=(2, 3), stop=3), dict(balance=0.5, decay=(3, 4)), 3.0, None]
    assert scaled(12)[0] == dict(value=2.0, warm_up=4, decay=(6, 9), stop=9)


def test_the_config_s_own_number_of_epochs_changes_nothing() -> None:
    cfg, same = schedule(), schedule()
    scale_epochs(same, 12)
    assert same.to_dict() == cfg.to_dict()
    assert make_method('kd', pair(9)).digest == make_method('kd', pair()).digest


def rates(cfg: Config, steps: int = 20) -> list[float]:
    """The learning rate of each step as mmengine sets it, of 1 in the optimizer; so many steps an epoch."""
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build(copy.deepcopy(dict(one)), default_args=dict(
        optimizer=optimizer, **(dict(epoch_length=steps) if one.get('convert_to_iter_based') else {})))
        for one in cfg.param_scheduler]
    found = []
    for step in range(cfg.train_cfg.max_epochs * steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (step + 1) % steps == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize('epochs', [1, 2, 3, 4, 5, 6, 7, 10, 13, 15, 31, 300, 450])
@pytest.mark.parametrize(('begin', 'end', 'length', 'convert'), [
    (150, 300, 150, True), (150, 300, 150, False), (150, None, 150, True), (0, 300, 300, True), (5, 285, 280, True),
    (30, 290, 260, False), (100, 101, 1, True)])
def test_a_cosine_never_rises_again_whatever_the_epochs(epochs: int, begin: int, end: int | None, length: int,
                                                        convert: bool) -> None:
    cfg = Config(dict(train_cfg=dict(max_epochs=300), param_scheduler=[
        dict(type='CosineAnnealingLR', begin=begin, T_max=length, eta_min=0.05, by_epoch=True,
             convert_to_iter_based=convert, **({} if end is None else dict(end=end)))]))
    scale_epochs(cfg, epochs)
    found = rates(cfg)
    assert all(later <= before + 1e-9 for before, later in pairwise(found))
    if length > 1 and epochs >= 15 and convert:
        assert found[-1] < 0.07  # it went all the way


@pytest.mark.parametrize('epochs', [1, 2, 3, 5, 6, 10, 50])
@pytest.mark.parametrize('student', ['rtmdet/rtmdet_s_8xb32-300e_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py'])
def test_the_schedules_of_mmdet_s_long_trainings_scale(student: str, epochs: int) -> None:
    register_all_modules(init_default_scope=False)
    cfg = read_config(f'mmdet::{student}')
    scale_epochs(cfg, epochs)
    for one in cfg.param_scheduler:
        if one.get('by_epoch'):
            assert 0 <= one.begin < one.end <= epochs
    counted = [one for one in cfg.param_scheduler if one.get('by_epoch')]
    assert all(before.end <= after.begin for before, after in pairwise(counted))  # handed over as before
    found = rates(cfg, steps=2000 // epochs)
    top = found.index(max(found))
    assert all(later <= before + 1e-9 for before, later in pairwise(found[top:])) and max(found) <= 1 + 1e-9
    if epochs >= 5:
        assert found[-1] < 0.1


def test_the_epochs_of_a_cosine_with_restarts_scale_and_none_is_empty() -> None:
    def scaled(epochs: int) -> dict:
        cfg = Config(dict(train_cfg=dict(max_epochs=12), param_scheduler=[
            dict(type='CosineRestartLR', periods=[4, 1, 7], restart_weights=[1, 0.5, 0.2], eta_min=0, by_epoch=True)]))
        scale_epochs(cfg, epochs)
        assert len(rates(cfg)) == epochs * 20
        return cfg.param_scheduler[0]

    assert (scaled(24).periods, scaled(24).restart_weights) == ([8, 2, 14], [1, 0.5, 0.2])
    assert (scaled(6).periods, scaled(6).restart_weights) == ([2, 4], [1, 0.2])
    assert (scaled(1).periods, scaled(1).restart_weights) == ([1], [0.2])


class Digits(list):
    metainfo: dict = {}


def mmengine_validates(loop: dict) -> list[int]:
    """The epochs after which mmengine's own loop validates."""
    found: list[int] = []
    runner = SimpleNamespace(val_loop=SimpleNamespace(run=lambda: found.append(played._epoch)), model=None,
                             call_hook=lambda *args, **kwargs: None, visualizer=SimpleNamespace())
    played = EpochBasedTrainLoop(runner, DataLoader(Digits([0])), **loop)
    played.run_epoch = lambda: setattr(played, '_epoch', played._epoch + 1)
    played.run()
    return found


@pytest.mark.parametrize('loop', [
    {}, dict(val_interval=5, val_begin=4), dict(val_interval=10, dynamic_intervals=[(8, 1)]),
    dict(val_interval=3, val_begin=5, dynamic_intervals=[(6, 2), (10, 1)])])
def test_the_epochs_that_are_validated_are_mmengine_s(loop: dict) -> None:
    cfg = schedule(**loop)
    expected = mmengine_validates(dict(max_epochs=12, **loop))
    assert [epoch for epoch in range(1, 13) if is_validated(cfg, epoch)] == expected and 12 in expected


def test_intervals_of_validation_that_change_on_the_way_do_so_at_the_same_share() -> None:
    cfg = schedule(val_interval=10, dynamic_intervals=[(8, 1)])
    scale_epochs(cfg, 6)
    assert cfg.train_cfg.dynamic_intervals == [(4, 1)]
    assert [epoch for epoch in range(1, 7) if is_validated(cfg, epoch)] == mmengine_validates(
        dict(max_epochs=6, val_interval=10, dynamic_intervals=[(4, 1)])) == [3, 4, 5, 6]


def test_what_a_matrix_reads_is_written_whatever_the_student_s_config_says() -> None:
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=500, by_epoch=False,
                                                         save_best='coco/bbox_mAP', filename_tmpl='ep{}.pth',
                                                         save_optimizer=False, out_dir='elsewhere', save_begin=8),
                                         logger=dict(type='LoggerHook', interval=200, log_metric_by_epoch=False)),
                      visualizer=dict(type='Visualizer', vis_backends=[dict(type='TensorboardVisBackend')])))
    keep_records(cfg)
    assert cfg.default_hooks.checkpoint == dict(type='CheckpointHook', interval=1, by_epoch=True, max_keep_ckpts=2)
    assert cfg.default_hooks.logger == dict(type='LoggerHook', interval=50)
    assert [backend.type for backend in cfg.visualizer.vis_backends] == ['TensorboardVisBackend', 'LocalVisBackend']


@pytest.mark.parametrize(('cfg', 'text'), [
    (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=10)), 'trains by epochs.* tools/train.py'),
    (dict(train_cfg=dict(max_epochs=1)), 'val_dataloader'),
    (dict(train_cfg=dict(max_epochs=1), val_dataloader=dict(batch_size=1), val_evaluator=[
        dict(type='VOCMetric'), dict(type='CocoMetric', format_only=True)]), 'format_only')])
def test_a_training_without_epochs_or_validation_is_refused(cfg: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_loop(Config(cfg))


# configs

def test_all_methods_have_the_student_s_schedule_and_data() -> None:
    shorter = pair(epochs=3)
    made = [make_method(name, shorter) for name in ('none', 'kd', CKD)]
    assert [method.refused for method in made] == [None] * 3
    none, kd, ckd = (method.config for method in made)
    for cfg in (kd, ckd):
        assert cfg.model.student == none.model and cfg.model.teacher.checkpoint == 'weights.pth'
        for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader', 'default_hooks',
                    'custom_hooks'):
            assert cfg[key] == none[key]
    assert none.train_cfg.max_epochs == 3
    assert len({method.digest for method in made}) == 3


def test_the_digest_is_the_config_s_whatever_the_teacher_s_file_is_called() -> None:
    other = Pair(**{**DIGITS, 'teacher': f'./{DIGITS["teacher"]}'}, checkpoint='moved.pth', epochs=None, options={})
    assert make_method('kd', pair()).digest == make_method('kd', other).digest != make_method('kd', pair(2)).digest


@pytest.mark.parametrize('key', ['model.teacher', 'model.teacher.config', 'model.teacher.checkpoint'])
def test_an_option_may_not_name_another_teacher(key: str) -> None:
    with pytest.raises(ValueError, match=f'`--cfg-options {key}=...` would teach from another teacher .* `--teacher`'):
        student_config(pair(**{key: 'other'}))


def test_options_reach_every_run_and_those_of_the_student_its_model() -> None:
    changed = pair(**{'optim_wrapper.optimizer.lr': 0.5, 'model.student.test_cfg.rcnn.max_per_img': 7,
                      'model.teacher.check_accuracy': False})
    none, kd, ckd = (make_method(name, changed).config for name in ('none', 'kd', CKD))
    assert none.model.test_cfg.rcnn.max_per_img == 7 and 'teacher' not in none.model
    for cfg in (kd, ckd):
        assert cfg.model.student.test_cfg.rcnn.max_per_img == 7 and cfg.model.teacher.check_accuracy is False
    assert {cfg.optim_wrapper.optimizer.lr for cfg in (none, kd, ckd)} == {0.5}


def test_an_option_of_the_student_s_own_model_is_asked_for_by_its_name_in_a_distilled_one() -> None:
    with pytest.raises(ValueError, match=r'write model\.student\.test_cfg\.rcnn\.max_per_img='):
        student_config(pair(**{'model.test_cfg.rcnn.max_per_img': 7}))


def test_an_option_gives_the_map_of_classes_before_the_classes_are_paired() -> None:
    by_class = {'model.teacher.class_map': dict(one='two', two='one')}
    kd = make_method('kd', pair(**by_class))
    assert kd.config.model.teacher.class_map.to_dict() == dict(one='two', two='one')
    assert 'class_map' not in make_method('none', pair(**by_class)).config.model


def given(folder: Path, **changes: Any) -> str:
    cfg = Config.fromfile(CKD)
    cfg.merge_from_dict(changes)
    cfg.dump(folder / 'given.py')
    return str(folder / 'given.py')


@pytest.mark.parametrize(('changes', 'text'), [
    ({'train_dataloader.batch_size': 3}, 'differs from .* in `train_dataloader`; a matrix compares methods'),
    ({'model.student.test_cfg.rcnn.max_per_img': 3, 'train_cfg.max_epochs': 2}, 'in `model.student`, `train_cfg`'),
    ({'custom_hooks': [dict(type='EMAHook')]}, 'in `custom_hooks`'),
    ({'auto_scale_lr.enable': True}, 'in `auto_scale_lr`'), ({'resume': True}, 'in `resume`'),
    ({'val_cfg.fp16': True}, 'in `val_cfg`'),
    ({'model.teacher.config': DIGITS['student']}, 'has another teacher than')])
def test_a_whole_config_may_differ_in_its_distillation_only(changes: dict, text: str, tmp_path: Path) -> None:
    method = make_method(given(tmp_path, **changes), pair())
    assert method.config is None and method.digest is None
    with pytest.raises(ValueError, match=text):
        raise ValueError(method.refused)


def test_a_learning_rate_that_is_not_scaled_may_be_meant_for_another_batch(tmp_path: Path) -> None:
    assert make_method(given(tmp_path, **{'auto_scale_lr.base_batch_size': 3}), pair()).refused is None


@pytest.mark.parametrize(('changes', 'text'), [
    ({'model.alignments.roi.aligner.type': 'QueryAligner'}, '`QueryAligner` needs'),
    ({'model.alignments.roi.losses.loss_ckd.type': 'KDLosss'}, 'registered DistillLoss, got .KDLosss'),
    ({'model.alignments.roi.selector': dict(type='TeacherTopK')}, "`TeacherTopK` missing .*'k'"),
    ({'model.alignments.roi.teacher': 'big'}, r"`alignments\.roi\.teacher` is 'big'"),
    ({'model.teacher.chekc_accuracy': False}, 'TypeError: .*chekc_accuracy'),
    ({'model.aligments': {}}, 'TypeError: .*aligments')])
def test_a_whole_config_that_cannot_train_is_refused_before_it_does(changes: dict, text: str, tmp_path: Path) -> None:
    method = make_method(given(tmp_path, **changes), pair())
    assert method.config is None
    assert re.search(text, method.refused)


def test_an_option_of_an_alignment_refuses_the_methods_that_have_none_of_this_name() -> None:
    weighed = pair(**{'model.alignments.roi.losses.loss_kd.loss_weight': 3.0})
    assert make_method('kd', weighed).config.model.alignments.roi.losses.loss_kd.loss_weight == 3.0
    assert '`alignments.roi' in make_method('pkd', weighed).refused
    assert make_method('none', weighed).refused is None


def test_an_option_that_the_model_does_not_take_refuses_and_raises_nothing() -> None:
    for name in ('none', CKD):
        refused = make_method(name, pair(**{'model.student.backbone.depht': 18})).refused
        assert refused.startswith('its config is broken: TypeError: ') and 'depht' in refused


def test_the_models_are_built_once_for_all_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(methods, 'build_model', lambda cfg: built.append(cfg) or build_model(cfg))
    of_all = pair()
    assert [make_method(name, of_all).refused for name in ('none', 'kd', CKD)] == [None] * 3
    assert len(built) == 2


def test_a_config_with_a_syntax_error_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / 'bad.py').write_text('model = dict(')
    with pytest.raises(ValueError, match=r"'.*bad\.py', which is no readable config: .*never closed"):
        check_names([str(tmp_path / 'bad.py')])


def test_a_plain_config_is_no_method() -> None:
    assert 'no config of a distilled student' in make_method(DIGITS['teacher'], pair()).refused


def test_a_method_that_the_pair_cannot_give_is_refused_alone() -> None:
    student = 'configs/baselines/retinanet_r18w16_fpn_12e_digit_scenes.py'
    retina = Pair(student, DIGITS['teacher'], 'weights.pth', None, {})
    refused = make_method('dist', retina)
    assert refused.config is None and 'dist' in refused.refused.lower()
    assert make_method('none', retina).config is not None


@pytest.mark.parametrize(('weights', 'refused'), [('weights.pth', None), ('others.pth', 'has another teacher than')])
def test_a_whole_config_may_have_a_cache_of_the_same_teacher(weights: str, refused: str | None, tmp_path: Path) -> None:
    Header(teacher='teacher.py', checkpoint=weights, digest='', checkpoint_digest='', classes=None, preprocessing=None,
           pipeline=[], views=[], images=0, images_digest='', parts={}).write(tmp_path)
    method = make_method(given(tmp_path, **{'model.teacher': dict(_delete_=True, cache=str(tmp_path))}), pair())
    assert refused in method.refused if refused else method.config.model.teacher.cache == str(tmp_path)
