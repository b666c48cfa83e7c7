from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from ckd_mmdet.boxes import TableBoxes
from ckd_mmdet.classes import Scoring, SharedClasses
from ckd_mmdet.registry import TASK_UTILS
from ckd_mmdet.rows import Ranking, TableRows
from ckd_mmdet.samples import Answer
from ckd_mmdet.taps import ModuleTap
from mmdet.models.dense_heads import DDQDETRHead, DETRHead, DINOHead, GroundingDINOHead
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.structures import BaseDataElement, InstanceData
from torch import Tensor, nn

from .base import Aligner, true_boxes
from .query_pairs import WHY_NONE, paired_queries


@dataclass(frozen=True)
class QueryTape:
    """The student, and the calls of its head in one step."""

    model: nn.Module
    head: ModuleTap


@TASK_UTILS.register_module()
class QueryAligner(Aligner):
    """Pairs the queries of DETR-like detectors that each side's own head matches to the same ground-truth object.

    For DETR, Conditional, DAB and Deformable DETR, DINO and DDQ, of any kind on either side: the numbers of their
    queries may differ. Of a teacher in the shape of Co-DETR, with several heads over one neck, its ``query_head`` is
    asked, which has its transformer in it. A row is an object, image by image in the order of the ground truth; its
    logits are those of the query that the head's own ``assigner`` gives it. An object for which one of the sides has no
    query left is left out. Denoising and auxiliary queries are never matched.

    With ``pair='teacher'`` all predictions are paired instead, of the two sides by least cost, see
    :func:`ckd_mmdet.aligners.query_pairs.pair_costs` (DETRDistill, arXiv 2211.10156). Most of them hold no object: rows
    have no labels then, and losses weigh them by the teacher's confidence, with ``weight_by='confidence'``.

    Args:
        layers: ``'last'``, the last decoder layer of each side; or ``'all'``: every layer answers for every object,
            layer by layer, and ``level_ids`` are the layers. Both sides then need as many.
        pair: By ``'objects'``, or all predictions with those of the ``'teacher'``.

    Raises:
        ValueError: If an argument is none of these.
    """

    provides = frozenset({'logits', 'labels', 'image_ids', 'level_ids', 'boxes', 'truths'})
    lacks = {'masks': 'its queries have none', 'regions': 'its rows are objects, each another one'}

    def __init__(self, layers: str = 'last', pair: str = 'objects') -> None:
        if layers not in ('last', 'all'):
            raise ValueError(f"`QueryAligner` needs `layers` to be 'last' or 'all', got {layers!r}.")
        if pair not in ('objects', 'teacher'):
            raise ValueError(f"`QueryAligner` needs `pair` to be 'objects' or 'teacher', got {pair!r}.")
        self.layers = layers
        self.pair = pair

    def gives_labels(self, student: nn.Module) -> bool | None:
        return self.pair == 'objects'

    def why_no_labels(self, student: nn.Module) -> str:
        return WHY_NONE if self.pair == 'teacher' else super().why_no_labels(student)

    def rows_in_words(self, student: nn.Module) -> str:
        return super().rows_in_words(student) if self.pair == 'objects' else 'one a pair of queries'

    def scorings(self, student: nn.Module, teacher: nn.Module) -> tuple[Scoring, Scoring]:
        scorings = query_scoring(student, 'student', 'QueryAligner'), query_scoring(teacher, 'teacher', 'QueryAligner')
        if self.layers == 'last':
            return scorings
        if hasattr(teacher, 'query_head'):
            raise ValueError(f"`QueryAligner` with `layers='all'` needs the teacher's decoder outside its head, and a "
                             f"{type(teacher).__name__} has it in its `query_head`; take `layers='last'`.")
        ours, theirs = _num_layers(student), _num_layers(teacher)
        if ours != theirs:
            raise ValueError(f"`QueryAligner` with `layers='all'` needs as many decoder layers in the teacher "
                             f"({theirs}) as in the student ({ours}); take `layers='last'`.")
        return scorings

    @contextmanager
    def listen(self, student: nn.Module) -> Iterator[QueryTape]:
        with listen_to_queries(student) as tape:
            yield tape

    def ask(self, teacher: nn.Module, feats: Sequence[Tensor], tape: QueryTape,
            data_samples: Sequence[BaseDataElement], classes: SharedClasses | None = None) -> Answer:
        ours = Queries.recorded(tape)
        known, samples = in_classes_of_teacher(data_samples, classes)
        theirs = Queries.asked(teacher, feats, samples)
        layers = list(range(len(ours))) if self.layers == 'all' else [-1]
        if self.pair == 'teacher':
            shared = classes or SharedClasses.all(ours.head.num_classes)
            return paired_queries(ours, theirs, layers, data_samples, shared)
        images, labels = image_ids(data_samples), torch.cat([sample.gt_instances.labels for sample in data_samples])
        student_rows, teacher_rows, objects, levels = [], [], [], []
        boxes: tuple[list[Tensor], list[Tensor]] = [], []
        for layer in layers:
            our_logits, our_boxes, of_ours = ours.of_objects(layer, data_samples)
            their_logits, their_boxes, of_theirs = theirs.of_objects(layer, samples)
            found = of_ours[known] & of_theirs
            both = known[found]
            student_rows.append(our_logits[both])
            teacher_rows.append(their_logits[found])
            boxes[0].append(our_boxes[both])
            boxes[1].append(their_boxes[found])
            objects.append(both)
            levels.append(torch.full_like(both, layer % len(ours)))
        chosen, truths = torch.cat(objects), true_boxes(data_samples)
        return Answer(TableRows(torch.cat(student_rows), ours.ranking),
                      TableRows(torch.cat(teacher_rows), theirs.ranking),
                      labels[chosen], images[chosen], torch.cat(levels),
                      boxes=(TableBoxes(torch.cat(boxes[0])), TableBoxes(torch.cat(boxes[1]))), truths=truths,
                      regions=truths.boxes[chosen])


