"""Processes side by side, and the bar above them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ckd_mmdet.lab.jobs.processes import Job, JobFailed, only_one, run_together
from ckd_mmdet.lab.jobs.progress import Progress, remaining


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
