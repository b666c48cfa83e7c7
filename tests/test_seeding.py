"""A run resumed from the end of an epoch gives the model the inputs that it would have had without the stop."""

from __future__ import annotations

import copy
import hashlib
import random
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ckd_mmdet import seeding
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.seeding import KEY, ExactResume, PipelineState, PythonState, seed_epoch, why_inexact
from mmdet.datasets.samplers import CustomSampleSizeSampler
from mmdet.models import data_preprocessors
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from tests.small_runs import Record, run_config, student_config
from tests.toys import toy_batch, toy_config, toy_model

EPOCHS, STEPS = 3, 4
SIZE = (64, 64)
START = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
         dict(type='Resize', scale=SIZE, keep_ratio=True)]
FLIP = dict(type='RandomFlip', prob=0.5)
PACK = dict(type='PackDetInputs')
MOSAIC = dict(type='CachedMosaic', img_scale=SIZE, max_cached_images=5)
MIXUP = dict(type='CachedMixUp', img_scale=SIZE, max_cached_images=3)
CROP = dict(type='RandomCrop', crop_size=SIZE)

LARGER = dict(type='BatchSyncRandomResize', random_size_range=(96, 160))
AUGMENTS = {
    'none': None,
    'padded': [dict(type='BatchFixedSizePad', size=(96, 80))],
    'resized': [dict(type='BatchResize', scale=(96, 72), pad_size_divisor=32)],
    'of random size': [dict(**LARGER, interval=3)],  # drawn in the middle of epochs
    'seldom of another size': [dict(**LARGER, interval=7)],  # drawn after step 7, kept until step 14
    'of random size, padded': [dict(**LARGER, interval=1), dict(type='BatchFixedSizePad', size=(192, 192))],
}
CACHED = [*START, MOSAIC, CROP, MIXUP, FLIP, PACK]
INSIDE_OF_ANOTHER = [*START, dict(type='RandomApply', transforms=[MOSAIC, CROP, MIXUP], prob=0.9), FLIP, PACK]
MIXED = [dict(type='Mosaic', img_scale=SIZE), CROP, dict(type='MixUp', img_scale=SIZE), FLIP, PACK]


@MODELS.register_module()
class PreprocessedInSeveralWays(BaseDataPreprocessor):
    """Gives what MMDetection's preprocessor makes of a batch with each of some ``batch_augments``."""

    def __init__(self, batch_augments: dict[str, list | None]) -> None:
        super().__init__()
        self.ways = nn.ModuleDict({name: MODELS.build(dict(type='DetDataPreprocessor', batch_augments=augments))
                                   for name, augments in batch_augments.items()})

    def forward(self, data: dict, training: bool = False) -> dict:
        return dict(batches={name: way(copy.deepcopy(data), training) for name, way in self.ways.items()})


@MODELS.register_module()
class DigestOfInputs(BaseModel):
    """Learns nothing, and logs a number for the inputs and boxes that it is given, which is another for others."""

    def __init__(self, data_preprocessor: dict) -> None:
        super().__init__(data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batches: dict[str, dict], mode: str) -> dict[str, Tensor]:
        logged = dict(loss=self.weight.sum())
        for name, batch in batches.items():
            inputs, boxes = batch['inputs'], [sample.gt_instances.bboxes for sample in batch['data_samples']]
            digest = hashlib.sha256(b''.join(part.numpy().tobytes() for part in (inputs, *boxes))).digest()
            logged[name] = torch.tensor(float(int.from_bytes(digest[:3], 'big')))
            logged[f'height, {name}'] = torch.tensor(float(inputs.shape[2]))
        return logged


def config(data: Path, work_dir: Path, workers: int = 0, augments: dict | None = None,
           pipeline: list | None = None) -> Config:
    preprocessor = dict(type='PreprocessedInSeveralWays', batch_augments=augments or dict(none=None))
    cfg = run_config(dict(type='DigestOfInputs', data_preprocessor=preprocessor), data, work_dir, epochs=EPOCHS,
                     workers=workers)
    for part in ('val_cfg', 'val_dataloader', 'val_evaluator', 'test_cfg', 'test_dataloader', 'test_evaluator'):
        cfg[part] = None
    cfg.default_hooks.checkpoint.save_best = None
    if pipeline is not None:
        cfg.train_dataloader.dataset.pipeline = pipeline
    return cfg


