"""What other people's versions force on us; importing it makes ``mmcv.ops`` importable and ``ckd_mmdet::`` known.

A plain ``pip install onedl-mmcv`` builds no compiled operators, the official ``mmcv-lite`` has none, and without them
``import mmdet.models`` fails. This import puts torchvision's in their place, and touches nothing
where mmcv has its own::

    import ckd_mmdet.compat  # before mmdet.models

A config of a user's says so too, and mmdet's own ``tools/train.py`` then needs no compiled operators::

    custom_imports = dict(imports=['ckd_mmdet.compat'], allow_failed_imports=False)

It also lets a config's ``_base_`` name our parts, ``'ckd_mmdet::_base_/alignments/roi_ckd.py'``, and lets MMEngine
read checkpoints without running code that they may hold.

``ckd_mmdet.compat.gloo`` is the same for two processes on a machine without a GPU.
"""

from ckd_mmdet.compat.extension import activate, require_openmmlab
from ckd_mmdet.compat.hub import register_configs

__all__ = ['activate', 'register_configs', 'require_openmmlab']

activate()
register_configs()

from ckd_mmdet.compat.loading import register_loaders  # noqa: E402  imports mmengine's runner, after the operators

register_loaders()
