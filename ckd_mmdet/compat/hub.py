"""Our configs under our own name, which mmengine gives to OpenMMLab's packages only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

NAME = 'ckd_mmdet'


def register_configs() -> None:
    """Let ``'ckd_mmdet::...'`` name one of our configs, wherever ``'mmdet::...'`` can name one of mmdet's.

    The files are those in ``ckd_mmdet/.mim/configs``, where mmengine looks for a package's configs.
    """
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    # Not the name of the distribution but of a module: from it mmengine finds our folder by the import system, which
    # knows an editable install and a bare PYTHONPATH too; of a distribution it expects a `top_level.txt`.
    MODULE2PACKAGE.setdefault(NAME, 'ckd_mmdet.registry')
    if Config._get_cfg_path.__module__ != __name__:
        Config._get_cfg_path = staticmethod(_without_our_scope(Config._get_cfg_path))


def _without_our_scope(get_path: Callable[[str, str], tuple[str, str | None]]) -> Callable:
    """mmengine's search for a ``_base_``, without a scope for ours.

    In all that a ``_base_`` of another package holds mmengine notes that package as the scope to build it in. Our
    configs are made of mmdet's and mmpretrain's parts, which the default scope finds; our own say ``ckd_mmdet.``.
    """

    @lru_cache(None)  # mmengine reads all of a package's metafiles for each name, a quarter of a second for mmdet's
    def of_package(cfg_path: str) -> tuple[str, str | None]:
        path, scope = get_path(cfg_path, '')
        return path, None if scope == NAME else scope

    def get_path_and_scope(cfg_path: str, filename: str) -> tuple[str, str | None]:
        with pkg_resources_explained():
            return of_package(cfg_path) if '::' in cfg_path else get_path(cfg_path, filename)

    get_path_and_scope.cache_clear = of_package.cache_clear  # type: ignore[attr-defined]
    return get_path_and_scope


@contextmanager
def pkg_resources_explained() -> Iterator[None]:
    """Where mmengine up to 0.10.7 finds no ``pkg_resources``, say where that is from.

    Raises:
        ModuleNotFoundError: In place of mmengine's own.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != 'pkg_resources':
            raise
        raise ModuleNotFoundError(
            'this mmengine needs `pkg_resources` to read a config by the name of a package (`mmdet::...`), and it '
            'cannot be found: setuptools 82 and later do without. `pip install "setuptools<82"` brings it back.',
            name=error.name) from error
