"""Distillation losses: hyper-parameters and a call of ``ckd_mmdet.functional``."""

from .base import DistillLoss, RowLoss
from .ckd import CKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .kd import KDLoss
from .maps import L2Loss, MapLoss, PKDLoss
from .review import ReviewKDLoss

__all__ = ['CKDLoss', 'DISTLoss', 'DKDLoss', 'DistillLoss', 'KDLoss', 'L2Loss', 'MapLoss', 'PKDLoss', 'ReviewKDLoss',
           'RowLoss']
