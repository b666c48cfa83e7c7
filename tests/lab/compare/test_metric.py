"""Which metric a config measures, and how it is written."""

from typing import Any

import pytest
from ckd_mmdet.lab.compare.metric import describe, main_metric
from mmengine.config import Config

COCO, ACCURACY = dict(type='CocoMetric'), dict(type='Accuracy', topk=(1, 5))


def config(evaluator: Any, scope: str = 'mmdet') -> Config:
    return Config(dict(default_scope=scope, val_evaluator=evaluator))


@pytest.mark.parametrize(('evaluator', 'scope', 'key'), [
    (COCO, 'mmdet', 'coco/bbox_mAP'),
    (dict(COCO, metric=['bbox', 'segm']), 'mmdet', 'coco/bbox_mAP'),
    (dict(COCO, metric='segm'), 'mmdet', 'coco/segm_mAP'),
    (dict(COCO, prefix='small'), 'mmdet', 'small/bbox_mAP'),
    (dict(type='CocoOccludedSeparatedMetric'), 'mmdet', 'coco/bbox_mAP'),  # of a class that inherits from it
    (dict(type='LVISMetric'), 'mmdet', 'lvis/bbox_AP'),
    (dict(type='VOCMetric'), 'mmdet', 'pascal_voc/mAP'),
    (ACCURACY, 'mmpretrain', 'accuracy/top1'),
    (dict(type='mmpretrain.Accuracy'), 'mmdet', 'accuracy/top1'),
    (dict(type='Accuracy', topk=5), 'mmpretrain', 'accuracy/top5'),
    ([dict(type='SingleLabelMetric'), ACCURACY], 'mmpretrain', 'accuracy/top1'),
    (dict(metrics=ACCURACY), 'mmpretrain', 'accuracy/top1'),
    (dict(type='Evaluator', metrics=[ACCURACY]), 'mmpretrain', 'accuracy/top1')])
def test_the_evaluator_says_what_is_compared(evaluator: Any, scope: str, key: str) -> None:
    assert main_metric(config(evaluator, scope)) == key


def test_an_unknown_evaluator_asks_for_the_metric() -> None:
    with pytest.raises(ValueError, match='`--metric` needs .* is MultiLabelMetric and VQAAcc, of which'):
        main_metric(config([dict(type='MultiLabelMetric'), dict(type='VQAAcc')], 'mmpretrain'))


@pytest.mark.parametrize(('key', 'title', 'difference', 'digits'), [
    ('coco/bbox_mAP', 'mAP', 'mAP', (3, 3)), ('coco/segm_mAP', 'mask mAP', 'mask mAP', (3, 3)),
    ('coco/bbox_mAP_50', 'bbox_mAP_50', 'bbox_mAP_50', (3, 3)),
    ('accuracy/top1', 'top-1 (%)', 'top-1 (points)', (2, 2)), ('accuracy/top5', 'top-5 (%)', 'top-5 (points)', (2, 2)),
    ('single-label/f1-score', 'f1-score', 'f1-score', (3, 2))])
def test_a_metric_is_written_with_its_unit(key: str, title: str, difference: str, digits: tuple) -> None:
    metric = describe(key)
    assert (metric.title, metric.difference) == (title, difference)
    assert (metric.digits(0.5), metric.digits(50.0)) == digits
