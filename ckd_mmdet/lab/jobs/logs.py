"""What mmengine's runs leave: logged scalars and checkpoints, of which the last may be cut off."""

from __future__ import annotations

import json
from pathlib import Path

from ckd_mmdet.saving import is_whole


def scalar_files(work_dir: Path) -> list[Path]:
    """mmengine's logs of the run, one each time it was started, oldest first."""
    return sorted(work_dir.glob('*/vis_data/scalars.json'))


def read_records(path: Path) -> list[dict]:
    """The JSON objects of a file with one a line; lines that are none are left out."""
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # the last line of a run that was killed, or that is writing now
            continue
    return [record for record in found if isinstance(record, dict)]


def whole_epochs(work_dir: Path) -> list[int]:
    """The epochs that have a checkpoint ``epoch_<n>.pth`` to resume from, in order.

    A run that is killed while it writes a checkpoint may leave a part of a file.
    """
    return sorted(int(path.stem.removeprefix('epoch_')) for path in work_dir.glob('epoch_*.pth') if is_whole(path))
