"""Training steps of each variant, on one student and one made-up batch."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from ckd_mmdet.config import DISTILLER, read_config
from ckd_mmdet.distillation import LOGGED
from ckd_mmdet.distilled import distil
from ckd_mmdet.registry import build
from ckd_mmdet.teacher import FrozenTeacher
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .from_files import from_files
from .variants import BY_DEFAULT, VARIANTS, teacher_of

PROPOSALS = ('trained', 'fixed')
FIXED_PROPOSALS = 1000
"""Number an image, as many as Faster R-CNN's RPN gives at most; enough for 512 sampled RoIs."""
BOXES = 8
"""Ground-truth boxes an image: COCO's mean is 7.3."""


@dataclass(frozen=True)
class Setting:
    """One pair of models, one made-up batch and the number of rounds.

    It crosses to the processes that measure memory.

    Args:
        config: Config of a Distiller with a ``RoIAligner`` or a ``DenseAligner``.
        teacher_checkpoint: Its weights; random ones by default, and nothing is downloaded.
        student_checkpoint: The same of the student.
        batch: Number of images.
        size: Their height and width in pixels.
        proposals: ``'trained'`` takes what the student's RPN gives, ``'fixed'`` makes it, then puts the same 1000
            boxes an image in its place, so that every step samples the full number of RoIs.
        device: ``'cpu'`` or ``'cuda'``.
        amp: Automatic mixed precision, as MMEngine's ``AmpOptimWrapper`` does it.
        variants: Names in :data:`VARIANTS`, in the order of the table; ``None`` for those of
            :data:`ckd_mmdet.lab.benchmark.variants.BY_DEFAULT` that there are for such a head.
        rounds: Steps that count, of each variant.
        warm_up: Rounds before them.

    Raises:
        ValueError: If an argument is out of its range.
    """

    config: str
    teacher_checkpoint: str | None = None
    student_checkpoint: str | None = None
    batch: int = 2
    size: tuple[int, int] = (256, 384)
    proposals: str = 'trained'
    device: str = 'cpu'
    amp: bool = False
    rounds: int = 15
    warm_up: int = 2
    variants: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.size) < 32:
            raise ValueError(f'a benchmark needs a `batch` of at least 1 and a `size` of at least 32x32, got '
                             f'{self.batch} and {"x".join(map(str, self.size))}.')
        if self.rounds < 1 or self.warm_up < 0:
            raise ValueError(f'a benchmark needs `rounds` of at least 1 and no negative `warm_up`, got {self.rounds} '
                             f'and {self.warm_up}.')
        if self.proposals not in PROPOSALS:
            raise ValueError(f'`proposals` needs to be one of {PROPOSALS}, got {self.proposals!r}.')
        unknown = sorted(set(self.variants or ()) - set(VARIANTS))
        if unknown or self.variants is not None and len(set(self.variants)) != len(self.variants):
            raise ValueError(f'a benchmark needs `variants` of {", ".join(VARIANTS)}, each once, got '
                             f'{", ".join(self.variants or ())}.')
        if self.device.startswith('cuda') and not torch.cuda.is_available():
            raise ValueError(f'`device` is {self.device!r}, but no GPU is here; take `cpu`.')
        if self.amp and not self.device.startswith('cuda'):
            raise ValueError('`amp` needs a GPU; measure without it.')


