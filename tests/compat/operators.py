"""Each operator served, called through mmcv's own function."""

from collections.abc import Callable

import ckd_mmdet.compat  # noqa: F401
import mmcv.ops
import torch
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor

ROIS = torch.tensor([[0, 1, 1, 5, 6], [0, 2, 0, 7, 5.5]])
LABELS = torch.tensor([0, 2, 1])
BOXES = torch.tensor([[0., 0, 4, 4], [1, 0, 5, 4], [6, 6, 9, 9]])
SCORES = torch.tensor([0.6, 0.9, 0.8])


def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # On CPU mmcv's module does without the operator, so this is the function under it.
    shapes, start = value.new_tensor([[2, 2]], dtype=torch.long), value.new_tensor([0], dtype=torch.long)
    return MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)


IMAGE = (1, 2, 8, 8)
TRAINED: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {  # function and its inputs' shapes
    'roi_align': (lambda x: mmcv.ops.roi_align(x, ROIS.to(x), 2), [IMAGE]),
    'roi_pool': (lambda x: mmcv.ops.roi_pool(x, ROIS.to(x), 2), [IMAGE]),
    'sigmoid_focal_loss': (
        lambda x: mmcv.ops.sigmoid_focal_loss(x, LABELS.to(x.device), 2.0, 0.25, None, 'none'), [(3, 3)]),
    'softmax_focal_loss': (
        lambda x: mmcv.ops.softmax_focal_loss(x, LABELS.to(x.device), 2.0, 0.25, None, 'none'), [(3, 3)]),
    'ms_deform_attn': (attend, [(1, 4, 2, 3), (1, 2, 2, 1, 2, 2), (1, 2, 2, 1, 2)]),
    'deform_conv': (lambda x, offset, weight: mmcv.ops.deform_conv2d(x, offset, weight, 1, 1),
                    [IMAGE, (1, 18, 8, 8), (2, 2, 3, 3)]),
    'modulated_deform_conv': (
        lambda x, offset, mask, weight, bias: mmcv.ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, 1, 1, 1, 1, 1),
        [IMAGE, (1, 18, 8, 8), (1, 9, 8, 8), (2, 2, 3, 3), (2,)]),
}
CHOOSING: dict[str, Callable[[Tensor], list[Tensor]]] = {  # without a gradient
    'nms': lambda boxes: list(mmcv.ops.nms(boxes, SCORES.to(boxes.device), 0.5)),
    'softnms': lambda boxes: list(mmcv.ops.soft_nms(boxes, SCORES.to(boxes.device), 0.5)),
    'nms_match': lambda boxes: mmcv.ops.nms_match(torch.cat((boxes, SCORES.to(boxes.device)[:, None]), 1), 0.5),
}
