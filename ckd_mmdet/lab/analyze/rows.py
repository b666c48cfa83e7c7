"""From configs and checkpoints to rows: what student and teacher say of the same validation images or RoIs."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ckd_mmdet.aligners import RoIAligner
from ckd_mmdet.auto import distill_config
from ckd_mmdet.checkpoints import load_weights, read_checkpoint
from ckd_mmdet.config import DISTILLER, class_names, plain_student, read_config
from ckd_mmdet.distilled import Distilled
from ckd_mmdet.lab.analyze.data import Images, scope_of
from ckd_mmdet.options import merge_options
from ckd_mmdet.pairing import RowPairing
from ckd_mmdet.recipes import RECIPES
from ckd_mmdet.samples import AlignedSamples, Side, hard
from ckd_mmdet.teacher import FrozenTeacher, read_teacher_config
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS
from torch import Tensor, nn

LATE = 1000
"""An epoch for heads that assign their labels otherwise in the first ones (TOOD)."""


@dataclass(frozen=True)
class ImageRows:
    """What one student and its teacher say of all chosen images, on the CPU; rows to be ignored are left out."""

    name: str
    """Of the student, in the pictures."""
    samples: AlignedSamples
    """``image_ids`` count the chosen images."""
    boxes: Tensor | None
    """Of RoIs, shape ``(n, 4)``, in pixels of the input: x1, y1, x2, y2."""

    @property
    def labels(self) -> np.ndarray:
        """Shape ``(n,)``; the number of classes is background."""
        assert self.samples.labels is not None  # rows without are refused
        return self.samples.labels.numpy()

    @property
    def images(self) -> np.ndarray:
        """Which of the images each row is of, shape ``(n,)``."""
        assert self.samples.image_ids is not None  # every aligner gives them
        return self.samples.image_ids.numpy()


@dataclass(frozen=True)
class Taught:
    """Student and teacher, built and paired; the student's weights come with each checkpoint."""

    student: Distilled
    teacher: FrozenTeacher
    pairing: RowPairing
    """Of several, those of a cascade's stages, the last."""
    why: str
    """What pairs them, in words."""

    @property
    def of_images(self) -> bool:
        return self.pairing.scorings[0].of_images

    @property
    def of_rois(self) -> bool:
        return type(self.pairing.alignment.aligner).__name__ == 'RoIAligner'

    def classes(self, names: Sequence[str] | None) -> list[str]:
        """Names of the classes that both know, in the order of the scores; numbers where they have no names.

        Args:
            names: Of all the student's classes.
        """
        shared = [str(i) if names is None else names[i] for i in self.pairing.classes.student]
        return [*shared, 'background'] if self.pairing.background else shared


def open_student(config: str, options: Mapping[str, Any] | None = None) -> tuple[Config, dict[str, Any]]:
    """The plain student's config, and what a distilled one says of its teacher: ``config``, ``checkpoint``...

    Raises:
        ValueError: If it has several teachers.
    """
    cfg = read_config(config)
    merge_options(cfg, options or {})
    teacher: dict[str, Any] = {}
    if cfg.get('model', {}).get('type') == DISTILLER:
        teacher = dict(cfg.model.get('teacher') or {})
        if teacher and 'config' not in teacher:
            raise ValueError(f'`config` needs a student with one teacher, {config} has {", ".join(teacher)}; give its '
                             'plain config, and one of them with `--teacher`.')
        plain_student(cfg)
    return cfg, teacher


def make_pair(student: Config, teacher: str | dict | None, checkpoint: str | None,
              class_map: str | Mapping[str, str] | None = None, device: str = 'cpu') -> Taught:
    """Build student and teacher with the aligner that fits them, every row of it, of dense heads the teacher's best.

    Args:
        student: The plain student's config.
        teacher: Path or name of the teacher's config, or the config itself.
        checkpoint: Its weights; of an ``mmdet::`` config the model zoo's by default.
        class_map: As the Distiller's.
        device: Where they work.

    Raises:
        ValueError: If there is no teacher, or the two cannot be paired.
    """
    if teacher is None:
        raise ValueError('`--teacher` needs the config of the teacher: a plain student names none.')
    given = teacher if isinstance(teacher, str) else read_teacher_config(teacher)
    with scope_of(student):
        with contextlib.redirect_stdout(io.StringIO()):  # it explains how the pair would be trained
            cfg = distill_config(student, given, 'ckd', teacher_checkpoint=checkpoint, loss_weight=0.0,
                                 class_map=class_map)
        for alignment in cfg.model.alignments.values():
            alignment.selector = _selector(alignment.aligner.type)
        model = dict(cfg.model, data_preprocessor=cfg.get('data_preprocessor'))
        distilled = MODELS.build(model).to(device).eval()
    if hasattr(distilled.data_preprocessor, 'views'):
        distilled.data_preprocessor.views = 1  # validation images come in their plain view only
    distillation = distilled.distillation
    distillation.pair(distilled, class_names(student))
    return Taught(distilled, distillation.teachers[None], list(distillation.pairings.values())[-1],
                cfg.distillation.aligner[0])


