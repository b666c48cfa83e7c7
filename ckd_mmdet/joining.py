"""The rows of all ranks beside a rank's own, for losses that compare them with each other."""

from __future__ import annotations

from dataclasses import replace

import torch
from ckd_mmdet.samples import AlignedSamples, JoinedRows, Side, is_foreground
from mmengine.dist import all_gather, all_reduce, get_rank, get_world_size
from torch import Tensor


def join_ranks(aligned: AlignedSamples) -> AlignedSamples:
    """The same rows, with the plain rows of all ranks beside them; every rank calls it at the same time.

    What other ranks say comes without a graph. No gradient need travel: each rank computes the losses of all rows, and
    takes the part of their gradient that is due to its own logits.

    Args:
        aligned: Without rows to be ignored; ranks may have different numbers of rows, or none.

    Raises:
        ValueError: If rows to be ignored may be among them.
    """
    if get_world_size() == 1:
        return aligned
    plain = aligned.plain()
    if plain.labels is not None and not plain.filtered:
        raise ValueError('`join_ranks` needs rows without any to be ignored, got rows that are not `filtered`; leave '
                         'those with a negative label out, and say `filtered=True`.')
    student, teacher = plain.student.logits, plain.teacher.logits
    numbers = torch.stack([_or_zeros(plain.labels, student), _or_zeros(plain.image_ids, student)], 1)
    counts = [int(count) for count in all_gather(numbers.new_tensor([len(student)]))]
    # autocast may have left halves; losses compute in float32 anyway
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    scores = _gathered(torch.cat([student.detach().to(dtype), teacher.to(dtype)], 1), counts)
    whole = torch.cat(_gathered(numbers, counts))
    ours, rank = student.to(dtype), get_rank()
    of_student, of_teacher = (list(side) for side in zip(*(part.tensor_split(2, 1) for part in scores), strict=True))
    of_student[rank] = ours
    start = sum(counts[:rank])
    # an image's number is its own rank's: no two ranks may share one
    ranks = torch.arange(len(counts), device=ours.device).repeat_interleave(numbers.new_tensor(counts))
    hard = plain.labels is not None and plain.labels.ndim == 1
    rows = AlignedSamples(Side(torch.cat(of_student)), Side(torch.cat(of_teacher)), plain.num_classes,
                          whole[:, 0] if hard else None,
                          None if plain.image_ids is None else whole[:, 1] * len(counts) + ranks,
                          plain.scoring, filtered=plain.filtered)
    return replace(aligned, joined=JoinedRows(rows, slice(start, start + counts[rank]), len(counts)))


def count_positives(aligned: AlignedSamples) -> AlignedSamples:
    """The same rows, with the mean over the ranks of their number with an object; every rank calls it at the same time.

    Args:
        aligned: With labels, one class a row; ranks may have none.
    """
    if get_world_size() == 1:
        return aligned
    assert aligned.labels is not None  # as the loss's `requires` says
    counted = is_foreground(aligned.labels, aligned.num_classes).sum().float()
    all_reduce(counted, 'mean')
    return replace(aligned, positives=counted)


def _or_zeros(part: Tensor | None, like: Tensor) -> Tensor:
    """Whole numbers of a row; zeros where there are none, or soft labels."""
    if part is None or part.ndim != 1:
        return torch.zeros(len(like), dtype=torch.long, device=like.device)
    return part.long()


def _gathered(part: Tensor, counts: list[int]) -> list[Tensor]:
    """Rows ``(n, d)`` of each rank, which have different numbers of them."""
    padded = part.new_zeros(max(counts), part.shape[1])
    padded[:len(part)] = part
    return [rows[:count] for rows, count in zip(all_gather(padded), counts, strict=True)]
