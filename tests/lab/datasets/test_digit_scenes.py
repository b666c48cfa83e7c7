import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from ckd_mmdet.lab.datasets import digit_drawing, digit_scenes
from ckd_mmdet.lab.datasets.digit_drawing import HARD, PLAIN, Drawing, Scene, draw_scene
from ckd_mmdet.lab.datasets.digit_scenes import make_digit_scenes
from ckd_mmdet.lab.datasets.digit_sources import CLASSES, SPLITS, digit_samples, handwriting, photo_regions
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

ROOT = Path(__file__).parents[3]


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob('*') if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def images(folder: Path) -> dict[str, bytes]:
    return {name: written for name, written in contents(folder).items() if name.endswith('.png')}


def annotations(folder: Path, split: str) -> dict:
    return json.loads((folder / 'annotations' / f'{split}.json').read_text())


@pytest.fixture(scope='module')
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp('small') / 'set', train=12, val=8)


@pytest.fixture(scope='module')
def hard_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('hard') / 'set'
    return make_digit_scenes(folder, train=12, val=8, size=192, drawing=HARD)


@pytest.fixture(scope='module', params=['small_set', 'hard_set'])
def any_set(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope='module')
def hard_scenes() -> list[Scene]:
    return [draw_scene('train', index, size=192, seed=3, drawing=HARD) for index in range(60)]


def pixels(image: Path) -> np.ndarray:
    with Image.open(image) as opened:
        return np.asarray(opened)


def test_the_same_seed_gives_the_same_bytes(small_set: Path, tmp_path: Path) -> None:
    again = make_digit_scenes(tmp_path / 'again', train=12, val=8)
    assert contents(again) == contents(small_set)


def test_the_same_seed_gives_the_same_bytes_of_the_hard_set(hard_set: Path, tmp_path: Path) -> None:
    again = make_digit_scenes(tmp_path / 'again', train=12, val=8, size=192, drawing=HARD)
    assert contents(again) == contents(hard_set)


def test_the_plain_set_is_still_the_one_of_the_first_release(small_set: Path) -> None:
    # From the code before there was a hard set. Of the images' pixels, as zlib's versions pack them differently.
    assert [hashlib.sha256(part).hexdigest()[:16] for part in (
        (small_set / 'digit_scenes.json').read_bytes(),
        b''.join((small_set / 'annotations' / f'{split}.json').read_bytes() for split in SPLITS),
        b''.join(pixels(path).tobytes() for path in sorted(small_set.rglob('*.png'))),
    )] == ['78cdd98794b937a5', 'e23acd4660968cea', 'c0b26a8b28e89515']


def test_another_seed_gives_other_images(small_set: Path, tmp_path: Path) -> None:
    other = images(make_digit_scenes(tmp_path / 'other', train=12, val=8, seed=1))
    assert all(other[name] != image for name, image in images(small_set).items())


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small_set: Path, tmp_path: Path) -> None:
    smaller = make_digit_scenes(tmp_path / 'smaller', train=5, val=2)
    assert len(images(smaller)) == 7
    assert images(smaller).items() <= images(small_set).items()
    for split in SPLITS:
        part, whole = annotations(smaller, split), annotations(small_set, split)
        for entries in ('images', 'annotations'):
            assert part[entries] == whole[entries][: len(part[entries])]


@pytest.fixture(scope='module')
def tested_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp('tested') / 'set', train=12, val=8, test=6)


def test_a_test_split_leaves_the_other_two_as_they_are(small_set: Path, tested_set: Path) -> None:
    without, having = contents(small_set), contents(tested_set)
    own = {name for name in having if name.startswith('test/') or name == 'annotations/test.json'}
    del without['digit_scenes.json']
    assert {name: written for name, written in having.items() if name not in own | {'digit_scenes.json'}} == without
    assert len(own) == 7 and len(annotations(tested_set, 'test')['images']) == 6
    assert json.loads(having['digit_scenes.json']) == {
        **json.loads((small_set / 'digit_scenes.json').read_text()), 'test': 6}
    assert len(set(images(tested_set).values())) == 26  # no scene of val once more


def test_the_test_split_has_nothing_that_train_sees(tested_set: Path) -> None:
    written = annotations(tested_set, 'test')
    trained_on = {sample for samples in digit_samples('train') for sample in samples}
    assert written['annotations'] and not {one['sample'] for one in written['annotations']} & trained_on
    for image in written['images']:
        _, top, _, height = photo_regions('train')[image['photo']]
        assert image['crop'][1] >= top + height


