"""The losses of feature maps against plain loops in float64."""

import math
from collections.abc import Callable

import pytest
import torch
from ckd_mmdet.functional import cwd_loss, hcl_loss, l2_loss, pkd_loss
from ckd_mmdet.functional.maps import EPSILON
from torch import Tensor

Map = list[list[float]]
SHAPES = [(3, 2, 9, 7), (2, 3, 4, 6), (3, 2, 3, 2), (2, 2, 2, 2), (2, 3, 1, 5), (1, 2, 5, 3)]

every_shape = pytest.mark.parametrize('shape', SHAPES, ids=str)


def random_pair(shape: tuple[int, ...] = (3, 2, 5, 4)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return 3 * torch.randn(shape, dtype=torch.float64) + 1, torch.randn(shape, dtype=torch.float64) - 2


def l2_images(student: Tensor, teacher: Tensor) -> list[float]:
    return [_squares(ours, theirs) for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True)]


def pkd_images(student: Tensor, teacher: Tensor) -> list[float]:
    s, t = _standardized(student), _standardized(teacher)
    n, d, h, w = student.shape
    return [sum((s[i][c][k] - t[i][c][k])**2 for c in range(d) for k in range(h * w)) / (2 * d * h * w)
            for i in range(n)]


def cwd_images(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> list[float]:
    def shares(rows: Map) -> list[float]:
        powers = [math.exp(x / temperature) for x in _flat(rows)]
        return [power / sum(powers) for power in powers]

    return [_mean([temperature**2 * sum(q * math.log(q / p) for p, q in zip(shares(s), shares(t), strict=True))
                   for s, t in zip(ours, theirs, strict=True)])
            for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True)]


def hcl_images(student: Tensor, teacher: Tensor) -> list[float]:
    values = []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        parts, weights, height = [_squares(ours, theirs)], [1.0], student.shape[2]
        for side in (4, 2, 1):
            if side < height:
                parts.append(_squares([_pool(s, side) for s in ours], [_pool(t, side) for t in theirs]))
                weights.append(weights[-1] / 2)
        values.append(sum(a * b for a, b in zip(parts, weights, strict=True)) / sum(weights))
    return values


def _squares(ours: list[Map], theirs: list[Map]) -> float:
    return _mean([(a - b)**2 for s, t in zip(ours, theirs, strict=True)
                  for a, b in zip(_flat(s), _flat(t), strict=True)])


def _pool(rows: Map, side: int) -> Map:
    """Means of ``side`` x ``side`` windows that cover the map, each from the floor to the ceiling of its bounds."""
    def bounds(k: int, length: int) -> range:
        return range(k * length // side, math.ceil((k + 1) * length / side))

    return [[_mean([rows[y][x] for y in bounds(i, len(rows)) for x in bounds(j, len(rows[0]))]) for j in range(side)]
            for i in range(side)]


def _standardized(maps: Tensor) -> list[list[list[float]]]:
    n, d = maps.shape[:2]
    places = [[_flat(maps[i, c].tolist()) for c in range(d)] for i in range(n)]
    for c in range(d):
        values = [x for i in range(n) for x in places[i][c]]
        mean = _mean(values)
        spread = math.sqrt(_mean([(x - mean)**2 for x in values]))
        for i in range(n):
            places[i][c] = [(x - mean) / (spread + 1e-6) for x in places[i][c]]
    return places


def _flat(rows: Map) -> list[float]:
    return [x for row in rows for x in row]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


LOSSES = {l2_loss: l2_images, pkd_loss: pkd_images, hcl_loss: hcl_images, cwd_loss: cwd_images}
Loss = Callable[[Tensor, Tensor], Tensor]
every_loss = pytest.mark.parametrize('loss', LOSSES, ids=lambda loss: loss.__name__)


@every_loss
@every_shape
def test_it_equals_the_loop(loss: Loss, shape: tuple[int, ...]) -> None:
    student, teacher = random_pair(shape)
    assert loss(student, teacher).tolist() == pytest.approx(LOSSES[loss](student, teacher), rel=1e-12)


@every_loss
@every_shape
def test_its_gradient_is_that_of_finite_differences(loss: Loss, shape: tuple[int, ...]) -> None:
    student, teacher = random_pair(shape)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), student.requires_grad_())


