"""A resumed run continues as if never stopped: random numbers, and state that no ``state_dict`` holds."""

from __future__ import annotations

import copy
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import BaseModel, is_model_wrapper
from mmengine.registry import TASK_UTILS
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import DataLoader

KEY = 'ckd_mmdet_python_state'
"""Where a checkpoint keeps one :meth:`PythonState.state_dict` for each rank."""


class ExactResume(Hook):
    """Makes a run that is resumed from the end of an epoch equal, to the last bit, to one that was never stopped.

    Each epoch is seeded from ``(seed, epoch, rank)``, data workers included (:func:`seed_epoch`). What the model learns
    outside its ``state_dict``, such as the size of ``BatchSyncRandomResize``, is kept in the checkpoint
    (:class:`PythonState`). Caches of the pipeline, such as that of ``CachedMosaic``, start each epoch as they were
    before the first (:class:`PipelineState`). Where none of these help, :func:`why_inexact` is logged.
    """

    # after hooks that change the pipeline or the model for an epoch, and after CheckpointHook
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.state: PythonState | None = None
        self.gathered: list[dict] = []
        self.pipeline: PipelineState | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        self.state = PythonState(_unwrap(runner.model))
        states = checkpoint.get(KEY, [])
        if len(states) == get_world_size():
            self.state.load_state_dict(states[get_rank()])
        elif any(states):
            print_log(f'Resuming is not exact: the checkpoint is of {len(states)} processes, this run has '
                      f'{get_world_size()}.', logger='current')

    def before_train(self, runner: Runner) -> None:
        if self.state is None:
            self.state = PythonState(_unwrap(runner.model))
        reason = why_inexact(runner)
        if reason is not None:
            print_log(reason, logger='current')

    def before_train_epoch(self, runner: Runner) -> None:
        seed_epoch(runner.train_dataloader, runner.seed, runner.epoch, get_rank())
        self.pipeline = PipelineState(runner.train_dataloader)
        self.gathered = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if get_world_size() > 1 and self.end_of_epoch(runner.train_dataloader, batch_idx):
            # here, since only the main process reaches before_save_checkpoint
            assert self.state is not None  # since before_train
            self.gathered = all_gather_object(self.state.state_dict())

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.state is not None:
            checkpoint[KEY] = self.gathered if get_world_size() > 1 else [self.state.state_dict()]

    def after_train_epoch(self, runner: Runner) -> None:
        if self.pipeline is not None:
            self.pipeline.restore()


def why_inexact(runner: Runner) -> str | None:
    """Say why a resumed run would not equal one that was never stopped, or give None where it would.

    Args:
        runner: Before its first step; its train loop is built.
    """
    start = 'Resuming this run will not be exact:'
    if isinstance(runner.train_loop, IterBasedTrainLoop):
        return (f'{start} it is counted in iterations, which MMEngine treats as one epoch, and random states are set '
                'at the start of epochs only. With `train_cfg.by_epoch=True` and `max_epochs` it would be.')
    loader = runner.train_dataloader
    for sampler in (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, 'sampler', None)):
        for name, value in vars(sampler).items() if sampler is not None else ():
            if _holds_iterator(value):
                return (f'{start} `{name}` of its {type(sampler).__name__} continues from epoch to epoch, and no '
                        'checkpoint holds it. With a DefaultSampler it would be.')
    return None


def seed_epoch(loader: DataLoader, seed: int, epoch: int, rank: int) -> None:
    """Set all random states from ``(seed, epoch, rank)``; the loader's workers start anew from them.

    MMEngine saves after the training epoch, before validation draws from the global generator, and persistent
    workers hold states of their own: a resumed run could not restore either.
    """
    main, workers = np.random.SeedSequence((seed, epoch, rank)).spawn(2)
    _seed(main)
    start = loader.worker_init_fn
    if isinstance(start, _StartWorker):
        start = start.first
    loader.worker_init_fn = _StartWorker(start, workers)
    loader._iterator = None  # persistent workers end here, or they would keep their states
    for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
        if sampler is not None and hasattr(sampler, 'seed'):
            sampler.seed = seed  # built before `--resume` brought the run's seed back


@dataclass(frozen=True)
class _StartWorker:
    first: Callable[[int], None] | None
    state: np.random.SeedSequence

    def __call__(self, worker: int) -> None:
        if self.first is not None:
            self.first(worker)
        _seed(np.random.SeedSequence(self.state.entropy, spawn_key=(*self.state.spawn_key, worker)))


def _seed(state: np.random.SeedSequence) -> None:
    for_random, for_numpy, for_torch = (int(word) for word in state.generate_state(3))
    random.seed(for_random)
    np.random.seed(for_numpy)
    torch.manual_seed(for_torch)


