"""What holds for every registered loss."""

import copy
import inspect
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ckd_mmdet.losses  # noqa: F401  registers them
import pytest
import torch
from ckd_mmdet.losses import (
    CenterAlignmentLoss,
    CWDLoss,
    DistillLoss,
    FGDLoss,
    L2Loss,
    MapLoss,
    MGDLoss,
    PKDLoss,
    RowLoss,
)
from ckd_mmdet.registry import MODELS
from ckd_mmdet.samples import AlignedMaps, AlignedSamples, Side, Widths
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

# ours alone: other tests register losses that only serve to be refused
LOSSES = sorted((part for part in MODELS.module_dict.values()
                 if isinstance(part, type) and issubclass(part, DistillLoss)
                 and part.__module__.startswith('ckd_mmdet.')),
                key=lambda part: part.__name__)
ROW_LOSSES = [loss for loss in LOSSES if issubclass(loss, RowLoss)]
MAP_LOSSES = [loss for loss in LOSSES if issubclass(loss, MapLoss)]
NUM_CLASSES = 4
ROW_WIDTHS = Widths(student=(6,), teacher=(7,))
WIDTHS = Widths(student=(6, 8, 8), teacher=(8, 8, 8))
SIZES = [(8, 6), (4, 3), (2, 2)]
LARGE = {FGDLoss: dict(alpha=0.5, beta=0.5, gamma=0.1, lambda_=0.01), MGDLoss: dict(alpha=0.01, mask_ratio=0.1)}
"""Settings with which the loss of such small maps is of the order of 1."""

every_loss = pytest.mark.parametrize('kind', LOSSES)
every_row_loss = pytest.mark.parametrize('kind', ROW_LOSSES)
every_map_loss = pytest.mark.parametrize('kind', MAP_LOSSES)


