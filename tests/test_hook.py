from types import SimpleNamespace

import pytest
import torch
from ckd_mmdet.hooks import SEEN_ROWS, DistillHook, TeacherJudgement
from ckd_mmdet.samples import AlignedSamples, Side
from mmengine.hooks import LoggerHook
from torch import nn

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
