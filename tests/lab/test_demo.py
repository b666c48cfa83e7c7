import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ckd_mmdet.lab.demo import main as demo
from ckd_mmdet.lab.demo import plan
from ckd_mmdet.lab.demo.picture import Boxes, draw, iou, match, read_truth
from ckd_mmdet.lab.demo.plan import Run, Settings, keep_settings, make_runs
from ckd_mmdet.lab.demo.report import Result, find_scores, step_seconds, steps_done, table, verdict, write_report
from ckd_mmdet.lab.jobs.processes import Job, JobFailed, only_one, run_together
from ckd_mmdet.lab.jobs.progress import Progress, remaining
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def result(title: str, score: float) -> Result:
    return Result(title, (score, score + 0.2, score + 0.1), 1_785_298, 7_200_000, 0.2004, 1)


RESULTS = {'teacher': result('teacher', 0.6), 'alone': result('student alone', 0.5),
           'ckd': result('student with CKD', 0.54)}


def a_run(folder: Path, epochs: int = 3) -> Run:
    return Run('alone', 'student.py', folder, ('a=1',), epochs, epoch_steps=20, val=40)


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(meta=dict(epoch=1, iter=4), state_dict={}, optimizer={}), path)


def log(folder: Path, started: str, *records: dict) -> Path:
    path = folder / started / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


# the numbers

def test_the_table_has_a_row_a_run_and_aligned_columns() -> None:
    lines = table(list(RESULTS.values())).splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    assert cells[0] == ['', 'mAP', 'mAP50', 'mAP75', 'parameters', 'checkpoint MB', 'ms per step', 'threads']
    assert cells[4] == ['student with CKD', '0.540', '0.740', '0.640', '1,785,298', '7.20', '200', '1']


@pytest.mark.parametrize(('ckd', 'text'), [(0.54, 'by +0.040 (0.500 to 0.540), 40% of the gap to the teacher (0.100)'),
                                           (0.48, 'by -0.020 (0.500 to 0.480), -20% of the gap')])
def test_the_verdict_tells_gain_and_loss_alike(ckd: float, text: str) -> None:
    assert text in verdict(RESULTS['teacher'], RESULTS['alone'], result('student with CKD', ckd))


def test_a_teacher_no_better_than_the_student_leaves_no_gap_to_close() -> None:
    assert 'no better than the student alone' in verdict(result('teacher', 0.5), RESULTS['alone'], RESULTS['ckd'])


def test_the_report_says_how_to_repeat_it_and_that_one_seed_is_no_proof(tmp_path: Path) -> None:
    for quick in (False, True):
        write_report(tmp_path / 'report.md', RESULTS, picture='comparison.png', quick=quick,
                     commands={'teacher': 'python tools/train.py'}, settings={'seed': '0'})
        text = (tmp_path / 'report.md').read_text()
        for part in (table(list(RESULTS.values())), '](comparison.png)', 'Teacher:\n\n```bash\npython tools/train.py',
                     '- seed: 0', 'One seed is no proof', '40% of the gap'):
            assert part in text
        assert ('near chance' in text) is quick


