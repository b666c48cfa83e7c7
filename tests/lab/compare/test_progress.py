"""How much is done, and how long the rest takes."""

import time
from pathlib import Path

import pytest
from ckd_mmdet.lab.compare.progress import Pace, last_end
from ckd_mmdet.lab.compare.runs import make_runs

from tests.lab.compare.matrices import a_matrix


@pytest.mark.parametrize(('running', 'waiting', 'places', 'end'), [
    ([], [], 2, 0.0), ([5.0], [], 2, 5.0), ([5.0, 2.0], [4.0], 2, 6.0), ([], [3.0, 3.0, 3.0], 2, 6.0),
    ([1.0], [3.0, 3.0], 1, 7.0), ([1.0], [3.0, 3.0], 3, 3.0)])
def test_each_waiting_run_takes_the_place_that_is_free_first(running: list, waiting: list, places: int, end: float
                                                            ) -> None:
    assert last_end(running, waiting, places) == end


def test_the_time_left_is_that_of_all_methods_at_their_own_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    now = 100.0
    monkeypatch.setattr(time, 'monotonic', lambda: now)
    runs = make_runs(a_matrix(tmp_path, ['none', 'kd', 'ckd'], [0, 1]))  # of 3 epochs each
    none, kd, *_ = runs
    pace = Pace(runs, places=2)
    assert pace.total == 18 and pace.done() == 0 and pace.left() is None
    for run in (none, kd):
        run.folder.mkdir(parents=True)
        run.log.write_text('of an earlier start: Epoch(train) [3][10/10]\n')
        pace.start(run)
    assert pace.left() is None
    now = 110.0
    none.log.write_text(none.log.read_text() + 'Epoch(train) [2][10/10]\n')  # 5 s an epoch
    kd.log.write_text(kd.log.read_text() + 'Epoch(train) [1][10/10]\n')  # 10 s an epoch
    assert pace.done() == 3
    # none needs 5 s more, kd 20; then ckd 22.5 (at the others' mean), none 15, kd 30, ckd 22.5 on two places:
    # 5 + 22.5 = 27.5 and 20 + 15 = 35; 27.5 + 30 = 57.5 and 35 + 22.5 = 57.5
    assert pace.left() == pytest.approx(57.5)
    now = 115.0
    none.log.write_text(none.log.read_text() + 'Epoch(train) [3][10/10]\n')
    assert pace.end(none) == pytest.approx(15.0)
    assert pace.done() == 4 and pace.measured['none'] == pytest.approx((15.0, 3.0))
