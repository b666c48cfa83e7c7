"""The command from configs and checkpoints to pictures, of toys, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet.lab.analyze.data import choose_images
from ckd_mmdet.lab.analyze.main import Analysis, analyze
from ckd_mmdet.lab.analyze.rows import LATE, ImageRows, Taught, listen, load_student, make_pair, names_of, open_student
from ckd_mmdet.lab.datasets.digit_sources import CLASSES
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.logging import MessageHub
from PIL import Image

from tests.small_runs import distilled, run_config, run_tool, student_config
from tests.toys import saved_teacher, toy_config


@pytest.fixture(scope='module')
def folder(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configs ``student.py``, ``distilled.py``, ``teacher.py`` and ``dense.py``, and random weights of each."""
    folder = tmp_path_factory.mktemp('analyze')
    dense = toy_config('retinanet', num_classes=len(CLASSES))
    for name, model in (('student', student_config()), ('distilled', distilled(student_config(), digit_teacher)),
                        ('teacher', student_config()), ('dense', dense)):
        run_config(model, digits, folder, epochs=1).dump(folder / f'{name}.py')
    for name, model, seed in (('none', student_config(), 4), ('kd', student_config(), 5),
                              ('teacher', student_config(), 1), ('dense', dense, 2)):
        Path(saved_teacher(folder, model, seed, CLASSES)).rename(folder / f'{name}.pth')
    return folder


def settings(folder: Path, *students: str, config: str = 'student', **changes: Any) -> Analysis:
    teacher = {} if 'teacher' in changes else dict(teacher=str(folder / 'teacher.py'),
                                                   teacher_checkpoint=str(folder / 'teacher.pth'))
    changes.setdefault('out', folder / 'out')
    return Analysis(str(folder / f'{config}.py'), [str(folder / f'{name}.pth') for name in students or ('none',)],
                    **{'batches': 5, 'rows': 60, 'examples': 3, **teacher, **changes})


def pair_of(folder: Path, student: str = 'student', teacher: str = 'teacher') -> tuple[Taught, Config]:
    cfg, _ = open_student(str(folder / f'{student}.py'))
    return make_pair(cfg, str(folder / f'{teacher}.py'), str(folder / f'{teacher}.pth')), cfg


def heard(folder: Path, checkpoint: str) -> ImageRows:
    pair, cfg = pair_of(folder)
    return listen(pair, checkpoint, str(folder / f'{checkpoint}.pth'), choose_images(cfg, 5))


def test_two_students_are_drawn_beside_their_teacher(folder: Path, tmp_path: Path) -> None:
    written = analyze(settings(folder, 'none', 'kd', out=tmp_path))
    assert [path.name for path in written] == [
        'logits.png', 'standardised.png', 'correlation.png', 'features.png', 'difficulty_none.png',
        'difficulty_kd.png', 'analysis.json']
    for path in written[:-1]:
        with Image.open(path) as picture:
            assert picture.width > 600
    found = json.loads(written[-1].read_text())
    assert found['classes'] == [*CLASSES, 'background'] and found['images'] == 4
    for kind in ('logits', 'standardised', 'correlation'):
        sides = found['matrices'][kind]['kd']
        differences = [abs(a - b) for ours, theirs in zip(sides['student'], sides['teacher'], strict=True)
                       for a, b in zip(ours, theirs, strict=True) if a is not None]
        assert sides['difference']['max'] == pytest.approx(max(differences))
        assert sides['difference']['mean'] == pytest.approx(sum(differences) / len(differences), rel=1e-4)
    assert [one['model'] for one in found['features']] == ['teacher', 'none', 'kd']
    assert {one['of'] for one in found['features']} == {'features'}
    objects = found['difficulty']['kd']['examples']['objects']
    assert [one['difficulty'] for one in objects] == sorted(one['difficulty'] for one in objects)
    assert Path(objects[0]['image']).is_file() and objects[0]['label'] in CLASSES
    assert {one['label'] for one in found['difficulty']['kd']['examples']['background']} == {'background'}
    assert found['students']['kd']['rows'] == 4 * 16 >= found['students']['kd']['foreground_rows'] > 0


def test_a_student_that_is_its_teacher_differs_in_nothing(folder: Path, tmp_path: Path) -> None:
    found = json.loads(analyze(settings(folder, 'teacher', out=tmp_path, names=['copy']))[-1].read_text())
    for kind in ('logits', 'standardised', 'correlation'):
        assert found['matrices'][kind]['copy']['difference']['max'] < 1e-4
    assert found['students']['copy']['student_accuracy'] == found['students']['copy']['teacher_accuracy']


def test_the_same_weights_always_give_the_same_rows_with_their_boxes(folder: Path) -> None:
    first, second = heard(folder, 'kd'), heard(folder, 'kd')
    assert torch.equal(first.samples.student.logits, second.samples.student.logits)
    assert torch.equal(first.boxes, second.boxes) and first.boxes.shape == (len(first.samples), 4)
    assert MessageHub.get_current_instance().get_info('epoch') != LATE
    assert not torch.equal(first.samples.student.logits, heard(folder, 'none').samples.student.logits)


