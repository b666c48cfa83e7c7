"""ReviewKD against a plain loop over places, from the module's own weights."""

import math
from collections.abc import Sequence

import pytest
import torch
from ckd_mmdet.losses import ReviewKDLoss
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor

from tests.functional.test_maps import hcl_images

WIDTHS = Widths((3, 2, 4), (4, 3, 2))
SIZES = [(5, 6), (3, 3), (2, 1)]  # the coarser does not always go into the finer
Grid = list[list[list[list[float]]]]
"""By image, channel, row and column."""


def maps(n: int = 2, sizes: Sequence[tuple[int, int]] = SIZES) -> AlignedMaps:
    torch.manual_seed(1)
    return AlignedMaps(*([torch.randn(n, width, *size, dtype=torch.float64) for width, size in
                          zip(side, sizes, strict=True)] for side in (WIDTHS.student, WIDTHS.teacher)))


def built(mid_channels: int = 3, loss_weight: float = 1.0) -> ReviewKDLoss:
    """In float64, every parameter drawn, so that none is as if it were not there."""
    torch.manual_seed(0)
    loss = ReviewKDLoss(mid_channels, loss_weight).double()
    loss.build_parts(WIDTHS)
    loss.double()
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.normal_()
    return loss


def review_by_loops(loss: ReviewKDLoss, aligned: AlignedMaps) -> list[Grid]:
    """What is compared with the teacher's maps, from the finest level to the coarsest."""
    fused, out = None, []
    for level in reversed(range(len(aligned.student))):
        weights = dict(loss.projectors[level].named_parameters())
        own = _normalised(_convolved(aligned.student[level].tolist(), weights['0.0.weight'], None),
                          weights['0.1.weight'], weights['0.1.bias'])
        if fused is not None:
            own = _attended(own, fused, weights['2.weight'], weights['2.bias'])
        fused = own
        out.append(_normalised(_convolved(own, weights['1.0.weight'], None), weights['1.1.weight'],
                               weights['1.1.bias']))
    return out[::-1]


