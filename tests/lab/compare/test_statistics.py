"""The arithmetic, against numbers made by hand and plain loops."""

import math
from collections.abc import Sequence

import pandas as pd
import pytest
from ckd_mmdet.lab.compare.statistics import (
    compare_methods,
    curves,
    gap_of,
    holm,
    p_value,
    paired,
    scores,
    summarize,
    tabulate,
    why_none,
)
from scipy import stats

T_OF_2, T_OF_1, T_OF_4 = 4.302652729911275, 12.706204736432095, 2.7764451051977987  # 97.5 % points, any table has them


def results(**scores: Sequence[float]) -> list[dict]:
    """Runs of two epochs; the last scores as given, by seed."""
    return [dict(method=method, seed=seed, epochs=2, seconds_per_step=0.1 * (seed + 1),
                 metrics={'mAP': {'1': score / 2, '2': score}})
            for method, values in scores.items() for seed, score in enumerate(values)]


def test_the_interval_of_three_differences_is_the_textbook_s() -> None:
    mean, low, high, count = paired(pd.Series([0.01, 0.02, 0.03]))
    half = T_OF_2 * 0.01 / math.sqrt(3)
    assert (mean, count) == (pytest.approx(0.02), 3)
    assert (low, high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))


@pytest.mark.parametrize(('values', 't'), [((0.3, -0.1), T_OF_1), ((0.02, 0.05, 0.01, 0.0, -0.03), T_OF_4)])
def test_the_interval_is_mean_and_t_times_the_standard_error(values: tuple, t: float) -> None:
    n = len(values)
    mean = sum(values) / n
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    assert paired(pd.Series(values)) == pytest.approx((mean, mean - t * deviation / math.sqrt(n),
                                                       mean + t * deviation / math.sqrt(n), n))


def test_equal_differences_leave_an_interval_of_no_width() -> None:
    assert paired(pd.Series([0.5, 0.5])) == (0.5, 0.5, 0.5, 2)


def test_one_difference_gives_no_interval_and_none_gives_nothing() -> None:
    mean, low, high, count = paired(pd.Series([0.02, math.nan]))
    assert (mean, count) == (0.02, 1) and math.isnan(low) and math.isnan(high)
    assert math.isnan(paired(pd.Series([math.nan]))[0])


def test_p_is_where_the_interval_of_that_level_just_touches_0() -> None:
    values = pd.Series([0.02, 0.05, 0.01, 0.0, -0.03])
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    shifted = values - values.mean() + T_OF_4 * values.std(ddof=1) / math.sqrt(5)  # its 95 % interval begins at 0
    assert p_value(shifted) == pytest.approx(0.05)


def test_p_of_equal_differences_and_of_too_few() -> None:
    assert p_value(pd.Series([0.5, 0.5])) == 0 and p_value(pd.Series([0.0, 0.0])) == 1
    assert math.isnan(p_value(pd.Series([0.5, math.nan])))


def test_holm_multiplies_the_smallest_by_their_number_and_never_decreases() -> None:
    adjusted = holm(pd.Series(dict(a=0.04, b=0.01, c=math.nan, d=0.03, e=0.9)))
    assert adjusted.drop('c').to_dict() == pytest.approx(dict(b=0.04, d=0.09, a=0.09, e=0.9))
    assert math.isnan(adjusted['c'])


def test_a_method_s_row_has_mean_deviation_paired_difference_and_share_of_the_gap() -> None:
    values = tabulate(results(none=[0.40, 0.41, 0.45], kd=[0.42, 0.45, 0.45]), 'mAP')
    summary = summarize(values, ['none', 'kd'], teacher=0.52)
    none, kd = summary.loc['none'], summary.loc['kd']
    assert (none['seeds'], none['mean'], none['sd']) == pytest.approx((3, 0.42, math.sqrt(0.0014 / 2)))
    assert kd['mean'] == pytest.approx(0.44) and kd['pairs'] == 3
    # differences 0.02, 0.04, 0.00
    half = T_OF_2 * 0.02 / math.sqrt(3)
    assert kd[['difference', 'low', 'high']].tolist() == pytest.approx([0.02, 0.02 - half, 0.02 + half])
    # of a gap of 0.52 - 0.42
    assert kd[['share', 'share_low', 'share_high']].tolist() == pytest.approx(
        [0.2, (0.02 - half) / 0.1, (0.02 + half) / 0.1])
    assert kd['seconds'] == pytest.approx(0.2) and math.isnan(none['difference'])


def test_seeds_are_paired_with_their_own_twin() -> None:
    runs = [run for run in results(none=[0.1, 0.5], kd=[0.2, 0.6, 0.9]) if (run['method'], run['seed']) != ('none', 0)]
    kd = summarize(tabulate(runs, 'mAP'), ['none', 'kd'], None).loc['kd']
    assert (kd['seeds'], kd['pairs'], kd['difference']) == (3, 1, pytest.approx(0.1))
    assert math.isnan(kd['low'])


