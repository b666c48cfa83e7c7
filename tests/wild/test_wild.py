"""The quick pairs of the corpus; ``python -m tests.wild`` runs them all."""

from pathlib import Path

import pytest

from .pairs import PAIRS, Wild
from .run import attempts, prepare, run


@pytest.mark.parametrize(('pair', 'method'), attempts([pair for pair in PAIRS if pair.quick]))
def test_a_users_pair_trains_validates_and_gives_a_plain_student(pair: Wild, method: str, tmp_path: Path) -> None:
    prepare(tmp_path)
    assert run(pair, method, tmp_path)
