"""Boxes that would be dropped or kept in silence are counted, and a file of unfit boxes is refused."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ckd_mmdet import data_check
from ckd_mmdet.data_check import check_boxes, describe, judge
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from mmdet.datasets import CocoDataset
from mmengine.config import Config

NAN = float('nan')


def coco(count: int = 40) -> dict:
    """Boxes anywhere in images of 100 x 80."""
    rng = np.random.default_rng(0)
    images = [dict(id=i, file_name=f'{i}.png', width=100, height=80) for i in range(1, 11)]
    annotations = []
    for i in range(count):
        w, h = rng.uniform(5, 30, 2).round(1).tolist()
        x, y = rng.uniform(0, 100 - w), rng.uniform(0, 80 - h)
        annotations.append(dict(id=i + 1, image_id=i % 10 + 1, category_id=i % 2 + 1, iscrowd=0, area=w * h,
                                bbox=[round(x, 1), round(y, 1), w, h]))
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='a'), dict(id=2, name='b')])


def write(folder: Path, data: object) -> str:
    (folder / 'a.json').write_text(json.dumps(data))
    return str(folder / 'a.json')


def first(data: dict, **changes: object) -> None:
    data['annotations'][0].update(changes)


def every(data: dict, change: Callable[[dict], object]) -> None:
    for one in data['annotations']:
        change(one)


def as_corners(one: dict) -> None:
    x, y, w, h = one['bbox']
    one['bbox'] = [x, y, x + w, y + h]


def as_shares(one: dict) -> None:
    x, y, w, h = one['bbox']
    one['bbox'] = [x / 100, y / 80, w / 100, h / 80]


TOLD: dict[str, tuple[Callable[[dict], object], str]] = {
    'negative': (lambda d: first(d, bbox=[50, 50, -5, 5]), '1 have a negative width or height (id 1, image_id 1, bbox'),
    'zero': (lambda d: first(d, bbox=[50, 50, 0, 5]), '1 have a width or height of 0'),
    'below a pixel': (lambda d: first(d, bbox=[50, 50, 0.5, 5]), '1 are narrower or lower than a pixel'),
    'outside': (lambda d: first(d, bbox=[500, 50, 5, 5]), '1 lie outside their image'),
    'beyond': (lambda d: first(d, bbox=[90, 50, 30, 5]), '0 of the 40 annotations will not be used; 1 reach beyond'),
    'no area': (lambda d: first(d, area=0), '1 have an `area` of 0 or less'),
    'other category': (lambda d: first(d, category_id=9), '1 have a category that the file does not list'),
    'other image': (lambda d: first(d, image_id=99), '1 are of an image that the file does not list'),
    'ignored': (lambda d: first(d, ignore=1), '1 are to be ignored'),
    'crowd': (lambda d: first(d, iscrowd=1), '1 are crowds'),
}


@pytest.mark.parametrize('name', TOLD)
def test_boxes_that_are_dropped_or_odd_are_counted_with_an_example(name: str, tmp_path: Path) -> None:
    spoil, words = TOLD[name]
    data = coco()
    spoil(data)
    text = describe(write(tmp_path, data), '`ann_file`')
    assert words in text and '(id 1, ' in text


REFUSED: dict[str, tuple[Callable[[dict], object], str]] = {
    'none': (lambda d: d['annotations'].clear(), 'none'),
    'category without name': (lambda d: d['categories'][0].pop('name'), 'a category without `id` and `name`'),
    'NaN': (lambda d: first(d, bbox=[1, 2, NAN, 4]), 'not four finite numbers'),
    'infinite': (lambda d: first(d, bbox=[1, 2, float('inf'), 4]), 'not four finite numbers'),
    'text': (lambda d: first(d, bbox=['1', 2, 3, 4]), 'not four finite numbers'),
    'three numbers': (lambda d: first(d, bbox=[1, 2, 3]), 'not four finite numbers'),
    'no list': (lambda d: first(d, bbox=dict(x=1)), 'not four finite numbers'),
    'area is text': (lambda d: first(d, area='big'), 'whose `area` is none'),
    'without area': (lambda d: d['annotations'][0].pop('area'), r'1 annotations without `area`.*width times height'),
    'without bbox': (lambda d: d['annotations'][0].pop('bbox'), 'without `bbox`'),
    'without image': (lambda d: d['annotations'][0].pop('image_id'), 'without `image_id`'),
    'same id': (lambda d: first(d, id=2), 'several annotations with the `id` 2'),
    'same image id': (lambda d: d['images'][0].update(id=2), r'1 `id`s that several images share.*one is 2'),
    'image without size': (lambda d: d['images'][0].pop('width'), 'an image without `width`'),
    'corners': (lambda d: every(d, as_corners), r'look like \[x1, y1, x2, y2\]'),
    'shares': (lambda d: every(d, as_shares), 'from 0 to 1'),
    'all crowd': (lambda d: every(d, lambda one: one.update(iscrowd=1)), 'all are crowds'),
    'all outside': (lambda d: every(d, lambda one: one.update(bbox=[500, 500, 5, 5])), 'leaves out 40 of 40'),
    'all without size': (lambda d: every(d, lambda one: one.update(bbox=[5, 5, 0, 0])), 'leaves out 40 of 40'),
    'most of other categories': (lambda d: d['categories'].clear(), 'leaves out 40 of 40'),
    'annotations are a dict': (lambda d: d.update(annotations=dict(a=1)), 'whose `annotations` is a list of dicts'),
    'images are numbers': (lambda d: d.update(images=[1, 2]), 'whose `images` is a list of dicts'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_a_file_that_cannot_be_trained_on_is_refused(name: str, tmp_path: Path) -> None:
    spoil, words = REFUSED[name]
    data = coco()
    spoil(data)
    with pytest.raises(ValueError, match=f'(?s)`ann_file` needs .*{words}'):
        describe(write(tmp_path, data), '`ann_file`')


def test_a_sound_file_needs_no_words(tmp_path: Path) -> None:
    assert describe(write(tmp_path, coco()), '`ann_file`') is None
    whole = coco()
    for one in whole['annotations']:  # objects that fill their images look like corners, and are none
        one.update(bbox=[0, 0, 100, 80])
    assert describe(write(tmp_path, whole), '`ann_file`') is None


def test_what_is_counted_is_what_mmdetection_drops(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = coco(200)
    for one in data['annotations']:
        if rng.random() < 0.5:
            x, y = rng.uniform(-40, 120, 2).tolist()
            w, h = (rng.integers(-2, 20, 2) * rng.choice([1, 0.25])).tolist()
            one.update(bbox=[x, y, w, h], area=w * h, ignore=int(rng.random() < 0.1),
                       iscrowd=int(rng.random() < 0.1), category_id=int(rng.integers(1, 4)))
    built = CocoDataset(ann_file=write(tmp_path, data), metainfo=dict(classes=('a', 'b')), pipeline=[],
                         data_prefix=dict(img=''))
    kept = sum(len(built.get_data_info(i)['instances']) for i in range(len(built)))
    assert 100 < kept == 200 - judge(*data.values()).dropped < 180


def test_of_a_great_file_the_first_annotations_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_check, 'WHOLE', 3000)
    data = coco(100)
    first(data, bbox=[500, 50, 5, 5])
    text = describe(write(tmp_path, data), '`ann_file`')
    assert '1 of the first' in text and '1 lie outside' in text
    monkeypatch.setattr(data_check, 'WHOLE', 1)  # a chunk is read all the same
    assert '1 of the first 100 annotations' in describe(write(tmp_path, data), '`ann_file`')


def test_a_pass_over_many_boxes_is_fast() -> None:
    data = coco(1000)
    many = dict(data, annotations=data['annotations'] * 200)
    start = time.process_time()
    judge(*many.values())
    assert time.process_time() - start < 4.0


def test_each_file_of_the_dataloaders_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = coco()
    first(data, bbox=[500, 50, 5, 5])
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json')
    write(tmp_path, data)
    said: list[str] = []
    monkeypatch.setattr(data_check, 'print_log', lambda text, logger: said.append(text))
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dict(
        type='RepeatDataset', times=2, dataset=dataset)), val_dataloader=dict(dataset=copy.deepcopy(dataset))))
    check_boxes(cfg, ('train_dataloader', 'val_dataloader', 'test_dataloader'))
    assert len(said) == 1 and '1 lie outside' in said[0]
    cfg.val_dataloader.dataset.ann_file = 'b.json'
    cfg.val_dataloader.dataset.type = 'VOCDataset'
    check_boxes(cfg, ('train_dataloader', 'val_dataloader'), say=False)
    assert len(said) == 1


def test_the_made_data_set_is_sound(digits: Path) -> None:
    for split in ('train', 'val'):
        assert describe(str(digits / f'annotations/{split}.json'), '`ann_file`') is None
    assert len(CLASSES) == 10
