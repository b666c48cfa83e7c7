"""What two models' preprocessing makes of an image, compared on real pixels, and the way from one to the other."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from ckd_mmdet.loading import Loading
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

TOLERANCE = 1e-3
"""Of the sample's standard deviation: under a tenth of a grey level, and above what float32 rounds away."""
SIZES = ((40, 56), (24, 70))
"""Heights and widths of the sample: one batch, in which each image is padded."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to the pixels of an image before the network sees them."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    swaps_channels: bool
    pad_value: float
    pad_size_divisor: int

    @classmethod
    def of(cls, preprocessor: BaseDataPreprocessor) -> Preprocessing:
        """Read the settings of a data preprocessor of mmengine, mmdet or mmpretrain.

        Raises:
            ValueError: If it is of another kind.
        """
        of_classifier = _is_of_classifier(preprocessor)
        if not of_classifier and not isinstance(preprocessor, ImgDataPreprocessor):
            raise ValueError('distillation needs models with an `ImgDataPreprocessor`, a `DetDataPreprocessor` or a '
                             f'`ClsDataPreprocessor`, got {type(preprocessor).__name__}.')
        swaps = preprocessor.to_rgb if of_classifier else preprocessor._channel_conversion
        mean: tuple[float, ...] = (0.0,) * 3
        std: tuple[float, ...] = (1.0,) * 3
        if preprocessor._enable_normalize:
            mean, std = (tuple(x.flatten().tolist()) for x in (preprocessor.mean, preprocessor.std))
        return cls(mean, std, bool(swaps), preprocessor.pad_value, preprocessor.pad_size_divisor)

    def after(self, loading: Loading) -> Preprocessing:
        """Both steps as one, from an image in BGR."""
        mean, std = loading.mean, loading.std
        if self.swaps_channels:
            mean, std = mean[::-1], std[::-1]
        own = [part if len(part) == 3 else part * 3 for part in (self.mean, self.std)]
        return replace(self, swaps_channels=self.swaps_channels != loading.is_rgb,
                       mean=tuple(m + s * own_m for m, s, own_m in zip(mean, std, own[0], strict=True)),
                       std=tuple(s * own_s for s, own_s in zip(std, own[1], strict=True)))

    def __str__(self) -> str:
        order = 'the channels swapped' if self.swaps_channels else 'the channels as read'
        return f'mean {_round(self.mean)}, std {_round(self.std)}, {order}, pad value {self.pad_value:g}'


class Renormalize(nn.Module):
    """Turns the student's normalised inputs into the teacher's: one factor and one shift a channel.

    Padding, which is added after normalisation, becomes the teacher's own pad value.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, student: Preprocessing, teacher: Preprocessing) -> None:
        super().__init__()
        self.flip = student.swaps_channels != teacher.swaps_channels
        self.pad_value = teacher.pad_value
        mean, std = torch.tensor(student.mean), torch.tensor(student.std)
        if self.flip:
            mean, std = mean.flip(0), std.flip(0)
        self.register_buffer('factor', (std / torch.tensor(teacher.std))[:, None, None])
        self.register_buffer('shift', ((mean - torch.tensor(teacher.mean)) / torch.tensor(teacher.std))[:, None, None])

    def forward(self, inputs: Tensor, img_shapes: Sequence[tuple[int, int]]) -> Tensor:
        """From ``(N, 3, h, w)`` to the same shape; ``img_shapes`` are the images' own heights and widths."""
        out: Tensor = (inputs.flip(1) if self.flip else inputs) * self.factor + self.shift
        for image, (height, width) in zip(out, (shape[:2] for shape in img_shapes), strict=True):
            image[:, height:] = self.pad_value
            image[:, :, width:] = self.pad_value
        return out


def renormalization(student: BaseDataPreprocessor, teacher: BaseDataPreprocessor, name: str,
                    loadings: tuple[Loading, Loading] | None = None, check: bool = True) -> Renormalize | None:
    """What turns the student's inputs into the teacher's; ``None`` where they are equal.

    It follows from the settings of both preprocessors and, where they differ, of what the pipelines make of an image
    before. Then both preprocessors are run on a small batch of noise, and the results are compared.

    Args:
        student: The student's data preprocessor.
        teacher: The teacher's own.
        name: The teacher's, for errors.
        loadings: Of student and teacher, where they are known.
        check: Whether to run both.

    Raises:
        ValueError: If the teacher cannot be fed from the student's inputs, or would see other pixels than by its own
            preprocessor.
    """
    ours, theirs = check_feeding(student, teacher, name, check)
    if loadings is not None and loadings[0] != loadings[1]:
        ours, theirs = ours.after(loadings[0]), theirs.after(loadings[1])
    if ours == theirs:
        return None
    print_log(f'The teacher ({name}) was trained on inputs with {theirs}, the student gets {ours}: its inputs are '
              'renormalised on the device.', logger='current')
    return Renormalize(ours, theirs)