def test_scores_and_times_come_from_all_of_a_runs_logs(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    assert find_scores(run) is None and np.isnan(step_seconds(run)) and steps_done(tmp_path) == 0
    old = log(tmp_path, '20260101_000000', dict(loss=1.0, time=0.1, step=10), dict(loss=1.0, time=0.3, step=20))
    new = log(tmp_path, '20260101_000001', dict(loss=1.0, time=0.2, step=15),
              {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.7, 'coco/bbox_mAP_75': 0.6, 'step': 3, 'time': 9.0})
    new.write_text(new.read_text() + '{"loss": 1.')  # killed, or writing now
    assert find_scores(run) == (0.5, 0.7, 0.6)
    assert step_seconds(run) == 0.2
    assert steps_done(tmp_path) == 15
    assert steps_done(tmp_path, but=[old, new]) == 0


# what is run, and where it goes on

def test_the_student_with_ckd_learns_from_the_demos_own_teacher() -> None:
    runs = make_runs(plan.FULL)
    assert list(runs) == ['teacher', 'alone', 'ckd']
    assert 'model.teacher.checkpoint=work_dirs/demo/teacher/student.pth' in runs['ckd'].options
    assert 'model.teacher.check_accuracy=False' not in runs['ckd'].options
    assert not any('data_root' in option or 'max_epochs' in option for run in runs.values() for option in run.options)
    assert len({(run.epochs, run.epoch_steps) for run in runs.values()}) == 1


def test_the_quick_demo_keeps_to_its_own_folders() -> None:
    runs = make_runs(plan.QUICK)
    for run in runs.values():
        assert run.work_dir.parent == plan.QUICK.folder != plan.FULL.folder
        assert f'train_dataloader.dataset.data_root={plan.QUICK.data}/' in run.options
        assert f'train_cfg.max_epochs={plan.QUICK.epochs}' in run.options


def test_a_run_is_finished_with_its_last_checkpoint_and_its_student(tmp_path: Path) -> None:
    run = a_run(tmp_path, epochs=3)
    assert run.last_epoch() == 0 and '--resume' not in run.command(run.last_epoch())
    save(tmp_path / 'epoch_2.pth')
    save(tmp_path / 'student.pth')  # of an earlier, shorter run
    assert not run.is_finished()
    command = run.command(run.last_epoch())
    assert command[command.index('--resume') + 1] == str(tmp_path / 'epoch_2.pth')
    save(tmp_path / 'epoch_3.pth')
    assert run.is_finished()
    (tmp_path / 'student.pth').unlink()
    assert not run.is_finished()


def test_a_half_written_checkpoint_does_not_count(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    save(tmp_path / 'epoch_1.pth')
    save(tmp_path / 'epoch_2.pth')
    whole = (tmp_path / 'epoch_2.pth').read_bytes()
    (tmp_path / 'epoch_2.pth').write_bytes(whole[:len(whole) // 2])
    assert run.last_epoch() == 1


def test_a_stage_trains_the_unfinished_runs_and_tests_the_unvalidated(tmp_path: Path) -> None:
    runs = [a_run(tmp_path / name) for name in ('finished', 'unvalidated', 'unfinished')]
    for run in runs[:2]:
        save(run.checkpoint(3))
        save(run.student)
    save(runs[2].checkpoint(1))
    scores = {'coco/bbox_mAP': 0.5, 'coco/bbox_mAP_50': 0.7, 'coco/bbox_mAP_75': 0.6}
    log(runs[0].work_dir, '1', scores)
    with Progress(1.0, stream=open(os.devnull, 'w')) as bar:
        stage = demo.Stage(runs).jobs(bar)
        training = next(stage)
        assert [job.command[3] for job in training] == ['--work-dir']
        assert training[0].command[1] == 'tools/train.py' and str(runs[2].checkpoint(1)) in training[0].command
        log(runs[2].work_dir, '1', scores)  # it has ended, with its validation
        testing = next(stage)
    assert [job.command[1:4] for job in testing] == [['tools/test.py', 'student.py', str(runs[1].checkpoint(3))]]


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = Settings(tmp_path / 'demo', tmp_path / 'data', 16, 8, epochs=1)
    keep_settings(settings, make_runs(settings))
    keep_settings(settings, make_runs(settings))
    other = Settings(tmp_path / 'demo', tmp_path / 'data', 16, 8, epochs=2)
    with pytest.raises(ValueError, match='holds a demo of other settings .*Remove or rename'):
        keep_settings(other, make_runs(other))


# processes

def python(text: str, log_file: Path, title: str = 'the teacher') -> Job:
    return Job(title, [sys.executable, '-c', text], log_file, threads=1)


def leave_a_mark(path: Path) -> str:
    return f'import os, pathlib, time; pathlib.Path({str(path)!r}).write_text(str(os.getpid())); time.sleep(60)'


def is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(path: Path) -> int:
    end = time.monotonic() + 30
    while not (path.exists() and path.read_text().strip()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(path.read_text())


def test_a_failing_job_shows_the_end_of_its_log_and_ends_the_other(tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    fails = ('import pathlib, time\n'
             f'while not (pathlib.Path({str(mark)!r}).exists() and pathlib.Path({str(mark)!r}).read_text()):\n'
             '    time.sleep(0.02)\n'
             'print(*range(100), sep="\\n"); raise SystemExit("no such teacher")')
    with pytest.raises(JobFailed) as failure:
        run_together([python(leave_a_mark(mark), tmp_path / 'other.log'), python(fails, tmp_path / 'a/teacher.log')],
                     lambda: None, interval=0.02)
    text = str(failure.value)
    assert 'the teacher ended with exit code 1' in text and str(tmp_path / 'a/teacher.log') in text
    assert 'no such teacher' in text and '\n    99' in text and '\n    12\n' not in text
    assert is_gone(wait_for(mark))


def test_an_interruption_ends_all_jobs(tmp_path: Path) -> None:
    marks = [tmp_path / 'first', tmp_path / 'second']

    def interrupt_when_both_run() -> None:
        if all(mark.exists() and mark.read_text() for mark in marks):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_together([python(leave_a_mark(mark), tmp_path / 'log') for mark in marks], interrupt_when_both_run,
                     interval=0.02)
    assert all(is_gone(wait_for(mark)) for mark in marks)


def test_a_job_gets_its_threads(tmp_path: Path) -> None:
    job = python('import os; print(os.environ["OMP_NUM_THREADS"], os.environ["OMP_WAIT_POLICY"])', tmp_path / 'log')
    run_together([job], lambda: None, interval=0.02)
    assert (tmp_path / 'log').read_text() == '1 PASSIVE\n'


def test_a_second_demo_is_kept_out_while_a_job_of_a_killed_one_lives(tmp_path: Path) -> None:
    mark = tmp_path / 'mark'
    job = f'Job("job", [sys.executable, "-c", {leave_a_mark(mark)!r}], Path({str(tmp_path / "log")!r}), 1)'
    killed = (f'from ckd_mmdet.lab.jobs.processes import *\nfrom pathlib import Path\nimport os, sys\n'
              f'with only_one(Path({str(tmp_path)!r})) as lock:\n'
              f'    run_together([{job}], lambda: Path({str(mark)!r}).exists() and os.kill(os.getpid(), 9), lock)')
    assert subprocess.run([sys.executable, '-c', killed]).returncode == -9
    orphan = wait_for(mark)
    try:
        with pytest.raises(RuntimeError, match='still works in'), only_one(tmp_path):
            pass
    finally:
        os.kill(orphan, 9)
    end = time.monotonic() + 10
    while not is_gone(orphan) and time.monotonic() < end:
        time.sleep(0.02)
    with only_one(tmp_path):
        pass


# progress

def test_the_remaining_time_follows_the_machine() -> None:
    assert remaining(100, done=0, elapsed=0, doubt=30) == 100
    assert remaining(100, done=1000, elapsed=2000, doubt=30) == pytest.approx(200, rel=0.02)
    assert remaining(-1, done=10, elapsed=10, doubt=30) == 0


def test_progress_is_printed_line_by_line_where_there_is_no_terminal(tmp_path: Path) -> None:
    with open(tmp_path / 'out', 'w') as stream, Progress(200.0, stream, interval=0.0) as bar:
        bar.show(0.0, 'teacher starts')
        bar.show(100.0, 'teacher 50%')
        bar.interval = 1000.0
        bar.show(101.0, 'not yet')
    lines = (tmp_path / 'out').read_text().splitlines()
    assert len(lines) == 2 and '\r' not in lines[1]
    assert lines[0].startswith('  0%') and '03:20 left: teacher starts' in lines[0]
    assert lines[1].startswith(' 50%') and lines[1].endswith('teacher 50%')


# the picture

def test_a_detection_is_right_once_and_only_with_its_class() -> None:
    truth = Boxes(np.array([[0, 0, 10, 10], [20, 20, 30, 30]], dtype=float), np.array([1, 2]))
    found = Boxes(np.array([[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]], dtype=float),
                  np.array([1, 1, 3, 1]), np.array([0.8, 0.9, 0.7, 0.6]))
    right, seen = match(found, truth)
    assert right.tolist() == [False, True, False, False]
    assert seen.tolist() == [True, False]
    assert iou(found.boxes[0], found.boxes[1]) == pytest.approx(0.9)


def test_nothing_found_and_nothing_to_find_match(tmp_path: Path) -> None:
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=int), np.zeros(0))
    one = Boxes(np.array([[0., 0, 9, 9]]), np.array([0]), np.array([0.9]))
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
    found = Boxes(np.array([[2., 3, 22, 13], [30, 30, 40, 40]]), np.array([1, 0]), np.array([0.91, 0.49]))
    draw([tmp_path / name for name in names], truths, {'teacher': [found, found]}, classes, tmp_path / 'out.png')
    with Image.open(tmp_path / 'out.png') as picture:
        assert picture.size == (2 * 442, 2 * 442 + 104)
    assert sorted(texts) == ['one', 'one 0.91', 'one 0.91']


# the whole

def test_a_tiny_demo_runs_from_nothing_to_its_report_and_then_finds_all_finished(
        tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = Settings(tmp_path / 'demo', tmp_path / 'data', train=8, val=4, epochs=1)
    written = demo.run_demo(settings)
    text = written.read_text()
    assert 'student with CKD' in text and f'--work-dir {settings.folder}/ckd' in text
    assert (settings.folder / 'comparison.png').stat().st_size > 10_000
    assert '12,305,794' in text and '1,785,298' in text
    output = (settings.folder / 'ckd/output.log').read_text()
    capsys.readouterr()
    demo.run_demo(settings)
    assert capsys.readouterr().err.count('found finished') == 3
    assert (settings.folder / 'ckd/output.log').read_text() == output
    shutil.rmtree(settings.folder)
