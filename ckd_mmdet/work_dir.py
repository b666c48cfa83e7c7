"""A work dir belongs to one training: none overwrites what another left, and no two work in it at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ckd_mmdet.files import check_writable
from ckd_mmdet.lock import locked, release
from ckd_mmdet.saving import NOTES
from ckd_mmdet.text import few
from mmengine.config import Config

LOCK = '.training'
"""The file that a training locks; it stays when the training ends."""
LEFT = ('last_checkpoint', 'epoch_*.pth', 'iter_*.pth', 'best_*.pth', 'student*.pth')
"""What a training leaves and the next one would overwrite, or resume from."""
RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
"""Where launchers say which of several processes this is."""


@contextmanager
def held(cfg: Config) -> Iterator[None]:
    """Keep a second training out of a config's ``work_dir``; of several processes of one training the first does so.

    The lock is the system's: it ends with the process, however that ends, and not before. A training that outlives its
    launcher keeps it.

    Raises:
        ValueError: If another training works there, or the folder cannot be written.
    """
    if not is_first(cfg):
        yield
        return
    folder = Path(cfg.work_dir)
    check_writable(folder, '--work-dir')

    def refusal(holder: str) -> Exception:
        return ValueError(f'another training works in {folder}, or is left from a launcher that has died (process '
                          f'{holder}). Wait for its end, end it, or give another `--work-dir`.')

    with locked(folder / LOCK, refusal) as lock:
        try:
            yield
        finally:
            release(lock)  # data workers may still hold the file open


def refuse_a_training(cfg: Config, *, overwrite: bool) -> None:
    """Refuse to train anew in a ``work_dir`` where a training has left checkpoints, unless they may go.

    Raises:
        ValueError: If there are some.
    """
    if overwrite or not is_first(cfg):
        return
    left = _left(cfg.work_dir)
    if left:
        names = few((path.name for path in left), 3, total=False)
        raise ValueError(f'`--work-dir` needs a folder without a training, {cfg.work_dir} holds one ({names}). Go on '
                         'with it by `--resume`, give another `--work-dir`, or train anew in its place with '
                         '`--overwrite`.')


def remove_training(cfg: Config) -> None:
    """Remove the checkpoints of an earlier training in the ``work_dir``; logs stay.

    Those that a new, shorter training does not replace would be taken for its own by ``--resume``.
    """
    if is_first(cfg):
        for path in (*_left(cfg.work_dir), Path(cfg.work_dir, NOTES)):
            path.unlink(missing_ok=True)


def _left(work_dir: str | Path) -> list[Path]:
    return sorted(path for pattern in LEFT for path in Path(work_dir).glob(pattern) if path.is_file())


def is_first(cfg: Config) -> bool:
    """Whether this is the first, or the only, process of a training."""
    ranks = (os.environ[name] for name in RANKS if name in os.environ)
    return cfg.get('launcher', 'none') == 'none' or next(ranks, '0') == '0'
