"""Regions of interest: ``rois`` ``(k, 5)`` as image index, x1, y1, x2, y2."""

import torch
import torchvision
from ckd_mmdet.compat.ops.precision import wide
from ckd_mmdet.compat.ops.unserved import unserved
from torch import Tensor


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """RoIAlign (arXiv 1703.06870) by the average of a bin's samples; the maximum is not served."""
    _refuse_max_mode(pool_mode)
    features = wide(input)
    output.copy_(torchvision.ops.roi_align(
        features, rois.to(features.dtype), (aligned_height, aligned_width), spatial_scale,
        sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    _refuse_max_mode(pool_mode)
    grad = wide(grad_output)
    # mmcv saves no features; the average is linear in them, so their shape is enough here.
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        grad, rois.to(grad.dtype), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, sampling_ratio, aligned))


def _refuse_max_mode(pool_mode: int) -> None:
    if pool_mode == 0:
        unserved("roi_align with pool_mode='max'")()


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor,
                     pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    """RoIPool (arXiv 1504.08083): the maximum over each bin, 0 and argmax -1 where a bin is empty.

    Before it cuts a RoI into bins torchvision rounds it to whole pixels, and mmcv does not. So each
    bin, whose edges are whole pixels in either, goes to torchvision as a RoI of its own.
    """
    features, rois = wide(input), wide(rois)
    height, width = features.shape[2:]
    top, bottom = _bin_edges(rois[:, 2], rois[:, 4], pooled_height, spatial_scale, height)
    left, right = _bin_edges(rois[:, 1], rois[:, 3], pooled_width, spatial_scale, width)
    bins = torch.stack(torch.broadcast_tensors(
        rois[:, 0, None, None], left[:, None, :], top[:, :, None],
        right[:, None, :] - 1, bottom[:, :, None] - 1), dim=-1)
    empty = (bins[..., 3:] < bins[..., 1:3]).any(-1)[:, None]
    maxima, where = torch.ops.torchvision.roi_pool(
        features, bins.flatten(0, 2).to(features.dtype), 1.0, 1, 1)
    shape = (len(rois), pooled_height, pooled_width, features.shape[1])
    output.copy_(maxima.view(shape).permute(0, 3, 1, 2).masked_fill(empty, 0))
    argmax.copy_(where.view(shape).permute(0, 3, 1, 2).masked_fill(empty, -1))


def _bin_edges(low: Tensor, high: Tensor, bins: int, scale: float,
               size: int) -> tuple[Tensor, Tensor]:
    """First pixel of each bin and the one after its last, ``(k, bins)``; ``high`` is inside."""
    start = low[:, None] * scale
    extent = (high + 1)[:, None] * scale - start
    steps = torch.arange(bins + 1, device=low.device, dtype=low.dtype) * (extent / bins) + start
    ends = steps[:, 1:].ceil().clamp(0, size).masked_fill(extent <= 0, 0)
    return steps[:, :-1].floor().clamp(0, size), ends


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor,
                      pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
    _, channels, height, width = grad_input.shape
    planes = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    pixels = planes[:, :, None, None] * (height * width) + argmax
    chosen = argmax >= 0
    total = wide(grad_input).flatten().index_add(0, pixels[chosen], wide(grad_output)[chosen])
    grad_input.copy_(total.view_as(grad_input))
