"""What a detector is asked, one function each: a step, the rows, their confidence, gradient, silence."""

from __future__ import annotations

import copy
import random
import tempfile
from contextlib import ExitStack, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import cast

import ckd_mmdet.aligners  # noqa: F401  registers them
import numpy as np
import torch
from ckd_mmdet.aligners import Aligner
from ckd_mmdet.auto import distill_config
from ckd_mmdet.choice import Choice, choose_alignment
from ckd_mmdet.registry import TASK_UTILS, build_part
from ckd_mmdet.samples import Answer
from mmcv.cnn.bricks import DropPath
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from .boxes import gives_boxes, unlike_boxes
from .confidence import Heads, unlike_predict
from .shrink import made_up_batch, toy_model

CLOSE = 1e-5
"""Rows are called equal within this where sums are taken in another order."""
LEAST_SPREAD = 1e-3
"""Rows that differ by less, of their greatest number, would hide a wrong pairing."""
LEARNING_RATE = 1e-4
KD_ONLY = 'KD only'
AT_REST = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd, DropPath, nn.MultiheadAttention)


class Failed(RuntimeError):
    """A check found something else than it should."""


def chosen(student: nn.Module, teacher: nn.Module) -> Choice:
    """The alignment that suits both.

    Raises:
        Failed: If there is none.
    """
    try:
        return choose_alignment(student, teacher)
    except ValueError as error:  # each aligner's refusal is a line; the last is of the one that takes most
        raise Failed(str(error).splitlines()[-1]) from error


def scoring_head(model: nn.Module) -> nn.Module:
    """The head that scores a detector's boxes."""
    return next(head for name in ('roi_head', 'bbox_head', 'rpn_head')
                if (head := getattr(model, name, None)) is not None)


def step_alone(model: nn.Module) -> dict[str, list[float]]:
    """One training step without a teacher; gives its losses, as flat lists.

    Raises:
        Failed: If the loss or a gradient is not finite.
    """
    losses = forward(model)
    _learn(model, losses)
    return flat(losses)


def identity(student: nn.Module, teacher: nn.Module, choice: Choice) -> str:
    """Compare all rows of student and teacher, a copy of it in the evaluation mode.

    Returns:
        ``'equal'``, or ``'within 1e-05'`` where sums were taken in another order.

    Raises:
        Failed: If there are no rows, if they differ, or if each is like the next, so that a wrong pairing would not
            be seen.
    """
    student = copy.deepcopy(student)
    _rest(student)
    found = set()
    for answer in listened(student, teacher, choice)[1]:
        ours, theirs = _rows(answer)
        if not len(ours):
            raise Failed('there are no rows')
        gap = (ours - theirs).abs().max().item()
        spread = (ours - ours.roll(1, 0)).abs().max().item()
        if len(ours) > 1 and spread <= LEAST_SPREAD * ours.abs().max().item():
            raise Failed('all rows are alike')
        if not gap:
            found.add('equal')
        elif gap <= CLOSE and gap <= 0.01 * spread:
            found.add(f'within {CLOSE:g}')
        else:
            raise Failed(f'of {len(ours)} rows of student and teacher, numbers differ by up to {gap:.2g}')
    return max(found)  # the weaker word of two


def confidence(student: nn.Module, teacher: nn.Module, choice: Choice) -> None:
    """Compare the confidence of the teacher's rows with the scores that it predicts.

    Raises:
        Failed: If they differ.
    """
    with Heads(teacher, _aligners(choice)) as heads:
        _, answers = listened(copy.deepcopy(student), teacher, choice)  # DDOD counts its steps
        samples = _batch(student)['data_samples']
        for answer, tap in zip(answers, heads.taps, strict=True):
            differs = unlike_predict(answer, tap, samples)
            if differs:
                raise Failed(differs)


def boxes(student: nn.Module, teacher: nn.Module, choice: Choice) -> str:
    """Compare the boxes of all rows of student and teacher, a copy of it, with each other and with the predicted ones.

    Returns:
        ``'equal'``, or ``'no'`` where one cannot decode them and says so.

    Raises:
        Failed: If they differ.
    """
    aligners, student = _aligners(choice), copy.deepcopy(student)
    if not all(gives_boxes(aligner, student, teacher) for aligner in aligners):
        return 'no'
    _rest(student)
    with Heads(teacher, aligners) as heads:
        _, answers = listened(student, teacher, choice)
    metas = [sample.metainfo for sample in _batch(student)['data_samples']]
    for answer, tap, aligner in zip(answers, heads.taps, aligners, strict=True):
        differs = unlike_boxes(answer, tap, aligner.scorings(student, teacher)[1].num_classes, metas)
        if differs:
            raise Failed(differs)
    return 'equal'


def silence(alone: dict[str, list[float]], recorded: dict[str, list[float]]) -> None:
    """Compare the losses of a student alone with those of the same student recorded, to the last bit.

    Raises:
        Failed: If they differ.
    """
    different = [key for key in alone.keys() | recorded.keys() if alone.get(key) != recorded.get(key)]
    if different:
        raise Failed(f'listening changes {", ".join(sorted(different))}')


