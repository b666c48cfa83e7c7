"""Which views a pipeline gives an image, and which pipelines give too many."""

from __future__ import annotations

import pytest
from ckd_mmdet.cached.views import check_batch_augments, check_wrappers, views_of

LOAD, PACK = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)], dict(type='PackDetInputs')
RESIZE = dict(type='Resize', scale=(60, 40), keep_ratio=True)


def flips(**flip: object) -> list:
    return [choice for view in views_of([*LOAD, RESIZE, dict(type='RandomFlip', **flip), PACK]).choices
            for choice in view or [None]]


def test_a_pipeline_without_chance_has_one_view() -> None:
    pipeline = [*LOAD, RESIZE, PACK]
    views = views_of(pipeline)
    assert (views.choices, views.pipelines) == ([[]], [pipeline])
    assert views.fixed[2] == ['Resize', dict(scale=[60, 40], keep_ratio=True)]


def test_a_flip_has_as_many_as_it_has_directions() -> None:
    def sideways(way: str) -> list:
        return ['RandomFlip', dict(prob=1.0, direction=way)]

    assert flips(prob=0.5) == [None, sideways('horizontal')]
    assert flips(prob=1.0) == [sideways('horizontal')]
    assert flips(prob=0.0) == [None]
    assert flips(prob=[0.3, 0.7], direction=['horizontal', 'vertical']) == [sideways('horizontal'),
                                                                            sideways('vertical')]


def test_sizes_and_flips_multiply() -> None:
    several = dict(type='RandomChoiceResize', scales=[(60, 40), (90, 60), (30, 20)], keep_ratio=True)
    views = views_of([*LOAD, several, dict(type='mmdet.RandomFlip', prob=0.5), PACK])
    assert len(views.pipelines) == len(views.choices) == 6
    assert views.pipelines[0][2] == dict(type='Resize', scale=(60, 40), keep_ratio=True)
    assert [part[0] for part in views.fixed] == ['LoadImageFromFile', 'LoadAnnotations', 'PackDetInputs']


@pytest.mark.parametrize('name', ['RandomCrop', 'Mosaic', 'MixUp', 'RandomResize', 'PhotoMetricDistortion',
                                  'RandomAffine', 'CachedMosaic', 'MinIoURandomCrop'])
def test_a_pipeline_of_countless_views_is_refused_by_the_transforms_name(name: str) -> None:
    with pytest.raises(ValueError, match=f'`{name}` gives it countless ones'):
        views_of([*LOAD, dict(type=name), PACK])


def test_a_view_that_could_not_be_known_again_is_refused() -> None:
    with pytest.raises(ValueError, match='`meta_keys` of PackDetInputs lacks flip, flip_direction'):
        views_of([*LOAD, dict(type='PackDetInputs', meta_keys=('img_id', 'img_shape'))])


def test_a_data_set_that_mixes_images_is_refused() -> None:
    coco = dict(type='CocoDataset')
    check_wrappers(dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[coco, coco])))
    with pytest.raises(ValueError, match='`MultiImageMixDataset` makes new ones'):
        check_wrappers(dict(type='RepeatDataset', dataset=dict(type='MultiImageMixDataset', dataset=coco)))


def test_batches_of_changing_sizes_are_refused() -> None:
    class BatchSyncRandomResize:
        pass

    with pytest.raises(ValueError, match='has a BatchSyncRandomResize'):
        check_batch_augments([BatchSyncRandomResize()])
