"""What ranks compare with the rows of all others is what one process compares; without and with real processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ckd_mmdet import joining
from ckd_mmdet.joining import count_positives, join_ranks
from ckd_mmdet.losses import CKDLoss, KDLoss, RowLoss
from ckd_mmdet.samples import AlignedSamples, Side
from torch import Tensor, distributed, nn

COUNTS = ([5, 3], [4, 0, 7], [0, 6], [1, 1, 1])
CHOICES = [dict(), dict(contrast='student_student'), dict(contrast='symmetric', temperature=0.5), dict(terms='inter'),
           dict(negatives='other_label'), dict(anchors='foreground', negatives='other_label'),
           dict(preview=dict(base=1.005))]


def rows_of(counts: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What comes into the classifier, the teacher's logits, labels and images, of all ranks."""
    torch.manual_seed(1)
    n = sum(counts)
    return (torch.randn(n, 6, dtype=torch.float64), torch.randn(n, 5, dtype=torch.float64), torch.arange(n) % 5,
            torch.arange(n) // 2)


def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(6, 5).double()


def samples(classify: nn.Module, rows: tuple[Tensor, ...], part: slice) -> AlignedSamples:
    features, teacher, labels, images = (column[part] for column in rows)
    return AlignedSamples(Side(classify(features)), Side(teacher), 4, labels, images, filtered=True)


def part_of(counts: list[int], rank: int) -> slice:
    return slice(sum(counts[:rank]), sum(counts[:rank + 1]))


def value_and_gradient(loss: RowLoss, aligned: AlignedSamples, classify: nn.Linear) -> Tensor:
    value = loss(aligned)
    value.backward()
    return torch.stack([value.detach().double(), *classify.weight.grad.flatten()])


def one_process(choice: dict, counts: list[int]) -> Tensor:
    classify = layer()
    return value_and_gradient(CKDLoss(**choice), samples(classify, rows_of(counts), slice(None)), classify)


def rank_of(choice: dict, counts: list[int], rank: int) -> Tensor:
    classify = layer()
    joined = join_ranks(samples(classify, rows_of(counts), part_of(counts, rank)))
    return value_and_gradient(CKDLoss(negatives_of='all', **choice), joined, classify)


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int, counts: list[int]) -> None:
    """Let ``join_ranks`` see the ranks as if there were several processes, of which this one is ``rank``."""
    parts = [samples(layer(), rows_of(counts), part_of(counts, k)) for k in range(len(counts))]
    answers = iter([[torch.tensor([count]) for count in counts],
                    [torch.cat([part.student.logits.detach(), part.teacher.logits], 1) for part in parts],
                    [torch.stack([part.labels, part.image_ids], 1) for part in parts]])

    def gather(mine: Tensor) -> list[Tensor]:
        answer = next(answers)
        most = len(mine)
        padded = [torch.cat([part, part.new_full((most - len(part), *part.shape[1:]), 99)]) for part in answer]
        assert torch.equal(padded[rank][:len(answer[rank])], mine[:len(answer[rank])])
        return padded

    monkeypatch.setattr(joining, 'all_gather', gather)
    monkeypatch.setattr(joining, 'get_rank', lambda: rank)
    monkeypatch.setattr(joining, 'get_world_size', lambda: len(counts))


@pytest.mark.parametrize('counts', COUNTS, ids=str)
@pytest.mark.parametrize('choice', CHOICES, ids=str)
def test_the_mean_over_ranks_is_value_and_gradient_of_the_joined_rows(choice: dict, counts: list[int],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in range(len(counts)):
        as_rank(monkeypatch, rank, counts)
        found.append(rank_of(choice, counts, rank))
    torch.testing.assert_close(torch.stack(found).mean(0), one_process(choice, counts), rtol=0, atol=1e-9)


def by_positives(counts: list[int], rank: int | None = None) -> Tensor:
    """Divided by the rows with an object: of one rank, or of all rows in one process."""
    classify = layer()
    aligned = samples(classify, rows_of(counts), slice(None) if rank is None else part_of(counts, rank))
    loss = KDLoss(normalize='positives')
    return value_and_gradient(loss, aligned if rank is None else count_positives(aligned), classify)


CHOICE = dict(anchors='foreground', negatives='other_label')
OVER_RANKS = {'ckd': (partial(rank_of, CHOICE), partial(one_process, CHOICE)),
              'positives': (by_positives, by_positives)}
"""Of one rank, and of all rows in one process."""


def in_process(rank: int, counts: list[int], store: str, of_rank: Callable[..., Tensor], told: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=len(counts))
    mine = of_rank(counts, rank)
    distributed.all_reduce(mine)
    told.put((mine / len(counts)).tolist())
    distributed.destroy_process_group()


@pytest.mark.parametrize(('counts', 'what'), [([5, 3], 'ckd'), ([4, 0, 7], 'ckd'), ([4, 0, 7], 'positives')], ids=str)
def test_two_and_three_gloo_ranks_equal_one_process(counts: list[int], what: str, tmp_path: Path) -> None:
    of_rank, of_all = OVER_RANKS[what]
    # forked: what was imported need not be imported again
    context = multiprocessing.get_context('fork')
    told = context.SimpleQueue()
    ranks = [context.Process(target=in_process, daemon=True,
                             args=(rank, counts, str(tmp_path / 'store'), of_rank, told))
             for rank in range(len(counts))]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
    assert [process.exitcode for process in ranks] == [0] * len(ranks)
    expected = of_all(counts).tolist()
    for _ in ranks:
        assert told.get() == pytest.approx(expected, abs=1e-9)


def test_in_one_process_rows_are_as_they_were() -> None:
    aligned = samples(layer(), rows_of([4]), slice(None))
    assert join_ranks(aligned) is aligned
    assert CKDLoss(negatives_of='all')(aligned) == CKDLoss()(aligned)
    assert count_positives(aligned) is aligned


def test_rows_to_be_ignored_are_refused_and_chosen_rows_forget_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [5, 3]
    as_rank(monkeypatch, 0, counts)
    joined = join_ranks(samples(layer(), rows_of(counts), part_of(counts, 0)))
    assert joined.plain().joined is joined.joined is not None
    assert joined.select(torch.tensor([0])).joined is None
    assert len(joined.joined.rows.image_ids.unique()) == 3 + 2  # images of different ranks are different images
    with pytest.raises(ValueError, match='`join_ranks` needs rows without any to be ignored'):
        join_ranks(AlignedSamples(joined.student, joined.teacher, 4, joined.labels))


@pytest.mark.parametrize(('settings', 'words'), [
    (dict(negatives_of='world'), r"`negatives_of` to be one of \('rank', 'all'\)"),
    (dict(negatives_of='all', terms='intra'), "needs negatives from other ranks, and `terms='intra'` has none"),
    (dict(negatives_of='all', negatives='same_image'), 'all rows of one image are on one rank')])
def test_what_makes_no_sense_is_refused(settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CKDLoss(**settings)


