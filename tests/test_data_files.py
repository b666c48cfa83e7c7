from pathlib import Path

import pytest
from ckd_mmdet.data_files import check_data
from mmengine.config import Config


def dataset(digits: Path, **changes: object) -> dict:
    return {**dict(type='CocoDataset', data_root=str(digits), ann_file='annotations/train.json',
                   data_prefix=dict(img='train/')), **changes}


@pytest.mark.parametrize('wrapped', [
    lambda data: data,
    lambda data: dict(type='ConcatDataset', datasets=[data, data]),
    lambda data: dict(type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[data])),
    lambda data: dict(type='MultiImageMixDataset', dataset=data)])
def test_data_that_are_there_pass_and_missing_ones_are_found_in_any_wrapper(digits: Path, wrapped: callable) -> None:
    check_data(Config(dict(train_dataloader=dict(dataset=wrapped(dataset(digits))))), ('train_dataloader',))
    missing = Config(dict(train_dataloader=dict(dataset=wrapped(dataset(digits, data_root='nowhere')))))
    with pytest.raises(ValueError, match='data_root'):
        check_data(missing, ('train_dataloader',))
    check_data(missing, ('val_dataloader',))  # not asked for


@pytest.mark.parametrize('changes', [
    dict(data_root='s3://bucket/coco'), dict(data_root='nowhere', backend_args=dict(backend='petrel')),
    dict(data_root='', ann_file='https://host/train.json', data_prefix=dict())])
def test_data_on_another_machine_are_left_to_their_reader(digits: Path, changes: dict) -> None:
    check_data(Config(dict(train_dataloader=dict(dataset=dataset(digits, **changes)))), ('train_dataloader',))


def test_an_absolute_annotation_file_needs_no_root(digits: Path) -> None:
    whole = dataset(digits, data_root='', ann_file=str(digits / 'annotations/train.json'),
                    data_prefix=dict(img=str(digits / 'train')))
    check_data(Config(dict(train_dataloader=dict(dataset=whole))), ('train_dataloader',))


def test_a_config_without_data_passes() -> None:
    check_data(Config(dict(val_dataloader=None)), ('train_dataloader', 'val_dataloader'))


def test_a_brace_in_a_name_closes_nothing_and_opens_nothing(digits: Path, tmp_path: Path) -> None:
    text = (digits / 'annotations/train.json').read_text().replace('"zero"', '"ze{ro"')
    (tmp_path / 'odd.json').write_text(text)
    check_data(Config(dict(train_dataloader=dict(dataset=dataset(digits, ann_file=str(tmp_path / 'odd.json'))))),
               ('train_dataloader',))


def of_classifiers(dataset: dict) -> Config:
    return Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=dataset)))


def test_data_that_mmpretrain_fetches_itself_may_be_missing(tmp_path: Path) -> None:
    cifar = dict(type='CIFAR100', data_root=str(tmp_path / 'none'))
    check_data(of_classifiers(cifar), ('train_dataloader',))
    with pytest.raises(ValueError, match='needs a folder that exists'):
        check_data(of_classifiers(dict(cifar, download=False)), ('train_dataloader',))


def test_a_prefix_that_is_a_text_is_a_folder_too(tmp_path: Path) -> None:
    dataset = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    with pytest.raises(ValueError, match=r'train_dataloader.dataset.data_prefix.img_path` needs a folder that exists'):
        check_data(of_classifiers(dataset), ('train_dataloader',))
    (tmp_path / 'train').mkdir()
    check_data(of_classifiers(dataset), ('train_dataloader',))
