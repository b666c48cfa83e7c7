import ast
import math
from pathlib import Path

import pytest
import torch
from ckd_mmdet.judgement import SEEN_ROWS, WAITED_FOR, TeacherJudgement
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Side
from torch import Tensor, distributed, nn
from torch.multiprocessing import start_processes
from torch.utils._python_dispatch import TorchDispatchMode

CLASSES = 10


def rows(labels: Tensor, answers: Tensor, classes: int = CLASSES, views: Tensor | None = None) -> AlignedSamples:
    """Rows whose teacher answers ``answers``."""
    logits = nn.functional.one_hot(answers, classes + 1).float()
    return AlignedSamples(Side(torch.zeros_like(logits)), Side(logits), classes, labels, views=views)


def judged(*batches: AlignedSamples) -> TeacherJudgement:
    judgement = TeacherJudgement(batches[0].num_classes)
    for batch in batches:
        judgement.count(batch)
    return judgement


def with_rows(totals: list[int], shares: list[float]) -> TeacherJudgement:
    """So many rows of each class, and the teacher right in these shares of them."""
    classes = len(totals)
    labels = torch.arange(classes).repeat_interleave(torch.tensor(totals))
    answers = torch.cat([torch.where(torch.arange(n) < round(share * n), c, classes)
                         for c, (n, share) in enumerate(zip(totals, shares, strict=True))])
    return judged(rows(labels, answers, classes))


def decided(share: float, common: float, classes: int, seed: int, constant: bool = False) -> bool:
    """Whether a teacher passes: right in ``share`` of rows, else it guesses; ``common`` of rows are of one class."""
    generator, judgement = torch.Generator().manual_seed(seed), TeacherJudgement(classes)
    weights = torch.tensor([common, *[(1 - common) / (classes - 1)] * (classes - 1)])
    while True:
        labels = torch.multinomial(weights, 200, True, generator=generator)
        guess = torch.randint(0, classes, labels.shape, generator=generator) * (not constant)
        knows = torch.rand(labels.shape, generator=generator) < share
        judgement.count(rows(labels, torch.where(knows, labels, guess), classes))
        try:
            if judgement.verdict('net.py'):
                return True
        except RuntimeError:
            return False


# chance

@pytest.mark.parametrize('totals', [[100, 100], [3900, 100], [150, 49, 1], [40] * 6, [182, *[2] * 9]], ids=str)
def test_a_constant_answer_is_chance_with_any_number_of_classes(totals: list[int]) -> None:
    for answer in range(len(totals)):
        with pytest.raises(RuntimeError, match=r'the teacher \(net.py\) is right on .* no better than chance'):
            with_rows(totals, [float(c == answer) for c in range(len(totals))]).verdict('net.py')


def test_a_teacher_that_only_says_background_is_never_right() -> None:
    with pytest.raises(RuntimeError, match=r'right on 0.0% of the first 200 foreground rows \(mean over 10 classes\)'):
        with_rows([20] * CLASSES, [0.0] * CLASSES).verdict('net.py')


@pytest.mark.parametrize('classes', [2, 3, 6, 10])
def test_a_random_teacher_passes_in_one_of_a_hundred_runs_at_most_and_a_constant_one_never(classes: int) -> None:
    assert sum(decided(0.0, 0.9, classes, seed) for seed in range(300)) <= 3
    assert not any(decided(0.0, 0.9, classes, seed, constant=True) for seed in range(50))


@pytest.mark.parametrize('classes', [2, 3, 10])
@pytest.mark.parametrize('common', [0.5, 0.9, 0.99])
def test_a_teacher_that_is_right_in_most_rows_always_passes(classes: int, common: float) -> None:
    assert all(decided(0.8, common, classes, seed) for seed in range(30))


@pytest.mark.parametrize('seed', range(5))
def test_a_mediocre_teacher_of_ten_classes_passes(seed: int) -> None:
    assert decided(0.3, 0.1, CLASSES, seed)


def test_classes_in_another_order_are_chance() -> None:
    labels = torch.arange(SEEN_ROWS) % CLASSES
    with pytest.raises(RuntimeError, match=r'swapped colour channels.*classes in another order.*weights of another'):
        judged(rows(labels, (labels + 1) % CLASSES)).verdict('net.py')


def test_the_limit_is_three_standard_errors_above_one_over_the_classes() -> None:
    totals = [120, 60, 40]
    limit = 1 / 3 + 3 * math.sqrt(sum((1 / 3) * (2 / 3) / n for n in totals)) / 3
    most = math.floor((3 * limit - 1) * 60)  # of the second class, beside all of the first and none of the third
    assert with_rows(totals, [1.0, (most + 1) / 60, 0.0]).verdict('net.py')
    with pytest.raises(RuntimeError, match=rf'chance \(33.3%, limit {limit:.1%}\)'):
        with_rows(totals, [1.0, most / 60, 0.0]).verdict('net.py')


# few classes, few rows