def rows(n: int, seed: int = 0) -> AlignedSamples:
    """``n`` rows over two images, background and ignored ones among them; both sides would take a gradient."""
    draw = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(n, NUM_CLASSES + 1, generator=draw) for _ in range(2))
    labels = torch.randint(-1, NUM_CLASSES + 1, (n,), generator=draw)

    def side(logits: Tensor, width: int) -> Side:
        layer = [torch.randn(shape, generator=draw) for shape in ((NUM_CLASSES + 1, width), (NUM_CLASSES + 1,))]
        corners = 40 * torch.rand(n, 2, generator=draw)
        boxes = torch.cat([corners, corners + 10 + 40 * torch.rand(n, 2, generator=draw)], 1)
        return Side(*(part.requires_grad_() for part in (logits, torch.randn(n, width, generator=draw), *layer)),
                    boxes=boxes.requires_grad_(),
                    distributions=torch.randn(n, 4, 5, generator=draw).requires_grad_(),
                    masks=torch.randn(n, 3, 2, generator=draw).requires_grad_())

    return AlignedSamples(side(student, *ROW_WIDTHS.student), side(teacher, *ROW_WIDTHS.teacher), NUM_CLASSES, labels,
                          torch.arange(n) * 2 // max(n, 1))


def rows_as(samples: AlignedSamples, dtype: torch.dtype) -> AlignedSamples:
    return replace(samples, **{name: replace(side, logits=side.logits.to(dtype), features=side.features.to(dtype))
                               for name, side in (('student', samples.student), ('teacher', samples.teacher))})


def made(kind: type[RowLoss], **settings: Any) -> RowLoss:
    """With what it learns, if it learns anything."""
    torch.manual_seed(0)
    loss = kind(**settings)
    loss.build_parts(ROW_WIDTHS)
    return loss


def read_by(kind: type[RowLoss], samples: AlignedSamples) -> Tensor:
    """What the loss reads of the student's rows."""
    for name in ('boxes', 'distributions', 'masks'):
        if name in kind.requires:
            return getattr(samples.student, name)
    return samples.student.features if 'features' in kind.requires else samples.student.logits


def maps(n: int, seed: int = 0) -> AlignedMaps:
    """Three levels of ``n`` images, from fine to coarse; both sides would take a gradient."""
    draw = torch.Generator().manual_seed(seed)

    def side(widths: tuple[int, ...]) -> list[Tensor]:
        return [(2 * torch.randn(n, width, *size, generator=draw) + 1).requires_grad_()
                for width, size in zip(widths, SIZES, strict=True)]

    boxes = [torch.tensor([[2., 3, 17 + 9 * i, 20], [30, 30, 40, 60]])[:2 - i % 2] for i in range(n)]
    return AlignedMaps(side(WIDTHS.student), side(WIDTHS.teacher), boxes, (64, 48))


def each_map(aligned: AlignedMaps, change: Callable[[Tensor], Tensor]) -> AlignedMaps:
    return replace(aligned, student=[change(level) for level in aligned.student],
                   teacher=[change(level) for level in aligned.teacher])


def built(kind: type[MapLoss], seed: int = 0, **settings: Any) -> MapLoss:
    """With what it learns."""
    torch.manual_seed(seed)
    loss = kind(**LARGE.get(kind, {}), **settings)
    loss.build_parts(WIDTHS)
    return loss


def learning(kind: type[DistillLoss], seed: int = 0, **settings: Any) -> DistillLoss:
    """Any loss, with what it learns; the last layers' alignment with its projector."""
    torch.manual_seed(seed)
    loss = kind(**(dict(project=True) if kind is CenterAlignmentLoss else {}), **settings)
    loss.build_parts(WIDTHS if kind in MAP_LOSSES else ROW_WIDTHS)
    return loss


def weighed(kind: type[DistillLoss]) -> list[dict]:
    """A given weight, and a balanced one where the loss may have it."""
    return [dict(loss_weight=0.5)] + [dict(loss_weight='balance:0.5')] * (kind is not CenterAlignmentLoss)


every_weighed_loss = pytest.mark.parametrize(('kind', 'settings'), [
    (kind, settings) for kind in LOSSES for settings in weighed(kind)])


def test_there_are_losses() -> None:
    assert {'CKDLoss', 'CategoryContrastLoss', 'DISTLoss', 'DKDLoss', 'FeatureAlignmentLoss', 'KDLoss'} <= {
        loss.__name__ for loss in ROW_LOSSES}
    assert {'L2Loss', 'PKDLoss', 'ReviewKDLoss'} <= {loss.__name__ for loss in MAP_LOSSES}
    # of the last layer, neither of rows nor of maps; tests/losses/test_category.py has it
    assert set(LOSSES) - set(ROW_LOSSES) - set(MAP_LOSSES) == {CenterAlignmentLoss}


@every_row_loss
def test_it_gives_one_number_with_a_gradient(kind: type[RowLoss]) -> None:
    samples = rows(8)
    loss = made(kind)(samples, epoch=3)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0
    loss.backward()
    counted = samples.labels >= 0  # nobody has anything to say of a row to be ignored; every other row counts
    assert counted.any() and not counted.all()
    assert torch.equal(read_by(kind, samples).grad.flatten(1).any(1), counted)


@every_row_loss
def test_it_is_linear_in_its_weight(kind: type[RowLoss]) -> None:
    samples = rows(8)
    one, more = made(kind, loss_weight=1.0)(samples), made(kind, loss_weight=2.5)(samples)
    torch.testing.assert_close(more, 2.5 * one)


@every_row_loss
def test_the_order_of_the_rows_does_not_count_but_their_pairing_does(kind: type[RowLoss]) -> None:
    samples, order = rows(8), torch.tensor([3, 7, 0, 2, 6, 1, 5, 4])
    shuffled = samples.select(order)
    torch.testing.assert_close(made(kind)(shuffled), made(kind)(samples))
    torn = replace(samples, student=shuffled.student)
    assert abs(made(kind)(torn) - made(kind)(samples)) > 1e-2


@every_row_loss
def test_without_rows_it_is_zero_with_a_graph(kind: type[RowLoss]) -> None:
    samples, loss = rows(0), made(kind)
    value = loss(samples)
    assert value.shape == ()
    assert value == 0
    value.backward()
    for tensor in [*loss.parameters(), *samples.student.tensors()]:
        assert tensor.grad is not None
        assert not tensor.grad.any()


@every_row_loss
def test_one_row_is_enough(kind: type[RowLoss]) -> None:
    samples = rows(1)
    loss = made(kind)(samples)
    assert loss.isfinite()
    loss.backward()
    assert read_by(kind, samples).grad.isfinite().all()


@every_row_loss
def test_zero_weight_switches_it_off_and_keeps_the_graph(kind: type[RowLoss]) -> None:
    samples, loss = rows(8), made(kind, loss_weight=0)
    value = loss(samples)
    assert value == 0
    value.backward()
    for tensor in [*loss.parameters(), *samples.student.tensors()]:
        assert tensor.grad is not None
        assert not tensor.grad.any()


@every_row_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_it_computes_in_float32_under_autocast(kind: type[RowLoss], dtype: torch.dtype) -> None:
    half = rows_as(rows(64), dtype)
    with torch.autocast('cpu', dtype=dtype):
        loss = made(kind)(half)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, made(kind)(rows_as(half, torch.float32)))
    assert torch.autograd.grad(loss, read_by(kind, half))[0].isfinite().all()


