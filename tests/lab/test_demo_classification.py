"""``make demo-classification``, on a few images."""

from pathlib import Path

import pytest
from ckd_mmdet.config import read_config
from ckd_mmdet.lab.demo.classification import DIGITS
from ckd_mmdet.lab.demo.main import Demo, make_teacher, run_demo

from tests.small_classifiers import classifier_config, run_config

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Demo:
    monkeypatch.chdir(tmp_path)
    run_config(classifier_config(), epochs=1).dump('student.py')
    run_config(classifier_config('resnet14'), epochs=1).dump('teacher.py')
    return Demo(Path('demo'), 'teacher.py', 'student.py', ('none', 'kd'), (0, 1))


def test_the_demo_trains_its_teacher_once_and_shows_the_table(demo: Demo, capfd: pytest.CaptureFixture) -> None:
    found = run_demo(demo, [0], interval=0.1)
    assert found.metric == 'accuracy/top1' and found.methods == ['none', 'kd'] and not found.failed
    assert found.teacher is not None and '| teacher' in Path('demo/matrix/table.md').read_text()
    said = capfd.readouterr().err
    assert 'teacher, seed 3: finished' in said and ' left: ' in said and 'kd, seed 0: finished' in said
    before = {path: path.stat().st_mtime_ns for path in Path('demo').glob('**/student.pth')}
    assert len(before) == 3
    run_demo(demo, [0], interval=0.1)
    said = capfd.readouterr().err
    assert said.count('found finished') == 3 and ': finished' not in said
    assert before == {path: path.stat().st_mtime_ns for path in Path('demo').glob('**/student.pth')}


def test_another_teacher_in_the_folder_is_refused(demo: Demo) -> None:
    teacher = make_teacher(demo)
    assert make_teacher(demo).digest == teacher.digest  # as before
    cfg = read_config('teacher.py')
    cfg.optim_wrapper.optimizer.lr = 0.1
    cfg.dump('teacher.py')
    with pytest.raises(ValueError, match='demo holds a demo of other settings: teacher.py has changed since'):
        make_teacher(demo)


def test_a_teacher_that_fails_ends_the_demo_with_its_reason(demo: Demo) -> None:
    cfg = read_config('teacher.py')
    cfg.model.head.num_classes = 5  # of ten digits
    cfg.dump('teacher.py')
    with pytest.raises(RuntimeError, match=r'the teacher cannot teach: .*(Error|bounds).* \(log: demo/teacher/output'):
        run_demo(demo, [0], interval=0.1)
    assert not demo.matrix.exists()


def test_the_shipped_demo_has_its_configs_and_shows_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    student, teacher = read_config(DIGITS.student), read_config(DIGITS.teacher)
    assert student.model.head == teacher.model.head and student.val_dataloader == teacher.val_dataloader
    assert len(DIGITS.seeds) >= 2 and DIGITS.methods == ('none', 'kd', 'ckd', 'pckd')


def test_senseless_seeds_are_refused_before_anything_trains(demo: Demo) -> None:
    with pytest.raises(ValueError, match='`seeds` needs numbers from 0 to 4294967295'):
        run_demo(demo, [-1])
    assert not (demo.folder / 'teacher').exists()