def steps(cfg: Config) -> list[dict[str, float]]:
    runner, record = Runner.from_cfg(cfg), Record()
    for hook in (record, ExactResume()):
        runner.register_hook(hook)
    runner.train()
    runner.train_dataloader._iterator = None  # ends persistent workers at once
    return record.steps


def check_that_resuming_is_exact(cfg: Config, folder: Path) -> list[dict[str, float]]:
    """Gives what the whole run logged."""
    whole, rest = whole_and_rest(cfg, folder)
    assert len(whole) == EPOCHS * STEPS and rest == whole[2 * STEPS:]
    assert len({step['none'] for step in whole}) == len(whole)  # or equal steps would say little
    return whole


def whole_and_rest(cfg: Config, folder: Path) -> tuple[list, list]:
    """What is logged by a run that is never stopped, and by one resumed from its second epoch."""
    whole, again = steps(cfg), cfg.copy()
    again.merge_from_dict(dict(work_dir=str(folder / 'rest'), experiment_name=f'{cfg.experiment_name}_rest',
                               load_from=str(Path(cfg.work_dir) / 'epoch_2.pth'), resume=True))
    return whole, steps(again)


@pytest.fixture(params=[0, 2])
def workers(request: pytest.FixtureRequest) -> int:
    return request.param


def test_every_batch_augment_is_tried() -> None:
    batch = {name for name, part in vars(data_preprocessors).items() if name.startswith('Batch')}
    assert batch == {augment['type'] for augments in AUGMENTS.values() for augment in augments or ()}


def test_with_batch_augments(workers: int, digits: Path, tmp_path: Path) -> None:
    whole = check_that_resuming_is_exact(config(digits, tmp_path, workers, AUGMENTS), tmp_path)
    sizes = {name: [step[f'height, {name}'] for step in whole] for name in AUGMENTS}
    assert len(set(sizes['none'])) == 1 and len(set(sizes['of random size'])) > 1
    assert sizes['seldom of another size'][6] != sizes['seldom of another size'][7]


def test_with_cached_images_and_then_with_another_pipeline(workers: int, digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path, workers, pipeline=CACHED)
    cfg.custom_hooks = [dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=INSIDE_OF_ANOTHER)]
    check_that_resuming_is_exact(cfg, tmp_path)


@pytest.mark.parametrize('cached', [MOSAIC, MIXUP], ids=lambda cached: cached['type'])
def test_with_one_cache(cached: dict, digits: Path, tmp_path: Path) -> None:
    check_that_resuming_is_exact(config(digits, tmp_path, pipeline=[*START, cached, CROP, PACK]), tmp_path)


def test_with_a_data_set_that_mixes_images(workers: int, digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path, workers, pipeline=[*START, MIXUP])
    cfg.train_dataloader.dataset = dict(type='MultiImageMixDataset', dataset=cfg.train_dataloader.dataset,
                                        pipeline=MIXED)
    check_that_resuming_is_exact(cfg, tmp_path)


def test_a_model_that_keeps_state_outside_its_tensors(digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path)
    cfg.model = toy_config('dynamic_rcnn', len(CLASSES))
    cfg.model.train_cfg.rcnn.dynamic_rcnn.update(update_iter_interval=3, initial_iou=0.01)
    cfg.train_dataloader.update(batch_size=2)
    cfg.train_dataloader.dataset.indices = 2 * STEPS
    whole, rest = whole_and_rest(cfg, tmp_path)
    assert rest == whole[2 * STEPS:]
    kept, = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)[KEY]
    assert kept.keys() == {'roi_head', 'roi_head.bbox_assigner'}
    assert kept['roi_head.bbox_assigner']['pos_iou_thr'] > 0.01 and len(kept['roi_head']['iou_history']) == 2