@every_row_loss
def test_no_gradient_flows_to_the_teacher(kind: type[RowLoss]) -> None:
    samples = rows(8)
    made(kind)(samples).backward()
    assert all(tensor.grad is None for tensor in samples.teacher.tensors())


@every_row_loss
def test_a_copy_gives_the_same_after_the_original_was_used(kind: type[RowLoss]) -> None:
    loss = made(kind, loss_weight=0.3)
    value = loss(rows(8))
    assert copy.deepcopy(loss)(rows(8)) == value
    assert loss(rows(8)) == value  # nor does it remember a batch


@every_loss
@pytest.mark.parametrize('weight', [-0.1, math.inf, math.nan])
def test_a_weight_that_is_none_is_refused(kind: type[DistillLoss], weight: float) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` needs a finite `loss_weight` of at least 0, got {weight}'):
        kind(loss_weight=weight)


@every_row_loss
def test_it_says_what_it_requires(kind: type[RowLoss]) -> None:
    assert 'logits' in kind().requires
    assert kind().requires <= {'logits', 'labels', 'image_ids', 'features', 'centers', 'boxes', 'truths',
                                'distributions', 'valuable', 'masks'}


class Projected(RowLoss):
    """A loss that learns."""

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__(loss_weight)
        self.build_parts(ROW_WIDTHS)

    def new_parts(self, widths: Widths) -> list[nn.Module]:
        return [nn.Linear(NUM_CLASSES + 1, 1)]

    def per_sample(self, samples: AlignedSamples, *, epoch: int) -> Tensor:
        return epoch * self.parts[0](samples.student.logits).squeeze(1)


@pytest.mark.parametrize(('n', 'weight'), [(0, 1.0), (8, 0.0)], ids=['no row', 'no weight'])
def test_what_a_loss_learns_stays_in_the_graph(n: int, weight: float) -> None:
    loss = Projected(weight)
    loss(rows(n), epoch=math.nan).backward()  # nor is it computed
    for parameter in loss.parameters():
        assert parameter.grad is not None
        assert not parameter.grad.any()


def test_a_row_loss_is_the_weighted_mean_of_its_rows_at_the_epoch() -> None:
    loss, samples = Projected(0.5), rows(8)
    counted = samples.student.logits[samples.labels >= 0]
    torch.testing.assert_close(loss(samples, epoch=3), 1.5 * loss.parts[0](counted).mean())


@every_map_loss
def test_of_maps_it_gives_one_number_with_a_gradient(kind: type[MapLoss]) -> None:
    aligned = maps(3)
    loss = built(kind)(aligned, epoch=3)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss > 0
    loss.backward()
    assert all(level.grad.flatten(1).any(1).all() for level in aligned.student)  # every image of every level


@every_map_loss
def test_of_maps_it_is_linear_in_its_weight(kind: type[MapLoss]) -> None:
    aligned = maps(3)
    one, more = built(kind, loss_weight=1.0)(aligned), built(kind, loss_weight=2.5)(aligned)
    torch.testing.assert_close(more, 2.5 * one)


@every_map_loss
def test_the_order_of_the_images_does_not_count_but_their_pairing_does(kind: type[MapLoss]) -> None:
    loss, aligned, order = built(kind), maps(4), torch.tensor([2, 0, 3, 1])
    shuffled = replace(each_map(aligned, lambda level: level[order]), boxes=[aligned.boxes[i] for i in order])
    torch.testing.assert_close(loss(shuffled), loss(aligned))
    torn = replace(aligned, student=shuffled.student)
    assert abs(loss(torn) - loss(aligned)) > 1e-2


@every_map_loss
@pytest.mark.parametrize(('n', 'weight', 'epoch'), [(0, 1.0, 0), (2, 0.0, 0), (2, dict(value=1.0, stop=1), 1)],
                         ids=['no image', 'no weight', 'over'])
def test_of_maps_that_do_not_count_it_is_zero_with_a_graph(kind: type[MapLoss], n: int, weight: float | dict,
                                                           epoch: int) -> None:
    loss = built(kind, loss_weight=weight)
    aligned = each_map(maps(n), lambda level: torch.full_like(level, math.nan, requires_grad=True))
    value = loss(aligned, epoch=epoch)
    assert value.shape == ()
    assert value == 0
    value.backward()
    learned = list(loss.parameters())
    assert learned
    for tensor in [*learned, *aligned.student]:
        assert tensor.grad is not None
        assert not tensor.grad.any()


@every_map_loss
def test_one_image_is_enough(kind: type[MapLoss]) -> None:
    aligned = maps(1)
    loss = built(kind)(aligned)
    assert loss.isfinite()
    loss.backward()
    assert all(level.grad.isfinite().all() for level in aligned.student)


@every_map_loss
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_of_maps_in_half_precision_it_computes_in_float32(kind: type[MapLoss], dtype: torch.dtype) -> None:
    loss, half = built(kind), each_map(maps(3), lambda level: level.detach().to(dtype).requires_grad_())
    with torch.autocast('cpu', dtype=dtype):
        value = loss(half)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(each_map(half, Tensor.float)), rtol=0.01, atol=0)
    value.backward()
    assert all(level.grad.isfinite().all() for level in half.student)
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())


@every_map_loss
def test_no_gradient_flows_to_the_teachers_maps(kind: type[MapLoss]) -> None:
    aligned = maps(3)
    built(kind)(aligned).backward()
    assert all(level.grad is None for level in aligned.teacher)


@every_map_loss
def test_a_copy_of_a_map_loss_gives_the_same_after_the_original_was_used(kind: type[MapLoss]) -> None:
    loss = built(kind, loss_weight=0.3)
    value = loss(maps(3))
    twin = copy.deepcopy(loss)
    assert twin(maps(3)) == value
    assert loss(maps(3)) == value
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert loss(maps(3)) == value  # they share nothing


@pytest.mark.parametrize('kind', [L2Loss, PKDLoss, CWDLoss])
def test_equal_maps_cost_nothing(kind: type[MapLoss]) -> None:
    loss = kind()
    loss.build_parts(Widths(WIDTHS.teacher, WIDTHS.teacher))
    teacher = maps(3).teacher
    student = [level.detach().clone().requires_grad_() for level in teacher]
    value = loss(AlignedMaps(student, teacher))
    assert value.item() == pytest.approx(0, abs=1e-10)
    value.backward()
    assert all(level.grad.abs().max() < 1e-6 for level in student)


@every_map_loss
def test_what_it_learned_comes_back_from_its_state_dict(kind: type[MapLoss]) -> None:
    loss, other, aligned = built(kind), built(kind, seed=1), maps(3)
    assert abs(loss(aligned) - other(aligned)) > 1e-3
    other.load_state_dict(loss.state_dict(), strict=True)
    assert loss(aligned) == other(aligned)


@every_map_loss
def test_what_it_learns_brings_the_student_nearer(kind: type[MapLoss]) -> None:
    loss, aligned = built(kind), maps(3)
    first = loss(aligned)
    for _ in range(2):  # what starts at zero lets nothing through to what lies before it
        loss.zero_grad()
        loss(aligned).backward()
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter -= 0.01 * parameter.grad
    # a bias is no use to a loss that does not look at a channel's mean
    assert all(parameter.grad.any() for parameter in loss.parameters() if parameter.ndim > 1)
    assert loss(aligned) < first - 1e-4


@every_map_loss
def test_before_it_knows_the_widths_it_says_what_is_missing(kind: type[MapLoss]) -> None:
    with pytest.raises(RuntimeError, match=fr'`{kind.__name__}` does not know .* call `build_parts\(widths\)` once'):
        kind()(maps(3))


@every_map_loss
def test_levels_that_do_not_pair_are_counted(kind: type[MapLoss]) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` needs as many levels .* at least one, got 2 and 1'):
        kind().build_parts(Widths((8, 8), (8,)))
    with pytest.raises(ValueError, match='at least one, got 0 and 0'):
        kind().build_parts(Widths((), ()))
    aligned = maps(3)
    with pytest.raises(ValueError, match='was built for 3 levels, got 2 of the student and 3 of the teacher; give'):
        built(kind)(replace(aligned, student=aligned.student[:2]))
    with pytest.raises(ValueError, match='was built for 3 levels, got 3 of the student and 2 of the teacher; give'):
        built(kind)(replace(aligned, teacher=aligned.teacher[:2]))