def test_a_set_with_a_test_split_serves_where_none_is_asked_for_and_not_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1, test=1)
    before = contents(out)
    make_digit_scenes(out, train=2, val=1)
    assert 'already holds this set' in capsys.readouterr().out and contents(out) == before
    plain = make_digit_scenes(tmp_path / 'plain', train=2, val=1)
    with pytest.raises(ValueError, match=r'`--out` .* with test 0 instead of 1; pass `--force`'):
        make_digit_scenes(plain, train=2, val=1, test=1)
    make_digit_scenes(plain, train=2, val=1, test=1, force=True)
    assert contents(plain) == before
    (plain / 'test/000001.png').unlink()  # of a copy that was cut off
    make_digit_scenes(plain, train=2, val=1, test=1)
    assert contents(plain) == before


def test_the_two_splits_do_not_repeat_each_other(small_set: Path) -> None:
    assert len(set(images(small_set).values())) == 20


def test_no_handwriting_of_val_occurs_in_train() -> None:
    for label in range(len(CLASSES)):
        train, val = (set(digit_samples(split)[label]) for split in SPLITS)
        assert train and val and not train & val
    assert sum(len(samples) for split in SPLITS for samples in digit_samples(split)) == 1797


def test_no_region_of_a_photograph_of_val_occurs_in_train() -> None:
    train, val = photo_regions('train'), photo_regions('val')
    assert sorted(train) == sorted(val) == ['china.jpg', 'flower.jpg']
    for photo in train:
        _, train_top, _, train_height = train[photo]
        _, val_top, _, _ = val[photo]
        assert val_top >= train_top + train_height


@pytest.mark.parametrize('split', SPLITS)
def test_images_are_drawn_from_their_own_split_only(any_set: Path, split: str) -> None:
    written = annotations(any_set, split)
    for annotation in written['annotations']:
        assert annotation['sample'] in digit_samples(split)[annotation['category_id'] - 1]
    for image in written['images']:
        left, top, width, height = photo_regions(split)[image['photo']]
        x, y, crop_width, crop_height = image['crop']
        assert left <= x and x + crop_width <= left + width
        assert top <= y and y + crop_height <= top + height


@pytest.mark.parametrize('split', SPLITS)
def test_boxes_are_tight_around_the_masks_and_areas_count_their_pixels(any_set: Path, split: str) -> None:
    coco = COCO(any_set / 'annotations' / f'{split}.json')
    assert coco.anns
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation)
        rows, columns = np.nonzero(mask)
        image = coco.imgs[annotation['image_id']]
        assert mask.shape == (image['height'], image['width'])
        assert isinstance(annotation['segmentation']['counts'], str)
        x, y, width, height = annotation['bbox']
        assert (x, x + width) == (columns.min(), columns.max() + 1)
        assert (y, y + height) == (rows.min(), rows.max() + 1)
        assert annotation['area'] == mask.sum()
        assert annotation['iscrowd'] == 0


