"""L2 and PKD of a part of the maps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ckd_mmdet.functional import boxes_of_level, inside_objects, l2_loss, near_objects, object_weights, pkd_loss
from ckd_mmdet.losses import L2Loss, MapLoss, PKDLoss
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import Tensor

FORMULAS = {L2Loss: l2_loss, PKDLoss: pkd_loss}
IMAGE, SIZES = (256, 192), [(32, 24), (16, 12), (8, 6)]
BOXES = [torch.tensor([[10.0, 20, 60, 70], [40, 40, 180, 240]]), torch.zeros(0, 4), torch.tensor([[3.0, 3, 9, 9]])]

every_loss = pytest.mark.parametrize('kind', FORMULAS)
every_region = pytest.mark.parametrize('region', ['gt', 'fine', 'decoupled'])


def maps(boxes: list[Tensor], dtype: torch.dtype = torch.float32) -> AlignedMaps:
    draw = torch.Generator().manual_seed(0)
    sides = [[torch.randn(len(boxes), 4, *size, generator=draw).to(dtype) for size in SIZES] for _ in range(2)]
    return AlignedMaps([level.requires_grad_() for level in sides[0]], sides[1], boxes, IMAGE)


def built(kind: type[MapLoss], region: str | None, **settings: Any) -> MapLoss:
    loss = kind(region=region, **settings)
    loss.build_parts(Widths((4, 4, 4), (4, 4, 4)))
    return loss


def masks(region: str, level: int) -> Tensor:
    if region == 'decoupled':
        own = [boxes_of_level(boxes, IMAGE, SIZES, level) for boxes in BOXES]
        return object_weights(own, IMAGE, SIZES[level]) > 0
    return (inside_objects if region == 'gt' else near_objects)(BOXES, IMAGE, SIZES[level])


def mean_over(kind: type[MapLoss], student: Tensor, teacher: Tensor, shown: Tensor) -> float:
    """Place by place: of the formula with one place of the batch alone."""
    costs = [FORMULAS[kind](student, teacher, one.reshape(shown.shape)).sum().item()
             for one in torch.eye(shown.numel())[shown.flatten()]]
    return sum(costs) / max(1, len(costs))


@every_loss
@every_region
def test_it_is_the_mean_over_the_places_of_the_region_summed_over_the_levels(kind: type[MapLoss], region: str) -> None:
    aligned = maps(BOXES)
    expected = 0.0
    for level in (1, 2):  # the finest has too many places for this loop
        student, teacher, shown = aligned.student[level], aligned.teacher[level], masks(region, level)
        expected += mean_over(kind, student, teacher, shown)
        expected += 2.5 * mean_over(kind, student, teacher, ~shown) if region == 'decoupled' else 0
    loss = built(kind, region, **(dict(background=2.5) if region == 'decoupled' else {}))
    found = sum(loss.per_image(level, aligned.student[level], aligned.teacher[level], aligned).mean().item()
                for level in (1, 2))
    assert found == pytest.approx(expected, rel=1e-5)


def test_each_box_counts_on_its_one_level() -> None:
    # of 50 x 50, 140 x 200 and 6 x 6 pixels: below 2 * 14 * 8 all but the second belong to the finest level
    assert [masks('decoupled', level).any().item() for level in range(3)] == [True, False, False]
    large = [torch.tensor([[0.0, 0, 192, 256]])]
    assert len(boxes_of_level(large[0], IMAGE, SIZES, 0)) == 1  # 222 pixels, less than 224
    larger = torch.tensor([[0.0, 0, 200, 256]])
    assert len(boxes_of_level(larger, IMAGE, SIZES, 1)) == 1


@every_loss
def test_places_out_of_the_region_have_no_gradient_except_by_the_statistics_of_a_channel(kind: type[MapLoss]) -> None:
    aligned = maps(BOXES)
    built(kind, 'gt')(aligned).backward()
    outside = ~masks('gt', 0)[:, None].expand(-1, 4, -1, -1)
    gradient = aligned.student[0].grad
    assert gradient[~outside].any()
    assert bool(gradient[outside].any()) == (kind is PKDLoss)  # by the statistics of the channel


@every_loss
@every_region
def test_a_batch_without_objects_costs_nothing_or_its_background_and_has_a_gradient(kind: type[MapLoss], region: str
                                                                                    ) -> None:
    aligned = maps([torch.zeros(0, 4)] * 2)
    value = built(kind, region)(aligned)
    value.backward()
    assert all(level.grad is not None and level.grad.isfinite().all() for level in aligned.student)
    if region == 'decoupled':
        torch.testing.assert_close(value, 4 * built(kind, None)(aligned))
    else:
        assert value == 0 and not any(level.grad.any() for level in aligned.student)


@every_loss
@every_region
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_only_in_the_maps(kind: type[MapLoss], region: str, dtype: torch.dtype) -> None:
    half = maps(BOXES, dtype)
    with torch.autocast('cpu', dtype=dtype):
        value = built(kind, region)(half)
    assert value.dtype == torch.float32
    wide = AlignedMaps(*([level.detach().float() for level in side] for side in (half.student, half.teacher)),
                       BOXES, IMAGE)
    torch.testing.assert_close(value, built(kind, region)(wide))


@every_loss
def test_boxes_are_asked_for_only_with_a_region(kind: type[MapLoss]) -> None:
    assert 'boxes' not in kind().requires and 'boxes' in kind(region='fine').requires


@every_loss
@pytest.mark.parametrize(('settings', 'words'), [
    (dict(region='boxes'), r"needs `region` to be one of \(None, 'gt', 'fine', 'decoupled'\), got 'boxes'"),
    (dict(region='decoupled', background=-1), 'needs a finite `background` of at least 0, got -1'),
    (dict(region='gt', background=2), "has a `background` of 2, which only `region='decoupled'` looks at, and `region` "
                                      "is 'gt'; leave it out")])
def test_settings_out_of_range_are_refused(kind: type[MapLoss], settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` {words}'):
        kind(**settings)
