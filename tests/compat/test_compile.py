"""`torch.compile` over mmcv's functions and whole detectors: the same values and gradients as without it."""

import os
from collections.abc import Callable, Iterator

import ckd_mmdet.compat
import mmcv.ops
import pytest
import torch
from ckd_mmdet.compat import ops
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
from torch import Tensor, nn

pytestmark = pytest.mark.skipif(not ckd_mmdet.compat.activate(), reason='mmcv has its own operators')

ROIS = torch.tensor([[0, 1, 1, 5, 6], [0, 2, 0, 7, 5.5]])
LABELS = torch.tensor([0, 2, 1])
BOXES = torch.tensor([[0., 0, 4, 4], [1, 0, 5, 4], [6, 6, 9, 9]])
SCORES = torch.tensor([0.6, 0.9, 0.8])


def attend(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    # On CPU mmcv's module does without the operator, so this is the function under it.
    shapes, start = torch.tensor([[2, 2]]), torch.tensor([0])
    return MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)


IMAGE = (1, 2, 8, 8)
TRAINED: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {  # function and its inputs' shapes
    'roi_align': (lambda x: mmcv.ops.roi_align(x, ROIS, 2), [IMAGE]),
    'roi_pool': (lambda x: mmcv.ops.roi_pool(x, ROIS, 2), [IMAGE]),
    'sigmoid_focal_loss': (lambda x: mmcv.ops.sigmoid_focal_loss(x, LABELS, 2.0, 0.25, None, 'none'), [(3, 3)]),
    'softmax_focal_loss': (lambda x: mmcv.ops.softmax_focal_loss(x, LABELS, 2.0, 0.25, None, 'none'), [(3, 3)]),
    'ms_deform_attn': (attend, [(1, 4, 2, 3), (1, 2, 2, 1, 2, 2), (1, 2, 2, 1, 2)]),
    'deform_conv': (lambda x, offset, weight: mmcv.ops.deform_conv2d(x, offset, weight, 1, 1),
                    [IMAGE, (1, 18, 8, 8), (2, 2, 3, 3)]),
    'modulated_deform_conv': (
        lambda x, offset, mask, weight, bias: mmcv.ops.modulated_deform_conv2d(
            x, offset, mask, weight, bias, 1, 1, 1, 1, 1),
        [IMAGE, (1, 18, 8, 8), (1, 9, 8, 8), (2, 2, 3, 3), (2,)]),
}
CHOOSING: dict[str, Callable[[Tensor], list[Tensor]]] = {  # without a gradient
    'nms': lambda boxes: list(mmcv.ops.nms(boxes, SCORES, 0.5)),
    'softnms': lambda boxes: list(mmcv.ops.soft_nms(boxes, SCORES, 0.5)),
    'nms_match': lambda boxes: mmcv.ops.nms_match(torch.cat((boxes, SCORES[:, None]), 1), 0.5),
}


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
@pytest.mark.skipif(not os.environ.get('COMPILE_DETECTORS'), reason='takes a minute: set COMPILE_DETECTORS=1 to run it')
@pytest.mark.parametrize('name', ['faster_rcnn', 'retinanet', 'deformable_detr'])
def test_a_whole_compiled_detector_trains_as_it_does_itself(name: str) -> None:
    model, batch = toy(name)
    wished = training_step(model, model.forward, batch)
    assert_same_step(training_step(model, torch.compile(model.forward, backend='eager'), batch), wished)
