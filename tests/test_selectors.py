"""Each selector against a plain loop."""

import pytest
import torch
from ckd_mmdet.samples import Candidates
from ckd_mmdet.selectors import All, Foreground, PerImageCap, Selector
from torch import Tensor

NUM_CLASSES = 3


def candidates(n: int, images: int = 4) -> Candidates:
    """Rows of ``images`` images in mixed order; a quarter of the labels is background, some are ignored."""
    draw = torch.Generator().manual_seed(n)
    logits = torch.randn(n, NUM_CLASSES + 1, generator=draw)
    logits[:, -1] += 5  # background wins, and must not count
    return Candidates(logits, NUM_CLASSES, torch.randint(-2, NUM_CLASSES + 1, (n,), generator=draw),
                      torch.randint(0, images, (n,), generator=draw))


def greatest(rows: Candidates, k: int) -> list[int]:
    """The plain loop of :class:`PerImageCap`."""
    chosen = []
    for image in set(rows.image_ids.tolist()):
        own = [i for i in range(len(rows)) if rows.image_ids[i] == image]
        own.sort(key=lambda i: (-max(rows.logits[i, :NUM_CLASSES].tolist()), i))
        chosen += own[:k]
    return sorted(chosen)


@pytest.mark.parametrize('n', [0, 1, 50])
def test_all_takes_every_row(n: int) -> None:
    assert All()(candidates(n)).tolist() == list(range(n))


@pytest.mark.parametrize('n', [0, 1, 50])
def test_foreground_takes_the_rows_with_an_object(n: int) -> None:
    rows = candidates(n)
    assert Foreground()(rows).tolist() == [i for i in range(n) if 0 <= rows.labels[i] < NUM_CLASSES]


def test_foreground_leaves_out_background_and_ignored_rows() -> None:
    rows = Candidates(torch.zeros(6, 4), NUM_CLASSES, torch.tensor([3, 0, -1, 2, -100, 1]))
    assert Foreground()(rows).tolist() == [1, 3, 5]
    assert Foreground()(Candidates(torch.zeros(2, 4), NUM_CLASSES, torch.tensor([3, -1]))).shape == (0,)


@pytest.mark.parametrize('n', [0, 1, 7, 50])
@pytest.mark.parametrize('k', [1, 2, 5, 1000])
def test_per_image_cap_takes_the_k_most_confident_rows_of_each_image(n: int, k: int) -> None:
    rows = candidates(n)
    assert PerImageCap(k)(rows).tolist() == greatest(rows, k)


def test_per_image_cap_takes_the_first_of_equal_rows() -> None:
    rows = Candidates(torch.zeros(6, 4), NUM_CLASSES, image_ids=torch.tensor([0, 1, 0, 1, 0, 1]))
    assert PerImageCap(2)(rows).tolist() == [0, 1, 2, 3]


def test_per_image_cap_does_not_look_at_background_or_labels() -> None:
    logits = torch.tensor([[0.0, 0, 0, 9], [1, 0, 0, -9]])
    rows = Candidates(logits, NUM_CLASSES, torch.tensor([0, -1]), torch.zeros(2, dtype=torch.long))
    assert PerImageCap(1)(rows).tolist() == [1]


@pytest.mark.parametrize('selector', [All(), Foreground(), PerImageCap(2)], ids=lambda one: type(one).__name__)
@pytest.mark.parametrize('n', [0, 20])
def test_rows_are_indices_in_ascending_order(selector: Selector, n: int) -> None:
    rows: Tensor = selector(candidates(n))
    assert rows.dtype == torch.int64
    assert rows.ndim == 1
    assert (rows[1:] > rows[:-1]).all()


def test_each_says_what_it_requires() -> None:
    assert All.requires == frozenset()
    assert Foreground.requires == {'labels'}
    assert PerImageCap.requires == {'image_ids'}
    no_labels = Candidates(torch.zeros(2, 4), NUM_CLASSES, image_ids=torch.zeros(2, dtype=torch.long))
    assert PerImageCap(1)(no_labels).tolist() == [0]
    assert All()(no_labels).tolist() == [0, 1]


@pytest.mark.parametrize('k', [0, -3, 2.5])
def test_a_cap_that_is_no_whole_number_of_at_least_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f'`PerImageCap` needs a whole `k` of at least 1, got {k}'):
        PerImageCap(k)
