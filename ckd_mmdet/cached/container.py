"""The files of a cache: rows of tensors by image and view, in shards that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ckd_mmdet.files import write_whole
from mmengine.structures import BaseDataElement
from torch import Tensor

Key = tuple[str, str, int, int]
"""Of an image in one view: its id as text, how it is flipped (``''`` if it is not), its height and width in pixels."""
Record = dict[str, Tensor]
"""What is kept of an image in one view: rows by ``<part>/<field>``, shape ``(n, ...)`` each."""
STARTS = '/starts'


def key_of(sample: BaseDataElement) -> Key:
    """The image and view that a sample of a batch shows.

    Raises:
        RuntimeError: If its meta information does not say.
    """
    meta = sample.metainfo
    missing = [name for name in ('img_id', 'img_shape') if name not in meta]
    if missing:
        raise RuntimeError(f'expected each sample to have {" and ".join(missing)} among its meta information, which a '
                           'cached teacher is looked up by; add it to `meta_keys` of PackDetInputs')
    height, width = meta['img_shape'][:2]
    flip = meta.get('flip_direction') if meta.get('flip') else None
    return str(meta['img_id']), flip or '', int(height), int(width)


def shard_path(folder: Path, number: int) -> Path:
    """The file of a shard, counted from 0."""
    return folder / f'rows_{number:05d}.safetensors'


def write_shard(path: Path, records: Sequence[tuple[Key, Mapping[str, Tensor]]]) -> int:
    """Write a shard, or leave what was there before.

    The rows of all records stand one after the other in one tensor a field; ``<field>/starts``, of one more number than
    there are records, says where those of each begin.

    Args:
        path: Its file.
        records: By image and view; all have the same fields.

    Returns:
        Number of bytes.

    Raises:
        OSError: If it cannot be written; of a full disk the text says how much was wanted.
    """
    tensors: dict[str, Tensor] = {}
    for field in records[0][1] if records else ():
        rows = [record[field] for _, record in records]
        tensors[field] = torch.cat(rows).contiguous()
        tensors[field + STARTS] = torch.tensor([0, *map(len, rows)]).cumsum(0)
    content = safetensors().torch.save(tensors, {'keys': json.dumps([key for key, _ in records])})
    write_whole(path, content)
    return len(content)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, whole or not at all."""
    write_whole(path, safetensors().torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def load_tensors(path: Path) -> dict[str, Tensor]:
    """What :func:`save_tensors` wrote.

    Raises:
        ValueError: If the file is not there, or truncated.
    """
    file = open_whole(path)
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict


class Shards:
    """Reads shards, each mapped into memory: what is not asked for is not read.

    Args:
        folder: That of the cache.
        count: How many there must be.

    Raises:
        ValueError: If some are missing or truncated.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        missing = [number for number in range(count) if not shard_path(folder, number).is_file()]
        if missing:
            raise ValueError(f'`teacher.cache` needs a whole cache, and {folder} lacks {len(missing)} of its {count} '
                             'shards: its writing was stopped. Run the same tools/cache_teacher.py again: it goes on '
                             'where it stopped.')
        self.files = [open_whole(shard_path(folder, number)) for number in range(count)]
        self.places = {tuple(key): (number, place) for number, file in enumerate(self.files)
                       for place, key in enumerate(_keys(file))}

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, key: Key) -> bool:
        return key in self.places

    def keys(self) -> Iterator[Key]:
        """Of every image and view that it has."""
        return iter(self.places)

    def read(self, key: Key) -> Record:
        """What is kept of an image in a view, on the CPU.

        Raises:
            KeyError: If nothing is.
        """
        number, place = self.places[key]
        file, record = self.files[number], {}
        for name in file.keys():  # noqa: SIM118
            if not name.endswith(STARTS):
                start, end = file.get_slice(name + STARTS)[place:place + 2].tolist()
                record[name] = file.get_slice(name)[start:end]
        return record


def _keys(file: Any) -> list[list]:
    found: list[list] = json.loads(file.metadata()['keys'])
    return found


def open_whole(path: Path) -> Any:
    """A safetensors file, mapped into memory.

    Raises:
        ValueError: If it is not there, or truncated.
    """
    try:
        return safetensors().safe_open(str(path), framework='pt')
    except (FileNotFoundError, safetensors().SafetensorError) as error:
        raise ValueError(f'`teacher.cache` needs whole files, and {path} is not: {error}. Remove it and run the same '
                         'tools/cache_teacher.py again: it writes that file anew.') from error


def safetensors() -> Any:
    """The package, imported when a cache is used.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import safetensors as package
        import safetensors.torch
    except ImportError as error:
        raise ValueError('a cached teacher needs the package safetensors, which is not installed; run `pip install '
                         'safetensors`, or install ckd_mmdet with its extra `cache`.') from error
    return package
