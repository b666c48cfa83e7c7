"""The table in three formats, and the plots."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from ckd_mmdet.lab.compare.cautions import cautions
from ckd_mmdet.lab.compare.found import Found, read_matrix, titles_of
from ckd_mmdet.lab.compare.methods import Method
from ckd_mmdet.lab.compare.plan import keep_matrix
from ckd_mmdet.lab.compare.report import write_report
from PIL import Image

from tests.lab.compare.matrices import a_matrix

SCORES = {'none': [0.40, 0.41, 0.45], 'kd': [0.42, 0.45, 0.45]}


def report(folder: Path, scores: dict[str, list[float]] = SCORES, teacher: float | None = 0.52,
           methods: tuple = ('none', 'kd'), metric: str = 'coco/bbox_mAP') -> Found:
    """Of a matrix whose runs have left these results."""
    seeds = list(range(max(map(len, scores.values()))))
    matrix = a_matrix(folder, methods, seeds, metric=metric)
    keep_matrix(matrix)
    for name, values in scores.items():
        for seed, value in enumerate(values):
            run = folder / 'runs' / name / str(seed)
            run.mkdir(parents=True)
            run.joinpath('result.json').write_text(json.dumps(dict(
                method=name, seed=seed, epochs=2, metrics={metric: {'1': value / 2, '2': value}}, config='',
                seconds_per_step=0.1 * (seed + 1))))
    if teacher is not None:
        (folder / 'teacher').mkdir()
        (folder / 'teacher/result.json').write_text(json.dumps(dict(metrics={metric: teacher})))
    return write_report(folder)


def cells(folder: Path) -> list[list[str]]:
    return table_of((folder / 'table.md').read_text().split('\n\n')[0])


def table_of(text: str) -> list[list[str]]:
    lines = text.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == set('|-: ')
    return [[cell.strip() for cell in line.strip('|').split('|')] for line in [lines[0], *lines[2:]]]


def test_the_table_has_means_paired_differences_and_shares_with_their_intervals(tmp_path: Path) -> None:
    report(tmp_path)
    assert cells(tmp_path) == [
        ['method', 'mAP mean ± sd', 'Δ vs none [95 % CI]', 'p (Holm)', 'gap closed', 's/step', 'seeds'],
        ['none', '0.420 ± 0.026', '', '', '', '0.2', '3'],
        ['kd', '0.440 ± 0.017', '+0.020 [-0.030, +0.070]', '0.225', '20 % [-30 %, 70 %]', '0.2', '3'],
        ['teacher', '0.520', '', '', '', '', '']]
    text = (tmp_path / 'table.md').read_text()
    assert 'The gap of teacher (0.520) and student alone is 0.100' in text and 'paired differences' in text
    assert 'ailed' not in text and 'efused' not in text


def test_csv_and_json_have_the_numbers_unrounded(tmp_path: Path) -> None:
    report(tmp_path)
    table = pd.read_csv(tmp_path / 'table.csv', index_col='method')
    half = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert table.loc['kd', ['difference', 'low', 'share']].tolist() == pytest.approx([0.02, 0.02 - half, 0.2])
    found = json.loads((tmp_path / 'table.json').read_text())
    assert found['methods']['kd']['high'] == pytest.approx(0.02 + half)
    assert found['methods']['none']['difference'] is None and found['teacher'] == 0.52
    assert found['matrix']['epochs'] == 3
    assert [run['value'] for run in found['runs'] if run['method'] == 'kd'] == SCORES['kd']


def test_one_seed_shows_no_interval_and_says_so(tmp_path: Path) -> None:
    report(tmp_path, {'none': [0.4], 'kd': [0.45]})
    assert cells(tmp_path)[1:3] == [['none', '0.400', '', '', '0.1', '1'],
                                    ['kd', '0.450', '+0.050', '42 %', '0.1', '1']]
    assert cells(tmp_path)[0][2] == 'Δ vs none'
    text = (tmp_path / 'table.md').read_text()
    assert 'One seed is no proof' in text and 'confidence' not in text and 'Paired' not in text


@pytest.mark.parametrize(('alone', 'teacher', 'said'), [
    ([0.40], 0.52, ['One seed gives no interval']), ([0.40, 0.41], 0.52, ['Two seeds are few']),
    ([0.40, 0.41, 0.42], 0.52, []),
    ([0.40, 0.41, 0.45], 0.42 + 2.9 * 0.02646, ['The gap is small: 2.9 standard deviations of the student alone']),
    ([0.40, 0.41, 0.45], 0.42 + 3.1 * 0.02646, []), ([0.40, 0.45], None, ['Two seeds are few', 'No share of the gap'])])
def test_few_seeds_no_gap_and_a_small_gap_are_said(alone: list[float], teacher: float | None, said: list[str],
                                                   tmp_path: Path) -> None:
    found = cautions(report(tmp_path, {'none': alone, 'kd': alone}, teacher))
    assert len(found) == len(said) and all(map(str.startswith, found, said))
    text = (tmp_path / 'table.md').read_text()
    assert all(start in text for start in said)


@pytest.mark.parametrize(('teacher', 'text'), [
    (0.42, 'the teacher (0.420) is no better than the student alone (0.420), there is no gap to close'),
    (None, 'the teacher has no result: not finished')])
def test_without_a_gap_no_share_is_shown_and_the_reason_is(teacher: float | None, text: str, tmp_path: Path) -> None:
    report(tmp_path, teacher=teacher)
    assert cells(tmp_path)[2][2:5] == ['+0.020 [-0.030, +0.070]', '0.225', '']
    assert f'No share of the gap is shown: {text}' in (tmp_path / 'table.md').read_text()


def test_refused_methods_and_failed_runs_are_listed_below_with_reason_and_log(tmp_path: Path) -> None:
    folder = tmp_path / 'runs/kd/3'
    methods = ('none', 'kd', Method('dist', refused='`DISTLoss` needs a softmax\nand more'))
    (tmp_path / 'x').mkdir()
    report(tmp_path / 'x', methods=methods)
    folder = tmp_path / 'x/runs/kd'
    for seed in (3, 10):
        (folder / str(seed)).mkdir()
    (folder / '3/failed.txt').write_text('OSError: [Errno 28] No space left on device\n')
    write_report(tmp_path / 'x')
    text = (tmp_path / 'x/table.md').read_text()
    assert text.endswith('Refused before training:\n\n- dist: `DISTLoss` needs a softmax\n\n'
                         'Failed or not finished:\n\n'
                         f'- kd, seed 3: OSError: [Errno 28] No space left on device (log: {folder}/3/output.log)\n'
                         f'- kd, seed 10: not finished (log: {folder}/10/output.log)\n')
    found = json.loads((tmp_path / 'x/table.json').read_text())
    assert [one['seed'] for one in found['failed']] == [3, 10] and found['refused'][0]['method'] == 'dist'


def test_a_method_with_fewer_seeds_says_how_many_are_paired(tmp_path: Path) -> None:
    report(tmp_path, {'none': [0.4, 0.4], 'kd': [0.5, 0.5, 0.6]})
    assert cells(tmp_path)[2][6] == '3 (2 paired)'


def test_percent_metrics_keep_two_digits_and_differ_in_points(tmp_path: Path) -> None:
    report(tmp_path, {'none': [70.0, 71.0], 'kd': [72.0, 73.5]}, 80.0, metric='accuracy/top1')
    assert cells(tmp_path)[0][1:3] == ['top-1 (%) mean ± sd', 'Δ points vs none [95 % CI]']
    assert cells(tmp_path)[2][1:5] == ['72.75 ± 1.06', '+2.25 [-0.93, +5.43]', '0.070', '24 % [-10 %, 57 %]']
    assert 'student alone is 9.50 points, taken as known' in (tmp_path / 'table.md').read_text()


def test_the_digits_are_those_of_the_largest_mean_in_all_of_a_table(tmp_path: Path) -> None:
    report(tmp_path, {'none': [0.5, 0.9, 1.3], 'kd': [70.5, 71.3, 71.1]}, 75.0, metric='accuracy/top1')
    assert cells(tmp_path)[1][1] == '0.90 ± 0.40' and cells(tmp_path)[2][1] == '70.97 ± 0.42'
    assert cells(tmp_path)[2][2].startswith('+70.07 [+6')


def test_every_two_methods_are_compared_below_the_table(tmp_path: Path) -> None:
    scores = {'none': [0.3, 0.3, 0.3], 'kd': [0.40, 0.41, 0.45], 'ckd': [0.42, 0.45, 0.45], 'dkd': [0.35, 0.36, 0.40]}
    report(tmp_path, scores, methods=tuple(scores))
    *_, title, rows = (tmp_path / 'table.md').read_text().split('\n\n')
    assert title.startswith('Paired differences between methods, the row less the column, ± half of the 95 % conf')
    assert 'over the seeds that both have (3);' in title
    assert table_of(rows.strip()) == [['method', '2.', '3.'], ['1. ckd', '+0.020 ± 0.050', '+0.070 ± 0.050 *'],
                                      ['2. kd', '', '+0.050 ± 0.000 *'], ['3. dkd', '', '']]
    pairs = json.loads((tmp_path / 'table.json').read_text())['pairs']
    assert [(pair['method'], pair['other'], pair['pairs']) for pair in pairs] == [
        ('ckd', 'kd', 3), ('ckd', 'dkd', 3), ('kd', 'dkd', 3)]
    half = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert [pairs[0][key] for key in ('difference', 'low', 'high')] == pytest.approx([0.02, 0.02 - half, 0.02 + half])


def test_pairs_of_unlike_seeds_say_how_many_they_share(tmp_path: Path) -> None:
    report(tmp_path, {'none': [0.3] * 3, 'kd': [0.4, 0.41, 0.42], 'ckd': [0.42, 0.44, 0.46], 'dkd': [0.35, 0.35],
                      'pkd': [0.5]}, methods=('none', 'kd', 'ckd', 'dkd', 'pkd'))
    rows = next(part for part in (tmp_path / 'table.md').read_text().split('\n\n') if part.startswith('| method | '))
    assert 'that both have, in brackets' in (tmp_path / 'table.md').read_text()
    assert [[cell.split('± ')[-1] for cell in row] for row in table_of(rows)[1:]] == [
        ['1. ckd', '0.025 (3) *', '0.127 (2)'], ['2. kd', '', '0.064 (2)'], ['3. dkd', '', '']]


def test_a_run_that_found_nothing_counts_as_0_and_is_told(tmp_path: Path) -> None:
    report(tmp_path)
    path = tmp_path / 'runs/kd/1/result.json'
    result = dict(json.loads(path.read_text()), metrics={}, nothing_found=[1, 2])
    path.write_text(json.dumps(result))
    found = write_report(tmp_path)
    assert found.summary.loc['kd', 'mean'] == pytest.approx((0.42 + 0 + 0.45) / 3) and not found.failed
    assert ('Counted as 0:\n\n- kd, seed 1: found nothing in its last epoch (log: '
            in (tmp_path / 'table.md').read_text())
    found = write_report(tmp_path, 'coco/bbox_mAP_s')
    assert found.failed[4].reason == 'it found nothing in its last epoch, which leaves no `coco/bbox_mAP_s`'
    assert not found.empty


@pytest.mark.parametrize('value', ['null', 'NaN', '-1.0'])  # NaN: as results of before are written
def test_what_is_no_score_is_trouble_and_never_part_of_a_mean(value: str, tmp_path: Path) -> None:
    report(tmp_path)
    result = tmp_path / 'runs/kd/1/result.json'
    result.write_text(result.read_text().replace('0.45', value))
    found = write_report(tmp_path)
    assert found.summary.loc['kd', 'seeds'] == 2 and [str(one.method) for one in found.failed] == ['kd']
    assert found.failed[0].reason.startswith('its last `coco/bbox_mAP` is ' + ('-1' if '1' in value else 'NaN'))
    json.loads((tmp_path / 'table.json').read_text(), parse_constant=pytest.fail)


def test_a_matrix_without_any_score_is_reported_all_the_same(tmp_path: Path) -> None:
    found = report(tmp_path, {'none': [math.nan] * 2, 'kd': [-1.0] * 2}, -1.0)
    text = (tmp_path / 'table.md').read_text()
    assert text.startswith('No run is finished.') and len(found.failed) == 4
    assert "the teacher's `coco/bbox_mAP` is -1" in found.no_gap


def test_what_was_never_started_is_told_in_one_line(tmp_path: Path) -> None:
    report(tmp_path, {'none': [0.4, 0.4, 0.4], 'kd': [0.5]},
           methods=('none', 'kd', 'ckd', 'a/pkd.py', Method('dist', refused='no softmax')))
    found = read_matrix(tmp_path)
    assert found.not_started == {'kd': [1, 2], 'ckd': [0, 1, 2], 'a/pkd.py': [0, 1, 2]} and not found.failed
    assert (tmp_path / 'table.md').read_text().endswith(
        '\n\nNot started: kd with seeds 1, 2; ckd, pkd with seeds 0, 1, 2.\n')
    assert json.loads((tmp_path / 'table.json').read_text())['not_started'] == found.not_started


def test_a_metric_that_no_run_has_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    report(tmp_path)
    found = read_matrix(tmp_path, 'coco/segm_mAP')
    assert found.summary.empty and len(found.failed) == 6
    assert found.failed[0].reason == 'no `coco/segm_mAP` was measured; `--metric` may be one of coco/bbox_mAP'
    write_report(tmp_path, 'coco/segm_mAP')
    assert (tmp_path / 'table.md').read_text().startswith('No run is finished.')


def test_no_matrix_gives_no_report(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='needs the folder of a matrix'):
        write_report(tmp_path)


def test_configs_are_called_by_their_files_where_that_is_enough() -> None:
    assert titles_of(['ckd:0.5', 'a/kd.py', 'ckd_mmdet::ckd/kd.py', 'a/b.py']) == {
        'ckd:0.5': 'ckd:0.5', 'a/kd.py': 'a/kd.py', 'ckd_mmdet::ckd/kd.py': 'ckd_mmdet::ckd/kd.py', 'a/b.py': 'b'}


def test_the_plots_name_every_method_and_the_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr('matplotlib.figure.Figure.savefig', lambda figure, buffer, **options: (
        written.extend(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, 'get_text')))))
    report(tmp_path)
    for text in ('none', 'kd', 'teacher', 'epoch', 'validation mAP', 'Mean of 3 seeds, band ± 1 standard deviation',
                 'Δ mAP to the student alone', 'share of the gap to the teacher'):
        assert text in written
    written.clear()
    report(tmp_path / 'accuracy', {'none': [70.0, 71.0], 'kd': [72.0, 73.5]}, 80.0, metric='accuracy/top1')
    for text in ('validation top-1 (%)', 'Δ top-1 (points) to the student alone'):
        assert text in written
    written.clear()
    report(tmp_path / 'unlike', {'none': [0.4, 0.4], 'kd': [0.5, 0.5, 0.6]})
    for text in ('none (2 seeds)', 'kd (3 seeds)', 'Mean of the seeds, band ± 1 standard deviation'):
        assert text in written


@pytest.mark.parametrize('scores', [SCORES, {'none': [0.4], 'kd': [0.4]}, {'kd': [0.4, 0.5]}])
def test_the_plots_are_pictures_whatever_is_there(scores: dict, tmp_path: Path) -> None:
    report(tmp_path, scores)
    names = ['by_epoch.png', 'gap_closed.png'] if 'none' in scores else ['by_epoch.png']
    assert sorted(path.name for path in tmp_path.glob('*.png')) == names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.width == 1200