@pytest.mark.parametrize('right', [1, 40, SEEN_ROWS])
def test_with_one_class_a_teacher_that_finds_any_object_passes(right: int) -> None:
    assert with_rows([SEEN_ROWS], [right / SEEN_ROWS]).verdict('net.py')


def test_with_one_class_a_teacher_that_finds_none_is_stopped() -> None:
    with pytest.raises(RuntimeError, match='right on 0.0% of the first 200 foreground rows'):
        with_rows([SEEN_ROWS], [0.0]).verdict('net.py')


def test_a_second_class_is_waited_for_but_not_for_ever() -> None:
    assert not with_rows([SEEN_ROWS, 0], [1.0, 0.0]).verdict('net.py')
    assert not with_rows([SEEN_ROWS, 1], [1.0, 0.0]).verdict('net.py')
    assert not with_rows([190, 10], [1.0, 0.0]).verdict('net.py')  # ten rows could be bad luck
    assert with_rows([WAITED_FOR, 1], [1.0, 0.0]).verdict('net.py')


def test_a_perfect_teacher_passes_though_a_class_has_one_row() -> None:
    assert with_rows([150, 49, 1], [1.0, 1.0, 0.0]).verdict('net.py')


def test_fewer_rows_are_no_evidence() -> None:
    assert not with_rows([SEEN_ROWS - 1], [0.0]).verdict('net.py')
    assert not TeacherJudgement(CLASSES).verdict('net.py')


# counting

def test_only_foreground_rows_count_and_batches_add_up() -> None:
    labels = torch.tensor([0, CLASSES, -1, 3])
    judgement = judged(rows(labels, torch.tensor([0, 0, 0, 3])), rows(labels, torch.tensor([0, 0, 0, 1])))
    assert judgement.counts[:, [0, 3]].tolist() == [[2, 1], [2, 2]]
    assert judgement.counts[1, :-1].sum() == 4


def test_views_are_judged_by_the_plain_one_and_soft_labels_by_their_likeliest_class() -> None:
    labels = torch.tensor([[.2, .8], [.7, .3], [.2, .8], [.7, .3]])
    judgement = judged(rows(labels, torch.tensor([1, 1, 0, 0]), 2, views=torch.tensor([0, 0, 1, 1])))
    assert judgement.counts[:, :-1].tolist() == [[0, 1], [1, 1]]


def test_maps_and_rows_without_labels_are_no_evidence() -> None:
    judgement = TeacherJudgement(CLASSES)
    judgement.count(AlignedSamples(Side(torch.zeros(3, 11)), Side(torch.zeros(3, 11)), CLASSES))
    judgement.count(AlignedMaps([torch.zeros(1, 2, 4, 4)], [torch.zeros(1, 2, 4, 4)]))
    assert not judgement.counts.any()


def test_rows_of_another_number_of_classes_are_refused() -> None:
    with pytest.raises(ValueError, match='made for 3 classes and got rows of 10'):
        TeacherJudgement(3).count(rows(torch.tensor([0]), torch.tensor([0])))


class Waits(TorchDispatchMode):
    """Collects the calls for which a device would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204  as torch has it
        if any(name in str(func) for name in ('_local_scalar_dense', 'nonzero', 'masked_select', 'unique', 'index.')):
            self.calls.append(str(func))
        return func(*args, **(kwargs or {}))


def test_counting_waits_for_no_device() -> None:
    labels = torch.tensor([0, CLASSES, -1, 3])
    with Waits() as waits:
        labels[labels > 0]  # what it must not do
    assert waits.calls
    batch = rows(labels, torch.tensor([0, 0, 0, 3]), views=torch.tensor([0, 0, 1, 0]))
    with Waits() as waits:
        judged(batch)
    assert not waits.calls


def _on_a_rank(rank: int, folder: str) -> None:
    distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    right = with_rows([60, 60] if rank else [0, 0], [1.0, 1.0])  # the first has no rows at all
    told = [right.verdict('net.py')]
    right.count(rows(torch.arange(100) % 2, torch.arange(100) % 2, 2))
    told.append(right.verdict('net.py'))
    own = right.counts[1].sum().item()
    try:
        with_rows([0, 300] if rank else [300, 0], [1.0, 0.0]).verdict('net.py')
    except RuntimeError as error:
        told.append(str(error))
    (Path(folder) / str(rank)).write_text(repr([*told, own]))
    distributed.destroy_process_group()


def test_all_ranks_get_one_verdict_of_all_rows_and_the_error_together(tmp_path: Path) -> None:
    """Of the two ranks the first sees no rows at first, and each sees one class at last."""
    start_processes(_on_a_rank, (str(tmp_path),), nprocs=2, start_method='fork')
    first, second = (ast.literal_eval((tmp_path / rank).read_text()) for rank in '01')
    assert first[:3] == second[:3] and first[:2] == [False, True]
    assert 'is right on 50.0% of the first 600 foreground rows' in first[2]
    assert first[3] == 100 and second[3] == 220  # each keeps its own counts
