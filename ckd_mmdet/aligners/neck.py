from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.samples import AlignedMaps, Widths
from ckd_mmdet.taps import ModuleTap
from mmdet.models.backbones.csp_darknet import Focus
from mmdet.structures.bbox import get_box_tensor
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
    Widths may differ: a loss brings its own projection. Both models are shown one image of zeros before training, to
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

    provides = frozenset({'maps', 'boxes'})

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
        strides = _strides(ours), _strides(theirs)
        if len(ours) != len(theirs) or strides[0] != strides[1] and not self.resize:
            raise ValueError(f'`NeckAligner` needs levels of the teacher with the strides that the student has, '
                             f'{strides[0]}, got {strides[1]}; {_way_out(*strides)}.')
        return Widths(*(tuple(level.shape[1] for level in levels) for levels in (ours, theirs)))

    def rows_in_words(self, student: nn.Module) -> str:
        return 'none: feature maps are compared as a whole'

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
        return AlignedMaps(student, [level.detach() for level in answer], *_objects(data_samples))


@dataclass(frozen=True)
class EqualLevels:
    """Levels of two models that have the same stride, from the finest to the coarsest."""

    student: list[int]
    teacher: list[int]
    strides: list[int]
    all_in_order: bool
    """Whether these are all levels of both, in their own order."""


def equal_strides(student: nn.Module, teacher: nn.Module) -> EqualLevels:
    """The levels of both models that have the same stride.

    Raises:
        ValueError: If there is none, or a model has no maps to look at.
    """
    ours, theirs = _strides(_probe(student, NeckAligner())), _strides(_probe(teacher))
    pairs = _equal(ours, theirs)
    if not pairs:
        raise ValueError(f'`NeckAligner` needs levels of equal stride; those of the student have the strides {ours}, '
                         f"the teacher's {theirs}; {_way_out(ours, theirs)}.")
    levels = [level for level, _ in pairs]
    of_teacher = [level for _, level in pairs]
    return EqualLevels(levels, of_teacher, [ours[level] for level in levels],
                       levels == list(range(len(ours))) and of_teacher == list(range(len(theirs))))