@pytest.mark.parametrize(('temperature', 'expected'), [(1.0, 0.286585), (2.0, 0.291251), (4.0, 0.286458)])
def test_the_divergence_of_the_places_worked_out_by_hand(temperature: float, expected: float) -> None:
    student, teacher = (torch.tensor(side, dtype=torch.float64).reshape(1, 2, 2, 2) for side in (
        [[1, 0, -1, 2], [0.5, 0.5, 0, -0.5]], [[2, 0, 0, 1], [0, 1, -1, 0]]))
    assert cwd_loss(student, teacher, temperature).item() == pytest.approx(expected, abs=1e-6)
    assert cwd_images(student, teacher, temperature) == pytest.approx([expected], abs=1e-6)


def test_the_squares_are_meaned_over_channels_and_places() -> None:
    student = torch.tensor([[[[1.0, 2]], [[3, 4]]], [[[0, 0]], [[0, 1]]]])  # two images, two channels, two places
    assert l2_loss(student, torch.zeros(2, 2, 1, 2)).tolist() == [30 / 4, 1 / 4]


@pytest.mark.parametrize(('student', 'expected'), [([0.0, 1, 2, 3], 0), ([3.0, 2, 1, 0], 2), ([1.0, 0, 0, 1], 1),
                                                   ([0.0, 2, 1, 3], 0.2)])
def test_one_minus_the_correlation_worked_out_by_hand(student: list[float], expected: float) -> None:
    # about the mean 1.5 the teacher is (-3, -1, 1, 3) / 2, of the square 5; the student's product with it, by the roots
    # of both squares: 5, -5, 0, 4 of 5
    teacher = torch.tensor([0.0, 1, 2, 3]).reshape(2, 1, 2, 1)  # two images of two places
    loss = pkd_loss(torch.tensor(student).reshape(2, 1, 2, 1), teacher)
    assert loss.mean().item() == pytest.approx(expected, abs=1e-5)


def test_the_mean_over_images_is_one_minus_the_correlation_of_each_channel() -> None:
    student, teacher = random_pair((3, 4, 5, 2))
    channels = [torch.corrcoef(torch.stack([s.flatten(), t.flatten()]))[0, 1]
                for s, t in zip(student.transpose(0, 1), teacher.transpose(0, 1), strict=True)]
    assert pkd_loss(student, teacher).mean() == pytest.approx(1 - sum(channels).item() / 4, abs=1e-5)


def test_scale_and_offset_of_a_channel_do_not_count_for_a_correlation() -> None:
    student, teacher = random_pair()
    moved = student * torch.tensor([2.0, 0.5])[:, None, None] + torch.tensor([-1.0, 7])[:, None, None]
    torch.testing.assert_close(pkd_loss(moved, teacher), pkd_loss(student, teacher), rtol=1e-5, atol=0)


def test_the_statistics_of_a_correlation_are_those_of_the_batch_and_the_other_losses_know_one_image_alone() -> None:
    student, teacher = random_pair()
    assert abs(pkd_loss(student[:1], teacher[:1]) - pkd_loss(student, teacher)[0]) > 1e-2
    for loss in (l2_loss, hcl_loss, cwd_loss):
        torch.testing.assert_close(loss(student[1:2], teacher[1:2]), loss(student, teacher)[1:2])


def test_a_channel_that_does_not_vary_costs_a_half_and_its_gradient_is_bounded_by_the_epsilon() -> None:
    student = torch.full((2, 1, 2, 2), 0.5, requires_grad=True)
    loss = pkd_loss(student, torch.arange(8.0).reshape(2, 1, 2, 2)).mean()
    assert loss.item() == pytest.approx(0.5, abs=1e-5)
    loss.backward()
    assert student.grad.isfinite().all()
    assert 0.01 / EPSILON < student.grad.abs().max() <= 1 / EPSILON


