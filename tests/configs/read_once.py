"""Each config file and metafile is read once: mmengine reads all of a package's metafiles for each of its configs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import ckd_mmdet.compat  # noqa: F401
import pytest
from mmengine.config import Config, utils
from mmengine.config import config as config_module
from mmengine.hub import hub


def cache_files(patch: pytest.MonkeyPatch) -> None:
    read, known = Config._file2dict, {}

    def read_once(filename: str, *args: object, **options: object) -> tuple:
        path = os.path.realpath(filename)
        if path not in known:
            known[path] = read(filename, *args, **options)
        return copy.deepcopy(known[path])

    patch.setattr(Config, '_file2dict', staticmethod(read_once))
    find = _found_once(utils._get_cfg_metainfo)
    for module in (utils, hub):
        patch.setattr(module, '_get_cfg_metainfo', find)
    patch.setattr(config_module, '_get_external_cfg_path', _found_once(config_module._get_external_cfg_path))


def _found_once(find: Callable) -> Callable:
    @lru_cache(None)
    def result(package: str, name: str) -> tuple[Any, Exception | None]:
        try:
            return find(package, name), None
        except ValueError as error:  # mmengine's answer to a file that no metafile names
            return None, error

    def find_once(package: str, name: str) -> Any:
        found, error = result(package, name)
        if error is not None:
            raise error
        return copy.deepcopy(found)

    return find_once