def gradient(student: nn.Module, teacher: nn.Module, answers: list[Answer]) -> None:
    """Differentiate the student's rows.

    Raises:
        Failed: If that does not reach the student's backbone, or does reach the teacher.
    """
    for answer in answers:
        ours, theirs = _rows(answer)
        if theirs.requires_grad:
            raise Failed("the teacher's rows carry gradient")
        student.zero_grad()
        (ours * torch.randn_like(ours)).sum().backward(retain_graph=True)
        if not any(part.grad is not None and part.grad.abs().max() > 0 for part in student.backbone.parameters()):
            raise Failed("the student's rows give its backbone no gradient")
    if any(part.grad is not None for part in teacher.parameters()):
        raise Failed('the teacher has gradient')


def crossed_heads(student: nn.Module, teacher: nn.Module, choice: Choice) -> str:
    """Cross the heads before their last layer: the same rows with a copy of the student, and gradient.

    Returns:
        ``'yes'``; ``'no'`` where the aligner refuses; ``'-'`` where it pairs no anchors.

    Raises:
        Failed: As :func:`identity` and :func:`gradient`.
    """
    if any(aligner['type'] != 'DenseAligner' for aligner in choice.aligners.values()):
        return '-'
    choice = replace(choice, aligners={name: {**aligner, 'through': -1} for name, aligner in choice.aligners.items()})
    try:
        for aligner in _aligners(choice):
            aligner.scorings(student, teacher)
    except ValueError:
        return 'no'
    student = copy.deepcopy(student)
    identity(student, teacher, choice)
    gradient(student, teacher, listened(student, teacher, choice)[1])
    return 'yes'


def distilled_step(config: ConfigDict) -> str:
    """One training step of a distilled student, whose alignment is chosen by ``distill_config``.

    Returns:
        ``'yes'``, or :data:`KD_ONLY` where CKD makes no sense.

    Raises:
        Failed: If the loss or a gradient is not finite, if no row was distilled, or the teacher has changed.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / 'teacher.pth'
        torch.save(dict(state_dict=toy_model(config, seed=1).state_dict()), checkpoint)
        plain = Config(dict(model=config, default_scope='mmdet'))
        with redirect_stdout(StringIO()):  # it says what it chose: the table will
            try:
                method, made = 'ckd', distill_config(plain, plain, 'ckd', teacher_checkpoint=checkpoint)
            except ValueError as error:
                if '`--method kd`' not in str(error) or 'no recipe' in str(error):
                    raise
                method, made = 'kd', distill_config(plain, plain, 'kd', teacher_checkpoint=checkpoint)
        distilled = MODELS.build(made.model)
    distilled.load_state_dict(toy_model(config).state_dict(), strict=False)  # DDQ adds a second name for some
    distilled.distillation.pair(distilled, None)
    distilled.train()
    teacher = distilled.distillation.teachers[None].model
    before = copy.deepcopy(teacher.state_dict())
    losses = forward(distilled)
    _learn(distilled, losses)
    if not any(float(value) for key, value in losses.items() if key.endswith('.rows')):
        raise Failed('no row was distilled')
    after = teacher.state_dict()
    if any(not torch.equal(value, after[key]) for key, value in before.items()):
        raise Failed('the step has changed the teacher')
    return 'yes' if method == 'ckd' else KD_ONLY


def forward(model: nn.Module) -> dict:
    """Losses of a step on the made-up batch; the same model always draws the same random numbers."""
    data = _batch(model)
    _seed()
    return model(**data, mode='loss')


def listened(student: nn.Module, teacher: nn.Module, choice: Choice) -> tuple[dict[str, list[float]], list[Answer]]:
    """Losses of a recorded step, and what the teacher answered to each alignment."""
    aligners = _aligners(choice)
    data = _batch(student)
    _seed()
    with ExitStack() as listening:
        tapes = [listening.enter_context(aligner.listen(student)) for aligner in aligners]
        losses = student(**data, mode='loss')
    with torch.no_grad():
        feats = teacher.extract_feat(data['inputs'])
    answers = [aligner.ask(teacher, feats, tape, data['data_samples'])
               for aligner, tape in zip(aligners, tapes, strict=True)]
    return flat(losses), cast(list[Answer], answers)  # a choice is of rows, never of maps


def _aligners(choice: Choice) -> list[Aligner]:
    return [build_part(TASK_UTILS, cfg, Aligner, '`aligner`') for cfg in choice.aligners.values()]


def flat(losses: dict) -> dict[str, list[float]]:
    """Losses as numbers; some heads give one a level."""
    return {key: [float(part) for part in (value if isinstance(value, list) else [value])]
            for key, value in losses.items()}


def _rows(answer: Answer) -> tuple[Tensor, Tensor]:
    every = torch.arange(len(answer.student))
    return answer.student.take(every).float(), answer.teacher.take(every).float()


def _rest(model: nn.Module) -> None:
    """Leave the training mode in BatchNorm and dropout only, so that features are as in the evaluation mode."""
    for part in model.modules():
        if isinstance(part, AT_REST):
            part.eval()


def _learn(model: nn.Module, losses: dict) -> None:
    optimizer = torch.optim.SGD([part for part in model.parameters() if part.requires_grad], lr=LEARNING_RATE)
    total, _ = model.parse_losses(losses)
    if not total.isfinite():
        raise Failed(f'the loss is {total.item()}')
    total.backward()
    gradients = [part.grad for part in model.parameters() if part.grad is not None]
    if not all(part.isfinite().all() for part in gradients):
        raise Failed('a gradient is not finite')
    optimizer.step()


def _batch(model: nn.Module) -> dict:
    return model.data_preprocessor(made_up_batch(model), True)


def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
