"""The demo of detection: made scenes of digits, a shipped teacher, a student alone, with CKD, and as is recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ckd_mmdet.config import read_config
from ckd_mmdet.lab.compare.found import Found
from ckd_mmdet.lab.datasets.digit_scenes import make_digit_scenes
from ckd_mmdet.lab.demo.detect import detect, load_detector
from ckd_mmdet.lab.demo.main import Demo, run_demo
from ckd_mmdet.lab.demo.picture import draw, read_truth

TEACHER = 'configs/baselines/faster_rcnn_r18w32_fpn_18e_digit_scenes.py'
STUDENT = 'configs/baselines/faster_rcnn_r18w16_fpn_5e_digit_scenes.py'
TITLES = {'none': 'student alone', 'ckd': 'student with CKD', 'features': 'student with features'}
PICTURES = 5


@dataclass(frozen=True)
class Scenes:
    """A set of made scenes, and the demo that learns from it."""

    data: Path
    train: int
    val: int
    demo: Demo


DEMO = Scenes(Path('data/digit_scenes_demo'), 720, 200, Demo(
    Path('work_dirs/demo'), TEACHER, STUDENT, tuple(TITLES), (0,), TEACHER.replace('.py', '.pth'), jobs=3))
QUICK = Scenes(Path('data/digit_scenes_quick'), 240, 60, replace(DEMO.demo, folder=Path('work_dirs/demo_quick')))
FULL = Scenes(Path('data/digit_scenes'), 1200, 300, Demo(
    Path('work_dirs/demo_full'), TEACHER, 'configs/baselines/faster_rcnn_r18w16_fpn_9e_digit_scenes.py', tuple(TITLES),
    (0,)))


def run_detection(scenes: Scenes, seeds: Sequence[int], interval: float = 1.0) -> tuple[Found, Path]:
    """Make the scenes, run the demo, draw the picture.

    Returns:
        What the matrix holds, and the picture's path.

    Raises:
        RuntimeError, ValueError: As :func:`ckd_mmdet.lab.demo.main.run_demo`.
    """
    make_digit_scenes(scenes.data, train=scenes.train, val=scenes.val)
    demo = replace(scenes.demo, options={**data_options(scenes.data), **scenes.demo.options})
    found = run_demo(demo, seeds, interval)
    return found, compare_pictures(scenes, found, seeds[0])


def data_options(data: Path) -> dict[str, str]:
    """``--cfg-options`` that put this set in the place of the configs' own."""
    loaders = {f'{split}_dataloader.dataset.data_root': f'{data}/' for split in ('train', 'val')}
    return {**loaders, 'val_evaluator.ann_file': f'{data}/annotations/val.json'}


def compare_pictures(scenes: Scenes, found: Found, seed: int) -> Path:
    """Draw the same validation scenes with the truth, the teacher's boxes, and those of each student of one seed."""
    names, truths, classes = read_truth(scenes.data / 'annotations/val.json', PICTURES)
    images = [scenes.data / 'val' / name for name in names]
    models = {f'teacher (mAP {found.teacher:.3f})' if found.teacher is not None else 'teacher':
              (scenes.demo.teacher, Path(scenes.demo.weights))}
    last = found.values[found.values['last'] & (found.values['seed'] == seed)]
    for method, value in zip(last['method'], last['value'], strict=True):
        weights = scenes.demo.matrix / 'runs' / method / str(seed) / 'student.pth'
        models[f'{TITLES.get(method, method)} (mAP {value:.3f})'] = scenes.demo.student, weights
    columns = {title: detect(load_detector(read_config(config), weights), images)
               for title, (config, weights) in models.items()}
    picture = scenes.demo.folder / 'comparison.png'
    draw(images, truths, columns, classes, picture)
    return picture