def test_nothing_is_kept_of_a_model_without_such_state() -> None:
    model = toy_model(student_config()).train()
    state = PythonState(model)
    model(**model.data_preprocessor(toy_batch(), True), mode='loss')
    assert state.state_dict() == {}


class Counter(nn.Module):
    """With state of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.size, self.history, self.by_name = 0, None, [], {}
        self.mean, self.of_torch, self.deep = 0.5, torch.Generator(), [[torch.zeros(1)]]

    def change(self) -> None:
        self.count, self.size, self.mean = self.count + 1, (1, 2), np.float64(0.25)
        self.history.append([self.count])
        self.by_name['a'] = self.count
        self.of_torch, self.deep = torch.Generator(), [[torch.ones(1)]]


def test_plain_values_are_kept_and_other_objects_are_not() -> None:
    model = nn.Sequential(Counter(), Counter())
    state = PythonState(model)
    assert state.state_dict() == {}
    model[1].change()
    kept = state.state_dict()
    expected = dict(count=1, size=(1, 2), mean=0.25, history=[[1]], by_name=dict(a=1))
    assert kept == {'1': expected} and type(kept['1']['mean']) is float  # NumPy's would not be read safely
    model[1].change()
    assert kept == {'1': expected}  # a copy
    fresh = nn.Sequential(Counter(), Counter())
    resumed = PythonState(fresh)
    resumed.load_state_dict({**kept, 'gone': dict(count=3)})
    fresh[1].change()
    assert kept == {'1': expected} and resumed.state_dict() == state.state_dict()
    assert vars(fresh[0])['count'] == 0


def test_what_was_resumed_is_kept_again_though_it_did_not_change() -> None:
    model = Counter()
    state = PythonState(model)
    state.load_state_dict({'': dict(count=7)})
    assert state.state_dict() == {'': dict(count=7)}


@pytest.fixture
def two_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two; the first has counted to 5."""
    monkeypatch.setattr(seeding, 'get_world_size', lambda: 2)
    monkeypatch.setattr(seeding, 'get_rank', lambda: 1)
    monkeypatch.setattr(seeding, 'all_gather_object', lambda state: [{'': dict(count=5)}, state])


def runner_of(model: nn.Module) -> SimpleNamespace:
    return SimpleNamespace(model=model, train_dataloader=loader(0), train_loop=None, _resume=True, seed=0, epoch=0)


def test_each_rank_has_its_own_state_back(two_ranks: None) -> None:
    model, saved = Counter(), {}
    hook, runner = ExactResume(), runner_of(model)
    hook.before_train(runner)
    hook.before_train_epoch(runner)
    model.count = 8
    hook.after_train_iter(runner, len(runner.train_dataloader) - 1)
    hook.before_save_checkpoint(runner, saved)
    assert saved == {KEY: [{'': dict(count=5)}, {'': dict(count=8)}]}
    again = Counter()
    ExactResume().after_load_checkpoint(runner_of(again), saved)
    assert again.count == 8


