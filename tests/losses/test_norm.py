"""The losses' own normalisation: PyTorch's numbers, and nothing that a conversion to SyncBatchNorm would replace."""

import pytest
import torch
from ckd_mmdet.losses.norm import ChannelNorm
from mmengine.model import convert_sync_batchnorm, revert_sync_batchnorm
from torch import Tensor, nn

from tests.losses.test_contract import LOSSES, learning


def usual_norm(shape: tuple[int, ...]) -> nn.Module:
    return (nn.BatchNorm1d if len(shape) == 2 else nn.BatchNorm2d)(shape[1])


def steps(norm: nn.Module, shape: tuple[int, ...]) -> list[Tensor]:
    """Values, gradients and statistics of three steps, the weights drawn."""
    torch.manual_seed(0)
    found = []
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_()
        norm.running_mean.normal_()
    for _ in range(3):
        given = (2 * torch.randn(shape) + 1).requires_grad_()
        value = norm(given)
        (value * torch.randn(shape)).sum().backward()
        found += [value, given.grad, norm.weight.grad.clone(), norm.bias.grad.clone(), norm.running_mean.clone(),
                  norm.running_var.clone()]
    return found


@pytest.mark.parametrize('is_training', [True, False])
@pytest.mark.parametrize('shape', [(2, 3), (5, 3), (2, 3, 1, 1), (1, 3, 1, 2), (3, 3, 4, 2)])
def test_it_is_the_usual_batch_norm_in_values_gradients_and_statistics(shape: tuple[int, ...], is_training: bool
                                                                       ) -> None:
    ours, usual = (steps(norm.train(is_training), shape) for norm in (ChannelNorm(3), usual_norm(shape)))
    assert all(torch.equal(one, other) for one, other in zip(ours, usual, strict=True))


@pytest.mark.parametrize('shape', [(1, 2), (1, 2, 1, 1)])
def test_what_has_no_spread_is_normalised_by_what_ran_before(shape: tuple[int, ...]) -> None:
    norm = ChannelNorm(2)
    with torch.no_grad():
        norm.running_mean.copy_(torch.tensor([1.0, 2]))
        norm.running_var.copy_(torch.tensor([4.0, 9]))
        norm.weight.fill_(3)
        norm.bias.fill_(1)
    out = norm(torch.tensor([5.0, 8]).reshape(shape))
    assert out.flatten().tolist() == pytest.approx([7, 7], abs=1e-4)  # 3 (5 - 1) / 2 + 1, 3 (8 - 2) / 3 + 1
    assert norm.running_mean.tolist() == [1, 2] and norm.running_var.tolist() == [4, 9]


@pytest.mark.parametrize('kind', LOSSES)
def test_no_conversion_to_synchronised_norms_and_back_finds_one_in_a_loss(kind: type) -> None:
    """It would wait for ranks that have no rows."""
    loss = learning(kind)
    before = [type(module) for module in loss.modules()]
    for convert in (convert_sync_batchnorm, nn.SyncBatchNorm.convert_sync_batchnorm, revert_sync_batchnorm):
        assert [type(module) for module in convert(loss).modules()] == before
    names = {'FeatureAlignmentLoss': 1, 'ReviewKDLoss': 6}
    assert before.count(ChannelNorm) == names.get(kind.__name__, 0)
