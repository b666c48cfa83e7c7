"""Which of mmdet's detectors are supported, found out by trying each family of its configs."""

import ckd_mmdet.compat  # noqa: F401  before mmdet.models

from .checks import Row, check_family
from .families import OUT_OF_SCOPE, families, model_of, smallest_config
from .run import LIMIT, run_families
from .shrink import made_up_batch, shrunk, toy_model
from .table import markdown, summary

__all__ = ['LIMIT', 'OUT_OF_SCOPE', 'Row', 'check_family', 'families', 'made_up_batch', 'markdown', 'model_of',
           'run_families', 'shrunk', 'smallest_config', 'summary', 'toy_model']
