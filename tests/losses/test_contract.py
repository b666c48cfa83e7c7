"""What holds for every registered loss."""

import copy
import math

import ckd_mmdet.losses  # noqa: F401  registers them
import pytest
import torch
from ckd_mmdet.losses import DistillLoss, RowLoss
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedSamples, Side
from torch import Tensor, nn

# ours alone: other tests register losses that only serve to be refused
LOSSES = sorted((part for part in MODELS.module_dict.values()
                 if issubclass(part, DistillLoss) and part.__module__.startswith('ckd_mmdet.')),
                key=lambda part: part.__name__)
NUM_CLASSES = 4

every_loss = pytest.mark.parametrize('kind', LOSSES)


def rows(n: int, seed: int = 0) -> AlignedSamples:
    """``n`` rows over two images, background and ignored ones among them; both sides would take a gradient."""
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(n, NUM_CLASSES + 1, generator=draw) for _ in range(2))
    labels = torch.randint(-1, NUM_CLASSES + 1, (n,), generator=draw)
    return AlignedSamples(Side(student.requires_grad_()), Side(teacher.requires_grad_()), NUM_CLASSES, labels,
                          torch.arange(n) * 2 // max(n, 1))


def pick(samples: AlignedSamples, index: Tensor) -> AlignedSamples:
    return AlignedSamples(Side(samples.student.logits[index]), Side(samples.teacher.logits[index]), samples.num_classes,
                          samples.labels[index], samples.image_ids[index])


def logits_as(samples: AlignedSamples, dtype: torch.dtype) -> AlignedSamples:
    return AlignedSamples(Side(samples.student.logits.to(dtype)), Side(samples.teacher.logits.to(dtype)),
                          samples.num_classes, samples.labels, samples.image_ids)


def test_there_are_losses() -> None:
    assert {'CKDLoss', 'DISTLoss', 'DKDLoss', 'KDLoss'} <= {loss.__name__ for loss in LOSSES}


@every_loss
def test_it_gives_one_number_with_a_gradient(kind: type[DistillLoss]) -> None:
    samples = rows(8)
    loss = kind()(samples, epoch=3)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0
    loss.backward()
    # a loss that reads labels has nothing to say of a row to be ignored; every other row, and loss, counts
    counted = samples.labels >= 0 if 'labels' in kind().requires else torch.ones(8, dtype=torch.bool)
    assert counted.any() and not (samples.labels >= 0).all()
    assert torch.equal(samples.student.logits.grad.any(1), counted)


@every_loss
def test_it_is_linear_in_its_weight(kind: type[DistillLoss]) -> None:
    samples = rows(8)
    one, more = kind(loss_weight=1.0)(samples), kind(loss_weight=2.5)(samples)
    torch.testing.assert_close(more, 2.5 * one)


@every_loss
def test_the_order_of_the_rows_does_not_count_but_their_pairing_does(kind: type[DistillLoss]) -> None:
    samples, order = rows(8), torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    shuffled = pick(samples, order)
    torch.testing.assert_close(kind()(shuffled), kind()(samples))
    torn = AlignedSamples(shuffled.student, samples.teacher, NUM_CLASSES, samples.labels, samples.image_ids)
    assert abs(kind()(torn) - kind()(samples)) > 1e-2


@every_loss
def test_without_rows_it_is_zero_with_a_graph(kind: type[DistillLoss]) -> None:
    samples = rows(0)
    loss = kind()(samples)
    assert loss.shape == ()
    assert loss == 0
    loss.backward()
    assert samples.student.logits.grad.shape == (0, NUM_CLASSES + 1)


@every_loss
def test_one_row_is_enough(kind: type[DistillLoss]) -> None:
    samples = rows(1)
    loss = kind()(samples)
    assert loss.isfinite()
    loss.backward()
    assert samples.student.logits.grad.isfinite().all()


@every_loss
def test_zero_weight_switches_it_off_and_keeps_the_graph(kind: type[DistillLoss]) -> None:
    samples = rows(8)
    loss = kind(loss_weight=0)(samples)
    assert loss == 0
    loss.backward()
    assert samples.student.logits.grad is not None
    assert not samples.student.logits.grad.any()


@every_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_it_computes_in_float32_under_autocast(kind: type[DistillLoss], dtype: torch.dtype) -> None:
    half = logits_as(rows(64), dtype)
    with torch.autocast('cpu', dtype=dtype):
        loss = kind()(half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, kind()(logits_as(half, torch.float32)))
    assert torch.autograd.grad(loss, half.student.logits)[0].isfinite().all()


@every_loss
def test_no_gradient_flows_to_the_teacher(kind: type[DistillLoss]) -> None:
    samples = rows(8)
    kind()(samples).backward()
    assert samples.teacher.logits.grad is None


@every_loss
def test_a_copy_gives_the_same_after_the_original_was_used(kind: type[DistillLoss]) -> None:
    loss = kind(loss_weight=0.3)
    value = loss(rows(8))
    assert copy.deepcopy(loss)(rows(8)) == value
    assert loss(rows(8)) == value  # nor does it remember a batch


@every_loss
@pytest.mark.parametrize('weight', [-0.1, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(kind: type[DistillLoss], weight: float) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` needs a finite `loss_weight` of at least 0, got {weight}'):
        kind(loss_weight=weight)


@every_loss
def test_it_says_what_it_requires(kind: type[DistillLoss]) -> None:
    assert 'logits' in kind().requires
    assert kind().requires <= {'logits', 'labels', 'image_ids'}


class Projected(RowLoss):
    """A loss that learns."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.projector = nn.Linear(NUM_CLASSES + 1, 1)

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return epoch * self.projector(samples.student.logits).squeeze(1)


@pytest.mark.parametrize(('n', 'weight'), [(0, 1.0), (8, 0.0)], ids=['no row', 'no weight'])
def test_what_a_loss_learns_stays_in_the_graph(n: int, weight: float) -> None:
    loss = Projected(weight)
    loss(rows(n), epoch=math.nan).backward()  # nor is it computed
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_a_row_loss_is_the_weighted_mean_of_its_rows_at_the_epoch() -> None:
    loss, samples = Projected(0.5), rows(8)
    torch.testing.assert_close(loss(samples, epoch=3), 1.5 * loss.projector(samples.student.logits).mean())
