"""Images that stand in the training set and in another set, by their perceptual hashes."""

from __future__ import annotations

import io
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import ckd_mmdet.compat  # noqa: F401
import numpy as np
import pytest
from ckd_mmdet.lab.compare import duplicates, main
from ckd_mmdet.lab.compare.duplicates import FILE, check_duplicates, find_pairs, hash_images, list_images
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import Settings
from ckd_mmdet.lab.compare.report import write_report
from mmdet.utils import register_all_modules
from mmengine.config import Config
from PIL import Image, ImageEnhance, ImageOps

from tests.lab.compare.matrices import a_config, a_matrix, play  # noqa: F401  a fixture
from tests.small_runs import ROOT


def scene(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Some coloured cells at random places, on a bright ground: all of one kind, no two the same."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:size[1], :size[0]]
    picture = np.full((*y.shape, 3), 220.0)
    for _ in range(15):
        centre, radius = draw.uniform(0, size), draw.uniform(12, 30)
        picture[np.hypot(x - centre[0], y - centre[1]) < radius] = draw.uniform(60, 180, 3)
    return Image.fromarray((picture + draw.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8))


def compressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=30)
    return Image.open(buffer)


def turned(image: Image.Image, path: Path) -> None:
    """As a camera held upright saves it: lying, with a note."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    'the same': lambda image: image, 'compressed': compressed, 'smaller': lambda image: image.resize((160, 120)),
    'squeezed': lambda image: image.resize((416, 416)), 'larger': lambda image: image.resize((960, 720)),
    'brighter': lambda image: ImageEnhance.Brightness(image).enhance(1.1), 'grey': lambda image: image.convert('L'),
    'all of it': lambda image: compressed(ImageEnhance.Brightness(image).enhance(1.1).resize((200, 150)))}


def saved(folder: Path, *images: Image.Image, ext: str = 'png') -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        image.save(folder / f'{i}.{ext}')
    return [str(folder / f'{i}.{ext}') for i in range(len(images))]


def pairs(train: list[str], other: list[str]) -> list[tuple[str, str, bool]]:
    found = find_pairs(hash_images(train, 'train'), hash_images(other, 'val'))
    return [(pair.path, pair.train, pair.mirrored) for pair in found]


@pytest.mark.parametrize('mirror', [False, True])
@pytest.mark.parametrize('name', COPIES)
def test_a_copy_is_found_and_its_neighbours_are_not(name: str, mirror: bool, tmp_path: Path) -> None:
    train = saved(tmp_path / 'train', *map(scene, range(6)))
    copy = COPIES[name](scene(3))
    val = saved(tmp_path / 'val', scene(10), ImageOps.mirror(copy) if mirror else copy, ext='jpg')
    assert pairs(train, val) == [(val[1], train[3], mirror)]


def test_a_photograph_that_lies_with_a_note_is_the_upright_one(tmp_path: Path) -> None:
    train = saved(tmp_path / 'train', scene(0), scene(1))
    turned(scene(1), tmp_path / 'turned.jpg')
    assert pairs(train, [str(tmp_path / 'turned.jpg')]) == [(str(tmp_path / 'turned.jpg'), train[1], False)]


def test_different_scenes_of_one_kind_are_no_duplicates(tmp_path: Path) -> None:
    images = saved(tmp_path, *(scene(seed, (96, 72)) for seed in range(120)))
    assert pairs(images[:60], images[60:]) == []


def test_chunks_find_what_a_plain_loop_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    train, other = (draw.integers(0, 2, (count, 256), dtype=np.uint8) for count in (23, 17))
    for i in range(0, 17, 2):  # some at distances about the limit
        other[i] = train[i]
        other[i, draw.permutation(256)[:duplicates.MOST + i // 2 - 4]] ^= 1
    expected = {(i, j, int((other[i] != train[j]).sum())) for i in range(17) for j in range(23)
                if (other[i] != train[j]).sum() <= duplicates.MOST}
    assert 0 < len(expected) < 9
    monkeypatch.setattr(duplicates, 'CHUNK', 5)
    assert set(duplicates._near(np.packbits(other, axis=1), np.packbits(train, axis=1))) == expected


def test_blank_and_broken_images_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    black = Image.new('RGB', (64, 64))
    train, val = saved(tmp_path / 'train', scene(0), black), saved(tmp_path / 'val', scene(1), black)
    (tmp_path / 'broken.jpg').write_bytes(b'nothing')
    said, = check_duplicates(duplicates.Images({duplicates.TRAIN: train, duplicates.VAL: [
        *val, str(tmp_path / 'broken.jpg')]}), tmp_path)
    assert said == ('`--check-data`: none of the 3 images of `val_dataloader` is nearly the same as one of the 2 of '
                    '`train_dataloader`. Images left out: 1 cannot be read, 2 without anything to see.')
    assert said in capsys.readouterr().err


# which images

def coco(folder: Path, split: str, seeds: range) -> dict:
    """A COCO data set of scenes."""
    names = [Path(path).name for path in saved(folder / split, *(scene(seed, (96, 72)) for seed in seeds))]
    images = [dict(id=i, file_name=name, width=96, height=72) for i, name in enumerate(names)]
    boxes = [dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 9, 9], area=81, iscrowd=0) for i in range(len(names))]
    (folder / f'{split}.json').write_text(json.dumps(dict(
        images=images, annotations=boxes, categories=[dict(id=1, name='cell')])))
    return dict(type='CocoDataset', data_root=str(folder), ann_file=f'{split}.json', data_prefix=dict(img=split),
                metainfo=dict(classes=('cell',)), pipeline=[], test_mode=split != 'train')


def config(train: dict, val: dict, test: dict | None = None) -> Config:
    register_all_modules(init_default_scope=False)
    loaders = dict(train_dataloader=dict(dataset=train), val_dataloader=dict(dataset=val))
    return Config(dict(loaders, **(dict(test_dataloader=dict(dataset=test)) if test else {})))


def test_wrapped_data_sets_give_each_image_once(tmp_path: Path) -> None:
    first, second = coco(tmp_path / 'a', 'train', range(3)), coco(tmp_path / 'b', 'train', range(3, 5))
    wrapped = dict(type='RepeatDataset', times=4, dataset=dict(type='ConcatDataset', datasets=[first, second]))
    val = coco(tmp_path, 'val', range(5, 7))
    cfg = config(wrapped, val, val)
    before = cfg.to_dict()
    found = list_images(cfg)
    assert {name: len(paths) for name, paths in found.paths.items()} == {'train_dataloader': 5, 'val_dataloader': 2}
    assert found.left_out is None and cfg.to_dict() == before


def test_a_test_set_of_its_own_is_looked_at_and_one_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    train, val = coco(tmp_path, 'train', range(3)), coco(tmp_path, 'val', range(3, 5))
    test = coco(tmp_path, 'test', range(5, 6))
    assert len(list_images(config(train, val, test)).paths['test_dataloader']) == 1
    gone = list_images(config(train, val, dict(test, ann_file='gone.json')))
    assert set(gone.paths) == {'train_dataloader', 'val_dataloader'}
    assert gone.left_out is not None and 'gone.json' in gone.left_out
    assert gone.left_out.startswith('`--check-data` leaves out `test_dataloader`')


def test_images_of_folders_of_classes_are_files_and_those_of_an_array_are_refused(tmp_path: Path) -> None:
    pytest.importorskip('mmpretrain')
    for name, seeds in (('cats', (0, 1)), ('dogs', (2, 3))):
        saved(tmp_path / name, *(scene(seed) for seed in seeds))
    folders = dict(type='mmpretrain.CustomDataset', data_prefix=str(tmp_path), pipeline=[])
    assert len(list_images(config(folders, folders)).paths['train_dataloader']) == 4
    array = dict(type='ckd_mmdet.HandwrittenDigits', split='train', pipeline=[])
    with pytest.raises(ValueError, match='needs images that are files on this disk; those of `train_dataloader'):
        list_images(config(array, array))


# the command

@pytest.fixture
def matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, play: Callable) -> Settings:  # noqa: F811
    """Settings of a played matrix whose test set holds a mirrored training image."""
    train, val, test = (coco(tmp_path / 'data', *split) for split in (
        ('train', range(4)), ('val', range(4, 7)), ('test', range(7, 9))))
    ImageOps.mirror(scene(2, (96, 72))).save(tmp_path / 'data/test/1.png')
    alone = a_config('none')
    alone.merge_from_dict(config(train, val, test).to_dict())
    made = a_matrix(tmp_path / 'out', [Method('none', alone), 'kd'], check_data=True)
    monkeypatch.setattr(main, 'make_matrix', lambda settings: made)
    return made.settings


def test_the_matrix_says_it_first_trains_and_says_it_in_its_reports(matrix: Settings, capsys: pytest.CaptureFixture
                                                                   ) -> None:
    found = main.run_matrix(matrix, 0.02)
    none = '`--check-data`: none of the 3 images of `val_dataloader` is nearly the same as one of the 4 of'
    one = ('`--check-data`: 1 of the 2 images of `test_dataloader` is nearly the same as one of the 4 of '
           '`train_dataloader`, in 1 pair: test/1.png and train/2.png (mirrored). They make scores too high;')
    said = capsys.readouterr().err
    assert 0 <= said.index(none) < said.index(one) < said.index('none, seed 0')
    assert len(found.data) == 2 and not found.failed and len(found.values[found.values['last']]) == 4
    for name in ('table.md', 'report.html'):
        text = (matrix.out / name).read_text()
        assert none in text and one in text
    assert json.loads((matrix.out / FILE).read_text())['pairs']['test_dataloader'][0][2] is True


def test_a_finding_that_cannot_be_read_is_told_and_none_is_no_word(matrix: Settings) -> None:
    main.run_matrix(matrix, 0.02)
    for spoilt in ('', '[]', '{"said": 3}'):
        (matrix.out / FILE).write_text(spoilt)
        write_report(matrix.out)
        assert 'duplicates.json cannot be read' in (matrix.out / 'table.md').read_text()
    (matrix.out / FILE).unlink()
    write_report(matrix.out)
    assert 'check-data' not in (matrix.out / 'table.md').read_text()


def test_a_report_alone_checks_no_data(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'argv', ['compare', '--report', 'somewhere', '--check-data'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(ROOT / 'tools/compare.py'), run_name='__main__')
    assert 'leave out STUDENT, --teacher, --methods, --titles and --check-data' in capsys.readouterr().err
