"""Every shipped config of a detector, with random weights: nothing is downloaded, no data set is needed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from ckd_mmdet.config import DISTILLER, read_config
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config

from tests.configs.shrunken import RandomTeachers, build, shapes_alone
from tests.configs.table import config_of, rows, settings
from tests.small_runs import ROOT

CONFIGS = ROOT / 'configs'

register_all_modules(init_default_scope=True)


@lru_cache
def read(name: str) -> Config:
    return read_config(CONFIGS / name)


def names(folder: str = '.', pattern: str = '*.py') -> list[str]:
    return sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / folder).rglob(pattern)
                  if not {'_base_', 'classification'} & set(path.relative_to(CONFIGS).parts))


def distilled() -> list[str]:
    return [name for name in names() if read(name).model.type == DISTILLER]


def shapes(cfg: Config) -> dict[str, torch.Size]:
    with shapes_alone():  # no memory, no numbers
        return {key: value.shape for key, value in build(cfg).state_dict().items()}


@pytest.fixture(scope='module')
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], dict]:
    return RandomTeachers(tmp_path_factory.mktemp('teachers'))


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # DigitScenes' teachers are named from here


@pytest.mark.parametrize('name', names())
def test_a_config_has_at_most_20_lines(name):
    assert len((CONFIGS / name).read_text().splitlines()) <= 20


@pytest.mark.parametrize('name', sorted(set(names()) - set(distilled())))
def test_a_plain_config_builds(name):
    assert shapes(read(name))


@pytest.mark.parametrize('name', distilled())
def test_a_distilled_config_builds_and_its_student_equals_the_plain_one(name, random_teacher):
    cfg = copy.deepcopy(read(name))
    with shapes_alone():
        cfg.model.teacher = random_teacher(cfg.model.teacher)
        student = build(cfg)
    assert {key: value.shape for key, value in student.state_dict().items()} == shapes(Config(dict(
        model=cfg.model.student, default_scope='mmdet')))
    assert student.distillation.teachers and list(student.distillation.alignments) == list(cfg.model.alignments)


@pytest.mark.parametrize('name', names('ckd'))
def test_settings_that_are_not_the_released_ones_say_whose_they_are(name):
    alignment, = (part for part in read(name).model.alignments.values() if 'loss_ckd' in part.losses)
    released = alignment.aligner.type == 'RoIAligner' and alignment.selector.type == 'All'
    assert released and alignment.losses.loss_ckd.loss_weight == 0.1 or '# ours' in (CONFIGS / name).read_text()


ROI_LOSSES = dict(
    kd=dict(loss_kd=dict(type='KDLoss', temperature=1.0, loss_weight=1.0)),
    dkd=dict(loss_dkd=dict(type='DKDLoss', alpha=1.0, beta=0.25, temperature=1.0, loss_weight=1.0)),
    ckd=dict(loss_ckd=dict(type='CKDLoss', temperature=1.0, loss_weight=0.1)))
METHODS = dict(kd=['kd'], dkd=['dkd'], reviewkd=['review'], reviewdkd=['review', 'dkd'], reviewckd=['review', 'ckd'])
RELEASED = [  # arXiv 2404.14109: detector, teacher and student, weight of ReviewKD beside CKD, images a step
    ('faster_rcnn', 'r101', 'r18', 1.2, 4),
    ('faster_rcnn', 'r101', 'r50', 1.0, 8),
    ('faster_rcnn', 'r50', 'mobilenetv2', 2.0, 8),
    ('mask_rcnn', 'r101', 'r18', 0.8, 8),
    ('mask_rcnn', 'r101', 'r50', 1.0, 8),
    ('mask_rcnn', 'r50', 'mobilenetv2', 1.0, 8),
]


def budget(cfg: Config) -> dict:
    """What a run costs, and how it learns."""
    warm_up, steps = cfg.param_scheduler
    return dict(iterations=cfg.train_cfg.max_iters, steps=steps.milestones, images=cfg.train_dataloader.batch_size,
                end=steps.end, by_epoch={steps.by_epoch, cfg.log_processor.by_epoch,
                                         cfg.default_hooks.checkpoint.by_epoch},
                warm_up=warm_up.end, optimizer=cfg.optim_wrapper.optimizer,
                scaled_from=cfg.auto_scale_lr.base_batch_size,
                sides=[step.scales for step in cfg.train_dataloader.dataset.pipeline if 'scales' in step])


def budget_of(iterations: int, steps: list[int], images: int) -> dict:
    return dict(iterations=iterations, steps=steps, images=images, end=iterations, by_epoch={False}, warm_up=1000,
                optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4), scaled_from=images,
                sides=[[(1333, side) for side in (640, 672, 704, 736, 768, 800)]])


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize(('detector', 'teacher', 'student', 'weight', 'images'), RELEASED)
def test_every_method_has_one_budget_and_the_settings_of_its_pair(detector, teacher, student, weight, images, method):
    folder = 'ckd' if 'ckd' in method else 'baselines'
    cfg = config_of(f'{folder}/{method}_{detector}_{teacher}-{student}_fpn_180k_coco.py')
    review = dict(loss_review=dict(type='ReviewKDLoss', mid_channels=256, loss_weight=weight))
    expected = {}
    for part in METHODS[method]:
        if part == 'review':
            expected['neck'] = dict(aligner=dict(type='NeckAligner'), losses=review)
        else:
            expected['roi'] = dict(aligner=dict(type='RoIAligner'), selector=dict(type='All'), losses=ROI_LOSSES[part])
    assert settings(cfg) == settings(Config(dict(model=dict(alignments=expected))))
    assert cfg.model.teacher.config == f'mmdet::{detector}/{detector.replace("_", "-")}_{teacher}_fpn_2x_coco.py'
    assert budget(cfg) == budget_of(180_000, [120_000, 160_000], 8)


@pytest.mark.parametrize(('detector', 'teacher', 'student', 'weight', 'images'), RELEASED)
def test_the_released_run_trains_the_compared_model_twice_as_long(detector, teacher, student, weight, images):
    ours, shorter = (config_of(f'ckd/reviewckd_{detector}_{teacher}-{student}_fpn_{budget}_coco.py')
                     for budget in ('360k', '180k'))
    assert budget(ours) == budget_of(360_000, [240_000, 320_000], images)
    changed = {'train_cfg', 'param_scheduler', 'train_dataloader', 'auto_scale_lr', 'work_dir'}
    assert {key: ours[key] for key in set(ours) - changed} == {key: shorter[key] for key in set(shorter) - changed}
    assert ours.train_dataloader.dataset == shorter.train_dataloader.dataset


def test_every_long_run_is_one_of_the_released():
    assert sum('_360k_' in name for name in rows()) == len(RELEASED)


@pytest.mark.parametrize('name', names('baselines', '*_180k_*.py'))
def test_a_student_is_the_same_under_both_schedules(name):
    shorter = name.replace('_180k_', '_1x_')
    if '_r50_' in name:
        kind = Path(name).stem.partition('_r50')[0]
        assert shapes(read(name)) == shapes(read_config(
            f'mmdet::{kind}/{kind.replace("_", "-")}_r50_fpn_1x_coco.py'))
    else:
        assert read(name).model == read(shorter).model


@pytest.mark.parametrize('name', [*distilled(), *(name for name in rows() if 'classification' not in name)])
def test_a_teacher_without_a_checkpoint_has_an_address_in_the_model_zoo(name):
    teacher = (read if (CONFIGS / name).exists() else config_of)(name).model.teacher
    assert 'checkpoint' in teacher or get_config(teacher.config, pretrained=True).model_path.startswith('https://')
