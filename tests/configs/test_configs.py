"""Every shipped config, with random weights: nothing is downloaded, no data set is needed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ckd_mmdet.config import DISTILLER, read_config
from mmdet.datasets import CocoDataset
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from PIL import Image
from torch import nn

from tests.small_runs import ROOT, train

CONFIGS = ROOT / 'configs'
BASELINES = CONFIGS / 'baselines'
PARTS = {path.stem for path in (CONFIGS / '_base_/alignments').glob('*.py')}  # each defines a variable of its name
METHOD_NAME = re.compile(r'(?P<method>[a-z]+)_(?P<detector>\w+)_(?P<teacher>\w+)-(?P<student>[a-z0-9]+)_(?P<rest>\w+)')

register_all_modules(init_default_scope=True)


@lru_cache
def read(path: Path) -> Config:
    return read_config(path)


def names(folder: str = '.', pattern: str = '*.py') -> list[str]:
    return sorted(str(path.relative_to(CONFIGS)) for path in (CONFIGS / folder).rglob(pattern)
                  if not {'_base_', 'classification'} & set(path.relative_to(CONFIGS).parts))


def distilled() -> list[str]:
    return [name for name in names() if read(CONFIGS / name).model.type == DISTILLER]


def plain_twin(name: str) -> Path:
    """The student alone, under the same schedule, of a config named ``<method>_<detector>_<teacher>-<student>_...``."""
    if name.startswith('study/'):  # variants of one recipe
        return BASELINES / 'faster_rcnn_r18w16_fpn_9e_digit_scenes.py'
    part = METHOD_NAME.fullmatch(Path(name).stem)
    return BASELINES / f'{part["detector"]}_{part["student"]}_{compared(part["rest"])}.py'


def kd_twin(name: str) -> Path:
    return BASELINES / f'kd_{compared(Path(name).name.split("_", 1)[1])}'


def compared(name: str) -> str:
    """The released runs of CKD have no baseline of their length: they are compared under another budget."""
    return name.replace('_360k_', '_180k_')


def ckd_part(name: str) -> dict:
    part, = (part for part in read(CONFIGS / name).model.alignments.values() if 'loss_ckd' in part.losses)
    return part


LONGER = names('ckd', '*_360k_*.py')


def clear_pretrained(cfg: Any) -> None:
    """Take back every ``init_cfg`` and ``pretrained``, which would download, in place."""
    if isinstance(cfg, dict):
        for key in cfg:
            if key in ('init_cfg', 'pretrained'):
                cfg[key] = None
            else:
                clear_pretrained(cfg[key])
    elif isinstance(cfg, list | tuple):
        for part in cfg:
            clear_pretrained(part)


def build(model: dict) -> nn.Module:
    model = copy.deepcopy(model)
    clear_pretrained(model)
    return MODELS.build(model)


@lru_cache
def shapes(path: Path) -> dict[str, torch.Size]:
    with torch.device('meta'):  # no memory, no numbers
        return {key: value.shape for key, value in build(read(path).model).state_dict().items()}


@pytest.fixture(scope='module')
def random_teacher(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], dict]:
    """Gives a config's teacher the checkpoint of a model with random weights, saved once for each teacher and device.

    Made on the device ``meta``, it is of shapes alone, and fits models on that device.
    """
    folder, saved = tmp_path_factory.mktemp('teachers'), {}

    def with_checkpoint(teacher: dict) -> dict:
        name = teacher['config']
        key = name, torch.get_default_device()
        if key not in saved:
            saved[key] = str(folder / f'{len(saved)}.pth')
            meta = dict(dataset_meta=CocoDataset.METAINFO) if name.endswith('coco.py') else {}
            torch.save(dict(meta=meta, state_dict=build(read_config(name).model).state_dict()), saved[key])
        return dict(config=name, checkpoint=saved[key], check_accuracy=False)

    return with_checkpoint


@pytest.fixture
def shapes_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Models are built without memory; their data preprocessors' few numbers are read, and stay."""
    make = ImgDataPreprocessor.__init__

    def with_numbers(*args: Any, **kwargs: Any) -> None:
        with torch.device('cpu'):
            make(*args, **kwargs)

    monkeypatch.setattr(ImgDataPreprocessor, '__init__', with_numbers)
    with torch.device('meta'):
        yield


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # DigitScenes' teachers are named from here


@pytest.mark.parametrize('name', names())
def test_a_config_has_at_most_20_lines(name):
    assert len((CONFIGS / name).read_text().splitlines()) <= 20


