"""`torch.compile` over mmcv's functions and whole detectors: the same values and gradients as without it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import ckd_mmdet.compat
import pytest
import torch
from ckd_mmdet.compat import ops
from torch import Tensor, nn

from tests.compat.operators import BOXES, CHOOSING, TRAINED

pytestmark = pytest.mark.skipif(not ckd_mmdet.compat.activate(), reason='mmcv has its own operators')
whole = pytest.mark.skipif(not os.environ.get('COMPILE_DETECTORS'),
                           reason='takes a minute: set COMPILE_DETECTORS=1 to run it')


@pytest.fixture(autouse=True)
def _nothing_compiled_before() -> Iterator[None]:
    torch.manual_seed(0)
    torch._dynamo.reset()
    # Once for each function is enough: dynamo would compile a detector's again for the shapes of each level.
    with torch._dynamo.config.patch(cache_size_limit=1):
        yield


def test_every_operator_served_is_compiled_below() -> None:
    families = {name.removesuffix('_forward').partition('_backward')[0] for name in ops.__all__
                if not name.startswith('get_')}
    assert families == {*TRAINED, *CHOOSING}


@pytest.mark.parametrize('name', TRAINED)
def test_an_operators_compiled_gradient_is_its_own(name: str) -> None:
    function, shapes = TRAINED[name]
    inputs = [torch.rand(shape, requires_grad=True) for shape in shapes]

    def squared(*inputs: Tensor) -> Tensor:
        return function(*(2 * tensor for tensor in inputs)).square().sum()

    wished = squared(*inputs)
    value = torch.compile(squared, backend='aot_eager')(*inputs)
    assert torch.equal(value, wished)
    for grad, wish in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(wished, inputs), strict=True):
        assert wish.any()
        torch.testing.assert_close(grad, wish)


@pytest.mark.parametrize('name', CHOOSING)
def test_an_operators_compiled_choice_is_its_own(name: str) -> None:
    choose = CHOOSING[name]
    for one, other in zip(torch.compile(choose, backend='aot_eager')(BOXES), choose(BOXES), strict=True):
        assert torch.equal(one, other)


def toy(name: str) -> tuple[nn.Module, dict]:
    """A detector to train, and its batch."""
    from tests.toys import toy_batch, toy_config, toy_model
    model = toy_model(toy_config(name)).to('cuda' if torch.cuda.is_available() else 'cpu').train()
    return model, model.data_preprocessor(toy_batch(1, num_items=[2]), training=True)


def training_step(model: nn.Module, forward: Callable, batch: dict) -> dict[str, Tensor]:
    """The loss and each parameter's gradient; the seed decides which RoIs are sampled."""
    torch.manual_seed(0)
    model.zero_grad()
    loss, _ = model.parse_losses(forward(**batch, mode='loss'))
    loss.backward()
    return {'loss': loss.detach()} | {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def assert_same_step(step: dict[str, Tensor], wished: dict[str, Tensor]) -> None:
    assert step.keys() == wished.keys()
    for key, wish in wished.items():
        torch.testing.assert_close(step[key], wish, msg=lambda text, key=key: f'{key}: {text}')


def test_a_compiled_roi_head_trains_the_backbone_as_it_does_itself() -> None:
    model, batch = toy('faster_rcnn')
    wished = training_step(model, model.forward, batch)
    model.roi_head.loss = torch.compile(model.roi_head.loss, backend='eager')
    assert_same_step(training_step(model, model.forward, batch), wished)


# On CPU only the first needs operators of mmcv to train: mmdet computes the others' there with formulas in torch.
@whole
@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet', 'deformable_detr'])
def test_a_whole_compiled_detector_trains_as_it_does_itself(name: str) -> None:
    model, batch = toy(name)
    wished = training_step(model, model.forward, batch)
    assert_same_step(training_step(model, torch.compile(model.forward, backend='eager'), batch), wished)


@whole
def test_a_whole_compiled_distilled_student_trains_as_it_does_itself(tmp_path: Path) -> None:
    from tests.small_runs import distilled
    from tests.toys import paired, saved_teacher, toy_batch, toy_config
    config = toy_config('faster_rcnn')
    model = paired(distilled(config, dict(config=config, checkpoint=saved_teacher(tmp_path, config)))).train()
    batch = model.data_preprocessor(toy_batch(num_items=[2, 2]), training=True)
    wished = training_step(model, model.forward, batch)
    assert_same_step(training_step(model, torch.compile(model.forward, backend='aot_eager'), batch), wished)
