"""A student taught by a cache: the same rows as from the live teacher, and refusals of another's cache."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ckd_mmdet.cached import build
from ckd_mmdet.cached.boxes import BACKGROUND, DETECTED, JITTERED, TRUTH
from ckd_mmdet.cached.container import Shards, shard_path
from ckd_mmdet.cached.header import Header
from ckd_mmdet.cached.parts import centers_in_boxes, index_of, places_of
from ckd_mmdet.lab.datasets.digit_scenes import CLASSES
from ckd_mmdet.rows import SIGMOID, MapRows
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from torch import nn

from tests.cached.scenes import cached, half, toy_run
from tests.small_runs import train
from tests.toys import saved_teacher, toy_batch, toy_config, toy_model


@pytest.fixture(scope='module', params=['retinanet', 'faster_rcnn'])
def runs(request: pytest.FixtureRequest, digits: Path, tmp_path_factory: pytest.TempPathFactory
         ) -> tuple[Config, Config]:
    """One with the live teacher, one with its cache."""
    folder = tmp_path_factory.mktemp(request.param)
    live = toy_run(request.param, digits, folder, epochs=1)
    # an RPN's loss ignores most anchors, and the cache knows not which: here it has all of them
    return live, cached(live, folder / 'cache', k=64 if request.param == 'retinanet' else 1100)


@pytest.fixture(scope='module')
def of_retinanet(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Config]:
    folder = tmp_path_factory.mktemp('retinanet')
    live = toy_run('retinanet', digits, folder, epochs=1)
    return live, cached(live, folder / 'cache')


def student_of(cfg: Config) -> nn.Module:
    """The distilled student, of the same weights each time, paired."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS.build(copy.deepcopy(cfg.model)).train()
        for parameter in model.parameters():  # untrained heads give all classes alike
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.05)
    model.distillation.pair(model, None)
    return model


def batches(cfg: Config, model: nn.Module, size: int) -> list[dict]:
    """The first scenes, flipped at random."""
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    np.random.seed(0)  # of the flips
    packed = [dataset[i] for i in range(2 * size)]
    return [model.data_preprocessor(dict(inputs=[one['inputs'] for one in part],
                                         data_samples=[one['data_samples'] for one in part]), training=True)
            for part in (packed[:size], packed[size:])]


def aligned(model: nn.Module, batch: dict) -> Any:
    torch.manual_seed(0)
    return model.distillation.align(model, model.forward_alone, **batch)


@pytest.mark.parametrize('name', ['dense', 'rpn'])
def test_dense_rows_of_one_image_are_the_live_teachers_to_half_precision(name: str, runs: tuple[Config, Config]
                                                                         ) -> None:
    live, from_files = (student_of(cfg).distillation for cfg in runs)
    if name not in live.pairings:
        return
    for batch in batches(runs[0], student_of(runs[0]), 1):
        answers = []
        for distillation in (live, from_files):
            model, teacher = student_of(runs[0]), distillation.teachers[None]
            torch.manual_seed(0)
            with distillation.pairings[name].listen(model) as tape:
                model.forward_alone(**batch, mode='loss')
            aligner = distillation.alignments[name].aligner
            answers.append(aligner.ask(teacher.model, teacher.extract_feat(**batch), tape, batch['data_samples']))
        whole, kept = answers
        record = from_files.teachers[None].extract_feat(**batch)[0]
        index = index_of(whole.student, 0, record[f'dense.{aligner.head}/place'])
        assert len(kept.teacher) == len(index) > 60 and index.equal(index.sort().values)
        every = torch.arange(len(index))
        assert torch.equal(kept.student.take(every), whole.student.take(index))
        torch.testing.assert_close(kept.teacher.take(every), half(whole.teacher.take(index)), rtol=2e-3, atol=1e-5)
        assert torch.equal(kept.labels, whole.labels[index])
        assert torch.equal(kept.level_ids, whole.level_ids[index])
        columns = range(whole.teacher.take(index).shape[1])
        confidence = whole.teacher.confidence(columns)
        assert confidence[index].min() >= confidence.sort().values[-len(index)] - 1e-6