@pytest.mark.parametrize('name', sorted(set(names()) - set(distilled())))
def test_a_plain_config_builds(name):
    assert shapes(CONFIGS / name)


@pytest.mark.parametrize('name', distilled())
def test_a_distilled_config_builds_and_its_student_equals_the_plain_one(name, random_teacher, shapes_alone):
    model = copy.deepcopy(read(CONFIGS / name).model)
    model.teacher = random_teacher(model.teacher)
    distiller = build(model)
    assert {key: value.shape for key, value in distiller.state_dict().items()} == shapes(plain_twin(name))
    assert distiller.distillation.teachers and list(distiller.distillation.alignments) == list(model.alignments)


@pytest.mark.parametrize('name', sorted(set(distilled()) - set(LONGER)))
def test_a_distilled_config_differs_from_its_plain_twin_in_its_model_alone(name):
    ours, plain = read(CONFIGS / name), read(plain_twin(name))
    assert {'train_cfg', 'optim_wrapper', 'param_scheduler', 'train_dataloader'} <= set(plain)
    assert ({key: ours[key] for key in set(ours) - {'model'} - PARTS} ==
            {key: plain[key] for key in set(plain) - {'model'}})
    assert ours.model.student == plain.model


@pytest.mark.parametrize('name', names('ckd'))
def test_a_method_has_a_kd_twin_with_the_same_teacher_and_student(name):
    ours, control = read(CONFIGS / name).model, read(kd_twin(name)).model
    assert ours.teacher == control.teacher
    assert ours.student == control.student
    of_ours, (of_control,) = ckd_part(name), control.alignments.values()
    assert of_ours.aligner == of_control.aligner
    if of_ours.aligner.type == 'RoIAligner':  # all sampled RoIs, as KD is commonly run, whatever rows suit CKD
        assert of_control.selector.type == 'All'
    assert [loss.type for loss in of_control.losses.values()] == ['KDLoss']


@pytest.mark.parametrize('name', names('ckd'))
def test_settings_that_are_not_the_released_ones_say_whose_they_are(name):
    alignment = ckd_part(name)
    released = alignment.aligner.type == 'RoIAligner' and alignment.selector.type == 'All'
    assert released and alignment.losses.loss_ckd.loss_weight == 0.1 or '# ours' in (CONFIGS / name).read_text()


@pytest.mark.parametrize('name', names('pckd'))
def test_pckd_on_rois_has_the_rows_of_its_kd_twin_with_background_capped(name):
    (ours,), (control,) = (read(path).model.alignments.values() for path in (CONFIGS / name, kd_twin(name)))
    assert ours.aligner == control.aligner
    assert ours.selector == dict(type='ForegroundPlus', k=64)
    assert list(ours.losses) == ['loss_contrast', 'loss_centers', 'loss_features']
    assert '# ours' in (CONFIGS / name).read_text() or 'is ours' in (CONFIGS / name).read_text()


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
    cfg = read(CONFIGS / folder / f'{method}_{detector}_{teacher}-{student}_fpn_180k_coco.py')
    review = dict(loss_review=dict(type='ReviewKDLoss', mid_channels=256, loss_weight=weight))
    expected = {}
    for part in METHODS[method]:
        if part == 'review':
            expected['neck'] = dict(aligner=dict(type='NeckAligner'), losses=review)
        else:
            expected['roi'] = dict(aligner=dict(type='RoIAligner'), selector=dict(type='All'), losses=ROI_LOSSES[part])
    assert cfg.model.alignments == expected
    assert cfg.model.teacher == dict(
        config=f'mmdet::{detector}/{detector.replace("_", "-")}_{teacher}_fpn_2x_coco.py')
    assert budget(cfg) == budget_of(180_000, [120_000, 160_000], 8)


@pytest.mark.parametrize(('detector', 'teacher', 'student', 'weight', 'images'), RELEASED)
def test_the_released_run_trains_the_compared_model_twice_as_long(detector, teacher, student, weight, images):
    ours, shorter = (read(CONFIGS / f'ckd/reviewckd_{detector}_{teacher}-{student}_fpn_{budget}_coco.py')
                     for budget in ('360k', '180k'))
    assert budget(ours) == budget_of(360_000, [240_000, 320_000], images)
    changed = {'train_cfg', 'param_scheduler', 'train_dataloader', 'auto_scale_lr'}
    assert {key: ours[key] for key in set(ours) - changed} == {key: shorter[key] for key in set(shorter) - changed}
    assert ours.train_dataloader.dataset == shorter.train_dataloader.dataset


