"""Files that are whole or not there."""

from __future__ import annotations

import errno
import math
import os
import shutil
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the file, or leave what was there before: under another name first, then renamed.

    File and folder are synced, so that it also survives a loss of power.

    Raises:
        OSError: If it cannot be written; of a full disk the text says how much was wanted.
    """
    part, data = part_of(path), content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno in FULL:
            free = shutil.disk_usage(path.parent).free
            raise OSError(error.errno, f'{error.strerror}: disk full, {math.ceil(len(data) / 1e5) / 10} MB wanted for '
                                       f'{path}, {free / 1e6:.1f} MB are free') from error
        raise


def part_of(path: Path) -> Path:
    """The name under which it is written; a killed process leaves such a file."""
    return path.with_name(f'.{path.name}.part')


def check_writable(folder: Path, argument: str) -> None:
    """See that files can be written to a folder, which is made where it is not there: before the work, not after it.

    Raises:
        ValueError: If they cannot.
    """
    probe = part_of(folder / 'probe')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f'`{argument}` needs a folder that can be written, {folder} cannot: {error.strerror}.'
                         ) from error


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a loss of power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
