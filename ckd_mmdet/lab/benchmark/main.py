"""Measure everything, and say it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from ckd_mmdet.teacher import build_model, read_teacher_config
from mmengine.registry import init_default_scope
from tqdm import tqdm

from .measure import Spread, measure_checkpoints, measure_memory, measure_seconds
from .steps import Setting, Steps, read_distilled
from .variants import VARIANTS


@contextmanager
def _with_teacher_weights(setting: Setting) -> Iterator[Setting]:
    """The setting with a teacher's checkpoint: the given one, or random weights in a file for as long as needed."""
    if setting.teacher_checkpoint:
        yield setting
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'random_teacher.pth')
        init_default_scope('mmdet')
        torch.save(build_model(read_teacher_config(read_distilled(setting).model.teacher.config)).state_dict(), path)
        yield dataclasses.replace(setting, teacher_checkpoint=path)


def benchmark(setting: Setting, memory: bool = True) -> dict:
    """Measure everything.

    Returns:
        What the JSON file holds: ``setting``, ``machine``, ``rows`` (of a step), their ``kind``, ``seconds`` and
        ``ratios`` (a :class:`Spread` each; a ratio is taken within each round), ``peak_memory_mb`` (``None`` unless
        ``memory``; not of a cached teacher, whose cache is written in the same process)
        and ``checkpoint_mb``.

    Raises:
        ValueError: If the setting or its config is unfit.
    """
    torch.manual_seed(0)
    with _with_teacher_weights(setting) as filled:
        steps = Steps(filled)
        rows, seconds = steps.count_rows(), measure_seconds(steps, setting.rounds, setting.warm_up)
        checkpoints = measure_checkpoints(steps.student)
        peaks = {name: measure_memory(filled, name) for name in tqdm(steps.variants, 'memory')
                 if not VARIANTS[name].cached} if memory else None
    return dict(
        setting=dataclasses.asdict(setting), rows=rows, kind=steps.kind, machine=_machine(torch.device(setting.device)),
        seconds={name: dataclasses.asdict(Spread.of(values)) for name, values in seconds.items()},
        ratios={f'{upper}/{lower}': dataclasses.asdict(Spread.of(_ratios(seconds[upper], seconds[lower])))
                for upper, lower in _compared(seconds)},
        peak_memory_mb=peaks, checkpoint_mb=checkpoints)


def _compared(names: Collection[str]) -> list[tuple[str, str]]:
    """Which variants are set against which."""
    pairs = [('live', 'floor'), ('released_order', 'live'), *((name, 'alone') for name in names if name != 'alone')]
    return [pair for pair in pairs if set(pair) <= set(names)]


def _ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(upper, lower, strict=True)]


def _machine(device: torch.device) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    return dict(device=name, threads=torch.get_num_threads(), torch=torch.__version__)


def table(report: dict) -> str:
    """What :func:`benchmark` gave, for people."""
    setting, machine = report['setting'], report['machine']
    peaks = report['peak_memory_mb'] or {}
    rows = f"RoIs ({setting['proposals']} proposals)" if report['kind'] == 'RoIs' else 'anchors'
    lines = [
        f"{setting['config']}: {setting['batch']} images of {setting['size'][0]}x{setting['size'][1]}, "
        f"{report['rows']} {rows}, {'AMP' if setting['amp'] else 'float32'}",
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {setting['rounds']} rounds",
        '',
        f'{"seconds a step":24}{"median":>9}{"min":>9}{"max":>9}{"IQR":>9}   peak allocated MB']
    for name, spread in report['seconds'].items():
        peak = f'{peaks[name]:.0f}' if name in peaks else '-'
        lines.append(_row(name, spread) + f'{peak:>20}')
    lines += ['', f'{"ratio within a round":24}{"median":>9}{"min":>9}{"max":>9}{"IQR":>9}']
    lines += [_row(name, spread) for name, spread in report['ratios'].items()]
    sizes = ', '.join(f'{name} {size:.1f}' for name, size in report['checkpoint_mb'].items())
    return '\n'.join([*lines, '', f'weights in a checkpoint, MB: {sizes}'])


def _row(name: str, spread: dict) -> str:
    return f'{name:24}' + ''.join(f'{spread[key]:9.3f}' for key in ('median', 'min', 'max', 'iqr'))


def markdown(report: dict) -> str:
    """The same as a Markdown table: seconds a step, how many times those of the student alone, and memory."""
    peaks = report['peak_memory_mb'] or {}
    lines = ['| | s a step | quartiles apart | x alone | quartiles apart | peak MB |', '|---|---|---|---|---|---|']
    for name, spread in report['seconds'].items():
        ratio = report['ratios'].get(f'{name}/alone')
        times = f'{ratio["median"]:.2f} | {ratio["iqr"]:.2f}' if ratio else '1 | ' if name == 'alone' else ' | '
        peak = f'{peaks[name]:.0f}' if name in peaks else ''
        lines.append(f'| {name} | {spread["median"]:.3f} | {spread["iqr"]:.3f} | {times} | {peak} |')
    return '\n'.join(lines)
