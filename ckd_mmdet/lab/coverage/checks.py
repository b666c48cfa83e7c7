"""What a family is asked: a step alone, the same rows, their confidence, gradient, silence, a distilled step."""

from __future__ import annotations

import copy
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import ckd_mmdet.aligners  # noqa: F401  registers them
from ckd_mmdet.auto import distill_config
from mmdet.utils import register_all_modules
from mmengine.logging import MessageHub

from .families import CONFIGS, OUT_OF_SCOPE, model_of, smallest_config
from .probes import (
    KD_ONLY,
    Failed,
    boxes,
    chosen,
    confidence,
    crossed_heads,
    distilled_step,
    gradient,
    identity,
    listened,
    scoring_head,
    silence,
    step_alone,
)
from .shrink import shrunk, toy_model

# Whatever mmdet, torch or we raise is a family's reason. Anything else ends its process, which is one too.
ERRORS = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError,
          ValueError)
FOLDERS = re.compile(r'(?<![\w.])/(?:[\w.+-]+/)+')
LONG = 200
# What some errors mean: by the family and a part of the error's text.
IN_WORDS = {
    ('dyhead', 'offset output dims'): 'its DyHead gives a deformable convolution offsets of another size than what '
                                      "comes out; torchvision's operator, which serves where mmcv has no compiled "
                                      'one, refuses them',
    ('guided_anchoring', 'features.size(0) == 1'): 'in the evaluation mode its head scores chosen places of one image '
                                                   'only, so a teacher in that mode cannot answer for a batch',
    ('tridentnet', 'numbers differ'): 'in the evaluation mode its backbone has one branch of the three that train, so '
                                      'a teacher in that mode has no features for the RoIs of the other two',
}


@dataclass
class Row:
    """What was found of a family. A check is ``'yes'``, something better said in words, or ``''`` if not reached."""

    family: str
    config: str = ''
    detector: str = ''
    head: str = ''
    aligner: str = ''
    plain: str = ''
    """A training step alone."""
    identity: str = ''
    confidence: str = ''
    gradient: str = ''
    silence: str = ''
    step: str = ''
    """A training step with CKD."""
    attach: str = ''
    """The family's whole config, by ``distill_config``."""
    labels: str = ''
    no_labels: str = ''
    """Why there are none."""
    boxes: str = ''
    """Those of the rows: ``'equal'``, or ``'no'`` where they cannot be decoded."""
    crossed: str = ''
    """Whether the heads can be crossed."""
    reason: str = ''
    """Why a check failed."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def passes(self) -> bool:
        others = (self.plain, self.confidence, self.gradient, self.silence, self.step, self.attach)
        return bool(self.identity) and bool(self.boxes) and all(check == 'yes' for check in others)


def check_family(family: str) -> Row:
    """Go through a family's checks, up to the first that fails.

    Raises:
        ValueError: If there is no such family.
    """
    row = Row(family, smallest_config(family))
    if family in OUT_OF_SCOPE:
        row.reason = OUT_OF_SCOPE[family]
        return row
    try:
        prepare()
        for clock in ('epoch', 'iter'):  # the Runner's work; TOOD and BoxInst ask for it
            MessageHub.get_current_instance().update_info(clock, 0)
        _check(row)
    except ERRORS as error:
        text = first_line(error)
        words = (words for (family, part), words in IN_WORDS.items() if family == row.family and part in text)
        row.reason = f'{_next_check(row)}: {next(words, text)}'
    return row


def prepare() -> None:
    """Import all of mmdet, which takes seconds the first time."""
    register_all_modules(init_default_scope=True)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, of a long one the first sentence; of none the line of code that raised it."""
    text = str(error).strip().split('\n')[0] or traceback.extract_tb(error.__traceback__)[-1].line
    text = FOLDERS.sub('', text)  # of this machine
    if len(text) > LONG:
        text = text.partition('. ')[0]
    return text if isinstance(error, Failed) else f'{type(error).__name__}: {text}'


def _next_check(row: Row) -> str:
    checks = dict(plain='a step alone', aligner='choosing an aligner', identity='identity', confidence='confidence',
                  boxes='boxes', crossed='crossed heads', silence='silence', gradient='gradient',
                  step='a step with CKD')
    return next((words for name, words in checks.items() if not getattr(row, name)), 'attaching')


def _check(row: Row) -> None:
    config = shrunk(model_of(row.config))
    student = toy_model(config)
    row.detector, row.head = type(student).__name__, type(scoring_head(student)).__name__
    alone = step_alone(copy.deepcopy(student))
    row.plain = 'yes'

    teacher = copy.deepcopy(student)
    teacher.eval()
    choice = chosen(student, teacher)
    row.aligner = ', '.join(sorted({aligner['type'] for aligner in choice.aligners.values()}))
    row.identity = identity(student, teacher, choice)
    confidence(student, teacher, choice)
    row.confidence = 'yes'
    row.boxes = boxes(student, teacher, choice)
    row.crossed = crossed_heads(student, teacher, choice)

    recorded, answers = listened(student, teacher, choice)
    row.labels = 'no' if any(answer.labels is None for answer in answers) else 'yes'
    row.no_labels = next((answer.no_labels for answer in answers if answer.labels is None), '')
    silence(alone, recorded)
    row.silence = 'yes'
    gradient(student, teacher, answers)
    row.gradient = 'yes'
    row.step = distilled_step(config)
    row.attach = attach(row.config)
    if KD_ONLY in (row.step, row.attach):
        row.reason = 'one class, so that a row has one score and CKD no direction to compare; KDLoss passes'


def attach(config: str) -> str:
    """Whether a user may distil a family's whole config, with the names of its own data set and at its own size.

    Args:
        config: Its path below mmdet's configs.

    Returns:
        ``'yes'``, or :data:`KD_ONLY` where CKD makes no sense.

    Raises:
        Failed: If the command refuses both CKD and KD.
    """
    path, refusals = CONFIGS / config, []  # by `mmdet::` MMEngine finds no name with a plus or a second dot
    with redirect_stdout(StringIO()), _inside(CONFIGS.parent):  # LD names its teacher's config from there
        for method, found in (('ckd', 'yes'), ('kd', KD_ONLY)):
            try:
                distill_config(path, path, method, teacher_checkpoint='weights.pth')
            except ValueError as error:
                refusals.append(error)
            else:
                return found
    raise Failed(str(refusals[0])) from refusals[0]


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
