"""The pairing: what the student said, and the teacher's answer for the same regions or maps."""

import ckd_mmdet.compat  # noqa: F401  first: beside mmcv-lite mmdet's modules need its operators

from .base import Aligner
from .dense import DenseAligner
from .neck import NeckAligner, equal_strides, extract_maps, features_of, input_channels, is_classifier, levels_of
from .objects import ObjectAligner
from .query import QueryAligner
from .roi import RoIAligner

__all__ = ['Aligner', 'DenseAligner', 'NeckAligner', 'ObjectAligner', 'QueryAligner', 'RoIAligner', 'equal_strides',
           'extract_maps', 'features_of', 'input_channels', 'is_classifier', 'levels_of']
