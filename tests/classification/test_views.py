"""Four rotated views: each picture, their order, and the batch that they become."""

from __future__ import annotations

import copy
import pickle

import ckd_mmdet.compat  # noqa: F401  first: mmpretrain's modules need its operators
import numpy as np
import pytest
import torch
from ckd_mmdet.classification.views import RotatedViews
from mmengine.dataset import Compose, default_collate, pseudo_collate
from mmengine.registry import MODELS, TRANSFORMS
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader

CROP = dict(type='RandomCrop', crop_size=32, padding=4)
FLIP = dict(type='RandomFlip', prob=0.5, direction='horizontal')
SETTINGS = dict(mean=[129.3, 124.1, 112.4], std=[68.2, 65.4, 70.4], to_rgb=True)


def picture(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pipeline(*transforms: dict, views: bool = True) -> Compose:
    parts = [dict(type='ckd_mmdet.RotatedViews', transforms=list(transforms))] if views else list(transforms)
    return Compose([TRANSFORMS.build({'_scope_': 'mmpretrain', **part}) for part in (*parts, dict(type='PackInputs'))])


def packed(*transforms: dict, views: bool = True, image: np.ndarray | None = None, seed: int = 0) -> dict:
    """What the pipeline makes of a picture with the label 3, with numpy's generator seeded."""
    np.random.seed(seed)
    return pipeline(*transforms, views=views)(dict(img=picture() if image is None else image, gt_label=3))


def preprocessor(**settings) -> nn.Module:
    return MODELS.build(dict(type='ckd_mmdet.ViewsPreprocessor', **{**SETTINGS, **settings}))


def plain_preprocessor(**settings) -> nn.Module:
    return ClsDataPreprocessor(**{**SETTINGS, **settings})


def samples(count: int, collate, *transforms: dict, views: bool = True) -> dict:
    """A collated batch; image ``i`` has the label ``i``."""
    np.random.seed(0)
    make = pipeline(*transforms, views=views)
    images = [make(dict(img=picture(seed=i), gt_label=i)) for i in range(count)]
    return next(iter(DataLoader(images, batch_size=count, collate_fn=collate)))


def turned(image: Tensor, quarters: int) -> Tensor:
    return image.rot90(quarters, (-2, -1))


@pytest.mark.parametrize('quarters', range(4))
def test_a_view_is_the_plain_picture_turned_by_its_quarters_counter_clockwise(quarters):
    views, plain = packed()['inputs'], packed(views=False)['inputs']
    assert views.shape == (4, 3, 32, 32) and views.dtype == torch.uint8
    assert torch.equal(views[quarters], turned(plain, quarters))
    assert views[1, 0, 0, 0] == plain[0, 0, -1]  # the upper right corner came to the upper left


@pytest.mark.parametrize('seed', range(4))
def test_view_0_is_what_the_plain_pipeline_gives_in_the_same_random_state(seed):
    views, plain = packed(CROP, FLIP, seed=seed), packed(CROP, FLIP, views=False, seed=seed)
    assert torch.equal(views['inputs'][0], plain['inputs'])
    assert views['data_samples'].flip == plain['data_samples'].flip
    assert torch.equal(views['data_samples'].gt_label, plain['data_samples'].gt_label)


def test_each_view_has_a_crop_of_its_own():
    rows, columns = np.mgrid[:32, :32].astype(np.uint8)
    inside = np.stack([rows + 1, columns + 1, np.ones_like(rows)], -1)  # what is not 0 says where it came from
    views = packed(CROP, image=inside, seed=1)['inputs']
    shifts = set()
    for quarters, view in enumerate(views):
        whole = turned(torch.from_numpy(inside).permute(2, 0, 1), quarters)
        padded = nn.functional.pad(whole, (4, 4, 4, 4))
        places = [(y, x) for y in range(9) for x in range(9) if torch.equal(padded[:, y:y + 32, x:x + 32], view)]
        assert len(places) == 1
        shifts.update(places)
    assert len(shifts) == 4


def test_each_view_is_flipped_on_its_own():
    flipped = set()
    for seed in range(12):
        views, plain = packed(FLIP, seed=seed)['inputs'], packed(views=False)['inputs']
        of_each = tuple(bool(torch.equal(view, turned(plain, quarters).flip(-1)))
                        for quarters, view in enumerate(views))
        assert all(was or torch.equal(view, turned(plain, quarters))
                   for quarters, (was, view) in enumerate(zip(of_each, views, strict=True)))
        flipped.add(of_each)
    assert len(flipped) > 2 and len({len(set(of_each)) for of_each in flipped}) == 2  # not all four alike, always


def test_the_picture_that_is_given_stays_as_it_was():
    image = picture()
    before, results = image.copy(), dict(img=image, gt_label=3)
    RotatedViews([FLIP, CROP])(results)
    assert np.array_equal(image, before) and results['img'] is image


def test_a_picture_that_is_not_square_is_cropped_to_a_square_or_refused():
    image = picture(40, 64)
    assert packed(dict(type='RandomCrop', crop_size=32), image=image)['inputs'].shape == (4, 3, 32, 32)
    with pytest.raises(ValueError, match=r'make all views equal in size, got \(40, 64, 3\), \(64, 40, 3\)'):
        packed(image=image)


def test_a_transform_that_gives_no_image_is_refused():
    with pytest.raises(ValueError, match='keep every image, one of them gave None'):
        RotatedViews([lambda results: None])(dict(img=picture()))


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_a_batch_is_view_by_view(collate):
    data = samples(3, collate)
    out = preprocessor()(copy.deepcopy(data), training=True)
    assert out['inputs'].shape == (12, 3, 32, 32) and len(out['data_samples']) == 3
    assert [int(sample.gt_label) for sample in out['data_samples']] == [0, 1, 2]
    for view in range(4):
        for image in range(3):
            alone = dict(inputs=[torch.as_tensor(data['inputs'][image][view])])
            expected = plain_preprocessor()(alone)['inputs'][0]
            assert torch.equal(out['inputs'][view * 3 + image], expected)


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
@pytest.mark.parametrize('settings', [dict(), dict(pad_size_divisor=24, pad_value=7), dict(mean=None, std=None)])
def test_view_0_of_a_batch_is_the_plain_batch(collate, settings):
    views = preprocessor(**settings)(samples(3, collate), training=True)
    plain = plain_preprocessor(**settings)(samples(3, collate, views=False), training=True)
    assert torch.equal(views['inputs'][:3], plain['inputs'])
    assert [[int(sample.gt_label) for sample in out['data_samples']] for out in (views, plain)] == [[0, 1, 2]] * 2


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
def test_plain_images_pass_in_testing_as_through_mmpretrains_own(collate):
    data = samples(2, collate, views=False)
    ours, theirs = preprocessor()(copy.deepcopy(data)), plain_preprocessor()(copy.deepcopy(data))
    assert torch.equal(ours['inputs'], theirs['inputs']) and ours['inputs'].shape == (2, 3, 32, 32)
    assert isinstance(ours['data_samples'][0], DataSample)


@pytest.mark.parametrize('collate', [pseudo_collate, default_collate])
@pytest.mark.parametrize('training', [True, False])
def test_views_where_none_belong_and_none_where_they_do_are_refused(collate, training):
    data = samples(2, collate, views=not training)
    phase, shape = ('training', r'\(3, 32, 32\)') if training else ('testing', r'\(4, 3, 32, 32\)')
    with pytest.raises(ValueError, match=f'got {shape} in {phase}. Put `ckd_mmdet.RotatedViews`'):
        preprocessor()(data, training=training)


def test_mixing_images_is_refused():
    mixup = dict(augments=[dict(type='Mixup', alpha=1.0)])
    with pytest.raises(ValueError, match='needs no `batch_augments`.*Mixup'):
        preprocessor(batch_augments=mixup, num_classes=10)
    with pytest.raises(ValueError, match='nor `train_cfg` of the classifier'):
        MODELS.build(dict(type='mmpretrain.ImageClassifier', data_preprocessor=dict(type='ckd_mmdet.ViewsPreprocessor'),
                          backbone=dict(type='ckd_mmdet.CifarResNet', arch='resnet8'), train_cfg=mixup))


def test_it_is_one_of_mmpretrains_preprocessors_and_survives_copies():
    ours = preprocessor()
    assert isinstance(ours, ClsDataPreprocessor) and ours.views == 4
    data = samples(2, pseudo_collate)
    expected = ours(copy.deepcopy(data), training=True)['inputs']
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(copied(copy.deepcopy(data), training=True)['inputs'], expected)
