"""All queries of two DETR-like detectors in pairs of least cost."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from ckd_mmdet.aligners import QueryAligner
from ckd_mmdet.aligners.query_pairs import _least, pair_costs
from ckd_mmdet.auto import distill_config
from ckd_mmdet.cached.teacher import asking_cache
from ckd_mmdet.classes import SharedClasses
from ckd_mmdet.losses import KDLoss
from ckd_mmdet.samples import AlignedSamples, Side
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from tests.aligners.scenes import answered, copied, hear, logits, training
from tests.toys import QUERIES, saved_teacher, toy_batch, toy_config, toy_model, toy_query_config


def boxes(n: int, draw: torch.Generator) -> Tensor:
    corners = torch.rand(n, 2, generator=draw, dtype=torch.float64) / 2
    return torch.cat([corners, corners + 0.05 + torch.rand(n, 2, generator=draw, dtype=torch.float64) / 3], 1)


def cost_by_hand(ours: list, theirs: list, box: list, other: list) -> float:
    classes = sum(-q * math.log(p) - (1 - q) * math.log(1 - p) for p, q in zip(ours, theirs, strict=True))
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    inner = [max(0, min(box[i + 2], other[i + 2]) - max(box[i], other[i])) for i in range(2)]
    outer = [max(box[i + 2], other[i + 2]) - min(box[i], other[i]) for i in range(2)]
    union = sum(areas) - inner[0] * inner[1]
    giou = inner[0] * inner[1] / union - (outer[0] * outer[1] - union) / (outer[0] * outer[1])
    place = [[(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]] for b in (box, other)]
    return classes + 5 * sum(abs(a - b) for a, b in zip(*place, strict=True)) + 2 * (1 - giou)


def test_the_cost_of_a_pair_is_the_loop_and_the_pairs_are_the_cheapest() -> None:
    draw = torch.Generator().manual_seed(0)
    for q, k in ((4, 3), (2, 5)):
        ours, theirs = (torch.rand(n, 3, generator=draw, dtype=torch.float64) * 0.9 + 0.05 for n in (q, k))
        our_boxes, their_boxes = boxes(q, draw), boxes(k, draw)
        costs = pair_costs(ours, theirs, our_boxes, their_boxes)
        expected = [[cost_by_hand(*pair) for pair in zip([one] * k, theirs.tolist(), [box] * k, their_boxes.tolist(),
                                                         strict=True)]
                    for one, box in zip(ours.tolist(), our_boxes.tolist(), strict=True)]
        torch.testing.assert_close(costs, torch.tensor(expected), rtol=1e-4, atol=1e-4)
        rows, columns = _least(costs)
        fewer, more = sorted((q, k))
        sums = [sum((costs[i, j] if q <= k else costs[j, i]) for i, j in enumerate(order))
                for order in itertools.permutations(range(more), fewer)]
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == fewer
        torch.testing.assert_close(costs[rows, columns].sum(), min(sums))
    none = _least(torch.zeros(3, 0))
    assert [len(part) for part in none] == [0, 0]


def built(name: str, seed: int = 0, **config: int) -> nn.Module:
    model = toy_model(toy_query_config(name, **config), seed)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return training(model)


@pytest.mark.parametrize('name', QUERIES)
def test_a_teacher_that_is_the_student_is_paired_with_it_query_by_query(name: str) -> None:
    student, aligner = built(name), QueryAligner(pair='teacher')
    aligner.scorings(student, copied(student))
    answer = answered(aligner, copied(student), hear(aligner, student))
    ours, theirs = logits(answer)
    assert len(ours) > 16 and answer.labels is None and not theirs.requires_grad
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)  # denoising queries change the order of sums
    every = torch.arange(len(ours))
    ours_boxes, theirs_boxes = (side.take(every, None) for side in answer.boxes)
    torch.testing.assert_close(ours_boxes, theirs_boxes, rtol=0, atol=1e-3)
    (ours.square().sum() + ours_boxes.sum()).backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in student.backbone.parameters())


def test_every_layer_and_image_has_its_pairs_and_classes_are_those_that_both_know() -> None:
    student, teacher = built('deformable_detr'), built('deformable_detr', seed=1, num_classes=5).eval()
    aligner = QueryAligner(layers='all', pair='teacher')
    answer = answered(aligner, teacher, hear(aligner, student), SharedClasses((0, 2), (4, 1)))
    assert answer.level_ids.tolist() == [0] * 24 + [1] * 24
    assert answer.image_ids.tolist() == ([0] * 12 + [1] * 12) * 2
    assert [side.scores.shape[1] for side in (answer.student, answer.teacher)] == [3, 5]


def test_rows_weigh_by_the_teachers_confidence() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    for scoring, probabilities in (('sigmoid', teacher.sigmoid()), ('softmax', teacher.softmax(1)[:, :2])):
        samples = AlignedSamples(Side(student), Side(teacher), probabilities.shape[1], scoring=scoring)
        rows, weights = KDLoss().per_sample(samples, epoch=0), probabilities.amax(1)
        torch.testing.assert_close(KDLoss(weight_by='confidence')(samples), (weights * rows).sum() / weights.sum())
    with pytest.raises(ValueError, match=r"needs `weight_by` to be one of \(None, 'confidence'\), got 'gap'"):
        KDLoss(weight_by='gap')


def test_a_step_of_the_method_has_both_losses(tmp_path: Path) -> None:
    model = Config(dict(default_scope='mmdet', model=toy_config('deformable_detr')))
    made = distill_config(model, model, 'detrdistill', teacher_checkpoint=saved_teacher(tmp_path, model.model))
    student = MODELS.build(made.model)
    student.distillation.pair(student, None)
    batch = student.data_preprocessor(toy_batch(num_items=[3, 3]), True)
    losses = student.train()(**batch, mode='loss')
    assert losses['query.loss_kd'] > 0 < losses['query.loss_boxes'] and losses['query.rows'] == 24


# Refusals


def test_labels_and_other_words_are_refused() -> None:
    with pytest.raises(ValueError, match="needs `pair` to be 'objects' or 'teacher', got 'all'"):
        QueryAligner(pair='all')
    model = Config(dict(default_scope='mmdet', model=toy_config('deformable_detr')))
    with pytest.raises(ValueError, match='needs labels for Foreground, and with .* a row is a pair of queries'):
        distill_config(model, model, 'detrdistill', teacher_checkpoint='weights.pth', selector='Foreground')
    with pytest.raises(ValueError, match="`pair='teacher'`, as `--method detrdistill`, and a cache keeps"):
        asking_cache('query', dict(aligner=dict(type='QueryAligner', pair='teacher'), losses={}))
