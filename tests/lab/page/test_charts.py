"""Where the parts of charts lie, against coordinates made by hand."""

import math
import random

import pandas as pd
import pytest
from ckd_mmdet.lab.page.charts import LEFT, RIGHT, TOP, WIDTH, Scale, difference_chart, line_chart, ticks


def test_a_scale_is_linear_and_may_be_turned_around() -> None:
    assert [Scale(0, 2, 10, 30)(value) for value in (0, 1, 2, 3)] == [10, 20, 30, 40]
    assert [Scale(0, 2, 30, 10)(value) for value in (0, 1, 2)] == [30, 20, 10]


def test_ticks_are_round_inside_and_never_too_many_nor_too_few() -> None:
    assert ticks(0.11, 0.58) == [0.2, 0.3, 0.4, 0.5] and ticks(-0.1, 0.1, 4) == [-0.1, 0, 0.1]
    assert ticks(3, 3) == [3]
    draw = random.Random(0)
    for _ in range(300):
        low = draw.uniform(-1, 1) * 10 ** draw.randint(-3, 3)
        high = low + draw.uniform(0.1, 1) * 10 ** draw.randint(-3, 3)
        found = ticks(low, high)
        assert 2 <= len(found) <= 5 and low - 1e-9 <= found[0] and found[-1] <= high + 1e-9
        steps = {round(second - first, 9) for first, second in zip(found[:-1], found[1:], strict=True)}
        assert len(steps) == 1 and f'{steps.pop():e}'[0] in '125'


def curve(means: list, stds: list) -> pd.DataFrame:
    return pd.DataFrame(dict(mean=means, std=stds), index=[1, 2, 3])


def test_a_line_has_its_values_and_a_band_of_one_deviation() -> None:
    chart = line_chart('mAP', {'a': curve([0.1, 0.2, 0.3], [0.1, 0.1, math.nan])}, {'a': 2}, 'epoch', teacher=0.5,
                       height=300)
    line, = chart.lines
    y = Scale(0 - 0.02, 0.5 + 0.02, 300 - 40, TOP)
    assert line.points == [(LEFT, y(0.1)), (LEFT + (WIDTH - RIGHT - LEFT) / 2, y(0.2)), (WIDTH - RIGHT, y(0.3))]
    assert [point[1] for point in line.band] == [y(0.2), y(0.3), y(0.1), y(0.0)]
    assert chart.reference == y(0.5) and [text for _, text in chart.x_ticks] == ['1', '2', '3'] and line.style == 2


def test_one_epoch_lies_in_the_middle_and_one_value_has_room() -> None:
    chart = line_chart('mAP', {'a': curve([0.2] * 3, [math.nan] * 3).loc[[1]]}, {'a': 0}, 'epoch')
    (x, y), = chart.lines[0].points
    assert x == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=0.1) and TOP < y < 260 and not chart.lines[0].band


def test_differences_have_bars_seeds_and_shares_of_the_gap() -> None:
    summary = pd.DataFrame(dict(difference=[0.1, -0.1], low=[0.0, math.nan], high=[0.2, math.nan]), index=['a', 'b'])
    chart = difference_chart('Δ', summary, dict(a=[0.05, 0.15], b=[-0.1]), dict(a='A', b='B'), dict(a=1, b=2), 'mAP',
                             gap=0.2)
    x = Scale(-0.1 - 0.012, 0.2 + 0.012, RIGHT, WIDTH - RIGHT)
    first, second = chart.bars
    assert (first.mean, first.interval, first.seeds) == (x(0.1), (x(0), x(0.2)), [x(0.05), x(0.15)])
    assert second.interval is None and second.y > first.y and chart.reference == x(0)
    assert chart.shares == [(x(-0.1), '-50 %'), (x(0), '0 %'), (x(0.1), '50 %'), (x(0.2), '100 %')]
    of_one_seed = summary.assign(low=math.nan, high=math.nan)
    bars = difference_chart('Δ', of_one_seed, dict(a=[0.1], b=[-0.1]), dict(a='A', b='B'), dict(a=1, b=2), 'mAP').bars
    assert [bar.mean for bar in bars] == [Scale(-1.08, 1.08, RIGHT, WIDTH - RIGHT)(one) for one in (1, -1)]
    assert not difference_chart('Δ', summary, dict(a=[], b=[]), dict(a='A', b='B'), dict(a=1, b=2), 'mAP').shares
