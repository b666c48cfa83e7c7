"""Writing a cache of a file of predictions, from whatever framework they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ckd_mmdet import __version__
from ckd_mmdet.aligners import ObjectAligner, RoIAligner
from ckd_mmdet.alignment import build_alignment
from ckd_mmdet.cached.aligners import CacheModel
from ckd_mmdet.cached.build import Kept, ViewData, begin, write
from ckd_mmdet.cached.header import Header, digest_of_images
from ckd_mmdet.cached.objects import object_name
from ckd_mmdet.cached.parts import roi_name
from ckd_mmdet.cached.predictions import Predictions
from ckd_mmdet.cached.teacher import asking_cache, digest_of_file, ids_of, views_of_config
from ckd_mmdet.config import DISTILLER, add_hook
from ckd_mmdet.labels import check_label_names, leaves
from ckd_mmdet.lock import locked
from ckd_mmdet.recipes import METHODS, RECIPES
from ckd_mmdet.teacher import build_model
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope


def distilled_by_file(cfg: Config, method: str) -> Config:
    """A config whose teacher is a file of predictions; a distilled one stays as it is.

    Of a plain student with a RoI head, RoIs are compared, of another one objects.

    Args:
        cfg: A config, plain or distilled.
        method: Of :data:`ckd_mmdet.recipes.METHODS`.

    Raises:
        ValueError: If the method has no recipe for such rows.
    """
    made = copy.deepcopy(cfg)
    if cfg.model.get('type') == DISTILLER:
        return made
    name, aligner = ('roi', 'RoIAligner') if 'roi_head' in cfg.model else ('object', 'ObjectAligner')
    recipe = RECIPES[aligner].get(method)
    if recipe is None:
        raise ValueError(f'`--predictions` compares rows of a {aligner}, for which `--method {method}` has no recipe; '
                         f'take one of {", ".join(RECIPES[aligner])}.')
    losses = {key: {**loss, 'loss_weight': recipe.loss_weight} for key, loss in METHODS[method].items()}
    made.model = dict(type=DISTILLER, student=cfg.model, teacher=dict(), alignments={
        name: dict(aligner=dict(type=aligner), selector=recipe.selector, losses=losses)})
    add_hook(made)
    return made


def build_from_predictions(cfg: Config, path: Path, out: Path, kept: Kept, *, workers: int = 0,
                           say: Callable[[str], None] = print,
                           progress: Callable[[Iterator, int], Iterable] | None = None) -> Header:
    """Write a file of predictions as the cache of a teacher; go on where a killed run stopped.

    Args:
        cfg: From :func:`distilled_by_file`.
        path: The file, see :meth:`Predictions.read`.
        out: Folder of the cache.
        kept: How much: its ``boxes`` are those of an image for a RoI head.
        workers: Processes that load images.
        say: Takes sentences for people.
        progress: Wraps the iterator over images, whose number it is given.

    Raises:
        ValueError: If the file is unfit, or the config compares other rows than RoIs and objects.
    """
    scope = cfg.get('default_scope') or 'mmdet'
    init_default_scope(scope)
    views = views_of_config(cfg)[0]
    dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
    names = check_label_names(dataset, allow_missing=bool(cfg.get('allow_missing_classes'))).of_objects
    if names is None:
        raise ValueError('`--predictions` needs a training data set whose classes have names.')
    ids = ids_of(dataset)
    predictions = Predictions.read(path, categories_of(dataset), len(names), ids)
    aligners = [aligner_of(name, one) for name, one in cfg.model.alignments.items()]
    parts = {name_of(aligner): predictions.info(aligner) for aligner in aligners}
    student = build_model(cfg)
    for name, one in cfg.model.alignments.items():  # what could not be trained is refused before it is written
        build_alignment(name, asking_cache(name, one)).check(student, CacheModel(parts, {}))
    header = Header(str(path), '', digest_of_file(path), '', list(map(str, names)), None, views.fixed, views.choices,
                    len(ids), digest_of_images(ids), parts, written_by=__version__)
    begin(out, header, {})
    with locked(out / '.lock', lambda pid: ValueError(f'`--out` needs a folder of its own; process {pid} writes to '
                                                      f'{out}.')):
        write(out, header, ViewData(dataset, views.pipelines, scope),
              lambda samples: predictions.records(samples, aligners, kept.boxes), workers, say, progress)
    return header


def aligner_of(name: str, cfg: Mapping[str, Any]) -> RoIAligner | ObjectAligner:
    """That of an alignment's config.

    Raises:
        ValueError: If it pairs what a file of boxes does not have.
    """
    aligner = build_alignment(name, cfg).aligner  # type: ignore[arg-type]  # a ConfigDict
    if type(aligner) not in (RoIAligner, ObjectAligner):
        raise ValueError(f'`alignments.{name}` pairs by a {type(aligner).__name__}, and a file of predictions has '
                         'boxes only; take a RoIAligner or an ObjectAligner.')
    return aligner  # type: ignore[return-value]


def name_of(aligner: RoIAligner | ObjectAligner) -> str:
    """Name of the part that the aligner asks."""
    return roi_name(aligner) if isinstance(aligner, RoIAligner) else object_name(aligner)


def categories_of(dataset: Any) -> dict[int, int]:
    """The label of each ``category_id`` of a COCO data set.

    Raises:
        ValueError: If the data set is of another kind.
    """
    found: dict[int, int] = {}
    for leaf in leaves(dataset):
        if not isinstance(getattr(leaf, 'cat2label', None), dict) or not hasattr(leaf, 'cat_ids'):
            raise ValueError(f'`--predictions` needs training data in COCO format, which number categories and images; '
                             f'{type(leaf).__name__} does not.')
        found.update(leaf.cat2label)
    return found
