"""The formulas, as pure functions of tensors: one value per sample, no reduction, no state."""

from .agreement import agreement
from .contrast import ckd_loss
from .kd import binary_kd_loss, kd_loss

__all__ = ['agreement', 'binary_kd_loss', 'ckd_loss', 'kd_loss']
