"""The digests by which commands know what their files were made of."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ckd_mmdet.files import write_whole
from mmengine.config import Config

__all__ = ['digest', 'digest_file', 'write_whole']


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
