"""Our operators beside those that mmcv compiles, in float32: for machines where an mmcv with operators is installed."""

import sys
from collections.abc import Callable

import ckd_mmdet.compat
import mmcv.ops
import pytest
import torch
from ckd_mmdet.compat import ops
from ckd_mmdet.compat.extension import TorchvisionExtension
from torch import Tensor

from tests.compat.operators import TRAINED

pytestmark = pytest.mark.skipif(ckd_mmdet.compat.activate(), reason='no mmcv with compiled operators is installed')
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
ON_CUDA_ALONE = {'roi_pool', 'sigmoid_focal_loss', 'softmax_focal_loss', 'ms_deform_attn'}


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def both(function: Callable, *inputs: Tensor) -> tuple:
    """What ``function`` gives with mmcv's operators and with ours."""
    of_mmcv = function(*inputs)
    modules = [module for name, module in sys.modules.items()
               if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module')]
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            patch.setattr(module, 'ext_module', TorchvisionExtension(ops))
        return of_mmcv, function(*inputs)


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=pytest.mark.skipif(
        DEVICE == 'cpu' and name in ON_CUDA_ALONE, reason='mmcv compiles it for GPUs alone')) for name in TRAINED])
def test_an_operator_has_mmcvs_value_and_gradient(name: str) -> None:
    function, shapes = TRAINED[name]
    inputs = [torch.randn(shape, device=DEVICE, requires_grad=True) for shape in shapes]

    def value_and_gradients(*inputs: Tensor) -> list[Tensor]:
        value = function(*inputs)
        return [value, *torch.autograd.grad(value.square().sum(), inputs)]

    for of_mmcv, ours in zip(*both(value_and_gradients, *inputs), strict=True):
        assert of_mmcv.any()
        torch.testing.assert_close(ours, of_mmcv, rtol=1e-5, atol=1e-5)


def boxes_and_scores(levels: int) -> tuple[Tensor, Tensor]:
    """60 boxes at whole pixels, whose scores have ``levels`` values."""
    corners = torch.randint(0, 12, (60, 2))
    boxes = torch.cat((corners, corners + torch.randint(1, 12, (60, 2))), 1)
    return boxes.float().to(DEVICE), (torch.randperm(60) % levels / levels).to(DEVICE)


@pytest.mark.parametrize('levels', [60, 4])
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.2, 0.3, 0.4, 0.6])
def test_nms_keeps_mmcvs_boxes_in_its_order(threshold: float, offset: int, levels: int) -> None:
    for _ in range(40):
        boxes, scores = boxes_and_scores(levels)
        (_, of_mmcv), (_, ours) = both(lambda *args: mmcv.ops.nms(*args, threshold, offset=offset), boxes, scores)
        assert ours.tolist() == of_mmcv.tolist()


@pytest.mark.parametrize('levels', [60, 4])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_gives_mmcvs_boxes_and_scores_in_its_order(method: str, levels: int) -> None:
    for _ in range(10):
        boxes, scores = boxes_and_scores(levels)
        of_mmcv, ours = both(lambda *args: mmcv.ops.soft_nms(*args, 0.3, min_score=0.05, method=method), boxes, scores)
        assert ours[1].tolist() == of_mmcv[1].tolist()
        torch.testing.assert_close(ours[0], of_mmcv[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('levels', [60, 4])
def test_nms_match_makes_mmcvs_groups(levels: int) -> None:
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.6):
        boxes, scores = boxes_and_scores(levels)
        dets = torch.cat((boxes, scores[:, None]), 1).cpu()
        of_mmcv, ours = both(lambda dets, threshold=threshold: mmcv.ops.nms_match(dets, threshold), dets)
        assert [group.tolist() for group in ours] == [group.tolist() for group in of_mmcv]
