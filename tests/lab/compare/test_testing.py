"""Matrices that are reported on a test set: played ones, and a real one."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ckd_mmdet.lab.compare.cautions import cautions
from ckd_mmdet.lab.compare.found import read_matrix
from ckd_mmdet.lab.compare.testing import check_tested
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from ckd_mmdet.lab.page.matrix import write_page
from mmengine.config import Config

from tests.lab.compare.matrices import a_matrix, calls, play, run  # noqa: F401  play is a fixture
from tests.small_runs import run_config, run_tool, student_config
from tests.toys import saved_teacher


@pytest.fixture(autouse=True)
def signals_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('signal.signal', lambda number, handler: None)


def what_was_tested(folder: Path) -> list[str]:
    """What was tested, in that order."""
    return sorted((folder / 'tests.txt').read_text().splitlines())


ON_TEST = ['kd/0 the_student_on_test', 'kd/1 the_student_on_test', 'none/0 the_student_on_test',
           'none/1 the_student_on_test', 'teacher the_teacher_on_test']


def test_a_finished_matrix_is_tested_and_not_trained_again(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / 'out'
    run(a_matrix(out))
    (tmp_path / 'tests.txt').unlink()
    found = run(a_matrix(out, report_on='test'))
    assert found.summary['mean'].to_dict() == pytest.approx({'none': 0.31, 'kd': 0.35})
    assert found.summary.loc['kd', 'difference'] == pytest.approx(0.04) and found.teacher == 0.5 and not found.failed
    assert what_was_tested(tmp_path) == ON_TEST
    assert {len(calls(out, f'{method}/{seed}')) for method in ('none', 'kd') for seed in (0, 1)} == {1}
    run(a_matrix(out, report_on='test'))
    assert what_was_tested(tmp_path) == ON_TEST  # and no test twice


def test_one_command_trains_then_tests(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    found = run(a_matrix(tmp_path / 'out', report_on='test'))
    assert found.summary['mean'].to_dict() == pytest.approx({'none': 0.31, 'kd': 0.35}) and not found.failed
    assert what_was_tested(tmp_path) == sorted([*ON_TEST, 'teacher the_teacher']) and found.course_teacher == 0.6


def test_tables_page_and_json_say_that_they_are_of_the_test_set_and_val_stays_the_default(
        play: Callable, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / 'out'
    found = run(a_matrix(out, report_on='test'))
    page, text = write_page(out, found).read_text(), (out / 'table.md').read_text()
    assert 'test mAP mean ± sd' in text and '0.350 ± 0.028' in text and 'All scores are of the test set' in text
    assert ', on the test set</h1>' in page and '--report-on test' in page and 'Validation mAP by epoch' in page
    written = json.loads((out / 'table.json').read_text())
    assert written['report_on'] == 'test' and written['methods']['kd']['mean'] == pytest.approx(0.35)
    found = run(a_matrix(out))
    assert found.summary['mean'].to_dict() == pytest.approx({'none': 0.405, 'kd': 0.455}) and found.teacher == 0.6
    text = (out / 'table.md').read_text()
    assert 'test mAP' not in text and 'report what was chosen by them with `--report-on test`' in text
    assert 'test set</h1>' not in write_page(out, found).read_text()


def test_without_a_test_set_nothing_is_said_of_one(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    assert not any('--report-on' in text for text in cautions(run(a_matrix(tmp_path / 'out'))))


def test_a_test_that_fails_is_told_with_its_reason_and_tried_again(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    play(untestable=['kd/1', 'teacher'])
    found = run(a_matrix(tmp_path / 'out', report_on='test'))
    assert [(one.method, one.seed, one.reason) for one in found.failed] == [
        ('kd', 1, 'not tested: RuntimeError: no room')]
    assert found.summary['seeds'].to_dict() == {'none': 2, 'kd': 1} and 'RuntimeError: no room' in found.no_gap
    play()
    found = run(a_matrix(tmp_path / 'out', report_on='test'))
    assert not found.failed and found.teacher == 0.5
    assert what_was_tested(tmp_path).count('none/0 the_student_on_test') == 1


def test_a_student_that_finds_nothing_counts_as_0(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    play(tests={'none/0': 0.3, 'none/1': 0.3, 'kd/0': None, 'kd/1': 0.4})
    found = run(a_matrix(tmp_path / 'out', report_on='test'))
    assert found.summary.loc['kd', 'mean'] == pytest.approx(0.2)
    assert [one.reason for one in found.empty] == ['found nothing in the test set']


def test_a_student_that_is_gone_is_told_and_one_trained_anew_is_tested_anew(play: Callable, tmp_path: Path  # noqa: F811
                                                                            ) -> None:
    out = tmp_path / 'out'
    run(a_matrix(out))
    (out / 'runs/kd/0/student.pth').unlink()
    found = run(a_matrix(out, report_on='test'))
    assert 'student.pth is gone, so there is nothing to test; remove' in found.failed[0].reason
    (out / 'runs/kd/0/result.json').unlink()
    (out / 'runs/kd/1/result.json').unlink()
    play(tests={'kd/0': 0.1, 'kd/1': 0.2})
    found = run(a_matrix(out, report_on='test'))
    assert found.summary.loc['kd', 'mean'] == pytest.approx(0.15) and not found.failed


def test_numbers_of_another_test_set_are_never_mixed_in(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    out = tmp_path / 'out'
    run(a_matrix(out, report_on='test'))
    other = Config(dict(model=dict(type='Detector'), test_dataloader=dict(dataset=dict(ann_file='other.json'))))
    play(tests={'none/0': 0.7})
    found = run(replace(a_matrix(out, ['none'], [0], report_on='test'), student_on_test=other))
    assert found.summary['mean'].to_dict() == {'none': 0.7} and found.summary['seeds'].to_dict() == {'none': 1}
    assert [(one.method, one.seed) for one in found.failed] == [('none', 1), ('kd', 0), ('kd', 1)]
    assert 'not tested on this test set; give the command' in found.failed[0].reason


def test_a_report_on_tests_needs_tests(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    run(a_matrix(tmp_path / 'out'))
    with pytest.raises(ValueError, match='`--report-on test` needs tests of the students, .*out holds none; give the'):
        check_tested(tmp_path / 'out')
    with pytest.raises(ValueError, match='`report_on` needs one of val, test'):
        a_matrix(tmp_path / 'out', report_on='train')


def test_a_real_matrix_that_was_trained_before_gains_its_tests_by_the_same_command(
        digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ('student', 'teacher'):
        run_config(student_config(), digits, tmp_path / 'own', epochs=1).dump(f'{name}.py')
    saved_teacher(tmp_path, student_config(), classes=CLASSES)
    checkpoint, = tmp_path.glob('*.pth')
    command = ('student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', checkpoint.name, '--methods', 'ckd',
               '--seeds', '1', '--jobs', '2', '--out', 'out', '--cfg-options', 'model.teacher.check_accuracy=False')
    with pytest.raises(SystemExit) as refused:
        run_tool(monkeypatch, 'compare', '--report-on', 'test', *command)
    assert "needs a `test_dataloader` of other images than val's" in str(refused.value) + capsys.readouterr().err
    assert not Path('out').exists()
    run_tool(monkeypatch, 'compare', *command)
    before = {path: path.read_bytes() for path in Path('out/runs').glob('*/*/*.*')}
    shutil.copy(digits / 'annotations/val.json', 'test.json')
    run_tool(monkeypatch, 'compare', '--report-on', 'test', *command,
             f'test_dataloader.dataset.ann_file={tmp_path}/test.json', f'test_evaluator.ann_file={tmp_path}/test.json')
    assert {path: path.read_bytes() for path in before} == before  # nothing was trained
    found = read_matrix(Path('out'), report_on='test')
    assert not found.failed and found.summary.index.tolist() == ['none', 'ckd']
    # the same images under another name: the same numbers
    for result in found.results:
        validated = json.loads(Path(f'out/runs/{result["method"]}/1/result.json').read_text())['metrics']
        assert result['metrics']['coco/bbox_mAP'] == validated['coco/bbox_mAP']
    assert found.teacher == found.course_teacher
    capsys.readouterr()
    run_tool(monkeypatch, 'compare', '--report', 'out', '--report-on', 'test')
    assert 'test mAP mean' in capsys.readouterr().out
