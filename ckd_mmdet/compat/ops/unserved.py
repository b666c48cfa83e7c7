"""What mmcv compiles and these operators do not serve."""

from collections.abc import Callable
from typing import NoReturn


def unserved(name: str) -> Callable[..., NoReturn]:
    """A stand-in for the operator ``name``: calling it raises, and says how to get the real one."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError(
            f'`{name}` is an operator of mmcv that ckd_mmdet.compat does not serve: it needs the '
            'operators that mmcv compiles. With the onedl-* packages, build them against the torch '
            'installed here (a C++ compiler is needed, and nvcc for CUDA): `pip install "setuptools<82" wheel '
            'ninja`, then `pip install --no-build-isolation --no-cache-dir --force-reinstall '
            '--no-deps onedl-mmcv`. With the official ones, `mmcv` in place of `mmcv-lite`: the same first '
            'command, `pip uninstall mmcv-lite`, then `MMCV_WITH_OPS=1 pip install --no-build-isolation '
            '--no-cache-dir --force-reinstall --no-deps --no-binary mmcv "mmcv<2.2"` (mmdet refuses mmcv 2.2); where '
            'one is made for your torch and CUDA, `mim install "mmcv<2.2"` installs it built.')

    refuse.__name__ = name
    return refuse
