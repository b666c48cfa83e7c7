"""HandwrittenDigits: which digits, how they look, and whose labels."""

from __future__ import annotations

from functools import cache

import ckd_mmdet.compat  # noqa: F401  first: mmpretrain's modules need its operators
import numpy as np
import pytest
from ckd_mmdet.config import class_names
from ckd_mmdet.lab.datasets.digits import CLASSES, HandwrittenDigits
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from PIL import Image
from sklearn import datasets

load_digits = cache(datasets.load_digits)  # it parses a text file each time

HARD = dict(rotation=30.0, noise=60.0)


def digits(**arguments) -> HandwrittenDigits:
    return HandwrittenDigits(**arguments)


def samples(dataset: HandwrittenDigits) -> list[int]:
    return [dataset.get_data_info(i)['sample'] for i in range(len(dataset))]


def images(dataset: HandwrittenDigits) -> np.ndarray:
    return np.stack([dataset.get_data_info(i)['img'] for i in range(len(dataset))])


def true_labels(dataset: HandwrittenDigits) -> np.ndarray:
    return load_digits().target[samples(dataset)]


def test_the_splits_share_no_digit_and_have_all_of_them():
    train, test = samples(digits(split='train')), samples(digits(split='test'))
    assert (len(train), len(test)) == (800, 997)
    assert sorted(train + test) == list(range(1797))


def test_training_has_the_first_80_of_each_class():
    train = digits(split='train')
    assert np.bincount(train.get_gt_labels()).tolist() == [80] * 10
    target = load_digits().target
    assert samples(train) == sorted(i for label in range(10) for i in np.flatnonzero(target == label)[:80])


def test_an_image_is_the_digit_enlarged_as_rgb():
    dataset = digits(split='test')
    source = load_digits().images
    for i in (0, 500, 996):
        info = dataset.get_data_info(i)
        assert info['img'].shape == (32, 32, 3) and info['img'].dtype == np.uint8
        assert (info['img'] == info['img'][..., :1]).all()
        small = np.asarray(Image.fromarray(info['img'][..., 0]).resize((8, 8), Image.Resampling.BOX), dtype=float)
        assert np.corrcoef(small.ravel(), source[info['sample']].ravel())[0, 1] > 0.98


def test_labels_are_the_true_ones_in_plain_ints():
    for split in ('train', 'test'):
        dataset = digits(split=split)
        assert dataset.get_gt_labels().tolist() == true_labels(dataset).tolist()
        assert type(dataset.get_data_info(0)['gt_label']) is int


@pytest.mark.parametrize('count', [1, 20, 80])
def test_few_labels_are_as_many_of_each_class(count):
    dataset = digits(images_per_class=count)
    assert np.bincount(true_labels(dataset)).tolist() == [count] * 10
    assert set(samples(dataset)) <= set(samples(digits()))


def test_few_labels_lie_within_more_and_hold_several_writers():
    few, more = samples(digits(images_per_class=5)), samples(digits(images_per_class=20))
    assert set(few) < set(more)
    assert set(few) != set(samples(digits(images_per_class=5, seed=1)))
    assert max(few) > 400  # the file has one writer after another: not its beginning alone


def test_a_digit_looks_the_same_whenever_it_is_asked_for_and_in_every_subset():
    whole, few = digits(**HARD), digits(images_per_class=20, wrong_labels=0.5, **HARD)
    assert np.array_equal(images(whole), images(digits(**HARD)))
    where = [samples(whole).index(sample) for sample in samples(few)]
    assert np.array_equal(images(few), images(whole)[where])


@pytest.mark.parametrize('change', [dict(rotation=30.0), dict(noise=60.0)])
def test_difficulty_changes_nearly_every_image_and_another_seed_changes_it_otherwise(change):
    plain, harder, other = images(digits(split='test')), images(digits(split='test', **change)), \
        images(digits(split='test', seed=1, **change))
    assert ((plain != harder).any((1, 2, 3))).mean() > 0.99
    assert ((other != harder).any((1, 2, 3))).mean() > 0.99


