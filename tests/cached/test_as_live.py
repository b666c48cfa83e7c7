"""Class maps, resuming and several processes: with a cache as with a live teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from ckd_mmdet.cached.teacher import CachedTeacher
from ckd_mmdet.functional import little_overlap
from ckd_mmdet.lab.datasets.digit_scenes import CLASSES
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS

from tests.cached.scenes import cached, half, toy_run
from tests.small_runs import train
from tests.toys import saved_teacher


@pytest.fixture(scope='module')
def runs(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    """Of RoIs and an RPN: one with the live teacher, one with its cache."""
    folder = tmp_path_factory.mktemp('as_live')
    live = toy_run('faster_rcnn', digits, folder)
    live.val_dataloader = live.val_cfg = live.val_evaluator = None
    live.default_hooks.checkpoint.pop('save_best')
    return live, cached(live, folder / 'cache')


@pytest.mark.parametrize('name', ['retinanet', 'objects'])
def test_a_class_map_pairs_the_same_columns(name: str, digits: Path, tmp_path: Path) -> None:
    live = toy_run(name, digits, tmp_path)
    alignment = next(iter(live.model.alignments))
    theirs = ('other', *CLASSES[:0:-1])  # all but the first, turned about
    live.model.teacher.checkpoint = saved_teacher(tmp_path, live.model.teacher.config, seed=2, classes=theirs)
    live.model.teacher.class_map = 'name'
    of_files = cached(live, tmp_path / 'cache', k=400)
    of_files.model.teacher.class_map = 'name'
    rows = []
    for cfg in (live, of_files):
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
        model.distillation.pair(model, CLASSES)
        np.random.seed(0)
        one = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))[2]
        batch = model.data_preprocessor(dict(inputs=[one['inputs']], data_samples=[one['data_samples']]), training=True)
        rows.append(model.distillation.align(model, model.forward_alone, **batch)[alignment])
    ours, theirs_rows = rows[1], rows[0]
    assert ours.num_classes == 9 and len(ours) == len(theirs_rows) > 0
    assert torch.equal(ours.student.logits, theirs_rows.student.logits)
    torch.testing.assert_close(ours.teacher.logits, half(theirs_rows.teacher.logits), rtol=2e-3, atol=1e-4)


def test_boxes_of_a_cache_are_regions_that_may_overlap(runs: tuple[Config, Config]) -> None:
    cfg = copy.deepcopy(runs[1])
    name = next(name for name, one in cfg.model.alignments.items() if one.aligner.type.endswith('RoIAligner'))
    cfg.model.alignments[name].losses = dict(loss_ckd=dict(type='CKDLoss', overlap=0.5))
    model = MODELS.build(cfg.model).train()
    model.distillation.pair(model, CLASSES)
    np.random.seed(0)
    one = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))[2]
    batch = model.data_preprocessor(dict(inputs=[one['inputs']], data_samples=[one['data_samples']]), training=True)
    rows = model.distillation.align(model, model.forward_alone, **batch)[name]
    assert rows.regions.shape == (len(rows), 4) and (rows.regions[:, 2:] > rows.regions[:, :2]).all()
    allowed = little_overlap(rows.regions, rows.image_ids, 0.5)
    assert not allowed.all() and allowed.any()


def test_a_run_that_is_resumed_equals_one_that_was_not(runs: tuple[Config, Config], tmp_path: Path) -> None:
    whole = copy.deepcopy(runs[1])
    whole.work_dir = str(tmp_path / 'whole')
    expected = train(whole)
    resumed = copy.deepcopy(runs[1])
    resumed.merge_from_dict(dict(work_dir=str(tmp_path / 'resumed'), resume=True, experiment_name='resumed',
                                 load_from=str(tmp_path / 'whole' / 'epoch_1.pth')))
    assert train(resumed) == expected[4:]


def test_a_run_of_the_live_teacher_goes_on_with_its_cache(runs: tuple[Config, Config], tmp_path: Path) -> None:
    live = copy.deepcopy(runs[0])
    live.merge_from_dict(dict(work_dir=str(tmp_path / 'live'), experiment_name='live_first'))
    live.train_cfg.max_epochs = 1
    train(live)
    resumed = copy.deepcopy(runs[1])
    resumed.merge_from_dict(dict(work_dir=str(tmp_path / 'resumed'), resume=True, experiment_name='live_then_cached',
                                 load_from=str(tmp_path / 'live' / 'epoch_1.pth')))
    assert len(train(resumed)) == 4


def test_one_of_several_teachers_may_be_cached(runs: tuple[Config, Config]) -> None:
    live, of_files = (copy.deepcopy(cfg.model) for cfg in runs)
    live.teacher = dict(here=live.teacher, there=of_files.teacher)
    live.alignments.roi.teacher, live.alignments.rpn.teacher = 'there', 'here'
    teachers = MODELS.build(live).distillation.teachers
    assert isinstance(teachers['there'], CachedTeacher) and not isinstance(teachers['here'], CachedTeacher)
