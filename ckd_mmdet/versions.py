"""What `--version` says, without an import of what it names."""

from importlib.metadata import PackageNotFoundError, version

from ckd_mmdet import __version__

PACKAGES = ('torch', 'torchvision', 'mmengine', 'onedl-mmengine', 'mmcv', 'mmcv-lite', 'onedl-mmcv', 'mmdet',
            'onedl-mmdetection', 'mmpretrain', 'onedl-mmpretrain')
"""Distributions that a bug report should name; of OpenMMLab's two lines those that are there."""


def versions() -> str:
    """``ckd_mmdet 0.1.0 (torch 2.11.0, ...)``: ours, and of each of :data:`PACKAGES` that is installed."""
    found = []
    for name in PACKAGES:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    return f'ckd_mmdet {__version__} ({", ".join(found)})'
