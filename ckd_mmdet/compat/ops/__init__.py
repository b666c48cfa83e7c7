"""mmcv's operators for detection, out of torchvision's and torch's.

Names, arguments and tensors written in place are those by which ``mmcv/ops/*.py`` calls its
compiled module, hence arguments that are not used here (column buffers, ``im2col_step``). Whatever
is half precision is computed in float32 and cast back: torchvision has no bfloat16 kernels, and on
CPU no half ones for nms.
"""

import torchvision
from ckd_mmdet.compat.ops.deformable import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from ckd_mmdet.compat.ops.focal import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from ckd_mmdet.compat.ops.regions import (
    roi_align_backward,
    roi_align_forward,
    roi_pool_backward,
    roi_pool_forward,
)
from ckd_mmdet.compat.ops.suppression import (
    nms,
    nms_match,
    softnms,
)

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


def get_compiler_version() -> str:
    return f'none (torchvision {torchvision.__version__} through ckd_mmdet.compat)'


def get_compiling_cuda_version() -> str:
    return 'not compiled'
