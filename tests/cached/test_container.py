"""The files of a cache: what is written comes back, and what is not whole is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from ckd_mmdet.cached.container import Key, Record, Shards, key_of, shard_path, write_shard
from mmengine.structures import BaseDataElement


def record(seed: int, rows: int) -> tuple[Key, Record]:
    draw = torch.Generator().manual_seed(seed)
    return (str(seed), '', 40, 60), {'dense/logits': torch.rand(rows, 3, generator=draw).half(),
                                     'dense/place': torch.randint(0, 9, (rows, 4), generator=draw).short()}


@pytest.fixture
def written(tmp_path: Path) -> list[tuple[Key, Record]]:
    records = [record(seed, rows) for seed, rows in enumerate([3, 0, 5, 1])]
    write_shard(shard_path(tmp_path, 0), records[:2])
    write_shard(shard_path(tmp_path, 1), records[2:])
    return records


def test_what_is_written_comes_back(written: list, tmp_path: Path) -> None:
    shards = Shards(tmp_path, 2)
    assert list(shards.keys()) == [key for key, _ in written]
    for key, rows in written:
        read = shards.read(key)
        assert set(read) == set(rows)
        assert all(torch.equal(read[name], rows[name]) and read[name].dtype == rows[name].dtype for name in rows)


def test_a_shard_that_lacks_is_refused_and_says_how_to_go_on(written: list, tmp_path: Path) -> None:
    shard_path(tmp_path, 0).unlink()
    with pytest.raises(ValueError, match='lacks 1 of its 2 shards.*Run the same tools/cache_teacher.py again'):
        Shards(tmp_path, 2)


@pytest.mark.parametrize('left', [0, 5, -1])
def test_a_truncated_shard_is_refused_by_its_name(written: list, tmp_path: Path, left: int) -> None:
    path = shard_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(ValueError, match=f'needs whole files, and {path} is not.*Remove it'):
        Shards(tmp_path, 2)


def test_a_disk_that_fills_leaves_what_is_whole(written: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(OSError, match='disk full, .* MB wanted'):
        patch.setattr(os, 'fsync', full)
        write_shard(shard_path(tmp_path, 2), [record(9, 4)])
    assert sorted(path.name for path in tmp_path.iterdir()) == [shard_path(tmp_path, i).name for i in range(2)]
    assert len(Shards(tmp_path, 2)) == 4


def test_an_image_is_known_by_its_id_its_flip_and_its_size() -> None:
    sample = BaseDataElement(metainfo=dict(img_id=7, img_shape=(30, 50), flip=True, flip_direction='horizontal'))
    assert key_of(sample) == ('7', 'horizontal', 30, 50)
    assert key_of(BaseDataElement(metainfo=dict(img_id=7, img_shape=(30, 50, 3)))) == ('7', '', 30, 50)
    with pytest.raises(RuntimeError, match='img_id.*`meta_keys` of PackDetInputs'):
        key_of(BaseDataElement(metainfo=dict(img_shape=(30, 50))))