def test_every_long_run_is_one_of_the_released():
    assert len(LONGER) == len(RELEASED)


@pytest.mark.parametrize('name', names('baselines', '*_180k_*.py'))
def test_a_student_is_the_same_under_both_schedules(name):
    if read(CONFIGS / name).model.type != DISTILLER:
        assert read(CONFIGS / name).model == read(CONFIGS / name.replace('_180k_', '_1x_')).model


@pytest.mark.parametrize('name', distilled())
def test_a_teacher_without_a_checkpoint_has_an_address_in_the_model_zoo(name):
    teacher = read(CONFIGS / name).model.teacher
    assert 'checkpoint' in teacher or get_config(teacher.config, pretrained=True).model_path.startswith('https://')


def write_tiny_coco(root: Path) -> None:
    """Two noise images with three boxes each, where COCO's training set would lie."""
    (root / 'annotations').mkdir(parents=True)
    (root / 'train2017').mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(root / f'train2017/{i}.jpg')
        images.append(dict(id=i, file_name=f'{i}.jpg', width=96, height=64))
        for category, box in ((1, [4, 6, 40, 30]), (18, [50, 10, 30, 40]), (80, [20, 30, 24, 24])):
            x, y, w, h = box
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            boxes.append(dict(id=len(boxes), image_id=i, category_id=category, bbox=box, area=w * h, iscrowd=0,
                              segmentation=[outline]))
    categories = [dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
    coco = dict(images=images, annotations=boxes, categories=categories)
    (root / 'annotations/instances_train2017.json').write_text(json.dumps(coco))


def shrink_run(cfg: Config, root: Path) -> None:
    """Two steps of two images, over the config's own pipeline at a tenth of its size, in place."""
    loader = cfg.train_dataloader
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(root / 'coco')
    resize, = (step for step in loader.dataset.pipeline if step.type in ('Resize', 'RandomChoiceResize'))
    resize.update(dict(scale=(96, 64)) if 'scale' in resize else dict(scales=[(96, 64)]))
    if 'rcnn' in cfg.model.student.get('train_cfg', {}):
        cfg.model.student.train_cfg.rcnn.sampler.num = 32
    cfg.train_cfg.update(dict(max_iters=2) if 'max_iters' in cfg.train_cfg else dict(max_epochs=2))
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 1
    cfg.update(work_dir=str(root), experiment_name=root.name, log_level='WARNING', randomness=dict(seed=0))


@pytest.mark.parametrize('name', ['ckd/ckd_faster_rcnn_r101-r50_fpn_1x_coco.py',
                                  'ckd/ckd_faster_rcnn_r101-r18_fpn_1x_coco.py',
                                  'ckd/ckd_faster_rcnn_r50-mobilenetv2_fpn_1x_coco.py',
                                  'baselines/kd_faster_rcnn_r101-r18_fpn_1x_coco.py',
                                  'baselines/dkd_faster_rcnn_r50-mobilenetv2_fpn_180k_coco.py',
                                  'baselines/reviewkd_faster_rcnn_r101-r18_fpn_180k_coco.py',
                                  'baselines/reviewdkd_faster_rcnn_r101-r18_fpn_180k_coco.py',
                                  'ckd/reviewckd_mask_rcnn_r101-r18_fpn_360k_coco.py',
                                  'ckd/ckd_faster_rcnn_x101cascade-r50_fpn_1x_coco.py',
                                  'ckd/ckd_mask_rcnn_r101-r18_fpn_1x_coco.py',
                                  'ckd/ckd_retinanet_r50-r18_fpn_1x_coco.py',
                                  'ckd/ckd_fcos_r101-r50_fpn_1x_coco.py',
                                  'ckd/ckd_gfl_r101-r50_fpn_1x_coco.py'])
def test_a_coco_config_takes_two_optimizer_steps(name, random_teacher, tmp_path):
    cfg = copy.deepcopy(read(CONFIGS / name))
    clear_pretrained(cfg.model)
    cfg.model.teacher = random_teacher(cfg.model.teacher)
    write_tiny_coco(tmp_path / 'coco')
    shrink_run(cfg, tmp_path)

    steps = train(cfg)

    assert len(steps) == 2
    for name, alignment in cfg.model.alignments.items():
        loss, = (f'{name}.{key}' for key in alignment.losses)
        assert all(0 < step[loss] < step['loss'] < float('inf') for step in steps)
        if 'selector' in alignment:  # maps have no rows
            assert all(0 < step[f'{name}.rows'] <= 1024 for step in steps)
    assert steps[0]['loss'] != steps[1]['loss']
