"""How the classes of two configs are paired, as far as their configs know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ckd_mmdet.classes import Scoring, SharedClasses, match_classes
from ckd_mmdet.config import class_names, stated_class_names
from ckd_mmdet.text import few
from mmengine.config import Config


@dataclass(frozen=True)
class ClassPairing:
    """How the classes are paired."""

    class_map: str | dict[str, str] | None
    shared: SharedClasses | None
    """``None`` where the names are known from the teacher's checkpoint only."""
    why: str


def pair_classes(student: Config, teacher: Config, scorings: tuple[Scoring, Scoring] | None,
                 class_map: str | Mapping[str, str] | list | None) -> ClassPairing:
    """Pair the classes of two plain configs by what they say of them.

    A teacher may have more scores than names: those without a name stay out.

    Args:
        student: The student's config.
        teacher: The teacher's.
        scorings: How both score a row; ``None`` where maps are compared.
        class_map: As asked for; see :func:`ckd_mmdet.classes.match_classes`.

    Raises:
        ValueError: If the student's head scores another number of classes than its data have, or none is shared.
    """
    if scorings is None:
        return ClassPairing(None, None, 'not looked at: feature maps have no classes')
    counts = tuple(scoring.num_classes for scoring in scorings)
    ours, theirs = class_names(student), _names_of_teacher(teacher, counts[1])
    if counts != (1, 1):  # RPNs know no names
        _check_student(student, ours, counts[0])
    same = ours == theirs or not (ours and theirs)
    if counts == (1, 1) or class_map is None and same and counts[0] == counts[1]:
        named = ours is not None and counts != (1, 1) or len(ours or ()) == 1
        how = _the_same(len(ours or ())) if named else f'{counts[0]} on both sides, without names'
        return ClassPairing(None, None, how)
    class_map = class_map or 'name'
    class_map = class_map if isinstance(class_map, str) else dict(class_map)
    how = 'by name' if class_map == 'name' else 'by `class_map`'
    if not (ours and theirs):
        return ClassPairing(class_map, None, f'{counts[0]} of the student, {counts[1]} of the teacher, to be paired '
                                             f'{how} when the names in its checkpoint are read')
    shared = match_classes(ours, theirs, class_map)
    pairs = [ours[i] if ours[i] == theirs[j] else f'{ours[i]} (as {theirs[j]})'
             for i, j in zip(shared.student, shared.teacher, strict=True)]
    surplus = counts[1] - len(theirs)
    left_out = f'; {surplus} more scores of the teacher have no name and stay out' if surplus else ''
    return ClassPairing(class_map, shared, f'the teacher knows {len(theirs)}, the student {len(ours)}; {len(shared)} '
                                           f'paired {how}: {few(pairs)}{left_out}')


def _the_same(number: int) -> str:
    return 'the same one' if number == 1 else f'the same {number}'


def _names_of_teacher(teacher: Config, count: int) -> tuple[str, ...] | None:
    """``None`` where its checkpoint knows better."""
    stated = stated_class_names(teacher)
    if stated and len(stated) <= count:
        return stated
    names = class_names(teacher)
    return names if names and len(names) == count else None


def _check_student(student: Config, names: tuple[str, ...] | None, count: int) -> None:
    if not names or len(names) == count:
        return
    heads = [f'{key}={len(names)}' for key in keys_of(student.model.to_dict(), 'num_classes', count, 'model.student')]
    options = f' (`--cfg-options {" ".join(heads)}`)' if heads else ''
    raise ValueError(f"the student's head scores {count} classes, and its training data have {len(names)} "
                     f'({few(names)}); set `num_classes` of its head{options}, or `metainfo.classes` of its '
                     '`train_dataloader.dataset`, so that they agree.')


def keys_of(config: Any, wanted: str, value: Any, at: str) -> Iterator[str]:
    """Dotted keys of a config, from ``at``, that are called ``wanted`` and have this value."""
    parts = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for key, part in parts:
        if key == wanted and part == value:
            yield f'{at}.{key}'
        yield from keys_of(part, wanted, value, f'{at}.{key}')
