"""What distillation costs: seconds a training step, memory and checkpoint sizes, of several ways to train one student.

The variants are functions of the same signature, from a batch to losses: :func:`alone`, :func:`distilled`,
:func:`floor` and, for RoI heads, :func:`released_order`. Everything else of a step (preprocessing, backward,
optimizer) is the same.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from ckd_mmdet.aligners import Aligner, DenseAligner
from ckd_mmdet.config import DISTILLER, read_config
from ckd_mmdet.distillation import LOGGED
from ckd_mmdet.distilled import distil
from ckd_mmdet.rows import SOFTMAX, TableRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from ckd_mmdet.teacher import FrozenTeacher, build_model, read_teacher_config
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModule
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

PROPOSALS = ('trained', 'fixed')
FIXED_PROPOSALS = 1000
"""Number an image, as many as Faster R-CNN's RPN gives at most; enough for 512 sampled RoIs."""
BOXES = 8
"""Ground-truth boxes an image: COCO's mean is 7.3."""
MEMORY_STEPS = 2
"""The first makes the optimizer's state, the second holds it throughout."""

Losses = dict[str, Tensor]


# The four variants


def alone(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The student's own training."""
    return getattr(student, 'forward_alone', student)(inputs, data_samples, mode='loss')


def distilled(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The distilled training."""
    return student(inputs, data_samples, mode='loss')


def floor(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """The student's training, and the teacher's class scores for the same rows, unused: less cannot be paid."""
    aligner = _aligner(student)
    if isinstance(aligner, DenseAligner):
        losses = alone(student, inputs, data_samples)
        with torch.no_grad():
            head = _teacher(student).model.get_submodule(aligner.head)
            head(_teacher(student).extract_feat(inputs, data_samples))
        return losses
    with ModuleTap(student.roi_head.bbox_roi_extractor, 'bbox_roi_extractor') as extractor:
        losses = alone(student, inputs, data_samples)
    _teacher_logits(student, inputs, data_samples, extractor.only().arg(1, 'rois'))
    return losses


def released_order(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement]) -> Losses:
    """As CKD was released: the student's head scores its sampled proposals a second time, for the same losses.

    RoIs are pooled from the student's features and pass its head twice, both times with gradient.
    """
    head = student.roi_head
    with ModuleTap(head.bbox_roi_extractor, 'bbox_roi_extractor') as extractor, \
            ModuleTap(head.bbox_head.loss_cls, 'loss_cls') as targets:
        losses = dict(alone(student, inputs, data_samples))
    feats, rois = extractor.only().arg(0, 'feats'), extractor.only().arg(1, 'rois')
    ours = head._bbox_forward(feats, rois)['cls_score']
    theirs = _teacher_logits(student, inputs, data_samples, rois)
    answer = Answer(TableRows(ours, SOFTMAX), TableRows(theirs, SOFTMAX), targets.only().arg(1, 'label'),
                    rois[:, 0].long())
    for name, pairing in student.distillation.pairings.items():
        aligned = pairing.choose(answer)
        losses.update({f'{name}.{key}': loss for key, loss in pairing.alignment.compare(aligned, epoch=0).items()})
    return losses


@torch.no_grad()
def _teacher_logits(student: nn.Module, inputs: Tensor, data_samples: Sequence[BaseDataElement],
                    rois: Tensor) -> Tensor:
    feats = _teacher(student).extract_feat(inputs, data_samples)
    return _teacher(student).model.roi_head._bbox_forward(feats, rois)['cls_score']


def _teacher(student: nn.Module) -> FrozenTeacher:
    return next(iter(student.distillation.teachers.values()))


def _aligner(student: nn.Module) -> Aligner:
    return next(iter(student.distillation.alignments.values())).aligner


VARIANTS: dict[str, Callable[..., Losses]] = dict(
    alone=alone, distilled=distilled, floor=floor, released_order=released_order)
DENSE_VARIANTS = ('alone', 'distilled', 'floor')
"""CKD was not released for dense heads."""


# What is measured on


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

    def __post_init__(self) -> None:
        if self.batch < 1 or min(self.size) < 32:
            raise ValueError(f'a benchmark needs a `batch` of at least 1 and a `size` of at least 32x32, got '
                             f'{self.batch} and {"x".join(map(str, self.size))}.')
        if self.rounds < 1 or self.warm_up < 0:
            raise ValueError(f'a benchmark needs `rounds` of at least 1 and no negative `warm_up`, got {self.rounds} '
                             f'and {self.warm_up}.')
        if self.proposals not in PROPOSALS:
            raise ValueError(f'`proposals` needs to be one of {PROPOSALS}, got {self.proposals!r}.')
        if self.device.startswith('cuda') and not torch.cuda.is_available():
            raise ValueError(f'`device` is {self.device!r}, but no GPU is here; take `cpu`.')
        if self.amp and not self.device.startswith('cuda'):
            raise ValueError('`amp` needs a GPU; measure without it.')


class Steps:
    """Training steps of each variant, on one student and one batch.

    The optimizer is the config's own at the learning rate 0: it computes as ever, and every step of every variant
    meets the same student.

    Args:
        setting: What is measured on; its teacher's checkpoint is a file.
        with_teacher: Whether to build the teacher; :func:`alone` needs none.

    Raises:
        ValueError: If the config is unfit.
    """

    def __init__(self, setting: Setting, with_teacher: bool = True) -> None:
        cfg = _read(setting)
        init_default_scope('mmdet')
        teacher = {**cfg.model.teacher, 'checkpoint': setting.teacher_checkpoint} if with_teacher else None
        self.student = distil(cfg.model.student, teacher, cfg.model.alignments,
                              cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor'))
        if with_teacher:
            _check_pair(self.student)
            self.student.distillation.pair(self.student, None)
            self.student.distillation.judgements.clear()  # the pictures are made up
        # as in most steps: what is measured for the log is measured when it is logged
        MessageHub.get_current_instance().update_info(LOGGED, False, resumed=False)
        if setting.student_checkpoint:
            load_checkpoint(self.student, setting.student_checkpoint, map_location='cpu', strict=True)
        self.student.to(setting.device).train()
        self.device = torch.device(setting.device)
        self.optimizer = _optimizer(self.student, cfg, setting)
        self.batch = _made_up_batch(self.student, setting)
        if setting.proposals == 'fixed' and hasattr(self.student, 'rpn_head'):
            _fix_proposals(self.student.rpn_head, setting)

    def __call__(self, variant: str, seed: int) -> float:
        """Take one step, forward, backward and optimizer, and give its seconds.

        Of one ``seed`` all variants sample the same RoIs.
        """
        torch.manual_seed(seed)
        self._wait()
        start = time.perf_counter()
        with self.optimizer.optim_context(self.student):
            data = self.student.data_preprocessor(self.batch, training=True)
            losses = VARIANTS[variant](self.student, **data)
        loss, _ = self.student.parse_losses(losses)
        self.optimizer.update_params(loss)
        self._wait()
        return time.perf_counter() - start

    @property
    def variants(self) -> tuple[str, ...]:
        """Names of the variants that there are for such a head."""
        return DENSE_VARIANTS if isinstance(_aligner(self.student), DenseAligner) else tuple(VARIANTS)

    def count_rows(self) -> int:
        """RoIs or anchors of one step that the loss is given, over all images."""
        torch.manual_seed(0)
        data = self.student.data_preprocessor(self.batch, training=True)
        aligned = self.student.distillation.align(self.student, self.student.forward_alone, **data)
        return len(next(iter(aligned.values())))

    def _wait(self) -> None:
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


def _read(setting: Setting) -> Config:
    cfg = read_config(setting.config)
    model = cfg.get('model') or {}
    if model.get('type') != DISTILLER or not model.get('teacher') or not model.get('alignments'):
        raise ValueError(f'a benchmark needs the config of a `{DISTILLER}` with `teacher` and `alignments`, '
                         f'{setting.config} has none; take one of configs/ckd.')
    return cfg


def _check_pair(student: nn.Module) -> None:
    kinds = [type(alignment.aligner).__name__ for alignment in student.distillation.alignments.values()]
    staged = [side for side, model in (('student', student), ('teacher', _teacher(student).model))
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
    boxes = [_random_boxes(seed, setting.size).to(setting.device) for seed in range(setting.batch)]

    def predict_fixed(*args: object, **kwargs: object) -> list[InstanceData]:
        predict(*args, **kwargs)
        return [InstanceData(bboxes=image.clone(), scores=image.new_ones(len(image)),
                             labels=torch.zeros(len(image), dtype=torch.long, device=image.device)) for image in boxes]

    rpn_head.predict_by_feat = predict_fixed


def _random_boxes(seed: int, size: tuple[int, int]) -> Tensor:
    """Boxes ``(n, 4)`` with sides from 8 pixels to the image's own, log-uniform."""
    generator = torch.Generator().manual_seed(seed)
    place, side = torch.rand(2, FIXED_PROPOSALS, 2, generator=generator)
    image = torch.tensor([size[1], size[0]], dtype=torch.float32)
    side = 8 * (image / 8) ** side
    corner = place * (image - side)
    return torch.cat([corner, corner + side], 1)


# Measuring


@dataclass(frozen=True)
class Spread:
    """Median and spread of what the rounds gave."""

    median: float
    min: float
    max: float
    iqr: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = (statistics.quantiles(values, n=4, method='inclusive') if len(values) > 1
                             else [values[0]] * 3)
        return cls(median, min(values), max(values), high - low)


def measure_seconds(steps: Steps, rounds: int, warm_up: int) -> dict[str, list[float]]:
    """Seconds of each variant's steps, one a round, the order rotated from round to round."""
    names = list(steps.variants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in tqdm(range(-warm_up, rounds), 'rounds'):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken = steps(name, seed=turn + warm_up)
            if turn >= 0:
                seconds[name].append(taken)
    return seconds


def measure_memory(setting: Setting, variant: str) -> float:
    """Peak MB that PyTorch allocates in a process that does nothing but a few steps of one variant.

    Weights, gradients and the optimizer's state count, the Python process and its libraries do not. What the process
    holds resident is no measure on the CPU: from run to run it differs by hundreds of MB, as the allocator
    of the C library happens to keep pages.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context('spawn')) as process:
        return process.submit(_peak_memory, setting, variant).result()


def _peak_memory(setting: Setting, variant: str) -> float:
    on_gpu = setting.device.startswith('cuda')
    with nullcontext() if on_gpu else profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        steps = Steps(setting, with_teacher=variant != 'alone')
        for seed in range(MEMORY_STEPS):
            steps(variant, seed)
    peak = torch.cuda.max_memory_allocated(steps.device) if on_gpu else _peak_allocated(profiled)
    return peak / 2**20


def _peak_allocated(profiled: profile) -> int:
    """Bytes; the trace has an event for each block that PyTorch allocates or frees, with the sum since the start."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'trace.json'
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())['traceEvents']
    return max(event['args']['Total Allocated'] for event in events if event['name'] == '[memory]')


def measure_checkpoints(student: nn.Module) -> dict[str, float]:
    """MB of the weights in a checkpoint: the distilled training's, the plain student's, and student with teacher."""
    teacher = {f'teacher.{key}': value for key, value in _teacher(student).model.state_dict().items()}
    learned = {f'{name}.{key}': value for name, state in student.distillation.state().items()
               for key, value in state.items()}
    weights = student.state_dict()
    return dict(distilled=_megabytes({**weights, **learned}), student=_megabytes(weights),
                student_and_teacher=_megabytes({**weights, **teacher}))


def _megabytes(weights: dict[str, Tensor]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'checkpoint.pth')
        torch.save(dict(state_dict=weights), path)
        return os.path.getsize(path) / 2**20


@contextmanager
def _with_teacher_weights(setting: Setting) -> Iterator[Setting]:
    """The setting with a teacher's checkpoint: the given one, or random weights in a file for as long as needed."""
    if setting.teacher_checkpoint:
        yield setting
        return
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / 'random_teacher.pth')
        init_default_scope('mmdet')
        torch.save(build_model(read_teacher_config(_read(setting).model.teacher.config)).state_dict(), path)
        yield dataclasses.replace(setting, teacher_checkpoint=path)


def benchmark(setting: Setting, memory: bool = True) -> dict:
    """Measure everything.

    Returns:
        What the JSON file holds: ``setting``, ``machine``, ``rows`` (of a step), ``seconds`` and ``ratios``
        (a :class:`Spread` each; a ratio is taken within each round), ``peak_memory_mb`` (``None`` unless ``memory``)
        and ``checkpoint_mb``.

    Raises:
        ValueError: If the setting or its config is unfit.
    """
    torch.manual_seed(0)
    with _with_teacher_weights(setting) as filled:
        steps = Steps(filled)
        rows, seconds = steps.count_rows(), measure_seconds(steps, setting.rounds, setting.warm_up)
        checkpoints = measure_checkpoints(steps.student)
        peaks = {name: measure_memory(filled, name) for name in tqdm(steps.variants, 'memory')} if memory else None
    return dict(
        setting=dataclasses.asdict(setting), rows=rows, machine=_machine(torch.device(setting.device)),
        seconds={name: dataclasses.asdict(Spread.of(values)) for name, values in seconds.items()},
        ratios={f'{upper}/{lower}': dataclasses.asdict(Spread.of(_ratios(seconds[upper], seconds[lower])))
                for upper, lower in (('distilled', 'floor'), ('released_order', 'distilled'),
                                     ('distilled', 'alone')) if upper in seconds},
        peak_memory_mb=peaks, checkpoint_mb=checkpoints)


def _ratios(upper: Sequence[float], lower: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(upper, lower, strict=True)]


def _machine(device: torch.device) -> dict:
    name = torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'
    return dict(device=name, threads=torch.get_num_threads(), torch=torch.__version__)


def table(report: dict) -> str:
    """What :func:`benchmark` gave, for people."""
    setting, machine = report['setting'], report['machine']
    peaks = report['peak_memory_mb'] or {}
    rows = f"RoIs ({setting['proposals']} proposals)" if 'released_order' in report['seconds'] else 'anchors'
    lines = [
        f"{setting['config']}: {setting['batch']} images of {setting['size'][0]}x{setting['size'][1]}, "
        f"{report['rows']} {rows}, {'AMP' if setting['amp'] else 'float32'}",
        f"{machine['device']}, {machine['threads']} threads, torch {machine['torch']}, {setting['rounds']} rounds",
        '',
        f'{"seconds a step":24}{"median":>9}{"min":>9}{"max":>9}{"IQR":>9}   peak allocated MB']
    for name, spread in report['seconds'].items():
        peak = f'{peaks[name]:.0f}' if peaks else '-'
        lines.append(_row(name, spread) + f'{peak:>20}')
    lines += ['', f'{"ratio within a round":24}{"median":>9}{"min":>9}{"max":>9}{"IQR":>9}']
    lines += [_row(name, spread) for name, spread in report['ratios'].items()]
    sizes = ', '.join(f'{name} {size:.1f}' for name, size in report['checkpoint_mb'].items())
    return '\n'.join([*lines, '', f'weights in a checkpoint, MB: {sizes}'])


def _row(name: str, spread: dict) -> str:
    return f'{name:24}' + ''.join(f'{spread[key]:9.3f}' for key in ('median', 'min', 'max', 'iqr'))
