"""Images that are missing or broken are found before the first step."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ckd_mmdet.image_check import check_images, fault_of, image_paths
from mmdet.datasets import CocoDataset
from PIL import Image

from tests.small_runs import run_config, student_config, train


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(buffer, 'JPEG')
    return buffer.getvalue()


SPOILT: dict[str, tuple[Callable[[Path], object], str | None]] = {
    'missing': (lambda path: None, 'is not there'),
    'empty': (lambda path: path.touch(), 'is no image, or broken'),
    'a page': (lambda path: path.write_text('<html>404</html>'), 'is no image, or broken'),
    'cut off': (lambda path: path.write_bytes(jpeg()[:-300]), 'is broken .*[Tt]runcated'),
    'a folder': (lambda path: path.mkdir(), 'is broken .*directory'),
    'whole': (lambda path: path.write_bytes(jpeg()), None),
}


@pytest.mark.parametrize('name', SPOILT)
def test_an_image_that_cannot_be_read_is_told_with_the_reason(name: str, tmp_path: Path) -> None:
    spoil, words = SPOILT[name]
    spoil(tmp_path / 'a.jpg')
    path = str(tmp_path / 'a.jpg')
    if words is None:
        assert fault_of(path) is None
        check_images([path], '`x`', 1)
        return
    with pytest.raises(ValueError, match=rf'`x` needs images that can be read, 1 of its 1 cannot: .*a.jpg {words}'):
        check_images([path], '`x`', 1)


def test_a_sample_says_that_it_is_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'1 of the 1 that were opened of its 50 cannot.*`--check-images` looks at al'):
        check_images([str(tmp_path / 'gone.jpg')], '`x`', 50)


def test_a_sample_is_taken_at_even_distances(digits: Path) -> None:
    dataset = CocoDataset(data_root=str(digits), ann_file='annotations/train.json', data_prefix=dict(img='train/'),
                          pipeline=[])
    every = image_paths(dataset, None)
    assert len(every) == 16 and image_paths(dataset, 4) == every[::4] and image_paths(dataset, 99) == every


@pytest.mark.parametrize('split', ['train', 'val'])
def test_a_run_does_not_start_with_a_broken_image(split: str, digits: Path, tmp_path: Path) -> None:
    cfg = run_config(student_config(), digits, tmp_path / 'run', epochs=1)
    loader = cfg[f'{split}_dataloader'].dataset
    path = next((digits / split).glob('*'))
    (tmp_path / split).mkdir()
    for image in (digits / split).glob('*'):
        (tmp_path / split / image.name).write_bytes(image.read_bytes())
    (tmp_path / split / path.name).write_bytes(path.read_bytes()[:100])
    loader.data_prefix.img = str(tmp_path / split) + '/'
    with pytest.raises(ValueError, match=rf'`{split}_dataloader.dataset` needs images that can be read, 1 of its'):
        train(cfg)
