"""Ratios of gradients, and the weights that they make."""

from pathlib import Path

import pytest
import torch
from ckd_mmdet.balance import balanced, gradient_norm, gradient_ratios
from ckd_mmdet.losses import KDLoss
from mmengine.config import Config

from tests.small_runs import distilled, run_config, student_config, train
from tests.test_runs import STEPS, resumed

MEASURED = 6


def test_the_norm_is_that_of_all_maps_together() -> None:
    maps = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    loss = (maps[0] ** 2).sum() + 6 * maps[1].sum()  # gradients (2, 4) and 6
    assert gradient_norm(loss, maps).item() == pytest.approx((4 + 16 + 36) ** 0.5)
    assert gradient_norm(3 * maps[1].sum(), maps).item() == pytest.approx(3)  # the other map is not in it
    assert gradient_norm(torch.ones(()), maps) == 0
    loss.backward()  # its graph is kept
    assert maps[0].grad.tolist() == [2, 4]


def test_ratios_are_to_the_task() -> None:
    features = torch.tensor([3.0, 4.0], requires_grad=True)
    task, near, far = (features.sum() * factor for factor in (2.0, 1.0, 5.0))
    frozen = torch.zeros(1)  # a frozen stage's
    assert gradient_ratios(task, dict(near=near, far=far), [features, frozen]) == pytest.approx(dict(near=0.5, far=2.5))


def test_a_weight_is_the_median_of_what_was_measured() -> None:
    loss = KDLoss(loss_weight=dict(balance=0.5, iterations=3))
    assert loss.weight.at(0) == 1.0
    value = torch.tensor(8.0)
    first = balanced(loss, value, 2.0, 0, 'roi.loss_kd')  # the weight was 1
    assert loss.weight.at(0) == 0.25 and first == 2.0
    balanced(loss, first, 1.0, 0, 'roi.loss_kd')  # with the weight 0.25: 4 with 1
    assert loss.weight.ratios == [2.0, 4.0] and loss.weight.at(0) == pytest.approx(0.5 / 3)
    for nothing in (0.0, float('inf'), float('nan')):
        assert balanced(loss, value, nothing, 0, 'roi.loss_kd') == value
    balanced(loss, value, 0.5, 0, 'roi.loss_kd')
    assert loss.weight.ratios == pytest.approx([2.0, 4.0, 3.0]) and not loss.weight.is_measuring
    assert loss.weight.base == pytest.approx(0.5 / 3)


def test_a_schedule_is_on_top() -> None:
    loss = KDLoss(loss_weight=dict(balance=0.5, iterations=1, warm_up=4))
    assert balanced(loss, torch.tensor(0.25), 1.0, 0, 'roi.loss_kd') == 0.25 * 0.125  # a quarter gives 1: the whole 4
    assert loss.weight.ratios == [4.0] and loss.weight.at(3) == 0.125


@pytest.fixture(scope='module')
def cfg(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> Config:
    weight = dict(balance=0.5, iterations=MEASURED)
    model = distilled(student_config(), digit_teacher, dict(loss_kd=dict(type='KDLoss', loss_weight=weight)))
    return run_config(model, digits, tmp_path_factory.mktemp('balanced'), epochs=3)


@pytest.fixture(scope='module')
def run(cfg: Config) -> list[dict[str, float]]:
    return train(cfg)


def test_a_run_measures_fixes_and_keeps_the_weight(cfg: Config, run: list[dict[str, float]]) -> None:
    known, later = (torch.load(Path(cfg.work_dir) / f'epoch_{epoch}.pth', weights_only=False)['meta']['ckd_mmdet']
                    ['gradient_ratios']['roi.loss_kd'] for epoch in (2, 3))
    assert len(known) == MEASURED and known == later
    ratios = [step['roi.gradient_ratio_kd'] for step in run]
    assert ratios[0] == pytest.approx(known[0])  # with the weight 1
    rest = ratios[MEASURED:]
    assert min(rest) > 0 and 0.1 < sorted(rest)[len(rest) // 2] < 2.5  # it drifts as the student learns


def test_resumed_while_it_measures_the_run_continues_as_if_never_stopped(
        cfg: Config, run: list[dict[str, float]], tmp_path: Path) -> None:
    rest = train(resumed(cfg, Path(cfg.work_dir) / 'epoch_1.pth', tmp_path))  # four of six were measured
    assert rest == run[STEPS:]


def test_measuring_does_not_change_the_students_training(digits: Path, digit_teacher: dict, tmp_path: Path) -> None:
    model = distilled(student_config(), digit_teacher)
    often, never = (run_config(model, digits, tmp_path / name, epochs=1) for name in ('often', 'never'))
    never.default_hooks.logger.interval = 1000
    measured, plain = train(often), train(never)
    assert all('roi.gradient_ratio_ckd' in step for step in measured)
    assert not any('roi.gradient_ratio_ckd' in step for step in plain)
    assert [step['loss'] for step in measured] == [step['loss'] for step in plain]


def test_the_fixed_weight_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('ckd_mmdet.balance.print_log', lambda text, logger: said.append(text))
    loss = KDLoss(loss_weight=dict(balance=0.5, iterations=1))
    balanced(loss, torch.tensor(8.0), 2.0, 0, 'roi.loss_kd')
    assert said == ["`roi.loss_kd`: the weight is fixed at 0.25, by which its gradient on the student's features has "
                    "0.5 times the norm of the task's (median of 1 iterations)."]