class Steps:
    """Training steps of each variant, on one student and one batch.

    The optimizer is the config's own at the learning rate 0: it computes as ever, and every step of every variant
    meets the same student.

    Args:
        setting: What is measured on; its teacher's checkpoint is a file. A teacher is built for each speed that its
            variants ask for; for :func:`alone` none is.

    Raises:
        ValueError: If the config is unfit, or there is no such variant for its heads.
    """

    def __init__(self, setting: Setting) -> None:
        cfg = read_distilled(setting)
        init_default_scope('mmdet')
        dense = 'RoIAligner' not in [one.aligner.type.rpartition('.')[2] for one in cfg.model.alignments.values()]
        self.setting, self.variants = setting, _chosen(setting, dense)
        self.kind = 'anchors' if dense else 'RoIs'
        teachers = {name: {**cfg.model.teacher, 'checkpoint': setting.teacher_checkpoint, **VARIANTS[name].speed}
                    for name in self.variants if VARIANTS[name].needs_teacher}
        self.student = distil(cfg.model.student, next(iter(teachers.values()), None), cfg.model.alignments,
                              cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor'))
        self.teachers: dict[str, FrozenTeacher] = {}
        if teachers:
            _check_pair(self.student)
            self.student.distillation.pair(self.student, None)
            self.student.distillation.judgements.clear()  # the pictures are made up
            self._build(teachers, torch.device(setting.device))
        # as in most steps: what is measured for the log is measured when it is logged
        MessageHub.get_current_instance().update_info(LOGGED, False, resumed=False)
        if setting.student_checkpoint:
            load_checkpoint(self.student, setting.student_checkpoint, map_location='cpu', strict=True)
        self.student.to(setting.device).train()
        self.device = torch.device(setting.device)
        self.optimizer = _optimizer(self.student, cfg, setting)
        self.batch = _made_up_batch(self.student, setting)
        self.distillations = dict.fromkeys(self.teachers, getattr(self.student, 'distillation', None))
        if 'cached' in self.variants:
            self.files = tempfile.TemporaryDirectory()  # as long as this lives
            self.distillations['cached'] = from_files(self.student, cfg, self.batch, Path(self.files.name) / 'cache')
        if setting.proposals == 'fixed' and hasattr(self.student, 'rpn_head'):
            _fix_proposals(self.student.rpn_head, setting)

    def __call__(self, variant: str, seed: int) -> float:
        """Take one step, forward, backward and optimizer, and give its seconds.

        Of one ``seed`` all variants sample the same RoIs.
        """
        if variant in self.teachers:
            self.student.distillation = self.distillations[variant]
        if variant in self.teachers and variant != 'cached':
            self.student.distillation.teachers[None] = self.teachers[variant]
        torch.manual_seed(seed)
        self._wait()
        start = time.perf_counter()
        with self.optimizer.optim_context(self.student):
            data = self.student.data_preprocessor(self.batch, training=True)
            losses = VARIANTS[variant].losses(self.student, **data)
        loss, _ = self.student.parse_losses(losses)
        self.optimizer.update_params(loss)
        self._wait()
        return time.perf_counter() - start

    def _build(self, teachers: Mapping[str, Mapping], device: torch.device) -> None:
        """A teacher for each speed; the student has the first already."""
        by_speed = {str(dict(VARIANTS[next(iter(teachers))].speed)): teacher_of(self.student)}
        for name, arguments in teachers.items():
            speed = str(dict(VARIANTS[name].speed))
            if speed not in by_speed:
                by_speed[speed] = build(FrozenTeacher, arguments, '`teacher`')
                by_speed[speed].match_preprocessing(self.student.data_preprocessor)
                by_speed[speed]._apply(lambda tensor: tensor.to(device))
            self.teachers[name] = by_speed[speed]

    def count_rows(self) -> int:
        """RoIs or anchors of one step that the loss is given, over all images."""
        torch.manual_seed(0)
        data = self.student.data_preprocessor(self.batch, training=True)
        aligned = self.student.distillation.align(self.student, self.student.forward_alone, **data)
        return len(next(iter(aligned.values())))

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def _chosen(setting: Setting, dense: bool) -> tuple[str, ...]:
    if setting.variants is None:
        return tuple(name for name in BY_DEFAULT if not dense or name != 'released_order')
    if dense and 'released_order' in setting.variants:
        raise ValueError('CKD was not released for dense heads, so they have no variant `released_order`; leave it out '
                         'of `variants`.')
    return setting.variants


def read_distilled(setting: Setting) -> Config:
    cfg = read_config(setting.config)
    model = cfg.get('model') or {}
    if model.get('type') != DISTILLER or not model.get('teacher') or not model.get('alignments'):
        raise ValueError(f'a benchmark needs the config of a `{DISTILLER}` with `teacher` and `alignments`, '
                         f'{setting.config} has none; take one of configs/ckd.')
    return cfg


def _check_pair(student: nn.Module) -> None:
    kinds = [type(alignment.aligner).__name__ for alignment in student.distillation.alignments.values()]
    staged = [side for side, model in (('student', student), ('teacher', teacher_of(student).model))
              if isinstance(getattr(getattr(model, 'roi_head', None), 'bbox_head', None), nn.ModuleList)]
    if kinds not in (['RoIAligner'], ['DenseAligner']) or staged:
        raise ValueError('a benchmark needs one alignment, with a `DenseAligner`, or with a `RoIAligner` and RoI heads '
                         f'without stages, got {"a staged " + " and ".join(staged) if staged else kinds}; take a '
                         'RetinaNet, a Faster or a Mask R-CNN.')


def _optimizer(model: nn.Module, cfg: Config, setting: Setting) -> OptimWrapper:
    wrapper = dict(cfg.optim_wrapper)
    if setting.amp:
        wrapper.update(type='AmpOptimWrapper', loss_scale=wrapper.get('loss_scale', 'dynamic'))
    optimizer = build_optim_wrapper(model, wrapper)
    for group in optimizer.param_groups:
        group['lr'] = 0.0
    return optimizer


def _made_up_batch(student: nn.Module, setting: Setting) -> dict:
    from mmdet.testing import demo_mm_inputs  # for tests, mmdet says; not needed by whoever only imports this file
    head = student.roi_head.bbox_head if hasattr(student, 'roi_head') else student.bbox_head
    return demo_mm_inputs(setting.batch, (3, *setting.size), num_items=[BOXES] * setting.batch,
                          num_classes=head.num_classes, with_mask=student.with_mask, device=setting.device)


def _fix_proposals(rpn_head: BaseModule, setting: Setting) -> None:
    """Put the same boxes in the place of those that the RPN gives, after it made its own at full cost."""
    predict = rpn_head.predict_by_feat
    boxes = [random_boxes(seed, setting.size).to(setting.device) for seed in range(setting.batch)]

    def predict_fixed(*args: object, **kwargs: object) -> list[InstanceData]:
        predict(*args, **kwargs)
        return [InstanceData(bboxes=image.clone(), scores=image.new_ones(len(image)),
                             labels=torch.zeros(len(image), dtype=torch.long, device=image.device)) for image in boxes]

    rpn_head.predict_by_feat = predict_fixed


def random_boxes(seed: int, size: tuple[int, int]) -> Tensor:
    """Boxes ``(n, 4)`` with sides from 8 pixels to the image's own, log-uniform."""
    generator = torch.Generator().manual_seed(seed)
    place, side = torch.rand(2, FIXED_PROPOSALS, 2, generator=generator)
    image = torch.tensor([size[1], size[0]], dtype=torch.float32)
    side = 8 * (image / 8) ** side
    corner = place * (image - side)
    return torch.cat([corner, corner + side], 1)
