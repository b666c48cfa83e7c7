"""Calls are caught inside the ``with``, and only there."""

import copy

import pytest
import torch
from ckd_mmdet.taps import Call, ModuleTap
from torch import Tensor, nn


class Scale(nn.Module):
    def forward(self, feats: Tensor, factor: float = 1.0) -> Tensor:
        return feats * factor


def hooks(module: nn.Module) -> int:
    return len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._forward_hooks_with_kwargs)


def test_a_call_is_kept_with_its_arguments_and_its_very_output() -> None:
    scale, feats = Scale(), torch.ones(2, requires_grad=True)
    with ModuleTap(scale, 'scale') as tap:
        output = scale(feats, factor=3.0)
    call = tap.only()
    assert call.args == (feats,)
    assert call.kwargs == {'factor': 3.0}
    assert call.output is output
    assert call.output.requires_grad


@pytest.mark.parametrize('call', [Call((1, 2), {}, None), Call((1,), {'rois': 2}, None), Call((), {'rois': 2}, None)])
def test_an_argument_is_found_by_position_or_by_name(call: Call) -> None:
    assert call.arg(1, 'rois') == 2


def test_an_argument_that_was_not_given_is_named() -> None:
    call = Call((1,), {'rois': 2, 'feats': 3}, None)
    with pytest.raises(RuntimeError, match=r"expected the argument `weight` at position 2 of a call with 1 positional "
                                           r"and the keyword arguments \['feats', 'rois'\]"):
        call.arg(2, 'weight')


@pytest.mark.parametrize('times', [0, 2])
def test_more_or_less_than_one_call_is_counted_and_named(times: int) -> None:
    scale = Scale()
    with ModuleTap(scale, 'roi_head.bbox_head') as tap:
        for _ in range(times):
            scale(torch.ones(1))
    assert len(tap.calls) == times
    with pytest.raises(RuntimeError, match=f'expected one call of roi_head.bbox_head, saw {times}'):
        tap.only()


def test_calls_are_kept_in_order() -> None:
    scale = Scale()
    with ModuleTap(scale, 'scale') as tap:
        for number in (3, 1, 2):
            scale(number)
    assert [call.arg(0, 'feats') for call in tap.calls] == [3, 1, 2]


def test_calls_before_and_after_are_not_seen() -> None:
    scale = Scale()
    scale(1)
    with ModuleTap(scale, 'scale') as tap:
        scale(2)
    scale(3)
    assert tap.only().args == (2,)


def test_a_call_that_goes_around_the_module_is_not_seen() -> None:
    scale = Scale()
    with ModuleTap(scale, 'scale') as tap:
        scale.forward(1)
    assert not tap.calls


def test_no_hook_stays_behind() -> None:
    scale = Scale()
    with ModuleTap(scale, 'scale'):
        assert hooks(scale)
    assert not hooks(scale)


def test_no_hook_stays_behind_after_an_exception() -> None:
    scale = Scale()
    with pytest.raises(ZeroDivisionError), ModuleTap(scale, 'scale'):
        raise ZeroDivisionError
    assert not hooks(scale)


def test_hooks_of_others_stay() -> None:
    scale, seen = Scale(), []
    scale.register_forward_hook(lambda *_: seen.append(1))
    with ModuleTap(scale, 'scale'):
        scale(1)
    scale(1)
    assert seen == [1, 1]


def test_two_taps_on_one_module_hear_the_same() -> None:
    scale = Scale()
    with ModuleTap(scale, 'one') as one, ModuleTap(scale, 'two') as two:
        scale(1)
    assert one.only() == two.only()
    assert not hooks(scale)


def test_the_module_can_be_copied_after_it_was_heard() -> None:
    layer = nn.Linear(2, 2)
    with ModuleTap(layer, 'layer'):
        layer(torch.ones(1, 2))
    copy.deepcopy(layer)