def test_rows_are_of_the_image_that_they_name(folder: Path) -> None:
    rows = heard(folder, 'kd')
    _, cfg = pair_of(folder)
    images = choose_images(cfg, 5)
    for image in range(len(images)):
        truth = images.dataset[images.index[image]]['data_samples'].gt_instances
        own = torch.from_numpy(rows.images == image) & (rows.samples.labels < len(CLASSES))
        overlaps = bbox_overlaps(rows.boxes[own], truth.bboxes.tensor)
        assert len(overlaps) and (overlaps.amax(1) >= 0.5).all()
        assert (truth.labels[overlaps.argmax(1)] == rows.samples.labels[own]).all()


def test_a_distilled_config_brings_its_teacher(folder: Path, digit_teacher: dict, tmp_path: Path) -> None:
    written = analyze(settings(folder, 'none', config='distilled', out=tmp_path, teacher=None))
    found = json.loads(written[-1].read_text())
    assert found['teacher']['checkpoint'] == digit_teacher['checkpoint']


def test_a_dense_heads_logits_are_embedded_and_no_examples_are_shown(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    written = analyze(settings(folder, 'dense', config='dense', out=tmp_path, teacher=str(folder / 'dense.py'),
                               teacher_checkpoint=str(folder / 'dense.pth')), said.append)
    assert [path.name for path in written] == ['logits.png', 'standardised.png', 'correlation.png', 'features.png',
                                               'analysis.json']
    found = json.loads(written[-1].read_text())
    assert {one['of'] for one in found['features']} == {'logits'}
    assert found['classes'] == list(CLASSES)
    assert said[-1] == found['difficulty'] and 'DenseAligner pairs rows that are neither images nor RoIs' in said[-1]


def test_a_checkpoint_of_a_distilled_training_is_its_students(folder: Path, tmp_path: Path) -> None:
    pair, _ = pair_of(folder)
    weights = torch.load(folder / 'kd.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict={**{f'module.{key}': value for key, value in weights.items()},
                                'distiller.roi.losses.loss_x.weight': torch.zeros(3)}), tmp_path / 'epoch_1.pth')
    load_student(pair.student, str(tmp_path / 'epoch_1.pth'))
    assert torch.equal(pair.student.state_dict()['roi_head.bbox_head.fc_cls.weight'],
                       weights['roi_head.bbox_head.fc_cls.weight'])


@pytest.mark.parametrize(('paths', 'names'), [
    (['runs/kd.pth', 'runs/ckd.pth'], ['kd', 'ckd']),
    (['runs/none/0/student.pth', 'runs/kd/0/student.pth'], ['none', 'kd']),
    (['runs/kd/0/student.pth', 'runs/kd/1/student.pth', 'runs/ckd/0/student.pth'], ['kd/0', 'kd/1', 'ckd/0']),
    (['student.pth'], ['student'])])
def test_students_are_called_by_what_tells_their_paths_apart(paths: list[str], names: list[str]) -> None:
    assert names_of(paths) == names


@pytest.mark.parametrize(('changes', 'text'), [
    (dict(batches=0), '`--batches` needs a positive number, got 0'),
    (dict(rows=-1), '`--rows` needs a positive number, got -1'),
    (dict(names=['a', 'b']), '`--method-name` needs a name for each of the 1 checkpoints, got 2'),
    (dict(rows=5), 't-SNE needs at least 10 rows'),
    (dict(teacher=None), '`--teacher` needs the config of the teacher')])
def test_unfit_arguments_are_refused_in_a_sentence(changes: dict, text: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=text):
        analyze(settings(folder, **changes))


def test_names_that_are_equal_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match='`--method-name` needs different names, got kd more than once'):
        settings(folder, 'none', 'kd', names=['kd', 'kd'])


def test_checkpoints_that_are_absent_unreadable_or_of_another_model_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'`checkpoint` needs a file that exists, .*gone.pth does not'):
        analyze(settings(folder, 'gone'))
    with pytest.raises(ValueError, match=r'`checkpoint` needs the weights of the student of `config`, .*dense.pth'):
        analyze(settings(folder, 'dense'))
    pair, _ = pair_of(folder)
    for content, text in ((b'no checkpoint', '`checkpoint` needs a readable checkpoint, .*broken.pth. is not'),
                          ([1, 2], '`checkpoint` needs a checkpoint with a state dict, .* holds a list')):
        path = tmp_path / 'broken.pth'
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(ValueError, match=text):
            load_student(pair.student, str(path))


def test_the_tool_writes_its_files_and_tells_errors_in_a_line(folder: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch,
                                                             capsys: pytest.CaptureFixture) -> None:
    arguments = [folder / 'student.py', folder / 'kd.pth', '--teacher', folder / 'teacher.py', '--teacher-checkpoint',
                 folder / 'teacher.pth', '--device', 'cpu']
    run_tool(monkeypatch, 'analyze', *arguments, '--out', tmp_path / 'out', '--method-name', 'KD', '--rows', '60')
    assert capsys.readouterr().out == (f'{tmp_path / "out"}: logits.png, standardised.png, correlation.png, '
                                       'features.png, difficulty_KD.png, analysis.json\n')
    with pytest.raises(SystemExit, match='`--examples` needs a positive number, got 0'):
        run_tool(monkeypatch, 'analyze', *arguments, '--examples', '0')
    for wrong in ([folder / 'student.py'], [folder / 'student.py', 'a.pth', '--sweep', tmp_path]):
        with pytest.raises(SystemExit) as exit_:
            run_tool(monkeypatch, 'analyze', *wrong)
        assert exit_.value.code == 2
