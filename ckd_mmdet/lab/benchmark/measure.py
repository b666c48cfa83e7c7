"""Seconds, memory and checkpoint sizes."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from .steps import Setting, Steps
from .variants import teacher_of

MEMORY_STEPS = 2
"""The first makes the optimizer's state, the second holds it throughout."""


@dataclass(frozen=True)
class Spread:
    """Median and spread of what the rounds gave."""

    median: float
    min: float
    max: float
    iqr: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = (statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1
                             else [values[0]] * 3)
        return cls(median, min(values), max(values), high - low)


def measure_seconds(steps: Steps, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each variant's steps, one a round, the order rotated from round to round."""
    names = list(steps.variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in tqdm(range(-warm_up, rounds), 'rounds'):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = steps(name, seed=turn + warm_up)
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def measure_memory(setting: Setting, variant: str) -> float:
    """Peak MB that PyTorch allocates in a process that does nothing but a few steps of one variant.

    Weights, gradients and the optimizer's state count, the Python process and its libraries do not. What the process
    holds resident is no measure on the CPU: from run to run it differs by hundreds of MB, as the allocator
    of the C library happens to keep pages.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
        return process.submit(_peak_memory, setting, variant).result()


def _peak_memory(setting: Setting, variant: str) -> float:
    on_gpu = setting.device.startswith('cuda')
    with nullcontext() if on_gpu else profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        steps = Steps(dataclasses.replace(setting, variants=(variant,)))
        for seed in range(MEMORY_STEPS):
            steps(variant, seed)
    peak = torch.cuda.max_memory_allocated(steps.device) if on_gpu else _peak_allocated(profiled)
    return peak / 2**20


def _peak_allocated(profiled: profile) -> int:
    """Bytes; the trace has an event for each block that PyTorch allocates or frees, with the sum since the start."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    return max(event['args']['Total Allocated'] for event in events if event['name'] == '[memory]')


def measure_checkpoints(student: nn.Module) -> dict[str, float]:
    """MB of the weights in a checkpoint: the distilled training's, the plain student's, and student with teacher."""
    teacher = {f'teacher.{key}': value for key, value in teacher_of(student).model.state_dict().items()}
    learned = {f'{name}.{key}': value for name, state in student.distillation.state().items()
               for key, value in state.items()}
    weights = student.state_dict()
    return dict(distilled=_megabytes({**weights, **learned}), student=_megabytes(weights),
                student_and_teacher=_megabytes({**weights, **teacher}))


def _megabytes(weights: dict[str, Tensor]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'checkpoint.pth')
        torch.save(dict(state_dict=weights), path)
        return os.path.getsize(path) / 2**20
