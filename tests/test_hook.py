"""The hook's parts by themselves; whole runs are in test_runs.py and test_learned.py."""

import math
from types import SimpleNamespace

import pytest
import torch
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.distillation import LOGGED
from ckd_mmdet.hook import JUDGED_EVERY, DistillHook, Guard, Teaching, _log_classes
from ckd_mmdet.pairing import RowPairing
from mmengine.hooks import Hook, LoggerHook
from mmengine.logging import MessageHub
from mmengine.optim import AmpOptimWrapper, OptimWrapper


@pytest.mark.parametrize(('steps', 'interval', 'ignore_last', 'logged'), [
    (10, 4, True, [3, 7]), (10, 4, False, [3, 7, 9]), (10, 50, True, [9]), (10, 10, True, [9]), (1, 50, True, [0])])
def test_steps_are_measured_that_mmengine_logs(steps: int, interval: int, ignore_last: bool, logged: list[int]) -> None:
    written: list[int] = []
    hub = MessageHub.get_instance('measured')
    runner = SimpleNamespace(train_dataloader=range(steps), logger=SimpleNamespace(info=lambda text: None), iter=0,
                             experiment_name='', visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None),
                             message_hub=hub)
    logger_hook = LoggerHook(interval=interval, ignore_last=ignore_last)
    logger_hook.json_log_path = ''
    teaching = Teaching()
    teaching.logger_hook = logger_hook
    measured = []
    for step in range(steps):
        runner.log_processor = SimpleNamespace(get_log_after_iter=lambda *args, at=step: written.append(at) or ('', ''))
        teaching.before_train_iter(runner, step)
        measured += [step] if hub.get_info(LOGGED) else []
        logger_hook.after_train_iter(runner, step)
    assert measured == written == logged
    assert LOGGED not in hub.state_dict()['resumed_keys'] or not hub.state_dict()['resumed_keys'][LOGGED]


def test_teachers_are_judged_at_the_same_steps_on_every_rank() -> None:
    judged = []
    teaching = Teaching()
    for step in range(3 * JUDGED_EVERY):
        teaching.distillation = SimpleNamespace(judge=lambda at=step: judged.append(at))
        teaching.after_train_iter(SimpleNamespace(iter=step), step)
    assert [step + 1 for step in judged] == [JUDGED_EVERY, 2 * JUDGED_EVERY, 3 * JUDGED_EVERY]


def test_every_stage_that_a_part_uses_is_passed_on() -> None:
    hook = DistillHook()
    stages = [name for name in vars(Hook) if name.startswith(('before_', 'after_'))]
    for part in hook.parts:
        for name in stages:
            if getattr(type(part), name) is not getattr(Hook, name):
                assert getattr(DistillHook, name) is not getattr(Hook, name), f'{type(part).__name__}.{name}'


@pytest.mark.parametrize(('scored', 'names', 'said'), [
    (3, ('cat', 'dog', 'cow'), ['The teacher (big) knows 1 of the 3 classes: cat.']),
    (1, ('cat', 'dog', 'cow'), []), (1, None, [])])
def test_the_log_names_shared_classes_and_none_for_the_one_class_of_an_rpn(
        scored: int, names: tuple | None, said: list, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    monkeypatch.setattr('ckd_mmdet.hook.print_log', lambda text, logger: heard.append(text))
    scoring = Scoring(num_classes=scored, softmax=False)
    alignment = build_alignment('rows', dict(aligner=dict(type='DenseAligner'), losses=dict(loss=dict(type='KDLoss'))))
    pairing = RowPairing(alignment, (scoring, scoring), SharedClasses((0,), (0,)))
    teacher = SimpleNamespace(name='big', class_map='name', classes=('cat', 'crow', 'bee'))
    _log_classes(SimpleNamespace(pairings=dict(rows=pairing), teachers={None: teacher}), names)
    assert heard == said


# a loss that is not finite


def takes(guard: Guard, *losses: float, scale: float | None = None) -> None:
    """Steps with these losses, of a training in half precision where a scale is given."""
    wrapper = object.__new__(OptimWrapper if scale is None else AmpOptimWrapper)
    if scale is not None:
        wrapper.loss_scaler = SimpleNamespace(get_scale=lambda: scale)
    for step, loss in enumerate(losses):
        outputs = dict(loss_cls=torch.tensor(1.0), loss_bbox=torch.tensor(loss), acc=torch.tensor(math.nan),
                       loss=torch.tensor(loss))
        guard.after_train_iter(SimpleNamespace(optim_wrapper=wrapper, iter=step), step, outputs=outputs)


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
def test_a_diverged_student_stops_the_run_and_the_loss_is_named(bad: float) -> None:
    with pytest.raises(RuntimeError, match='was not finite in 3 steps in a row, the last one step 4; the first of the '
                                           'losses that were not was `loss_bbox`. The student has diverged: lower'):
        takes(Guard(3), 1.0, bad, bad, bad)


def test_a_few_steps_are_forgiven() -> None:
    takes(Guard(3), math.nan, math.nan, 1.0, math.nan, math.nan)


def test_steps_that_a_grad_scaler_skips_do_not_count() -> None:
    takes(Guard(2), *[math.nan] * 9, scale=1024.0)
    with pytest.raises(RuntimeError, match='has diverged'):
        takes(Guard(2), *[math.nan] * 2, scale=1.0)


@pytest.mark.parametrize('patience', [0, -1, 1.5, '5', None])
def test_an_unfit_patience_is_refused(patience: object) -> None:
    with pytest.raises(ValueError, match='`DistillHook` needs a whole `patience` of at least 1, got'):
        DistillHook(patience)
