"""The stand-in for ``mmcv._ext``, mmcv's compiled module, and when it is put in place."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = 'mmcv._ext'
PACKAGES = ('mmengine', 'mmcv', 'mmdet')
DISTRIBUTIONS = {  # of each import package: that of the onedl line, and those of the official one
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite', 'mmcv-full')),
    'mmdet': ('onedl-mmdetection', ('mmdet',)),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',)),
}


def require_openmmlab(packages: tuple[str, ...] = PACKAGES) -> None:
    """Check that OpenMMLab's packages can be imported, without importing them.

    Raises:
        ImportError: If one is missing; so is one whose uninstall left a folder without code. Also if one is installed
            twice, by its onedl-* and by its official distribution, or if the onedl-* ones stand beside a torch that is
            too old for them.
    """
    _refuse_both_lines()
    _refuse_old_torch()
    specs = {name: importlib.util.find_spec(name) for name in packages}
    missing = [name for name, spec in specs.items() if spec is None or spec.origin is None]
    if missing:
        raise ImportError(
            f'ckd_mmdet needs {", ".join(packages)}, but {", ".join(missing)} cannot be found. '
            'Install them in one of two ways: `pip install ckd_mmdet[onedl]` (the maintained '
            'onedl-* distributions), or the official `mmengine`, `mmcv` (or `mmcv-lite`) and `mmdet`. Never both: '
            'they install into the same import packages and overwrite each other.',
            name=missing[0])


def _refuse_both_lines() -> None:
    for package, (onedl, official) in DISTRIBUTIONS.items():
        beside = [name for name in official if _is_installed(name)]
        if beside and _is_installed(onedl):
            raise ImportError(
                f'ckd_mmdet needs one `{package}`, but {onedl} and {", ".join(beside)} are both installed: they write '
                f'the same files, and what is there now is a mixture. Remove both, `pip uninstall {onedl} '
                f'{" ".join(beside)}`, then install the one that your other packages are of: `pip install {onedl}` '
                f'beside onedl-* packages, `pip install {beside[0]}` beside official ones.', name=package)


def _refuse_old_torch() -> None:
    if not (_is_installed('onedl-mmengine') and _is_installed('torch')):
        return
    version = metadata.version('torch')
    if tuple(int(part) for part in version.split('.')[:2]) < (2, 3):
        raise ImportError(
            f'onedl-mmengine imports what torch has from 2.3 on (`torch.amp.GradScaler`), and torch {version} is '
            'installed. Either `pip install "torch>=2.4"`, which the onedl-* packages ask for, or take the official '
            '`mmengine`, `mmcv` (or `mmcv-lite`) and `mmdet` in place of the onedl-* ones.', name='torch')


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def activate() -> bool:
    """Let torchvision's operators serve ``mmcv.ops`` where mmcv's own cannot be imported.

    Where compiled operators are there but do not load (built for another torch, say) ours serve
    too, and a `RuntimeWarning` repeats why: the numbers are right, but they were built to be used.

    Returns:
        True if our operators serve, False if mmcv's own do; then nothing has been touched.

    Raises:
        ImportError: If OpenMMLab's packages are not installed, see :func:`require_openmmlab`.
    """
    require_openmmlab()
    importlib.import_module('torch')  # mmcv's compiled module finds libtorch only after this
    importlib.import_module('mmcv')  # so that its own failures are not taken for its operators'
    try:
        return isinstance(importlib.import_module(NAME), TorchvisionExtension)
    except ImportError as error:
        if not _is_unbuilt(error):
            warnings.warn(
                f"mmcv has compiled operators that do not load ({error}). torchvision's serve "
                "instead; to have mmcv's own, build or install them for this torch.",
                RuntimeWarning, stacklevel=2)
    from ckd_mmdet.compat import ops

    sys.modules[NAME] = TorchvisionExtension(ops)
    return True


def _is_unbuilt(error: ImportError) -> bool:
    return isinstance(error, ModuleNotFoundError) and error.name == NAME


class TorchvisionExtension(ModuleType):
    """A module that serves what ``operators.__all__`` names, and a refusal for any other name."""

    def __init__(self, operators: ModuleType) -> None:
        from torch.compiler import disable

        super().__init__(NAME, __doc__)
        # mmengine looks for compiled operators by importlib.util.find_spec, which raises on None.
        self.__spec__ = ModuleSpec(NAME, loader=None, origin=operators.__name__)
        for name in operators.__all__:
            # torch.compile would trace ours into mmcv's autograd.Function, whose backward it then leaves out: compiled,
            # RoIAlign gave its features no gradient. mmcv's compiled operators cannot be traced either.
            setattr(self, name, disable(getattr(operators, name)))

    def __getattr__(self, name: str) -> Callable:
        # mmcv's load_ext wants every operator's name at import, long before it calls one.
        if name.startswith('__'):
            raise AttributeError(f'module {NAME!r} has no attribute {name!r}')
        from ckd_mmdet.compat.ops.unserved import unserved

        return unserved(name)
