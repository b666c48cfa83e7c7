"""The demo's numbers: read from the runs, shown as a table, told as a report."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ckd_mmdet.lab.demo.plan import Run
from ckd_mmdet.lab.jobs.logs import read_records, scalar_files
from ckd_mmdet.lab.jobs.tables import markdown_table

SCORES = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')


@dataclass(frozen=True)
class Result:
    """One row of the table; ``scores`` are mAP, mAP50 and mAP75, ``step`` is in seconds."""

    title: str
    scores: tuple[float, float, float]
    parameters: int
    size: int
    step: float
    threads: int


def records(work_dir: Path) -> Iterator[dict]:
    """What mmengine logged of the run: its trainings, then what `tools/test.py` found."""
    for path in [*scalar_files(work_dir), *sorted(work_dir.glob('*/*.json'))]:
        yield from read_records(path)


def steps_done(work_dir: Path, but: Sequence[Path] = ()) -> int:
    """The step logged last, 0 where none is; the files in ``but`` do not count."""
    steps = [record['step'] for path in scalar_files(work_dir) if path not in but
             for record in read_records(path) if 'loss' in record]
    return steps[-1] if steps else 0


def find_scores(run: Run) -> tuple[float, float, float] | None:
    """COCO's mAP, mAP50 and mAP75 of the run's last validation, ``None`` where it had none."""
    found = [record for record in records(run.work_dir) if SCORES[0] in record]
    if not found:
        return None
    first, second, third = (found[-1][key] for key in SCORES)
    return first, second, third


def step_seconds(run: Run) -> float:
    """The median of the training steps' logged times; NaN where none was logged."""
    times = [record['time'] for record in records(run.work_dir) if 'loss' in record]
    return statistics.median(times) if times else math.nan


def table(results: Sequence[Result]) -> str:
    """A Markdown table whose columns also align in a terminal."""
    head = ['', 'mAP', 'mAP50', 'mAP75', 'parameters', 'checkpoint MB', 'ms per step', 'threads']
    rows = [[result.title, *(f'{score:.3f}' for score in result.scores), f'{result.parameters:,}',
             f'{result.size / 1e6:.2f}', f'{result.step * 1e3:.0f}', str(result.threads)] for result in results]
    return markdown_table([head, *rows])


def verdict(teacher: Result, alone: Result, ckd: Result) -> str:
    """The difference that CKD made, and its share of the gap between teacher and student."""
    gain, gap = ckd.scores[0] - alone.scores[0], teacher.scores[0] - alone.scores[0]
    text = f'CKD changed the student\'s mAP by {gain:+.3f} ({alone.scores[0]:.3f} to {ckd.scores[0]:.3f})'
    if gap <= 0:
        return f'{text}; the teacher ({teacher.scores[0]:.3f}) is no better than the student alone: no gap to close.'
    return f'{text}, {gain / gap:.0%} of the gap to the teacher ({gap:.3f}).'


def cautions(quick: bool) -> list[str]:
    """What the numbers do not say."""
    said = ['One seed is no proof: docs/results.md has the mean and standard deviation over three seeds.',
            'Teacher and student alone trained at the same time and share the machine; the student with CKD had it to '
            'itself. Compare no ms per step across these rows; `tools/benchmark.py` measures what CKD costs.']
    if quick:
        said.insert(0, 'This was the quick demo: it shows the machinery. Models of a few dozen steps are near chance: '
                       'their numbers say nothing about CKD, and no detection reaches the picture\'s threshold; '
                       '`make demo` without QUICK=1 trains long enough. The '
                       'check that stops a run whose teacher is at chance level (`teacher.check_accuracy`) was off.')
    return said


def write_report(path: Path, results: dict[str, Result], *, picture: str, commands: dict[str, str],
                 settings: dict[str, str], quick: bool) -> None:
    """Write ``report.md``.

    Args:
        path: File to write.
        results: By the runs' names.
        picture: The picture's path, from the report's folder.
        commands: Command line by title, to repeat each.
        settings: Value by name.
        quick: Whether it was the quick demo.
    """
    parts = ['# Demo: CKD on DigitScenes', table(list(results.values())), verdict(**results),
             '\n'.join(f'- {caution}' for caution in cautions(quick)),
             f'![The same validation images: ground truth and the three detectors]({picture})',
             '## Repeat it', 'From the repository\'s root:',
             *(f'{title[0].upper()}{title[1:]}:\n\n```bash\n{command}\n```' for title, command in commands.items()),
             '## Settings', '\n'.join(f'- {name}: {value}' for name, value in settings.items())]
    path.write_text('\n\n'.join(parts) + '\n')
