"""Distillation of image classifiers: MMPretrain's ``ImageClassifier``, and the small models of the CIFAR literature.

MMPretrain is the extra ``classification``; what imports it calls :func:`require_mmpretrain` first. The backbones
need it not, so that our registry can import them wherever it is asked for a model.
"""

import importlib.util


def require_mmpretrain() -> None:
    """Check that ``mmpretrain`` can be imported, without importing it.

    Raises:
        ImportError: If it is missing; so is one whose uninstall left a folder without code.
    """
    spec = importlib.util.find_spec('mmpretrain')
    if spec is None or spec.origin is None:
        raise ImportError(
            'image classifiers need mmpretrain, which cannot be found. Install the extra `classification`: '
            '`pip install ckd_mmdet[onedl,classification]`, or beside the official `mmengine`, `mmcv` and `mmdet` the '
            'official `mmpretrain`. Never both: they install into the same import packages and overwrite each other.',
            name='mmpretrain')