@every_map_loss
def test_it_requires_maps_and_at_most_the_objects(kind: type[MapLoss]) -> None:
    assert kind().requires == ({'maps', 'boxes'} if kind is FGDLoss else {'maps'})


@every_loss
def test_the_names_of_what_it_learns_are_numbers_weight_and_bias(kind: type[DistillLoss]) -> None:
    """A user's ``paramwise_cfg.custom_keys`` match substrings: ``'neck'``, ``'embed'``, ``'projector'``..."""
    loss = learning(kind)
    for name, _ in loss.parts.named_parameters():
        *path, last = name.split('.')
        assert path and all(part.isdigit() for part in path) and last in ('weight', 'bias'), name
    assert {f'parts.{name}' for name, _ in loss.parts.named_parameters()} == dict(loss.named_parameters()).keys()
    assert {f'parts.{name}' for name, _ in loss.parts.named_buffers()} == dict(loss.named_buffers()).keys()


def test_some_of_them_learn() -> None:
    assert {kind.__name__ for kind in LOSSES if list(learning(kind).parameters())} == {
        'CWDLoss', 'CategoryContrastLoss', 'CenterAlignmentLoss', 'FGDLoss', 'FeatureAlignmentLoss', 'L2Loss',
        'MGDLoss', 'PKDLoss', 'ReviewKDLoss'}


