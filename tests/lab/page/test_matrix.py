"""``report.html`` of a matrix: what it says, that text stays text, and what a browser makes of it."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from ckd_mmdet.lab.compare.found import read_matrix
from ckd_mmdet.lab.compare.plan import keep_matrix
from ckd_mmdet.lab.page.matrix import content, write_page

from tests.lab.compare.matrices import a_matrix, play, run  # noqa: F401
from tests.lab.page.browser import needs_chromium, opened
from tests.small_runs import ROOT

STUDY = ROOT / 'docs/study/faster_rcnn'
VOID = {'meta', 'link', 'br', 'img', 'input'}


class Tags(HTMLParser):
    """All tags are closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def tags(page: str) -> list[tuple[str, dict]]:
    parser = Tags()
    parser.feed(page)
    assert not parser.open
    return parser.seen


def a_study(folder: Path) -> Path:
    """The page of the study's matrix."""
    return write_page(folder, read_matrix(STUDY))


def test_the_page_is_one_whole_file_that_loads_nothing(tmp_path: Path) -> None:
    page = a_study(tmp_path).read_text()
    for tag, attrs in tags(page):
        assert tag not in ('iframe', 'object', 'embed')
        assert all(not re.match('https?:|//', str(value)) for name, value in attrs.items() if name in ('href', 'src'))
    assert '@import' not in page and 'url(' not in page and "default-src 'none'" in page
    assert len(page) < 100_000


def test_the_page_says_the_verdict_the_numbers_the_configs_and_the_command() -> None:
    found = read_matrix(STUDY)
    said = content(STUDY, found, running=False)
    assert said['verdict'].startswith('features closes 70 % [56 %, 83 %] of the gap')
    rows = {row.cells[0][0]: [text for text, _ in row.cells[1:]] for row in said['results'].rows}
    assert rows['features'][:4] == ['0.524 ± 0.010', '+0.124 [+0.100, +0.148]', '< 0.001', '70 % [56 %, 83 %]']
    assert rows['student alone'][:2] == ['0.400 ± 0.022', ''] and rows['teacher'][0] == '0.578'
    assert said['sizes'].head == ['method', 'small objects']  # of the others there are none
    assert said['command'].startswith('python tools/compare.py configs/baselines/faster_rcnn_r18w16_fpn_9e_')
    assert '--epochs 4 --cfg-options train_cfg.val_interval=2 train_dataloader.batch_size=4' in said['command']
    assert said['origin']['versions'].startswith('ckd_mmdet 0.1.0, torch 2.11')


def test_a_legend_has_at_most_eight_names_and_every_method_is_in_one(tmp_path: Path) -> None:
    said = content(STUDY, read_matrix(STUDY), running=False)
    shown = [line.title for chart in said['curves'] for line in chart.lines]
    assert all(len(chart.lines) + 1 <= 8 and chart.lines[0].title == 'student alone' for chart in said['curves'])
    assert {title for title in shown if title != 'student alone'} == {bar.title for bar in said['differences'].bars}
    assert all(len({line.style for line in chart.lines}) == len(chart.lines) for chart in said['curves'])
    assert ':' not in ''.join(line.title for line in said['curves'][0].lines)  # variants have charts of their own


def test_names_and_paths_stay_text(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>'
    names = ['none', evil, '"><img src=x onerror=alert(2)>', '\x1b[2J']
    matrix = a_matrix(tmp_path / evil.replace('/', '_'), names, [0])
    folder = matrix.settings.out
    matrix.identity['student']['config'] = f'{evil}.py'
    matrix.identity['options']['a'] = '</pre><b>'
    keep_matrix(matrix)
    for method in matrix.methods:
        path = folder / 'runs' / method.folder / '0'
        path.mkdir(parents=True)
        (path / 'result.json').write_text(json.dumps(dict(
            method=method.name, seed=0, epochs=1, metrics={'coco/bbox_mAP': {'1': 0.4}}, config='',
            seconds_per_step=1.0, device=evil)))
    (folder / 'runs/none/1').mkdir()
    (folder / 'runs/none/1/failed.txt').write_text(f'ValueError: {evil}')
    page = write_page(folder, read_matrix(folder)).read_text()
    assert [attrs for tag, attrs in tags(page) if tag == 'script'] == [{}]  # our own
    assert not [tag for tag, _ in tags(page) if tag in ('img', 'b')] and '\x1b' not in page
    assert page.count('&lt;script&gt;alert(1)') > 6


def test_methods_are_called_as_people_say(tmp_path: Path) -> None:
    scores = {'none': [0.40, 0.41, 0.42], 'a/kd.py': [0.50, 0.51, 0.52], 'ckd:0.5': [0.41, 0.43, 0.40]}
    matrix = a_matrix(tmp_path, list(scores), [0, 1, 2], titles={'a/kd.py': 'KD, left out', 'none': 'baseline'})
    keep_matrix(matrix)
    keep_matrix(a_matrix(tmp_path, list(scores), [0], titles={'ckd:0.5': 'half'}))  # joins those of before
    for method in matrix.methods:
        for seed, score in enumerate(scores[method.name]):
            path = tmp_path / 'runs' / method.folder / str(seed)
            path.mkdir(parents=True)
            (path / 'result.json').write_text(json.dumps(dict(
                method=method.name, seed=seed, epochs=2, metrics={'coco/bbox_mAP': {'1': score / 2, '2': score}},
                config='', seconds_per_step=1.0)))
    said = content(tmp_path, read_matrix(tmp_path), running=False)
    assert said['verdict'].startswith('KD, left out is better') and 'half cannot be' in said['verdict']
    assert [row.cells[0][0] for row in said['results'].rows] == ['baseline', 'KD, left out', 'half']
    assert list(said['settings_of']) == ['KD, left out', 'half']
    assert [line.title for line in said['curves'][0].lines] == ['baseline', 'KD, left out', 'half']


def test_while_a_matrix_runs_its_page_reads_itself_anew(play: Callable, tmp_path: Path,  # noqa: F811
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    monkeypatch.setattr('ckd_mmdet.lab.compare.main.write_page', lambda folder, found, running=False: written.append(
        (write_page(folder, found, running=running).read_text(), len(found.values[found.values['last']]))))
    run(a_matrix(tmp_path / 'out', jobs=1))
    assert [count for _, count in written] == [0, 0, 1, 2, 3, 4]  # first, after the teacher's test, after each run
    assert all('http-equiv="refresh"' in page for page, _ in written)
    assert 'Finished runs: 3 of 4' in written[4][0] and 'model.student.method' in written[4][0]
    assert 'http-equiv="refresh"' not in write_page(tmp_path / 'out', read_matrix(tmp_path / 'out')).read_text()


@needs_chromium
def test_a_browser_shows_the_page_and_sorts_its_table(tmp_path: Path) -> None:
    page = a_study(tmp_path)
    assert 'features closes 70 %' in opened(page)
    dom = opened(page, click=1)  # the mean
    body = dom.split('<tbody>')[1].split('</tbody>')[0]
    rows = [re.findall('data-value="([^"]*)"', row) for row in body.split('</tr>')[:-1]]
    means = [float(mean) for _, mean, *_ in rows]
    assert means == sorted(means, reverse=True) and len(means) == 19 and 'aria-sort="descending"' in dom