@pytest.mark.parametrize('split', SPLITS)
def test_masks_lie_where_strokes_were_painted(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = Drawing(noise=0)
    scene = draw_scene(split, 0, size=128, seed=0, drawing=quiet)
    monkeypatch.setattr(digit_drawing, '_paint', lambda *_: None)
    background = draw_scene(split, 0, size=128, seed=0, drawing=quiet).image
    changed = np.any(scene.image != background, axis=2)
    for digit in scene.digits:
        assert changed[digit.mask].mean() > 0.99
    # Outside the masks there are only the strokes' soft edges.
    strokes = np.any([digit.mask for digit in scene.digits], axis=0)
    assert (changed & ~strokes).sum() < 0.5 * strokes.sum()


def test_scenes_hold_two_to_six_digits_of_16_to_48_pixels_that_hardly_overlap() -> None:
    counts, sides = set(), []
    for index in range(60):
        digits = draw_scene('train', index, size=128, seed=3).digits
        counts.add(len(digits))
        masks = [np.asfortranarray(digit.mask, dtype=np.uint8) for digit in digits]
        boxes = [coco_mask.toBbox(coco_mask.encode(mask)) for mask in masks]
        sides += [max(box[2:]) for box in boxes]
        for one, other in combinations(boxes, 2):
            assert coco_mask.iou(one[None], other[None], [0]).item() <= 0.2
        assert np.sum(masks, axis=0).max() == 1
    assert counts == {2, 3, 4, 5, 6}
    # Strokes end a little within the square they were written in, or a little beyond it.
    assert 10 <= min(sides) <= 20 and 44 <= max(sides) <= 52


def test_a_crowded_scene_still_has_two_digits() -> None:
    crowded = Drawing(digits=(6, 6), digit_size=(0.45, 0.45), overlap=0.0)
    scenes = [draw_scene('train', i, size=64, seed=0, drawing=crowded) for i in range(10)]
    counts = [len(scene.digits) for scene in scenes]
    assert min(counts) >= 2 and max(counts) < 6


def test_hard_scenes_hold_six_to_twelve_digits_smaller_in_the_image_than_plain_ones(hard_scenes: list[Scene]) -> None:
    sides = [max(rows.max() - rows.min(), columns.max() - columns.min()) + 1
             for scene in hard_scenes for digit in scene.digits
             for rows, columns in [np.nonzero(digit.strokes)]]
    assert {len(scene.digits) for scene in hard_scenes} == set(range(6, 13))
    # Written in squares of 17 to 42 pixels; strokes end a little within them, or a little beyond.
    assert 11 <= min(sides) <= 21 and 38 <= max(sides) <= 46
    assert HARD.digit_size[0] < PLAIN.digit_size[0] and HARD.digit_size[1] < PLAIN.digit_size[1]


def test_a_quarter_of_the_hard_digits_is_partly_hidden_and_none_more_than_half(hard_scenes: list[Scene]) -> None:
    hidden = np.array([digit.hidden for scene in hard_scenes for digit in scene.digits])
    assert 0.2 < (hidden > 0).mean() < 0.4
    assert 0.07 < (hidden > 0.1).mean() < 0.25
    assert 0.4 < hidden.max() <= HARD.most_hidden
    plain = [digit.hidden for i in range(60) for digit in draw_scene('train', i, size=128, seed=3).digits]
    assert np.mean(np.array(plain) > 0) < 0.1


def test_what_is_hidden_of_a_digit_is_what_later_ones_cover(hard_scenes: list[Scene]) -> None:
    for scene in hard_scenes:
        for index, digit in enumerate(scene.digits):
            later = np.zeros_like(digit.strokes)
            for other in scene.digits[index + 1:]:
                later |= other.strokes
            np.testing.assert_array_equal(digit.mask, digit.strokes & ~later)
            assert digit.hidden == pytest.approx((digit.strokes & later).sum() / digit.strokes.sum())


@pytest.mark.parametrize('most_hidden', [0.0, 0.2])
def test_a_digit_that_would_hide_too_much_goes_elsewhere(most_hidden: float) -> None:
    drawing = replace(HARD, most_hidden=most_hidden)
    scenes = [draw_scene('train', index, size=192, seed=3, drawing=drawing) for index in range(20)]
    assert max(digit.hidden for scene in scenes for digit in scene.digits) <= most_hidden


@pytest.mark.parametrize('stacked', [0.0, 1.0])
def test_stacked_digits_meet_an_earlier_one(stacked: float) -> None:
    drawing = replace(HARD, stacked=stacked, digits=(2, 2), digit_size=(0.08, 0.08))
    meeting = 0
    for index in range(50):
        one, other = draw_scene('train', index, size=192, seed=0, drawing=drawing).digits
        meeting += touches(one.strokes, other.strokes)
    assert meeting == 50 if stacked else meeting < 10


def touches(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether the two masks' bounding boxes, with the soft edges around them, share a pixel."""
    (top, left), (bottom, right) = (np.argwhere(one).min(axis=0) - 2, np.argwhere(one).max(axis=0) + 2)
    return bool(((np.argwhere(other).max(axis=0) + 2 >= (top, left))
                 & (np.argwhere(other).min(axis=0) - 2 <= (bottom, right))).all())


def test_hard_digits_are_fainter_than_plain_ones_but_not_too_faint() -> None:
    rng, stroke = np.random.default_rng(0), np.ones((20, 20))
    contrasts: dict[Drawing, list[float]] = {PLAIN: [], HARD: []}
    for drawing, found in contrasts.items():
        for _ in range(200):
            canvas = np.full((20, 20, 3), 127.0)
            digit_drawing._paint(rng, canvas, stroke, (0, 0, 20, 20), drawing)
            found.append(float(np.linalg.norm(canvas[0, 0] - 127)))
    assert min(contrasts[HARD]) >= HARD.contrast - 1e-9
    assert HARD.contrast + 60 < max(contrasts[HARD]) <= HARD.most_contrast + 1e-9
    assert np.mean(contrasts[HARD]) < np.mean(contrasts[PLAIN]) - 5


def test_every_digit_differs_from_what_lies_behind_it() -> None:
    rng, stroke = np.random.default_rng(0), np.ones((20, 20))
    for _ in range(50):
        canvas = np.full((20, 20, 3), 127.0)
        digit_drawing._paint(rng, canvas, stroke, (0, 0, 20, 20), Drawing())
        assert np.linalg.norm(canvas[0, 0] - 127) >= Drawing().contrast


def test_the_categories_are_zero_to_nine_with_ids_one_to_ten(small_set: Path) -> None:
    for split in SPLITS:
        categories = annotations(small_set, split)['categories']
        assert [category['id'] for category in categories] == list(range(1, 11))
        assert tuple(category['name'] for category in categories) == CLASSES
    assert CLASSES[0] == 'zero' and CLASSES[9] == 'nine'


def test_images_have_the_size_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=1, val=0, size=200)
    with Image.open(out / 'train' / '000001.png') as image:
        assert image.size == (200, 200) and image.mode == 'RGB'
    (record,) = annotations(out, 'train')['images']
    assert (record['width'], record['height']) == (200, 200)
    assert annotations(out, 'val')['images'] == []
    assert capsys.readouterr().err == ''  # a progress bar is for a terminal


def test_a_set_that_is_already_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1)
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    make_digit_scenes(out, train=2, val=1)
    assert 'already holds this set' in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.rglob('*')} == before


