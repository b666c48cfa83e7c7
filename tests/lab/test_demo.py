"""``make demo``, on a few images, and the picture that it draws."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ckd_mmdet.config import read_config
from ckd_mmdet.lab.compare.detections import read_detections
from ckd_mmdet.lab.demo.detection import DEMO, FULL, QUICK, Scenes, data_options, run_detection
from ckd_mmdet.lab.demo.main import make_teacher
from ckd_mmdet.lab.demo.picture import Detections, draw, iou, match, read_truth
from ckd_mmdet.options import merge_options
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


# the picture

def test_a_detection_is_right_once_and_only_with_its_class() -> None:
    truth = Detections(np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=float), np.array([1, 2]))
    found = Detections(np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], dtype=float),
                  np.array([1, 1, 3, 1]), np.array([0.8, 0.9, 0.7, 0.6]))
    right, seen = match(found, truth)
    assert right.tolist() == [False, True, False, False]
    assert seen.tolist() == [True, False]
    assert iou(found.boxes[0], found.boxes[1]) == pytest.approx(0.9)


def test_nothing_found_and_nothing_to_find_match(tmp_path: Path) -> None:
    nothing = Detections(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))
    one = Detections(np.array([[0., 0, 9, 9]]), np.array([0]), np.array([0.9]))
    assert match(nothing, one)[1].tolist() == [False]
    assert match(one, nothing)[0].tolist() == [False]


def test_the_picture_shows_every_image_under_every_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[str] = []
    monkeypatch.setattr('matplotlib.axes.Axes.text', lambda axis, x, y, text, **style: texts.append(text))
    coco = dict(images=[dict(id=7, file_name='a.png'), dict(id=9, file_name='b.png')],
                categories=[dict(id=3, name='zero'), dict(id=4, name='one')],
                annotations=[dict(image_id=9, category_id=4, bbox=[2, 3, 20, 10])])
    (tmp_path / 'val.json').write_text(json.dumps(coco))
    names, truths, classes = read_truth(tmp_path / 'val.json', 5)
    assert (names, classes) == (['a.png', 'b.png'], ['zero', 'one'])
    assert truths[0].boxes.shape == (0, 4)
    assert truths[1].boxes.tolist() == [[2, 3, 22, 13]] and truths[1].labels.tolist() == [1]
    for name in names:
        Image.new('RGB', (64, 64), 'gray').save(tmp_path / name)
    found = Detections(np.array([[2., 3, 22, 13], [30, 30, 40, 40]]), np.array([1, 0]), np.array([0.91, 0.49]))
    draw([tmp_path / name for name in names], truths, {'teacher': [found, found]}, classes, tmp_path / 'out.png')
    with Image.open(tmp_path / 'out.png') as picture:
        assert picture.size == (2 * 442, 2 * 442 + 104)
    assert sorted(texts) == ['one', 'one 0.91', 'one 0.91']


# what is run

@pytest.mark.parametrize('scenes', [DEMO, QUICK, FULL])
def test_teacher_and_student_have_the_same_head_and_the_scenes_of_the_demo(scenes: Scenes) -> None:
    student, teacher = read_config(scenes.demo.student), read_config(scenes.demo.teacher)
    assert student.model.roi_head == teacher.model.roi_head
    merge_options(student, data_options(scenes.data))
    for part in (student.train_dataloader.dataset, student.val_dataloader.dataset):
        assert part.data_root == f'{scenes.data}/'
    assert student.val_evaluator.ann_file == f'{scenes.data}/annotations/val.json'
    assert len({DEMO.data, QUICK.data, FULL.data}) == len({DEMO.demo.folder, QUICK.demo.folder, FULL.demo.folder}) == 3


def test_the_shipped_teacher_is_small_in_half_precision_and_knows_its_classes() -> None:
    path = Path(DEMO.demo.weights)
    loaded = torch.load(path, weights_only=True)
    assert path.stat().st_size <= 8e6
    assert {value.dtype for value in loaded['state_dict'].values()} <= {torch.float16, torch.int64}
    assert loaded['meta']['dataset_meta']['classes'] == read_config(DEMO.demo.teacher).metainfo['classes']


def test_a_teacher_that_is_not_shipped_is_trained_on_the_scenes(tmp_path: Path) -> None:
    demo = replace(FULL.demo, folder=tmp_path, options={**data_options(tmp_path / 'x'), 'train_cfg.max_epochs': 1})
    make_teacher(demo)
    cfg = read_config(tmp_path / 'teacher.py')
    assert cfg.train_dataloader.dataset.data_root == f'{tmp_path / "x"}/'
    assert cfg.train_cfg.max_epochs == read_config(FULL.demo.teacher).train_cfg.max_epochs  # of the students alone


# the whole

def test_a_tiny_demo_runs_from_nothing_to_its_picture_and_then_finds_all_finished(
        tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    demo = replace(DEMO.demo, folder=tmp_path / 'demo', methods=('none', 'features'), options={
        'train_cfg.max_epochs': 1, 'train_cfg.val_interval': 1})
    scenes = Scenes(tmp_path / 'data', train=8, val=4, demo=demo)
    found, picture = run_detection(scenes, [0], interval=0.1)
    assert found.methods == ['none', 'features'] and not found.failed
    assert found.teacher > 0.2  # the shipped one finds digits in four scenes that it has never seen
    with Image.open(picture) as drawn:
        assert drawn.size[0] == 4 * 442  # truth, teacher, two students
    kept = {run.name: read_detections(run) for run in (demo.matrix / 'teacher', *demo.matrix.glob('runs/*/0'))}
    assert np.mean(list(kept['teacher']['classes'].values())) == pytest.approx(found.teacher, abs=6e-4)  # of 3 digits
    assert all(len(one['photographs']) == 4 for one in kept.values()) and not list(demo.matrix.rglob('*.bbox.json'))
    page = (demo.matrix / 'report.html').read_text()
    assert page.count('data:image/jpeg') == 4 and 'Where the students still err' in page
    # in a process of its own, where nothing is registered yet
    run = demo.matrix / 'runs/features/0'
    subprocess.run([sys.executable, ROOT / 'tools/report.py', run], check=True, capture_output=True)
    of_one = (run / 'report.html').read_text()
    assert of_one.count('data:image/jpeg') == 4 and of_one.count('<figcaption>teacher</figcaption>') == 4
    assert 'Where the student still errs' in of_one and 'Without the photographs' not in of_one
    said = capfd.readouterr().err
    assert ' left: ' in said and 'features, seed 0: finished' in said
    log = (demo.matrix / 'runs/features/0/output.log').read_text()
    run_detection(scenes, [0], interval=0.1)
    assert capfd.readouterr().err.count('found finished') == 2
    assert (demo.matrix / 'runs/features/0/output.log').read_text() == log
