"""From easy to hard: which examples, and what is cut out around a RoI."""

import numpy as np
import pytest
import torch
from ckd_mmdet.lab.analyze.difficulty import as_rgb, choose, crop, difficulties
from ckd_mmdet.lab.analyze.rows import ImageRows
from ckd_mmdet.samples import AlignedSamples, Side
from torch import nn


def test_examples_go_from_the_easiest_to_the_hardest_at_even_steps() -> None:
    difficulty = np.array([5.0, 0.0, 3.0, 1.0, 2.0, 4.0, 6.0])
    assert difficulty[choose(difficulty, np.arange(7), 4)].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert difficulty[choose(difficulty, np.arange(7), 20)].tolist() == sorted(difficulty)


def test_no_image_is_shown_twice_while_there_are_others() -> None:
    difficulty = np.arange(40.0)
    images = np.repeat([0, 1, 2, 3], 10)
    chosen = choose(difficulty, images, 4)
    assert sorted(images[chosen]) == [0, 1, 2, 3] and (np.diff(chosen) > 0).all() and chosen[-1] == 39
    assert len(set(choose(difficulty, np.zeros(40), 4).tolist())) == 4


def test_difficulty_is_relative_to_the_mean_of_all_rows_background_apart() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 3.0], [1.0, 0.0, 0.0]])
    labels = torch.tensor([0, 1, 2, 2])
    rows = ImageRows('kd', AlignedSamples(Side(logits), Side(logits), 2, labels, torch.arange(4)), None)
    losses = [-torch.log_softmax(row, 0)[label].item() for row, label in zip(logits, labels, strict=True)]
    means = [sum(losses[:2]) / 2, sum(losses[2:]) / 2]
    assert difficulties(rows) == pytest.approx([losses[i] / means[i // 2] for i in range(4)], rel=1e-5)


def test_a_crop_is_a_square_with_the_box_in_its_middle() -> None:
    pixels = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30, 1).repeat(3, 2)
    found, box = crop(pixels, [10.0, 8.0, 14.0, 12.0])
    assert found.shape == (8, 8, 3) and box == (2.0, 2.0, 6.0, 6.0)
    assert (found == pixels[6:14, 8:16]).all()


def test_beyond_the_image_a_crop_is_grey() -> None:
    pixels = np.full((20, 30, 3), 7, np.uint8)
    found, box = crop(pixels, [26.0, -2.0, 34.0, 2.0])
    assert found.shape == (16, 16, 3) and box == (4.0, 6.0, 12.0, 10.0)
    assert (found[8:, :8] == 7).all() and (found[:8] == 128).all() and (found[:, 8:] == 128).all()
    assert (crop(pixels, [100.0, 100.0, 104.0, 104.0])[0] == 128).all()


@pytest.mark.parametrize('flag', ['_channel_conversion', 'to_rgb'])
def test_images_are_shown_in_the_order_that_the_model_is_given(flag: str) -> None:
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
    preprocessor = nn.Identity()
    assert as_rgb(pixels, preprocessor)[0, 0].tolist() == [10, 20, 30]
    setattr(preprocessor, flag, True)
    assert as_rgb(pixels, preprocessor)[0, 0].tolist() == [30, 20, 10]
