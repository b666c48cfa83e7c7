"""What FGD and MGD learn beside the formulas of their maps."""

from collections.abc import Callable

import pytest
import torch
from ckd_mmdet.losses import FGDLoss, MGDLoss
from ckd_mmdet.losses.mgd import places_shown
from ckd_mmdet.samples import AlignedMaps, Widths
from torch import nn

from tests.functional.test_fgd import BY_HAND, FIRST_PLACE


def aligned() -> AlignedMaps:
    student, teacher = (side.float() for side in BY_HAND)
    return AlignedMaps([student], [teacher], [torch.tensor([[0., 0, 0, 0]])], (2, 2))  # covers the first place


def built(kind: Callable, **settings: object) -> nn.Module:
    loss = kind(**settings)
    loss.build_parts(Widths((2,), (2,)))
    return loss


@pytest.mark.parametrize(('factor', 'expected'), [('alpha', 2.726113), ('beta', 0.844650), ('gamma', 3.854409),
                                                  ('lambda_', 4.75)])
def test_each_term_of_fgd_has_its_weight_and_the_context_starts_as_nothing(factor: str, expected: float) -> None:
    none = dict.fromkeys(('alpha', 'beta', 'gamma', 'lambda_'), 0.0)
    assert FIRST_PLACE[0, 0, 0] == 1
    assert built(FGDLoss, **{**none, factor: 1.0})(aligned()).item() == pytest.approx(expected, abs=1e-5)


def test_the_context_equals_the_loop() -> None:
    torch.manual_seed(0)
    loss = built(FGDLoss)
    context = loss.projectors[0][1]
    for parameter in context.parameters():
        nn.init.normal_(parameter)
    maps = torch.randn(2, 2, 3, 2)
    where, narrow, norm, widen = context
    for i in range(2):
        flat = maps[i].flatten(1)
        scores = [sum(where.weight[0, c, 0, 0] * flat[c, k] for c in range(2)) + where.bias[0] for k in range(6)]
        powers = [torch.exp(score) for score in scores]
        v = [sum(powers[k] * flat[c, k] for k in range(6)) / sum(powers) for c in range(2)]
        hidden = sum(narrow.weight[0, c] * v[c] for c in range(2)) + narrow.bias[0]
        hidden = max((hidden - hidden) * norm.weight[0] + norm.bias[0], torch.tensor(0.0))  # of one channel: the bias
        expected = [widen.weight[c, 0] * hidden + widen.bias[c] for c in range(2)]
        added = (context(maps)[i] - maps[i]).flatten(1)
        for c in range(2):
            torch.testing.assert_close(added[c], expected[c].expand(6), atol=1e-5, rtol=1e-5)


def test_mgd_is_the_sum_of_squares_of_what_is_made_from_the_places_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = built(MGDLoss, alpha=1.0)
    loss.projectors[0][1] = nn.Identity()
    shown = torch.tensor([0.0, 1, 1, 1]).reshape(1, 1, 2, 2)
    monkeypatch.setattr('ckd_mmdet.losses.mgd.places_shown', lambda teacher, ratio: shown)
    assert loss(aligned()).item() == pytest.approx(7.5)


def test_as_many_places_are_hidden_as_were_asked_for_and_an_image_hides_its_own_again() -> None:
    teacher = torch.randn(4, 3, 40, 50)
    shown = places_shown(teacher, 0.65)
    assert shown.shape == (4, 1, 40, 50) and set(shown.unique().tolist()) == {0.0, 1.0}
    assert shown.mean().item() == pytest.approx(0.35, abs=0.02)
    assert torch.equal(places_shown(teacher[[2, 0]], 0.65), shown[[2, 0]])  # a resumed run, another order
    assert not torch.equal(shown[0], shown[1])
    before = torch.random.get_rng_state()
    places_shown(teacher, 0.5)
    assert torch.equal(torch.random.get_rng_state(), before)  # the student's own sampling is what it was
    assert places_shown(teacher, 0.0).all()


@pytest.mark.parametrize(('kind', 'settings', 'words'), [
    (FGDLoss, dict(temperature=0), '`FGDLoss` needs a finite `temperature` greater than 0'),
    (FGDLoss, dict(alpha=-1), '`FGDLoss` needs a finite `alpha` of at least 0'),
    (FGDLoss, dict(lambda_=float('nan')), '`FGDLoss` needs a finite `lambda_` of at least 0'),
    (MGDLoss, dict(alpha=0), '`MGDLoss` needs a finite `alpha` greater than 0'),
    (MGDLoss, dict(mask_ratio=1.0), '`MGDLoss` needs a `mask_ratio` of at least 0 and less than 1, got 1.0'),
    (MGDLoss, dict(mask_ratio='x'), '`MGDLoss` needs a `mask_ratio`')])
def test_settings_out_of_range_are_refused(kind: Callable, settings: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        kind(**settings)