def _attended(own: Grid, coarser: Grid, weight: Tensor, bias: Tensor) -> Grid:
    n, d, h, w = _shape(own)
    _, _, rows, columns = _shape(coarser)
    near = [[[[coarser[i][c][y * rows // h][x * columns // w] for x in range(w)] for y in range(h)] for c in range(d)]
            for i in range(n)]
    scores = _convolved([a + b for a, b in zip(own, near, strict=True)], weight, bias)
    return [[[[own[i][c][y][x] / (1 + math.exp(-scores[i][0][y][x])) + near[i][c][y][x] /
               (1 + math.exp(-scores[i][1][y][x])) for x in range(w)] for y in range(h)] for c in range(d)]
            for i in range(n)]


def _convolved(maps: Grid, weight: Tensor, bias: Tensor | None) -> Grid:
    """With zeros around, so that the size stays."""
    n, _, h, w = _shape(maps)
    kernel, pad = weight.tolist(), weight.shape[2] // 2

    def value(i: int, o: int, y: int, x: int) -> float:
        total = 0.0 if bias is None else bias[o].item()
        for c, plane in enumerate(kernel[o]):
            for dy, row in enumerate(plane):
                for dx, factor in enumerate(row):
                    if 0 <= y + dy - pad < h and 0 <= x + dx - pad < w:
                        total += factor * maps[i][c][y + dy - pad][x + dx - pad]
        return total

    return [[[[value(i, o, y, x) for x in range(w)] for y in range(h)] for o in range(len(kernel))] for i in range(n)]


def _normalised(maps: Grid, weight: Tensor, bias: Tensor) -> Grid:
    """By the statistics of the batch."""
    n, d, h, w = _shape(maps)
    out = [[[[0.0] * w for _ in range(h)] for _ in range(d)] for _ in range(n)]
    places = [(i, y, x) for i in range(n) for y in range(h) for x in range(w)]
    for c in range(d):
        mean = sum(maps[i][c][y][x] for i, y, x in places) / len(places)
        variance = sum((maps[i][c][y][x] - mean)**2 for i, y, x in places) / len(places)
        for i, y, x in places:
            out[i][c][y][x] = ((maps[i][c][y][x] - mean) / math.sqrt(variance + 1e-5) * weight[c].item()
                               + bias[c].item())
    return out


def _shape(maps: Grid) -> tuple[int, int, int, int]:
    return len(maps), len(maps[0]), len(maps[0][0]), len(maps[0][0][0])


def test_what_is_compared_equals_the_loop() -> None:
    loss, aligned = built(), maps()
    for ours, theirs in zip(loss.projected(aligned.student), review_by_loops(loss, aligned), strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_the_loss_is_the_hierarchical_context_loss_summed_over_the_levels() -> None:
    loss, aligned = built(loss_weight=0.5), maps()
    levels = [hcl_images(torch.tensor(student, dtype=torch.float64), teacher)
              for student, teacher in zip(review_by_loops(loss, aligned), aligned.teacher, strict=True)]
    expected = 0.5 * sum(sum(images) / len(images) for images in levels)
    assert loss(aligned).item() == pytest.approx(expected, rel=1e-9)


def test_its_gradient_is_that_of_finite_differences() -> None:
    loss, aligned = built(), maps()

    def value(*student: Tensor) -> Tensor:
        return loss(AlignedMaps(student, aligned.teacher))

    assert torch.autograd.gradcheck(value, [level.requires_grad_() for level in aligned.student])


def test_a_level_reaches_itself_and_the_finer_ones() -> None:
    loss, aligned = built(), maps()
    before = loss.projected(aligned.student)
    for changed in range(3):
        student = list(aligned.student)
        student[changed] = student[changed] + torch.randn_like(student[changed])
        moved = [not torch.equal(ours, old) for ours, old in zip(loss.projected(student), before, strict=True)]
        assert moved == [level <= changed for level in range(3)]


def test_it_is_built_as_released() -> None:
    torch.manual_seed(0)
    loss = ReviewKDLoss()
    loss.build_parts(Widths((64, 96, 128), (128, 64, 32)))
    assert loss.mid_channels == 256
    assert {key: tuple(tensor.shape) for key, tensor in loss.projectors[1].named_parameters()} == {
        '0.0.weight': (256, 96, 1, 1), '0.1.weight': (256,), '0.1.bias': (256,),
        '2.weight': (2, 512, 1, 1), '2.bias': (2,),
        '1.0.weight': (64, 256, 3, 3), '1.1.weight': (64,), '1.1.bias': (64,)}
    assert [part.attention is None for part in loss.projectors] == [False, False, True]
    for conv, inputs in ((loss.projectors[1].narrow[0], 96), (loss.projectors[1].widen[0], 256 * 9)):
        bound = math.sqrt(3 / inputs)  # Kaiming's, uniform, of the slope 1
        assert 0.98 * bound < conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize('level', [0, 1])
def test_levels_in_the_wrong_order_are_refused(level: int) -> None:
    aligned = maps(sizes=[(5, 6), (3, 3), (4, 1)] if level else [(2, 6), (3, 3), (2, 1)])
    heights = r'\[5, 3, 4\]' if level else r'\[2, 3, 2\]'
    with pytest.raises(ValueError, match='`ReviewKDLoss` needs the levels from fine to coarse, got maps of the heights '
                                         f'{heights}; choose them finest first with'):
        built()(aligned)


def test_levels_of_one_height_may_follow_each_other() -> None:
    loss, aligned = built(), maps(sizes=[(5, 6), (3, 3), (3, 3)])
    for ours, theirs in zip(loss.projected(aligned.student), review_by_loops(loss, aligned), strict=True):
        torch.testing.assert_close(ours, torch.tensor(theirs, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_one_image_with_a_level_of_one_place_trains() -> None:
    loss, aligned = built(), maps(n=1, sizes=[(4, 4), (2, 2), (1, 1)])
    value = loss(aligned)
    value.backward()
    assert value.isfinite()
    assert all(parameter.grad.isfinite().all() and parameter.grad.any() for parameter in loss.parameters())


def test_maps_that_do_not_count_leave_the_running_statistics_alone() -> None:
    loss, aligned = built(loss_weight=0.0), maps()
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    loss(aligned)
    assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())


@pytest.mark.parametrize('mid_channels', [0, -1, 1.5, True])
def test_a_wrong_width_is_named_when_it_is_built(mid_channels: float) -> None:
    with pytest.raises(ValueError, match='`ReviewKDLoss` needs a whole `mid_channels` of at least 1, '
                                         f'got {mid_channels}'):
        ReviewKDLoss(mid_channels)
