"""Distillation losses: hyper-parameters and a call of ``ckd_mmdet.functional``."""

from .base import DistillLoss, RowLoss
from .ckd import CKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .kd import KDLoss

__all__ = ['CKDLoss', 'DISTLoss', 'DKDLoss', 'DistillLoss', 'KDLoss', 'RowLoss']
