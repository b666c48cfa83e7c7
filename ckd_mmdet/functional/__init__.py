"""The formulas, as pure functions of tensors: one value per sample or image, no reduction, no state."""

from .agreement import agreement
from .contrast import ckd_loss
from .dist import dist_loss
from .dkd import dkd_loss
from .kd import binary_kd_loss, kd_loss, standardized
from .maps import hcl_loss, l2_loss, pkd_loss

__all__ = ['agreement', 'binary_kd_loss', 'ckd_loss', 'dist_loss', 'dkd_loss', 'hcl_loss', 'kd_loss', 'l2_loss',
           'pkd_loss', 'standardized']
