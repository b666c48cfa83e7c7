"""Half precision and gradients for operators that have none of their own."""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ['gradients_of', 'wide']


def wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def gradients_of(function: Callable[..., Tensor], inputs: list[Tensor],
               grad_output: Tensor) -> tuple[Tensor, ...]:
    """Gradient in each of ``inputs``, by computing ``function`` again: mmcv keeps no graph."""
    with torch.enable_grad():
        leaves = [wide(tensor.detach()).requires_grad_() for tensor in inputs]
        output = function(*leaves)
        return torch.autograd.grad(output, leaves, grad_output.to(output.dtype))
