"""The divergence of masks, against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from ckd_mmdet.functional import mask_kd_loss
from torch import Tensor


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def by_loops(student: Tensor, teacher: Tensor, temperature: float) -> list[float]:
    values = []
    for ours, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        terms = []
        for s, t in zip(sum(ours, []), sum(theirs, []), strict=True):
            p, q = sigmoid(t / temperature), sigmoid(s / temperature)
            cross = -p * math.log(q) - (1 - p) * math.log(1 - q)
            entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
            terms.append(temperature**2 * (cross - entropy))
        values.append(sum(terms) / len(terms))
    return values


@pytest.mark.parametrize('seed', range(3))
def test_it_is_the_loop(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    n, h, w = (int(size) for size in torch.randint(1, 5, (3,), generator=draw))
    student, teacher = (torch.randn(n, h, w, dtype=torch.float64, generator=draw) for _ in range(2))
    student.requires_grad_()
    for temperature in (1.0, 3.0):
        found = mask_kd_loss(student, teacher, temperature=temperature)
        torch.testing.assert_close(found.tolist(), by_loops(student, teacher, temperature), rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda masks: mask_kd_loss(masks, teacher), student)
    # at temperature 1 the gradient of the cross-entropy
    gradient, = torch.autograd.grad(mask_kd_loss(student, teacher).sum(), student)
    torch.testing.assert_close(gradient, (student.sigmoid() - teacher.sigmoid()) / (h * w))


def test_equal_masks_have_no_loss_and_no_row_none() -> None:
    masks = 40 * torch.randn(4, 5, 5)
    assert not mask_kd_loss(masks, masks).any()
    assert mask_kd_loss(masks[:0], masks[:0]).shape == (0,)


@pytest.mark.parametrize('shapes', [((2, 3), (2, 3)), ((2, 3, 3), (2, 3, 4))])
def test_other_shapes_are_refused(shapes: tuple) -> None:
    with pytest.raises(ValueError, match=r'needs masks of one shape \(n, h, w\) on both sides, got'):
        mask_kd_loss(*(torch.zeros(shape) for shape in shapes))
