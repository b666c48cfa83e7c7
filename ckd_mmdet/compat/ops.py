"""mmcv's operators for detection, out of torchvision's and torch's.

Names, arguments and tensors written in place are those by which ``mmcv/ops/*.py`` calls its
compiled module, hence arguments that are not used here (column buffers, ``im2col_step``). Whatever
is half precision is computed in float32 and cast back: torchvision has no bfloat16 kernels, and on
CPU no half ones for nms.
"""

from collections.abc import Callable
from typing import NoReturn

import torch
import torchvision
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'ms_deform_attn_backward',
    'ms_deform_attn_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
    'softnms',
]


# What is not served


def unserved(name: str) -> Callable[..., NoReturn]:
    """A stand-in for the operator ``name``: calling it raises, and says how to get the real one."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(
            f'`{name}` is an operator of mmcv that ckd_mmdet.compat does not serve: it needs the '
            'operators that mmcv compiles. With the onedl-* packages, build them against the torch '
            'installed here (a C++ compiler is needed, and nvcc for CUDA): `pip install "setuptools<82" wheel '
            'ninja`, then `pip install --no-build-isolation --no-cache-dir --force-reinstall '
            '--no-deps onedl-mmcv`. With the official ones, `mmcv` in place of `mmcv-lite`: the same first '
            'command, `pip uninstall mmcv-lite`, then `MMCV_WITH_OPS=1 pip install --no-build-isolation '
            '--no-cache-dir --force-reinstall --no-deps --no-binary mmcv "mmcv<2.2"` (mmdet refuses mmcv 2.2); where '
            'one is made for your torch and CUDA, `mim install "mmcv<2.2"` installs it built.')

    refuse.__name__ = name
    return refuse


def get_compiler_version() -> str:
    return f'none (torchvision {torchvision.__version__} through ckd_mmdet.compat)'


def get_compiling_cuda_version() -> str:
    return 'not compiled'


# Precision and gradients


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _gradients(function: Callable[..., Tensor], inputs: list[Tensor],
               grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradient in each of ``inputs``, by computing ``function`` again: mmcv keeps no graph."""
    with torch.enable_grad():
        leaves = [_wide(tensor.detach()).requires_grad_() for tensor in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))


# Non-maximum suppression: boxes (n, 4) as x1, y1, x2, y2; with offset 1, x2 = x1 is one pixel wide


def _offset_boxes(boxes: Tensor, offset: int) -> Tensor:
    boxes = _wide(boxes)
    return boxes + boxes.new_tensor([0, 0, offset, offset])


def _overlaps(box: Tensor, boxes: Tensor) -> Tensor:
    """IoU of ``box`` ``(4,)`` with each of ``boxes`` ``(n, 4)``; 0 where both have no area."""
    return torchvision.ops.box_iou(box[None], boxes)[0].nan_to_num(nan=0.0)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes kept, best first; a box goes if its IoU *exceeds* the threshold.

    As in mmcv the threshold is rounded to the boxes' type (torchvision compares in double), and of equal scores comes
    first what torch's sort puts first, which is not the order of the boxes.
    """
    boxes = _offset_boxes(boxes, offset)
    order = scores.sort(0, descending=True)[1]
    falling = torch.arange(len(order), 0, -1, device=boxes.device, dtype=boxes.dtype)  # so that torchvision keeps it
    return order[torchvision.ops.nms(boxes[order], falling, torch.tensor(iou_threshold, dtype=boxes.dtype).item())]


def softnms(boxes: Tensor, scores: Tensor, dets: Tensor, iou_threshold: float, sigma: float,
            min_score: float, method: int, offset: int) -> Tensor:
    """Soft-NMS (arXiv 1704.04503): overlapped boxes lose score, and go below ``min_score``.

    As in mmcv the best box is kept whatever its score. Of equal scores comes first what mmcv's kernel has first: it
    swaps the best box with the first of those left, and a box that goes with the last.

    Args:
        dets: Written in place, shape ``(n, 5)``: the boxes kept, best first, and their new scores.
        method: 0 naive, 1 linear, 2 gaussian.

    Returns:
        Indices of the boxes kept.
    """
    extents, scores = _offset_boxes(boxes, offset), _wide(scores).clone()
    left = torch.arange(len(boxes), device=boxes.device)
    kept: list[int] = []
    while len(left):
        place = int(scores[left].argmax())
        best = int(left[place])
        dets[len(kept), :4], dets[len(kept), 4] = boxes[best], scores[best]
        kept.append(best)
        left[place] = left[0].clone()
        left = left[1:]
        overlaps = _overlaps(extents[best], extents[left])
        scores[left] *= _decay(overlaps, iou_threshold, sigma, method)
        left = _swap_out(left, scores[left] >= min_score)
    return torch.tensor(kept, dtype=torch.long, device=boxes.device)


def _swap_out(left: Tensor, stays: Tensor) -> Tensor:
    """Those of ``left`` that stay, the last of them in the place of the first that goes, and so on."""
    count = int(stays.sum())
    gaps = (~stays[:count]).nonzero()[:, 0]
    left[gaps] = left[count:][stays[count:]].flip(0)
    return left[:count]


def _decay(overlaps: Tensor, iou_threshold: float, sigma: float, method: int) -> Tensor:
    if method == 2:
        return torch.exp(-overlaps.square() / sigma)
    decayed = 1 - overlaps if method == 1 else torch.zeros_like(overlaps)
    return torch.where(overlaps >= iou_threshold, decayed, torch.ones_like(overlaps))


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Groups of ``dets`` ``(n, 5)``: each box that nms keeps, then those it removes, best first.

    Unlike in :func:`nms`, a box goes when its IoU *reaches* the threshold.
    """
    boxes, scores = _wide(dets).split((4, 1), dim=1)
    left = scores[:, 0].sort(0, descending=True)[1]
    groups = []
    while len(left):
        best, rest = left[:1], left[1:]
        removed = _overlaps(boxes[best[0]], boxes[rest]) >= iou_threshold
        groups.append(torch.cat((best, rest[removed])).tolist())
        left = rest[~removed]
    return groups


