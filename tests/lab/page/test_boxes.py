"""By class, by kind of error, and on photographs, from what the runs of a matrix have kept."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ckd_mmdet.lab.compare.found import Found, read_matrix
from ckd_mmdet.lab.page.boxes import classes_table, embed, errors_table, judged, photographs, read_kept
from ckd_mmdet.lab.page.matrix import write_page
from PIL import Image

from tests.lab.compare.test_report import report

EVIL = '<script>alert(3)</script>'
NAMES = {'none': 'student alone', 'kd': 'kd'}
TRUTH = [[10, 10, 20, 20, EVIL], [60, 10, 20, 20, 'dog']]


def keep(folder: Path, cat: float, dog: float | None, boxes: list, file: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    classes = {EVIL: cat, 'dog': dog} if dog is not None else {EVIL: cat}
    errors = dict.fromkeys(('box', 'class', 'duplicate', 'background', 'both', 'missed'), cat / 10) | {'AP50': cat}
    (folder / 'detections.json').write_text(json.dumps(dict(classes=classes, errors=errors, photographs=[
        dict(file=file, size=[100, 50], truth=TRUTH, boxes=boxes)])))


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Found]:
    """A matrix whose runs have kept their boxes: of seed 0 only the student alone has."""
    for name in ('by_epoch', 'gap_closed'):
        monkeypatch.setattr(f'ckd_mmdet.lab.compare.plots.{name}', lambda *args: b'')
    Image.new('RGB', (1000, 500), 'white').save(tmp_path / 'photo.png')
    folder, file = tmp_path / 'matrix', str(tmp_path / 'photo.png')
    report(folder, {'none': [0.4, 0.41, 0.45], 'kd': [0.42, 0.45, 0.45]})
    right, wrong = [10, 10, 20, 20, EVIL, 0.9], [60, 10, 20, 20, EVIL, 0.8]
    for seed, cat in enumerate((0.1, 0.2, 0.3)):
        keep(folder / f'runs/none/{seed}', cat, 0.5, [wrong], file)
        if seed:
            keep(folder / f'runs/kd/{seed}', cat + 0.1 * seed, None, [right, wrong], file)
    keep(folder / 'teacher', 0.9, 0.8, [right], file)
    return folder, read_matrix(folder)


def rows(table: Any) -> dict[str, list[str]]:
    return {row.cells[0][0]: [text for text, _ in row.cells[1:]] for row in table.rows}


def test_by_class_a_method_differs_from_its_twin_of_the_same_seed(kept: tuple) -> None:
    runs, teacher = read_kept(*kept)
    table = classes_table(runs, teacher, NAMES)
    assert table.head == ['class', 'student alone', 'Δ kd', 'teacher']
    assert rows(table) == {EVIL: ['0.200', '+0.150', '0.900'], 'dog': ['0.500', '', '0.800']}
    del runs['none']
    assert not classes_table(runs, teacher, NAMES).rows


def test_the_cost_of_errors_is_the_mean_over_the_seeds(kept: tuple) -> None:
    table = errors_table(*read_kept(*kept), NAMES)
    assert table.head == ['method', 'AP50', 'box', 'class', 'duplicate', 'background', 'both', 'missed']
    assert rows(table)['kd'][:2] == ['0.400', '0.040'] and rows(table)['teacher'][0] == '0.900'


def test_photographs_are_of_a_seed_that_all_have_and_judge_each_box(kept: tuple) -> None:
    shown, seed = photographs(kept[1], *read_kept(*kept))
    photograph, = shown
    assert seed == 1 and (photograph.width, photograph.height) == (100, 50)
    assert {title: [box.kind for box in boxes] for title, boxes in photograph.panels} == {
        'ground truth': ['truth', 'truth'], 'teacher': ['missed', 'right'],
        'student alone': ['missed', 'missed', 'wrong'], 'kd': ['missed', 'wrong', 'right']}
    assert photograph.panels[1][1][1].text == f'{EVIL} 0.90'


def test_a_second_box_of_an_object_is_wrong_and_without_boxes_all_is_missed() -> None:
    twice = [[10, 10, 20, 20, 'dog', 0.5], [10, 10, 20, 21, 'dog', 0.9]]
    kinds = [(box.height, box.kind) for box in judged(twice, [[10, 10, 20, 20, 'dog']])]
    assert kinds == [(20, 'wrong'), (21, 'right')]
    assert [box.kind for box in judged([], TRUTH)] == ['missed', 'missed']
    assert [box.kind for box in judged(twice[:1], [])] == ['wrong']


def test_a_photograph_is_embedded_small_and_one_that_is_gone_is_left_out(kept: tuple, tmp_path: Path) -> None:
    address = embed(tmp_path / 'photo.png')
    with Image.open(io.BytesIO(base64.b64decode(address.partition(',')[2]))) as image:
        assert image.size == (480, 240) and np.asarray(image).min() > 250
    (tmp_path / 'photo.png').write_text('no image')
    assert embed(tmp_path / 'photo.png') is None and photographs(kept[1], *read_kept(*kept)) == ([], 1)


def test_the_page_has_each_photograph_once_and_class_names_stay_text(kept: tuple) -> None:
    page = write_page(*kept).read_text()
    assert page.count('data:image/jpeg') == 1 and page.count('href="#photograph1"') == 4
    assert EVIL not in page and page.count('&lt;script&gt;alert(3)') > 5
    for title in ('By class', 'The same photographs', 'Where the students still err', 'Cost'):
        assert f'<h2>{title}</h2>' in page