class PythonState:
    """The plain values among a model's attributes that change in training.

    Examples are the current size of ``BatchSyncRandomResize``, the thresholds of Dynamic R-CNN's assigner and the
    counter of ``DropBlock``. Attributes of all modules are read, and those of the assigners, samplers and coders that
    modules hold. Plain are numbers, strings, ``None``, and tuples, lists and dicts of these; tensors, and objects of
    other classes, are not kept.

    Args:
        model: As it was built; what differs from it later is the state.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.built = {name: _plain_attributes(part) for name, part in _stateful_parts(model)}

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Attributes by the name of their module, only where they differ from the built ones."""
        state = {}
        for name, part in _stateful_parts(self.model):
            before = self.built.get(name, {})
            changed = {key: value for key, value in _plain_attributes(part).items()
                       if key not in before or before[key] != value}
            if changed:
                state[name] = changed
        return state

    def load_state_dict(self, state: dict[str, dict[str, Any]]) -> None:
        """Set the attributes; modules that the model does not have are passed over."""
        for name, part in _stateful_parts(self.model):
            vars(part).update(copy.deepcopy(state.get(name, {})))


class PipelineState:
    """What the transforms of a loader's data set hold, to be given back to them after an epoch.

    ``CachedMosaic`` and ``CachedMixUp`` mix images of a cache, which is then empty at the start of every epoch. It
    always is in data workers, which start anew with each epoch; so without workers an epoch is as with them. The price
    is a few images, 4 for the mosaic, that are not mixed.

    With workers nothing is kept: their transforms are copies, and what changes in this process was changed by a hook.
    Attributes and the contents of lists, dicts, sets and deques are restored; arrays that a transform writes into are
    not.

    Args:
        loader: Of the training, after the hooks that change its pipeline for the epoch.
    """

    def __init__(self, loader: DataLoader) -> None:
        parts = _transforms(loader.dataset) if loader.num_workers == 0 else ()
        seen: set[int] = set()
        self.kept = [(container, copy.copy(container)) for part in parts for container in _containers(vars(part), seen)]

    def restore(self) -> None:
        """Put everything back as it was."""
        for container, contents in self.kept:
            container.clear()
            if isinstance(container, list | deque):
                container.extend(contents)
            else:
                container.update(contents)


_OF_EVERY_MODULE = frozenset(vars(nn.Module()))


def _stateful_parts(model: nn.Module) -> Iterator[tuple[str, Any]]:
    registries = (TASK_UTILS, *TASK_UTILS.children.values())
    helpers = {kind for registry in registries for kind in registry.module_dict.values()}
    for name, module in model.named_modules():
        yield name, module
        for key, value in vars(module).items():
            if type(value) in helpers:
                yield f'{name}.{key}', value


def _plain_attributes(part: Any) -> dict[str, Any]:
    values = {key: _plain(value) for key, value in vars(part).items() if key not in _OF_EVERY_MODULE}
    return {key: value for key, value in values.items() if value is not _NOT_PLAIN}


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """A copy in Python's own types, which are also what is read safely from a checkpoint, or ``_NOT_PLAIN``."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (tuple, list):
        parts = [_plain(part) for part in value]
        return _NOT_PLAIN if any(part is _NOT_PLAIN for part in parts) else type(value)(parts)
    if type(value) is dict:
        keys, values = _plain(list(value)), _plain(list(value.values()))
        return _NOT_PLAIN if _NOT_PLAIN in (keys, values) else dict(zip(keys, values, strict=True))
    return _NOT_PLAIN


def _transforms(dataset: Any) -> Iterator[Any]:
    """Every transform, inner ones included, of a data set and of those that it wraps."""
    for wrapped in (getattr(dataset, 'dataset', None), *getattr(dataset, 'datasets', ())):
        if wrapped is not None:
            yield from _transforms(wrapped)
    yield from _inner_transforms(getattr(dataset, 'pipeline', None))


def _inner_transforms(part: Any) -> Iterator[Any]:
    if isinstance(part, list | tuple):
        for inner in part:
            yield from _inner_transforms(inner)
    elif hasattr(part, '__dict__'):
        yield part
        yield from _inner_transforms(getattr(part, 'transforms', None))


def _containers(value: Any, seen: set[int]) -> Iterator[Any]:
    if not isinstance(value, list | tuple | set | deque | dict) or id(value) in seen:
        return
    seen.add(id(value))
    if not isinstance(value, tuple):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        yield from _containers(inner, seen)


def _holds_iterator(value: Any) -> bool:
    if isinstance(value, list | tuple | dict):
        return any(_holds_iterator(inner) for inner in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, Iterator)


def _unwrap(model: BaseModel) -> BaseModel:
    return model.module if is_model_wrapper(model) else model
