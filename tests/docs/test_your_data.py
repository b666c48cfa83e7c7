"""The way of docs/your-data.md, on a small made set in the same layout."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.small_runs import ROOT, run_tool

FILES = ROOT / 'docs/your_data'
NAMES = ['RBC', 'WBC', 'Platelets']
BOX = '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'


@pytest.fixture
def folder(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files of the page and ``BCCD``; the scenes' digits stand for three kinds of cells."""
    monkeypatch.chdir(tmp_path)
    for path in FILES.glob('*.py'):
        shutil.copy(path, '.')
    for part in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        Path('BCCD', part).mkdir(parents=True)
    for split, of in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        names = []
        scenes = json.loads((digits / f'annotations/{of}.json').read_text())
        for image in scenes['images']:
            names.append(f'{split}_{image["id"]}')
            shutil.copy(digits / of / image['file_name'], f'BCCD/JPEGImages/{names[-1]}.png')
            boxes = [(one['category_id'] % 3, *map(round, one['bbox'])) for one in scenes['annotations']
                     if one['image_id'] == image['id']]
            Path(f'BCCD/Annotations/{names[-1]}.xml').write_text(
                f'<annotation><size><width>{image["width"]}</width><height>{image["height"]}</height></size>'
                + ''.join(BOX.format(NAMES[kind], x, y, x + w, y + h) for kind, x, y, w, h in boxes) + '</annotation>')
        Path(f'BCCD/ImageSets/Main/{split}.txt').write_text('\n'.join(names))
    return tmp_path


def coco(split: str) -> dict:
    """What the page's converter writes, by hand."""
    images, annotations = [], []
    for name in Path(f'BCCD/ImageSets/Main/{split}.txt').read_text().split():
        text = Path(f'BCCD/Annotations/{name}.xml').read_text()
        images.append(dict(id=len(images) + 1, file_name=f'{name}.png', width=64, height=64))
        for one in text.split('<object>')[1:]:
            x1, y1, x2, y2 = (int(one.split(f'<{key}>')[1].split('<')[0]) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
            kind = NAMES.index(one.split('<name>')[1].split('<')[0])
            annotations.append(dict(id=len(annotations) + 1, image_id=len(images), category_id=kind + 1, iscrowd=0,
                                    # corners of Pascal VOC count from 1, and both lie within
                                    bbox=[x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1], area=(x2 - x1) * (y2 - y1)))
    return dict(images=images, annotations=annotations,
                categories=[dict(id=i + 1, name=name) for i, name in enumerate(NAMES)])


def boxes_of(written: dict) -> list[tuple]:
    files = {image['id']: image['file_name'] for image in written['images']}
    names = {kind['id']: kind['name'] for kind in written['categories']}
    return sorted((files[one['image_id']], names[one['category_id']], *map(round, one['bbox']))
                  for one in written['annotations'])


@pytest.mark.usefixtures('folder')
def test_the_labels_are_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('supervision', reason='`pip install supervision`, which the page asks for, is not there')
    monkeypatch.setattr(sys, 'argv', ['to_coco.py', 'BCCD', 'data'])
    runpy.run_path('to_coco.py', run_name='__main__')
    for split in ('train', 'val', 'test'):
        assert boxes_of(json.loads(Path(f'data/{split}.json').read_text())) == boxes_of(coco(split))


@pytest.mark.usefixtures('folder')
def test_a_teacher_teaches_a_student_that_is_tested(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
                                                    ) -> None:
    Path('data').mkdir()
    for split in ('train', 'val', 'test'):
        Path(f'data/{split}.json').write_text(json.dumps(coco(split)))
    short = ['train_cfg.max_epochs=1', 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
             'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False',
             'train_dataloader.dataset.pipeline.2.scale=(96,96)', 'val_dataloader.dataset.pipeline.1.scale=(96,96)']
    run_tool(monkeypatch, 'train', 'teacher.py', '--cfg-options', 'model.backbone.init_cfg=None', *short)
    run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint',
             'work_dirs/teacher/student.pth', '--cfg-options', 'model.teacher.check_accuracy=False', *short)
    assert 'method    features: it closed 70 %' in capsys.readouterr().out
    student, = Path('work_dirs').glob('student_*/student.pth')
    assert torch.load(student, weights_only=False)['meta']['dataset_meta']['classes'] == tuple(NAMES)
    run_tool(monkeypatch, 'test', 'student.py', str(student), '--cfg-options', 'test_dataloader.num_workers=0',
             'test_dataloader.persistent_workers=False', 'test_dataloader.dataset.pipeline.1.scale=(96,96)')


def test_the_page_s_detector_configs_have_at_most_15_lines() -> None:
    for name in ('student', 'teacher'):
        assert len((FILES / f'{name}.py').read_text().splitlines()) <= 15
