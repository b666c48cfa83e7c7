"""A cache from predictions of any framework."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from ckd_mmdet.cached.container import Shards
from ckd_mmdet.cached.predictions import Predictions, in_view
from mmengine.config import Config

from tests.small_runs import run_config, run_tool, train
from tests.toys import toy_config


def read(folder: Path, entries: list, num_classes: int = 2) -> Predictions:
    path = folder / 'predictions.json'
    path.write_text(json.dumps(entries))
    return Predictions.read(path, {5: 0, 7: 1}, num_classes, ['1', '2'])


def entry(**changes: object) -> dict:
    return {**dict(image_id=1, category_id=7, bbox=[10, 20, 30, 40], score=0.8), **changes}


def test_scores_become_what_a_head_would_write(tmp_path: Path) -> None:
    found = read(tmp_path, [entry(), entry(scores=[0.25, 0.5])])
    assert found.softmax and found.boxes['1'][0].tolist() == [10, 20, 40, 60] and found.boxes['2'].shape == (0, 4)
    torch.testing.assert_close(found.logits('1').softmax(1), torch.tensor([[0, 0.8, 0.2], [0.25, 0.5, 0.25]]),
                               atol=2e-6, rtol=0)
    found = read(tmp_path, [entry(), entry(scores=[0.75, 0.5])])
    assert not found.softmax
    torch.testing.assert_close(found.logits('1').sigmoid(), torch.tensor([[0, 0.8], [0.75, 0.5]]), atol=2e-6, rtol=0)


def test_boxes_are_scaled_and_flipped_as_their_image_is() -> None:
    box = torch.tensor([[10.0, 20.0, 40.0, 60.0]])
    meta = dict(scale_factor=(2.0, 0.5), img_shape=(50, 100))
    assert in_view(box, meta).tolist() == [[20, 10, 80, 30]]
    for way, expected in (('horizontal', [20, 10, 80, 30]), ('vertical', [20, 20, 80, 40])):
        assert in_view(box, {**meta, 'flip': True, 'flip_direction': way}).tolist() == [expected]
    assert in_view(box, {**meta, 'img_shape': (20, 50)}).tolist() == [[20, 10, 50, 20]]


@pytest.mark.parametrize('changes, words', [
    (dict(image_id=3), r'entry 1: `image_id` 3 is not among the 2 training images'),
    (dict(category_id=6), r'entry 1: `category_id` 6 is not one of the training data, \[5, 7\]'),
    (dict(score=1.5), 'entry 1: a score needs to be from 0 to 1, got 1.5; give probabilities'),
    (dict(score=float('nan')), 'entry 1: a score needs to be from 0 to 1, got nan'),
    (dict(score=None), 'entry 1: a score needs to be from 0 to 1, got None'),
    (dict(scores=[0.1]), 'entry 1: `scores` needs a number for each of the 2 classes, got 1'),
    (dict(bbox=[1, 2, 0, 4]), r'entry 1: `bbox` needs x, y, width and height'),
])
def test_an_unfit_entry_is_refused_by_its_number(changes: dict, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read(tmp_path, [entry(), entry(**changes)])


@pytest.mark.parametrize('text, words', [('[', 'needs a JSON file'), ('{}', 'needs a list of COCO results')])
def test_another_file_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / 'predictions.json'
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        Predictions.read(path, {}, 2, [])


def perfect(data: Path) -> list[dict]:
    """Of a teacher that finds every object, and is sure of it."""
    file = json.loads((data / 'annotations/train.json').read_text())
    place = {category['id']: number for number, category in enumerate(file['categories'])}
    return [dict(image_id=one['image_id'], bbox=one['bbox'],
                 scores=[0.91 if number == place[one['category_id']] else 0.01 for number in range(len(place))])
            for one in file['annotations']]


@pytest.mark.parametrize('name, part', [('faster_rcnn', 'roi'), ('retinanet', 'object')])
def test_a_student_learns_from_a_file(name: str, part: str, digits: Path, tmp_path: Path,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = run_config(toy_config(name, num_classes=10), digits, tmp_path / 'run', epochs=1)
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.dump(tmp_path / 'student.py')
    (tmp_path / 'predictions.json').write_text(json.dumps(perfect(digits)))
    run_tool(monkeypatch, 'cache_teacher', tmp_path / 'student.py', '--predictions', tmp_path / 'predictions.json',
             '--out', tmp_path / 'cache', '--method', 'kd', '--workers', 0)
    made = Config.fromfile(tmp_path / 'cache' / 'config.py')
    steps = train(made)
    assert all(step[f'{part}.loss_kd'] > 0 and step[f'{part}.teacher_accuracy'] == 1 for step in steps)
    assert len(Shards(tmp_path / 'cache', 1)) == 32


def unknown_image(entries: list) -> None:
    entries[3]['image_id'] = 12345


@pytest.mark.parametrize('change, words', [(unknown_image, 'entry 3: `image_id` 12345 is not among the 16')])
def test_the_tool_refuses_an_unfit_file(change: Callable, words: str, digits: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    run_config(toy_config('retinanet', num_classes=10), digits, tmp_path / 'run').dump(tmp_path / 'student.py')
    entries = perfect(digits)
    change(entries)
    (tmp_path / 'predictions.json').write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=words):
        run_tool(monkeypatch, 'cache_teacher', tmp_path / 'student.py', '--predictions', tmp_path / 'predictions.json',
                 '--out', tmp_path / 'cache', '--workers', 0)
    assert not (tmp_path / 'cache').exists()
