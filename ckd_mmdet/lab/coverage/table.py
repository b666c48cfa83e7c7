"""docs/supported.md, from the rows."""

from __future__ import annotations

import platform
from collections.abc import Sequence

import mmcv
import mmdet
import mmengine
import torch
import torchvision
from ckd_mmdet.text import for_markdown

from .checks import Row
from .families import OUT_OF_SCOPE

COLUMNS = ('family', 'config', 'detector', 'head', 'aligner', 'identity', 'confidence', 'gradient', 'silence', 'step',
           'attach', 'labels', 'boxes', 'crossed')

INTRO = """\
# Supported detectors

Written by `python tools/coverage.py`; do not edit. Of each config family of the installed mmdet one config is built
with an eighth of its widths, few queries and random weights, and trained for a step on two noise images, on a CPU.
(SSD, TridentNet and Conditional DETR keep their widths. Where a narrow random head would score all rows alike, its
convolutions are scaled up and BatchNorm takes the statistics of one batch, so that a wrong pairing would show.)

- **aligner**: the one that `tools/train.py --teacher` would choose;
- **identity**: with a copy of the student as teacher, all rows of both sides are equal, to the last bit where it says
  so, and rows differ among themselves;
- **confidence**: the number by which a selector ranks the teacher's rows is the score that the teacher's own head
  predicts for them, without NMS;
- **gradient**: the student's rows give gradient to its backbone, and none to the teacher;
- **silence**: the student's losses are the same to the last bit whether it is listened to or not;
- **step**: one training step with CKD and another teacher ends in finite losses and gradients, and leaves the teacher
  as it was;
- **attach**: `distill_config` takes the family's whole config, with the names of its data set, and gives CKD;
- **labels**: whether each row has a label, as some selectors want it;
- **boxes**: with a copy of the student as teacher the boxes of all rows are equal on both sides, to a hundredth of a
  pixel, and those that the teacher's own head predicts (not looked at of queries, an RPN and YOLACT); `no` where they
  cannot be decoded, so that a loss of boxes is refused;
- **crossed**: of dense heads, whether the student's features can pass the last layers of the teacher's head, as
  `--method crosskd` wants it: again equal rows with a copy of the student, and gradient for the student alone.
"""


def summary(rows: Sequence[Row]) -> str:
    """How many families pass, in one sentence."""
    passing = [row for row in rows if row.passes]
    pairs = {(row.detector, row.head) for row in passing}
    out = sum(row.family in OUT_OF_SCOPE for row in rows)
    aligners = {aligner: sum(row.aligner == aligner for row in passing) for aligner in
                sorted({row.aligner for row in passing})}
    by = f' ({", ".join(f"{aligner} {count}" for aligner, count in aligners.items())})' if aligners else ''
    return (f'{len(passing)} of {len(rows)} families pass every check{by}, with {len(pairs)} different pairs of '
            f'detector and head class; out of scope: {out}.')


def markdown(rows: Sequence[Row], seconds: float, jobs: int) -> str:
    """The whole page.

    Args:
        rows: One a family.
        seconds: What the run took.
        jobs: Processes that it had.
    """
    tried = [row for row in rows if row.family not in OUT_OF_SCOPE]
    cpu = sum(row.cpu_seconds for row in rows)
    parts = [INTRO, f'**{summary(rows)}** It took {seconds / 60:.1f} minutes ({cpu / 60:.1f} of CPU time) in {jobs} '
                    f'process{"es" if jobs > 1 else ""} of one thread, with {versions()}.\n',
             _table(tried),
             _list('Those that fail', {row.family: _failure(row) for row in tried if not row.passes}),
             _list('Without labels', {row.family: row.no_labels for row in tried if row.no_labels}),
             _list('Out of scope', {row.family: row.reason for row in rows if row.family in OUT_OF_SCOPE})]
    return '\n'.join(part for part in parts if part)


def versions() -> str:
    """Those of what was run."""
    packages = [f'{package.__name__} {package.__version__}' for package in
                (torch, torchvision, mmengine, mmcv, mmdet)]
    return f'Python {platform.python_version()}, {", ".join(packages)}'


def _table(rows: Sequence[Row]) -> str:
    lines = [f'| {" | ".join(COLUMNS)} |', '|---' * len(COLUMNS) + '|']
    for row in rows:
        cells = {column: getattr(row, column) for column in COLUMNS}
        cells['config'] = row.config.partition('/')[2].removesuffix('.py')
        lines.append(f'| {" | ".join(_cell(cell) for cell in cells.values())} |')
    return '\n'.join(lines) + '\n'


def _failure(row: Row) -> str:
    return row.reason if row.plain else f'{row.reason} (mmdet alone, before any aligner)'


def _list(title: str, reasons: dict[str, str]) -> str:
    if not reasons:
        return ''
    lines = [f'- **{family}**: {_cell(reason)}' for family, reason in reasons.items()]
    return '\n'.join([f'## {title}', '', *lines, ''])


def _cell(text: str) -> str:
    return for_markdown(text) or '-'
