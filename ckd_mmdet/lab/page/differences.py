"""In what the configs of a matrix differ from that of the student alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ckd_mmdet.config import DISTILLER
from mmengine.config import Config

LEFT_OUT = '(left out)'


def read_differences(configs: Mapping[str, Path], alone: str) -> dict[str, dict[str, str]]:
    """Of each method what its config sets otherwise than the student's own, by the keys of a distilled config.

    Args:
        configs: Files of the configs by method; those that do not exist are left out.
        alone: The method whose config is the student's.

    Returns:
        Value by key, by method, without ``alone``; empty where the student's own config is not there.
    """
    there = {method: settings(Config.fromfile(path)) for method, path in configs.items() if path.exists()}
    own = there.pop(alone, None)
    if own is None:
        return {}
    return {method: {key: found.get(key, LEFT_OUT) for key in [*found, *(key for key in own if key not in found)]
                     if found.get(key) != own.get(key)} for method, found in there.items()}


def settings(cfg: Config) -> dict[str, str]:
    """All settings of a config by key; a student's model begins with ``model.student.`` in each, distilled or not."""
    given = cfg.to_dict()
    given.pop('distillation', None)  # says why the others were chosen
    model = given.get('model') or {}
    if model.get('type') != DISTILLER:
        given['model'] = dict(student=model)
    return dict(flat(given))


def flat(value: Any, key: str = '') -> Iterator[tuple[str, str]]:
    """The leaves of nested dicts and of lists of dicts, ``('a.b', '1')`` for ``{'a': {'b': 1}}``."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from flat(inner, f'{key}.{name}' if key else str(name))
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for place, inner in enumerate(value):
            yield from flat(inner, f'{key}.{place}')
    else:
        yield key, repr(value)


def common(differences: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """What is the same in all methods, two at least: the teacher, for example."""
    first, *others = list(differences.values()) or [{}]
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)} if others \
        else {}
