"""Overrides from the command line, and the numbers of a config: wrong ones are refused before anything is built."""

from __future__ import annotations

import argparse
import difflib
import inspect
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

SPACE = '\x00'
KNOWN = {*inspect.signature(Runner.__init__).parameters, 'runner_type', 'model_wrapper_cfg', 'sync_bn', 'strategy',
         'find_unused_parameters', 'tta_model', 'tta_pipeline', 'custom_imports', 'backend_args', 'compile',
         'allow_missing_classes', 'check_images'} - {'self', 'cfg'}
"""Keys of a whole config that something reads, whether a config has them or not."""
NAMED = ('alignments', 'losses', 'teacher', 'class_map', 'custom_keys', 'default_hooks')
"""Dicts whose keys are names that people give."""
WHOLE = (('train_cfg.max_epochs', 1), ('train_cfg.max_iters', 1), ('train_cfg.val_interval', 1),
         ('train_cfg.val_begin', 0), ('train_dataloader.batch_size', 1), ('train_dataloader.num_workers', 0),
         ('val_dataloader.batch_size', 1), ('val_dataloader.num_workers', 0), ('optim_wrapper.accumulative_counts', 1),
         ('auto_scale_lr.base_batch_size', 1), ('randomness.seed', 0))
"""Whole numbers of a config, and the least that each may be."""
MOST_SEED = 2 ** 32 - 1
"""NumPy's greatest seed."""


class OptionsAction(DictAction):
    """``--cfg-options key=value ...`` as MMEngine reads them, except that spaces within a value stay."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any,
                 option_string: str | None = None) -> None:
        for text in values or ():
            key, equals, _ = text.partition('=')
            if not equals or not key or not all(key.split('.')):
                parser.error(f'{option_string} needs key=value, with dots within keys, got {text!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string} needs a bracket that closes for each that opens: {error}')

    @staticmethod
    def _parse_iterable(val: str) -> Any:
        text = val.strip()
        if ',' in text or text[:1] in ('[', '('):  # around the elements of a list they mean nothing
            text = re.sub(r'\s*([\[\](),])\s*', r'\1', text)
        return _with_spaces(DictAction._parse_iterable(text.replace(' ', SPACE)))


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override settings of a config.

    Raises:
        ValueError: If a key is misspelt, or leads into something that has no keys.
    """
    check_keys(cfg, options)
    cfg.merge_from_dict(dict(options))


def check_keys(cfg: Config, options: Mapping[str, Any]) -> None:
    """Refuse keys that look like misspelt ones of the config: MMEngine would add them, and nothing would read them.

    A new key of the whole config has to be one that something reads. A new key deeper down is refused where it is
    nearly a key that stands beside it; not where names are free, and not of a part that gets its own ``type``.

    Raises:
        ValueError: If one is refused.
    """
    known: Any = cfg.to_dict()
    for key in options:
        place, parts = known, key.split('.')
        for i, part in enumerate(parts):
            where = '.'.join(parts[:i])
            if isinstance(place, list | tuple):
                place = _element(place, part, key, where)
                continue
            if not isinstance(place, Mapping):
                raise ValueError(f'`--cfg-options {key}=...` needs a dict or a list as `{where}`, which is '
                                 f'{place!r:.100}.')
            if part not in place:
                _check_new(place, parts, i, options)
                break
            place = place[part]


def check_numbers(cfg: Config) -> None:
    """Refuse numbers of a run that make no sense: no step, no validation, a learning rate that is no number.

    Raises:
        ValueError: If there is one.
    """
    settings = cfg.to_dict()
    for name, least in WHOLE:
        value = _at(settings, name)
        if value is not None and (type(value) is not int or value < least):
            raise ValueError(f'`{name}` needs a whole number of at least {least}, got {value!r}.')
    seed = _at(settings, 'randomness.seed')
    if seed is not None and seed > MOST_SEED:
        raise ValueError(f'`randomness.seed` needs a whole number from 0 to {MOST_SEED}, got {seed}.')
    for name in ('optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay',
                 'optim_wrapper.optimizer.momentum', 'optim_wrapper.clip_grad.max_norm'):
        value = _at(settings, name)
        if value is not None and not (isinstance(value, int | float) and not isinstance(value, bool)
                                      and math.isfinite(value) and value >= 0):
            raise ValueError(f'`{name}` needs a finite number of at least 0, got {value!r}.')


def _check_new(place: Mapping[str, Any], parts: Sequence[str], i: int, options: Mapping[str, Any]) -> None:
    part, key = parts[i], '.'.join(parts)
    if i == 0:
        if part in KNOWN:
            return
        near = difflib.get_close_matches(part, [*place, *sorted(KNOWN - set(place))], n=3)
        ways = f'did you mean {" or ".join(near)}? Else' if near else 'to add it,'
        raise ValueError(f'`--cfg-options {key}=...` needs a key that the config has, and it has no `{part}`; {ways} '
                         'define it in the config file.')
    prefix = '.'.join(parts[:i + 1])
    if parts[i - 1] in NAMED or f'{prefix}.type' in options:
        return
    near = difflib.get_close_matches(part, [str(one) for one in place if str(one) not in options], n=1, cutoff=0.85)
    if near and re.sub(r'\d+', '', near[0]) != re.sub(r'\d+', '', part):
        raise ValueError(f'`--cfg-options {key}=...`: `{".".join(parts[:i])}` has no `{part}`; did you mean '
                         f'`{near[0]}`? Else define it in the config file.')


def _element(place: Sequence, part: str, key: str, where: str) -> Any:
    if not part.isdigit() or int(part) >= len(place):
        raise ValueError(f'`--cfg-options {key}=...` needs a number from 0 to {len(place) - 1} after `{where}`, which '
                         f'is a list of {len(place)}, got {part!r}.')
    return place[int(part)]


def _at(cfg: Mapping[str, Any], name: str) -> Any:
    place: Any = cfg
    for part in name.split('.'):
        place = place.get(part) if isinstance(place, Mapping) else None
    return place


def _with_spaces(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_with_spaces(one) for one in value)
    return value.replace(SPACE, ' ') if isinstance(value, str) else value
