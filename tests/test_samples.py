"""Rows are chosen with everything that belongs to them."""

import torch
from ckd_mmdet.samples import AlignedSamples, Side


def test_chosen_rows_keep_what_is_theirs_and_the_layer_stays_whole() -> None:
    torch.manual_seed(0)
    sides = [Side(torch.randn(4, 3), torch.randn(4, width), torch.randn(3, width), torch.randn(3)) for width in (5, 6)]
    samples = AlignedSamples(*sides, 3, torch.tensor([2, 1, 0, 1]), torch.tensor([0, 1, 0, 1]), 'sigmoid',
                             torch.tensor([0, 0, 1, 1]))
    chosen = samples.select(torch.tensor([3, 0]))
    assert len(chosen) == 2
    for side, whole in ((chosen.student, samples.student), (chosen.teacher, samples.teacher)):
        assert torch.equal(side.logits, whole.logits[[3, 0]])
        assert torch.equal(side.features, whole.features[[3, 0]])
        assert side.centers is whole.centers
        assert side.biases is whole.biases
        assert len(side.tensors()) == 4
    assert chosen.labels.tolist() == [1, 2]
    assert chosen.image_ids.tolist() == [1, 0]
    assert chosen.views.tolist() == [1, 0]
    assert (chosen.num_classes, chosen.scoring) == (3, 'sigmoid')
    assert samples.plain().labels.tolist() == [2, 1]


def test_what_is_not_there_stays_away() -> None:
    samples = AlignedSamples(Side(torch.randn(4, 3)), Side(torch.randn(4, 3)), 3)
    assert samples.plain() is samples
    chosen = samples.select(torch.tensor([1]))
    assert chosen.student.features is chosen.student.centers is chosen.student.biases is None
    assert chosen.labels is chosen.image_ids is chosen.views is None
    assert len(chosen.student.tensors()) == 1