# Regions of interest: rois (k, 5) as image index, x1, y1, x2, y2


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor,
                      argmax_x: Tensor, aligned_height: int, aligned_width: int,
                      spatial_scale: float, sampling_ratio: int, pool_mode: int,
                      aligned: bool) -> None:
    """RoIAlign (arXiv 1703.06870) by the average of a bin's samples; the maximum is not served."""
    _refuse_max_mode(pool_mode)
    features = _wide(input)
    output.copy_(torchvision.ops.roi_align(
        features, rois.to(features.dtype), (aligned_height, aligned_width), spatial_scale,
        sampling_ratio, aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                       grad_input: Tensor, aligned_height: int, aligned_width: int,
                       spatial_scale: float, sampling_ratio: int, pool_mode: int,
                       aligned: bool) -> None:
    _refuse_max_mode(pool_mode)
    grad = _wide(grad_output)
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
    features, rois = _wide(input), _wide(rois)
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
    total = _wide(grad_input).flatten().index_add(0, pixels[chosen], _wide(grad_output)[chosen])
    grad_input.copy_(total.view_as(grad_input))


# Focal loss (arXiv 1708.02002), no reduction; target (n,) int64


def _rows_weight(weight: Tensor, target: Tensor) -> Tensor | float:
    """Weight of each row by its class, shape ``(n, 1)``; mmcv passes an empty tensor for none."""
    if not weight.numel():
        return 1.0
    if bool(((target < 0) | (target >= len(weight))).any()):
        raise ValueError(
            f'focal loss with `weight` needs every target within its {len(weight)} classes, but '
            f'got {int(target.min())} to {int(target.max())}; weigh background rows outside it.')
    return _wide(weight)[target][:, None]


def _log_probabilities(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log p and log(1 - p) of p = sigmoid(input), and whether a class is its row's target."""
    logits = _wide(input)
    is_target = target[:, None] == torch.arange(logits.shape[1], device=logits.device)
    return logsigmoid(logits), logsigmoid(-logits), is_target


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    r"""Write :math:`-\alpha (1-p)^\gamma \log p` for each row's target, with p = sigmoid(input).

    Other classes, and so all of a background row (its target is the number of classes), get
    :math:`-(1-\alpha) p^\gamma \log(1-p)`. This is exact, as mmdet's own formula on CPU is. mmcv's CUDA kernel takes
    the logarithm of a rounded 1 - p, or of FLT_MIN (1.2e-38) where that rounds to 0. So its loss of a confident error
    is another (coarse from a logit of 15 on, 87.3 times 1 - alpha at any above 17); its gradient is the same.
    """
    log_p, log_not_p, is_target = _log_probabilities(input, target)
    positive = -alpha * (gamma * log_not_p).exp() * log_p
    negative = -(1 - alpha) * (gamma * log_p).exp() * log_not_p
    output.copy_(torch.where(is_target, positive, negative) * _rows_weight(weight, target))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor,
                                gamma: float, alpha: float) -> None:
    log_p, log_not_p, is_target = _log_probabilities(input, target)
    p, not_p = log_p.exp(), log_not_p.exp()
    positive = -alpha * (gamma * log_not_p).exp() * (not_p - gamma * p * log_p)
    negative = (1 - alpha) * (gamma * log_p).exp() * (p - gamma * not_p * log_not_p)
    grad_input.copy_(torch.where(is_target, positive, negative) * _rows_weight(weight, target))


def _target_probability(softmax: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Probability of each row's target, and whether it has one (not if negative), ``(n, 1)``."""
    p = _wide(softmax).gather(1, target.clamp(min=0)[:, None])
    return p.clamp(min=torch.finfo(p.dtype).tiny), (target >= 0)[:, None]


def softmax_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor,
                               gamma: float, alpha: float) -> None:
    r"""Write :math:`-\alpha (1-p)^\gamma \log p`, p the target's value in a softmax, ``(n,)``."""
    p, counts = _target_probability(input, target)
    loss = -alpha * (1 - p).pow(gamma) * p.log()
    output.copy_((loss * counts * _rows_weight(weight, target))[:, 0])


def softmax_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, buff: Tensor,
                                grad_input: Tensor, gamma: float, alpha: float) -> None:
    p, counts = _target_probability(input, target)
    slope = alpha * (gamma * (1 - p).pow(gamma - 1) * p * p.log() - (1 - p).pow(gamma))
    slope = slope * counts * _rows_weight(weight, target)
    buff.copy_(slope[:, 0])
    is_target = target[:, None] == torch.arange(input.shape[1], device=input.device)
    grad_input.copy_(slope * (is_target.to(slope.dtype) - _wide(input)))


