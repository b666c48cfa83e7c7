"""The header of a cache: whose answers these are, to which images, and how they were made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ckd_mmdet.files import write_whole

FORMAT = 1
"""Of the files; raised when an older reader would misunderstand them."""
IMAGES_A_SHARD = 64
"""A killed run loses the work on so many images at most."""


@dataclass(frozen=True)
class Header:
    """What a cache says of itself, in ``header.json``."""

    teacher: str = field(compare=False)
    """Its name: the config, or the file of predictions."""
    checkpoint: str = field(compare=False)
    digest: str
    """SHA-256 of its weights, or of the file of predictions."""
    checkpoint_digest: str
    """SHA-256 of the checkpoint's file, ``''`` where it was none."""
    classes: list[str] | None
    """The teacher's, in the order of its scores."""
    preprocessing: dict | None
    """Of the student's inputs: mean, std, channels, padding; ``None`` where no model saw them."""
    pipeline: list
    """The transforms that the teacher's images went through, without those that choose a view."""
    views: list
    """The choices that a view is made of, one list a view."""
    images: int
    images_digest: str
    parts: dict[str, dict]
    """What is kept, by name; how each is scored and numbered."""
    format: int = FORMAT
    images_a_shard: int = IMAGES_A_SHARD
    written_by: str = field(default='', compare=False)

    @property
    def shards(self) -> int:
        """Number of shards of a whole cache."""
        return -(-self.images // self.images_a_shard)

    def write(self, folder: Path) -> None:
        """Write it, or leave what was there before."""
        write_whole(folder / 'header.json', json.dumps(dataclasses.asdict(self), indent=1) + '\n')

    @classmethod
    def read(cls, folder: Path) -> Header:
        """Read that of a cache.

        Raises:
            ValueError: If the folder holds none, or one that this version cannot read.
        """
        path = folder / 'header.json'
        if not path.is_file():
            raise ValueError(f'`teacher.cache` needs a folder that tools/cache_teacher.py wrote, and {folder} has no '
                             'header.json.')
        try:
            found = json.loads(path.read_text())
            if found['format'] != FORMAT:
                raise ValueError(f'`teacher.cache` needs files of format {FORMAT}, and {folder} has format '
                                 f'{found["format"]}; write the cache anew with this version of ckd_mmdet.')
            return cls(**found)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f'`teacher.cache` needs a whole header, and {path} is not: {error}; write the cache anew '
                             'in an empty folder.') from error

    def check_continues(self, other: Header, folder: Path) -> None:
        """Refuse to go on with a cache that was begun otherwise.

        Args:
            other: Of what is to be written now.
            folder: Where this one stands.

        Raises:
            ValueError: If they differ; the text names in what.
        """
        said = {name: (_short(value), _short(getattr(other, name))) for name, value in
                ((one.name, getattr(self, one.name)) for one in dataclasses.fields(self) if one.compare)
                if value != getattr(other, name)}
        if said:
            what, (theirs, ours) = next(iter(said.items()))
            raise ValueError(f'`--out` needs an empty folder, or a cache that this run continues, and the cache in '
                             f'{folder} has another `{what}`, {theirs} and not {ours}; give another folder.')


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:120] + '...'


def digest_of_images(ids: Iterable[str]) -> str:
    """SHA-256 of the images' ids, in any order."""
    return hashlib.sha256('\n'.join(sorted(ids)).encode()).hexdigest()
