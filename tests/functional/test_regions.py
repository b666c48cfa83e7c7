"""Regions of the maps against plain loops in float64, of shapes and boxes drawn at random."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from ckd_mmdet.functional import boxes_of_level, inside_objects, l2_loss, near_objects, pkd_loss, place_weights
from torch import Tensor

Box = list[float]
SEEDS = range(8)


def drawn(seed: int) -> tuple[list[Tensor], tuple[int, int], tuple[int, int]]:
    """Boxes of some images, height and width of the batch in pixels, and of the maps."""
    draw = random.Random(seed)
    size, stride = (draw.randint(1, 9), draw.randint(1, 9)), draw.choice([4, 8, 16])
    image = size[0] * stride, size[1] * stride - draw.randint(0, stride - 1)
    boxes = []
    for _ in range(draw.randint(1, 4)):
        corners = [(draw.uniform(-5, image[1]), draw.uniform(-5, image[0])) for _ in range(draw.randint(0, 5))]
        boxes.append(torch.tensor([[x, y, x + draw.uniform(0, 90), y + draw.uniform(0, 90)] for x, y in corners],
                                  dtype=torch.float64).reshape(-1, 4))
    return boxes, image, size


def middle(place: tuple[int, int], image: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
    row, column = place
    return (column + 0.5) * image[1] / size[1], (row + 0.5) * image[0] / size[0]


def places(size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(row, column) for row in range(size[0]) for column in range(size[1])]


def loop_inside(boxes: list[Box], image: tuple[int, int], size: tuple[int, int]) -> list[bool]:
    made = []
    for place in places(size):
        x, y = middle(place, image, size)
        made.append(any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in boxes))
    return made


def loop_near(boxes: list[Box], image: tuple[int, int], size: tuple[int, int]) -> list[bool]:
    anchors = {place: [_anchor(middle(place, image, size), ratio, image, size) for ratio in (0.5, 1, 2)]
               for place in places(size)}
    made = dict.fromkeys(anchors, False)
    for box in boxes:
        best = max(_iou(anchor, box) for three in anchors.values() for anchor in three)
        for place, three in anchors.items():
            made[place] |= any(_iou(anchor, box) > best / 2 for anchor in three)
    return list(made.values())


def _anchor(at: tuple[float, float], ratio: float, image: tuple[int, int], size: tuple[int, int]) -> Box:
    width, height = 8 * image[1] / size[1] / math.sqrt(ratio), 8 * image[0] / size[0] * math.sqrt(ratio)
    return [at[0] - width / 2, at[1] - height / 2, at[0] + width / 2, at[1] + height / 2]


def _iou(a: Box, b: Box) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize(('region', 'loop'), [(inside_objects, loop_inside), (near_objects, loop_near)])
def test_a_region_equals_the_loop(region: Callable, loop: Callable, seed: int) -> None:
    boxes, image, size = drawn(seed)
    found = region(boxes, image, size)
    assert found.shape == (len(boxes), *size) and found.dtype == torch.bool
    assert [one.flatten().tolist() for one in found] == [loop(each.tolist(), image, size) for each in boxes]


def test_the_draws_hold_images_with_and_without_objects_and_places_in_and_out() -> None:
    images = [each for seed in SEEDS for each in drawn(seed)[0]]
    assert {bool(len(each)) for each in images} == {True, False}
    for region in (inside_objects, near_objects):
        shares = [region(*drawn(seed)).float().mean().item() for seed in SEEDS]
        assert min(shares) < 0.5 < max(shares) + 0.4 and any(0 < share < 1 for share in shares)


def test_places_inside_and_near_worked_out_by_hand() -> None:
    boxes = [torch.tensor([[4.0, 4, 20, 12]]), torch.zeros(0, 4)]
    inside = inside_objects(boxes, (32, 32), (4, 4))  # middles 4, 12, 20, 28: from 4 on, before 20 and 12
    assert inside[0].nonzero().tolist() == [[0, 0], [0, 1]] and not inside[1].any()
    # of 64 x 64 pixels over the middle of a place: its square anchor is the box, that of a neighbour overlaps 56 / 72
    near = near_objects([torch.tensor([[44.0 - 32, 44 - 32, 44 + 32, 44 + 32]])], (88, 88), (11, 11))[0]
    assert near[5, 5] and near[5, 6] and near[4, 5] and not near[0, 0] and not near[5, 0]


@pytest.mark.parametrize(('side', 'level'), [(0, 0), (20, 0), (111, 0), (113, 1), (223, 1), (225, 2), (900, 4),
                                             (5000, 4)])
@pytest.mark.parametrize('order', [[0, 1, 2, 3, 4], [4, 2, 0, 1, 3]])
def test_a_box_belongs_to_one_level_by_its_size(side: float, level: int, order: list[int]) -> None:
    sizes = [[(200, 304), (100, 152), (50, 76), (25, 38), (13, 19)][i] for i in order]  # the last is rounded up
    box = torch.tensor([[5.0, 7, 5 + 2 * side, 7 + side / 2]])
    owners = [i for i in range(5) if len(boxes_of_level(box, (800, 1216), sizes, i))]
    assert [order[i] for i in owners] == [level]
    assert boxes_of_level(torch.zeros(0, 4), (800, 1216), sizes, 0).shape == (0, 4)


@pytest.mark.parametrize('seed', SEEDS)
@pytest.mark.parametrize('loss', [l2_loss, pkd_loss])
def test_with_the_weights_of_a_mask_a_loss_is_the_mean_over_what_the_mask_shows(loss: Callable, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    n, d, h, w = (int(torch.randint(1, 5, (), generator=draw)) for _ in range(4))
    student, teacher = (torch.randn(n, d, h, w, generator=draw, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(n, h, w, generator=draw) > 0.5
    ours, theirs = (side if loss is l2_loss else standardized(side) for side in (student, teacher))
    squares = [(ours[i, c, y, x] - theirs[i, c, y, x]).item()**2 for i in range(n) for c in range(d)
               for y, x in places((h, w)) if mask[i, y, x]]
    expected = sum(squares) / max(1, len(squares)) / (1 if loss is l2_loss else 2)
    value = loss(student, teacher, place_weights(mask))
    assert value.shape == (n,) and value.mean().item() == pytest.approx(expected, rel=1e-6)
    weights = torch.rand(n, h, w, generator=draw, dtype=torch.float64)
    if n * h * w > 2:  # of two places a standardised channel is constant
        assert torch.autograd.gradcheck(lambda s: loss(s, teacher, weights), student.requires_grad_(), atol=1e-4)


def standardized(maps: Tensor) -> Tensor:
    made = maps.clone()
    for c in range(maps.shape[1]):
        values = maps[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((x - mean)**2 for x in values) / len(values))
        made[:, c] = (maps[:, c] - mean) / (spread + 1e-6)
    return made


@pytest.mark.parametrize('loss', [l2_loss, pkd_loss])
def test_equal_weights_are_the_loss_itself_and_others_must_fit(loss: Callable) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(loss(student, teacher, torch.full((2, 4, 5), 1 / 20)), loss(student, teacher))
    with pytest.raises(ValueError, match=rf'`{loss.__name__}` needs `weights` of shape \(N, h, w\), \(2, 4, 5\) for '
                                         r'these maps, got \(2, 1, 4, 5\)'):
        loss(student, teacher, torch.ones(2, 1, 4, 5))
