from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import torch
from ckd_mmdet.boxes import RoIBoxes
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.rows import SOFTMAX, TableRows
from ckd_mmdet.samples import Answer, LastLayer, Widths, is_foreground
from ckd_mmdet.taps import ModuleTap
from mmdet.models.roi_heads.bbox_heads import BBoxHead, SABLHead
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from .base import Aligner, true_boxes
from .masks import MaskBranch, MaskTape, check_branches, paired_masks


@dataclass(frozen=True)
class RoITape:
    """What the student's RoI head was given, and said, in one step."""

    rois: ModuleTap
    scores: ModuleTap
    targets: ModuleTap
    last_layer: ModuleTap
    first_scores: ModuleTap
    """Of the first stage; the same as ``scores`` in a head without stages."""
    branch: int | None
    """Of a TridentNet, the branch that it tests with."""
    masks: MaskTape | None
    """``None`` of a head without masks that are read here."""


@TASK_UTILS.register_module()
class RoIAligner(Aligner):
    """Pairs RoI logits: the teacher classifies the student's own sampled proposals, from its own features.

    For the box branch of every RoI head of mmdet that scores classes in a layer ``fc_cls``: Faster and Mask R-CNN, each
    stage of Cascade R-CNN and HTC, Double-Head, Dynamic, Grid, Libra, PISA, SABL, TridentNet... A row is a sampled
    proposal of the student; its logits are ``(num_classes + 1)`` scores, background last, its feature is what comes
    into ``fc_cls``, whose weight rows are the category centres. The student's head runs once. Of a TridentNet only the
    branch counts that it tests with.

    Args:
        stage: Stage of a head that has several, from 0; ``None`` for a head that has one. Where only one of the two
            models has stages, it counts for that one.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'features', 'centers', 'boxes', 'truths',
                          'masks', 'regions'})
    lacks = {'distributions': 'a RoI head regresses plain numbers, which BoxLoss compares'}

    def __init__(self, stage: int | None = None) -> None:
        self.stage = stage

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        heads = {'student': self._bbox_head(student, 'student'), 'teacher': self._bbox_head(teacher, 'teacher')}
        staged = [model for model in (student, teacher) if isinstance(model.roi_head.bbox_head, nn.ModuleList)]
        if self.stage is not None and not staged:
            raise ValueError(f'`RoIAligner` got `stage={self.stage}`, but neither model has a RoI head with stages; '
                             'leave `stage` out.')
        for side, head in heads.items():
            width, classes = head.fc_cls.weight.shape[0], head.num_classes
            if width != classes + 1:
                raise ValueError(f"`RoIAligner` needs one score a class and one for background; the {side}'s "
                                 f'{type(head).__name__} gives {width} for {classes} classes.')
        return Scoring(heads['student'].num_classes, True), Scoring(heads['teacher'].num_classes, True)

    def widths(self, student: nn.Module, teacher: nn.Module) -> Widths:
        layers = [self._bbox_head(model, side).fc_cls for model, side in ((student, 'student'), (teacher, 'teacher'))]
        for layer, side in zip(layers, ('student', 'teacher'), strict=True):
            if type(layer) is not nn.Linear:
                raise ValueError(f"`RoIAligner` finds category centres in a linear `fc_cls`, and the {side}'s is a "
                                 f'{type(layer).__name__}; take losses of logits here.')
        return Widths(*((layer.in_features,) for layer in layers))

    def check_boxes(self, student: nn.Module, teacher: nn.Module) -> None:
        for model, side in ((student, 'student'), (teacher, 'teacher')):
            head = self._bbox_head(model, side)
            if not decodes_deltas(head):
                raise ValueError(f"`RoIAligner` decodes boxes as mmdet's BBoxHead does, and the {side}'s "
                                 f'{type(head).__name__} has none, or decodes them in a way of its own; take losses '
                                 'that need no boxes, with `--method ckd` for example.')

    def check_masks(self, student: nn.Module, teacher: nn.Module) -> None:
        check_branches(student, teacher, self.stage)

    def rows_in_words(self, student: nn.Module) -> str:
        roi_head = student.roi_head
        staged = isinstance(roi_head.bbox_head, nn.ModuleList)
        config = roi_head.train_cfg[self.stage] if staged and roi_head.train_cfg else roi_head.train_cfg
        sampler = (config or {}).get('sampler') or {}
        return f'at most {sampler["num"]} proposals an image' if sampler.get('num') else 'every sampled proposal'

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[RoITape]:
        head, roi_head = self._bbox_head(student, 'student'), student.roi_head
        extractor, first_head = roi_head.bbox_roi_extractor, roi_head.bbox_head
        if isinstance(first_head, nn.ModuleList):
            extractor, first_head = extractor[self.stage], first_head[0]
        branch = MaskBranch.of(student, self.stage)
        with nullcontext() if branch is None else branch.recording() as masks, \
                ModuleTap(extractor, 'roi_head.bbox_roi_extractor') as rois, \
                ModuleTap(head, 'roi_head.bbox_head') as scores, \
                ModuleTap(head.fc_cls, 'roi_head.bbox_head.fc_cls') as last_layer, \
                ModuleTap(first_head, 'roi_head.bbox_head') as first_scores, \
                ModuleTap(head.loss_cls, 'roi_head.bbox_head.loss_cls') as targets:
            yield RoITape(rois, scores, targets, last_layer, first_scores,
                          getattr(roi_head, 'test_branch_idx', None), masks)

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: RoITape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        rois, student_logits, labels, why_not = _recorded(tape)
        regions, deltas = rois[:, 1:], box_output(tape.scores, student_logits)
        student_rows, ours = roi_rows(tape.scores, student_logits, rois), last_layer(tape.last_layer, student_logits)
        if tape.branch is not None:  # TridentNet's batch holds the images once a branch; at rest it has one branch
            own = rois[:, 0].long() // len(data_samples) == tape.branch
            regions, deltas = regions[own], None if deltas is None else deltas[own]
            rois, student_rows, labels = rois[own], student_rows.select(own), None if labels is None else labels[own]
            ours = ours and replace(ours, features=ours.features[own])
            rois = torch.cat([rois[:, :1] % len(data_samples), rois[:, 1:]], 1)
        with torch.no_grad():  # around the teacher only: the student's rows keep their graph
            head = self._bbox_head(teacher, 'teacher')
            with ModuleTap(head.fc_cls, "the teacher's fc_cls") as recorded, \
                    ModuleTap(head, "the teacher's bbox_head") as scores:
                teacher_logits = classify(teacher.roi_head, self.stage, feats, rois)
        masks, branch = None, MaskBranch.of(teacher, self.stage)
        if tape.masks is not None and branch is not None and labels is not None:
            positive = is_foreground(labels, tape.scores.module.num_classes)
            masks = partial(paired_masks, tape.masks, branch, feats, rois, positive)
        theirs = last_layer(recorded, teacher_logits)
        boxes = (RoIBoxes.of(tape.scores.module, regions, deltas),
                 RoIBoxes.of(head, regions, box_output(scores, teacher_logits)))
        return Answer(student_rows, roi_rows(scores, teacher_logits, rois), labels, rois[:, 0].long(),
                      no_labels=why_not, layers=(ours, theirs.detach()) if ours and theirs else None,
                      boxes=boxes, truths=true_boxes(data_samples), regions=regions, masks=masks)

    def _bbox_head(self, model: nn.Module, side: str) -> nn.Module:
        head = getattr(getattr(model, 'roi_head', None), 'bbox_head', None)
        if head is None:
            raise ValueError(f'`RoIAligner` needs a {side} with `roi_head.bbox_head`, got a {type(model).__name__}; '
                             'it serves two-stage detectors such as Faster, Mask and Cascade R-CNN.')
        if isinstance(head, nn.ModuleList):
            if self.stage is None or not 0 <= self.stage < len(head):
                raise ValueError(f'`RoIAligner` needs a `stage` from 0 to {len(head) - 1} for the stages of the '
                                 f"{side}'s {type(model.roi_head).__name__}, got {self.stage}.")
            head = head[self.stage]
        if not hasattr(getattr(head, 'fc_cls', None), 'weight'):
            raise ValueError(f'`RoIAligner` needs a {side} whose RoI head scores classes in a layer `fc_cls`; '
                             f'{type(head).__name__} has none.')
        return head


def classify(roi_head: nn.Module, stage: int | None, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
    """Logits ``(n, c)`` that a RoI head, or its given stage, has for boxes.

    Args:
        roi_head: Any of mmdet's, with or without stages.
        stage: Stage of a head with stages; not looked at for others.
        feats: Features of the neck, one ``(N, d, h, w)`` a level.
        rois: Shape ``(n, 5)``, the image's index in the batch first, then the corners in pixels of the input.
    """
    if not isinstance(roi_head.bbox_head, nn.ModuleList):
        with extracting_level_by_level(roi_head.bbox_roi_extractor):
            return roi_head._bbox_forward(feats, rois)['cls_score']
    context = {}
    if getattr(roi_head, 'with_semantic', False):  # HTC and SCNet add what they see of the whole image
        context['semantic_feat'] = roi_head.semantic_head(feats)[1]
    if getattr(roi_head, 'with_glbctx', False):
        context['glbctx_feat'] = roi_head.glbctx_head(feats)[1]
    with extracting_level_by_level(roi_head.bbox_roi_extractor[stage]):
        return roi_head._bbox_forward(stage, feats, rois, **context)['cls_score']


@contextmanager
def extracting_level_by_level(extractor: nn.Module) -> Iterator[None]:
    """Let mmdet's extractor give the same features with one device wait, in the place of one a level."""
    if type(extractor) is not SingleRoIExtractor:
        yield
        return
    extractor.forward = partial(_extract, extractor)
    try:
        yield
    finally:
        del extractor.forward


