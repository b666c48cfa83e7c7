"""What a data set's pipeline does to an image's channels and values before any data preprocessor sees it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from PIL import Image

Order = Literal['bgr', 'rgb']
RED = (200, 120, 40)
"""In RGB: each channel tells its place."""


@dataclass(frozen=True)
class Loading:
    """Order of the channels, and normalisation within the pipeline, which older configs have."""

    read_as: Order | None = None
    """How the image was read; ``None`` where it is unknown: grey, or from a data set that holds images itself."""
    swaps_channels: bool = False
    """Whether a later transform swaps them."""
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """In the order of the channels at the end."""
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @property
    def is_rgb(self) -> bool:
        """At the end of the pipeline, if an unknown order is taken for BGR."""
        return (self.read_as == 'rgb') != self.swaps_channels


def pipeline_of(cfg: Config) -> list[Any] | None:
    """The transforms of a config's training data, else of its test data, those of wrapped data sets first.

    Of several data sets together it is the first one's. ``None``: the config has no data.
    """
    for loader in ('train_dataloader', 'test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(loader) or {}).get('dataset')
        if isinstance(dataset, Mapping) and (found := _transforms(dataset)):
            return found
    return None


def _transforms(dataset: Mapping) -> list[Any]:
    inner = dataset.get('dataset') or dataset.get('datasets')  # wrappers such as MultiImageMixDataset
    if isinstance(inner, Sequence):
        inner = inner[0]
    return [*(_transforms(inner) if inner else []), *(dataset.get('pipeline') or [])]


def compared(student: Sequence[Any] | None, teacher: Sequence[Any] | None, scopes: tuple[str, str]
             ) -> tuple[Loading, Loading] | None:
    """What both pipelines do, in terms that can be compared; ``None`` where one has none, or they read alike.

    Where one order is unknown, it is taken to be the other's.

    Args:
        student: Transforms or their configs, from :func:`pipeline_of`.
        teacher: The same.
        scopes: Where the names of the student's transforms are registered, and the teacher's: ``'mmdet'``.

    Raises:
        ValueError: If their loaders differ, and one of them cannot be run on an image file.
    """
    if not student or not teacher:
        return None
    chosen = [[part for part in map(_resolve, pipeline, [scope] * len(pipeline)) if _changes_pixels(part)]
              for pipeline, scope in zip((student, teacher), scopes, strict=True)]
    if chosen[0] == chosen[1]:  # whatever it is
        return None
    ours, theirs = (_loading(parts) for parts in chosen)
    if ours.read_as is None or theirs.read_as is None:
        ours, theirs = replace(ours, read_as=None), replace(theirs, read_as=None)
    return ours, theirs


def _resolve(transform: Any, scope: str) -> tuple[type, Any]:
    """Its class, and its arguments, or the transform itself where it is built."""
    if not isinstance(transform, Mapping):
        return type(transform), transform
    kind, settings = transform['type'], {key: value for key, value in transform.items() if key != 'type'}
    if isinstance(kind, str):
        with TRANSFORMS.switch_scope_and_registry(scope) as registry:
            kind = registry.get(kind) or object  # unknown ones are for the data set to refuse
    return kind, settings


def _changes_pixels(part: tuple[type, Any]) -> bool:
    return _is_loader(part[0]) or part[0].__name__ in ('Normalize', 'NumpyToPIL', 'PILToNumpy')


def _is_loader(kind: type) -> bool:
    names = [each.__name__ for each in kind.__mro__]
    return 'LoadImageFromFile' in names or names[0].startswith('Load') and 'Image' in names[0]


def _loading(parts: Sequence[tuple[type, Any]]) -> Loading:
    found = Loading()
    for kind, settings in parts:
        built = kind(**settings) if isinstance(settings, dict) else settings
        if _is_loader(kind):
            found = Loading(read_as=_read_as(built))
            continue
        swaps = bool(getattr(built, 'to_rgb', False) or getattr(built, 'to_bgr', False))
        mean, std = (part[::-1] if swaps else part for part in (found.mean, found.std))
        if kind.__name__ == 'Normalize':
            own = [tuple(float(value) for value in np.broadcast_to(part, 3)) for part in (built.mean, built.std)]
            mean = tuple(m + s * own_m for m, s, own_m in zip(mean, std, own[0], strict=True))
            std = tuple(s * own_s for s, own_s in zip(std, own[1], strict=True))
        found = replace(found, swaps_channels=found.swaps_channels != swaps, mean=mean, std=std)
    return found


def _read_as(loader: Any) -> Order | None:
    """The order in which it gives the channels of a small image."""
    if hasattr(loader, 'backend_args'):  # of the data's storage, where the small image does not lie
        loader.backend_args = loader.file_client_args = None
    tiff = getattr(loader, 'imdecode_backend', None) == 'tifffile'  # which reads nothing else; turbojpeg only JPEG
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'red.tif' if tiff else 'red.jpg')
        Image.new('RGB', (16, 16), RED).save(path)
        given = np.full((16, 16, 3), RED[::-1], np.uint8)  # arrays are BGR in OpenMMLab
        try:
            loaded = loader(dict(img_path=path, img=given, height=16, width=16, instances=[]))['img']
        except Exception as error:  # a user's own loader may raise anything; it goes on as the cause
            raise ValueError(
                "the pipelines of student and teacher load images in different ways, and the order of the channels of "
                f'{type(loader).__name__} cannot be found by loading one ({type(error).__name__}: {error}). Give both '
                'configs the same loader, or, if both load alike, set `teacher.check_preprocessing=False`.') from error
    color = np.asarray(loaded)[8, 8].ravel().tolist()[:3]
    if len(color) < 3:
        return None
    return 'rgb' if color[0] > color[2] else 'bgr'
