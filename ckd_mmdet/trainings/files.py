"""Files that are whole or not there, and the digests by which commands know what they were made of."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mmengine.config import Config


def write_whole(path: Path, content: str | bytes) -> None:
    """Write the file, or leave what was there before: under another name first, then renamed.

    Raises:
        OSError: If it cannot be written, for one because the disk is full.
    """
    part = path.with_name(f'.{path.name}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, 'wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def digest_file(path: Path) -> str:
    """The first 16 digits of the SHA-256 of its bytes."""
    sha = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 24):
            sha.update(chunk)
    return sha.hexdigest()[:16]


def digest(value: Any) -> str:
    """The first 16 digits of the SHA-256 of its JSON."""
    text = json.dumps(value.to_dict() if isinstance(value, Config) else value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