@pytest.mark.parametrize('shape', [(1, 3, 1, 1), (2, 3, 4, 4)], ids=['one place', 'nothing varies'])
def test_where_nothing_varies_a_correlation_is_zero_with_a_gradient_of_zeros(shape: tuple[int, ...]) -> None:
    student = torch.full(shape, 2.0, requires_grad=True)
    loss = pkd_loss(student, torch.full(shape, 5.0))
    assert not loss.any()
    loss.sum().backward()
    assert not student.grad.any()


@pytest.mark.parametrize(('height', 'expected'), [(1, 1), (2, 2 / 3), (3, 4 / 7), (4, 4 / 7), (5, 8 / 15)])
def test_what_every_pool_evens_out_counts_by_the_maps_own_weight(height: int, expected: float) -> None:
    # a checkerboard of +1 and -1 over blocks that are smaller than any pool's window: 1 x 8 columns for each pool
    student = torch.tensor([1.0, -1]).repeat(4).expand(1, 1, height, 8)
    assert hcl_loss(student, torch.zeros_like(student)).item() == pytest.approx(expected)


@pytest.mark.parametrize('height', [1, 2, 3, 4, 5, 9])
def test_an_offset_counts_alike_in_every_pool(height: int) -> None:
    teacher = torch.randn(2, 3, height, 5, dtype=torch.float64)
    assert hcl_loss(teacher + 3, teacher).tolist() == pytest.approx([9, 9])


@every_loss
def test_equal_maps_cost_nothing(loss: Loss) -> None:
    student, _ = random_pair()
    assert not loss(student, student).any()


@every_loss
def test_no_gradient_flows_to_the_teacher(loss: Loss) -> None:
    student, teacher = (tensor.requires_grad_() for tensor in random_pair())
    loss(student, teacher).sum().backward()
    assert student.grad.any()
    assert teacher.grad is None


@every_loss
def test_no_image_gives_no_value(loss: Loss) -> None:
    student = torch.zeros(0, 2, 5, 4, requires_grad=True)
    value = loss(student, torch.zeros(0, 2, 5, 4))
    assert value.shape == (0,)
    value.sum().backward()
    assert student.grad.shape == (0, 2, 5, 4)


@every_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_maps(loss: Loss, dtype: torch.dtype) -> None:
    student, teacher = (tensor.to(dtype) for tensor in random_pair())
    with torch.autocast('cpu', dtype=dtype):
        ours = loss(student, teacher)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), loss(student.double(), teacher.double()), rtol=1e-5, atol=0)


@every_loss
def test_great_numbers_in_half_precision_do_not_overflow(loss: Loss) -> None:
    student = (200 * random_pair()[0]).half().requires_grad_()  # their squares are beyond float16
    value = loss(student, torch.zeros(3, 2, 5, 4, dtype=torch.float16))
    value.mean().backward()
    assert value.isfinite().all()
    assert student.grad.isfinite().all()


@every_loss
@pytest.mark.parametrize(('ours', 'theirs'), [((2, 5, 4, 4), (2, 8, 4, 4)), ((2, 5, 4, 4), (2, 5, 2, 2)),
                                              ((2, 5, 4), (2, 5, 4))], ids=['widths', 'sizes', 'dimensions'])
def test_a_wrong_shape_is_named(loss: Loss, ours: tuple[int, ...], theirs: tuple[int, ...]) -> None:
    with pytest.raises(ValueError) as refused:
        loss(torch.zeros(ours), torch.zeros(theirs))
    assert str(refused.value).startswith(f'`{loss.__name__}` needs `student` and `teacher` of one shape (N, d, h, w), '
                                         f'got {ours} and {theirs}; ')
