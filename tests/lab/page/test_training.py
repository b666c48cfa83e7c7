"""``report.html`` of one training, from logs made by hand; the real thing is in ``tests/lab/test_demo.py``."""

import json
import os
import shutil
from pathlib import Path

import pytest
from ckd_mmdet.lab.page import training, validation
from ckd_mmdet.lab.page.training import write_training_page
from ckd_mmdet.lab.page.validation import validate
from mmengine.config import Config

from tests.lab.page.test_matrix import tags

EVIL = '<script>alert(4)</script>'


def a_training(folder: Path, by_epoch: bool = True, epochs: int = 3) -> Path:
    """Of a distilled detector."""
    logs = folder / '1/vis_data'
    logs.mkdir(parents=True)
    teacher = dict(config='t.py', checkpoint=f'{EVIL}.pth')
    cfg = Config(dict(
        model=dict(type='ckd_mmdet.Distiller', student=dict(type='RetinaNet'), teacher=teacher,
                   alignments=dict(dense=dict(losses=dict(loss_ckd=dict(type='CKDLoss'))))),
        randomness=dict(seed=7), default_scope='mmdet', val_evaluator=dict(type='CocoMetric', ann_file='a.json'),
        val_dataloader=dict(dataset=dict(type='CocoDataset'))))
    cfg.dump(logs / 'config.py')
    lines = []
    for epoch in range(1, epochs + 1):
        for step in range(epoch * 100 - 50, epoch * 100 + 1, 50):
            where = dict(epoch=epoch) if by_epoch else {}
            lines.append({'loss': 3.0, 'loss_cls': 2.0 / epoch, 'dense.loss_ckd': 1.0, 'dense.cosine': step / 1000,
                          'time': 0.2, 'memory': 900, 'step': step, **where})
        score = 0.3 + 0.1 * (epoch == 2)
        lines.append({'coco/bbox_mAP': score, 'coco/bbox_mAP_l': -1.0, 'step': epoch if by_epoch else epoch * 100})
    (logs / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    return folder


def test_the_page_has_the_scores_the_curves_the_agreement_and_what_taught(tmp_path: Path) -> None:
    page = write_training_page(a_training(tmp_path / EVIL.replace('/', '_')), validated=False).read_text()
    assert 'mAP 0.300 after epoch 3, and 0.400 at its best, after epoch 2' in page
    for text in ('Validation', "The student&#39;s own losses", 'Losses of distillation', 'dense.loss_ckd', 'Agreement',
                 'CKDLoss', 's/step', '900', '<dt>seed</dt><dd>7</dd>'):
        assert text in page, text
    assert 'bbox_mAP_l' not in page  # there are no large objects
    assert [attrs for tag, attrs in tags(page) if tag == 'script'] == [{}] and page.count('&lt;script&gt;') > 2


def test_a_training_by_iterations_has_curves_by_iterations(tmp_path: Path) -> None:
    logs = training.read_training(a_training(tmp_path, by_epoch=False, epochs=50))
    assert logs['iteration'].nunique() <= training.POINTS and logs['iteration'].max() >= 5000
    curve = training._curve(logs, 'dense.cosine', 'iteration')
    assert curve['mean'].is_monotonic_increasing and len(curve) == logs['iteration'].nunique()
    assert 'mAP 0.300 after iteration 5000' in write_training_page(tmp_path, validated=False).read_text()


def test_one_epoch_gives_no_curve_but_a_page(tmp_path: Path) -> None:
    page = write_training_page(a_training(tmp_path, epochs=1), validated=False).read_text()
    assert '<polyline' not in page and 'mAP 0.300 after epoch 1.' in page


def test_many_losses_are_drawn_in_charts_that_a_legend_takes() -> None:
    curve = training.pd.DataFrame(dict(mean=[1.0, 2.0], std=[0.1, 0.1]), index=[1, 2])
    drawn = training.charts('Losses', {str(number): curve for number in range(8)}, 'epoch')
    assert [len(chart.lines) for chart in drawn] == [6, 2]


@pytest.mark.parametrize(('file', 'text'), [('matrix.json', 'tools/compare.py --report'), ('x', 'has no log of one')])
def test_another_folder_is_refused_with_the_way_out(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text('{}')
    with pytest.raises(ValueError, match=text):
        write_training_page(tmp_path)


def test_a_teacher_that_is_gone_is_told_and_the_photographs_are_shown(tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    kept = dict(classes={'cat': 0.5}, errors={'AP50': 0.6}, photographs=[])
    monkeypatch.setattr(training, 'validate', lambda work_dir: kept)
    page = write_training_page(a_training(tmp_path)).read_text()
    assert 'Without the photographs of the teacher: ' in page and 't.py' in page
    assert 'Where the student still errs' in page and '<td data-value="cat">cat</td><td data-value="0.5">0.500' in page


def test_the_validation_is_run_once_for_a_student_and_its_failure_is_told(tmp_path: Path,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    assert validate(tmp_path) is None  # no student
    a_training(tmp_path)
    shutil.copy(tmp_path / '1/vis_data/config.py', tmp_path / 'student.py')
    (tmp_path / 'student.pth').write_text('')
    monkeypatch.setattr(validation, 'TEST', ('false',))
    with pytest.raises(RuntimeError, match='output.log'):
        validate(tmp_path)
    kept = tmp_path / 'report/detections.json'
    kept.write_text(json.dumps(dict(classes={}, errors={}, photographs=[])))
    assert validate(tmp_path) == dict(classes={}, errors={}, photographs=[])
    os.utime(kept, (0, 0))  # of an earlier student
    with pytest.raises(RuntimeError, match='failed'):
        validate(tmp_path)
