"""Every shipped config, with random weights: nothing is downloaded, no data set is needed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
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
                  if '_base_' not in path.parts)


def distilled() -> list[str]:
    return [name for name in names() if read(CONFIGS / name).model.type == DISTILLER]


def plain_twin(name: str) -> Path:
    """The student alone, under the same schedule, of a config named ``<method>_<detector>_<teacher>-<student>_...``."""
    part = METHOD_NAME.fullmatch(Path(name).stem)
    return BASELINES / f'{part["detector"]}_{part["student"]}_{part["rest"]}.py'


def kd_twin(name: str) -> Path:
    return BASELINES / f'kd_{Path(name).name.split("_", 1)[1]}'


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
    """Gives a config's teacher the checkpoint of a model with random weights, saved once for each teacher."""
    folder, saved = tmp_path_factory.mktemp('teachers'), {}

    def with_checkpoint(teacher: dict) -> dict:
        name = teacher['config']
        if name not in saved:
            saved[name] = str(folder / f'{len(saved)}.pth')
            meta = dict(dataset_meta=CocoDataset.METAINFO) if name.endswith('coco.py') else {}
            torch.save(dict(meta=meta, state_dict=build(read_config(name).model).state_dict()), saved[name])
        return dict(config=name, checkpoint=saved[name], check_accuracy=False)

    return with_checkpoint


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
def test_a_distilled_config_builds_and_its_student_equals_the_plain_one(name, random_teacher):
    model = copy.deepcopy(read(CONFIGS / name).model)
    model.teacher = random_teacher(model.teacher)
    distiller = build(model)
    assert {key: value.shape for key, value in distiller.state_dict().items()} == shapes(plain_twin(name))
    assert distiller.teacher is not None and list(distiller.distiller) == list(model.alignments)


@pytest.mark.parametrize('name', distilled())
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
    (of_ours,), (of_control,) = ours.alignments.values(), control.alignments.values()
    assert of_ours.aligner == of_control.aligner
    if of_ours.aligner.type == 'RoIAligner':  # all sampled RoIs, as KD is commonly run, whatever rows suit CKD
        assert of_control.selector.type == 'All'
    assert [loss.type for loss in of_control.losses.values()] == ['KDLoss']


@pytest.mark.parametrize('name', names('ckd'))
def test_settings_that_are_not_the_released_ones_say_whose_they_are(name):
    alignment, = read(CONFIGS / name).model.alignments.values()
    released = alignment.aligner.type == 'RoIAligner' and alignment.selector.type == 'All'
    assert released and alignment.losses.loss_ckd.loss_weight == 0.1 or '# ours' in (CONFIGS / name).read_text()


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
    """Two epochs of one step, over the config's own pipeline at a tenth of its size, in place."""
    loader = cfg.train_dataloader
    loader.update(num_workers=0, persistent_workers=False)
    loader.dataset.data_root = str(root / 'coco')
    resize, = (step for step in loader.dataset.pipeline if step.type == 'Resize')
    resize.scale = (96, 64)
    if 'rcnn' in cfg.model.student.get('train_cfg', {}):
        cfg.model.student.train_cfg.rcnn.sampler.num = 32
    cfg.train_cfg.max_epochs = 2
    for key in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[key] = None
    cfg.default_hooks.checkpoint = None
    cfg.default_hooks.logger.interval = 1
    cfg.update(work_dir=str(root), experiment_name=root.name, log_level='WARNING', randomness=dict(seed=0))


@pytest.mark.parametrize('name', ['ckd/ckd_faster_rcnn_r101-r50_fpn_1x_coco.py',
                                  'ckd/ckd_faster_rcnn_r101-r18_fpn_1x_coco.py',
                                  'ckd/ckd_faster_rcnn_r50-mobilenetv2_fpn_1x_coco.py',
                                  'baselines/kd_faster_rcnn_r101-r18_fpn_1x_coco.py',
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

    (name, alignment), = cfg.model.alignments.items()
    loss, = (f'{name}.{key}' for key in alignment.losses)
    assert len(steps) == 2
    assert all(0 < step[f'{name}.rows'] <= 1024 and 0 < step[loss] < step['loss'] < float('inf') for step in steps)
    assert steps[0]['loss'] != steps[1]['loss']
