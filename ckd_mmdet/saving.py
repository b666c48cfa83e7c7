"""Saving without a moment at which a kill or a full disk loses the run, and finding what is whole afterwards.

MMEngine's ``CheckpointHook`` removes the old checkpoint, writes the new one in place, then ``last_checkpoint``. With
:func:`make_saving_atomic` the new one is written beside and renamed, then ``last_checkpoint`` likewise, and only then
the old one is removed.
"""

from __future__ import annotations

import itertools
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from ckd_mmdet.compat.loading import MALFORMED
from ckd_mmdet.files import part_of, sync_folder, write_whole
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

BACKEND = 'ckd_mmdet.whole_files'
LAST = 'last_checkpoint'
NOTES = '.to_be_removed'


@dataclass
class Unfinished:
    """What the current save of a run has left to do.

    Args:
        notes: A file that keeps ``remove`` between the writing and the removal, for the run that goes on after a kill.
        folders: Where the run saves, and may remove; resumed elsewhere, it leaves what another folder has.
    """

    notes: Path
    folders: frozenset[Path] = frozenset()
    saved: bool = False
    remove: list[Path] = field(default_factory=list)


@register_backend(BACKEND, force=True)
class WholeFiles(LocalBackend):
    """Writes files whole or not at all, and only notes what is to be removed.

    Args:
        run: Which run's; :class:`FinishSaving` of the same run removes the files.
    """

    unfinished: ClassVar[dict[str, Unfinished]] = {}  # mmengine makes a new backend for every file it writes

    def __init__(self, run: str) -> None:
        self.run = self.unfinished[run]

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file.

        Raises:
            OSError: If it cannot be written; what was there before is there still.
        """
        path = Path(filepath)
        self.run.remove = [old for old in self.run.remove if old != path]
        if self.run.remove:  # before the file, which a kill may follow; they are followed when a file is whole
            write_whole(self.run.notes, '\n'.join(map(str, self.run.remove)))
        write_whole(path, obj)
        self.run.saved = True

    def remove(self, filepath: str | Path) -> None:
        """Note a file to be removed when the save is finished, if it is one of the run's own."""
        if Path(filepath).resolve().parent in self.run.folders:
            self.run.remove.append(Path(filepath))


