"""What a loss of maps does around its formula: levels, images, and the learned way to the teacher's width."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ckd_mmdet.functional import l2_loss, pkd_loss
from ckd_mmdet.losses import L2Loss, MapLoss, PKDLoss
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import nn

FORMULAS = {L2Loss: l2_loss, PKDLoss: pkd_loss}
SIZES = [(4, 6), (2, 3)]

every_loss = pytest.mark.parametrize('kind', FORMULAS)


def maps(widths: Widths, n: int = 3) -> AlignedMaps:
    torch.manual_seed(0)
    return AlignedMaps(*([torch.randn(n, width, *size) for width, size in zip(side, SIZES, strict=True)]
                         for side in (widths.student, widths.teacher)))


def built(kind: type[MapLoss], widths: Widths, *arguments: Any, **settings: Any) -> MapLoss:
    loss = kind(*arguments, **settings)
    loss.build_parts(widths)
    return loss


@every_loss
def test_it_is_the_sum_over_the_levels_of_the_mean_over_images(kind: type[MapLoss]) -> None:
    widths = Widths((5, 3), (5, 3))
    aligned = maps(widths)
    expected = sum(FORMULAS[kind](student, teacher).sum() / 3
                   for student, teacher in zip(aligned.student, aligned.teacher, strict=True))
    torch.testing.assert_close(built(kind, widths, loss_weight=0.5)(aligned), 0.5 * expected)


@every_loss
@pytest.mark.parametrize(('project', 'learned'), [(None, [True, False]), (True, [True, True])])
def test_what_is_learned_by_level(kind: type[MapLoss], project: bool | None, learned: list[bool]) -> None:
    loss = built(kind, Widths((5, 3), (4, 3)), project)
    assert [isinstance(part, nn.Conv2d) for part in loss.projectors] == learned
    assert [isinstance(part, nn.Identity) for part in loss.projectors] == [not is_learned for is_learned in learned]


@every_loss
def test_by_default_only_what_is_needed_is_learned(kind: type[MapLoss]) -> None:
    assert kind().project is None
    assert not list(built(kind, Widths((5, 3), (5, 3))).parameters())


@every_loss
def test_equal_widths_need_no_projection(kind: type[MapLoss]) -> None:
    assert not list(built(kind, Widths((5, 3), (5, 3)), False).parameters())


@every_loss
def test_widths_that_differ_are_named_where_nothing_may_be_learned(kind: type[MapLoss]) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` with `project=False` needs maps of one width, got 3 '
                                         'channels of the student and 7 of the teacher on level 1; take'):
        kind(project=False).build_parts(Widths((5, 3), (5, 7)))


@every_loss
def test_the_students_maps_are_projected_place_by_place_and_the_teachers_are_not(kind: type[MapLoss]) -> None:
    widths = Widths((5, 3), (4, 3))
    loss, aligned = built(kind, widths, project=True), maps(widths)
    expected = 0
    for projector, student, teacher in zip(loss.projectors, aligned.student, aligned.teacher, strict=True):
        assert projector.weight.shape[2:] == (1, 1)
        assert projector.bias is not None
        by_place = F.linear(student.movedim(1, -1), projector.weight[:, :, 0, 0], projector.bias).movedim(-1, 1)
        expected += FORMULAS[kind](by_place, teacher).mean()
    torch.testing.assert_close(loss(aligned), expected)


def test_under_autocast_the_projection_is_in_half_precision_and_the_loss_is_not() -> None:
    loss, aligned = built(L2Loss, Widths((5, 3), (4, 3))), maps(Widths((5, 3), (4, 3)))
    seen = []
    loss.projectors[0].register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = loss(aligned)
    assert seen == [torch.bfloat16]
    assert value.dtype == torch.float32


@every_loss
@pytest.mark.parametrize('project', ['auto', 1])
def test_a_wrong_choice_is_named_when_it_is_built(kind: type[MapLoss], project: object) -> None:
    wish = f'`{kind.__name__}` needs a `project` of None, True or False'
    with pytest.raises(ValueError, match=f'{wish}, got {project!r}'):
        kind(project)


@every_loss
def test_maps_of_different_sizes_are_named(kind: type[MapLoss]) -> None:
    widths = Widths((5, 3), (5, 3))
    aligned = maps(widths)
    torn = AlignedMaps(aligned.student, [aligned.teacher[0], aligned.teacher[1][:, :, :1]])
    with pytest.raises(ValueError, match=r'of one shape \(N, d, h, w\), got \(3, 3, 2, 3\) and \(3, 3, 1, 3\)'):
        built(kind, widths)(torn)
