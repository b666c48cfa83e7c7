"""What every entry point does with a user's config before the Runner sees it."""

from __future__ import annotations

import ast
import copy
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import ckd_mmdet.compat  # noqa: F401  `ckd_mmdet::` in a config
from ckd_mmdet.classification import require_mmpretrain
from ckd_mmdet.compat.hub import pkg_resources_explained
from ckd_mmdet.options import merge_options
from ckd_mmdet.text import class_map_for_config
from mmengine.config import Config, ConfigDict
from mmengine.fileio import list_from_file
from mmengine.hooks import Hook
from mmengine.hub import get_config
from mmengine.registry import DATASETS

DISTILLER = 'ckd_mmdet.Distiller'
HOOK = 'ckd_mmdet.DistillHook'
UNREADABLE = (OSError, SyntaxError, NameError, AttributeError, TypeError, LookupError, ArithmeticError, AssertionError,
              RuntimeError, ValueError)
"""What reading a faulty config raises: it is a program."""


def read_config(config: str | Path) -> Config:
    """Read a config file, or a package's: ``'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'``, ``'ckd_mmdet::...'``.

    Raises:
        ValueError: If it is no Python that runs, or a module that it imports is not there.
    """
    name = str(config)
    try:
        with pkg_resources_explained():
            read = copy.deepcopy(of_package(name)) if '::' in name else Config.fromfile(name)
    except (SyntaxError, NameError) as error:
        line = getattr(error, 'lineno', None)
        at = f' (line {line})' if line else ''
        raise ValueError(f'{name} needs to be Python that runs: {type(error).__name__}{at}: '
                         f'{getattr(error, "msg", error)}.') from error
    except (AssertionError, ImportError, RuntimeError, ValueError) as error:  # of a package that is not there
        if 'mmpretrain' in str(error):
            require_mmpretrain()
        if isinstance(error, ImportError) and '::' not in name and 'pkg_resources' not in str(error):
            raise ValueError(f'{name} imports what is not there (in its `custom_imports`, or by itself): '
                             f'{_root_cause(error)}; install the module, or add its folder to PYTHONPATH.') from error
        raise
    if read.get('default_scope') == 'mmpretrain':
        require_mmpretrain()
    return read


@lru_cache(None)
def of_package(name: str, pretrained: bool = False) -> Config:
    """A package's config, read once, not to be changed: MMEngine reads all of the package's metafiles for each.

    Args:
        name: ``'mmdet::...'``.
        pretrained: Whether it has the address of its weights, as ``model_path``.
    """
    return get_config(name, pretrained)


def _root_cause(error: BaseException) -> BaseException:
    """MMEngine says "Failed to import ..." of the modules; what they failed of is the error's cause or context."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


def open_config(config: str, options: dict | None, work_dir: str | None, launcher: str) -> Config:
    """Read a tool's config and apply the arguments that all tools share.

    Args:
        config: A file or ``package::...``.
        options: Overrides from ``--cfg-options``.
        work_dir: Goes before the config's own; without either it is ``work_dirs/<the config's name>``.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        ValueError: If the config cannot be read or has no ``model``, or an override has a misspelt key.
    """
    check_bases(config)
    try:
        cfg = read_config(config)
    except UNREADABLE as error:
        kind = '' if type(error) is ValueError else f'{type(error).__name__}: '  # those are worded by read_config
        raise ValueError(f'`config` needs a readable config, {config!r} is not: {kind}'
                         f'{str(error).strip() or "no reason given"}') from error
    cfg.launcher = launcher
    merge_options(cfg, options or {})
    if not isinstance(cfg.get('model'), dict):
        raise ValueError(f'`config` needs a config with a `model`, a dict, {config!r} has '
                         f'{"none" if cfg.get("model") is None else repr(cfg.model)}.')
    stem = os.path.splitext(os.path.basename(config))[0]
    cfg.work_dir = work_dir or cfg.get('work_dir') or os.path.join('work_dirs', stem)
    return cfg


def check_bases(config: str, above: tuple[str, ...] = ()) -> None:
    """Refuse a config that is its own ``_base_``, directly or through others, before MMEngine reads it for ever.

    Args:
        config: A path; what is no file, or no Python, is left to MMEngine.
        above: The configs whose base it is.

    Raises:
        ValueError: If there is a circle, or ``_base_`` is neither text nor a list of it.
    """
    path = os.path.realpath(config)
    if path in above:
        raise ValueError(f'`_base_` needs other configs, {config} has itself, through '
                         f'{" and ".join(os.path.basename(one) for one in above)}.')
    try:
        with open(path, encoding='utf-8') as file:
            body = ast.parse(file.read()).body
    except (OSError, SyntaxError, ValueError):
        return
    for line in body:
        if isinstance(line, ast.Assign) and getattr(line.targets[0], 'id', None) == '_base_':
            bases = [one.value for one in getattr(line.value, 'elts', [line.value]) if isinstance(one, ast.Constant)]
            if not all(isinstance(base, str) for base in bases):
                raise ValueError(f'`_base_` needs the path of a config, or a list of paths, in {config} it is '
                                 f'{ast.unparse(line.value)}.')
            for base in map(str, bases):
                if '::' not in base:
                    check_bases(os.path.join(os.path.dirname(path), base), (*above, path))


def add_hook(cfg: Config) -> None:
    """Name ``DistillHook`` in ``custom_hooks``, where it is not yet named, and let the class maps be written.

    Raises:
        ValueError: If the hooks are no list of dicts.
    """
    given = cfg.get('custom_hooks') or []
    if not isinstance(given, list | tuple) or not all(isinstance(hook, dict | Hook) for hook in given):
        raise ValueError(f'`custom_hooks` needs a list of dicts, got {given!r:.200}.')
    hooks = list(given)
    if not any(isinstance(hook, dict) and hook.get('type') in (HOOK, 'DistillHook') for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type=HOOK)]
    teacher = (cfg.get('model') or {}).get('teacher')
    for one in [teacher, *teacher.values()] if isinstance(teacher, dict) else []:
        if isinstance(one, dict) and 'class_map' in one:
            one['class_map'] = class_map_for_config(one['class_map'])


def plain_student(cfg: Config) -> None:
    """Put the student in the Distiller's place, and drop ``DistillHook``: nothing but training needs a teacher."""
    if cfg.model.get('type') == DISTILLER:
        cfg.model = student_of(cfg.model)
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') != HOOK]


