"""What is compared: which metric a config measures, and how a table writes it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS


@dataclass(frozen=True)
class Metric:
    """How a metric is written.

    Args:
        key: In MMEngine's log.
        name: In tables and pictures.
        percent: Whether it is in percent, and differences in points; ``None`` where nobody said.
    """

    key: str
    name: str
    percent: bool | None = None

    @property
    def title(self) -> str:
        """The name with its unit: ``'mAP'``, ``'top-1 (%)'``."""
        return f'{self.name} (%)' if self.percent else self.name

    @property
    def difference(self) -> str:
        """What a difference is of: ``'mAP'``, ``'top-1 (points)'``."""
        return f'{self.name} (points)' if self.percent else self.name

    @property
    def points(self) -> str:
        """The unit after a difference, if it has one."""
        return ' points' if self.percent else ''

    def digits(self, largest: float) -> int:
        """Digits after the point, the same in a whole table: a share has three, a percentage two.

        Args:
            largest: Absolute value in the table, which decides where the unit is not known.
        """
        return 2 if self.percent or self.percent is None and largest > 1 else 3


def describe(key: str) -> Metric:
    """The metric of this key; one that is not known is called by its last part."""
    if found := re.fullmatch(r'accuracy/top(\d+)', key):
        return Metric(key, f'top-{found[1]}', percent=True)
    names = {'coco/bbox_mAP': 'mAP', 'coco/segm_mAP': 'mask mAP'}
    return Metric(key, names.get(key) or key.rpartition('/')[2], percent=False if key.startswith('coco/') else None)


def main_metric(cfg: Config) -> str:
    """Key of what a config's ``val_evaluator`` is mainly about: boxes' mAP, or the first accuracy.

    Raises:
        ValueError: If none of its evaluators is known.
    """
    seen = []
    for evaluator, kind in evaluators_with_types(cfg):
        for base in getattr(kind, '__mro__', ()):
            if base.__name__ in MAIN:
                prefix = evaluator.get('prefix') or kind.default_prefix
                return f'{prefix}/{MAIN[base.__name__](evaluator)}'
        seen.append(str(evaluator['type']))
    raise ValueError(f'`--metric` needs the key of what shall be compared, as it stands in the log: `val_evaluator` is '
                     f'{" and ".join(seen)}, of which ckd_mmdet does not know what it logs.')


def check_metric(key: str, cfg: Config, where: str = 'val_evaluator') -> None:
    """See that a config's ``val_evaluator``, or ``test_evaluator``, logs a metric, before anything trains for it.

    Raises:
        ValueError: If all of its evaluators are known, and none logs it.
    """
    known: list[str] = []
    for evaluator, kind in evaluators_with_types(cfg, where):
        names = next((KEYS[base.__name__](evaluator) for base in getattr(kind, '__mro__', ()) if base.__name__ in KEYS),
                     None)
        if names is None:
            return
        known += [f'{evaluator.get("prefix") or kind.default_prefix}/{name}' for name in names]
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        raise ValueError(f'`--metric` needs the key of a metric that `{where}` logs, got {key!r}'
                         f'{f" (did you mean {near[0]}?)" if near else ""}; it logs {", ".join(known)}.')


def evaluators_with_types(cfg: Config, key: str = 'val_evaluator') -> Iterator[tuple[Mapping[str, Any], Any]]:
    """The metrics' configs in ``val_evaluator`` with their classes."""
    for evaluator in evaluators(cfg, key):
        with METRICS.switch_scope_and_registry(cfg.get('default_scope') or 'mmdet') as registry:
            yield evaluator, registry.get(evaluator['type']) if isinstance(evaluator['type'], str) else \
                evaluator['type']


def evaluators(cfg: Config, key: str = 'val_evaluator') -> Iterator[dict[str, Any]]:
    """The metrics' configs in ``val_evaluator``, which may be one, several, or an evaluator that holds them."""
    given: Any = cfg.get(key) or []
    if isinstance(given, dict):
        given = given.get('metrics') or [given]
    yield from [given] if isinstance(given, dict) else given


def _boxes(evaluator: Mapping[str, Any]) -> str:
    kinds = evaluator.get('metric', 'bbox')
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    return f'{"bbox" if "bbox" in kinds else kinds[0]}_mAP'


def _box_keys(evaluator: Mapping[str, Any]) -> list[str] | None:
    """``None`` where more is logged than the usual."""
    kinds = evaluator.get('metric', 'bbox')
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if evaluator.get('metric_items') or evaluator.get('classwise') or not set(kinds) <= {'bbox', 'segm'}:
        return None
    return [f'{kind}_mAP{part}' for kind in kinds for part in ('', '_50', '_75', '_s', '_m', '_l')]


def _accuracy(evaluator: Mapping[str, Any]) -> str:
    return f'top{min(_topk(evaluator))}'


def _topk(evaluator: Mapping[str, Any]) -> list[int]:
    topk = evaluator.get('topk', 1)
    return [topk] if isinstance(topk, int) else list(topk)


MAIN: dict[str, Callable[[Mapping[str, Any]], str]] = {
    'LVISMetric': lambda evaluator: _boxes(evaluator).replace('mAP', 'AP'),
    'CocoMetric': _boxes,
    'VOCMetric': lambda evaluator: 'mAP',
    'Accuracy': _accuracy,
}
"""Of each known evaluator, and of what inherits from it, the main metric without its prefix."""
KEYS: dict[str, Callable[[Mapping[str, Any]], list[str] | None]] = {
    'LVISMetric': lambda evaluator: None,
    'CocoMetric': _box_keys,
    'Accuracy': lambda evaluator: None if evaluator.get('thrs') else [f'top{k}' for k in _topk(evaluator)],
}
"""Of each known evaluator all that it logs, without its prefix; ``None`` where that is not known."""
