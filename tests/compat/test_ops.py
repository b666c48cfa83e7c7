"""Each served operator, through mmcv's own functions, against a plain loop."""

import math
from collections.abc import Callable

import ckd_mmdet.compat
import mmcv.ops
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

pytestmark = pytest.mark.skipif(not ckd_mmdet.compat.activate(), reason='mmcv has its own')


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def assert_same(ours: Tensor, wished: Tensor) -> None:
    torch.testing.assert_close(ours, wished, rtol=1e-9, atol=1e-11)


def assert_same_with_gradients(
        ours: Callable[..., Tensor], loop: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Compare values and the gradient in every input, in float64."""
    leaves = [tensor.double().requires_grad_() for tensor in inputs]
    values, wished = ours(*leaves), loop(*leaves)
    assert_same(values, wished)
    grad = torch.randn_like(wished)
    for one, other in zip(torch.autograd.grad(values, leaves, grad),
                          torch.autograd.grad(wished, leaves, grad), strict=True):
        assert other.abs().sum() > 0
        assert_same(one, other)


# Non-maximum suppression


def some_boxes(n: int, size: int = 12) -> tuple[Tensor, Tensor]:
    corners = torch.randint(0, size, (n, 2)).double()
    return torch.cat((corners, corners + torch.randint(1, size, (n, 2))), 1), torch.rand(n).double()


def iou(one: list[float], other: list[float], offset: int = 0) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0]) + offset
    height = min(one[3], other[3]) - max(one[1], other[1]) + offset
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (one, other)]
    return both / (sum(areas) - both)


def greedy_groups(boxes: Tensor, scores: Tensor, threshold: float, offset: int = 0,
                  at_threshold: bool = False) -> list[list[int]]:
    """Each box kept, then the boxes it removes."""
    box_list, groups = boxes.tolist(), []
    for i in sorted(range(len(boxes)), key=lambda i: -float(scores[i])):
        for group in groups:
            overlap = iou(box_list[group[0]], box_list[i], offset)
            if overlap > threshold or (at_threshold and overlap == threshold):
                group.append(i)
                break
        else:
            groups.append([i])
    return groups


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.7])
def test_nms_keeps_what_a_greedy_loop_keeps(threshold: float, offset: int) -> None:
    boxes, scores = some_boxes(40)
    dets, kept = mmcv.ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == [group[0] for group in greedy_groups(boxes, scores, threshold, offset)]
    assert_same(dets, torch.cat((boxes[kept], scores[kept, None]), 1))


def test_nms_decides_as_mmcv_does_where_an_iou_equals_the_threshold() -> None:
    """IoUs of integer boxes often equal a threshold such as 0.2, which in float32 is another number than in float64."""
    numbers, differing, at_threshold = np.random.default_rng(0), 0, 0
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.6):
        for _ in range(1080):
            corners = numbers.integers(0, 6, (8, 2))
            boxes = np.hstack((corners, corners + numbers.integers(1, 6, (8, 2)))).astype(np.float32)
            scores = numbers.permutation(8).astype(np.float32)
            kept = mmcv.ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)[1].tolist()
            ious = float32_ious(boxes)
            differing += kept != float32_nms(ious, scores, np.float32(threshold))
            at_threshold += bool((ious == np.float32(threshold)).any())
    assert differing == 0
    assert at_threshold > 500


def float32_ious(boxes: np.ndarray) -> np.ndarray:
    lows = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    sides = np.maximum(np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - lows, np.float32(0))
    both, areas = sides.prod(2), (boxes[:, 2:] - boxes[:, :2]).prod(1)
    ious = both / (areas[:, None] + areas - both)
    assert ious.dtype == np.float32
    return ious


def float32_nms(ious: np.ndarray, scores: np.ndarray, threshold: np.float32) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores):
        if not any(ious[k, i] > threshold for k in kept):
            kept.append(int(i))
    return kept


def test_nms_orders_equal_scores_as_torchs_sort_does() -> None:
    corners = torch.arange(40.)[:, None] * torch.tensor([3., 2.])
    boxes = torch.cat((corners, corners + 1), 1)
    scores = torch.randint(0, 4, (40,)).float()
    wished = scores.sort(0, descending=True)[1]  # mmcv's own call
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == wished.tolist()
    groups = mmcv.ops.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.5)
    assert [group.tolist() for group in groups] == [[i] for i in wished.tolist()]


def test_of_equal_scores_nms_removes_that_which_torchs_sort_puts_later() -> None:
    boxes, _ = some_boxes(60)
    scores = torch.randint(0, 3, (60,)).double()
    order = scores.sort(0, descending=True)[1]
    ranked = torch.empty(60).double().scatter_(0, order, torch.arange(60., 0, -1).double())  # no two equal
    groups = greedy_groups(boxes, ranked, 0.3)
    assert mmcv.ops.nms(boxes, scores, 0.3)[1].tolist() == [group[0] for group in groups]


def test_soft_nms_takes_equal_scores_in_the_order_that_mmcvs_swaps_leave() -> None:
    # Equal and apart: the first comes out first, and each gap is filled with what was first then.
    corners = 5.0 * torch.arange(4)[:, None] + torch.zeros(4, 2)
    boxes, scores = torch.cat((corners, corners + 1), 1), torch.tensor([0.5, 0.9, 0.5, 0.5])
    assert mmcv.ops.soft_nms(boxes, scores, 0.3)[1].tolist() == [1, 0, 2, 3]
    # The second lies on the first and goes below `min_score`; the last takes its place.
    boxes, scores = boxes[[0, 0, 1, 2]], torch.tensor([0.9, 0.5, 0.5, 0.5])
    assert mmcv.ops.soft_nms(boxes, scores, 0.3, min_score=0.1)[1].tolist() == [0, 3, 2]


def test_the_offset_of_nms_counts_the_last_pixel() -> None:
    boxes, scores = torch.tensor([[0., 0, 4, 4], [2., 0, 6, 4]]), torch.tensor([0.9, 0.8])
    assert mmcv.ops.nms(boxes, scores, 0.4, offset=0)[1].tolist() == [0, 1]  # 8 / 24
    assert mmcv.ops.nms(boxes, scores, 0.4, offset=1)[1].tolist() == [0]  # 15 / 35


def test_nms_takes_no_boxes_and_half_precision() -> None:
    assert mmcv.ops.nms(torch.zeros(0, 4), torch.zeros(0), 0.5)[1].shape == (0,)
    boxes, scores = some_boxes(20)
    for dtype in (torch.bfloat16, torch.float16):
        dets, kept = mmcv.ops.nms(boxes.to(dtype), scores.to(dtype), 0.5)
        assert dets.dtype == dtype
        groups = greedy_groups(boxes, scores.to(dtype), 0.5)
        assert kept.tolist() == [group[0] for group in groups]


def test_batched_nms_never_removes_across_classes() -> None:
    boxes, scores = some_boxes(40)
    labels = torch.randint(0, 3, (40,))
    _, kept = mmcv.ops.batched_nms(boxes, scores, labels, {'type': 'nms', 'iou_threshold': 0.4})
    wished = []
    for label in range(3):
        rows = (labels == label).nonzero()[:, 0]
        wished += [int(rows[g[0]]) for g in greedy_groups(boxes[rows], scores[rows], 0.4)]
    assert kept.tolist() == sorted(wished, key=lambda i: -float(scores[i]))


def soft_nms_loop(boxes: Tensor, scores: Tensor, threshold: float, sigma: float, min_score: float,
                  method: str, offset: int) -> tuple[list[int], list[float]]:
    box_list, score = boxes.tolist(), dict(enumerate(scores.tolist()))
    kept, kept_scores = [], []
    while score:
        best = max(score, key=lambda i: score[i])
        kept.append(best)
        kept_scores.append(score.pop(best))
        for i in list(score):
            overlap = iou(box_list[best], box_list[i], offset)
            if method == 'gaussian':
                score[i] *= math.exp(-overlap**2 / sigma)
            elif overlap >= threshold:
                score[i] *= (1 - overlap) if method == 'linear' else 0
            if score[i] < min_score:
                del score[i]
    return kept, kept_scores


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_lowers_scores_as_a_loop_does(method: str, offset: int) -> None:
    boxes, scores = some_boxes(30)
    dets, kept = mmcv.ops.soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    wished, wished_scores = soft_nms_loop(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == wished
    assert 1 < len(wished) < 30
    assert_same(dets[:, :4], boxes[kept])
    assert_same(dets[:, 4], torch.tensor(wished_scores, dtype=torch.double))


def test_soft_nms_leaves_its_arguments_alone_and_takes_boxes_without_area() -> None:
    boxes = torch.tensor([[3., 1, 3, 1], [3., 1, 3, 1], [4., 3, 5, 4]])
    scores = torch.tensor([0.5, 0.4, 0.9])
    for method in ('linear', 'gaussian'):
        dets, kept = mmcv.ops.soft_nms(boxes, scores, method=method)
        assert kept.tolist() == [2, 0, 1]
        assert dets[:, 4].tolist() == scores[kept].tolist()
    assert scores.tolist() == torch.tensor([0.5, 0.4, 0.9]).tolist()


def test_nms_match_groups_as_a_loop_does() -> None:
    boxes, scores = some_boxes(30)
    groups = mmcv.ops.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.25)
    wished = greedy_groups(boxes, scores, 0.25, at_threshold=True)
    assert [group.tolist() for group in groups] == wished


def test_nms_match_removes_at_the_threshold_itself_where_nms_does_not() -> None:
    boxes, scores = torch.tensor([[0., 0, 4, 4], [0., 0, 4, 2]]), torch.tensor([0.9, 0.8])
    assert mmcv.ops.nms(boxes, scores, 0.5)[1].tolist() == [0, 1]
    groups = mmcv.ops.nms_match(torch.cat((boxes, scores[:, None]), 1), 0.5)
    assert [group.tolist() for group in groups] == [[0, 1]]


# Regions of interest


ROIS = torch.tensor([[0, 1.3, 2.1, 9.7, 13.2], [1, 0.0, 0.0, 3.1, 2.2], [0, 12.9, 9.8, 30.0, 40.0],
                     [1, 4.4, 4.6, 4.9, 5.0]])


def bilinear(plane: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Value at ``(y, x)`` of a map that is zero outside."""
    height, width = plane.shape
    top, left = int(y.detach().floor()), int(x.detach().floor())
    total = plane.new_zeros(())
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < height and 0 <= column < width:
                weight = (1 - (y - row).abs()) * (1 - (x - column).abs())
                total = total + weight * plane[row, column]
    return total


def edge_bilinear(plane: Tensor, y: float, x: float) -> Tensor:
    """The same for a map that goes on for one pixel beyond its edge, as RoIAlign has it."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return plane.new_zeros(())
    inside = plane.new_tensor([min(max(y, 0), height - 1), min(max(x, 0), width - 1)])
    return bilinear(plane, inside[0], inside[1])


def roi_align_loop(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float,
                   ratio: int, aligned: bool) -> Tensor:
    out = features.new_zeros(len(rois), features.shape[1], *size)
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (edge * scale - 0.5 * aligned for edge in box)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1), max(height, 1)
        bin_h, bin_w = height / size[0], width / size[1]
        rows, columns = ratio or math.ceil(bin_h), ratio or math.ceil(bin_w)
        for c in range(features.shape[1]):
            for i in range(size[0]):
                for j in range(size[1]):
                    samples = [
                        edge_bilinear(features[int(image), c], y1 + (i + (a + 0.5) / rows) * bin_h,
                                      x1 + (j + (b + 0.5) / columns) * bin_w)
                        for a in range(rows) for b in range(columns)
                    ]
                    out[k, c, i, j] = sum(samples) / len(samples)
    return out


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
def test_roi_align_averages_its_samples_as_a_loop_does(aligned: bool, ratio: int) -> None:
    layer = mmcv.ops.RoIAlign((3, 2), 0.5, ratio, aligned=aligned)
    rois = ROIS.double()
    assert_same_with_gradients(
        lambda features: layer(features, rois),
        lambda features: roi_align_loop(features, rois, (3, 2), 0.5, ratio, aligned),
        torch.randn(2, 2, 8, 9))


def test_roi_align_of_a_maximum_is_refused_by_name() -> None:
    layer = mmcv.ops.RoIAlign(2, pool_mode='max')
    with pytest.raises(RuntimeError, match=r"roi_align with pool_mode='max'.*does not serve"):
        layer(torch.rand(1, 1, 4, 4), torch.tensor([[0., 0, 0, 2, 2]]))


def roi_pool_loop(features: Tensor, rois: Tensor, size: tuple[int, int], scale: float) -> Tensor:
    out = features.new_zeros(len(rois), features.shape[1], *size)
    for k, (image, x1, y1, x2, y2) in enumerate(rois.tolist()):
        left, top, right, bottom = (edge * scale for edge in (x1, y1, x2 + 1, y2 + 1))
        for i in range(size[0]):
            for j in range(size[1]):
                rows = slice(max(math.floor(top + i * (bottom - top) / size[0]), 0),
                             math.ceil(top + (i + 1) * (bottom - top) / size[0]))
                columns = slice(max(math.floor(left + j * (right - left) / size[1]), 0),
                                math.ceil(left + (j + 1) * (right - left) / size[1]))
                cell = features[int(image), :, rows, columns].flatten(1)
                if cell.shape[1]:
                    out[k, :, i, j] = cell.max(1).values
    return out


@pytest.mark.parametrize('scale', [1.0, 0.5, 0.125])
def test_roi_pool_takes_each_bins_maximum_as_a_loop_does(scale: float) -> None:
    layer = mmcv.ops.RoIPool((3, 2), scale)
    rois = ROIS.double()
    assert_same_with_gradients(
        lambda features: layer(features, rois),
        lambda features: roi_pool_loop(features, rois, (3, 2), scale), torch.randn(2, 2, 8, 9))


def test_roi_pool_gives_zero_and_no_gradient_for_a_roi_outside_the_image_or_inside_out() -> None:
    features = torch.rand(1, 1, 4, 4).double().requires_grad_()
    rois = torch.tensor([[0, 20, 20, 30, 30], [0, 3, 3, 1, 1.5]]).double()
    out = mmcv.ops.RoIPool(2, 1.0)(features, rois)
    out.sum().backward()
    assert not out.any()
    assert not features.grad.any()


@pytest.mark.parametrize('layer', [mmcv.ops.RoIAlign(2), mmcv.ops.RoIPool(2)])
def test_no_rois_give_no_rows_and_a_gradient_of_zero(layer: torch.nn.Module) -> None:
    features = torch.rand(1, 3, 4, 4, requires_grad=True)
    out = layer(features, torch.zeros(0, 5))
    out.sum().backward()
    assert out.shape == (0, 3, 2, 2)
    assert not features.grad.any()


# Focal losses


def sigmoid_focal_loop(logits: Tensor, target: Tensor, gamma: float, alpha: float,
                       weight: Tensor | None) -> Tensor:
    total = logits.new_zeros(())
    for row, label in zip(logits, target.tolist(), strict=True):
        factor = 1 if weight is None else weight[label]
        for c, logit in enumerate(row):
            p = 1 / (1 + torch.exp(-logit))
            loss = (-alpha * (1 - p)**gamma * torch.log(p) if c == label
                    else -(1 - alpha) * p**gamma * torch.log(1 - p))
            total = total + factor * loss
    return total


@pytest.mark.parametrize('gamma', [0.0, 1.5, 2.0])
def test_sigmoid_focal_loss_sums_over_classes_as_a_loop_does(gamma: float) -> None:
    target = torch.tensor([0, 2, 3, 1, 3])  # 3 is background
    logits = 3 * torch.randn(5, 3)
    assert_same_with_gradients(
        lambda logits: mmcv.ops.sigmoid_focal_loss(logits, target, gamma, 0.3, None, 'sum'),
        lambda logits: sigmoid_focal_loop(logits, target, gamma, 0.3, None), logits)
    assert_same_with_gradients(
        lambda logits: mmcv.ops.sigmoid_focal_loss(logits, target, gamma, 0.3, None, 'mean'),
        lambda logits: sigmoid_focal_loop(logits, target, gamma, 0.3, None) / 5, logits)


def test_sigmoid_focal_loss_weighs_a_row_by_its_class() -> None:
    target, weight = torch.tensor([0, 2, 1]), torch.tensor([0.5, 2.0, 3.0]).double()
    assert_same_with_gradients(
        lambda logits: mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'sum'),
        lambda logits: sigmoid_focal_loop(logits, target, 2.0, 0.25, weight), torch.randn(3, 3))


def test_a_weighted_focal_loss_refuses_background_rows() -> None:
    with pytest.raises(ValueError, match='within its 2 classes, but got 0 to 2'):
        mmcv.ops.sigmoid_focal_loss(torch.zeros(2, 2), torch.tensor([0, 2]), 2.0, 0.25,
                                    torch.ones(2), 'sum')


def test_sigmoid_focal_loss_stays_exact_for_confident_errors() -> None:
    logits = torch.tensor([[200.0]], requires_grad=True)
    loss = mmcv.ops.sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'sum')
    loss.backward()
    assert loss.item() == 150  # 0.75 * 200
    assert logits.grad.item() == 0.75


def test_mmcvs_rounded_sigmoid_focal_loss_has_the_same_gradient_for_confident_errors() -> None:
    logits = torch.linspace(8, 40, 33)[:, None].requires_grad_()
    target = torch.ones(33, dtype=torch.long)  # background
    loss = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    grad, = torch.autograd.grad(loss.sum(), logits)
    p = 1 / (1 + torch.exp(-logits.detach()))  # in float32, as mmcv's kernel has it
    log_not_p = (1 - p).clamp(min=torch.finfo(p.dtype).tiny).log()
    torch.testing.assert_close(grad, -0.75 * p**2 * (2 * (1 - p) * log_not_p - p), rtol=1e-4, atol=0)
    assert (loss + 0.75 * p**2 * log_not_p).abs().max() > 50


def softmax_focal_loop(logits: Tensor, target: Tensor, gamma: float, alpha: float,
                       weight: Tensor) -> Tensor:
    total = logits.new_zeros(())
    for row, label in zip(logits, target.tolist(), strict=True):
        p = torch.exp(row[label]) / torch.exp(row).sum()
        total = total - weight[label] * alpha * (1 - p)**gamma * torch.log(p)
    return total


def test_softmax_focal_loss_sums_over_rows_as_a_loop_does() -> None:
    target, weight = torch.tensor([0, 2, 1, 2]), torch.tensor([0.5, 2.0, 3.0]).double()
    assert_same_with_gradients(
        lambda logits: mmcv.ops.softmax_focal_loss(logits, target, 2.0, 0.25, weight, 'sum'),
        lambda logits: softmax_focal_loop(logits, target, 2.0, 0.25, weight), torch.randn(4, 3))


# Deformable attention


def attention_loop(value: Tensor, shapes: list[tuple[int, int]], locations: Tensor,
                   weights: Tensor) -> Tensor:
    batch, _, heads, channels = value.shape
    queries, _, levels, points = locations.shape[1:5]
    starts = [sum(h * w for h, w in shapes[:level]) for level in range(levels)]
    out = value.new_zeros(batch, queries, heads, channels)
    for b in range(batch):
        for q in range(queries):
            for head in range(heads):
                for c in range(channels):
                    for level, (h, w) in enumerate(shapes):
                        cells = value[b, starts[level]:starts[level] + h * w, head, c]
                        for point in range(points):
                            x, y = locations[b, q, head, level, point]
                            sample = bilinear(cells.view(h, w), y * h - 0.5, x * w - 0.5)
                            out[b, q, head, c] += weights[b, q, head, level, point] * sample
    return out.flatten(2)


def test_deformable_attention_gathers_from_every_level_as_a_loop_does() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    sizes = [(3, 4), (2, 2)]
    shapes, starts = torch.tensor(sizes), torch.tensor([0, 12])
    assert_same_with_gradients(
        lambda value, locations, weights: MultiScaleDeformableAttnFunction.apply(
            value, shapes, starts, locations, weights, 64),
        lambda value, locations, weights: attention_loop(value, sizes, locations, weights),
        torch.randn(2, 16, 2, 3), 1.2 * torch.rand(2, 3, 2, 2, 2, 2) - 0.1,
        torch.rand(2, 3, 2, 2, 2))


# Deformable convolution


def deform_conv_loop(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int,
                     padding: int, dilation: int, groups: int, deform_groups: int) -> Tensor:
    out_channels, in_channels, kernel_h, kernel_w = weight.shape
    rows, columns = offset.shape[2:]
    cells = kernel_h * kernel_w
    out = features.new_zeros(len(features), out_channels, rows, columns)
    for b, o, i, j in torch.ones_like(out).nonzero().tolist():
        for c in range(in_channels):
            channel = o // (out_channels // groups) * in_channels + c
            group = channel // (features.shape[1] // deform_groups)
            for cell in range(cells):
                shift = 2 * (group * cells + cell)
                y = (i * stride - padding + cell // kernel_w * dilation) + offset[b, shift, i, j]
                x = (j * stride - padding + cell % kernel_w * dilation) + offset[b, shift + 1, i, j]
                sample = bilinear(features[b, channel], y, x) * mask[b, group * cells + cell, i, j]
                out[b, o, i, j] += sample * weight[o, c, cell // kernel_w, cell % kernel_w]
    return out


SHAPES = [  # kernel, stride, padding, dilation, groups, deform_groups
    ((2, 3), 1, 1, 1, 1, 1), ((2, 2), 2, 1, 2, 2, 2)]


@pytest.mark.parametrize(('kernel', 'stride', 'padding', 'dilation', 'groups', 'deform'), SHAPES)
def test_deformable_convolution_shifts_its_kernel_as_a_loop_does(
        kernel: tuple[int, int], stride: int, padding: int, dilation: int, groups: int,
        deform: int) -> None:
    layer = mmcv.ops.DeformConv2d(
        4, 2, kernel, stride, padding, dilation, groups=groups, deform_groups=deform).double()
    features = torch.randn(2, 4, 5, 4)
    size = layer_output_size(features, kernel, stride, padding, dilation)
    cells = kernel[0] * kernel[1] * deform
    mask = torch.ones(2, cells, *size).double()

    def ours(features: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {'weight': weight}, (features, offset))

    def loop(features: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        return deform_conv_loop(
            features, offset, mask, weight, stride, padding, dilation, groups, deform)

    assert_same_with_gradients(
        ours, loop, features, torch.randn(2, 2 * cells, *size), torch.randn(layer.weight.shape))


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize(('kernel', 'stride', 'padding', 'dilation', 'groups', 'deform'), SHAPES)
def test_modulated_deformable_convolution_weighs_its_samples_as_a_loop_does(
        kernel: tuple[int, int], stride: int, padding: int, dilation: int, groups: int,
        deform: int, bias: bool) -> None:
    layer = mmcv.ops.ModulatedDeformConv2d(
        4, 2, kernel, stride, padding, dilation, groups, deform, bias).double()
    features = torch.randn(1, 4, 5, 4)
    size = layer_output_size(features, kernel, stride, padding, dilation)
    cells = kernel[0] * kernel[1] * deform

    def ours(features: Tensor, offset: Tensor, mask: Tensor, *parameters: Tensor) -> Tensor:
        named = dict(zip(('weight', 'bias'), parameters, strict=False))
        return torch.func.functional_call(layer, named, (features, offset, mask))

    def loop(features: Tensor, offset: Tensor, mask: Tensor, weight: Tensor,
             *shift: Tensor) -> Tensor:
        out = deform_conv_loop(
            features, offset, mask, weight, stride, padding, dilation, groups, deform)
        return out + shift[0][None, :, None, None] if shift else out

    parameters = [torch.randn(layer.weight.shape)] + [torch.randn(2)] * bias
    assert_same_with_gradients(
        ours, loop, features, torch.randn(1, 2 * cells, *size), torch.rand(1, cells, *size),
        *parameters)


def layer_output_size(features: Tensor, kernel: tuple[int, int], stride: int, padding: int,
                      dilation: int) -> list[int]:
    return [(length + 2 * padding - dilation * (extent - 1) - 1) // stride + 1
            for length, extent in zip(features.shape[2:], kernel, strict=True)]


# Half precision


class RoIHead(torch.nn.Module):
    """A convolution, which autocast makes bfloat16, before a RoI layer."""

    def __init__(self, roi_layer: torch.nn.Module) -> None:
        super().__init__()
        self.convolution, self.roi_layer = torch.nn.Conv2d(3, 4, 1), roi_layer

    def forward(self, image: Tensor) -> Tensor:
        return self.roi_layer(self.convolution(image), torch.tensor([[0., 1, 1, 5, 6]]))


@pytest.mark.parametrize('make_layer', [
    lambda: RoIHead(mmcv.ops.RoIAlign(2)),
    lambda: RoIHead(mmcv.ops.RoIPool(2)),
    lambda: mmcv.ops.DeformConv2dPack(3, 4, 3, padding=1),
    lambda: mmcv.ops.ModulatedDeformConv2dPack(3, 4, 3, padding=1),
], ids=['roi_align', 'roi_pool', 'deform_conv', 'modulated_deform_conv'])
def test_bfloat16_autocast_trains_close_to_float32(make_layer: Callable[[], torch.nn.Module]) -> None:
    layer, image = make_layer(), torch.rand(1, 3, 8, 8)  # made here: the seed is set for each test
    exact = layer(image)
    wished = torch.autograd.grad(exact.square().sum(), list(layer.parameters()))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        rough = layer(image)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.02)
    grads = torch.autograd.grad(rough.float().square().sum(), list(layer.parameters()))
    for grad, wish in zip(grads, wished, strict=True):
        assert (grad - wish).norm() <= 0.05 * wish.norm()


def test_half_precision_focal_loss_and_attention_are_close_to_float32() -> None:
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    value, locations = torch.randn(1, 4, 2, 3), torch.rand(1, 2, 2, 1, 2, 2)
    weights, shapes, start = torch.rand(1, 2, 2, 1, 2), torch.tensor([[2, 2]]), torch.tensor([0])
    for dtype in (torch.float16, torch.bfloat16):
        rough = logits.to(dtype).requires_grad_()
        loss = mmcv.ops.sigmoid_focal_loss(rough, target, 2.0, 0.25, None, 'sum')
        loss.backward()
        assert rough.grad.dtype == dtype
        assert_close_to(loss, mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'sum'))
        attend = MultiScaleDeformableAttnFunction.apply
        rough = value.to(dtype).requires_grad_()
        out = attend(rough, shapes, start, locations, weights, 64)
        out.sum().backward()
        assert rough.grad.isfinite().all()
        assert_close_to(out, attend(value, shapes, start, locations, weights, 64))


def assert_close_to(rough: Tensor, exact: Tensor) -> None:
    torch.testing.assert_close(rough.float(), exact, rtol=0.05, atol=0.05)


def test_one_hot_targets_give_the_same_sigmoid_focal_loss_as_mmdets_own_formula() -> None:
    from mmdet.models.losses.focal_loss import py_sigmoid_focal_loss
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 3, 0])
    loss = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, None, 'none')
    wished = py_sigmoid_focal_loss(
        logits, one_hot(target, 4)[:, :3].float(), gamma=2.0, alpha=0.25, reduction='none')
    torch.testing.assert_close(loss, wished)