def check_feeding(student: BaseDataPreprocessor, teacher: BaseDataPreprocessor, name: str, check: bool = True,
                  at: str = 'data_preprocessor') -> tuple[Preprocessing, Preprocessing]:
    """What both preprocessors do, where the teacher can be fed from the student's inputs.

    Args:
        student: The student's data preprocessor.
        teacher: The teacher's own.
        name: The teacher's, for errors.
        check: Whether to run both.
        at: Where the config to be mended keeps the student's.

    Raises:
        ValueError: If the teacher cannot be fed from the student's inputs, or would see other pixels than by its own
            preprocessor.
    """
    settings = ours, theirs = Preprocessing.of(student), Preprocessing.of(teacher)
    if ours.pad_size_divisor % theirs.pad_size_divisor:
        both = math.lcm(ours.pad_size_divisor, theirs.pad_size_divisor)
        raise ValueError(f'the teacher ({name}) needs inputs padded to a multiple of {theirs.pad_size_divisor}, the '
                         f"student's are padded to {ours.pad_size_divisor}; set the student's padding to a multiple of "
                         f'both, with `--cfg-options {at}.pad_size_divisor={both}`.')
    if check:
        _check_pixels(student, teacher, Renormalize(*settings) if ours != theirs else None, name)
    return settings


def _check_pixels(student: BaseDataPreprocessor, teacher: BaseDataPreprocessor, renormalize: Renormalize | None,
                  name: str) -> None:
    """Refuse preprocessors that do other than their settings say: a subclass may have a ``forward`` of its own."""
    kinds = f"the student's {type(student).__name__} and the teacher's ({name}) {type(teacher).__name__}"
    way_out = ('Give both models preprocessors that only swap channels, normalise and pad, or, if the teacher shall be '
               'fed with what the settings alone say (`mean`, `std`, channels, padding), set '
               '`teacher.check_preprocessing=False`.')
    for training in (False, True):
        ours, theirs = (_run(each, training, kinds, way_out) for each in (student, teacher))
        sizes = list(SIZES) * (len(ours) // len(SIZES))
        seen = ours if renormalize is None else renormalize(ours, sizes)
        wanted = theirs[:len(SIZES)].repeat(len(ours) // len(SIZES), 1, 1, 1)  # of views, equal ones
        height, width = wanted.shape[2:]  # the student's may be padded further
        phase = 'training' if training else 'testing'
        fit = seen.shape[1] == wanted.shape[1] and seen.shape[2] >= height and seen.shape[3] >= width
        difference = float((seen[..., :height, :width] - wanted).abs().max()) if fit else float('nan')
        if not difference <= TOLERANCE * float(wanted.std()):
            unlike = f'differ by up to {difference:.3g}' if fit else f'have shapes {_shape(ours)} and {_shape(wanted)}'
            raise ValueError(f'{kinds} need to make of an image what their settings say, and the inputs that they make '
                             f'in {phase} {unlike}, after the settings were allowed for. {way_out}')


def _run(preprocessor: BaseDataPreprocessor, training: bool, kinds: str, way_out: str) -> Tensor:
    """What it makes of the sample, shape ``(2, 3, h, w)``, of several views ``(2 * views, 3, h, w)``."""
    preprocessor = copy.deepcopy(preprocessor).cpu()
    if hasattr(preprocessor, 'batch_augments'):
        preprocessor.batch_augments = None
    views = getattr(preprocessor, 'views', 1) if training else 1
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in SIZES]
    batch = dict(inputs=[image.expand(views, *image.shape) if views > 1 else image for image in images],
                 data_samples=[_sample(preprocessor, size) for size in SIZES])
    with _same_draws():
        try:
            inputs: Tensor = preprocessor(batch, training)['inputs']
        except Exception as error:  # a user's own code may raise anything; it goes on as the cause
            raise ValueError(f'{kinds} are compared on two images with one box each, and the '
                             f'{type(preprocessor).__name__} cannot read them ({type(error).__name__}: {error}). '
                             f'{way_out}') from error
    return inputs


def _sample(preprocessor: BaseDataPreprocessor, size: tuple[int, int]) -> BaseDataElement:
    """As little as a preprocessor may ask of an image beside its pixels: a label, or a box with a mask."""
    if _is_of_classifier(preprocessor):
        from mmpretrain.structures import DataSample
        return DataSample(metainfo=dict(img_shape=size, num_classes=2)).set_gt_label(0)
    if not any(kind.__name__ == 'DetDataPreprocessor' for kind in type(preprocessor).__mro__):
        return BaseDataElement(metainfo=dict(img_shape=size))
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    objects = InstanceData(bboxes=torch.tensor([[2., 2., 9., 9.]]), labels=torch.tensor([0]),
                           masks=BitmapMasks(np.ones((1, *size), np.uint8), *size))
    return DetDataSample(metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0)),
                         gt_instances=objects, ignored_instances=InstanceData(bboxes=torch.zeros(0, 4)))


@contextmanager
def _same_draws() -> Iterator[None]:
    """The same random numbers each time, taken from nobody else's."""
    states: tuple[Any, Any] = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` would seed the GPUs too
        random.seed(0)
        np.random.seed(0)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


def _is_of_classifier(preprocessor: BaseDataPreprocessor) -> bool:
    return any(kind.__name__ == 'ClsDataPreprocessor' for kind in type(preprocessor).__mro__)


def _shape(inputs: Tensor) -> str:
    return 'x'.join(map(str, inputs.shape))


def _round(values: tuple[float, ...]) -> list[float]:
    return [round(value, 3) for value in values]
