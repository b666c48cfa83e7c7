"""Our registries: children of MMEngine's, found as ``type='ckd_mmdet.X'`` without ``custom_imports``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import ckd_mmdet.compat  # noqa: F401  first: mmdet's modules need its operators
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmengine.registry import HOOKS as ROOT_HOOKS
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import TASK_UTILS as ROOT_TASK_UTILS
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmengine.registry import Registry

MODELS = Registry('model', parent=ROOT_MODELS, scope='ckd_mmdet',
                  locations=['ckd_mmdet.distilled', 'ckd_mmdet.losses', 'ckd_mmdet.classification.backbones',
                             'ckd_mmdet.classification.views'])
TASK_UTILS = Registry('task util', parent=ROOT_TASK_UTILS, scope='ckd_mmdet',
                      locations=['ckd_mmdet.aligners', 'ckd_mmdet.selectors',
                                 'ckd_mmdet.classification.aligner'])
HOOKS = Registry('hook', parent=ROOT_HOOKS, scope='ckd_mmdet', locations=['ckd_mmdet.hook', 'ckd_mmdet.lab.watch'])
# asked for by configs of classifiers alone
DATASETS = Registry('dataset', parent=ROOT_DATASETS, scope='ckd_mmdet', locations=['ckd_mmdet.lab.datasets.digits'])
TRANSFORMS = Registry('transform', parent=ROOT_TRANSFORMS, scope='ckd_mmdet',
                      locations=['ckd_mmdet.classification.views'])


def build_part(registry: Registry, cfg: dict, kind: type, where: str) -> Any:
    """Build one of our parts from ``dict(type=..., ...)``; ``type`` is a class, or its name, for which the scope
    ``ckd_mmdet.`` may be left out.

    Args:
        registry: ``MODELS`` or ``TASK_UTILS`` of this module.
        cfg: The part's config.
        kind: Class that the part must be of.
        where: Place in the user's config, for the error.

    Raises:
        ValueError: If ``cfg`` has no known ``type``, or one of another kind, or arguments that the part refuses.
    """
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ValueError(f'{where} needs a dict with the key `type`, got {cfg!r}.')
    named = cfg['type']
    found = named if isinstance(named, type) else registry.get(named) if _exists(registry, named) else None
    if not (isinstance(found, type) and issubclass(found, kind)):
        known = sorted(name for name, part in registry.module_dict.items()
                       if isinstance(part, type) and issubclass(part, kind))
        raise ValueError(f'{where} needs the name of a registered {kind.__name__}, got {cfg["type"]!r}; '
                         f'ckd_mmdet has {", ".join(known)}.')
    return build(found, {key: value for key, value in cfg.items() if key != 'type'}, where)


def build(kind: type, arguments: Mapping[str, Any], where: str) -> Any:
    """Call ``kind(**arguments)``.

    Raises:
        ValueError: If the arguments are not those that ``kind`` takes; the text starts with ``where``.
    """
    # MMEngine adds `_scope_` where a config took the part from another package's, `ckd_mmdet::...`
    arguments = {key: value for key, value in arguments.items() if key != '_scope_'}
    for old, now in getattr(kind, 'renamed', {}).items():
        if old in arguments:
            raise ValueError(f'{where}: `{kind.__name__}` has no argument `{old}` any more; {now}.')
    signature = inspect.signature(kind)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(f'{where}: `{kind.__name__}` {error}; it takes {", ".join(signature.parameters)}.') from error
    return kind(**arguments)


def _exists(registry: Registry, name: Any) -> bool:
    try:
        return registry.get(name) is not None
    except (RuntimeError, TypeError):  # MMEngine's answers to an unknown name and to no name
        return False
