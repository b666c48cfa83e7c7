"""Whole matrices: played ones that fail, hang and go on, and a real one."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ckd_mmdet.lab.compare import main
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import keep_matrix
from ckd_mmdet.lab.compare.runs import make_runs
from ckd_mmdet.lab.datasets.digit_sources import CLASSES

from tests.lab.compare.matrices import EPOCHS, a_matrix, calls, play, run  # noqa: F401  play is a fixture
from tests.small_runs import run_config, run_tool, student_config
from tests.toys import saved_teacher


def test_every_method_is_trained_with_every_seed_and_the_teacher_is_measured_once(play: Callable, tmp_path: Path,  # noqa: F811
                                                                                  capfd: pytest.CaptureFixture) -> None:
    found = run(a_matrix(tmp_path / 'out', ['none', 'kd', 'ckd'], [0, 1]))
    assert found.summary['mean'].to_dict() == pytest.approx({'none': 0.405, 'kd': 0.455, 'ckd': 0.445})
    assert found.summary.loc['kd', ['difference', 'low', 'high']].tolist() == pytest.approx([0.05] * 3)
    assert found.teacher == 0.6 and not found.failed and found.no_gap is None
    assert found.summary.loc['kd', 'seconds'] == pytest.approx(0.025)  # 0.02 and 0.03 in epochs 2 and 3
    said = capfd.readouterr().err
    assert 'Two seeds are few' in said  # before hours of training
    assert said.count(': finished') == 7 and ' left: ' in said and ', 5 wait' in said
    run(a_matrix(tmp_path / 'out', ['none', 'kd', 'ckd'], [0, 1]))
    assert capfd.readouterr().err.count('found finished') == 6
    assert len(calls(tmp_path / 'out', 'kd/1')) == 1 and len(list((tmp_path / 'out/teacher').glob('*/'))) == 1


def test_seeds_and_methods_added_later_train_alone(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    run(a_matrix(tmp_path / 'out', ['none', 'kd'], [0]))
    found = run(a_matrix(tmp_path / 'out', ['none', 'ckd'], [0, 1]))
    assert found.summary['seeds'].to_dict() == {'none': 2, 'kd': 1, 'ckd': 2}
    assert len(calls(tmp_path / 'out', 'none/0')) == 1


def test_one_failed_run_is_told_with_its_reason_and_the_rest_goes_on_and_the_next_start_tries_it_again(
        play: Callable, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:  # noqa: F811
    play(fails=['kd/0'])
    found = run(a_matrix(tmp_path / 'out', ['none', 'kd'], [0, 1]))
    assert [(one.method, one.seed, one.reason) for one in found.failed] == [
        ('kd', 0, 'RuntimeError: the teacher is no better than chance')]
    assert found.summary['seeds'].to_dict() == {'none': 2, 'kd': 1}
    assert 'kd, seed 0: FAILED, RuntimeError' in capfd.readouterr().err
    play()
    found = run(a_matrix(tmp_path / 'out', ['none', 'kd'], [0, 1]))
    assert not found.failed and found.summary['seeds'].to_dict() == {'none': 2, 'kd': 2}
    assert len(calls(tmp_path / 'out', 'kd/0')) == 2 and len(calls(tmp_path / 'out', 'none/0')) == 1


def test_a_run_that_finds_nothing_is_finished_and_never_trained_again(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    play(blind=['kd/0', 'none/1'])
    found = run(a_matrix(tmp_path / 'out', ['none', 'kd'], [0, 1]))
    assert not found.failed and [(one.method, one.seed) for one in found.empty] == [('none', 1), ('kd', 0)]
    assert found.summary['mean'].to_dict() == pytest.approx({'none': 0.2, 'kd': 0.23})
    found = run(a_matrix(tmp_path / 'out', ['none', 'kd'], [0, 1], metric='coco/bbox_mAP_s'))
    assert 'found nothing' in found.failed[1].reason and len(found.failed) == 4
    assert {len(calls(tmp_path / 'out', f'{method}/{seed}')) for method in ('none', 'kd') for seed in (0, 1)} == {1}


def test_a_refused_method_stands_in_the_report_and_the_rest_trains(play: Callable, tmp_path: Path,  # noqa: F811
                                                                   capfd: pytest.CaptureFixture) -> None:
    found = run(a_matrix(tmp_path / 'out', ['none', Method('dist', refused='needs a softmax')], [0]))
    assert [str(one) for one in found.refused] == ['dist: needs a softmax'] and list(found.summary.index) == ['none']
    assert 'dist: refused, needs a softmax' in capfd.readouterr().err


def test_a_full_disk_fails_the_run_whose_result_it_does_not_take_and_no_other(
        play: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    from ckd_mmdet.lab.compare import runs
    whole = runs.write_whole

    def full(path: Path, content: str) -> None:
        if path.parts[-3:] == ('kd', '1', 'result.json'):
            raise OSError(28, 'No space left on device')
        whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(runs, 'write_whole', full)
        found = run(a_matrix(tmp_path / 'out'))
    assert [(one.method, one.seed) for one in found.failed] == [('kd', 1)]
    assert 'No space left on device' in found.failed[0].reason
    assert not run(a_matrix(tmp_path / 'out')).failed
    assert f'epoch_{EPOCHS}.pth' in calls(tmp_path / 'out', 'kd/1')[1]  # nothing was trained again


def wait_for(path: Path) -> int:
    end = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(path.read_text())


def test_a_killed_run_goes_on_after_its_last_validated_epoch(play: Callable, tmp_path: Path) -> None:  # noqa: F811
    play(waits=['kd/0'])
    matrix = a_matrix(tmp_path / 'out', ['none', 'kd'], [0])
    waits = tmp_path / 'out/runs/kd/0/waits'
    keep_matrix(matrix)
    work = main.make_runs(matrix)
    kill = main._Work.show

    def kill_when_it_waits(self: main._Work) -> None:
        kill(self)
        if waits.exists() and waits.read_text():
            os.kill(int(waits.read_text()), 9)
            waits.unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(main._Work, 'show', kill_when_it_waits)
        main.train(matrix, work, None, 0.02)
    assert [one.is_finished() for one in work] == [True, False]
    play()
    found = run(matrix)
    assert not found.failed
    first, second = calls(tmp_path / 'out', 'kd/0')
    assert '--resume' not in first and f'--resume {tmp_path}/out/runs/kd/0/epoch_1.pth' in second
    result = json.loads((tmp_path / 'out/runs/kd/0/result.json').read_text())
    assert result['metrics']['coco/bbox_mAP'] == pytest.approx({'1': 0.25, '2': 0.35, '3': 0.45})


def test_an_interruption_ends_the_children_and_leaves_the_finished_whole(
        play: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    play(waits=['kd/0'])
    matrix = a_matrix(tmp_path / 'out', ['none', 'kd'], [0])
    waits = tmp_path / 'out/runs/kd/0/waits'
    alone = make_runs(matrix)[0]

    def interrupt(self: main._Work) -> None:
        if waits.exists() and waits.read_text() and alone.is_finished():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(main._Work, 'show', interrupt)
        run(matrix)
    with pytest.raises(ProcessLookupError):
        os.kill(wait_for(waits), 0)
    play()
    assert not run(matrix).failed
    assert len(calls(tmp_path / 'out', 'none/0')) == 1 and len(calls(tmp_path / 'out', 'kd/0')) == 2


# places

@pytest.mark.parametrize(('visible', 'gpus', 'jobs', 'places'), [
    (None, 0, 3, ['', '', '']), (None, 2, None, ['0', '1']), (None, 2, 3, ['0', '1', '0']),
    ('4, 6', 2, None, ['4', '6']), ('GPU-a', 1, 2, ['GPU-a', 'GPU-a'])])
def test_each_place_has_a_gpu_in_turn(visible: str | None, gpus: int, jobs: int | None, places: list,
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.cuda.device_count', lambda: gpus)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible is not None:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    assert [place.get('CUDA_VISIBLE_DEVICES', '') for place in main.make_places(jobs)] == places


def test_on_cpu_a_run_has_one_thread_and_every_core_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('torch.cuda.device_count', lambda: 0)
    monkeypatch.setattr(main, 'cores', lambda: 6)
    assert len(main.make_places(None)) == 6 and main.make_threads(2) == 1
    monkeypatch.setattr('torch.cuda.device_count', lambda: 1)
    assert main.make_threads(1) == 6


# the command

@pytest.fixture(autouse=True)
def signals_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('signal.signal', lambda number, handler: None)


@pytest.mark.parametrize(('arguments', 'text'), [
    (('student.py', '--methods', 'kd'), 'not given: teacher'),
    ((), 'not given: student, teacher, methods'),
    (('student.py', '--teacher', 't.py', '--methods', 'kd', '--titles', 'kd'), "--titles needs METHOD=TITLE, got 'kd'"),
    (('student.py', '--report', 'out'), '--report trains nothing')])
def test_arguments_that_do_not_belong_together_are_refused(arguments: tuple, text: str, monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        run_tool(monkeypatch, 'compare', *arguments)
    assert text in capsys.readouterr().err


def test_a_report_is_written_anew_from_the_finished_runs_alone(play: Callable, tmp_path: Path,  # noqa: F811
                                                               monkeypatch: pytest.MonkeyPatch,
                                                               capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / 'out'
    run(a_matrix(out))
    before = {name: (out / name).read_bytes() for name in ('table.md', 'table.csv', 'table.json', 'gap_closed.png')}
    for name in before:
        (out / name).unlink()
    run_tool(monkeypatch, 'compare', '--report', out)
    assert {name: (out / name).read_bytes() for name in before} == before
    assert (out / 'table.md').read_text() in capsys.readouterr().out


PURE_PYTHON = """
from mmdet.evaluation import CocoMetric
from mmdet.models import FasterRCNN
from mmengine.config import read_base
from mmengine.optim import LinearLR