def test_a_selector_takes_as_sure_rows_from_a_cache(of_retinanet: tuple[Config, Config]) -> None:
    models = [student_of(cfg) for cfg in of_retinanet]
    for batch in batches(of_retinanet[0], models[0], 1):
        live, from_files = (aligned(model, batch)['dense'].teacher.logits for model in models)
        assert live.shape == from_files.shape
        torch.testing.assert_close(from_files.amax(1).sort().values, live.amax(1).sort().values, rtol=2e-3, atol=1e-5)


def test_roi_rows_are_what_the_live_teacher_says_of_the_cached_boxes(digits: Path, tmp_path: Path) -> None:
    live = toy_run('faster_rcnn', digits, tmp_path)
    live.model.alignments.roi.losses = dict(loss_alignment=dict(type='FeatureAlignmentLoss'))
    cfg = cached(live, tmp_path / 'cache')
    model, teacher = student_of(cfg), student_of(live).distillation.teachers[None]
    batch = batches(cfg, model, 1)[0]
    rows, record = aligned(model, batch)['roi'], model.distillation.teachers[None].extract_feat(**batch)[0]
    boxes, kinds = record['roi/boxes'], record['roi/kinds']
    rois = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
    logits = teacher.model.roi_head._bbox_forward(teacher.extract_feat(**batch), rois)['cls_score']
    torch.testing.assert_close(rows.teacher.logits, half(logits), rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(rows.teacher.logits, nn.functional.linear(
        rows.teacher.features, rows.teacher.centers, rows.teacher.biases), rtol=1e-2, atol=1e-2)
    with torch.no_grad():
        feats = model.extract_feat(batch['inputs'])
        assert torch.equal(rows.student.logits, model.roi_head._bbox_forward(feats, rois)['cls_score'])
    truth = batch['data_samples'][0].gt_instances
    assert torch.equal(boxes[kinds == TRUTH], truth.bboxes)
    assert torch.equal(rows.labels[:len(truth)], truth.labels)
    overlaps = bbox_overlaps(boxes, truth.bboxes).amax(1)
    assert (overlaps[kinds == JITTERED] > 0.3).all() and (overlaps[kinds == BACKGROUND] < 0.3).all()
    assert {JITTERED, BACKGROUND} <= set(kinds.tolist()) <= {TRUTH, JITTERED, DETECTED, BACKGROUND}
    assert rows.student.logits.requires_grad


@pytest.mark.parametrize('name', ['objects', 'deformable_detr'])
def test_objects_of_one_image_are_the_live_teachers_to_half_precision(name: str, digits: Path, tmp_path: Path) -> None:
    live = toy_run(name, digits, tmp_path)
    models = [student_of(live), student_of(cached(live, tmp_path / 'cache'))]
    for batch in batches(live, models[0], 1):
        theirs, ours = (next(iter(aligned(model, copy.deepcopy(batch)).values())) for model in models)
        assert len(ours) == len(theirs) > 0
        assert torch.equal(ours.student.logits, theirs.student.logits) and torch.equal(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.teacher.logits, half(theirs.teacher.logits), rtol=2e-3, atol=1e-4)
    batch['data_samples'][0].gt_instances.bboxes += 5
    with pytest.raises(RuntimeError, match='to be those that the cache was written with, saw others'):
        aligned(models[1], batch)


def test_each_view_has_rows_of_its_own(of_retinanet: tuple[Config, Config]) -> None:
    shards = Shards(Path(of_retinanet[1].model.teacher.cache), 1)
    keys = list(shards.keys())
    assert len(keys) == 32 and {flip for _, flip, *_ in keys} == {'', 'horizontal'}
    plain, flipped = (shards.read((keys[0][0], flip, *keys[0][2:])) for flip in ('', 'horizontal'))
    assert not torch.equal(plain['dense.bbox_head/place'], flipped['dense.bbox_head/place'])


def test_a_student_trains_from_a_cache_and_no_teacher_is_built(runs: tuple[Config, Config],
                                                              monkeypatch: pytest.MonkeyPatch) -> None:
    cfg = copy.deepcopy(runs[1])
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    monkeypatch.setattr('ckd_mmdet.teacher.build_model', None)
    steps = train(cfg)
    assert len(steps) == 4
    assert all(step[key] > 0 for step in steps for key in step if key.endswith('loss_kd'))


def test_places_are_found_again_in_a_batch_that_is_padded_further() -> None:
    def rows(images: int, *sizes: tuple[int, int]) -> MapRows:
        return MapRows([torch.zeros(images, 3, 2, *size) for size in sizes], SIGMOID)

    alone, index = rows(1, (4, 5), (2, 3)), torch.tensor([0, 7, 44, 59, 60, 77])
    places = places_of(alone, index)
    assert places.tolist() == [[0, 0, 0, 0], [0, 0, 2, 1], [0, 2, 4, 2], [0, 3, 4, 2], [1, 0, 0, 0], [1, 1, 2, 2]]
    assert torch.equal(index_of(alone, 0, places), index)
    batch, offset = rows(2, (6, 8), (3, 4)), 2 * 6 * 8 * 3
    expected = [((6 + y) * 8 + x) * 3 + anchor if level == 0 else offset + ((3 + y) * 4 + x) * 3 + anchor
                for level, y, x, anchor in places.tolist()]
    assert index_of(batch, 1, places).tolist() == expected
    with pytest.raises(RuntimeError, match='every place that the teacher'):
        index_of(rows(1, (3, 5), (2, 3)), 0, places)


def test_anchors_in_boxes_are_those_whose_centre_is() -> None:
    head = toy_model(toy_config('retinanet')).bbox_head
    batch = toy_model(toy_config('retinanet')).data_preprocessor(toy_batch(num_items=[2, 3]), training=True)
    maps = [torch.zeros(2, 9, 3, size, size) for size in (8, 4, 2, 1, 1)]
    found, start = centers_in_boxes(head, MapRows(maps, SIGMOID), batch['data_samples']), 0
    for level, stride in zip(maps, (8, 16, 32, 64, 128), strict=True):
        for sample in batch['data_samples']:
            for y in range(level.shape[3]):
                for x in range(level.shape[3]):
                    inside = any(x1 <= x * stride <= x2 and y1 <= y * stride <= y2
                                 for x1, y1, x2, y2 in sample.gt_instances.bboxes.tolist())
                    assert found[start:start + 9].tolist() == [inside] * 9
                    start += 9
    assert start == len(found) and 0 < found.sum() < start


# Writing goes on


def test_a_killed_run_goes_on_and_gives_the_same_files(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                       ) -> None:
    monkeypatch.setattr(build, 'Header', partial(Header, images_a_shard=6))
    monkeypatch.setattr(build.Header, 'read', Header.read, raising=False)
    live = toy_run('faster_rcnn', digits, tmp_path)
    cached(live, tmp_path / 'whole')
    asked, answered = build.Asked.records, []

    def dying(self: build.Asked, samples: Any) -> Any:
        answered.append(len(samples))
        if len(answered) == 9:
            raise KeyboardInterrupt
        return asked(self, samples)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(build.Asked, 'records', dying)
        cached(live, tmp_path / 'killed')
    assert [shard_path(tmp_path / 'killed', i).exists() for i in range(3)] == [True, False, False]
    cached(live, tmp_path / 'killed')
    for path in (tmp_path / 'whole').glob('*.safetensors'):
        assert (tmp_path / 'killed' / path.name).read_bytes() == path.read_bytes()
    other = copy.deepcopy(live)
    other.model.teacher.checkpoint = saved_teacher(tmp_path, live.model.teacher.config, seed=2, classes=CLASSES)
    with pytest.raises(ValueError, match=r'`--out` needs an empty folder.* another `digest`'):
        cached(other, tmp_path / 'whole')
    with pytest.raises(ValueError, match=r'`--out` needs an empty folder.* another `parts`'):
        cached(live, tmp_path / 'whole', boxes=8)


# Refusals


def changed(cfg: Config, change: Callable[[Config], None]) -> Config:
    made = copy.deepcopy(cfg)
    change(made)
    made.val_dataloader = made.val_cfg = made.val_evaluator = None
    return made


def another_teacher(cfg: Config) -> None:
    path = Path(cfg.work_dir).parent / 'other.pth'
    torch.save({}, path)
    cfg.model.teacher.checkpoint = str(path)


def another_stride(cfg: Config) -> None:
    cfg.model.student.bbox_head.anchor_generator.strides = [4, 8, 16, 32, 64]


def another_size(cfg: Config) -> None:
    cfg.train_dataloader.dataset.pipeline[2].scale = (96, 96)


def crops(cfg: Config) -> None:
    cfg.train_dataloader.dataset.pipeline.insert(3, dict(type='RandomCrop', crop_size=(32, 32)))


def turned_upside_down(cfg: Config) -> None:
    cfg.train_dataloader.dataset.pipeline[3].direction = 'vertical'


def more_images(cfg: Config) -> None:
    dataset = cfg.train_dataloader.dataset
    path = Path(dataset.data_root) / dataset.ann_file
    file = json.loads(path.read_text())
    file['images'].append({**file['images'][0], 'id': 999})
    file['annotations'].append({**file['annotations'][0], 'id': 9999, 'image_id': 999})
    dataset.ann_file = str(Path(cfg.work_dir).parent / 'more.json')
    Path(dataset.ann_file).write_text(json.dumps(file))


def other_normalisation(cfg: Config) -> None:
    cfg.model.student.data_preprocessor.mean = [1.0, 2.0, 3.0]


def other_classes(cfg: Config) -> None:
    header = Path(cfg.model.teacher.cache) / 'header.json'
    folder = Path(cfg.work_dir).parent / 'other_classes'
    folder.mkdir(exist_ok=True)
    for path in header.parent.glob('*.safetensors'):
        (folder / path.name).write_bytes(path.read_bytes())
    said = json.loads(header.read_text())
    (folder / 'header.json').write_text(json.dumps({**said, 'classes': said['classes'][::-1]}))
    cfg.model.teacher.cache = str(folder)


def no_cache(cfg: Config) -> None:
    cfg.model.teacher.cache = cfg.work_dir


def all_rows(cfg: Config) -> None:
    cfg.model.alignments.dense.selector = dict(type='All')


def random_rows(cfg: Config) -> None:
    cfg.model.alignments.dense.selector = dict(type='Random', k=8)


def maps(cfg: Config) -> None:
    cfg.model.alignments.neck = dict(aligner=dict(type='NeckAligner'), losses=dict(loss_pkd=dict(type='PKDLoss')))


def rois(cfg: Config) -> None:
    cfg.model.alignments.rpn = copy.deepcopy(cfg.model.alignments.dense)
    cfg.model.alignments.rpn.aligner.head = 'rpn_head'
    cfg.model.student = toy_config('faster_rcnn', 10)


@pytest.mark.parametrize('change, words', [
    (another_teacher, '`teacher.cache` was made by the weights .*other.pth, has others'),
    (another_stride, 'has other strides than the student'),
    (another_size, r"with another pipeline: it has \['Resize', .*64, 64.* the training \['Resize', .*96, 96"),
    (crops, '`RandomCrop` gives it countless ones'),
    (turned_upside_down, "has no images as the training pipeline may give them, .*'vertical'"),
    (more_images, r'has 16 images, and 1 of the training data set\'s 17 are not among them \(img_id 999\)'),
    (other_normalisation, 'another `mean` than the student'),
    (other_classes, 'knows other classes than the data set'),
    (no_cache, 'has no header.json'),
    (all_rows, 'needs a `selector`, as a cache holds some anchors of a dense head only'),
    (random_rows, 'is Random, each row as likely as any other'),
    (maps, r'`alignments.neck` \(`pkd`\) pairs by NeckAligner what a cache does not keep'),
])
def test_a_cache_that_does_not_fit_is_refused(of_retinanet: tuple[Config, Config], change: Callable, words: str
                                              ) -> None:
    with pytest.raises(ValueError, match=words):
        train(changed(of_retinanet[1], change))


def test_an_image_of_another_size_stops_the_step(of_retinanet: tuple[Config, Config]) -> None:
    model = student_of(of_retinanet[1])
    batch = batches(of_retinanet[1], model, 1)[0]
    batch['data_samples'][0].set_metainfo(dict(img_shape=(48, 64)))
    with pytest.raises(RuntimeError, match='in 48x64 pixels.*, saw it in 64x64'):
        aligned(model, batch)


def test_a_cache_survives_a_copy(of_retinanet: tuple[Config, Config]) -> None:
    model = student_of(of_retinanet[1])
    again = copy.deepcopy(model)
    batch = batches(of_retinanet[1], model, 1)[0]
    assert torch.equal(aligned(again, batch)['dense'].teacher.logits, aligned(model, batch)['dense'].teacher.logits)