@every_loss
def test_what_it_learns_is_made_once(kind: type[DistillLoss]) -> None:
    loss = kind()
    assert not len(loss.parts)
    loss = learning(kind)
    before = [id(parameter) for parameter in loss.parameters()]
    with pytest.raises(RuntimeError, match=fr'`{kind.__name__}.build_parts` makes .* once, and was called again'):
        loss.build_parts(WIDTHS if kind in MAP_LOSSES else ROW_WIDTHS)
    assert [id(parameter) for parameter in loss.parameters()] == before


@every_weighed_loss
def test_parts_and_measured_weight_come_back_from_its_state_dict(kind: type[DistillLoss], settings: dict) -> None:
    loss, other = learning(kind, **settings), learning(kind, seed=1, **settings)
    if loss.weight.balance is not None:
        loss.weight.ratios, other.weight.ratios = [2.0, 1 / 3], [5.0, 6.0, 7.0]
    state = pickle.loads(pickle.dumps(loss.state_dict()))
    assert {key.split('.')[0] for key in state} <= {'parts', 'weight'}
    other.load_state_dict(state, strict=True)
    assert other.weight.ratios == loss.weight.ratios and other.weight.base == loss.weight.base
    assert all(torch.equal(one, two) for one, two in zip(loss.parameters(), other.parameters(), strict=True))
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert twin.weight.ratios == loss.weight.ratios
        assert twin.weight.ratios is not loss.weight.ratios


