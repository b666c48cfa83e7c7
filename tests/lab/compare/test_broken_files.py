"""Broken files of a matrix are named, and the rest goes on; names stay text in the report."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from ckd_mmdet.lab.compare.found import read_matrix
from ckd_mmdet.lab.compare.metric import check_metric
from ckd_mmdet.lab.compare.plan import FILE, Settings, keep_matrix, make_matrix
from ckd_mmdet.lab.compare.report import write_report
from ckd_mmdet.lab.compare.runs import make_runs
from mmengine.config import Config

from tests.lab.compare.matrices import a_matrix
from tests.lab.compare.test_report import report, table_of
from tests.small_runs import run_config, student_config
from tests.toys import saved_teacher, toy_config


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('by_epoch', 'gap_closed'):
        monkeypatch.setattr(f'ckd_mmdet.lab.compare.plots.{name}', lambda *unused: b'')


BROKEN = {'empty': '', 'cut off': '{"student": {"con', 'a list': '[1]', 'a number': '3', 'other keys': '{"a": 1}',
          'no UTF-8': b'\xff\xfe\x00', 'null': 'null'}


def spoil(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.mark.usefixtures('without_pictures')
@pytest.mark.parametrize('name', BROKEN)
def test_a_broken_plan_is_named_and_left_alone(name: str, tmp_path: Path) -> None:
    report(tmp_path)
    spoil(tmp_path / FILE, BROKEN[name])
    for call in (lambda: keep_matrix(a_matrix(tmp_path)), lambda: read_matrix(tmp_path)):
        with pytest.raises(ValueError, match=rf'{FILE} (cannot be read|is not what).*remove the folder'):
            call()
    assert (tmp_path / FILE).stat().st_size == len(BROKEN[name])


@pytest.mark.usefixtures('without_pictures')
@pytest.mark.parametrize('key', ['student', 'teacher', 'methods', 'seeds', 'metric'])
def test_a_plan_of_another_shape_is_named(key: str, tmp_path: Path) -> None:
    report(tmp_path)
    plan = json.loads((tmp_path / FILE).read_text())
    for value in (3, {'x': 3}):
        (tmp_path / FILE).write_text(json.dumps({**plan, key: value}))
        with pytest.raises(ValueError, match='is not what compare.py writes'):
            read_matrix(tmp_path)


@pytest.mark.usefixtures('without_pictures')
@pytest.mark.parametrize('content', [
    *BROKEN.values(), '{"metrics": 3}', '{"metrics": {"coco/bbox_mAP": 3}}',
    json.dumps(dict(method='kd', seed=1, epochs=2, config='', seconds_per_step=1,
                    metrics={'coco/bbox_mAP': {'2': 'good'}}))])
def test_a_broken_result_is_named_and_the_others_count(content: str | bytes, tmp_path: Path) -> None:
    report(tmp_path)
    path = tmp_path / 'runs/kd/1/result.json'
    spoil(path, content)
    found = write_report(tmp_path)
    assert [(one.method, one.seed) for one in found.failed] == [('kd', 1)] and str(path) in found.failed[0].reason
    assert found.summary.loc['kd', 'seeds'] == 2
    assert not make_runs(a_matrix(tmp_path, ['kd'], [1]))[0].is_finished()  # the next command trains it again


@pytest.mark.usefixtures('without_pictures')
@pytest.mark.parametrize('content', [*BROKEN.values(), '{"metrics": {"coco/bbox_mAP": {}}}'])
def test_a_broken_result_of_the_teacher_is_named(content: str | bytes, tmp_path: Path) -> None:
    report(tmp_path)
    spoil(tmp_path / 'teacher/result.json', content)
    assert str(tmp_path / 'teacher/result.json') in write_report(tmp_path).no_gap


def test_the_report_keeps_names_text(tmp_path: Path) -> None:
    names = ['none', '=1+1', 'a|b', '<script>', r'$\frac{$', '\x1b[2J', 'two\nlines', '{{ fileDirname }}']
    scores = dict.fromkeys(names[:4], [0.4, 0.5])
    matrix = a_matrix(tmp_path, names, [0, 1])
    keep_matrix(matrix)
    for method in matrix.methods:
        assert Config.fromfile(matrix.method_file(method)).model.method == method.name
        for seed in (0, 1):
            run = tmp_path / 'runs' / method.folder / str(seed)
            run.mkdir(parents=True)
            (run / 'result.json').write_text(json.dumps(dict(
                method=method.name, seed=seed, epochs=1, metrics={'coco/bbox_mAP': {'1': 0.4 + seed / 10}}, config='',
                seconds_per_step=1.0)))
    write_report(tmp_path)  # the plots, too
    text = (tmp_path / 'table.md').read_text()
    assert len(table_of(text.split('\n\n')[0].replace(r'\|', '/ '))) == 9
    assert not set('<\x1b') & set(text) and len(scores) == 4
    first = [row[0] for row in csv.reader((tmp_path / 'table.csv').read_text().splitlines())]
    assert len(first) == 9 and "'=1+1" in first and '=1+1' not in first


# before anything trains

@pytest.mark.parametrize(('changes', 'words'), [
    (dict(seeds=[2 ** 32]), r'`seeds` needs numbers from 0 to 4294967295'),
    (dict(metric='coco/bbox_mAp'), r"got 'coco/bbox_mAp' .did you mean coco/bbox_mAP\?"),
    (dict(metric='accuracy'), 'it logs coco/bbox_mAP, '),
    (dict(checkpoint='text'), r'`--teacher-checkpoint` needs a readable checkpoint, .*text'),
    (dict(checkpoint='http://127.0.0.1:9/x.pth'), r'`--teacher-checkpoint` needs a readable checkpoint, .*127.0.0.1'),
    (dict(checkpoint='other'), r'`--teacher-checkpoint` needs the weights of .* does not fit it')])
def test_what_would_fail_after_hours_is_refused_at_the_start(changes: dict, words: str, digits: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    (tmp_path / 'text').write_text('<html>404</html>')
    (tmp_path / 'other').write_bytes(Path(saved_teacher(tmp_path, toy_config('faster_rcnn', 3))).read_bytes())
    if changes.get('checkpoint') in ('text', 'other'):
        changes = dict(checkpoint=str(tmp_path / changes['checkpoint']))
    for name in ('student', 'teacher'):
        run_config(student_config(), digits, tmp_path, epochs=1).dump(tmp_path / f'{name}.py')
    with pytest.raises(ValueError, match=f'(?s){words}'):
        make_matrix(Settings(**{'student': str(tmp_path / 'student.py'), 'teacher': str(tmp_path / 'teacher.py'),
                                'methods': ['none'], 'seeds': [0], 'out': tmp_path / 'out',
                                'checkpoint': str(tmp_path / 'text'), **changes}))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('evaluator', 'known', 'unknown'), [
    (dict(type='CocoMetric', metric=['bbox', 'segm']), 'coco/segm_mAP_50', 'coco/segm_map'),
    (dict(type='CocoMetric', prefix='mine'), 'mine/bbox_mAP', 'coco/bbox_mAP'),
    (dict(type='CocoMetric', classwise=True), 'coco/cat_precision', None),
    ([dict(type='CocoMetric'), dict(type='SomeonesMetric')], 'theirs/score', None)])
def test_metrics_of_known_evaluators_are_known(evaluator: dict, known: str, unknown: str | None) -> None:
    cfg = Config(dict(default_scope='mmdet', val_evaluator=evaluator))
    check_metric(known, cfg)
    if unknown is not None:
        with pytest.raises(ValueError, match=f'got {unknown!r}'):
            check_metric(unknown, cfg)
