"""Distillation losses: hyper-parameters and a call of ``ckd_mmdet.functional``."""

from .base import DistillLoss, RowLoss
from .ckd import CKDLoss
from .kd import KDLoss

__all__ = ['CKDLoss', 'DistillLoss', 'KDLoss', 'RowLoss']