@every_weighed_loss
def test_an_average_of_models_survives_what_is_measured(kind: type[DistillLoss], settings: dict) -> None:
    loss = learning(kind, **settings)
    average = ExponentialMovingAverage(loss, momentum=0.5, update_buffers=True)
    for ratio in (2.0, 4.0):
        if loss.weight.balance is not None:
            loss.weight.ratios.append(ratio)
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter += 1
        average.update_parameters(loss)
    for ours, averaged in zip(loss.parameters(), average.module.parameters(), strict=True):
        torch.testing.assert_close(averaged, ours - 0.5)  # 1 after the first step, then half way to 2


@every_row_loss
@pytest.mark.parametrize('preview', [None, dict(base=1.1)], ids=['plain', 'previewed'])
def test_rows_to_be_ignored_change_neither_value_nor_gradient(kind: type[RowLoss], preview: dict | None) -> None:
    samples, loss = rows(16), made(kind, preview=preview)
    kept = (samples.labels >= 0).nonzero().squeeze(1)
    assert 1 < len(kept) < 16
    alone = samples.select(kept)
    value, expected = loss(samples), made(kind, preview=preview)(alone)
    torch.testing.assert_close(value, expected)
    ours, theirs = (torch.autograd.grad(one, read_by(kind, samples))[0] for one in (value, expected))
    torch.testing.assert_close(ours, theirs)
    assert not ours[samples.labels < 0].any()
    assert loss(replace(alone, filtered=True)) == expected
    found, of_kept = (loss.metrics(one, epoch=0) for one in (samples, alone))
    assert found == of_kept and ('preview_weight' in found) is bool(preview)


WAITS = {'_local_scalar_dense', 'nonzero', 'nonzero_static', 'masked_select', 'equal', 'is_nonzero', '_unique',
         '_unique2', 'unique_dim', 'unique_consecutive', 'bincount', 'repeat_interleave'}


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for the device; on a GPU, indexing by a mask does too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func.overloadpacket.__name__
        masks = [part for part in args[1] if part is not None and part.dtype == torch.bool] if name in (
            'index', 'index_put', 'index_put_') else []
        if name in WAITS or masks:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


CHOICES = {'CKDLoss': dict(negatives=['same_image', 'other_label'], anchors='foreground'),
           'DKDLoss': dict(standardize=True), 'CategoryContrastLoss': dict(target='centers')}


@every_row_loss
@pytest.mark.parametrize('is_chosen', [False, True], ids=['by default', 'chosen'])
@pytest.mark.parametrize('preview', [None, dict(base=1.1)], ids=['plain', 'previewed'])
def test_of_filtered_rows_it_never_waits_for_the_device(kind: type[RowLoss], preview: dict | None, is_chosen: bool
                                                        ) -> None:
    loss = made(kind, preview=preview, **CHOICES.get(kind.__name__, {}) if is_chosen else {})
    kept = loss.counted(rows(16))
    with Waits() as waits:
        loss(replace(kept, filtered=True)).backward()
        loss.metrics(replace(kept, filtered=True), epoch=0)
    assert waits.seen == []
    with Waits() as waits:
        loss(kept)
    assert 'nonzero' in waits.seen  # so they are counted


def numbers_of(kind: type[DistillLoss]) -> list[str]:
    """Arguments that are numbers by default."""
    return [name for name, argument in inspect.signature(kind).parameters.items()
            if isinstance(argument.default, int | float) and not isinstance(argument.default, bool)]


@pytest.mark.parametrize('value', [math.inf, -math.inf, math.nan, '2', None, True, [1.0]], ids=str)
@pytest.mark.parametrize(('kind', 'argument'), [(kind, name) for kind in LOSSES for name in numbers_of(kind)])
def test_every_number_is_refused_by_name_where_it_is_none(kind: type[DistillLoss], argument: str, value: object
                                                          ) -> None:
    with pytest.raises(ValueError, match=f'`{kind.__name__}` needs a (finite|whole)? ?`{argument}`'):
        kind(**{argument: value})