def listen(pair: Taught, name: str, checkpoint: str, images: Images) -> ImageRows:
    """Load the student's weights, and let both speak of the images; always the same rows for the same weights.

    Their layers are in evaluation mode. RoIs are those that *this* student proposes and samples, with a fixed seed:
    students are not recorded on the same boxes, but each is on the same as its teacher.

    Raises:
        ValueError: If the checkpoint does not fit, or nothing with a label is there.
        RuntimeError: If the student's head gives no labels.
    """
    load_student(pair.student, checkpoint)
    pair.student.training = True  # the detector alone, not its layers: DINO has no loss otherwise
    torch.manual_seed(0)  # the sampling of RoIs draws
    found: list[tuple[AlignedSamples, Tensor | None]] = []
    student = pair.student
    with _at_epoch(LATE), torch.no_grad():
        for first, batch in images.batches():
            data = student.data_preprocessor(batch, training=False)
            with _rois_of(pair) as rois:
                aligned = student.distillation.align(student, student.forward_alone, **data)
            rows = aligned[pair.pairing.alignment.name]
            assert isinstance(rows, AlignedSamples)  # as a RowPairing gives
            found.append(_labelled(rows, rois, first))
    samples = join([part for part, _ in found])
    if not len(samples):
        raise ValueError(f'{name}: none of the {len(images)} images has a row with a label; take more with '
                         '`--batches`, or see that the validation data have annotations.')
    boxes = [part for _, part in found if part is not None]
    return ImageRows(name, samples, torch.cat(boxes) if len(boxes) == len(found) else None)


def join(parts: Sequence[AlignedSamples]) -> AlignedSamples:
    """All rows of the batches, one after the other."""
    def joined(tensors: Sequence[Tensor | None]) -> Tensor | None:
        there = [tensor for tensor in tensors if tensor is not None]
        return torch.cat(there) if len(there) == len(tensors) else None

    sides = [replace(getattr(parts[0], side), logits=torch.cat([getattr(part, side).logits for part in parts]),
                     features=joined([getattr(part, side).features for part in parts]))
             for side in ('student', 'teacher')]
    return replace(parts[0], student=sides[0], teacher=sides[1], labels=joined([part.labels for part in parts]),
                   image_ids=joined([part.image_ids for part in parts]))


def load_student(student: nn.Module, checkpoint: str) -> None:
    """Load a student's weights, of a distilled or a plain training or of ``student.pth``.

    Raises:
        ValueError: If the file cannot be read, or is of another model.
    """
    _, weights = read_checkpoint(checkpoint, 'checkpoint')
    load_weights(student, weights, checkpoint, 'the student of `config`', 'checkpoint')


def names_of(checkpoints: Sequence[str]) -> list[str]:
    """What tells the files apart: their own names, or the folders in which their paths differ."""
    stems = [Path(path).stem for path in checkpoints]
    if len(set(stems)) == len(stems):
        return stems
    paths = [Path(path).with_suffix('').parts[::-1] for path in checkpoints]
    places = range(max(map(len, paths)))
    differing = [i for i in places if len({path[i:i + 1] for path in paths}) > 1]
    return ['/'.join(part for i in reversed(differing) for part in path[i:i + 1]) or stem
            for path, stem in zip(paths, stems, strict=True)]


@contextlib.contextmanager
def _at_epoch(epoch: int) -> Iterator[None]:
    """What the Runner writes down in training, heads may read."""
    hub = MessageHub.get_current_instance()
    before = hub.get_info('epoch')
    hub.update_info('epoch', epoch)
    try:
        yield
    finally:
        hub.runtime_info.pop('epoch')
        if before is not None:
            hub.update_info('epoch', before)


@contextlib.contextmanager
def _rois_of(pair: Taught) -> Iterator[list[Tensor]]:
    """The RoIs of each call of the student's extractor."""
    rois: list[Tensor] = []
    if not pair.of_rois:
        yield rois
        return
    extractor = pair.student.roi_head.bbox_roi_extractor
    if isinstance(extractor, nn.ModuleList):
        aligner = pair.pairing.alignment.aligner
        assert isinstance(aligner, RoIAligner) and aligner.stage is not None  # as `of_rois` says
        extractor = extractor[aligner.stage]
    handle = extractor.register_forward_hook(lambda module, args, output: rois.append(args[1]))
    try:
        yield rois
    finally:
        handle.remove()


def _labelled(samples: AlignedSamples, rois: Sequence[Tensor], first: int) -> tuple[AlignedSamples, Tensor | None]:
    """The rows with a label, on the CPU, and their boxes where these are known."""
    if samples.labels is None:
        raise RuntimeError('analysing needs labels, and this student gives none for its rows; take another detector.')
    labels = hard(samples.labels)
    boxes = next((one[:, 1:5].detach().cpu() for one in reversed(rois) if len(one) == len(samples)), None)
    kept = (labels >= 0).nonzero().squeeze(1)
    samples = samples.select(kept)
    return replace(samples, student=_at_rest(samples.student), teacher=_at_rest(samples.teacher),
                   labels=labels[kept].cpu(), views=None,
                   image_ids=None if samples.image_ids is None else samples.image_ids.cpu() + first
                   ), None if boxes is None else boxes[kept.cpu()]


def _at_rest(side: Side) -> Side:
    return Side(side.logits.detach().float().cpu(),
                None if side.features is None else side.features.detach().float().cpu())


def _selector(aligner: str) -> dict:
    recipe = RECIPES.get(aligner, {}).get('kd')  # KD learns from every row, of dense heads from the teacher's best
    return copy.deepcopy(recipe.selector) if recipe is not None and recipe.selector else dict(type='All')
