"""Distillation losses: hyper-parameters and a call of ``ckd_mmdet.functional``."""

from .base import DistillLoss, RowLoss
from .category import CategoryContrastLoss, CenterAlignmentLoss, FeatureAlignmentLoss
from .ckd import CKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .kd import KDLoss
from .maps import L2Loss, MapLoss, PKDLoss
from .preview import Preview
from .review import ReviewKDLoss

__all__ = ['CKDLoss', 'CategoryContrastLoss', 'CenterAlignmentLoss', 'DISTLoss', 'DKDLoss', 'DistillLoss',
           'FeatureAlignmentLoss', 'KDLoss', 'L2Loss', 'MapLoss', 'PKDLoss', 'Preview', 'ReviewKDLoss', 'RowLoss']
