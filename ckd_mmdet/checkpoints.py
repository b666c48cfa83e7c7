"""Checkpoints: read, and fitted to a model."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ckd_mmdet.classification.published import translate
from ckd_mmdet.compat.loading import MALFORMED, UntrustedCheckpoint, trusting
from ckd_mmdet.text import few
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

LEARNED = 'distiller.'
"""What distillation learns beside a student; checkpoints of earlier versions hold it among the student's weights."""
WRAPPERS = ('module.', 'model.', 'student.')
"""What DDP, Lightning and other distillers put before the names of a model's weights."""


def read_checkpoint(checkpoint: str | Path, argument: str, *, trusted: bool = False
                    ) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The whole of it, and the weights in it.

    Args:
        checkpoint: Path or address.
        argument: By which the user gives it, for errors.
        trusted: Whether it may hold what could run code.

    Raises:
        ValueError: If it cannot be read, could run code, or holds no weights.
    """
    checkpoint = str(checkpoint)
    try:
        with trusting(trusted):
            loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location='cpu')
    except UntrustedCheckpoint as error:
        raise ValueError(f'`{argument}` needs a checkpoint without code: {error}') from error
    except MALFORMED as error:
        cause = error.__cause__ if isinstance(error.__cause__, MALFORMED) else error
        reason = ': '.join(filter(None, [type(cause).__name__, str(cause).split('\n')[0].rstrip('. ')]))
        option = ' (to tools/train.py, with `--teacher-checkpoint`)' if argument == 'teacher.checkpoint' else ''
        raise ValueError(f'`{argument}` needs a readable checkpoint, {checkpoint!r} is not ({reason}). Give a path '
                         f'that exists{option}, or download it again.') from error
    return loaded, weights_of(loaded, checkpoint, argument)


def weights_of(loaded: Any, checkpoint: str, argument: str) -> dict[str, Tensor]:
    """The weights of what was read from a checkpoint: MMEngine's, bare ones, or RepDistiller's and mdistiller's.

    Args:
        loaded: What was read.
        checkpoint: Where from, for errors.
        argument: By which the user gives it, for errors.

    Raises:
        ValueError: If they are none.
    """
    wish = f'`{argument}` needs a checkpoint with a state dict'
    published = isinstance(loaded, dict) and 'state_dict' not in loaded and isinstance(loaded.get('model'), dict)
    weights = loaded['model'] if published else loaded.get('state_dict', loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(weights, dict):
        raise ValueError(f'{wish}, {checkpoint!r} holds a {type(weights).__name__}.')
    if not weights:
        raise ValueError(f'{wish}, {checkpoint!r} holds no weights.')
    for key, value in weights.items():
        if not isinstance(key, str):
            raise ValueError(f'{wish}, whose keys are names, {checkpoint!r} has the key {key!r}.')
        if not isinstance(value, Tensor) and not key.endswith('_extra_state'):
            raise ValueError(f'{wish}, whose values are tensors, {checkpoint!r} has {type(value).__name__} under '
                             f'{key!r}.')
    return translate(weights) if published else weights


def checkpoint_classes(loaded: dict[str, Any], checkpoint: str, argument: str) -> tuple[str, ...] | None:
    """Class names that a checkpoint holds (mmdet 3.x, then 2.x); ``None`` where it has none.

    Raises:
        ValueError: If they are no names.
    """
    meta = loaded.get('meta') or {}
    if not isinstance(meta, Mapping):
        raise ValueError(f'`{argument}` needs a checkpoint whose `meta` is a dict, {checkpoint!r} has a '
                         f'{type(meta).__name__} there.')
    of_data = meta.get('dataset_meta') or {}
    classes = of_data.get('classes') if isinstance(of_data, Mapping) else of_data
    if classes is None or (hasattr(classes, '__len__') and not len(classes)):
        classes = meta.get('CLASSES')
    if classes is None:
        return None
    names = (classes,) if isinstance(classes, str) else classes
    if isinstance(names, np.ndarray):
        names = names.tolist()
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'`{argument}` needs a checkpoint whose class names are a sequence of texts, {checkpoint!r} '
                         f'has {classes!r:.100}.')
    return tuple(names) or None


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], checkpoint: str, name: str, argument: str) -> None:
    """Load a model's weights, all of them; what distillation learned beside a student is left out.

    Args:
        model: A plain detector or classifier.
        weights: Its state dict, of a plain or a distilled training, also under the names that a wrapper gave them.
        checkpoint: Where they are from, for errors.
        name: Of the model, for errors.
        argument: By which the user gives the checkpoint, for errors.

    Raises:
        ValueError: If they do not fit.
    """
    weights = own_names(weights, model)
    misfit = f'`{argument}` needs the weights of {name}, {checkpoint!r} does not fit it'
    way_out = 'Give the checkpoint that was trained with this config.'
    try:
        keys = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:  # other shapes
        lines = [line.strip() for line in str(error).splitlines()]
        raise ValueError(f'{misfit}: {few(lines, 4, " ", total=False)} {way_out}') from error
    missing = [key for key in keys.missing_keys if not key.endswith('num_batches_tracked')]
    # DDQ gives some of its weights a second name when it starts to train
    known = {value.data_ptr() for key, value in weights.items()
             if isinstance(value, Tensor) and key not in keys.unexpected_keys}
    unexpected = [key for key in keys.unexpected_keys
                  if not isinstance(weights[key], Tensor) or weights[key].data_ptr() not in known]
    if missing or unexpected:
        raise ValueError(f'{misfit}: {_few(missing)} missing, {_few(unexpected)} unexpected. {way_out}')


def own_names(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The weights under the model's own names: without wrappers' prefixes, and without what distillation learned."""
    children = {name.split('.')[0] for name in model.state_dict()}
    names = {key: _plain_name(key, children) for key in weights}
    plain: OrderedDict[str, Tensor] = OrderedDict(
        (name, weights[key]) for key, name in names.items() if not name.startswith(LEARNED))
    if any(key.startswith('student.') for key in weights) and 'student' not in children:
        plain = OrderedDict((name, value) for name, value in plain.items() if not name.startswith('teacher.'))
    metadata = getattr(weights, '_metadata', None)
    if metadata is not None:  # by it, torch knows which version of a module wrote them
        plain._metadata = OrderedDict(  # type: ignore[attr-defined]
            (_plain_name(f'{key}.', children)[:-1], value) for key, value in metadata.items())
    return plain