def _equal(ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """Level of the student and level of the teacher, by ascending stride; of equal strides in turn."""
    left, pairs = list(enumerate(theirs)), []
    for level, stride in sorted(enumerate(ours), key=lambda one: one[1]):
        found = next((one for one in left if one[1] == stride), None)
        if found is not None:
            left.remove(found)
            pairs.append((level, found[0]))
    return pairs


def _way_out(ours: Sequence[int], theirs: Sequence[int]) -> str:
    """Levels that can be paired, as the command takes them."""
    key = '--cfg-options model.alignments.neck.aligner'
    pairs, resize = _equal(ours, theirs), ''
    if not pairs:  # the nearest, by their ratio
        nearest = min(((a, b) for a in range(len(ours)) for b in range(len(theirs))),
                      key=lambda pair: max(ours[pair[0]], theirs[pair[1]]) / min(ours[pair[0]], theirs[pair[1]]))
        pairs, resize = [nearest], ' model.alignments.neck.aligner.resize=True'
    levels, teacher_levels = (','.join(str(pair[side]) for pair in pairs) for side in range(2))
    return (f'pair others with `{key}.levels=[{levels}] model.alignments.neck.aligner.teacher_levels='
            f'[{teacher_levels}]{resize}`')


def _objects(data_samples: Sequence[BaseDataElement]) -> tuple[list[Tensor], tuple[int, int]] | tuple[None, None]:
    """Boxes of each image, and height and width of the padded batch; ``None`` of images that are classified."""
    if not data_samples or not all('gt_instances' in sample for sample in data_samples):
        return None, None
    height, width = data_samples[0].metainfo['batch_input_shape']  # the images' own sizes may be smaller
    return [get_box_tensor(sample.gt_instances.bboxes) for sample in data_samples], (height, width)


def _strides(levels: Sequence[Tensor]) -> list[int]:
    return [PROBE // level.shape[-1] for level in levels]


def features_of(model: nn.Module) -> ModuleTap:
    """Records what leaves the neck, or the backbone where there is no neck, or one that leaves no maps.

    Raises:
        ValueError: If the model has neither.
    """
    has_neck = isinstance(getattr(model, 'neck', None), nn.Module) and not is_classifier(model)
    if not has_neck and not isinstance(getattr(model, 'backbone', None), nn.Module):
        inner = [name for name, part in model.named_children() if hasattr(part, 'backbone')]
        way_out = (f'distil the detector inside it (`{inner[0]}`), by its own config' if inner else
                   'give a detector with a `backbone`')
        raise ValueError(f'distillation needs models with a neck or a backbone of their own, and a '
                         f'{type(model).__name__} has none; {way_out}.')
    return ModuleTap(model.neck if has_neck else model.backbone, 'neck' if has_neck else 'backbone')


def is_classifier(model: nn.Module) -> bool:
    """Whether a model is MMPretrain's ``ImageClassifier``; it need not be installed to ask."""
    return any(kind.__name__ == 'ImageClassifier' and kind.__module__.startswith('mmpretrain.')
               for kind in type(model).__mro__)


def extract_maps(model: nn.Module, inputs: Tensor) -> Sequence[Tensor]:
    """Features that :func:`features_of` records for inputs ``(N, 3, h, w)``, one ``(N, d, h', w')`` a level."""
    return model.extract_feat(inputs, stage='backbone') if is_classifier(model) else model.extract_feat(inputs)


def levels_of(output: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The levels of a model's features, one ``(N, d, h, w)`` each; a single tensor is one level."""
    return [output] if isinstance(output, Tensor) else list(output)


def input_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: 3, of gray ones 1.

    The convolution that sees the image is the one with the fewest inputs; it need not be the first that is registered.
    """
    parts = list(model.backbone.modules())
    focus = [part.conv.conv for part in parts if isinstance(part, Focus)]  # takes four pixels for one
    inputs = [part.in_channels // (4 if part in focus else 1) for part in parts if isinstance(part, nn.Conv2d)]
    return min(inputs, default=3)


@torch.no_grad()
def _probe(model: nn.Module, aligner: NeckAligner | None = None) -> list[Tensor]:
    """Features of an image of zeros; of the student, whether they are recorded is checked too."""
    recorded_at = features_of(model)  # there is something to be recorded
    parameter = next(model.parameters())
    image = torch.zeros(1, input_channels(model), PROBE, PROBE, device=parameter.device, dtype=parameter.dtype)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            if aligner is None:
                return _maps(levels_of(extract_maps(model, image)), 'teacher')
            with aligner.listen(model) as tape:
                features = levels_of(extract_maps(model, image))
    except RuntimeError as error:
        raise ValueError(f'`NeckAligner` needs models that take images of {PROBE}x{PROBE} pixels, and the '
                         f'{type(model).__name__} takes none: {error}; take a method of rows, such as '
                         '`--method kd`.') from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    recorded = levels_of(tape.calls[0].output) if len(tape.calls) == 1 else []
    if [id(level) for level in recorded] != [id(level) for level in features]:
        raise ValueError(f'`NeckAligner` needs a student whose features leave its {recorded_at.name}, called once; '
                         f'those of the {type(model).__name__} do not; take a method of rows, such as `--method kd`.')
    return _maps(features, 'student')


def _maps(levels: list[Tensor], side: str) -> list[Tensor]:
    if any(level.ndim != 4 for level in levels):
        raise ValueError(f"`NeckAligner` needs maps of shape (N, d, h, w), the {side}'s features have shapes "
                         f'{[tuple(level.shape) for level in levels]}; take a method of rows, such as `--method kd`.')
    return levels


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
