"""Ratios of gradients, and the weights that they make."""

from functools import partial
from pathlib import Path

import pytest
import torch
from ckd_mmdet.balance import balanced, gradient_norm, gradient_ratios
from ckd_mmdet.distillation import LOGGED
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.losses import KDLoss
from mmengine.config import Config
from mmengine.logging import MessageHub
from torch.utils.checkpoint import checkpoint

from tests.small_runs import distilled, run_config, student_config, train
from tests.test_runs import STEPS, resumed
from tests.toys import paired, toy_batch

MEASURED = 6


def test_the_norm_is_that_of_all_maps_together() -> None:
    maps = [torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)]
    loss = (maps[0] ** 2).sum() + 6 * maps[1].sum()  # gradients (2, 4) and 6
    assert gradient_norm(loss, maps).item() == pytest.approx((4 + 16 + 36) ** 0.5)
    assert gradient_norm(3 * maps[1].sum(), maps).item() == pytest.approx(3)  # the other map is not in it
    assert gradient_norm(torch.ones(()), maps) == 0
    loss.backward()  # its graph is kept
    assert maps[0].grad.tolist() == [2, 4]


def test_a_small_gradient_in_half_precision_is_not_lost() -> None:
    level = torch.zeros(1000, dtype=torch.float16, requires_grad=True)
    loss = (level.float() * 1e-8).sum()  # float16 begins at 6e-8
    assert gradient_norm(loss, [level]).item() == pytest.approx(1e-8 * 1000**0.5, rel=0.01)


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


def test_a_rank_without_rows_does_not_change_a_ratio(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.tensor([3.0, 4.0], requires_grad=True)
    task, loss = features.sum(), features.sum() * 3

    def other_rank_has(*theirs: float) -> None:
        monkeypatch.setattr('ckd_mmdet.balance.all_reduce',
                            lambda sums, op: sums.add_(torch.tensor([[theirs[0]], [theirs[1]]])))

    other_rank_has(0.0, 0.0)  # no rows: no ratio, and no share in the mean
    assert gradient_ratios(task, dict(kd=loss), [features]) == pytest.approx(dict(kd=3.0))
    other_rank_has(5.0, 1.0)
    assert gradient_ratios(task, dict(kd=loss), [features]) == pytest.approx(dict(kd=4.0))


def test_a_ratio_is_to_the_task_alone(digit_teacher: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr('ckd_mmdet.distillation.gradient_ratios',
                        lambda task, losses, features: seen.append(float(task.detach())) or dict.fromkeys(losses, 1.0))
    model = measuring(1.0, digit_teacher)
    losses = step(model)
    own = {key: value for key, value in losses.items() if not key.startswith('roi.')}
    assert seen == [pytest.approx(float(model.parse_losses(own)[0].detach()))]


def measuring(loss_weight: float | dict, teacher: dict) -> Distilled:
    losses = dict(loss_kd=dict(type='KDLoss', loss_weight=loss_weight))
    return paired(distilled(student_config(), teacher, losses)).train()


def step(model: Distilled) -> dict:
    data = model.data_preprocessor(toy_batch(num_classes=10), True)
    losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    return losses


def test_a_frozen_trunk_trains_without_a_ratio_and_refuses_a_balance(digit_teacher: dict) -> None:
    model, balance = measuring(1.0, digit_teacher), measuring(dict(balance=0.5), digit_teacher)
    for one in (model, balance):
        for part in (one.backbone, one.neck):
            part.requires_grad_(False)
    assert 'roi.gradient_ratio_kd' not in step(model)  # 0 / 0
    assert model.roi_head.bbox_head.fc_cls.weight.grad.any()
    with pytest.raises(RuntimeError, match=r"'balance:...'` of roi.loss_kd is measured .* frozen; give a number"):
        step(balance)


def test_reentrant_checkpointing_ends_no_run_for_a_log(digit_teacher: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('ckd_mmdet.distillation.print_log', lambda text, **options: said.append(text))
    model, balance = measuring(1.0, digit_teacher), measuring(dict(balance=0.5), digit_teacher)
    for one in (model, balance):
        head = one.roi_head.bbox_head
        monkeypatch.setattr(head, 'forward', partial(checkpoint, head.forward, use_reentrant=True))
    for _ in range(2):
        assert 'roi.gradient_ratio_kd' not in step(model)
    assert model.neck.fpn_convs[0].conv.weight.grad.any() and len(said) == 1 and 'is not logged' in said[0]
    with pytest.raises(RuntimeError, match=r'of roi.loss_kd cannot be measured .* give a number'):
        step(balance)


def test_a_compiled_backward_pass_ends_no_run_for_a_log(digit_teacher: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:  # as PyTorch does where a graph is kept
        raise RuntimeError('This backward function was compiled with non-empty donated buffers which requires ...')

    monkeypatch.setattr('ckd_mmdet.distillation.gradient_ratios', refuse)
    assert 'roi.gradient_ratio_kd' not in step(measuring(1.0, digit_teacher))
    with pytest.raises(RuntimeError, match=r'cannot be measured through a compiled backward pass .* give a number'):
        step(measuring(dict(balance=0.5), digit_teacher))


def test_after_its_stop_a_weight_is_measured_no_more(digit_teacher: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    model = measuring(dict(balance=0.5, stop=1), digit_teacher)
    hub = MessageHub.get_current_instance()
    monkeypatch.setitem(hub.runtime_info, LOGGED, False)
    assert 'roi.gradient_ratio_kd' in step(model)
    monkeypatch.setitem(hub.runtime_info, LOGGED, True)
    monkeypatch.setitem(hub.runtime_info, 'epoch', 1)
    losses = step(model)
    assert 'roi.gradient_ratio_kd' not in losses and losses['roi.loss_kd'] == 0


@pytest.fixture(scope='module')
def cfg(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> Config:
    weight = dict(balance=0.5, iterations=MEASURED)
    model = distilled(student_config(), digit_teacher, dict(loss_kd=dict(type='KDLoss', loss_weight=weight)))
    return run_config(model, digits, tmp_path_factory.mktemp('balanced'), epochs=3)


@pytest.fixture(scope='module')
def run(cfg: Config) -> list[dict[str, float]]:
    return train(cfg)


def test_a_run_measures_fixes_and_keeps_the_weight(cfg: Config, run: list[dict[str, float]]) -> None:
    known, later = (torch.load(Path(cfg.work_dir) / f'epoch_{epoch}.pth', weights_only=False)['ckd_mmdet']
                    ['learned']['roi.loss_kd']['weight._extra_state'].tolist() for epoch in (2, 3))
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
    often, rarely = (run_config(model, digits, tmp_path / name, epochs=1) for name in ('often', 'rarely'))
    rarely.default_hooks.logger.interval = 1000
    every, last = train(often), train(rarely)
    assert all('roi.gradient_ratio_ckd' in step for step in every)
    assert ['roi.gradient_ratio_ckd' in step for step in last] == [False] * (len(last) - 1) + [True]  # as it is logged
    assert [step['loss'] for step in every] == [step['loss'] for step in last]


def test_the_fixed_weight_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = []
    monkeypatch.setattr('ckd_mmdet.balance.print_log', lambda text, logger: said.append(text))
    loss = KDLoss(loss_weight=dict(balance=0.5, iterations=1))
    balanced(loss, torch.tensor(8.0), 2.0, 0, 'roi.loss_kd')
    assert said == ["`roi.loss_kd`: the weight is fixed at 0.25, by which its gradient on the student's features has "
                    "0.5 times the norm of the task's (median of 1 iterations)."]
