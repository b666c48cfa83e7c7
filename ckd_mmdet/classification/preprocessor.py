"""What makes a batch of views; :mod:`ckd_mmdet.classification.views` registers it, and imports it when it is built."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from ckd_mmdet.classification import require_mmpretrain
from torch import Tensor

require_mmpretrain()
from mmpretrain.models import ClsDataPreprocessor  # noqa: E402


class BatchOfViews(ClsDataPreprocessor):
    """See :class:`ckd_mmdet.classification.views.ViewsPreprocessor`."""

    views: ClassVar[int] = 4

    def __init__(self, batch_augments: dict | None = None, **settings: Any) -> None:
        if batch_augments:
            raise ValueError('`ViewsPreprocessor` needs no `batch_augments` (nor `train_cfg` of the classifier): mixup '
                             'and CutMix would mix the views of different images. Leave them out, or take a '
                             f'ClsDataPreprocessor, without views; got {batch_augments}.')
        super().__init__(**settings)

    def forward(self, data: dict, training: bool = False) -> dict:
        """In training inputs ``(4 B, c, h, w)``, all images' view 0 first, and ``B`` samples; else ``(B, c, h, w)``.

        Raises:
            ValueError: If inputs in training are not of four views, or others are.
        """
        inputs = data['inputs']
        found = [tuple(image.shape) for image in inputs]
        wanted = (self.views,) * training
        if any(shape[:-3] != wanted for shape in found):
            raise ValueError(
                f'`ViewsPreprocessor` needs inputs of {self.views} views each in training, '
                f'({self.views}, c, h, w), and plain ones otherwise, (c, h, w); got {found[0]} in '
                f'{"training" if training else "testing"}. Put `ckd_mmdet.RotatedViews` before `PackInputs` in the '
                'training pipeline, and in no other.')
        return super().forward({**data, 'inputs': _view_by_view(inputs)} if training else data, training)


def _view_by_view(inputs: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    """From ``B`` inputs ``(views, c, h, w)`` to ``views * B`` of ``(c, h, w)``; a list stays one, a tensor too."""
    if isinstance(inputs, Tensor):
        return inputs.transpose(0, 1).flatten(0, 1)
    return [view for views in zip(*(torch.unbind(image) for image in inputs), strict=True) for view in views]