def test_a_file_added_to_a_complete_set_does_no_harm(tmp_path: Path) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=1, val=1)
    (out / 'notes.txt').write_text('mine')
    make_digit_scenes(out, train=1, val=1)
    assert contents(out)['notes.txt'] == b'mine'


@pytest.mark.parametrize('side', [8, 16, 48])
def test_every_handwriting_has_strokes_at_every_size(side: int) -> None:
    inks, _ = handwriting()
    strokes = [digit_drawing._stroke_coverage(ink, side) >= 0.5 for ink in inks]
    # The thinnest are ones, a pixel or two wide.
    assert min(stroke.sum() for stroke in strokes) >= side


def test_a_set_with_other_settings_is_refused_and_kept(tmp_path: Path) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1)
    before = contents(out)
    message = r'`--out` .* with train 2 instead of 3; pass `--force` .* another folder'
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(out, train=3, val=1)
    assert contents(out) == before


def test_a_plain_set_is_not_taken_for_a_hard_one(tmp_path: Path) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=1, val=1)
    with pytest.raises(ValueError, match=r"`--out` .* with drawing \{'digits': \[2, 6\].* instead of .*\[6, 12\]"):
        make_digit_scenes(out, train=1, val=1, drawing=HARD)


def test_force_replaces_a_set_with_other_settings(tmp_path: Path) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1)
    make_digit_scenes(out, train=1, val=1, seed=4, force=True)
    assert contents(out) == contents(make_digit_scenes(tmp_path / 'fresh', train=1, val=1, seed=4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ['fresh', 'set']


@pytest.mark.parametrize('lost', ['digit_scenes.json', 'annotations/val.json', 'train/000002.png'])
def test_a_half_written_set_is_drawn_again(tmp_path: Path, lost: str) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1)
    complete = contents(out)
    (out / lost).unlink()
    make_digit_scenes(out, train=2, val=1)
    assert contents(out) == complete


def test_broken_off_settings_count_as_half_written(tmp_path: Path) -> None:
    out = make_digit_scenes(tmp_path / 'set', train=2, val=1)
    complete = contents(out)
    (out / 'digit_scenes.json').write_bytes(complete['digit_scenes.json'][:20])
    make_digit_scenes(out, train=2, val=1)
    assert contents(out) == complete


def test_an_interrupted_run_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(split: str, index: int, **_: int) -> Scene:
        if index == 2:
            raise KeyboardInterrupt
        return draw_scene(split, index, size=128, seed=0)

    monkeypatch.setattr(digit_scenes, 'draw_scene', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_digit_scenes(tmp_path / 'set', train=3, val=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('force', [False, True])
def test_a_folder_with_foreign_files_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / 'thesis.tex').write_text('mine')
    message = r'`--out` .* holds thesis.tex, which would be lost; give another folder'
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(tmp_path, train=1, val=1, force=force)
    assert contents(tmp_path) == {'thesis.tex': b'mine'}


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    out = tmp_path / 'set'
    out.mkdir()
    make_digit_scenes(out, train=1, val=1)
    assert len(contents(out)) == 5


@pytest.mark.parametrize(
    ('argument', 'message'),
    [
        ({'size': 63}, '`--size` needs to be at least 64, not 63; give 64 or more'),
        ({'train': -1}, '`--train` needs to be at least 0, not -1; give 0 or more'),
        ({'val': -5}, '`--val` needs to be at least 0, not -5; give 0 or more'),
        ({'test': -2}, '`--test` needs to be at least 0, not -2; give 0 or more'),
        ({'seed': -1}, '`--seed` needs to be at least 0, not -1; give 0 or more'),
    ],
)
def test_arguments_out_of_range_are_refused(
    tmp_path: Path, argument: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make_digit_scenes(tmp_path / 'set', **argument)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    file = tmp_path / 'file'
    file.write_text('mine')
    with pytest.raises(ValueError, match=r'`--out` .* that can be written; .* give another folder'):
        make_digit_scenes(file / 'set', train=1, val=1)
    with pytest.raises(ValueError, match=r'`--out` .* is a file; give another name'):
        make_digit_scenes(file, train=1, val=1)


def run_tool(*arguments: str) -> subprocess.CompletedProcess:
    # So that an uninstalled checkout is tested, too.
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, 'tools/make_digit_scenes.py', *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_tool_writes_the_same_set_as_the_function(small_set: Path, tmp_path: Path) -> None:
    done = run_tool('--out', str(tmp_path / 'set'), '--train', '12', '--val', '8')
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / 'set') == contents(small_set)


def test_the_tool_writes_a_test_split(tested_set: Path, tmp_path: Path) -> None:
    done = run_tool('--out', str(tmp_path / 'set'), '--train', '12', '--val', '8', '--test', '6')
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / 'set') == contents(tested_set)


def test_the_tool_writes_the_hard_set_with_its_own_size_and_folder(hard_set: Path, tmp_path: Path) -> None:
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, ROOT / 'tools/make_digit_scenes.py', '--hard', '--train', '12', '--val', '8']
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / 'data/digit_scenes_hard') == contents(hard_set)


