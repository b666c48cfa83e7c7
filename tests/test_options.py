"""Overrides: what people write is what is read, and what is misspelt is refused."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
from ckd_mmdet.config import read_config
from ckd_mmdet.options import OptionsAction, check_keys, check_numbers, merge_options
from mmengine.config import Config, DictAction

CONFIG = 'configs/ckd/ckd_faster_rcnn_r101-r50_fpn_1x_coco.py'


def parsed(*texts: str, action: Any = OptionsAction) -> dict:
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=action)
    return parser.parse_args(['--cfg-options', *texts]).cfg_options


@pytest.mark.parametrize(('text', 'value'), [
    ('/data/my images/', '/data/my images/'), (' padded ', 'padded'), ("'quoted text'", 'quoted text'),
    ('[my folder/a.json, b c]', ['my folder/a.json', 'b c']), ('a (copy).json', 'a (copy).json'),
    ('[(1, 2), [x y]]', [(1, 2), ['x y']])])
def test_spaces_within_a_value_stay(text: str, value: object) -> None:
    assert parsed(f'x.y={text}') == {'x.y': value}


@pytest.mark.parametrize('text', ['1', '1.5', '1e-3', 'True', 'None', '1,2,3', '[1, 2]', '(1, 2)', '[(1,2),[a, b], c]',
                                  '[]', 'abc', '"abc"', 'a=b', '[True, None]'])
def test_everything_else_is_read_as_mmengine_reads_it(text: str) -> None:
    assert parsed(f'x={text}') == parsed(f'x={text}', action=DictAction)


@pytest.mark.parametrize('text', ['novalue', '=3', 'a..b=3', '.a=3', 'x=[1,2', 'x=(1,[2)'])
def test_what_is_no_override_is_one_line(text: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parsed(text)
    assert 'error: --cfg-options needs' in capsys.readouterr().err


@pytest.mark.parametrize(('key', 'words'), [
    ('modle.foo', 'did you mean model'), ('optim_wraper.optimizer.lr', 'did you mean optim_wrapper'),
    ('max_epochs', 'define it in the config file'), ('zzz.y', 'has no `zzz`; to add it, define it'),
    ('train_dataloader.datset.ann_file', 'did you mean `dataset`'), ('model.studnt.neck.type', 'mean `student`'),
    ('train_cfg.val_intervall', 'did you mean `val_interval`'), ('optim_wrapper.optimizer.lrr.x', None),
    ('model.alignments.roi.loses.loss_ckd.tau', 'did you mean `losses`'),
    ('model.student.test_cfg.rcnn.scor_thr', 'did you mean `score_thr`'),
    ('param_scheduler.7.end', 'a number from 0 to 1 after `param_scheduler`, which is a list of 2, got .7'),
    ('param_scheduler.end', "got 'end'"), ('model.type.foo', 'needs a dict or a list as `model.type`')])
def test_a_misspelt_key_is_refused_with_what_is_near(key: str, words: str | None) -> None:
    cfg = read_config(CONFIG)
    if words is None:
        check_keys(cfg, {key: 1})
        return
    with pytest.raises(ValueError, match=words):
        merge_options(cfg, {key: 1})


@pytest.mark.parametrize('options', [
    {'optim_wrapper.clip_grad.max_norm': 35}, {'model.student.backbone.init_cfg.checkpoint': 'x.pth'},
    {'model.alignments.roi.losses.loss_kd.type': 'KDLoss'}, {'randomness.seed': 3}, {'load_from': 'x.pth'},
    {'find_unused_parameters': True}, {'model_wrapper_cfg.type': 'MMDistributedDataParallel'},
    {'train_cfg.dynamic_intervals': [(1, 2)]}, {'model.teacher.class_map.cat': 'Cat'}, {'experiment_name': 'x'},
    {'default_hooks.early_stopping.type': 'EarlyStoppingHook'}, {'param_scheduler.1.milestones': [1]},
    {'optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult': 0.1}, {'optim_wrapper.optimizer.nesterov': True},
    {'train_dataloader.dataset.metainfo.classes': ('a',)}, {'model.student.backbone.frozen_stages': 2},
    {'model.student.bbox_head2.type': 'X', 'model.student.bbox_head2.y': 1}, {'allow_missing_classes': True}])
def test_what_may_be_added_is_added(options: dict) -> None:
    cfg = read_config(CONFIG)
    merge_options(cfg, options)


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(train_cfg=dict(max_epochs=0)), '`train_cfg.max_epochs` needs a whole number of at least 1, got 0'),
    (dict(train_cfg=dict(max_epochs='inf')), "got 'inf'"), (dict(train_cfg=dict(max_epochs=1.5)), 'got 1.5'),
    (dict(train_cfg=dict(max_epochs=float('inf'))), 'got inf'), (dict(train_cfg=dict(max_iters=0)), 'max_iters'),
    (dict(train_cfg=dict(val_interval=0)), '`train_cfg.val_interval` needs'),
    (dict(train_dataloader=dict(batch_size=0)), 'batch_size'), (dict(randomness=dict(seed=-1)), 'at least 0'),
    (dict(randomness=dict(seed=2 ** 32)), 'from 0 to 4294967295'), (dict(randomness=dict(seed='x')), "got 'x'"),
    *((dict(optim_wrapper=dict(optimizer=dict(lr=lr))), '`optim_wrapper.optimizer.lr` needs a finite number')
      for lr in (float('nan'), float('inf'), -0.1, 'fast', True))])
def test_numbers_that_make_no_sense_are_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_numbers(Config(settings))


def test_every_shipped_config_has_numbers_that_make_sense() -> None:
    check_numbers(read_config(CONFIG))
    check_numbers(Config(dict(train_cfg=dict(by_epoch=True), optim_wrapper=None)))