def _extract(extractor: SingleRoIExtractor, feats: Sequence[Tensor], rois: Tensor,
             roi_scale_factor: float | None = None) -> Tensor:
    rois = rois.type_as(feats[0])  # as mmdet's: of float32 where the features are of half precision
    if len(feats) == 1 or not len(rois):
        return type(extractor).forward(extractor, feats, rois, roi_scale_factor)
    levels = extractor.map_roi_levels(rois, len(feats))
    order = levels.argsort(stable=True)
    numbers = torch.arange(len(feats), device=levels.device)
    counts = (levels[:, None] == numbers).sum(0).tolist()  # the wait; bincount would be another
    if roi_scale_factor is not None:
        rois = extractor.roi_rescale(rois, roi_scale_factor)
    parts = [layer(level, part) for layer, level, part in
             zip(extractor.roi_layers, feats, rois[order].split(counts), strict=False) if len(part)]
    return torch.cat(parts)[order.argsort()]


@torch.no_grad()
def roi_rows(recorded: ModuleTap, logits: Tensor, rois: Tensor) -> TableRows:
    """The logits ``(n, c)`` that a head gave for RoIs ``(n, 5)``, and how it ranks them.

    A cascade ranks by the mean of its stages' logits; a row is of one stage, which is taken at its own word.
    """
    call = next((call for call in recorded.calls if call.output[0] is logits), None)
    if call is None or not isinstance(recorded.module, SABLHead):
        return TableRows(logits, SOFTMAX)
    # SABL's coder knows how sure it is of a box, and multiplies by that
    return TableRows(logits, SOFTMAX, recorded.module.bbox_coder.decode(rois[:, 1:], call.output[1])[1])


