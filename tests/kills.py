"""Kill a training at many moments, resume it, and see that it ends as one that was never stopped.

``python -m tests.kills`` trains a toy detector with CKD and EMA over three epochs, of which the second is the best, and
keeps one checkpoint. A first run counts its moments: every step of training, of validation and of a save (each file
opened, half written, synced, renamed, removed). Then each moment is tried: a process of its own is killed by SIGKILL
there, another resumes, and all that it leaves has to be equal, to the last bit.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401
import mmengine.hooks.checkpoint_hook as theirs
import pytest
import torch
from ckd_mmdet import files
from ckd_mmdet.saving import checkpoint_to_resume
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from mmengine.runner import Runner

SCORES = (1.0, 3.0, 2.0)
"""Of the epochs."""
LAST = len(SCORES)
Make = Callable[[Path, Path | None, Hook], Runner]
"""Makes the runner of a work dir that resumes from a checkpoint, or from none, with a hook more."""


@dataclass
class Moments(Hook):
    """Counts the moments of a run, and dies at one of them.

    Args:
        at: Number of the moment, from 0; ``None`` only counts.
        die: What happens then.
    """

    at: int | None = None
    die: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)
    names: list[str] = field(default_factory=list)
    priority = 'VERY_LOW'

    def tick(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) - 1 == self.at:
            self.die()

    def before_train(self, runner: Runner) -> None:
        self.tick('before training')

    def after_train_iter(self, runner: Runner, *unused: object, **unused_too: object) -> None:
        self.tick(f'step {runner.iter + 1}')

    def before_val_epoch(self, runner: Runner) -> None:
        EpochScore.epoch = runner.epoch
        self.tick(f'before validation {runner.epoch}')

    def after_val_iter(self, runner: Runner, batch_idx: int, *unused: object, **unused_too: object) -> None:
        self.tick(f'validation {runner.epoch}, step {batch_idx + 1}')

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.tick(f'after validation {runner.epoch}')

    def after_train(self, runner: Runner) -> None:
        self.tick('after training')

    @contextmanager
    def of_files(self) -> Iterator[None]:
        """Count what happens to files, too."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, 'open', self._opening(open), raising=False)
            patch.setattr(theirs, 'open', self._opening(open), raising=False)
            # seconds of every run, for what nobody reads here: versions of compilers, the layout of the config
            patch.setattr(Runner, '_log_env', lambda *unused: None)
            patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **options: (text, False))
            for owner, name in ((os, 'replace'), (os, 'fsync'), (Path, 'unlink')):
                patch.setattr(owner, name, self._around(getattr(owner, name), name))
            yield

    def _around(self, do: Callable, name: str) -> Callable:
        def doing(*arguments: Any, **options: Any) -> Any:
            what = os.readlink(f'/proc/self/fd/{arguments[0]}') if name == 'fsync' else str(arguments[-1])
            what = Path(what).name
            if name == 'unlink' and not arguments[0].exists():
                return do(*arguments, **options)
            self.tick(f'before {name} of {what}')
            result = do(*arguments, **options)
            self.tick(f'after {name} of {what}')
            return result

        return doing

    def _opening(self, do: Callable) -> Callable:
        def opening(path: Any, mode: str = 'r', *arguments: Any, **options: Any) -> Any:
            if 'w' not in mode:
                return do(path, mode, *arguments, **options)
            self.tick(f'before opening {Path(path).name}')
            file = do(path, mode, *arguments, **options)
            self.tick(f'empty {Path(path).name}')
            write = file.write

            def in_halves(data: Any) -> int:
                write(data[:len(data) // 2])
                file.flush()
                self.tick(f'half of {Path(path).name}')
                return write(data[len(data) // 2:])

            return _Writing(file, in_halves)

        return opening


class _Writing:
    """A file with another ``write``."""

    def __init__(self, file: Any, write: Callable) -> None:
        self.file, self.write = file, write

    def __enter__(self) -> _Writing:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@METRICS.register_module(force=True)
class EpochScore(BaseMetric):
    """The scores above, whatever was predicted."""

    epoch = 0

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(acc=SCORES[self.epoch - 1])


def train(make: Make, folder: Path, moments: Moments) -> None:
    """Train in a folder, from its newest checkpoint if it has one."""
    with moments.of_files():
        found = checkpoint_to_resume(folder) if folder.exists() else None
        make(folder, found, moments).train()


def faults(whole: Path, resumed: Path) -> list[str]:
    """What the two folders do not have in common, in words."""
    ours, theirs_ = ({path.name: path for path in folder.glob('*.pth')} for folder in (resumed, whole))
    told = [f'files {sorted(ours)} instead of {sorted(theirs_)}'] if ours.keys() != theirs_.keys() else []
    left = [path.name for path in resumed.iterdir() if path.name.endswith('.part')]
    told += [f'left over: {", ".join(left)}'] if left else []
    for name in ours.keys() & theirs_.keys():
        pair = [_content(torch.load(path, weights_only=False)) for path in (ours[name], theirs_[name])]
        told += [f'{name}: {key} differs' for key in pair[1] if not _equal(pair[0].get(key), pair[1][key])]
    if (resumed / 'last_checkpoint').read_text() != str(resumed / f'epoch_{LAST}.pth'):
        told.append('last_checkpoint names another file')
    return told


def _content(checkpoint: dict) -> dict[str, Any]:
    """What has to be equal: all but times, paths and the message hub's averages."""
    info = checkpoint.pop('message_hub', {}).get('runtime_info', {})
    meta = {key: checkpoint.get('meta', {}).get(key) for key in ('epoch', 'iter', 'dataset_meta')}
    return {**checkpoint, 'meta': meta, 'best_score': info.get('best_score'), 'kept': info.get('keep_ckpt_ids'),
            'best': Path(info.get('best_ckpt', '')).name}


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)


# the command

def detector(data: Path, teacher: dict) -> Make:
    """Runs of a toy Faster R-CNN with CKD and EMA."""
    from tests.small_runs import distilled, run_config, student_config

    def make(folder: Path, resume: Path | None, hook: Hook) -> Runner:
        from ckd_mmdet.config import add_hook

        cfg = run_config(distilled(student_config(), teacher), data, folder, epochs=LAST, ema=True)
        cfg.val_evaluator = dict(type='EpochScore')
        cfg.default_hooks.checkpoint.update(save_best='acc', rule='greater', max_keep_ckpts=1)
        cfg.load_from, cfg.resume, cfg.log_level = resume and str(resume), resume is not None, 'ERROR'
        add_hook(cfg)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(hook)
        return runner

    return make


def in_a_process(work: Callable[[], None], log: Path) -> int:
    """How a copy of this process ended that did some work: 0, or minus the signal."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(log, 'a') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        work()
    except BaseException:  # this process ends here, whatever it was
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def try_moment(make: Make, whole: Path, folder: Path, at: int) -> list[str]:
    """Kill at a moment and resume; what is wrong then, in words."""
    log = folder.with_suffix('.log')
    died = in_a_process(lambda: train(make, folder, Moments(at)), log)
    if died != -signal.SIGKILL:
        return [f'it ended with {died} instead of being killed ({log})']
    ended = in_a_process(lambda: train(make, folder, Moments()), log)
    return faults(whole, folder) if ended == 0 else [f'resumed, it ended with {ended} ({log})']


def shared_out(work: Callable[[Sequence[int]], int], parts: Sequence[Sequence[int]]) -> int:
    """The sum of what copies of this process return, each of which works on a part."""
    pipes = [os.pipe() for _ in parts]
    for part, (_, write) in zip(parts, pipes, strict=True):
        if os.fork() == 0:
            os.write(write, bytes([min(work(part), 255)]))
            os._exit(0)
        os.close(write)
    answers = [os.read(read, 1) for read, _ in pipes]
    if not all(answers):
        sys.exit('a part of the moments ended early; its error stands above.')
    return sum(answer[0] for answer in answers)


def chosen(names: Sequence[str], most: int) -> list[int]:
    """Moments at even distances, beside all of the last two saves."""
    saves = [i for i, name in enumerate(names) if '.pth' in name or 'last_checkpoint' in name]
    keep = {i for i in saves if any(f'_{epoch}.pth' in names[i] for epoch in (2, LAST))}
    return sorted(keep | {i * len(names) // most for i in range(most)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--every', action='store_true', help='every moment, not just those of two saves and 20 more')
    parser.add_argument('--workers', type=int, default=1, help='moments that are tried at the same time')
    args = parser.parse_args()
    torch.set_num_threads(1)  # a copy of this process has no other threads
    from ckd_mmdet.lab.datasets.digit_scenes import make_digit_scenes
    from ckd_mmdet.lab.datasets.digit_sources import CLASSES

    from tests.small_runs import student_config
    from tests.toys import saved_teacher

    with tempfile.TemporaryDirectory() as temporary:
        folder, started = Path(temporary), time.monotonic()
        data = make_digit_scenes(folder / 'data', train=16, val=4, size=64)
        config = student_config()
        make = detector(data, dict(config=config, checkpoint=saved_teacher(folder, config, classes=CLASSES)))
        listed = folder / 'moments.txt'

        with Moments().of_files():
            make(folder / 'warm', None, Moments())  # what it imports, its copies have

        def whole() -> None:
            moments = Moments()
            train(make, folder / 'whole', moments)
            listed.write_text('\n'.join(moments.names))

        if in_a_process(whole, folder / 'whole.log'):
            sys.exit((folder / 'whole.log').read_text())
        names = listed.read_text().splitlines()
        wanted = list(range(len(names))) if args.every else chosen(names, 20)

        def try_all(moments: Sequence[int]) -> int:
            wrong = 0
            for at in moments:
                told = try_moment(make, folder / 'whole', folder / f'killed_{at}', at)
                wrong += bool(told)
                print(f'{at:4} {names[at]}: {"; ".join(told) or "equal"}', flush=True)
                if told and (log := folder / f'killed_{at}.log').exists():
                    print('     ' + '\n     '.join(log.read_text().splitlines()[-5:]))
            return wrong

        wrong = shared_out(try_all, [wanted[place::args.workers] for place in range(args.workers)])
        kinds = Counter('a save' if '.p' in names[at] or 'last_ch' in names[at] or '.to_be' in names[at] else
                        'training or validation' for at in wanted)
        print(f'{len(wanted)} of {len(names)} moments ({", ".join(f"{n} in {kind}" for kind, n in kinds.items())}): '
              f'{len(wanted) - wrong} resumed and ended equal, {wrong} did not; '
              f'{time.monotonic() - started:.0f} s.')
    sys.exit(bool(wrong))


if __name__ == '__main__':
    main()