with read_base():
    from .base import *

model['type'] = FasterRCNN
val_evaluator['type'] = test_evaluator['type'] = CocoMetric
param_scheduler[0]['type'] = LinearLR
"""


def test_a_real_matrix_of_pure_python_toys_from_nothing_to_its_report(
        digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    run_config(student_config(), digits, tmp_path / 'own', epochs=2).dump('base.py')
    for name in ('student', 'teacher'):
        Path(f'{name}.py').write_text(PURE_PYTHON)
    saved_teacher(tmp_path, student_config(), classes=CLASSES)
    checkpoint, = tmp_path.glob('*.pth')
    run_tool(monkeypatch, 'compare', 'student.py', '--teacher', 'teacher.py', '--teacher-checkpoint', checkpoint.name,
             '--methods', 'ckd', '--seeds', '1', '--epochs', '1', '--jobs', '2', '--out', 'out',
             '--cfg-options', 'model.teacher.check_accuracy=False')
    text = Path('out/table.md').read_text()
    assert text in capsys.readouterr().out and '| none' in text and '| ckd' in text and '| teacher' in text
    results = [json.loads(path.read_text()) for path in sorted(Path('out/runs').glob('*/*/result.json'))]
    assert [(one['method'], one['seed'], one['epochs']) for one in results] == [
        ('ckd', 1, 1), ('none', 1, 1)]
    assert all(one['seconds_per_step'] > 0 and one['metrics']['coco/bbox_mAP'].keys() == {'1'} for one in results)
    logs = {path.parts[2:4]: path.read_text() for path in Path('out/runs').glob('*/*/output.log')}
    assert all('roi.loss_ckd' in text if method == 'ckd' else 'roi.loss' not in text
               for (method, _), text in logs.items())
    assert len({text.split('loss: ')[1].split()[0] for text in logs.values()}) == 2  # methods differ
    assert len(list(Path('out/runs').glob('*/*/student.pth'))) == 2
    assert not list(Path('out/runs').glob('*/*/epoch_*.pth'))