# Multi-scale deformable attention (arXiv 2010.04159)


def _attention_over(shapes: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

    sizes = shapes.tolist()  # one copy from the GPU instead of one for every size

    def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        return multi_scale_deformable_attn_pytorch(value, sizes, locations, weights)

    return attend


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor,
                           value_level_start_index: Tensor, sampling_locations: Tensor,
                           attention_weights: Tensor, im2col_step: int) -> Tensor:
    """mmcv's own formula in torch, there for use on CPU; gives ``(batch, queries, channels)``."""
    attend = _attention_over(value_spatial_shapes)
    return attend(_wide(value), _wide(sampling_locations), _wide(attention_weights)).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    inputs = [value, sampling_locations, attention_weights]
    gradients = _gradients(_attention_over(value_spatial_shapes), inputs, grad_output)
    grad_value.copy_(gradients[0])
    grad_sampling_loc.copy_(gradients[1])
    grad_attn_weight.copy_(gradients[2])


# Deformable convolution: offset (batch, 2 * groups * kh * kw, h, w) as dy, dx for each kernel cell,
# in mmcv as in torchvision, which reads both numbers of groups from the shapes


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                        columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int,
                        padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                        deformable_group: int, im2col_step: int) -> None:
    """Deformable convolution (DCN, arXiv 1703.06211)."""
    output.copy_(torchvision.ops.deform_conv2d(
        _wide(input), _wide(offset), _wide(weight), None, (dH, dW), (padH, padW),
        (dilationH, dilationW)))


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor,
                               grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
                               columns: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                               padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:

    def convolve(features: Tensor, shifts: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(
            features, shifts, _wide(weight), None, (dH, dW), (padH, padW), (dilationH, dilationW))

    of_input, of_offset = _gradients(convolve, [input, offset], grad_output)
    grad_input.copy_(of_input)
    grad_offset.copy_(of_offset)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor,
                                    grad_weight: Tensor, columns: Tensor, ones: Tensor, kW: int,
                                    kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int,
                                    dilationH: int, group: int, deformable_group: int, scale: float,
                                    im2col_step: int) -> None:

    def convolve(kernel: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(
            _wide(input), _wide(offset), kernel, None, (dH, dW), (padH, padW),
            (dilationH, dilationW))

    # The kernel itself is not passed; the convolution is linear in it, so any will do.
    of_weight, = _gradients(convolve, [torch.zeros_like(grad_weight)], grad_output)
    grad_weight.add_(of_weight.to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                  offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
                                  kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
                                  pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
                                  group: int, deformable_group: int, with_bias: bool) -> None:
    """Deformable convolution with a mask (DCNv2, arXiv 1811.11168)."""
    output.copy_(torchvision.ops.deform_conv2d(
        _wide(input), _wide(offset), _wide(weight), _wide(bias) if with_bias else None,
        (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), _wide(mask)))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                   offset: Tensor, mask: Tensor, columns: Tensor,
                                   grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
                                   grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
                                   pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
                                   group: int, deformable_group: int, with_bias: bool) -> None:

    def convolve(features: Tensor, shifts: Tensor, kernel: Tensor, modulation: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(
            features, shifts, kernel, None, (stride_h, stride_w), (pad_h, pad_w),
            (dilation_h, dilation_w), modulation)

    gradients = _gradients(convolve, [input, offset, weight, mask], grad_output)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[1])
    grad_weight.copy_(gradients[2])
    grad_mask.copy_(gradients[3])
    if with_bias:
        grad_bias.copy_(_wide(grad_output).sum((0, 2, 3)))
