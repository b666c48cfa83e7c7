"""Curves of the runs of compare.py, over what was swept."""

import json
from pathlib import Path
from typing import Any

import pytest
from ckd_mmdet.lab.analyze.main import draw_sweep
from ckd_mmdet.lab.analyze.sweep import Curve, find_curves, read
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import keep_matrix
from mmengine.config import Config
from PIL import Image

from tests.lab.compare.matrices import EPOCHS, a_matrix

METRIC = 'coco/bbox_mAP'


def distilled(name: str, losses: dict[str, dict], batch: int = 8, selector: str = 'All', **more: Any) -> Method:
    alignments = dict(roi=dict(aligner=dict(type='RoIAligner'), selector=dict(type=selector), losses=losses))
    model = dict(type='ckd_mmdet.Distiller', student=dict(type='Detector'), alignments=alignments,
                 teacher=dict(config='teacher.py', checkpoint='teacher.pth'))
    return Method(name, Config(dict(model=model, train_dataloader=dict(batch_size=batch),
                                    train_cfg=dict(by_epoch=True, max_epochs=EPOCHS, val_interval=1), **more)))


def alone(batch: int = 8, **more: Any) -> Method:
    return Method('none', Config(dict(model=dict(type='Detector'), train_dataloader=dict(batch_size=batch),
                                      train_cfg=dict(by_epoch=True, max_epochs=EPOCHS, val_interval=1), **more)))


def ckd(weight: float | str, **arguments: Any) -> dict[str, dict]:
    return dict(loss_ckd=dict(type='CKDLoss', loss_weight=weight, **arguments))


def matrix(folder: Path, scores: dict[Method, list[float]]) -> Path:
    """The folder of a matrix whose runs have left these results."""
    made = a_matrix(folder, list(scores), list(range(max(map(len, scores.values())))), metric=METRIC)
    keep_matrix(made)
    for method, values in scores.items():
        for seed, value in enumerate(values):
            run = folder / 'runs' / method.folder / str(seed)
            run.mkdir(parents=True)
            run.joinpath('result.json').write_text(json.dumps(dict(
                method=method.name, seed=seed, epochs=EPOCHS, metrics={METRIC: {str(EPOCHS): value}}, config='',
                seconds_per_step=0.1)))
    (folder / 'teacher').mkdir()
    (folder / 'teacher/result.json').write_text(json.dumps(dict(metrics={METRIC: 0.6})))
    return folder


def curves(*folders: Path) -> list[Curve]:
    return find_curves(read(folders, None))


def shown(found: list[Curve]) -> list[tuple[str, str, list[float]]]:
    return [(curve.argument, curve.label, [point.x for point in curve.points]) for curve in found]


def test_methods_that_differ_in_one_number_are_one_curve(tmp_path: Path) -> None:
    folder = matrix(tmp_path, {
        alone(): [0.4], distilled('ckd:10', ckd(10.0)): [0.5], distilled('ckd:5', ckd(5.0)): [0.45],
        distilled('ckd', ckd(1.0)): [0.42], distilled('t.py', ckd(5.0, temperature=0.5)): [0.41],
        distilled('foreground.py', ckd(7.0), selector='Foreground'): [0.44],
        distilled('inter.py', ckd(6.0, terms='inter')): [0.44]})
    assert shown(curves(folder)) == [('loss_weight', 'ckd', [1, 5, 10]), ('temperature', 'ckd', [0.5, 1])]


def test_each_loss_of_several_is_swept_for_itself(tmp_path: Path) -> None:
    def both(name: str, first: float, second: float) -> Method:
        return distilled(name, dict(ckd(first), loss_kd=dict(type='KDLoss', loss_weight=second)))

    folder = matrix(tmp_path, {both('a', 1, 1): [0.4], both('b', 2, 1): [0.5], both('c', 1, 3): [0.6],
                               distilled('ckd:9', ckd(9.0)): [0.5]})
    assert shown(curves(folder)) == [('loss_weight', 'ckd+kd, of ckd', [1, 2]),
                                     ('loss_weight', 'ckd+kd, of kd', [1, 3])]


def test_curves_of_one_loss_are_told_apart_by_what_else_differs(tmp_path: Path) -> None:
    folder = matrix(tmp_path, {distilled(f'{weight}-{tau}', ckd(weight, temperature=tau)): [0.4]
                               for weight in (1.0, 2.0) for tau in (1.0, 4.0)})
    assert shown(curves(folder)) == [
        ('loss_weight', 'ckd, temperature 1', [1, 2]), ('loss_weight', 'ckd, temperature 4', [1, 2]),
        ('temperature', 'ckd, loss weight 1', [1, 4]), ('temperature', 'ckd, loss weight 2', [1, 4])]


def test_balanced_and_scheduled_weights_are_no_numbers_to_sweep(tmp_path: Path) -> None:
    folder = matrix(tmp_path, {distilled('a', ckd('balance:0.5')): [0.4], distilled('b', ckd('balance:1')): [0.5],
                               distilled('c', ckd(dict(value=1.0, stop=2))): [0.5]})
    assert curves(folder) == []


def test_batch_sizes_come_from_several_matrices_with_the_student_alone_as_a_curve(tmp_path: Path) -> None:
    folders = [matrix(tmp_path / str(batch), {
        alone(batch, optim_wrapper=dict(lr=batch / 100)): [0.4, 0.41],
        distilled('ckd', ckd(1.0), batch, optim_wrapper=dict(lr=batch / 100)): [0.5, 0.52]}) for batch in (16, 4, 8)]
    assert shown(curves(*folders)) == [('batch_size', 'none', [4, 8, 16]), ('batch_size', 'ckd', [4, 8, 16])]
    assert {path.name for path in draw_sweep(folders, tmp_path / 'out')} == {'sweep_batch_size.png', 'sweep.json'}


def test_pictures_and_numbers_are_written(tmp_path: Path) -> None:
    folder = matrix(tmp_path, {alone(): [0.40, 0.41, 0.45], distilled('ckd:5', ckd(5.0)): [0.42, 0.45, 0.45],
                               distilled('ckd:10', ckd(10.0)): [0.5]})
    assert [path.name for path in draw_sweep([folder])] == ['sweep_loss_weight.png', 'sweep.json']
    with Image.open(folder / 'sweep_loss_weight.png') as picture:
        assert picture.width > 600
    found = json.loads((folder / 'sweep.json').read_text())
    assert (found['metric'], found['teacher'], found['none']['mean']) == (METRIC, 0.6, pytest.approx(0.42))
    curve, = found['curves']
    first, second = curve['points']
    half = 4.302652729911275 * 0.017320508 / 3**0.5
    assert (first['x'], first['method'], first['mean']) == (5.0, 'ckd:5', pytest.approx(0.44))
    assert (first['low'], first['high']) == (pytest.approx(0.44 - half), pytest.approx(0.44 + half))
    assert second == dict(x=10.0, method='ckd:10', mean=0.5, low=None, high=None, values={'0': 0.5})


def test_what_is_no_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'`--sweep` needs the folder of a compare.py run: .* has no matrix.json'):
        draw_sweep([tmp_path])
    folder = matrix(tmp_path / 'one', {alone(): [0.4], distilled('ckd', ckd(1.0)): [0.5]})
    with pytest.raises(ValueError, match='`--sweep` needs two finished methods that differ in nothing but .* got none, '
                                         'ckd; train some'):
        draw_sweep([folder])
