"""Distillation losses: hyper-parameters and a call of ``ckd_mmdet.functional``."""

from .base import DistillLoss, RowLoss
from .boxes import BoxLoss
from .category import CategoryContrastLoss, CenterAlignmentLoss, FeatureAlignmentLoss
from .ckd import CKDLoss
from .dist import DISTLoss
from .dkd import DKDLoss
from .fgd import FGDLoss
from .kd import KDLoss
from .localization import LDLoss
from .maps import CWDLoss, L2Loss, MapLoss, PKDLoss
from .masks import MaskLoss
from .mgd import MGDLoss
from .preview import Preview
from .review import ReviewKDLoss

__all__ = ['BoxLoss', 'CKDLoss', 'CWDLoss', 'CategoryContrastLoss', 'CenterAlignmentLoss', 'DISTLoss', 'DKDLoss',
           'DistillLoss', 'FGDLoss', 'FeatureAlignmentLoss', 'KDLoss', 'L2Loss', 'LDLoss', 'MGDLoss', 'MapLoss',
           'MaskLoss', 'PKDLoss', 'Preview', 'ReviewKDLoss', 'RowLoss']
