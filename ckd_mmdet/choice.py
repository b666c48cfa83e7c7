"""Which aligner pairs the rows of two models, and why the others do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckd_mmdet.aligners import Aligner, equal_strides, is_classifier
from ckd_mmdet.classes import Scoring
from ckd_mmdet.recipes import as_commands
from ckd_mmdet.registry import TASK_UTILS, build_part
from torch import nn

# In the order in which they are tried: the more rows an aligner pairs, the earlier.
REASONS = {
    'ImageAligner': 'both classify whole images',
    'RoIAligner': 'both have a RoI head, the teacher classifies the proposals that the student sampled',
    'DenseAligner': 'both score every anchor of the same levels',
    'QueryAligner': 'both answer by queries, each side matched with the objects by its own assigner',
    'ObjectAligner': 'the heads are of different kinds, each side gives one row an object',
}


@dataclass(frozen=True)
class Choice:
    """How the rows of two models are paired."""

    aligners: dict[str, dict]
    """Config of the aligner of each alignment, by the alignment's name."""
    scorings: tuple[Scoring, Scoring] | None
    """How student and teacher write the scores of a row; ``None`` where no rows are paired."""
    reasons: list[str]
    """What was taken and why; then what was tried before and why it was refused."""
    gives_labels: bool = True
    """Whether the student's rows are known to have labels."""


def choose_alignment(student: nn.Module, teacher: nn.Module) -> Choice:
    """Take the first aligner that can pair the two: RoI, dense, query, object.

    Where both have RoI heads with stages, there is one alignment for each stage that both have; where one has, its
    last stage is taken.

    Raises:
        ValueError: If none can; the text has the reason of each, and the methods that need none of them.
    """
    choice, refused = _first_that_fits(student, teacher)
    if choice is None:
        raise ValueError(_no_rows(student, teacher, refused))
    return choice


def _first_that_fits(student: nn.Module, teacher: nn.Module) -> tuple[Choice | None, list[str]]:
    """The choice, and why those before it were refused."""
    refused: list[str] = []
    any_classifier = is_classifier(student) or is_classifier(teacher)
    for kind, why in REASONS.items():
        if kind == 'ImageAligner' and not any_classifier:
            continue
        chosen = _roi_stages(student, teacher) if kind == 'RoIAligner' else {_short(kind): dict(type=kind)}
        try:
            aligners = [build_part(TASK_UTILS, cfg, Aligner, '`aligner`') for cfg in chosen.values()]
            scorings = [aligner.scorings(student, teacher) for aligner in aligners][-1]
        except ValueError as error:
            refused.append(fact_of(error))
            continue
        ours, theirs = (f'{type(model).__name__}, {scoring}'
                        for model, scoring in zip((student, teacher), scorings, strict=True))
        reasons = [f'{kind}: {why}; student {ours}, teacher {theirs}', *refused]
        return Choice(chosen, scorings, reasons, bool(aligners[0].gives_labels(student))), refused
    return None, refused


def fact_of(error: ValueError) -> str:
    """Why an aligner was refused, without its way out: what it advises is tried here anyway."""
    return str(error).partition('; ')[0].rstrip('.')


def _no_rows(student: nn.Module, teacher: nn.Module, refused: Sequence[str]) -> str:
    """Whose fault it is that no aligner pairs the rows, and which methods work all the same."""
    alone = [_first_that_fits(model, model)[0] is not None for model in (student, teacher)]
    whose = {(False, True): "the student's head is one that none of them reads, whatever the teacher is",
             (True, False): "the teacher's head is one that none of them reads, so that another teacher would do",
             (False, False): 'neither head is one that they read',
             (True, True): 'each alone could be paired with its like'}[alone[0], alone[1]]
    try:
        equal_strides(student, teacher)
        way_out = f'feature maps can be compared: take {as_commands(["l2", "pkd"])}'
    except ValueError as error:
        way_out = f'feature maps cannot be compared either: {fact_of(error)}'
        inner = str(error).partition('; ')[2].rstrip('.')
        way_out += f'; {inner}' if inner else ''
    tried = '\n'.join(refused)
    return (f'no aligner can pair the rows of a {type(student).__name__} as student with those of a '
            f'{type(teacher).__name__} as teacher: {whose}; {way_out}. What each said:\n{tried}')


def _roi_stages(student: nn.Module, teacher: nn.Module) -> dict[str, dict]:
    heads = [getattr(getattr(model, 'roi_head', None), 'bbox_head', None) for model in (student, teacher)]
    stages = [len(head) for head in heads if isinstance(head, nn.ModuleList)]
    if len(stages) == 2:
        return {f'roi{stage}': dict(type='RoIAligner', stage=stage) for stage in range(min(stages))}
    return dict(roi=dict(type='RoIAligner', stage=stages[0] - 1) if stages else dict(type='RoIAligner'))


def _short(kind: str) -> str:
    return kind.removesuffix('Aligner').lower()