def query_scoring(model: nn.Module, side: str, aligner: str) -> Scoring:
    """How the head of a DETR-like detector writes the scores of a query.

    Raises:
        ValueError: If the model is none, or cannot match queries to objects.
    """
    head = getattr(model, 'query_head', getattr(model, 'bbox_head', None))
    if side == 'student' and hasattr(model, 'query_head'):
        raise ValueError(f'`{aligner}` asks the `query_head` of a teacher, and cannot listen to that of a '
                         f'{type(model).__name__} as student; take `--method l2`, or another student.')
    if not isinstance(head, DETRHead):
        has = 'none' if head is None else f'a {type(head).__name__}'
        raise ValueError(f'`{aligner}` needs a {side} with queries, whose `bbox_head` is a DETRHead (DETR, '
                         f'Conditional, DAB and Deformable DETR, DINO, DDQ); this {type(model).__name__} has {has}; '
                         'take an ObjectAligner, or another detector.')
    if isinstance(head, GroundingDINOHead):
        raise ValueError(f"`{aligner}` cannot pair the {side}'s {type(model).__name__}: it scores the words of a text, "
                         'not classes; give a detector with a fixed set of classes.')
    if not hasattr(head, 'assigner'):
        raise ValueError(f"`{aligner}` needs the {side}'s `bbox_head.assigner` to match queries to objects, and its "
                         'config has no `train_cfg.assigner`; add the `train_cfg` that it was trained with.')
    return Scoring(head.num_classes, not head.loss_cls.use_sigmoid)


@contextmanager
def listen_to_queries(model: nn.Module) -> Iterator[QueryTape]:
    """Record what the head says of its queries."""
    with ModuleTap(model.bbox_head, 'bbox_head') as head:
        yield QueryTape(model, head)


