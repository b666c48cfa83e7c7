"""Deformable convolution, and deformable attention over several scales (arXiv 2010.04159).

``offset`` is ``(batch, 2 * groups * kh * kw, h, w)`` as dy, dx for each cell of the kernel, in mmcv as in
torchvision, which reads both numbers of groups from the shapes.
"""

from collections.abc import Callable

import torch
import torchvision
from ckd_mmdet.compat.ops.precision import gradients_of, wide
from torch import Tensor


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
    return attend(wide(value), wide(sampling_locations), wide(attention_weights)).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    inputs = [value, sampling_locations, attention_weights]
    gradients = gradients_of(_attention_over(value_spatial_shapes), inputs, grad_output)
    grad_value.copy_(gradients[0])
    grad_sampling_loc.copy_(gradients[1])
    grad_attn_weight.copy_(gradients[2])


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                        columns: Tensor, ones: Tensor, kW: int, kH: int, dW: int, dH: int,
                        padW: int, padH: int, dilationW: int, dilationH: int, group: int,
                        deformable_group: int, im2col_step: int) -> None:
    """Deformable convolution (DCN, arXiv 1703.06211)."""
    output.copy_(torchvision.ops.deform_conv2d(
        wide(input), wide(offset), wide(weight), None, (dH, dW), (padH, padW),
        (dilationH, dilationW)))


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor,
                               grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
                               columns: Tensor, kW: int, kH: int, dW: int, dH: int, padW: int,
                               padH: int, dilationW: int, dilationH: int, group: int,
                               deformable_group: int, im2col_step: int) -> None:

    def convolve(features: Tensor, shifts: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(
            features, shifts, wide(weight), None, (dH, dW), (padH, padW), (dilationH, dilationW))

    of_input, of_offset = gradients_of(convolve, [input, offset], grad_output)
    grad_input.copy_(of_input)
    grad_offset.copy_(of_offset)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor,
                                    grad_weight: Tensor, columns: Tensor, ones: Tensor, kW: int,
                                    kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int,
                                    dilationH: int, group: int, deformable_group: int, scale: float,
                                    im2col_step: int) -> None:

    def convolve(kernel: Tensor) -> Tensor:
        return torchvision.ops.deform_conv2d(
            wide(input), wide(offset), kernel, None, (dH, dW), (padH, padW),
            (dilationH, dilationW))

    # The kernel itself is not passed; the convolution is linear in it, so any will do.
    of_weight, = gradients_of(convolve, [torch.zeros_like(grad_weight)], grad_output)
    grad_weight.add_(of_weight.to(grad_weight.dtype), alpha=scale)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                  offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
                                  kernel_h: int, kernel_w: int, stride_h: int, stride_w: int,
                                  pad_h: int, pad_w: int, dilation_h: int, dilation_w: int,
                                  group: int, deformable_group: int, with_bias: bool) -> None:
    """Deformable convolution with a mask (DCNv2, arXiv 1811.11168)."""
    output.copy_(torchvision.ops.deform_conv2d(
        wide(input), wide(offset), wide(weight), wide(bias) if with_bias else None,
        (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w), wide(mask)))


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

    gradients = gradients_of(convolve, [input, offset, weight, mask], grad_output)
    grad_input.copy_(gradients[0])
    grad_offset.copy_(gradients[1])
    grad_weight.copy_(gradients[2])
    grad_mask.copy_(gradients[3])
    if with_bias:
        grad_bias.copy_(wide(grad_output).sum((0, 2, 3)))
