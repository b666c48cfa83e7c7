"""The views that a pipeline can give an image: each a pipeline without chance."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FIXED = ('LoadImageFromFile', 'LoadAnnotations', 'FilterAnnotations', 'Resize', 'FixShapeResize', 'Pad', 'Normalize',
         'PackDetInputs')
"""Transforms that make the same of an image each time."""
WRAPPERS = ('ConcatDataset', 'RepeatDataset', 'ClassBalancedDataset')
"""Data sets that give the images of others as they are."""
SAME_PIXELS = ('BatchFixedSizePad',)
"""Of a data preprocessor's `batch_augments`."""
NEEDED = ('img_id', 'img_shape', 'flip', 'flip_direction')
"""Meta information by which a view is known again."""


@dataclass(frozen=True)
class Views:
    """What a pipeline can make of an image."""

    fixed: list
    """Name and settings of its transforms, without those that choose."""
    choices: list
    """What each view is made of: name and settings of the transforms that were chosen, a list a view."""
    pipelines: list[list[dict]]
    """A pipeline a view."""


def views_of(pipeline: Sequence[Mapping[str, Any]]) -> Views:
    """The views of a pipeline's config.

    Raises:
        ValueError: If it has a transform of which there are too many views, or that is not known to have few; the text
            names it.
    """
    options = [list(_options(transform)) for transform in pipeline]
    _check_meta(pipeline)
    chosen = [list(each) for each in itertools.product(*options)]
    choosing = [len(option) > 1 or option[0] is not transform
                for option, transform in zip(options, pipeline, strict=True)]
    return Views([_plain(option[0]) for option, chooses in zip(options, choosing, strict=True) if not chooses],
                 [[_plain(part) for part, chooses in zip(each, choosing, strict=True) if chooses and part is not None]
                  for each in chosen],
                 [[dict(part) for part in each if part is not None] for each in chosen])


def name_of(config: Mapping[str, Any]) -> str:
    """Name of a part's class, without its scope."""
    kind = config['type']
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__


def check_wrappers(dataset: Mapping[str, Any]) -> None:
    """Refuse data sets that make images of several.

    Args:
        dataset: Config of the training data.

    Raises:
        ValueError: If there is one.
    """
    inner = [one for one in [dataset.get('dataset'), *(dataset.get('datasets') or [])] if isinstance(one, Mapping)]
    if inner and name_of(dataset) not in WRAPPERS:
        raise ValueError(f'a cached teacher needs images that come again as they are, and `{name_of(dataset)}` makes '
                         f'new ones; take one of {", ".join(WRAPPERS)}, or a live teacher.')
    for one in inner:
        check_wrappers(one)


def check_batch_augments(augments: Sequence[Any]) -> None:
    """Refuse what a data preprocessor changes of a whole batch.

    Args:
        augments: Its ``batch_augments``, built.

    Raises:
        ValueError: If one changes more than the padding.
    """
    for augment in augments:
        if type(augment).__name__ not in SAME_PIXELS:
            raise ValueError('a cached teacher needs images of fixed sizes, and `data_preprocessor.batch_augments` has '
                             f'a {type(augment).__name__}; leave it out, or take a live teacher.')


def _options(transform: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
    """What a transform can be at each image, ``None`` for nothing."""
    name = name_of(transform)
    if name in FIXED:
        yield transform
    elif name == 'RandomFlip':
        yield from _flips(transform)
    elif name == 'RandomChoiceResize' and _of_resize(transform):
        rest = {key: value for key, value in transform.items() if key not in ('type', 'scales', 'resize_type')}
        yield from ({'type': 'Resize', 'scale': scale, **rest} for scale in transform['scales'])
    else:
        raise ValueError(f'a cached teacher needs a pipeline that can give an image a few views only, and `{name}` '
                         'gives it countless ones, or ones that are not known; leave it out (fixed sizes and flips '
                         'remain: Resize, RandomChoiceResize, RandomFlip), or take a live teacher.')


def _of_resize(transform: Mapping[str, Any]) -> bool:
    resize = transform.get('resize_type', 'Resize')
    return name_of(dict(type=resize)) == 'Resize'


def _flips(transform: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | None]:
    prob, direction = transform.get('prob'), transform.get('direction', 'horizontal')
    directions = [direction] if isinstance(direction, str) else list(direction)
    shares = list(prob) if isinstance(prob, list | tuple) else [(prob or 0) / len(directions)] * len(directions)
    if sum(shares) < 1:
        yield None
    for one, share in zip(directions, shares, strict=True):
        if share > 0:
            yield dict(type=transform['type'], prob=1.0, direction=one)


def _check_meta(pipeline: Sequence[Mapping[str, Any]]) -> None:
    for transform in pipeline:
        missing = [name for name in NEEDED if name_of(transform) == 'PackDetInputs' and 'meta_keys' in transform
                   and name not in transform['meta_keys']]
        if missing:
            raise ValueError(f'a cached teacher knows an image and its view by {", ".join(NEEDED)}, and `meta_keys` of '
                             f'PackDetInputs lacks {", ".join(missing)}; add them, or leave `meta_keys` out.')


def _plain(transform: Mapping[str, Any] | None) -> Any:
    """Name and settings that decide over pixels, as JSON has them."""
    assert transform is not None  # what is fixed is never left out
    settings = {key: value for key, value in transform.items() if key not in ('type', 'backend_args', 'meta_keys')}
    return [name_of(transform), json.loads(json.dumps(settings, sort_keys=True, default=repr))]
