"""Rows of class scores where they lie: looked over as a whole, copied only where chosen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class Rows(ABC):
    """``n`` rows of ``c`` class scores.

    A dense head has some 200,000 rows for an image of 800x1333 pixels: what is asked of all of them is one number a
    row, and only chosen rows are ever copied.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, index: Tensor) -> Tensor:
        """The rows at ``index``, shape ``(m,)`` int64, as ``(m, c)``; they carry gradient where the scores do."""

    @abstractmethod
    def confidence(self, columns: Sequence[int]) -> Tensor:
        """Greatest score of each row among ``columns``, shape ``(n,)``, without gradient."""


@dataclass(frozen=True)
class TableRows(Rows):
    """Rows of one tensor."""

    scores: Tensor
    """Shape ``(n, c)``."""

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: Tensor) -> Tensor:
        return self.scores[index]

    def confidence(self, columns: Sequence[int]) -> Tensor:
        return _greatest(self.scores.detach(), columns, dim=1)


@dataclass(frozen=True)
class MapRows(Rows):
    """Rows of a dense head: a row is an anchor ``a`` at a place ``(y, x)`` of an image and a level.

    They are in the order of mmdet's losses: level, image, y, x, anchor.
    """

    maps: Sequence[Tensor]
    """One ``(N, A, c, h, w)`` a level, views of what the head gave."""

    def __len__(self) -> int:
        return sum(self.lengths)

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each level."""
        return [level.numel() // level.shape[2] for level in self.maps]

    def take(self, index: Tensor) -> Tensor:
        taken, places, start = [], [], 0
        for level, length in zip(self.maps, self.lengths, strict=True):
            place = ((index >= start) & (index < start + length)).nonzero().squeeze(1)
            _, anchors, _, height, width = level.shape
            row = index[place] - start
            cell, anchor = row // anchors, row % anchors
            image, y, x = cell // (height * width), cell // width % height, cell % width
            taken.append(level[image, anchor, :, y, x])
            places.append(place)
            start += length
        return torch.cat(taken)[torch.cat(places).argsort()]

    def confidence(self, columns: Sequence[int]) -> Tensor:
        return self._in_order([_greatest(level.detach(), columns, dim=2) for level in self.maps])

    def image_ids(self) -> Tensor:
        """Image of each row, shape ``(n,)``."""
        return self._in_order([torch.arange(len(level), device=level.device)[:, None, None, None]
                               .expand(level[:, :, 0].shape) for level in self.maps])

    def level_ids(self) -> Tensor:
        """Level of each row, shape ``(n,)``."""
        device = self.maps[0].device
        return torch.arange(len(self.maps), device=device).repeat_interleave(
            torch.tensor(self.lengths, device=device))

    def _in_order(self, numbers: Sequence[Tensor]) -> Tensor:
        """From one ``(N, A, h, w)`` a level to ``(n,)``."""
        return torch.cat([level.permute(0, 2, 3, 1).reshape(-1) for level in numbers])


def _greatest(scores: Tensor, columns: Sequence[int], dim: int) -> Tensor:
    if not scores.numel():
        return scores.new_zeros([size for axis, size in enumerate(scores.shape) if axis != dim])
    first, last = columns[0], columns[-1] + 1
    if list(columns) == list(range(first, last)):  # a view: no copy of all rows
        return scores.narrow(dim, first, last - first).amax(dim)
    return scores.index_select(dim, torch.tensor(columns, device=scores.device)).amax(dim)
