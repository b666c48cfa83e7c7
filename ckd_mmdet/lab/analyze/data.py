"""The images that are looked at: of the validation data, prepared as in validation, with what they show."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from ckd_mmdet.data_files import check_data
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch import Tensor
from torch.utils.data import Subset

LOADERS = ('val_dataloader', 'test_dataloader')


@dataclass(frozen=True)
class Images:
    """Some images of a data set, always in the same order."""

    dataset: BaseDataset
    index: list[int]
    """Which, of the data set's."""
    loader: dict[str, Any]
    """How they are batched."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def classes(self) -> tuple[str, ...] | None:
        names = self.dataset.metainfo.get('classes')
        return tuple(names) if names else None

    def batches(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each batch, and which of the images is its first."""
        first = 0
        for batch in Runner.build_dataloader(dict(self.loader, dataset=Subset(self.dataset, self.index))):
            yield first, batch
            first += len(batch['inputs'])

    def pixels(self, image: int) -> Tensor:
        """One of the images as the model's preprocessing gets it, shape ``(3, h, w)``."""
        return self.dataset[self.index[image]]['inputs']

    def path(self, image: int) -> str | None:
        return getattr(self.dataset[self.index[image]]['data_samples'], 'img_path', None)


def scope_of(cfg: Config) -> AbstractContextManager:
    """A context in which the config's names are found as in its own package, as a Runner does for good."""
    return DefaultScope.overwrite_default_scope(cfg.get('default_scope') or 'mmdet')


def choose_images(cfg: Config, batches: int) -> Images:
    """Draw images of a config's validation data, with a fixed seed: data sets may be sorted by class.

    They go through the validation pipeline, which is deterministic. A detector's puts the boxes in after the image was
    resized, as evaluation wants them; here they come right after the image, by the training pipeline's transform, so
    that they are resized with it and the student can sample RoIs by them.

    Args:
        cfg: The student's config.
        batches: At most so many, of the validation loader's size.

    Raises:
        ValueError: If ``batches`` is not positive, or there are no validation data.
    """
    if batches < 1:
        raise ValueError(f'`--batches` needs a positive number, got {batches}.')
    name = next((name for name in LOADERS if cfg.get(name)), None)
    if name is None:
        raise ValueError(f'`config` needs validation data, and has neither `{"` nor `".join(LOADERS)}`.')
    check_data(cfg, (name,))
    loader = copy.deepcopy(cfg[name])
    annotations = next((step for pipeline in _pipelines(cfg.get('train_dataloader')) for step in pipeline
                        if _is_annotations(step)), None)
    for pipeline in _pipelines(loader):
        put_annotations_first(pipeline, annotations)
    with scope_of(cfg):
        dataset = DATASETS.build(loader['dataset'])
    dataset.full_init()
    size = loader.get('batch_size') or 1
    order = np.random.default_rng(0).permutation(len(dataset))
    kept = {key: loader[key] for key in ('num_workers', 'collate_fn') if key in loader}
    return Images(dataset, sorted(order[:batches * size].tolist()),
                  dict(kept, batch_size=size, sampler=dict(type='DefaultSampler', shuffle=False)))


def put_annotations_first(pipeline: list[dict], annotations: dict | None) -> None:
    """Load a detector's annotations right after its image, in place; without any, as of a classifier, change nothing.

    Args:
        pipeline: The validation pipeline.
        annotations: The training pipeline's transform that loads them; by default its own.
    """
    own = [step for step in pipeline if _is_annotations(step)]
    annotations = annotations or next(iter(own), None)
    if annotations is None:
        return
    pipeline[:] = [step for step in pipeline if step not in own]
    images = [i for i, step in enumerate(pipeline) if _type(step).startswith('LoadImage')]
    pipeline.insert(images[0] + 1 if images else 0, copy.deepcopy(annotations))


def _pipelines(cfg: Any) -> Iterator[list[dict]]:
    """Of a loader's data set and of those within wrappers such as ``ConcatDataset``."""
    if isinstance(cfg, dict):
        if isinstance(cfg.get('pipeline'), list):
            yield cfg['pipeline']
        for key in ('dataset', 'datasets'):
            yield from _pipelines(cfg.get(key))
    elif isinstance(cfg, list | tuple):
        for part in cfg:
            yield from _pipelines(part)


def _is_annotations(step: dict) -> bool:
    return _type(step).endswith('Annotations') and _type(step).startswith('Load')


def _type(step: dict) -> str:
    kind = step.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rpartition('.')[2]