def test_another_number_of_ranks_is_logged(two_ranks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    said, model = [], Counter()
    monkeypatch.setattr(seeding, 'print_log', lambda text, logger: said.append(text))
    for states in ([{}], [], [{}, {}], [{'': dict(count=4)}]):
        ExactResume().after_load_checkpoint(runner_of(model), {KEY: states})
    assert said == ['Resuming is not exact: the checkpoint is of 1 processes, this run has 2.'] and model.count == 0


def test_weights_loaded_for_a_new_run_bring_no_state() -> None:
    model = Counter()
    runner = runner_of(model)
    runner._resume = False
    ExactResume().after_load_checkpoint(runner, {KEY: [{'': dict(count=4)}]})
    assert model.count == 0


class Remembering:
    """A transform with state of many kinds."""

    def __init__(self) -> None:
        self.count, self.seen, self.by_name, self.names, self.last = 0, [], dict(inner=[]), set(), deque(maxlen=2)

    def __call__(self, item: int) -> int:
        self.count, self.new = self.count + 1, item
        self.seen.append(item)
        self.by_name['inner'].append(item)
        self.names.add(item)
        self.last.append(item)
        return item


def test_transforms_have_their_state_back_wherever_they_are() -> None:
    parts = [Remembering() for _ in range(4)]
    parts[1].seen = parts[0].seen = shared = [9]
    wrapped = SimpleNamespace(pipeline=SimpleNamespace(transforms=parts[:2]))
    dataset = SimpleNamespace(datasets=[wrapped], pipeline=[SimpleNamespace(transforms=[parts[2:]])])
    before = copy.deepcopy([vars(part) for part in parts])
    state = PipelineState(SimpleNamespace(dataset=dataset, num_workers=0))
    for _ in range(2):
        for part in parts:
            part(3)
        assert all(vars(part) != old for part, old in zip(parts, before, strict=True))
        state.restore()
        assert [vars(part) for part in parts] == before
    assert parts[0].seen is parts[1].seen is shared


def test_with_workers_a_change_of_the_pipeline_by_a_hook_stays() -> None:
    part = Remembering()
    state = PipelineState(SimpleNamespace(dataset=SimpleNamespace(pipeline=[part]), num_workers=2))
    part(3)
    state.restore()
    assert part.count == 1


def test_a_run_counted_in_iterations_is_said_to_be_inexact(digits: Path, tmp_path: Path) -> None:
    cfg = config(digits, tmp_path)
    assert why_inexact(Runner.from_cfg(cfg)) is None
    cfg.experiment_name, cfg.train_cfg = f'{cfg.experiment_name}_rest', dict(by_epoch=False, max_iters=2)
    assert 'counted in iterations' in why_inexact(Runner.from_cfg(cfg))


@pytest.mark.parametrize(('sampler', 'reason'), [
    (DefaultSampler(range(4)), None),
    (CustomSampleSizeSampler(SimpleNamespace(datasets=[range(4)]), [2]), '`dataset_cycle_iter` of its CustomSample'),
    (InfiniteSampler(range(4)), '`indices` of its InfiniteSampler'),
])
def test_a_sampler_that_goes_on_over_epochs_is_said_to_be_inexact(sampler: Sampler, reason: str | None) -> None:
    runner = SimpleNamespace(train_loop=None, train_dataloader=DataLoader(range(4), sampler=sampler))
    said = why_inexact(runner)
    assert said is None if reason is None else reason in said


class Draws(Dataset):
    """What a worker's three generators give."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]


def loader(workers: int) -> DataLoader:
    return DataLoader(Draws(), batch_size=2, num_workers=workers, persistent_workers=workers > 0,
                      sampler=DefaultSampler(Draws(), seed=0), collate_fn=list)


def draws(data: DataLoader, epoch: int, seed: int = 1, rank: int = 0) -> list[list[float]]:
    seed_epoch(data, seed, epoch, rank)
    return [item for batch in data for item in batch]


@pytest.mark.parametrize('workers', [0, 2])
def test_an_epoch_draws_the_same_whatever_went_before(workers: int) -> None:
    ours = loader(workers)
    first, second = draws(ours, 0), draws(ours, 1)
    random.random(), np.random.rand(), torch.rand(5)  # as a validation would
    assert draws(ours, 1) == second == draws(loader(workers), 1)
    assert draws(ours, 0) == first
    numbers = [number for item in [*first, *second] for number in item]
    assert len(set(numbers)) == len(numbers)  # no two epochs and no two workers draw the same


@pytest.mark.parametrize('other', [dict(seed=2), dict(rank=1)])
def test_another_seed_or_rank_draws_other_numbers(other: dict) -> None:
    assert draws(loader(0), 1, **other) != draws(loader(0), 1)


def test_the_users_own_worker_init_still_runs_once() -> None:
    calls = []
    ours = loader(0)
    ours.worker_init_fn = calls.append
    for epoch in range(3):
        seed_epoch(ours, 1, epoch, 0)
    ours.worker_init_fn(7)
    assert calls == [7]


def test_the_sampler_takes_the_runs_seed() -> None:
    ours = loader(0)
    seed_epoch(ours, 9, 0, 0)
    assert ours.sampler.seed == 9