def report_fit(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """How much of a model some weights would fill, in one sentence; for ``load_from``, where a part is enough.

    Raises:
        ValueError: If it is nothing.
    """
    own = {key: value for key, value in model.state_dict().items() if not key.startswith(LEARNED)}
    given = own_names(weights, model)
    fitting = [key for key, value in own.items() if key in given and _shape(given[key]) == _shape(value)]
    reshaped = [key for key in own if key in given and key not in fitting]
    absent, unused = [key for key in own if key not in given], [key for key in given if key not in own]
    text = (f'{len(fitting)} of the {len(own)} weights of the model ({len(fitting) / max(len(own), 1):.0%}) are in '
            f'the checkpoint; {_few(absent)} missing, {_few(reshaped)} of another shape, {_few(unused)} unused')
    if own and not fitting:
        raise ValueError(f'`load_from` needs weights of this model: {text}. Give a checkpoint of the same '
                         'architecture, or leave `load_from` out.')
    return text


def _plain_name(key: str, children: set[str]) -> str:
    name = re.sub(r'(^|\.)_orig_mod\.', r'\1', key)  # torch.compile's
    while (wrapper := next((each for each in WRAPPERS if name.startswith(each)), None)) and \
            wrapper[:-1] not in children:
        name = name.removeprefix(wrapper)
    return name


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, Tensor) else None


def _few(keys: Sequence[str]) -> str:
    return f'{len(keys)} key{"s" if len(keys) > 1 else ""} ({few(keys, 3, total=False)})' if keys else 'no key'
