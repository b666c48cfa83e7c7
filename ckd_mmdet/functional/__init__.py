"""The formulas, as pure functions of tensors: one value per sample, no reduction, no state."""

from .agreement import agreement
from .contrast import ckd_loss
from .dist import dist_loss
from .dkd import dkd_loss
from .kd import binary_kd_loss, kd_loss, standardized

__all__ = ['agreement', 'binary_kd_loss', 'ckd_loss', 'dist_loss', 'dkd_loss', 'kd_loss', 'standardized']
