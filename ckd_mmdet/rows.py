"""Rows of scores, where a head left them: looked over as a whole, copied only where chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

LEAST_PROBABILITY = 1e-6
"""Probabilities closer to 0 or 1 have logits no larger than this one's."""


@dataclass(frozen=True)
class Ranking:
    """How a detector makes the score by which it ranks a row at test time."""

    softmax: bool
    """One distribution over all columns of a row, background included; otherwise one sigmoid a class."""
    activated: bool = False
    """The scores are probabilities already."""
    geometric: bool = False
    """The square root of probability times quality (PAA), not the product."""

    @torch.no_grad()
    def confidence(self, scores: Tensor, columns: Sequence[int], dim: int, quality: Tensor | None = None) -> Tensor:
        """Score of the best of some classes.

        Args:
            scores: Class scores, the columns along ``dim``.
            columns: Those of the classes that count. A softmax is over all columns nevertheless.
            dim: Dimension that the result lacks.
            quality: What the head knows of a row beside its classes (centerness, objectness, IoU), a probability each,
                shaped like the result.

        Returns:
            float32, from 0 to 1.
        """
        best = _greatest(scores, columns, dim).float()
        if self.softmax:  # the difference is the same however the row is shifted
            best = (best - scores.float().logsumexp(dim)).exp()
        elif not self.activated:
            best = best.sigmoid()  # of one number a row, not of all
        if quality is not None:
            best = best * quality.float()
        return (best.sqrt() if self.geometric else best).clamp(max=1)


SOFTMAX, SIGMOID = Ranking(softmax=True), Ranking(softmax=False)


class Rows(ABC):
    """``n`` rows of ``c`` class scores.

    A dense head has some 200,000 rows for an image of 800x1333 pixels: what is asked of all of them is one number a
    row, and only chosen rows are ever copied.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """The rows at ``index``, shape ``(m,)`` int64, as ``(m, c)`` logits; they carry gradient where the scores do.

        ``index`` is from 0 to ``n - 1``; nothing checks that, since the host would have to wait for the device.
        """

    @abstractmethod
    def confidence(self, columns: Sequence[int]) -> Tensor:
        """Score by which the detector itself would rank each row at test time, if it had the classes ``columns`` only.

        The probability of the best of these classes, times what the head says of the row's quality where it does.

        Returns:
            Shape ``(n,)``, float32, from 0 to 1, without gradient.
        """


@dataclass(frozen=True)
class TableRows(Rows):
    """Rows of one tensor."""

    scores: Tensor
    """Logits, shape ``(n, c)``."""
    ranking: Ranking
    quality: Tensor | None = None
    """A probability each, shape ``(n,)``; see :meth:`Ranking.confidence`."""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Tensor) -> Tensor:
        return self.scores[index]

    def confidence(self, columns: Sequence[int]) -> Tensor:
        return self.ranking.confidence(self.scores, columns, 1, self.quality)

    def select(self, index: Tensor) -> TableRows:
        """Those at ``index``, shape ``(m,)`` int64 or ``(n,)`` bool."""
        quality = None if self.quality is None else self.quality[index]
        return replace(self, scores=self.scores[index], quality=quality)


@dataclass(frozen=True)
class MapRows(Rows):
    """Rows of a dense head: a row is an anchor ``a`` at a place ``(y, x)`` of an image and a level.

    They are in the order of mmdet's losses: level, image, y, x, anchor. Nothing here waits for the device.
    """

    maps: Sequence[Tensor]
    """One ``(N, A, c, h, w)`` a level, views of what the head gave."""
    ranking: Ranking
    quality: Sequence[Tensor] | None = None
    """A probability each, one ``(N, A, h, w)`` a level; see :meth:`Ranking.confidence`."""

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each level."""
        return [level.numel() // level.shape[2] for level in self.maps]

    def take(self, index: Tensor) -> Tensor:
        rows = self.as_given(index)
        return rows.float().logit(eps=LEAST_PROBABILITY) if self.ranking.activated else rows

    def as_given(self, index: Tensor) -> Tensor:
        """As :meth:`take`, the numbers that the head gave: of some heads probabilities."""
        return self._at(index, self.maps)

    def table(self, index: Tensor) -> TableRows:
        """The rows at ``index``, shape ``(m,)`` int64."""
        quality = None
        if self.quality is not None:
            quality = self._at(index, [level[:, :, None] for level in self.quality])[:, 0]
        return TableRows(self.take(index), replace(self.ranking, activated=False), quality)

    def confidence(self, columns: Sequence[int]) -> Tensor:
        quality = [None] * len(self.maps) if self.quality is None else self.quality
        return self._in_order([self.ranking.confidence(level, columns, 2, of_level)
                               for level, of_level in zip(self.maps, quality, strict=True)])

    def image_ids(self) -> Tensor:
        """Image of each row, shape ``(n,)``."""
        return self._in_order([torch.arange(len(level), device=level.device)[:, None, None, None]
                               .expand(level[:, :, 0].shape) for level in self.maps])

    def level_ids(self) -> Tensor:
        """Level of each row, shape ``(n,)``."""
        return torch.cat([torch.full((length,), number, device=level.device)
                          for number, (level, length) in enumerate(zip(self.maps, self.lengths, strict=True))])

    def _at(self, index: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """From one ``(N, A, c, h, w)`` a level to ``(m, c)``.

        Every level is read at every index, and the right one kept: to find out which indices are of a level would be
        to wait for the device.
        """
        taken, start = maps[0].new_zeros(len(index), maps[0].shape[2]), 0
        for level, length in zip(maps, self.lengths, strict=True):
            _, anchors, _, height, width = level.shape
            here = (index >= start) & (index < start + length)
            row = (index - start) % length  # others fall anywhere in the level, not all on one row
            cell, anchor = row // anchors, row % anchors
            image, y, x = cell // (height * width), cell // width % height, cell % width
            taken = torch.where(here[:, None], level[image, anchor, :, y, x], taken)
            start += length
        return taken

    def _in_order(self, numbers: Sequence[Tensor]) -> Tensor:
        """From one ``(N, A, h, w)`` a level to ``(n,)``."""
        return torch.cat([level.permute(0, 2, 3, 1).reshape(-1) for level in numbers])


def _greatest(scores: Tensor, columns: Sequence[int], dim: int) -> Tensor:
    if not scores.numel():
        return scores.new_zeros([size for axis, size in enumerate(scores.shape) if axis != dim])
    first, last = columns[0], columns[-1] + 1
    if list(columns) == list(range(first, last)):  # a view: no copy of all rows
        return scores.narrow(dim, first, last - first).amax(dim)
    index = torch.tensor(columns).to(scores.device, non_blocking=True)  # a blocking copy would wait for the device
    return scores.index_select(dim, index).amax(dim)
