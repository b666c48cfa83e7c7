"""Validation images, prepared as in validation, with boxes where the student will look for them."""

from pathlib import Path

import pytest
import torch
from ckd_mmdet.lab.analyze.data import choose_images, put_annotations_first
from mmengine.config import Config

from tests.small_runs import run_config, student_config

LOAD, RESIZE, PACK = (dict(type=name) for name in ('LoadImageFromFile', 'Resize', 'PackDetInputs'))
BOXES = dict(type='LoadAnnotations', with_bbox=True)
MASKS = dict(type='LoadAnnotations', with_bbox=True, with_mask=True)


@pytest.fixture
def config(digits: Path, tmp_path: Path) -> Config:
    return run_config(student_config(), digits, tmp_path)


@pytest.mark.parametrize('pipeline', [[LOAD, RESIZE, BOXES, PACK], [LOAD, RESIZE, PACK], [LOAD, BOXES, RESIZE, PACK]])
def test_annotations_come_right_after_the_image_as_in_training(pipeline: list[dict]) -> None:
    put_annotations_first(pipeline, MASKS)
    assert pipeline == [LOAD, MASKS, RESIZE, PACK]


def test_the_pipeline_of_a_classifier_stays_as_it_is() -> None:
    pipeline = [LOAD, RESIZE, dict(type='PackInputs')]
    put_annotations_first(pipeline, None)
    assert pipeline == [LOAD, RESIZE, dict(type='PackInputs')]


def test_without_a_training_pipeline_its_own_annotations_are_moved() -> None:
    pipeline = [LOAD, RESIZE, BOXES, PACK]
    put_annotations_first(pipeline, None)
    assert pipeline == [LOAD, BOXES, RESIZE, PACK]


def test_boxes_are_resized_with_their_image(config: Config) -> None:
    plain = choose_images(config, 1)
    for step in config.val_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (128, 128)
    larger = choose_images(config, 1)
    for small, large in zip(plain.batches(), larger.batches(), strict=True):
        for ours, theirs in zip(small[1]['data_samples'], large[1]['data_samples'], strict=True):
            boxes, twice = (sample.gt_instances.bboxes.tensor for sample in (ours, theirs))
            assert len(boxes) and torch.allclose(2 * boxes, twice)
    assert larger.pixels(0).shape == (3, 128, 128) and Path(larger.path(0)).is_file()


def test_images_are_drawn_from_the_whole_set_and_always_the_same(config: Config) -> None:
    config.val_dataloader.batch_size = 1
    config.val_dataloader.dataset.ann_file = 'annotations/train.json'  # of 16 images
    config.val_dataloader.dataset.data_prefix.img = 'train/'
    images = choose_images(config, 4)
    assert images.index == choose_images(config, 4).index == sorted(set(images.index)) != [0, 1, 2, 3]
    assert [first for first, _ in images.batches()] == [0, 1, 2, 3] and len(images) == 4
    assert choose_images(config, 100).index == list(range(16))


def test_no_batches_and_no_validation_data_are_refused(config: Config) -> None:
    with pytest.raises(ValueError, match='`--batches` needs a positive number, got 0'):
        choose_images(config, 0)
    for loader in ('val_dataloader', 'test_dataloader'):
        config.pop(loader)
    with pytest.raises(ValueError, match='`config` needs validation data, and has neither `val_dataloader` nor'):
        choose_images(config, 1)
