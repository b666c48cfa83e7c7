"""The pairing of rows: what the student said, and the teacher's answer for the same regions."""

from .base import Aligner
from .roi import RoIAligner

__all__ = ['Aligner', 'RoIAligner']
