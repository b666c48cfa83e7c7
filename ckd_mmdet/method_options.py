"""What people write on a command line, read: methods, selectors, class maps, and overrides of a distilled config."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from ckd_mmdet.distilled import distil
from ckd_mmdet.recipes import AUTO, METHODS
from mmengine.fileio import load
from yaml import YAMLError, safe_load

INHERIT = 'inherit'
"""Beside a method: the student starts from the teacher's neck and head."""
CLASS_MAP = 'model.teacher.class_map'
"""Key of an override."""


@dataclass(frozen=True)
class Part:
    """A method of several."""

    name: str
    """One of :data:`METHODS`."""
    loss_weight: float | str | dict | None
    """Its own weight."""


def parse_method(method: str) -> list[Part]:
    """Read ``'ckd:0.5+pkd'``; ``'none'`` and ``'auto'``, which the heads decide, have no parts, nor has ``inherit``.

    Raises:
        ValueError: If a name is unknown, or there twice, or two of them are one loss on other rows.
    """
    plain = split_inherit(method)[0]
    if plain in ('none', AUTO):
        return []
    parts = [_part(text) for text in plain.split('+')]
    names = [part.name for part in parts]
    if not set(names) <= set(METHODS) or len(set(names)) < len(names):
        raise ValueError(f'`method` needs one of {", ".join(METHODS)}, several of them joined by +, {AUTO} or none, '
                         f'got {method!r}.')
    for first, second in combinations(names, 2):
        if METHODS[first] == METHODS[second]:
            raise ValueError(f'`method` joins {first} and {second}, which are one loss with other rows and weights; '
                             'leave one of the two out.')
    return parts


def split_inherit(method: str) -> tuple[str, bool]:
    """``'ckd'`` and True of ``'ckd+inherit'``: a switch beside the methods, no method."""
    parts = method.split('+')
    if INHERIT not in parts:
        return method, False
    parts.remove(INHERIT)  # a second one stays, and is unknown
    return '+'.join(parts), True


def _part(text: str) -> Part:
    name, colon, weight = text.partition(':')
    return Part(name, read_weight(weight) if colon else None)


def read_weight(text: str) -> float | str | dict:
    """A number where it is one, a dict from ``'{value: 1, warm_up: 20}'``; ``'balance:0.5'`` stays as it is.

    So does what is wrong, for its own error.
    """
    try:
        return safe_load(text) if text.startswith('{') else float(text)
    except (ValueError, YAMLError):
        return text


def read_selector(selector: str | dict | Sequence[str | dict]) -> dict | list[dict]:
    """Configs from ``'Foreground+PerImageCap:32'``, a config, or a list of either.

    Raises:
        ValueError: If what follows a colon is no whole number.
    """
    parts = selector.split('+') if isinstance(selector, str) else selector
    if isinstance(parts, dict):
        return parts
    configs = [_one_selector(part) if isinstance(part, str) else part for part in parts]
    return configs[0] if len(configs) == 1 else configs


def _one_selector(text: str) -> dict:
    name, colon, k = text.partition(':')
    if colon and not k.isdecimal():
        raise ValueError(f'`selector` needs a whole number after the colon, as in TeacherTopK:512, got {text!r}.')
    return dict(type=name, k=int(k)) if colon else dict(type=name)


def read_class_map(words: Sequence[str]) -> dict[str, str] | str:
    """Read ``--class-map light='traffic light' 3=three``, ``--class-map names.json``, or ``--class-map name``.

    A name may have spaces, dots and digits: nothing in it is taken for anything else.

    Args:
        words: ``OURS=THEIRS`` each; or one path of a JSON or YAML file with a dict from the student's names to the
            teacher's; or ``name`` alone.

    Raises:
        ValueError: If it is none of these, or a file that cannot be read.
    """
    if list(words) == ['name']:
        return 'name'
    if len(words) == 1 and Path(words[0]).suffix in ('.json', '.yml', '.yaml'):
        return _class_map_of_file(words[0])
    given: dict[str, str] = {}
    for word in words:
        ours, equals, theirs = word.partition('=')
        if not (ours and equals and theirs):
            raise ValueError("`--class-map` needs OURS=THEIRS, as in --class-map light='traffic light' 3=three, or a "
                             f'.json or .yaml file, got {word!r}.')
        if ours in given:
            raise ValueError(f'`--class-map` needs each of your classes once, {ours!r} is there twice.')
        given[ours] = theirs
    return given


def _class_map_of_file(path: str) -> dict[str, str]:
    try:
        names = load(path)
    except (OSError, ValueError, YAMLError) as error:
        raise ValueError(f'`--class-map` needs a file that can be read, {path} cannot: {error}') from error
    if not isinstance(names, dict) or not names:
        raise ValueError(f'`--class-map` needs a file with a dict from your names to those of the teacher, {path} has '
                         f'{json.dumps(names, default=str)[:80]}.')
    return {str(ours): str(theirs) for ours, theirs in names.items()}  # YAML reads 3 as a number


def student_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those overrides of a distilled config that change the student's own: ``model.student.x`` is its ``model.x``.

    Raises:
        ValueError: If one changes something in ``model`` that no distilled config has there, or is a class map, whose
            names would not come through as they are.
    """
    known = ('type', *inspect.signature(distil).parameters)
    for key in options:
        first, *rest = key.split('.')
        if first == 'model' and (not rest or rest[0] not in known):
            raise ValueError(f'`--cfg-options {key}=...` goes into a distilled config, whose `model` has nothing of '
                             f'this name: write {".".join(["model.student", *rest])}=... for the student.')
        if key.startswith(f'{CLASS_MAP}.'):
            raise ValueError(f'`--cfg-options {key}=...` would lose spaces and dots of a name, and take digits for a '
                             f'number; write `--class-map {key[len(CLASS_MAP) + 1:]}=...`.')
    return {re.sub(r'^model\.student\.', 'model.', key): value for key, value in options.items()
            if not key.startswith('model.') or key.startswith('model.student.')}
