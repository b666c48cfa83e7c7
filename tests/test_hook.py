import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ckd_mmdet.hooks import SEEN_ROWS, DistillHook, TeacherJudgement, seed_epoch
from ckd_mmdet.samples import AlignedSamples, Side
from mmengine.dataset import DefaultSampler
from mmengine.hooks import LoggerHook
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = 10


def rows(labels: torch.Tensor, answers: torch.Tensor) -> AlignedSamples:
    """Rows whose teacher answers ``answers``."""
    logits = nn.functional.one_hot(answers, CLASSES + 1).float()
    return AlignedSamples(Side(torch.zeros_like(logits)), Side(logits), CLASSES, labels)


def judged(*batches: AlignedSamples) -> TeacherJudgement:
    judgement, alignment = TeacherJudgement(), nn.Identity()
    for batch in batches:
        judgement.listen([alignment])
        alignment(batch)
        judgement.stop_listening()
    assert not alignment._forward_hooks
    return judgement


def labels_of(n: int, unbalanced: bool, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([.91, *[.01] * 9]) if unbalanced else torch.ones(CLASSES)
    return torch.cat([torch.arange(CLASSES), torch.multinomial(weights, n, True, generator=generator)])


# the teacher's accuracy

@pytest.mark.parametrize('unbalanced', [False, True])
@pytest.mark.parametrize('answer', [0, 5, CLASSES])
def test_a_constant_answer_is_chance_however_unbalanced_the_classes(unbalanced: bool, answer: int) -> None:
    labels = labels_of(SEEN_ROWS, unbalanced)
    judgement = judged(rows(labels, torch.full_like(labels, answer)))
    with pytest.raises(RuntimeError, match=r'the teacher \(net.py\).*no better than chance'):
        judgement.pronounce('net.py')


@pytest.mark.parametrize('seed', range(10))
def test_random_answers_are_chance(seed: int) -> None:
    labels = labels_of(SEEN_ROWS, False)
    answers = torch.randint(0, CLASSES + 1, labels.shape, generator=torch.Generator().manual_seed(seed))
    with pytest.raises(RuntimeError, match=r'swapped colour channels.*classes in another order.*weights of another'):
        judged(rows(labels, answers)).pronounce('net.py')


@pytest.mark.parametrize('unbalanced', [False, True])
@pytest.mark.parametrize('right', [1.0, 0.5, 0.3])
def test_a_teacher_that_knows_something_passes(unbalanced: bool, right: float) -> None:
    labels = labels_of(2 * SEEN_ROWS, unbalanced)
    guess = torch.randint(0, CLASSES + 1, labels.shape, generator=torch.Generator().manual_seed(0))
    knows = torch.rand(labels.shape, generator=torch.Generator().manual_seed(1)) < right
    judged(rows(labels, torch.where(knows, labels, guess))).pronounce('net.py')


@pytest.mark.parametrize('right', [1, 40, SEEN_ROWS])
def test_with_one_class_a_teacher_that_finds_any_object_passes(right: int) -> None:
    labels = torch.zeros(SEEN_ROWS, dtype=torch.long)
    answers = torch.where(torch.arange(SEEN_ROWS) < right, 0, CLASSES)
    judged(rows(labels, answers)).pronounce('net.py')


def test_with_one_class_a_teacher_that_finds_none_is_stopped() -> None:
    labels = torch.zeros(SEEN_ROWS, dtype=torch.long)
    with pytest.raises(RuntimeError, match='right on 0.0% of the first 200 foreground rows'):
        judged(rows(labels, torch.full_like(labels, CLASSES))).pronounce('net.py')


def test_classes_in_another_order_are_chance() -> None:
    labels = labels_of(SEEN_ROWS, False)
    with pytest.raises(RuntimeError, match=r'right on 0.0% of the first 210 foreground rows \(mean over 10 classes\)'):
        judged(rows(labels, (labels + 1) % CLASSES)).pronounce('net.py')


def test_only_foreground_rows_count_and_batches_add_up() -> None:
    labels = torch.tensor([0, CLASSES, -1, 3])
    judgement = judged(rows(labels, torch.tensor([0, 0, 0, 3])), rows(labels, torch.tensor([0, 0, 0, 1])))
    assert judgement.seen == 4 and judgement.counts == {0: [2, 2], 3: [1, 2]}


def test_rows_without_labels_are_no_evidence() -> None:
    unlabelled = AlignedSamples(Side(torch.zeros(3, 11)), Side(torch.zeros(3, 11)), CLASSES)
    assert judged(unlabelled).seen == 0


def hook_over(check_accuracy: bool) -> tuple[DistillHook, nn.Module]:
    """The hook in a run whose teacher always answers background."""
    hook, alignment = DistillHook(), nn.Identity()
    alignment.teacher, hook.logger_hook = None, None
    teacher = SimpleNamespace(check_accuracy=check_accuracy, name='net.py')
    hook.distiller = SimpleNamespace(teachers={None: teacher}, distiller=nn.ModuleDict({'roi': alignment}))
    hook.judgements = {None: TeacherJudgement()} if check_accuracy else {}
    return hook, alignment


def step(hook: DistillHook, alignment: nn.Module) -> None:
    labels = torch.arange(50) % CLASSES
    hook.before_train_iter(None, 0)
    alignment(rows(labels, torch.full_like(labels, CLASSES)))
    hook.after_train_iter(None, 0)


@pytest.mark.parametrize(('steps', 'interval', 'ignore_last', 'logged'), [
    (10, 4, True, [3, 7]), (10, 4, False, [3, 7, 9]), (10, 50, True, [9]), (10, 10, True, [9]), (1, 50, True, [0])])
def test_gradients_are_measured_in_the_steps_that_mmengine_logs(steps: int, interval: int, ignore_last: bool,
                                                                logged: list[int]) -> None:
    written: list[int] = []
    runner = SimpleNamespace(train_dataloader=range(steps), logger=SimpleNamespace(info=lambda text: None), iter=0,
                             experiment_name='', visualizer=SimpleNamespace(add_scalars=lambda *args, **kwargs: None))
    logger_hook = LoggerHook(interval=interval, ignore_last=ignore_last)
    logger_hook.json_log_path = ''
    hook, _ = hook_over(check_accuracy=False)
    hook.logger_hook = logger_hook
    measured = []
    for step in range(steps):
        runner.log_processor = SimpleNamespace(get_log_after_iter=lambda *args, at=step: written.append(at) or ('', ''))
        hook.before_train_iter(runner, step)
        measured += [step] if hook.distiller.measures_gradients else []
        logger_hook.after_train_iter(runner, step)
    assert measured == written == logged


def test_the_run_stops_as_soon_as_enough_rows_are_seen() -> None:
    hook, alignment = hook_over(check_accuracy=True)
    for _ in range(3):
        step(hook, alignment)
    with pytest.raises(RuntimeError, match='teacher.check_accuracy=False'):
        step(hook, alignment)


def test_check_accuracy_switches_the_judgement_off() -> None:
    hook, alignment = hook_over(check_accuracy=False)
    for _ in range(6):
        step(hook, alignment)
    assert not alignment._forward_hooks


# the seeding of epochs

class Draws(Dataset):
    """What a worker's three generators give."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> list[float]:
        return [random.random(), np.random.rand(), torch.rand(1).item()]


def loader(workers: int) -> DataLoader:
    return DataLoader(Draws(), batch_size=2, num_workers=workers, persistent_workers=workers > 0,
                      sampler=DefaultSampler(Draws(), seed=0), collate_fn=list)


def draws(data: DataLoader, epoch: int, seed: int = 1, rank: int = 0) -> list[list[float]]:
    seed_epoch(data, seed, epoch, rank)
    return [item for batch in data for item in batch]


@pytest.mark.parametrize('workers', [0, 2])
def test_an_epoch_draws_the_same_whatever_went_before(workers: int) -> None:
    ours = loader(workers)
    first, second = draws(ours, 0), draws(ours, 1)
    random.random(), np.random.rand(), torch.rand(5)  # as a validation would
    assert draws(ours, 1) == second == draws(loader(workers), 1)
    assert draws(ours, 0) == first
    numbers = [number for item in [*first, *second] for number in item]
    assert len(set(numbers)) == len(numbers)  # no two epochs and no two workers draw the same


@pytest.mark.parametrize('other', [dict(seed=2), dict(rank=1)])
def test_another_seed_or_rank_draws_other_numbers(other: dict) -> None:
    assert draws(loader(0), 1, **other) != draws(loader(0), 1)


def test_the_users_own_worker_init_still_runs_once() -> None:
    calls = []
    ours = loader(0)
    ours.worker_init_fn = calls.append
    for epoch in range(3):
        seed_epoch(ours, 1, epoch, 0)
    ours.worker_init_fn(7)
    assert calls == [7]


def test_the_sampler_takes_the_runs_seed() -> None:
    ours = loader(0)
    seed_epoch(ours, 9, 0, 0)
    assert ours.sampler.seed == 9