def student_of(distiller: ConfigDict) -> ConfigDict:
    """Config of the student within a Distiller's, with the preprocessing that the Distiller would give it."""
    student = distiller['student']
    if distiller.get('data_preprocessor'):
        student.setdefault('data_preprocessor', distiller['data_preprocessor'])
    return student


def class_names(cfg: Config) -> tuple[str, ...] | None:
    """Names that a config gives to the classes of its training data: ``metainfo``, else those of the data set's type.

    Of a panoptic data set the things, which boxes are of. A data set may number its labels in another order, see
    :func:`ckd_mmdet.labels.label_names`.

    Returns:
        ``None`` where neither has any.

    Raises:
        ValueError: If they are no names, or a file of names that is not there.
    """
    dataset = next(inner_datasets((cfg.get('train_dataloader') or {}).get('dataset')), {})
    return object_names(names_of(dataset, cfg))


def stated_class_names(cfg: Config) -> tuple[str, ...] | None:
    """As :func:`class_names`, of what the config itself says: not the names of the data set's type."""
    dataset = next(inner_datasets((cfg.get('train_dataloader') or {}).get('dataset')), {})
    given = {'classes': dataset.get('classes'), **(dataset.get('metainfo') or {})}
    return class_names(cfg) if given['classes'] else None


def names_of(dataset: dict, cfg: Config) -> dict[str, Any]:
    """``classes`` and ``thing_classes`` of a data set's config, its type's own among them, read from files of names.

    Raises:
        ValueError: If a file of names is not there.
    """
    meta = dict(getattr(dataset_type(dataset, cfg), 'METAINFO', {}))
    if dataset.get('classes'):  # MMPretrain's own argument
        meta['classes'] = dataset['classes']
    meta.update(dataset.get('metainfo') or {})
    return {key: _from_file(value) for key, value in meta.items() if key in ('classes', 'thing_classes')}


def dataset_type(dataset: dict, cfg: Config) -> type | None:
    """The class of a data set's config, or ``None`` where nothing of its name is known."""
    if not isinstance(dataset.get('type'), str):
        return dataset.get('type')
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet') as registry:
        return registry.get(dataset['type'])


def object_names(metainfo: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the classes that boxes are of, from a data set's ``metainfo`` or a checkpoint's ``dataset_meta``.

    Returns:
        ``classes``, or those that are things where ``thing_classes`` says so; ``None`` without any.

    Raises:
        ValueError: If they are no names.
    """
    names, things = as_names(metainfo.get('classes')), as_names(metainfo.get('thing_classes')) or ()
    return tuple(name for name in names or () if name in things) or names


def as_names(value: object) -> tuple[str, ...] | None:
    """Class names as people and checkpoints write them: a list, a tuple, or a single name.

    Returns:
        ``None`` where there are none.

    Raises:
        ValueError: If it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f'`classes` needs names, as a list of text, got {value!r}.')
    odd = [name for name in value if not isinstance(name, str)]
    if odd:
        raise ValueError(f'`classes` needs names, as a list of text, got {odd[0]!r} in {list(value)!r:.200}.')
    return tuple(map(str, value)) or None


def _from_file(value: object) -> object:
    """Names from a file, where MMEngine would take them from it."""
    if not isinstance(value, str) or not (os.path.isfile(value) or value.endswith('.txt')):
        return value
    if not os.path.isfile(value):
        raise ValueError(f'`metainfo.classes` needs a file of names that exists, {value!r} does not (from '
                         f'{os.getcwd()}); MMEngine would take it for the name of a single class.')
    return list_from_file(value)


def inner_datasets(dataset: dict | None) -> Iterator[dict]:
    """The data sets within wrappers such as ``ConcatDataset`` and ``MultiImageMixDataset``."""
    if not isinstance(dataset, dict):
        return
    inner = [dataset.get('dataset'), *(dataset.get('datasets') or [])]
    if not any(inner):
        yield dataset
    for wrapped in inner:
        yield from inner_datasets(wrapped)
