"""Each selector against a plain loop."""

from __future__ import annotations

import pytest
import torch
from ckd_mmdet.samples import Candidates
from ckd_mmdet.selectors import (
    All,
    Chain,
    Foreground,
    ForegroundPlus,
    NearObjects,
    PerImageCap,
    PerLevelCap,
    Random,
    Selector,
    TeacherTopK,
)
from torch import Tensor

from tests.waits import Waits

NUM_CLASSES = 3
LIMITED = (TeacherTopK, ForegroundPlus, Random, PerImageCap, PerLevelCap)


def candidates(n: int, images: int = 4, levels: int = 3) -> Candidates:
    """Rows of ``images`` images in mixed order; a quarter of the labels is background, some rows may not be chosen."""
    draw = torch.Generator().manual_seed(n)
    labels = torch.randint(-2, NUM_CLASSES + 1, (n,), generator=draw)
    image_ids, level_ids = (torch.randint(0, many, (n,), generator=draw) for many in (images, levels))
    return Candidates(labels >= 0, NUM_CLASSES, torch.rand(n, generator=draw), labels, image_ids, level_ids,
                      torch.rand(n, generator=draw) < 0.3)


def allowed(n: int, **parts: Tensor) -> Candidates:
    """``n`` rows of which each may be chosen."""
    return Candidates(torch.ones(n, dtype=torch.bool), NUM_CLASSES, **{'confidence': torch.zeros(n), **parts})


def chosen(selector: Selector, rows: Candidates) -> list[int]:
    return selector(rows).nonzero().squeeze(1).tolist()


def greatest(rows: Candidates, among: list[int], k: int) -> list[int]:
    """The plain loop: the ``k`` most confident rows among some, the first of equal ones."""
    free = [i for i in among if rows.allowed[i]]
    return sorted(sorted(free, key=lambda i: (-rows.confidence[i].item(), i))[:k])


def of_each(rows: Candidates, groups: list, k: int) -> list[int]:
    """The plain loop: the same for the rows of each group."""
    members = {group: [i for i, own in enumerate(groups) if own == group] for group in groups}
    return sorted(i for own in members.values() for i in greatest(rows, own, k))


@pytest.mark.parametrize('n', [0, 1, 50])
def test_all_takes_every_row_that_may_be_chosen(n: int) -> None:
    rows = candidates(n)
    assert chosen(All(), rows) == [i for i in range(n) if rows.allowed[i]]


@pytest.mark.parametrize('n', [0, 1, 50])
def test_foreground_takes_the_rows_with_an_object(n: int) -> None:
    rows = candidates(n)
    assert chosen(Foreground(), rows) == [i for i in range(n) if 0 <= rows.labels[i] < NUM_CLASSES]


def test_foreground_leaves_out_background() -> None:
    assert chosen(Foreground(), allowed(4, labels=torch.tensor([3, 0, 2, 1]))) == [1, 2, 3]
    assert chosen(Foreground(), allowed(2, labels=torch.tensor([3, 3]))) == []


@pytest.mark.parametrize('n', [0, 1, 7, 50])
@pytest.mark.parametrize('k', [1, 2, 5, 1000])
def test_each_limit_takes_the_rows_of_the_plain_loop(n: int, k: int) -> None:
    rows = candidates(n)
    images, levels = rows.image_ids.tolist(), rows.level_ids.tolist()
    foreground = [i for i in range(n) if 0 <= rows.labels[i] < NUM_CLASSES]
    background = [i for i in range(n) if rows.labels[i] == NUM_CLASSES]
    assert chosen(TeacherTopK(k), rows) == greatest(rows, list(range(n)), k)
    assert chosen(ForegroundPlus(k), rows) == sorted(foreground + greatest(rows, background, k))
    assert chosen(PerImageCap(k), rows) == of_each(rows, images, k)
    assert chosen(PerLevelCap(k), rows) == of_each(rows, list(zip(images, levels, strict=True)), k)


def test_the_first_of_equal_rows_is_taken() -> None:
    numbers = torch.tensor([0, 1, 0, 1, 0, 1])
    rows = allowed(6, image_ids=numbers, level_ids=torch.zeros_like(numbers))
    assert chosen(TeacherTopK(2), rows) == [0, 1]
    assert chosen(PerImageCap(2), rows) == chosen(PerLevelCap(2), rows) == [0, 1, 2, 3]


@pytest.mark.parametrize('n', [0, 5, 50])
def test_random_takes_k_different_rows_and_leaves_the_global_generator(n: int) -> None:
    rows, state = candidates(n), torch.get_rng_state()
    drawn = chosen(Random(7), rows)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(drawn) == min(int(rows.allowed.sum()), 7) and set(drawn) <= set(chosen(All(), rows))
    assert drawn == chosen(Random(7), rows)


def test_random_draws_other_rows_for_other_scores_and_every_row_at_some_time() -> None:
    torch.manual_seed(0)
    drawn = [tuple(chosen(Random(2), allowed(10, confidence=torch.rand(10)))) for _ in range(100)]
    assert len(set(drawn)) > 20
    counts = torch.tensor(drawn).flatten().bincount()
    assert len(counts) == 10 and counts.min() > 5  # of 20 expected


def test_a_chain_chooses_among_what_is_left() -> None:
    rows = candidates(50)
    foreground = chosen(Foreground(), rows)
    assert chosen(Chain([Foreground(), TeacherTopK(3)]), rows) == greatest(rows, foreground, 3)
    most = greatest(rows, list(range(50)), 20)
    assert chosen(Chain([TeacherTopK(20), Foreground()]), rows) == [i for i in most if i in foreground]
    assert Chain([Foreground(), PerImageCap(3)]).requires == {'labels', 'image_ids', 'confidence'}


def test_near_objects_takes_what_holds_an_object_and_what_is_near_one() -> None:
    rows = candidates(50)
    objects = chosen(Foreground(), rows)
    near = [i for i in range(50) if rows.allowed[i] and rows.valuable[i]]
    assert set(near) - set(objects)
    assert chosen(NearObjects(), rows) == sorted({*objects, *near})


SELECTORS = [All(), Foreground(), NearObjects(), *(kind(2) for kind in LIMITED)]


@pytest.mark.parametrize('selector', SELECTORS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize('n', [0, 20])
def test_a_choice_is_a_mask_over_the_rows_that_may_be_chosen(selector: Selector, n: int) -> None:
    rows = candidates(n)
    mask = selector(rows)
    assert mask.dtype == torch.bool and mask.shape == (n,)
    assert not (mask & ~rows.allowed).any()


@pytest.mark.parametrize('selector', SELECTORS, ids=lambda one: type(one).__name__)
def test_each_needs_what_it_says_and_no_more(selector: Selector) -> None:
    rows = candidates(20)
    needed = {name: getattr(rows, name) for name in selector.requires}
    assert torch.equal(selector(Candidates(rows.allowed, NUM_CLASSES, **needed)), selector(rows))


@pytest.mark.parametrize('selector', [one for one in SELECTORS if not isinstance(one, Random)],
                         ids=lambda one: type(one).__name__)
def test_choosing_waits_for_no_device(selector: Selector) -> None:
    rows = candidates(20)
    with Waits() as counted:
        selector(rows)
    assert counted.seen == []


@pytest.mark.parametrize('kind', LIMITED)
@pytest.mark.parametrize('k', [0, -3, 2.5])
def test_a_limit_that_is_no_whole_number_of_at_least_one_is_refused(kind: type[Selector], k: int) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` needs a whole `k` of at least 1, got {k}'):
        kind(k)
