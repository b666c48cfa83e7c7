"""Kinds of errors and their cost, on scenes made by hand and against pycocotools."""

import contextlib
import io
import random
from collections.abc import Sequence

import numpy as np
import pytest
from ckd_mmdet.lab.compare.detections import Detections, keep_detections, read_detections, summarize
from ckd_mmdet.lab.compare.errors import BACKGROUND, BOTH, BOX, CLASS, DUPLICATE, ap50, costs, mend, outcome_of
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

SQUARE = [10.0, 10.0, 20.0, 20.0]
SHIFTED = [20.0, 10.0, 20.0, 20.0]
"""Overlaps :data:`SQUARE` with an IoU of 1/3."""
FAR = [70.0, 70.0, 20.0, 20.0]


def coco(objects: Sequence[tuple[int, int, Sequence[float]]], images: int = 1, crowd: Sequence[int] = ()) -> COCO:
    """Annotations of ``(image, category, box)``."""
    made = COCO()
    made.dataset = dict(
        images=[dict(id=number, file_name=f'{number}.png', width=100, height=100) for number in range(images)],
        categories=[dict(id=number, name=name) for number, name in enumerate('abc', 1)],
        annotations=[dict(id=place, image_id=image, category_id=category, bbox=list(box), area=box[2] * box[3],
                          iscrowd=int(place in crowd)) for place, (image, category, box) in enumerate(objects, 1)])
    with contextlib.redirect_stdout(io.StringIO()):
        made.createIndex()
    return made


def result(category: int, score: float, box: Sequence[float], image: int = 0) -> dict:
    return dict(image_id=image, category_id=category, bbox=list(box), score=score)


