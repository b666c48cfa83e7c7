"""DIST: correlation of the class probabilities, over the classes and over the batch (arXiv 2205.10536)."""

from __future__ import annotations

from torch import Tensor
from torch.linalg import vector_norm

from .checks import not_negative, paired_logits, positive

EPSILON = 1e-8
"""Added to the product of two spreads, as released: what does not vary has the correlation 0."""


def dist_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    r"""Lack of correlation of each sample's class probabilities, plus that of each class over the batch.

    .. math:: \ell_i = T^2 \Big[ \beta \, \big(1 - \rho(q_{i \cdot}, p_{i \cdot})\big)
              + \frac{\gamma}{C} \sum_c \big(1 - \rho(q_{\cdot c}, p_{\cdot c})\big) \Big], \quad
              \rho(a, b) = \frac{(a - \bar a) \cdot (b - \bar b)}{|a - \bar a| \, |b - \bar b| + \epsilon}

    with :math:`p = \mathrm{softmax}(t / T)`, :math:`q = \mathrm{softmax}(s / T)` over the classes and
    :math:`\epsilon = 10^{-8}` (DIST, arXiv 2205.10536; correlation and epsilon as in the released code; the
    temperature and its square as in its later form, seen in copies only).

    The first part, the inter-class relation, is the sample's own. The second, the intra-class relation, belongs to the
    whole batch; each sample has the same value of it, so that the mean over samples is the released loss, and a
    sample's value tells how well *it* is matched only up to that constant. It depends on which rows are in the batch.

    Args:
        student: Raw logits, shape ``(n, c)``; ``n`` samples over ``c`` classes.
        teacher: The teacher's logits of the same samples, shape ``(n, c)``; no gradient flows to it.
        beta: :math:`\beta \ge 0`, weight of the inter-class relation.
        gamma: :math:`\gamma \ge 0`, weight of the intra-class relation.
        temperature: :math:`T > 0`.

    Returns:
        Loss of each sample, shape ``(n,)``, at least float32, between 0 and :math:`2 T^2 (\beta + \gamma)`. Equal
        distributions cost nothing but the epsilon's trace, largest for classes that hardly vary. What does
        not vary counts as uncorrelated, 1: a class that all samples give the same probability, every class for
        ``n = 1``, a row of equal logits. Of such a student row or class the gradient on the probabilities is of the
        size :math:`1 / \epsilon`, unless the teacher's does not vary either: do not start a classifier from zeros
        without clipping. With ``c = 2`` the inter-class relation is 0 or 2, nearly without gradient.

    Raises:
        ValueError: If shapes differ or a number is out of its range.
    """
    positive(temperature, 'temperature', 'dist_loss')
    not_negative(beta, 'beta', 'dist_loss')
    not_negative(gamma, 'gamma', 'dist_loss')
    student, teacher = paired_logits(student, teacher, 'dist_loss')
    q, p = ((logits / temperature).softmax(1) for logits in (student, teacher))
    inter = 1 - _correlation(q, p, dim=1)
    intra = 1 - _correlation(q, p, dim=0)
    return temperature**2 * (beta * inter + gamma * intra.mean())


def _correlation(one: Tensor, other: Tensor, dim: int) -> Tensor:
    one, other = (x - x.mean(dim, keepdim=True) for x in (one, other))
    return (one * other).sum(dim) / (vector_norm(one, dim=dim) * vector_norm(other, dim=dim) + EPSILON)
