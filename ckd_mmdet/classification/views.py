"""PCKD's four rotated views of an image (arXiv 2410.14143): a transform, and the preprocessor that batches them.

::

    data_preprocessor = dict(type='ckd_mmdet.ViewsPreprocessor', mean=[...], std=[...])
    train_pipeline = [
        dict(type='ckd_mmdet.RotatedViews', transforms=[dict(type='RandomCrop', crop_size=32, padding=4)]),
        dict(type='PackInputs')]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ckd_mmdet.classification import require_mmpretrain
from ckd_mmdet.registry import MODELS, TRANSFORMS
from mmengine.dataset import Compose
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS


@TRANSFORMS.register_module()
class RotatedViews:
    """Four views of the loaded image, turned by 0, 90, 180 and 270 degrees, each with its own random transforms.

    View 0 is what the transforms alone would give. The image is turned counter-clockwise, then transformed, so that a
    crop of one view does not say where that of another lies. After it ``img`` has the shape ``(4, c, h, w)``, which
    ``PackInputs`` takes as it is, and everything else (``img_shape``, ``flip``) is view 0's.

    Args:
        transforms: Configs of MMPretrain's transforms, or callables, of results with ``img`` of shape ``(h, w, c)``.

    Raises:
        ValueError: If a transform makes views of different shapes, or of none.
    """

    def __init__(self, transforms: Sequence[dict | Any] = ()) -> None:
        require_mmpretrain()
        self.transforms = Compose([ROOT_TRANSFORMS.build({'_scope_': 'mmpretrain', **transform})
                                   if isinstance(transform, Mapping) else transform for transform in transforms])

    def __call__(self, results: dict) -> dict:
        views = [self._view(results, quarters) for quarters in range(4)]
        shapes = [view['img'].shape for view in views]
        if len(set(shapes)) > 1:
            raise ValueError(f'`RotatedViews` needs `transforms` that make all views equal in size, got '
                             f'{", ".join(map(str, shapes))}; add a crop or a resize to a square.')
        images = [np.atleast_3d(view['img']).transpose(2, 0, 1) for view in views]
        return {**views[0], 'img': np.stack(images)}

    def _view(self, results: dict, quarters: int) -> dict:
        image = np.ascontiguousarray(np.rot90(results['img'], quarters))
        view = self.transforms({**results, 'img': image, 'img_shape': image.shape[:2]})
        if view is None:
            raise ValueError('`RotatedViews` needs `transforms` that keep every image, one of them gave None.')
        return view

    def __repr__(self) -> str:
        return f'{type(self).__name__}(transforms={self.transforms})'


@MODELS.register_module()
class ViewsPreprocessor:
    """MMPretrain's ``ClsDataPreprocessor`` for images in four views, as :class:`RotatedViews` makes them.

    ``B`` images in training become inputs ``(4 B, c, h, w)``, all of view 0 first, then all of view 1, and so on, with
    ``B`` data samples; each view is normalised and padded as a plain image is. In validation and testing images are
    plain. Its attribute ``views`` is 4.

    What is built is a subclass of ``ClsDataPreprocessor``. It is defined only then: every model's build, a detector's
    too, imports this module.

    Args:
        settings: As of ``ClsDataPreprocessor``, but without ``batch_augments``.

    Raises:
        ImportError: If MMPretrain is missing.
        ValueError: If ``batch_augments`` is given.
    """

    def __new__(cls, **settings: Any) -> Any:
        require_mmpretrain()
        from ckd_mmdet.classification.preprocessor import BatchOfViews

        return BatchOfViews(**settings)