def evaluated(truth: COCO, found: list[dict]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        made = COCOeval(truth, truth.loadRes(found), 'bbox')
        made.evaluate()
        made.accumulate()
        made.summarize()
    return made


@pytest.mark.parametrize(('found', 'kind'), [
    ([result(1, 0.9, SQUARE)], -1), ([result(1, 0.9, SHIFTED)], BOX), ([result(2, 0.9, SQUARE)], CLASS),
    ([result(1, 0.9, SQUARE), result(1, 0.8, SQUARE)], DUPLICATE), ([result(1, 0.9, FAR)], BACKGROUND),
    ([result(2, 0.9, SHIFTED)], BOTH)])
def test_a_detection_has_the_kind_of_its_error(found: list, kind: int) -> None:
    outcome = outcome_of(evaluated(coco([(0, 1, SQUARE)]), found))
    assert outcome.kind[-1] == kind and outcome.target[-1] == (0 if kind in (BOX, CLASS) else -1)


@pytest.mark.parametrize(('found', 'costly'), [
    ([result(1, 0.9, SHIFTED)], {'box': 1.0}), ([result(2, 0.9, SQUARE)], {'class': 1.0}),
    # one of two false ones before the true one: a precision of 1/2, and of 1 without it
    ([result(1, 0.9, FAR), result(1, 0.8, SQUARE)], {'background': 0.5}),
    ([result(2, 0.9, SHIFTED), result(1, 0.8, SQUARE)], {}),  # a false one of a class without objects costs nothing
    ([result(1, 0.9, SQUARE), result(1, 0.8, SQUARE)], {}), ([result(1, 0.5, SQUARE)], {})])
def test_the_cost_of_a_kind_is_what_ap50_gains_without_it(found: list, costly: dict) -> None:
    measured = costs(evaluated(coco([(0, 1, SQUARE)]), found))
    del measured['AP50']
    assert {name: cost for name, cost in measured.items() if cost} == pytest.approx(costly)


def test_what_is_missed_is_what_not_even_a_wrong_detection_touches() -> None:
    truth = coco([(0, 1, SQUARE), (0, 1, FAR), (1, 1, SQUARE)], images=2)
    found = [result(1, 0.9, SQUARE), result(1, 0.8, SHIFTED, image=1)]  # FAR is missed, the other has a wrong box
    measured = costs(evaluated(truth, found))
    at = np.linspace(0, 1, 101)
    assert measured['AP50'] == pytest.approx((at <= 1 / 3).mean())
    assert measured['missed'] == pytest.approx((at <= 1 / 2).mean() - measured['AP50'])
    assert measured['box'] == pytest.approx((at <= 2 / 3).mean() - measured['AP50'])


def test_two_errors_about_one_object_mend_it_once_and_a_found_one_never() -> None:
    truth = coco([(0, 1, SQUARE), (0, 2, FAR)])
    found = [result(2, 0.9, SQUARE), result(3, 0.8, SQUARE), result(3, 0.7, FAR), result(2, 0.6, FAR)]
    outcome = mend(outcome_of(evaluated(truth, found)), CLASS)
    assert sorted(zip(outcome.category.tolist(), outcome.score.tolist(), outcome.right.tolist(), strict=True)) == [
        (1, 0.9, True), (2, 0.6, True)]


def a_scene(seed: int) -> tuple[COCO, list[dict]]:
    draw = random.Random(seed)

    def box() -> list[float]:
        return [draw.uniform(0, 40), draw.uniform(0, 40), draw.uniform(20, 40), draw.uniform(20, 40)]

    objects = [(draw.randrange(3), draw.choice([1, 2]), box()) for _ in range(12)]
    shaken = [(image, draw.randint(1, 3), [value + draw.uniform(-8, 8) for value in corners])
              for image, _, corners in objects * 3]
    return (coco(objects, images=3, crowd=[2, 5]),
            [result(category, draw.random(), corners, image) for image, category, corners in shaken])


@pytest.mark.parametrize('seed', range(5))
def test_ap50_is_pycocotools_s_and_no_mending_makes_it_worse(seed: int) -> None:
    of_coco = evaluated(*a_scene(seed))
    measured = costs(of_coco)
    assert measured['AP50'] == pytest.approx(of_coco.stats[1], abs=1e-9)
    assert min(measured.values()) > -1e-9 and len(set(measured.values())) > 4


def test_the_precision_of_the_classes_has_their_mean_and_photographs_their_boxes(tmp_path) -> None:
    truth, found = a_scene(1)
    where = Detections('val_evaluator', None, 'pictures', None)
    kept = summarize(truth, found, where)
    assert np.mean(list(kept['classes'].values())) == pytest.approx(evaluated(truth, found).stats[0])
    assert list(kept['classes']) == ['a', 'b'] and [one['file'] for one in kept['photographs']] == [
        'pictures/0.png', 'pictures/1.png', 'pictures/2.png']
    count = sum(len(one['boxes']) for one in kept['photographs'])
    assert count == sum(one['score'] >= 0.3 for one in found) and kept['photographs'][0]['boxes'][0][4] in 'abc'
    assert sum(len(one['truth']) for one in kept['photographs']) == 10  # without the crowds
    only = summarize(truth, found, Detections('val_evaluator', None, '', ('b',)))
    assert list(only['classes']) == ['b'] and kept['classes']['b'] == only['classes']['b']


def test_a_detector_that_finds_nothing_has_missed_all(tmp_path) -> None:
    kept = summarize(coco([(0, 1, SQUARE)]), [], Detections('val_evaluator', None, '', None))
    assert kept['classes'] == {'a': 0.0} and kept['errors']['missed'] == 0 == kept['errors']['AP50']
    assert ap50(outcome_of(evaluated(coco([(0, 1, SQUARE)]), [result(2, 0.5, FAR)]))) == 0


def test_nothing_is_kept_where_the_validation_left_nothing(tmp_path) -> None:
    keep_detections(tmp_path, Detections('val_evaluator', None, '', None))
    assert not list(tmp_path.iterdir()) and read_detections(tmp_path) is None
    (tmp_path / 'detections.json').write_text('[1, ')
    assert read_detections(tmp_path) is None
