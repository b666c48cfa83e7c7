"""One question to the teacher: which rows are paired, which of them count, and the losses over them."""

from __future__ import annotations

from ckd_mmdet.aligners import Aligner
from ckd_mmdet.classes import SharedClasses, shared_columns
from ckd_mmdet.functional import agreement
from ckd_mmdet.losses import DistillLoss
from ckd_mmdet.registry import MODELS, TASK_UTILS, build_part
from ckd_mmdet.samples import AlignedSamples, Answer, Candidates, Side, is_foreground
from ckd_mmdet.selectors import All, Chain, Selector
from torch import Tensor, nn


class Alignment(nn.Module):
    """Aligner, selector and losses; built with the Distiller, it then meets both models.

    Args:
        aligner: Config of an :class:`Aligner`.
        losses: Configs of the losses by name; each name contains ``loss``, or MMEngine would not add it up.
        selector: Config of a :class:`Selector`, or a list of them, each choosing among the rows that the one before it
            left; every row by default.
        name: The alignment's key in the config, for errors.

    Raises:
        ValueError: If a part is unknown, a name is unfit, or a loss or selector needs what the aligner does not give.
    """

    def __init__(self, aligner: dict, losses: dict[str, dict], selector: dict | list[dict] | None = None, *,
                 name: str) -> None:
        super().__init__()
        self.name = name
        where = f'`alignments.{name}'
        self.aligner: Aligner = build_part(TASK_UTILS, aligner, Aligner, f'{where}.aligner`')
        self.select: Selector = _selector(selector, f'{where}.selector`')
        if not losses:
            raise ValueError(f'{where}.losses` needs at least one loss; to train the student alone, leave the '
                             'alignment out.')
        self.losses = nn.ModuleDict()
        for key, cfg in losses.items():
            if 'loss' not in key or '.' in key:
                raise ValueError(f'{where}.losses` needs names that contain `loss` and no dot, or it would not be '
                                 f'added up; got {key!r}, call it {"loss_" + key.replace(".", "_")!r}.')
            self.losses[key] = build_part(MODELS, cfg, DistillLoss, f'{where}.losses.{key}`')
        for part in (self.select, *self.losses.values()):
            lacking = part.requires - self.aligner.provides
            if lacking:
                raise ValueError(f'{where}` pairs a {type(part).__name__}, which requires {sorted(lacking)}, with a '
                                 f'{type(self.aligner).__name__}, which provides {sorted(self.aligner.provides)} only; '
                                 'take another loss, selector or aligner.')

    def meet(self, student: nn.Module, teacher: nn.Module, class_map: bool) -> None:
        """Check that the two models can be paired, before training.

        Args:
            student: The student's detector.
            teacher: The teacher's.
            class_map: Whether the classes are paired later, by :meth:`share`, when the data set's names are known.

        Raises:
            ValueError: If they cannot, or if a loss makes no sense for the way in which their heads score.
        """
        self.scorings = self.aligner.check(student, teacher)
        if isinstance(self.select, All):
            self.aligner.check_without_selector(student, f'`alignments.{self.name}`')
        ours, theirs = self.scorings
        if ours.softmax == theirs.softmax:
            self.scoring = 'softmax' if ours.softmax else 'sigmoid'
        else:
            self.scoring = 'mixed'
        way_out = ('take a loss that compares directions only, such as CKDLoss' if self.scoring == 'mixed' else
                   'take a CKDLoss or a plain KDLoss')
        for key, loss in self.losses.items():
            if self.scoring not in loss.scorings:
                raise ValueError(f'`alignments.{self.name}.losses.{key}` is a {type(loss).__name__}, which makes no '
                                 f'sense between a student with {ours} and a teacher with {theirs}; {way_out}.')
        self.shared: SharedClasses | None = None
        if not class_map:
            if ours.num_classes != theirs.num_classes:
                raise ValueError(f'`alignments.{self.name}` needs as many classes in the teacher '
                                 f'({theirs.num_classes}) as in the student ({ours.num_classes}); pair them with '
                                 "`teacher.class_map='name'`, or give a teacher trained on the same categories.")
            self.share(SharedClasses.all(ours.num_classes))

    def share(self, shared: SharedClasses) -> None:
        """Distil these classes only.

        Raises:
            ValueError: If they are too few for a loss.
        """
        if self.scorings[0].num_classes == self.scorings[1].num_classes == 1:
            shared = SharedClasses.all(1)  # a class-agnostic head, an RPN's say, knows no names
        columns = len(shared) + (self.scoring == 'softmax')
        for key, loss in self.losses.items():
            if columns < loss.least_columns:
                raise ValueError(f'`alignments.{self.name}.losses.{key}` is a {type(loss).__name__}, which needs rows '
                                 f'of at least {loss.least_columns} scores, and student and teacher share {columns} '
                                 'only; take a KDLoss here.')
        self.shared = shared
        self.aligner.shared = None if shared == SharedClasses.all(self.scorings[1].num_classes) else shared

    def choose(self, answer: Answer) -> AlignedSamples:
        """The selector's rows, each with the scores of the shared classes.

        Raises:
            RuntimeError: If labels are needed and the student's head gives none.
        """
        if self.shared is None:
            raise RuntimeError("`teacher.class_map` pairs classes by name, and the data set's names are not known yet: "
                               'train through the Runner with `DistillHook`, or call `Distiller.share(...)`.')
        labels = answer.labels
        if labels is None:
            self._check_no_labels(answer)
        else:
            labels = self.shared.labels(labels, self.scorings[0].num_classes)
        rows = self.select(Candidates(answer.teacher.confidence(self.shared.teacher), len(self.shared), labels,
                                      answer.image_ids, answer.level_ids))
        if labels is not None:  # of an object that it has no class for, the teacher would say that it is background
            rows = rows[labels[rows] != -2]
        background = self.scoring == 'softmax'
        student, teacher = (Side(shared_columns(side.take(rows), scoring, classes, background))
                            for side, scoring, classes in ((answer.student, self.scorings[0], self.shared.student),
                                                           (answer.teacher, self.scorings[1], self.shared.teacher)))
        image_ids = None if answer.image_ids is None else answer.image_ids[rows]
        return AlignedSamples(student, teacher, len(self.shared), None if labels is None else labels[rows], image_ids,
                              self.scoring)

    def _check_no_labels(self, answer: Answer) -> None:
        needing = [type(part).__name__ for part in (self.select, *self.losses.values()) if 'labels' in part.requires]
        if needing:
            raise RuntimeError(f'`alignments.{self.name}` needs labels for {", ".join(needing)}, and this student '
                               f'gives none: {answer.no_labels}. Take a selector and losses that need only logits, '
                               'such as TeacherTopK with CKDLoss or KDLoss.')

    def forward(self, aligned: AlignedSamples, *, epoch: int) -> dict[str, Tensor]:
        """Losses over the rows, and what is logged beside them."""
        out = {key: loss(aligned, epoch=epoch) for key, loss in self.losses.items()}
        out.update(agreement(aligned.student.logits, aligned.teacher.logits))
        if aligned.labels is not None:
            out['teacher_accuracy'] = _accuracy(aligned)
        return out


def _selector(cfg: dict | list[dict] | None, where: str) -> Selector:
    if cfg is None:
        return All()
    if isinstance(cfg, list | tuple):
        return Chain([build_part(TASK_UTILS, part, Selector, f'{where}[{i}]') for i, part in enumerate(cfg)])
    return build_part(TASK_UTILS, cfg, Selector, where)


def _accuracy(aligned: AlignedSamples) -> Tensor:
    """Share of the foreground rows whose label is the teacher's greatest score; 0 without foreground."""
    foreground = is_foreground(aligned.labels, aligned.num_classes)
    found = aligned.teacher.logits.argmax(1) == aligned.labels
    return (found & foreground).sum() / foreground.sum().clamp(min=1)
