"""The pairing of rows: what the student said, and the teacher's answer for the same regions."""

from .base import Aligner
from .dense import DenseAligner
from .objects import ObjectAligner
from .query import QueryAligner
from .roi import RoIAligner

__all__ = ['Aligner', 'DenseAligner', 'ObjectAligner', 'QueryAligner', 'RoIAligner']
