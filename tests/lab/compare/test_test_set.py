"""Which configs have a test set of their own."""

from typing import Any

import pytest
from ckd_mmdet.lab.compare.test_set import is_of_tests, why_no_test_set
from mmengine.config import Config


def a_student(**changes: Any) -> Config:
    def loader(split: str) -> dict:
        return dict(dataset=dict(type='CocoDataset', data_root='data/', ann_file=f'{split}.json', pipeline=[split]))

    cfg = Config({f'{split}_dataloader': loader(split) for split in ('train', 'val', 'test')} | {
        f'{split}_evaluator': dict(type='CocoMetric', ann_file=f'data/{split}.json') for split in ('val', 'test')})
    cfg.merge_from_dict(changes)
    return cfg


def test_a_file_of_its_own_is_a_test_set() -> None:
    assert why_no_test_set(a_student()) is None


@pytest.mark.parametrize(('changes', 'text'), [
    ({'test_dataloader': None}, "needs a `test_dataloader` in the student's config, which has none; add it"),
    ({'test_evaluator': None}, "needs a `test_evaluator` in the student's config"),
    ({'test_dataloader.dataset.ann_file': 'val.json'}, "of other images than val's; both read data/val.json; give the"),
    ({'test_dataloader.dataset': dict(data_root='', ann_file='data/../data/val.json')}, "other images than val's"),
    ({'test_dataloader.dataset.ann_file': 'train.json'}, "of other images than train's; both read data/train.json"),
    ({'test_evaluator.ann_file': 'data/val.json'}, "`test_evaluator.ann_file`; data/val.json is val's; give that of"),
    ({'test_evaluator.format_only': True}, '`test_evaluator` that measures')])
def test_what_was_trained_or_chosen_on_is_refused(changes: dict, text: str) -> None:
    why_not = why_no_test_set(a_student(**changes))
    assert why_not.startswith('`--report-on test` needs ') and text in why_not


def test_within_wrappers_every_file_counts() -> None:
    both = dict(_delete_=True, type='ConcatDataset', datasets=[
        dict(type='CocoDataset', data_root='data', ann_file=f'{name}.json') for name in ('other', 'val')])
    assert "than val's; both read data/val.json" in why_no_test_set(a_student(**{'test_dataloader.dataset': both}))


def test_data_sets_without_a_file_are_known_by_their_other_keys() -> None:
    def cifar(**keys: Any) -> dict:
        return dict(_delete_=True, type='CIFAR100', data_prefix='data/cifar100', **keys)

    def changed(**keys: Any) -> Config:
        return a_student(**{'val_dataloader.dataset': cifar(split='test', pipeline=['a']),
                            'test_dataloader.dataset': cifar(**keys)})

    assert "than val's; both read data/cifar100" in why_no_test_set(changed(split='test', pipeline=['b']))
    assert why_no_test_set(changed(split='train')) is None


def test_options_of_the_tests_alone_are_told_from_those_of_the_training() -> None:
    keys = ['test_dataloader.dataset.ann_file', 'test_evaluator.ann_file', 'val_evaluator.ann_file', 'test_cfg.fp16']
    assert list(map(is_of_tests, keys)) == [True, True, False, False]
