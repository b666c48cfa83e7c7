"""FGD's weights, attentions and terms against plain loops in float64, and by hand."""

import math

import pytest
import torch
from ckd_mmdet.functional import fgd_terms, object_weights
from ckd_mmdet.functional.fgd import attention
from torch import Tensor

BY_HAND = [torch.tensor(side, dtype=torch.float64).reshape(1, 2, 2, 2) for side in (
    [[1, 0, -1, 2], [0.5, 0.5, 0, -0.5]], [[2, 0, 0, 1], [0, 1, -1, 0]])]
FIRST_PLACE = torch.tensor([[[1.0, 0], [0, 0]]], dtype=torch.float64)


def loop_weights(boxes: list[list[float]], image: tuple[int, int], size: tuple[int, int]) -> list[list[float]]:
    """Of one image."""
    made = [[0.0] * size[1] for _ in range(size[0])]
    for x1, y1, x2, y2 in boxes:
        columns = [x for x in range(size[1]) if math.floor(x1 * size[1] / image[1]) <= x <= math.ceil(
            x2 * size[1] / image[1])]
        rows = [y for y in range(size[0]) if math.floor(y1 * size[0] / image[0]) <= y <= math.ceil(
            y2 * size[0] / image[0])]
        for y in rows:
            for x in columns:
                made[y][x] = max(made[y][x], 1 / (len(rows) * len(columns)))
    return made


def loop_attention(maps: Tensor, temperature: float) -> tuple[list[float], list[float]]:
    """Of one image ``(d, p)``: of its places and of its channels."""
    d, places = maps.shape
    by_place = [math.exp(sum(abs(maps[c, k].item()) for c in range(d)) / d / temperature) for k in range(places)]
    by_channel = [math.exp(sum(abs(maps[c, k].item()) for k in range(places)) / places / temperature)
                  for c in range(d)]
    return ([places * x / sum(by_place) for x in by_place], [d * x / sum(by_channel) for x in by_channel])


def loop_terms(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> tuple[float, float, float]:
    """Of one image."""
    s, t, m = student.flatten(1), teacher.flatten(1), weights.flatten().tolist()
    (places, channels), (ours, our_channels) = loop_attention(t, temperature), loop_attention(s, temperature)
    empty = sum(x == 0 for x in m)
    objects = background = 0.0
    for c in range(len(s)):
        for k in range(len(m)):
            cost = places[k] * channels[c] * (t[c, k].item() - s[c, k].item())**2
            objects += m[k] * cost
            background += cost / empty if m[k] == 0 else 0
    attended = sum(abs(a - b) for a, b in zip(ours + our_channels, places + channels, strict=True))
    return objects, background, attended


def test_the_terms_worked_out_by_hand() -> None:
    student, teacher = BY_HAND
    objects, background, attended = fgd_terms(student, teacher, FIRST_PLACE)
    assert objects.item() == pytest.approx(2.726113, abs=1e-6)
    assert background.item() == pytest.approx(0.844650, abs=1e-6)
    assert attended.item() == pytest.approx(3.854409, abs=1e-6)
    places, channels = attention(teacher, 0.5)
    assert places.flatten().tolist() == pytest.approx([1.901468, 0.699511, 0.699511, 0.699511], abs=1e-6)
    assert channels.flatten().tolist() == pytest.approx([1.244919, 0.755081], abs=1e-6)


@pytest.mark.parametrize('shape', [(3, 2, 5, 7), (2, 4, 3, 3), (1, 1, 2, 6), (2, 3, 1, 1)], ids=str)
@pytest.mark.parametrize('temperature', [0.5, 0.8])
def test_the_terms_equal_the_loop(shape: tuple[int, ...], temperature: float) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    weights = torch.rand(shape[0], *shape[2:], dtype=torch.float64) * torch.randint(0, 2, (shape[0], *shape[2:]))
    found = torch.stack(fgd_terms(student, teacher, weights, temperature), 1)
    expected = [loop_terms(*parts, temperature) for parts in zip(student, teacher, weights, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda s: fgd_terms(s, teacher, weights, temperature), student.requires_grad_())


@pytest.mark.parametrize('size', [(8, 6), (4, 3), (2, 2), (1, 1), (13, 5)])
def test_the_weights_equal_the_loop(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    boxes = []
    for count in (0, 1, 7):
        corners = torch.rand(count, 2) * 40
        boxes.append(torch.cat([corners, corners + torch.rand(count, 2) * 30], 1))  # some leave the image of 48 x 64
    found = object_weights(boxes, (64, 48), size)
    assert found.dtype == torch.float32 and found.shape == (3, *size)
    for one, each in zip(found, boxes, strict=True):
        torch.testing.assert_close(one, torch.tensor(loop_weights(each.tolist(), (64, 48), size)))
    assert not found[0].any()


def test_a_small_object_counts_as_much_as_a_large_one_and_wins_where_they_overlap() -> None:
    weights = object_weights([torch.tensor([[0., 0, 30, 30], [2, 2, 7, 7]])], (32, 32), (32, 32))[0]
    assert weights[4, 4] == 1 / 36 and weights[20, 20] == pytest.approx(1 / 31**2)
    assert weights[31].any().item() is False  # the ceiling of 30 is a place, 31 is none


def test_the_padded_batch_is_what_the_maps_cover() -> None:
    box = [torch.tensor([[0., 0, 15, 15]])]
    wide, square = (object_weights(box, size, shape) for size, shape in (((32, 64), (4, 8)), ((32, 32), (4, 4))))
    assert wide.count_nonzero() == square.count_nonzero() == 9


def test_an_image_of_one_object_has_no_background_and_one_of_none_no_objects() -> None:
    student, teacher = BY_HAND
    objects, background, _ = fgd_terms(student, teacher, torch.ones(1, 2, 2, dtype=torch.float64))
    assert background == 0 and objects > 0
    objects, background, _ = fgd_terms(student, teacher, torch.zeros(1, 2, 2, dtype=torch.float64))
    assert objects == 0 and background > 0


@pytest.mark.parametrize('temperature', [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match='`fgd_terms` needs a finite `temperature` greater than 0'):
        fgd_terms(*BY_HAND, FIRST_PLACE, temperature)
