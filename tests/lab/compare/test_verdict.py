"""The sentence that a matrix comes down to."""

from pathlib import Path

import pytest
from ckd_mmdet.lab.compare.found import read_matrix
from ckd_mmdet.lab.compare.plan import keep_matrix
from ckd_mmdet.lab.compare.verdict import verdict

from tests.lab.compare.matrices import a_matrix
from tests.lab.compare.test_report import report

ALONE = [0.40, 0.41, 0.42]
CLEAR, AS_CLEAR, LESS = [0.50, 0.511, 0.519], [0.505, 0.510, 0.513], [0.45, 0.461, 0.469]
NOISE, WORSE = [0.40, 0.43, 0.41], [0.30, 0.311, 0.319]


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ('by_epoch', 'gap_closed'):
        monkeypatch.setattr(f'ckd_mmdet.lab.compare.plots.{name}', lambda *args: b'')


@pytest.mark.parametrize(('scores', 'teacher', 'said'), [
    (dict(ckd=CLEAR, kd=NOISE), 0.51,
     'ckd closes 100 % [98 %, 102 %] of the gap between the student alone and the teacher. '
     'kd cannot be distinguished from the student alone.'),
    (dict(ckd=CLEAR, kd=AS_CLEAR, l2=LESS, dkd=WORSE), None,
     'ckd is better than the student alone by 0.100 [0.098, 0.102] mAP. kd cannot be distinguished from it. '
     'Also better than the student alone: kd and l2. Worse than the student alone: dkd.'),
    (dict(kd=NOISE), 0.51, 'kd cannot be distinguished from the student alone.'),
    (dict(kd=[0.45]), 0.5, 'kd is 0.050 mAP above the student alone (50 % of the gap), with one seed. '
                           'One seed is no proof.'),
    (dict(kd=[0.35]), None, 'kd is 0.050 mAP below the student alone, with one seed. One seed is no proof.')])
def test_the_verdict(scores: dict, teacher: float | None, said: str, tmp_path: Path) -> None:
    count = max(map(len, scores.values()))
    found = report(tmp_path, {'none': ALONE[:count], **scores}, teacher, methods=('none', *scores))
    assert verdict(found) == said


def test_an_interval_that_leaves_0_out_is_not_enough_where_many_methods_were_tried(tmp_path: Path) -> None:
    some = [0.410, 0.426, 0.439]  # p is 0.03 of one method, and 0.06 of two
    alone = report(tmp_path / 'two', {'none': ALONE, 'kd': some}, methods=('none', 'kd'))
    assert verdict(alone).startswith('kd closes') and alone.summary.loc['kd', 'low'] > 0
    many = report(tmp_path / 'many', {'none': ALONE, 'kd': some, 'l2': NOISE}, methods=('none', 'kd', 'l2'))
    assert many.summary.loc['kd', 'low'] > 0
    assert verdict(many) == 'kd and l2 cannot be distinguished from the student alone.'


def test_a_matrix_without_numbers_says_what_is_lacking(tmp_path: Path) -> None:
    keep_matrix(a_matrix(tmp_path / 'none'))
    assert verdict(read_matrix(tmp_path / 'none')) == 'No run is finished yet.'
    assert 'nothing to compare with' in verdict(report(tmp_path / 'kd', {'kd': [0.4]}))
    assert verdict(report(tmp_path / 'alone', {'none': [0.4]})) == (
        'No distilled student has a seed in common with the student alone yet (mAP 0.400).')