def decodes_deltas(head: nn.Module) -> bool:
    """Whether the head regresses boxes, and decodes them as mmdet's own."""
    return (isinstance(head, BBoxHead) and head.with_reg
            and type(head)._predict_by_feat_single is BBoxHead._predict_by_feat_single)


def box_output(recorded: ModuleTap, logits: Tensor) -> Tensor | None:
    """What a head regressed beside the logits that it gave; ``None`` where it did not."""
    call = next((call for call in recorded.calls if call.output[0] is logits), None)
    return call.output[1] if call is not None and isinstance(call.output[1], Tensor) else None


def last_layer(recorded: ModuleTap, scores: Tensor) -> LastLayer | None:
    """The linear layer that gave the scores; ``None`` where another did, or the scores were changed after it."""
    call = next((call for call in recorded.calls if call.output is scores), None)
    if call is None or type(recorded.module) is not nn.Linear:
        return None
    return LastLayer(call.arg(0, 'input'), recorded.module.weight, recorded.module.bias)


def _recorded(tape: RoITape) -> tuple[Tensor, Tensor, Tensor | None, str]:
    """The student's RoIs ``(n, 5)``, their logits ``(n, c)``, and their labels ``(n,)`` or why there are none."""
    if not tape.first_scores.calls:
        raise RuntimeError(f'expected a call of {tape.first_scores.name}, saw none')
    first_logits = tape.first_scores.calls[-1].output[0]
    if not len(first_logits):  # mmdet's BBoxHead.loss skips loss_cls, and its cascades leave out the later stages
        none = torch.zeros(0, dtype=torch.long, device=first_logits.device)
        return first_logits.new_zeros(0, 5), first_logits, none, ''
    # PISA calls the head for its sampling too, and ISR-P the loss: those that belong together share their tensor
    by_rows = [(i, target) for target in tape.targets.calls for i, scores in enumerate(tape.scores.calls)
               if target.arg(0, 'cls_score') is scores.output[0]]
    if by_rows:
        which, target = by_rows[-1]
    else:
        tape.scores.only()
        which, target = 0, None
    calls_each, rest = divmod(len(tape.rois.calls), len(tape.scores.calls))  # Double-Head extracts twice
    if rest or not calls_each:
        raise RuntimeError(f'expected as many calls of {tape.rois.name} for each call of {tape.scores.name}, saw '
                           f'{len(tape.rois.calls)} and {len(tape.scores.calls)}')
    logits, rois = tape.scores.calls[which].output[0], tape.rois.calls[which * calls_each].arg(1, 'rois')
    if len(rois) != len(logits):
        raise RuntimeError(f'expected {tape.scores.name} to give one row a RoI, saw {len(logits)} for {len(rois)} RoIs')
    if target is None:
        return rois, logits, None, 'its RoI head gives `loss_cls` other rows than those that `bbox_head` gave'
    labels, weights = target.arg(1, 'label'), target.get(2, 'weight')
    if labels.shape != logits.shape[:1]:
        return rois, logits, None, f'its RoI head gives `loss_cls` labels of shape {tuple(labels.shape)}'
    return rois, logits, labels if weights is None else labels.masked_fill(weights <= 0, -1), ''