class FinishSaving(Hook):
    """Writes ``last_checkpoint`` anew, whole, and then removes the checkpoints that are not kept."""

    priority = 'LOWEST'  # after CheckpointHook's

    def __init__(self, run: str) -> None:
        self.run = run

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        self.finish(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self.finish(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.finish(runner)

    def after_train(self, runner: Runner) -> None:
        # a run that was killed in its last save, and is resumed from it, saves no more
        unfinished = WholeFiles.unfinished[self.run]
        resumed = Path(runner._load_from) if runner._resume and runner._load_from else None
        if unfinished.notes.exists() and resumed and resumed.parent.resolve() == Path(runner.work_dir).resolve():
            unfinished.remove = [old for old in unfinished.remove if old.resolve() != resumed.resolve()]
            if is_main_process():
                write_whole(Path(runner.work_dir, LAST), str(resumed))
            unfinished.saved = True
            self.finish(runner)

    def finish(self, runner: Runner) -> None:
        """Do what is left to do, which after most steps is nothing.

        Raises:
            OSError: If ``last_checkpoint`` cannot be written; nothing is removed then.
        """
        unfinished = WholeFiles.unfinished[self.run]
        if not unfinished.saved or not is_main_process():
            return
        last = Path(runner.work_dir, LAST)
        if last.exists():
            write_whole(last, last.read_bytes())
        unfinished.saved = False
        while unfinished.remove:
            old = unfinished.remove.pop()
            old.unlink(missing_ok=True)
            sync_folder(old.parent)
        unfinished.notes.unlink(missing_ok=True)


_numbers = itertools.count()


def make_saving_atomic(runner: Runner) -> None:
    """Let every ``CheckpointHook`` that saves on this disk write whole files; call it in ``before_run`` or earlier.

    A hook with a storage of its own (another ``backend_args``, an ``out_dir`` with ``://``) is left as it is. Calling
    it again changes nothing.
    """
    run = f'{runner.work_dir}:{next(_numbers)}'
    ours = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and _is_local(hook)]
    if not ours:
        return
    notes = Path(runner.work_dir, NOTES)
    remove = [Path(line) for line in notes.read_text().splitlines()] if notes.exists() else []
    folders = frozenset(_folder(hook, runner).resolve() for hook in ours)
    WholeFiles.unfinished[run] = Unfinished(notes, folders, remove=remove)
    for hook in ours:
        hook.file_client_args, hook.backend_args = None, dict(backend=BACKEND, run=run)
        for part in _parts(hook, runner):
            part.unlink(missing_ok=True)
    runner.register_hook(FinishSaving(run))


def _is_local(hook: CheckpointHook) -> bool:
    storage = hook.backend_args or hook.file_client_args or {}
    return '://' not in str(hook.out_dir or '') and storage in ({}, dict(backend='local'), dict(backend='disk'))


def _folder(hook: CheckpointHook, runner: Runner) -> Path:
    return Path(hook.out_dir, Path(runner.work_dir).name) if hook.out_dir else Path(runner.work_dir)


def _parts(hook: CheckpointHook, runner: Runner) -> Iterator[Path]:
    """Files that a killed run was writing."""
    if is_main_process():
        yield from _folder(hook, runner).glob(str(part_of(Path('*.pth'))))
        yield from (part_of(Path(runner.work_dir, name)) for name in (LAST, NOTES, 'student.py'))


@dataclass(frozen=True)
class Outline:
    """What a checkpoint holds, its tensors unread."""

    keys: frozenset[str]
    epoch: int
    iter: int


def newest_whole_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint from which a run goes on: the newest that can be resumed from, or ``None``.

    MMEngine goes by ``last_checkpoint`` alone, which a kill can leave empty, or naming a file that is cut off or
    removed. Where the newest whole one is not the one that it names, a line says so, and why.
    """
    work_dir = Path(work_dir)
    named, complaint = _named(work_dir)
    found = {path: outline for folder in {work_dir, named.parent if named else work_dir}
             for path in _newest(folder) if (outline := read_outline(path))}
    # of two that are as far, the one that mmengine named
    newest = max(found, key=lambda path: (found[path].iter, found[path].epoch, path == named), default=None)
    if newest is not None and newest != named:
        print_log(f'{complaint or f"{named} is not the newest"}: the newest whole checkpoint is {newest}.',
                  logger='current')
    return newest


def checkpoint_to_resume(work_dir: str | Path) -> Path | None:
    """For ``--resume``: the newest whole checkpoint, or ``None`` where none was ever saved.

    Raises:
        ValueError: If there are checkpoints, but none to resume from.
    """
    newest = newest_whole_checkpoint(work_dir)
    if newest is not None:
        return newest
    others = sorted(path.name for series in ('epoch_*.pth', 'iter_*.pth') for path in Path(work_dir).glob(series))
    if others:
        raise ValueError(f'`--resume` needs a whole checkpoint in {work_dir}, and none of {", ".join(others[:5])} is: '
                         'they are cut off, or were saved without the state of the optimizer. Name a checkpoint, or '
                         'move them away to train from the start.')
    print_log(f'{work_dir} has no checkpoint to resume from: the training starts from the start.', logger='current')
    return None


def is_whole(checkpoint: Path) -> bool:
    """Whether a run can be resumed from the file: complete, with weights and the optimizer's state."""
    return read_outline(checkpoint) is not None


def read_outline(checkpoint: Path) -> Outline | None:
    """What a training checkpoint holds, without its tensors; ``None`` if it is not whole, or none to resume from.

    Nothing in the file is run: whatever it names is nobody's object here.
    """
    try:
        with zipfile.ZipFile(checkpoint) as archive:  # its directory is at the end of the file
            name = next(name for name in archive.namelist() if name.endswith('/data.pkl'))
            with archive.open(name) as file:
                loaded = _OutlineUnpickler(file).load()
        meta = loaded['meta']
        outline = Outline(frozenset(loaded), int(meta['epoch']), int(meta['iter']))
    except (*MALFORMED, StopIteration):
        return None
    return outline if {'state_dict', 'optimizer'} <= outline.keys else None


def _named(work_dir: Path) -> tuple[Path | None, str]:
    """The whole checkpoint that ``last_checkpoint`` names, or why there is none."""
    last = work_dir / LAST
    if not last.exists():
        return None, f'{last} is missing'
    text = last.read_text(errors='replace').strip()
    if not text:
        return None, f'{last} is empty'
    # a copied work dir names the other's files
    candidates = [path for path in (work_dir / Path(text).name, Path(text)) if path.is_file()]
    if not candidates:
        return None, f'{last} names {text!r}, which is not there'
    whole = next((path for path in candidates if is_whole(path)), None)
    return whole, '' if whole else f'{last} names {candidates[0]}, which is cut off or has no optimizer state'


def _newest(folder: Path) -> Iterator[Path]:
    """Of each series of checkpoints in a folder (``epoch_{}.pth``, ``iter_{}.pth``) the newest whole one."""
    series: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob('*.pth'):
        numbers = re.findall(r'\d+', path.stem)
        series.setdefault(re.sub(r'\d+', '{}', path.stem), []).append((int(numbers[-1]) if numbers else 0, path))
    for paths in series.values():
        whole = next((path for _, path in sorted(paths, reverse=True) if is_whole(path)), None)
        if whole is not None:
            yield whole


class _Nothing(dict):
    """Stands for any object of a pickle; takes every state, argument and element."""

    def __init__(self, *args: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    extend = add = append


class _OutlineUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return OrderedDict if (module, name) == ('collections', 'OrderedDict') else _Nothing

    def persistent_load(self, pid: Any) -> None:
        return None  # a storage
