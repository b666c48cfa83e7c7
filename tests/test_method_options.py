"""What is written on a command line, read."""

from __future__ import annotations

import pytest
from ckd_mmdet.method_options import read_weight


@pytest.mark.parametrize(('text', 'weight'), [
    ('0.1', 0.1), ('1e-3', 0.001), ('balance:0.5', 'balance:0.5'),
    ('{value: 1, warm_up: 20}', dict(value=1, warm_up=20)),
    ('{value: 1', '{value: 1'), ('much', 'much')])
def test_a_weight_is_a_number_a_schedule_or_left_to_its_own_error(text: str, weight: object) -> None:
    assert read_weight(text) == weight