@pytest.mark.parametrize('teacher', [0.40, 0.30, None])
def test_without_a_positive_gap_there_is_no_share(teacher: float | None) -> None:
    values = tabulate(results(none=[0.4, 0.4], kd=[0.5, 0.5]), 'mAP')
    assert math.isnan(summarize(values, ['none', 'kd'], teacher).loc['kd', 'share'])
    assert gap_of(values, teacher) == (None if teacher is None else pytest.approx(teacher - 0.4))


def test_one_seed_has_a_mean_and_no_deviation() -> None:
    row = summarize(tabulate(results(none=[0.4], kd=[0.5]), 'mAP'), ['none', 'kd'], 0.6).loc['kd']
    assert (row['mean'], row['share']) == pytest.approx((0.5, 0.5))
    assert row[['sd', 'low', 'high', 'share_low']].isna().all()


def test_methods_without_a_finished_run_have_no_row() -> None:
    assert summarize(tabulate([], 'mAP'), ['none', 'kd'], 0.5).empty
    lone = summarize(tabulate(results(kd=[0.5, 0.6]), 'mAP'), ['none', 'kd'], 0.7)
    assert list(lone.index) == ['kd'] and math.isnan(lone.loc['kd', 'difference'])


@pytest.mark.parametrize(('metric', 'epochs'), [
    ('coco/bbox_mAP', {1: 0.0, 2: 0.3}), ('coco/bbox_mAP_50', {1: 0.0}), ('coco/segm_mAP_75', {1: 0.0}),
    ('coco/bbox_mAP_s', {}), ('accuracy/top1', {})])
def test_a_detector_that_finds_nothing_has_a_mean_precision_of_0_and_no_other_score(metric: str, epochs: dict) -> None:
    assert scores(dict(metrics={'coco/bbox_mAP': {'2': 0.3}}, nothing_found=[1]), metric) == epochs


@pytest.mark.parametrize(('metric', 'value', 'text'), [
    ('mAP', None, '`mAP` is NaN or infinite'), ('mAP', math.nan, 'NaN'), ('mAP', math.inf, 'NaN or inf'),
    ('coco/bbox_mAP_s', -1.0, 'there is no such object')])
def test_what_is_no_score_gives_no_row_and_has_a_reason(metric: str, value: float | None, text: str) -> None:
    assert text in why_none(metric, value)
    result = dict(method='kd', seed=0, epochs=2, seconds_per_step=0.1, metrics={metric: {'1': 0.5, '2': value}})
    assert tabulate([result], metric)[['epoch', 'value']].to_numpy().tolist() == [[1, 0.5]]


def test_minus_1_is_a_score_of_other_metrics() -> None:
    assert why_none('correlation/tau', -1.0) is None and why_none('coco/bbox_mAP', 0.0) is None


def test_every_two_methods_with_two_common_seeds_are_compared_the_better_less_the_other() -> None:
    runs = results(none=[0.1, 0.1, 0.1], kd=[0.40, 0.41, 0.45], ckd=[0.42, 0.45, 0.45], pkd=[0.3], dkd=[0.1, 0.2])
    values = tabulate(runs, 'mAP')
    found = compare_methods(values, summarize(values, ['none', 'kd', 'ckd', 'pkd', 'dkd'], None))
    assert found[['method', 'other', 'pairs']].to_numpy().tolist() == [
        ['ckd', 'kd', 3], ['ckd', 'dkd', 2], ['kd', 'dkd', 2]]  # one seed of pkd makes no pair
    half = T_OF_2 * 0.02 / math.sqrt(3)  # differences 0.02, 0.04, 0.00
    assert found.loc[0, ['difference', 'low', 'high']].tolist() == pytest.approx([0.02, 0.02 - half, 0.02 + half])
    half = T_OF_1 * 0.07 / math.sqrt(2) / math.sqrt(2)  # differences 0.32, 0.25
    assert found.loc[1, ['difference', 'low', 'high']].tolist() == pytest.approx([0.285, 0.285 - half, 0.285 + half])


@pytest.mark.parametrize('runs', [{}, dict(none=[0.1, 0.2], kd=[0.1, 0.2]), dict(kd=[0.1], ckd=[0.2])])
def test_nothing_to_compare_gives_no_pairs(runs: dict) -> None:
    values = tabulate(results(**runs), 'mAP')
    assert compare_methods(values, summarize(values, list(runs), None)).empty


def test_the_curve_is_the_mean_over_the_seeds_at_each_epoch() -> None:
    lines = curves(tabulate(results(kd=[0.2, 0.4]), 'mAP'))
    assert lines['mean'].to_dict() == pytest.approx({('kd', 1): 0.15, ('kd', 2): 0.3})
    assert lines.loc[('kd', 2), 'std'] == pytest.approx(math.sqrt(0.02))
