"""What the command says of itself and of a choice, before anything is trained."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from ckd_mmdet.recipes import METHODS
from mmengine.config import Config

from tests.small_runs import ROOT, run_tool
from tests.toys import toy_config

NAMES = ('light', '3')


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in with ``student.py`` and ``teacher.py``, and no data."""
    monkeypatch.chdir(tmp_path)
    for name, detector, classes in (('student', 'retinanet', NAMES),
                                    ('teacher', 'faster_rcnn', ('traffic light', 'three', 'bee'))):
        Config(dict(default_scope='mmdet', model=toy_config(detector, len(classes)), train_dataloader=dict(
            dataset=dict(type='CocoDataset', ann_file='gone.json', metainfo=dict(classes=classes))))).dump(f'{name}.py')


def explained(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, *words: str) -> str:
    run_tool(monkeypatch, 'train', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', 'gone.pth',
             '--explain', *words)
    return capsys.readouterr().out


@pytest.mark.usefixtures('files')
def test_explain_prints_the_choice_what_was_refused_and_the_rows_and_trains_nothing(
        monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    said = explained(monkeypatch, capsys, '--method', 'kd+l2', '--class-map', 'light=traffic light', '3=three')
    for text in ('aligner   ObjectAligner: the heads are of different kinds',
                 "(`RoIAligner` needs a student with `roi_head.bbox_head`, got a RetinaNet)",
                 '(`DenseAligner` needs a teacher with a dense head',
                 'loss      KDLoss, weight 1.0, on the rows of All',
                 'levels 0, 1, 2, 3 of the student, 1, 2, 3, 4 of the teacher', 'rows      one an object (object)',
                 '2 paired by `class_map`: light (as traffic light), 3 (as three)'):
        assert text in said
    assert not Path('work_dirs').exists()


@pytest.mark.usefixtures('files')
def test_a_class_map_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    Path('map.json').write_text('{"light": "bee"}')
    assert '1 paired by `class_map`: light (as bee)' in explained(monkeypatch, capsys, '--method', 'kd', '--class-map',
                                                                  'map.json')


def test_the_help_has_the_methods_the_heads_the_selectors_and_examples(monkeypatch: pytest.MonkeyPatch,
                                                                       capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'train', '--help')
    said = capsys.readouterr().out
    for text in (*METHODS, 'TeacherTopK:K', 'ForegroundPlus:K', 'PerLevelCap:K', 'model.student.', 'model.teacher.',
                 'DETR and its like', '--explain', '--teacher-precision {fp32,bf16,fp16,auto}',
                 "--class-map light='traffic light'"):
        assert text in said
    assert said.count('  python tools/train.py ') == 3


@pytest.mark.usefixtures('files')
@pytest.mark.parametrize('option', ['runner_type=FlexibleRunner', 'strategy.type=FSDPStrategy'])
def test_a_runner_that_would_shard_the_student_is_refused(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match='leave `runner_type` and `strategy` out: FSDP'):
        run_tool(monkeypatch, 'train', 'student.py', '--cfg-options', option)


def test_the_teachers_precision_needs_a_teacher_and_reaches_each() -> None:
    set_precision = runpy.run_path(str(ROOT / 'tools/train.py'))['set_precision']
    for teacher, expected in ((dict(config='a.py'), dict(config='a.py', precision='bf16')),
                              (dict(x=dict(config='a.py'), y=dict(config='b.py')),
                               {name: dict(config=config, precision='bf16') for name, config in (('x', 'a.py'),
                                                                                                 ('y', 'b.py'))})):
        cfg = Config(dict(model=dict(type='ckd_mmdet.Distiller', teacher=teacher)))
        set_precision(cfg, 'bf16')
        assert cfg.model.teacher.to_dict() == expected
    for model in (dict(type='RetinaNet'), dict(type='ckd_mmdet.Distiller', teacher=None)):
        with pytest.raises(SystemExit, match='--teacher-precision needs a teacher'):
            set_precision(Config(dict(model=model)), 'bf16')
