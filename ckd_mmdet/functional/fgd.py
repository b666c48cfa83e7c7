"""FGD: feature maps compared object by object, where the teacher attends, and in what they say of the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .checks import positive
from .maps import paired_maps


def object_weights(boxes: Sequence[Tensor], image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    r"""How much each place of the maps counts for the objects: as much for a small object as for a large one.

    .. math:: M_i(p) = \max_{b \ni p} \frac{1}{h_b w_b}

    over the boxes of image ``i`` that cover the place, with their height and width in places; 0 where none does (FGD,
    arXiv 2111.11837). A box covers the places from the floor of its upper left corner to the ceiling of its lower right
    one, both included, as in the released code, as far as they lie on the map, which the released code does not see to.

    Args:
        boxes: Of each of the ``N`` images, shape ``(m, 4)``: x1, y1, x2, y2 in pixels; ``m`` may be 0.
        image_size: Height and width in pixels of what the maps cover: the padded batch, not an image in it.
        map_size: Height ``h`` and width ``w`` of the maps.

    Returns:
        Shape ``(N, h, w)``, float32.
    """
    return torch.stack([_object_weights(each.float(), image_size, map_size) for each in boxes])


def _object_weights(boxes: Tensor, image_size: tuple[int, int], map_size: tuple[int, int]) -> Tensor:
    (height, width), (rows, columns) = image_size, map_size
    if not len(boxes):
        return boxes.new_zeros(map_size)
    x1, x2 = ((boxes[:, i] * columns / width) for i in (0, 2))
    y1, y2 = ((boxes[:, i] * rows / height) for i in (1, 3))
    x1, y1 = x1.floor().clamp(0, columns - 1), y1.floor().clamp(0, rows - 1)
    x2, y2 = x2.ceil().clamp(0, columns - 1), y2.ceil().clamp(0, rows - 1)
    areas = (x2 - x1 + 1) * (y2 - y1 + 1)
    x, y = torch.arange(columns, device=boxes.device), torch.arange(rows, device=boxes.device)
    across = (x >= x1[:, None]) & (x <= x2[:, None])
    down = (y >= y1[:, None]) & (y <= y2[:, None])
    return ((down[:, :, None] & across[:, None]) / areas[:, None, None]).amax(0)


def attention(maps: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    r"""Where in an image, and in which channels, the maps are large.

    .. math:: A^S = h w \, \mathrm{softmax}_{yx}\Big(\frac{1}{d T} \sum_c |F_c|\Big), \quad
              A^C = d \, \mathrm{softmax}_c\Big(\frac{1}{h w T} \sum_{yx} |F_{yx}|\Big)

    Args:
        maps: Shape ``(N, d, h, w)``.
        temperature: ``T``.

    Returns:
        Of the places, shape ``(N, h, w)``, and of the channels, shape ``(N, d)``; each has the mean 1.
    """
    n, d, h, w = maps.shape
    size = maps.abs()
    places = h * w * (size.mean(1).flatten(1) / temperature).softmax(1)
    return places.reshape(n, h, w), d * (size.mean((2, 3)) / temperature).softmax(1)


def fgd_terms(student: Tensor, teacher: Tensor, weights: Tensor, temperature: float = 0.5
              ) -> tuple[Tensor, Tensor, Tensor]:
    r"""The three terms of FGD on objects, on the background, and of the attention itself.

    .. math:: \ell^{fg}_i &= \sum_{p, c} M_{ip} A^S_{ip} A^C_{ic} (t_{icp} - s_{icp})^2 \\
              \ell^{bg}_i &= \text{the same with } M^b_{ip} = [M_{ip} = 0] / \#\{p : M_{ip} = 0\} \\
              \ell^{at}_i &= \sum_p |A^S_{ip}(s) - A^S_{ip}(t)| + \sum_c |A^C_{ic}(s) - A^C_{ic}(t)|

    with the teacher's attentions in the first two (arXiv 2111.11837, as in the released code).

    Args:
        student: Maps in the teacher's width, shape ``(N, d, h, w)``.
        teacher: The teacher's maps of the same images, shape ``(N, d, h, w)``; no gradient flows to it.
        weights: :math:`M`, shape ``(N, h, w)``, from :func:`object_weights`.
        temperature: ``T`` of the attentions, greater than 0.

    Returns:
        Three losses of each image, shape ``(N,)`` each, in at least float32. The first is 0 where an image has no
        object, the second where objects cover all of it.

    Raises:
        ValueError: If the shapes are not equal or not four-dimensional, or ``temperature`` is out of range.
    """
    positive(temperature, 'temperature', 'fgd_terms')
    student, teacher = paired_maps(student, teacher, 'fgd_terms')
    (places, channels), (ours, our_channels) = attention(teacher, temperature), attention(student, temperature)
    costs = ((teacher - student).square() * channels[:, :, None, None]).sum(1) * places
    empty = (weights == 0).to(costs.dtype)
    background = empty / empty.sum((1, 2), keepdim=True).clamp(min=1)
    attended = (ours - places).abs().sum((1, 2)) + (our_channels - channels).abs().sum(1)
    return (weights * costs).sum((1, 2)), (background * costs).sum((1, 2)), attended