def test_the_tools_help_says_the_defaults_of_both_sets() -> None:
    shown = ' '.join(run_tool('--help').stdout.split())
    assert '128, or 192 with --hard' in shown and 'data/digit_scenes_hard with --hard' in shown
    assert 'training images (default: 1200)' in shown and 'validation images (default: 300)' in shown


def test_the_tool_reports_a_wrong_argument_without_a_traceback(tmp_path: Path) -> None:
    failed = run_tool('--out', str(tmp_path / 'set'), '--size', '32')
    assert failed.returncode == 2
    assert '`--size` needs to be at least 64' in failed.stderr and 'Traceback' not in failed.stderr


@pytest.mark.parametrize('split', SPLITS)
def test_mmdets_coco_dataset_reads_images_boxes_and_masks(any_set: Path, split: str) -> None:
    import ckd_mmdet.compat  # noqa: F401, I001  (mmdet needs its stand-ins for compiled operations)
    from mmcv.transforms import LoadImageFromFile
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    dataset = CocoDataset(
        data_root=str(any_set),
        ann_file=f'annotations/{split}.json',
        data_prefix={'img': f'{split}/'},
        metainfo={'classes': CLASSES},
        pipeline=[LoadImageFromFile(), LoadAnnotations(with_bbox=True, with_mask=True)],
    )
    written = annotations(any_set, split)
    assert len(dataset) == len(written['images'])
    for sample, image in zip(dataset, written['images'], strict=True):
        expected = [entry for entry in written['annotations'] if entry['image_id'] == image['id']]
        assert sample['img'].shape == (image['height'], image['width'], 3)
        labels = [entry['category_id'] - 1 for entry in expected]
        assert sample['gt_bboxes_labels'].tolist() == labels
        corners = [(x, y, x + w, y + h) for x, y, w, h in (entry['bbox'] for entry in expected)]
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor, corners)
        for mask, entry in zip(sample['gt_masks'].masks, expected, strict=True):
            np.testing.assert_array_equal(mask, coco_mask.decode(entry['segmentation']))


def test_what_a_killed_command_left_is_removed_and_what_a_running_one_draws_stays(tmp_path: Path) -> None:
    killed = subprocess.Popen(['true'])
    killed.wait()
    dead, running, other = (tmp_path / name for name in (
        f'.set-{killed.pid}-x', f'.set-{os.getpid()}-y', f'.other-{killed.pid}-x'))
    for folder in (dead, running, other):
        (folder / 'fresh').mkdir(parents=True)
    make_digit_scenes(tmp_path / 'set', train=1, val=1, size=64)
    assert not dead.exists() and running.exists() and other.exists()
    assert len(list(tmp_path.glob('.set-*'))) == 1