@dataclass(frozen=True)
class Queries:
    """What a head says of the queries that it matches to objects, for ``l`` decoder layers and ``q`` queries."""

    head: nn.Module
    scores: Tensor
    """Shape ``(l, N, q, c)``."""
    boxes: Tensor
    """Centre, width and height as parts of the image's, shape ``(l, N, q, 4)``."""
    kept: Sequence[Tensor | None]
    """Of each layer, which queries may be matched, ``(N, q)`` bool; ``None`` where all may."""
    of_batch: bool = False
    """Whether its boxes are parts of the padded batch's height and width, and not of their image's."""

    @classmethod
    def recorded(cls, tape: QueryTape) -> Queries:
        """Those of a step, or of a call without ground truth, that was listened to."""
        head = tape.model.bbox_head
        scores, boxes = tape.head.only().output
        kept = [None] * len(scores)
        if isinstance(head, DINOHead):  # its denoising queries stand first
            first, count = scores.shape[2] - tape.model.num_queries, tape.model.num_queries
            if isinstance(head, DDQDETRHead):  # its dense queries, with classifiers of their own, stand last
                first, count = head.cache_dict['dis_query_info']
                kept = [None, *(mask[::head.cache_dict['num_heads'], 0]  # as in its own loss
                                for mask in head.cache_dict['distinct_query_mask'])]
            scores, boxes = scores[:, :, first:first + count], boxes[:, :, first:first + count]
        return cls(head, scores, boxes, kept)

    @classmethod
    @torch.no_grad()
    def asked(cls, model: nn.Module, feats: Sequence[Tensor], data_samples: Sequence[BaseDataElement]) -> Queries:
        """Those of a model at rest, from the features of its neck, without gradient."""
        if hasattr(model, 'query_head'):
            of_batch = not getattr(model, 'with_attn_mask', True)  # Co-DETR then takes the padding for image, too
            head, metas = model.query_head, [_as_sized(sample, of_batch) for sample in data_samples]
            scores, boxes = head(feats, metas)[:2]
            return cls(head, scores, boxes, [None] * len(scores), of_batch)
        inputs = model.forward_transformer(feats, data_samples)
        with listen_to_queries(model) as tape:
            # what only its loss needs stands beside these
            model.bbox_head(**{name: inputs[name] for name in inspect.signature(model.bbox_head.forward).parameters})
        return cls.recorded(tape)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def ranking(self) -> Ranking:
        """How the head ranks its queries at test time."""
        return Ranking(softmax=not self.head.loss_cls.use_sigmoid)

    def logits(self, layer: int, data_samples: Sequence[BaseDataElement]) -> tuple[Tensor, Tensor]:
        """As :meth:`of_objects`, without boxes."""
        scores, _, found = self.of_objects(layer, data_samples)
        return scores, found

    def of_objects(self, layer: int, data_samples: Sequence[BaseDataElement]) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and box of the query that a layer matches to each of the batch's ``k`` objects.

        Returns:
            Shape ``(k, c)``; corners in pixels, ``(k, 4)``; and ``(k,)`` bool, which of them are matched at all.
        """
        queries = torch.cat([self._match(layer, image, sample) for image, sample in enumerate(data_samples)])
        places = image_ids(data_samples), queries.clamp(min=0)
        sizes = [_as_sized(sample, self.of_batch)['img_shape'][::-1] for sample in data_samples]
        boxes = bbox_cxcywh_to_xyxy(self.boxes[layer][places].float()) * torch.cat(
            [queries.new_tensor([*size, *size]).expand(len(sample.gt_instances), 4)
             for size, sample in zip(sizes, data_samples, strict=True)])
        return self.scores[layer][places], boxes, queries >= 0

    def of_image(self, layer: int, image: int, sample: BaseDataElement) -> tuple[Tensor, Tensor]:
        """Scores ``(q, c)`` of the queries of a layer and an image that may be matched; and their boxes, corners in
        pixels, ``(q, 4)``."""
        scores, boxes, kept = self.scores[layer, image], self.boxes[layer, image], self.kept[layer]
        height, width = _as_sized(sample, self.of_batch)['img_shape']
        corners = bbox_cxcywh_to_xyxy(boxes.float()) * boxes.new_tensor([width, height, width, height]).float()
        return (scores, corners) if kept is None else (scores[kept[image]], corners[kept[image]])

    @torch.no_grad()
    def _match(self, layer: int, image: int, sample: BaseDataElement) -> Tensor:
        """Query of each object of an image, -1 where there is none."""
        scores, boxes = self.scores[layer, image], self.boxes[layer, image]
        kept = self.kept[layer]
        candidates = (torch.arange(len(scores), device=scores.device) if kept is None else
                      kept[image].nonzero().squeeze(1))
        meta = _as_sized(sample, self.of_batch)
        height, width = meta['img_shape']
        boxes = bbox_cxcywh_to_xyxy(boxes[candidates]) * boxes.new_tensor([width, height, width, height])
        matched = self.head.assigner.assign(InstanceData(scores=scores[candidates], bboxes=boxes), sample.gt_instances,
                                            img_meta=meta).gt_inds  # (q,), 0 for none, else object + 1
        queries = matched.new_full((len(sample.gt_instances),), -1)
        queries[matched[matched > 0] - 1] = candidates[matched > 0]
        return queries


def _as_sized(sample: BaseDataElement, of_batch: bool) -> dict:
    """An image's meta information; its ``img_shape`` is that of the padded batch where ``of_batch`` says so."""
    return {**sample.metainfo, 'img_shape': sample.batch_input_shape} if of_batch else sample.metainfo


def image_ids(data_samples: Sequence[BaseDataElement]) -> Tensor:
    """Image of each of the batch's objects, shape ``(k,)``."""
    labels = [sample.gt_instances.labels for sample in data_samples]
    return torch.cat([torch.full_like(part, image) for image, part in enumerate(labels)])


def in_classes_of_teacher(data_samples: Sequence[BaseDataElement],
                          shared: SharedClasses | None) -> tuple[Tensor, Sequence[BaseDataElement]]:
    """The batch as the teacher knows it: its objects of shared classes, with the teacher's numbers as labels.

    Returns:
        Which of the batch's objects these are, shape ``(k,)`` int64, ascending; and copies of the samples with their
        boxes and labels.
    """
    labels = torch.cat([sample.gt_instances.labels for sample in data_samples])
    if shared is None:
        return torch.arange(len(labels), device=labels.device), data_samples
    ours, theirs = labels.new_tensor(shared.student), labels.new_tensor(shared.teacher)
    same = labels[:, None] == ours
    known = same.any(1)
    labels = torch.where(known, theirs[same.int().argmax(1)], -1)
    samples = []
    for sample, of_sample in zip(data_samples, labels.split([len(sample.gt_instances) for sample in data_samples]),
                                 strict=True):
        keep = of_sample >= 0
        samples.append(sample.new())
        samples[-1].gt_instances = InstanceData(bboxes=sample.gt_instances.bboxes[keep], labels=of_sample[keep])
    return known.nonzero().squeeze(1), samples


def _num_layers(model: nn.Module) -> int:
    return len(model.decoder.layers) if model.decoder.return_intermediate else 1