def test_noise_has_its_standard_deviation_in_every_channel():
    grey = images(digits(split='test', noise=10.0)).astype(float) - images(digits(split='test'))
    middle = images(digits(split='test'))[..., 0]
    inner = (middle > 50) & (middle < 200)  # where nothing is clipped
    assert grey[inner].std(0) == pytest.approx([10.0] * 3, rel=0.02)
    assert abs(np.corrcoef(grey[inner].T)[0, 1]) < 0.02


def test_no_image_is_turned_further_than_asked():
    source, turned = images(digits(split='test')), images(digits(split='test', rotation=30.0))
    angles = np.arange(-60, 61, 2)
    found = []
    for before, after in list(zip(source, turned, strict=True))[:60]:
        tries = [np.asarray(Image.fromarray(before).rotate(angle, Image.Resampling.BICUBIC), dtype=float)
                 for angle in angles]
        found.append(angles[np.argmin([((after - one)**2).mean() for one in tries])])
    assert max(np.abs(found)) <= 30 and min(found) < -20 and max(found) > 20


def test_the_share_of_wrong_training_labels_is_exact_and_they_are_fixed():
    dataset = digits(images_per_class=20, wrong_labels=0.25)
    wrong = dataset.get_gt_labels() != true_labels(dataset)
    assert wrong.sum() == 50 and set(dataset.get_gt_labels()) == set(range(10))
    assert dataset.get_gt_labels().tolist() == digits(images_per_class=20, wrong_labels=0.25).get_gt_labels().tolist()
    other = digits(images_per_class=20, wrong_labels=0.25, seed=1)
    assert (other.get_gt_labels() != true_labels(other)).sum() == 50


def test_wrong_labels_of_all_leave_none_right():
    dataset = digits(wrong_labels=1.0)
    assert (dataset.get_gt_labels() != true_labels(dataset)).all()


def test_labels_of_the_test_split_stay_true():
    dataset = digits(split='test', wrong_labels=0.5)
    assert (dataset.get_gt_labels() == true_labels(dataset)).all()


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(split='val'), "needs a `split` of 'train' or 'test', got 'val'"),
    (dict(images_per_class=0), "needs `images_per_class` in 1 to 80 in the split 'train'.*got 0"),
    (dict(images_per_class=81), 'in 1 to 80 .*got 81'),
    (dict(split='test', images_per_class=95), 'in 1 to 94 .*got 95'),
    (dict(wrong_labels=1.5), 'share of `wrong_labels` in 0 to 1, got 1.5'),
    (dict(rotation=-1.0), 'finite `rotation` of at least 0, got -1.0'),
    (dict(noise=float('nan')), 'finite `noise` of at least 0, got nan'),
    (dict(seed=-1), '`seed` of at least 0, got -1'),
])
def test_arguments_out_of_their_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        digits(**arguments)


def test_a_config_names_it_without_custom_imports_and_its_classes_are_known():
    cfg = dict(type='ckd_mmdet.HandwrittenDigits', split='test', pipeline=[dict(type='PackInputs')])
    assert isinstance(DATASETS.build(cfg), HandwrittenDigits)
    config = Config(dict(default_scope='mmpretrain', train_dataloader=dict(dataset=cfg)))
    assert class_names(config) == CLASSES == HandwrittenDigits.METAINFO['classes']


def test_a_runners_dataloader_gives_batches_of_it():
    loader = Runner.build_dataloader(dict(
        batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(type='ckd_mmdet.HandwrittenDigits', split='test', pipeline=[dict(type='PackInputs')])))
    batch = next(iter(loader))
    assert [tuple(image.shape) for image in batch['inputs']] == [(3, 32, 32)] * 4
    assert [int(sample.gt_label) for sample in batch['data_samples']] == loader.dataset.get_gt_labels()[:4].tolist()
    assert 'HandwrittenDigits' in repr(loader.dataset) and 'Split: \ttest' in repr(loader.dataset)
