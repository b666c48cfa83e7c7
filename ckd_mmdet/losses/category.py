"""The three losses of PCKD (arXiv 2410.14143), over the last layer of both models and the features before it."""

from __future__ import annotations

from collections.abc import Mapping

from ckd_mmdet.functional import category_contrast, center_alignment, center_scores, feature_alignment
from ckd_mmdet.functional.category import TARGETS
from ckd_mmdet.functional.checks import one_of, positive
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, Widths
from torch import Tensor, nn

from .base import DistillLoss, RowLoss, feature_widths, given, in_full
from .norm import ChannelNorm


@MODELS.register_module()
class CategoryContrastLoss(RowLoss):
    r"""Contrast of the rows by category, in the eyes of the student's and of the teacher's category centres.

    The student's features are embedded twice, in their own width and in the teacher's, by two linear layers that are
    learned with the student and not needed after it; each is scored by the centres of its width, and
    :func:`ckd_mmdet.functional.category_contrast` compares the scores. The teacher enters through its centres alone.
    Every view of an image counts. The rows of one process are contrasted: under DDP the loss is the mean of the ranks'
    own values, not the value of the joined rows.

    Of a detector's RoIs, which is ours, background is a category like any other, and most rows have it: cap it with a
    selector, ``ForegroundPlus`` say.

    Args:
        temperature: :math:`\tau > 0`; 4 as released.
        target: ``'samples'``, as released: rows of one label attract each other; or ``'centers'``, as the paper's
            figure draws it: each row is attracted by its own centre and repelled by the others. Soft labels, of mixup
            or CutMix, are refused with ``'samples'``.
        loss_weight: Factor of the mean over rows; the one published configuration uses 0.05.
        preview: ``dict(base=1.005)``, as published: hard rows count little as yet, see :class:`Preview`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'labels', 'features', 'centers'})
    scorings = frozenset({'softmax'})
    least_columns = 2
    why_columns = 'one category has no other to be contrasted with'
    all_views = True

    def __init__(self, temperature: float = 4.0, target: str = 'samples', loss_weight: float | str | Mapping = 1.0,
                 preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        positive(temperature, 'temperature', 'CategoryContrastLoss')
        one_of(target, TARGETS, 'target', 'CategoryContrastLoss')
        self.temperature = temperature
        self.target = target

    @property
    def embeddings(self) -> dict[str, nn.Module]:
        """From the student's features, ``'student'`` to their own width, ``'teacher'`` to the teacher's."""
        return dict(zip(('student', 'teacher'), self.parts, strict=True))

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        ours, theirs = feature_widths(widths, self)
        return [nn.Linear(ours, ours), nn.Linear(ours, theirs)]

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        self.check_built()
        features = given(samples.student.features, 'features', self)
        centers = [given(side.centers, 'centers', self) for side in (samples.student, samples.teacher)]
        ours = center_scores(in_full(self.embeddings['student'], features), centers[0])
        theirs = center_scores(in_full(self.embeddings['teacher'], features), centers[1].detach())
        return category_contrast(ours, theirs, given(samples.labels, 'labels', self), temperature=self.temperature,
                                 target=self.target, check=not samples.filtered)


@MODELS.register_module()
class FeatureAlignmentLoss(RowLoss):
    """Distance of each row's feature from the teacher's in direction, after an MLP that is learned with the student.

    The MLP is Linear, BatchNorm, ReLU, Linear, from the student's width over ``expansion`` times the teacher's to the
    teacher's. Every view of an image counts.

    Args:
        expansion: Hidden width in widths of the teacher, at least 1; 16 as released. For features of 1024, as RoI heads
            have them, 16 are 33 million parameters.
        loss_weight: Factor of the mean over rows; the one published configuration uses 20.
        preview: ``dict(base=1.005)`` lets hard rows count little as yet, see :class:`Preview`; not so published.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'logits', 'features'})
    all_views = True

    def __init__(self, expansion: int = 16, loss_weight: float | str | Mapping = 1.0,
                 preview: Mapping | None = None) -> None:
        super().__init__(loss_weight, preview)
        if type(expansion) is not int or expansion < 1:
            raise ValueError(f'`FeatureAlignmentLoss` needs a whole `expansion` of at least 1, got {expansion!r}.')
        self.expansion = expansion

    @property
    def mlp(self) -> nn.Module:
        """From the student's features to the teacher's width."""
        return self.parts[0]

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        ours, theirs = feature_widths(widths, self)
        hidden = self.expansion * theirs
        return [nn.Sequential(nn.Linear(ours, hidden), ChannelNorm(hidden), nn.ReLU(), nn.Linear(hidden, theirs))]

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        self.check_built()
        ours, theirs = (given(side.features, 'features', self) for side in (samples.student, samples.teacher))
        return feature_alignment(in_full(self.mlp, ours), theirs)


@MODELS.register_module()
class CenterAlignmentLoss(DistillLoss[AlignedSamples]):
    """Mean squared difference of the last layers, weights and biases; 0 without rows, like every loss of rows.

    It is defined for last layers of one width. The released code leaves it out in silence where widths differ; here it
    is refused when it is built.

    Args:
        project: Whether to learn a linear map of the student's centres to the teacher's width, which is ours; biases
            are compared as they are.
        loss_weight: Factor of the mean over categories and inputs; the one published configuration uses 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    requires = frozenset({'centers'})

    def __init__(self, project: bool = False, loss_weight: float | str | Mapping = 1.0) -> None:
        super().__init__(loss_weight)
        if not isinstance(project, bool):
            raise ValueError(f'`CenterAlignmentLoss` needs a `project` of True or False, got {project!r}.')
        if self.weight.is_measuring:
            raise ValueError("`CenterAlignmentLoss` needs a `loss_weight` that is given: it does not depend on the "
                             "student's features, at which 'balance' measures how hard a loss pulls.")
        self.project = project

    @property
    def projector(self) -> nn.Module | None:
        """From the student's centres to the teacher's width, where it is learned."""
        return self.parts[0] if len(self.parts) else None

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        ours, theirs = feature_widths(widths, self)
        if ours != theirs and not self.project:
            raise ValueError(f'`CenterAlignmentLoss` compares last layers of one width, got {ours} inputs of the '
                             f"student's and {theirs} of the teacher's; take `project=True`, which learns a linear map "
                             'between them, or leave the loss out.')
        return [nn.Linear(ours, theirs, bias=False)] if self.project else []

    def unweighted(self, aligned: AlignedSamples, *, epoch: int) -> Tensor:
        self.check_built()
        student, teacher = aligned.student, aligned.teacher
        ours, theirs = (given(side.centers, 'centers', self) for side in (student, teacher))
        if self.projector is not None:
            ours = in_full(self.projector, ours)
        return center_alignment(ours, theirs, student.biases, teacher.biases).mean()

    def of_student(self, aligned: AlignedSamples) -> list[Tensor]:
        return aligned.student.tensors()
