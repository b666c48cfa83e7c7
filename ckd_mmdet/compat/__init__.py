"""What other people's versions force on us; importing it makes ``mmcv.ops`` importable.

A plain ``pip install onedl-mmcv`` builds no compiled operators, and without them
``import mmdet.models`` fails. This import puts torchvision's in their place, and touches nothing
where mmcv has its own::

    import ckd_mmdet.compat  # before mmdet.models

``ckd_mmdet.compat.gloo`` is the same for two processes on a machine without a GPU.
"""

from ckd_mmdet.compat.extension import activate, require_openmmlab

__all__ = ['activate', 'require_openmmlab']

activate()
