from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedMaps, Widths
from ckd_mmdet.taps import ModuleTap
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from .base import Aligner

PROBE = 512
"""Side in pixels of the image that shows widths and strides: the largest that an SSD512 has a level for."""


@TASK_UTILS.register_module()
class NeckAligner(Aligner):
    """Pairs the feature maps that leave the neck, level by level; those of the backbone where there is no neck.

    Of a classifier, whose neck makes a vector of them, they are the backbone's too, those of its ``out_indices``.
    Widths may differ: a loss brings its own projection. Both models are shown one image of zeros when they meet, to
    see the widths and strides of their levels.

    Args:
        levels: Levels of the student, from 0; all by default.
        teacher_levels: The teacher's levels for them; the same by default. A RetinaNet starts with the stride 8, a
            Faster R-CNN with 4: ``levels=[0, 1, 2, 3], teacher_levels=[1, 2, 3, 4]`` pairs the former with the latter.
        resize: Whether maps of other strides are allowed: the teacher's are brought to the student's height and width,
            averaged where they are larger, interpolated where they are smaller.

    Raises:
        ValueError: If the lists are of different lengths, or empty.
    """

    provides = frozenset({'maps'})

    def __init__(self, levels: Sequence[int] | None = None, teacher_levels: Sequence[int] | None = None,
                 resize: bool = False) -> None:
        if levels is not None and not len(levels):
            raise ValueError('`NeckAligner` needs at least one of `levels`, got none.')
        if teacher_levels is not None and (levels is None or len(levels) != len(teacher_levels)):
            raise ValueError(f'`NeckAligner` needs as many `levels` as `teacher_levels` ({list(teacher_levels)}), got '
                             f'{None if levels is None else list(levels)}.')
        self.levels = levels
        self.teacher_levels = levels if teacher_levels is None else teacher_levels
        self.resize = resize

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        ours = _chosen(_probe(student, self), self.levels, 'student', student)
        theirs = _chosen(_probe(teacher), self.teacher_levels, 'teacher', teacher)
        for side, levels in (('student', ours), ('teacher', theirs)):
            if any(level.ndim != 4 for level in levels):
                raise ValueError(f"`NeckAligner` needs maps of shape (N, d, h, w), the {side}'s features have shapes "
                                 f'{[tuple(level.shape) for level in levels]}; take an aligner of rows.')
        strides = [[PROBE // level.shape[-1] for level in levels] for levels in (ours, theirs)]
        if len(ours) != len(theirs):
            raise ValueError(f'`NeckAligner` needs as many levels of the teacher as of the student, whose strides are '
                             f'{strides[0]}, got {strides[1]}; choose them with `levels` and `teacher_levels`.')
        if strides[0] != strides[1] and not self.resize:
            raise ValueError(f"`NeckAligner` needs a teacher whose levels have the student's strides, {strides[0]}, "
                             f'got {strides[1]}; pair others with `levels` and `teacher_levels`, or set `resize=True`.')
        return Widths(*(tuple(level.shape[1] for level in levels) for levels in (ours, theirs)))

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[ModuleTap]:
        with features_of(student) as tap:
            yield tap

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: ModuleTap,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> AlignedMaps:
        student = _chosen(levels_of(tape.only().output), self.levels, 'student', tape.module)
        answer = _chosen(levels_of(feats), self.teacher_levels, 'teacher', teacher)
        sizes = [[tuple(level.shape[-2:]) for level in levels] for levels in (student, answer)]
        if sizes[0] != sizes[1]:
            if not self.resize:
                raise RuntimeError(f"expected the teacher's maps to have the student's heights and widths, {sizes[0]}, "
                                   f'saw {sizes[1]}; set `resize=True`')
            answer = [_resized(level, size) for level, size in zip(answer, sizes[0], strict=True)]
        return AlignedMaps(student, [level.detach() for level in answer])


def features_of(model: nn.Module) -> ModuleTap:
    """Hears what leaves the neck, or the backbone where there is no neck, or one that leaves no maps."""
    has_neck = isinstance(getattr(model, 'neck', None), nn.Module) and not is_classifier(model)
    return ModuleTap(model.neck if has_neck else model.backbone, 'neck' if has_neck else 'backbone')


def is_classifier(model: nn.Module) -> bool:
    """Whether a model is MMPretrain's ``ImageClassifier``; it need not be installed to ask."""
    return any(kind.__name__ == 'ImageClassifier' and kind.__module__.startswith('mmpretrain.')
               for kind in type(model).__mro__)


def extract_maps(model: nn.Module, inputs: Tensor) -> Sequence[Tensor]:
    """Features that :func:`features_of` would hear of the inputs ``(N, 3, h, w)``, one ``(N, d, h', w')`` a level."""
    return model.extract_feat(inputs, stage='backbone') if is_classifier(model) else model.extract_feat(inputs)


def levels_of(output: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


@torch.no_grad()
def _probe(model: nn.Module, aligner: NeckAligner | None = None) -> list[Tensor]:
    """Features of an image of zeros; of the student, whether they are heard is checked too."""
    parameter = next(model.parameters())
    image = torch.zeros(1, 3, PROBE, PROBE, device=parameter.device, dtype=parameter.dtype)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            if aligner is None:
                return levels_of(extract_maps(model, image))
            with aligner.listen(model) as tape:
                features = levels_of(extract_maps(model, image))
    except RuntimeError as error:
        raise ValueError(f'`NeckAligner` needs models that take images of {PROBE}x{PROBE} pixels, and the '
                         f'{type(model).__name__} takes none: {error}. Take an aligner of rows.') from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    heard = levels_of(tape.calls[0].output) if len(tape.calls) == 1 else []
    if [id(level) for level in heard] != [id(level) for level in features]:
        raise ValueError(f'`NeckAligner` needs a student whose features leave its {tape.name}, called once; those of '
                         f'the {type(model).__name__} do not.')
    return features


def _chosen(levels: list[Tensor], chosen: Sequence[int] | None, side: str, model: nn.Module) -> list[Tensor]:
    if chosen is None:
        return levels
    if not all(0 <= level < len(levels) for level in chosen):
        raise ValueError(f"`NeckAligner` needs levels of the {side}'s {type(model).__name__} from 0 to "
                         f'{len(levels) - 1}, got {list(chosen)}.')
    return [levels[level] for level in chosen]


def _resized(level: Tensor, size: tuple[int, int]) -> Tensor:
    if level.shape[-2] >= size[0] and level.shape[-1] >= size[1]:
        return adaptive_avg_pool2d(level, size)
    return interpolate(level, size, mode='bilinear', align_corners=False)
