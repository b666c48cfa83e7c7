"""Two processes with gloo on CPU: the tool trains, and what the ranks' losses are to each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.device import get_device

from tests.cached.scenes import cached
from tests.small_runs import ROOT, distilled, run_config, student_config
from tests.test_learned import with_maps
from tests.toys import toy_model

pytestmark = pytest.mark.skipif(get_device() != 'cpu', reason='needs a machine without a GPU')


@pytest.fixture(scope='module')
def told(digits: Path, digit_teacher: dict, tmp_path_factory: pytest.TempPathFactory) -> dict:
    work_dir = tmp_path_factory.mktemp('two')
    cfg = run_config(distilled(student_config(), digit_teacher), digits, work_dir, epochs=1)
    cfg.train_cfg.val_interval = 9
    cfg.custom_hooks = [dict(type='Tell')]
    cfg.dump(work_dir / 'config.py')
    cached(cfg, work_dir / 'cache').dump(work_dir / 'cached.py')
    cfg.custom_hooks = [dict(type='Tell'), dict(type='BreakTheSecondsTeacher')]
    cfg.dump(work_dir / 'broken.py')
    model = with_maps(digit_teacher)
    model['alignments']['roi']['selector'] = dict(type='Foreground')
    model['alignments']['roi']['losses']['loss_features'] = dict(type='FeatureAlignmentLoss', expansion=1)
    model['alignments']['roi']['losses']['loss_ckd']['negatives_of'] = 'all'
    learning = run_config(model, digits, work_dir, epochs=3)
    learning.randomness.diff_rank_seed = True
    learning.merge_from_dict(dict(train_cfg=cfg.train_cfg, custom_hooks=[dict(type='Tell')]))
    learning.train_cfg.max_epochs = 3
    learning.train_dataloader.dataset.pipeline.insert(
        -1, dict(type='EmptyOnTheSecond', min_gt_bbox_wh=(999, 999), keep_empty=False))
    learning.dump(work_dir / 'learning.py')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         str(Path(__file__).with_name('two_processes.py')), str(work_dir / 'config.py'),
         str(work_dir / 'learning.py'), str(work_dir / 'cached.py'), str(work_dir / 'broken.py'), str(work_dir)],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    lines = [line for line in done.stdout.splitlines() if line.startswith('TOLD ')]
    assert done.returncode == 0 and len(lines) == 1, done.stderr[-5000:]
    return dict(json.loads(lines[0].removeprefix('TOLD ')), work_dir=work_dir)


def test_two_processes_train_one_student(told: dict) -> None:
    first, second = (rank[0] for rank in told['runs'])
    assert first['wrapper'] == second['wrapper'] == 'MMDistributedDataParallel'
    assert len(first['losses']) == len(second['losses']) == 2
    for ours, theirs in zip(first['losses'], second['losses'], strict=True):
        assert {'loss', 'roi.loss_ckd', 'roi.rows'} <= set(ours) and ours['roi.rows'] > 0
        assert torch.tensor(list(ours.values())).isfinite().all()
        assert ours['loss'] != theirs['loss']  # each logs its own images'
    assert first['weight'] == second['weight']


def test_a_student_of_two_processes_is_ordinary(told: dict) -> None:
    weights = torch.load(told['work_dir'] / 'as_is/student.pth', weights_only=False)['state_dict']
    student = toy_model(student_config())
    student.load_state_dict(weights, strict=True)
    assert float(student.roi_head.bbox_head.fc_cls.weight.double().norm()) == told['runs'][0][0]['weight']


def test_two_processes_learn_from_one_cache(told: dict) -> None:
    first, second = (rank[3] for rank in told['runs'])
    assert all(step['roi.rows'] > 0 and step['roi.loss_ckd'] > 0 for run in (first, second) for step in run['losses'])
    assert len(first['losses']) == 2 and first['losses'] != second['losses']  # each reads its own images' rows
    assert first['weight'] == second['weight'] != told['runs'][0][0]['weight']


def test_unused_parameters_are_not_looked_for_unless_the_user_asks(told: dict) -> None:
    assert [[run['find_unused'] for run in rank[:3]] for rank in told['runs']] == [[False, False, True]] * 2
    assert told['runs'][0][0]['losses'] == told['runs'][0][2]['losses']


def test_an_error_on_one_process_stops_both_at_the_same_step(told: dict) -> None:
    first, second = (rank[-1] for rank in told['runs'])
    assert len(first['losses']) == len(second['losses']) == 1
    assert 'another process of this training has stopped' in first['error']
    assert 'gave NaN or infinite logits' in second['error']


def test_what_is_learned_is_equal_on_both_though_seeds_differ_and_one_has_no_rows(told: dict) -> None:
    first, second = (rank[1] for rank in told['runs'])
    assert len(first['learned']) > 4
    assert first['learned'] == second['learned'] and first['weight'] == second['weight']
    rows = [[step['roi.rows'] for step in rank['losses']] for rank in (first, second)]
    assert len(rows[0]) == 6 and min(rows[0]) > 0 and max(rows[1]) == 0
    for rank in (first, second):
        assert [step['neck.loss_review'] > 0 for step in rank['losses']] == [True] * 4 + [False] * 2


def test_kd_over_the_ranks_is_kd_of_the_joined_rows(told: dict) -> None:
    assert told['kd']['ranks'] == pytest.approx(told['kd']['joined'], abs=1e-6)


def test_ckd_over_the_ranks_is_the_mean_of_each_ranks_own(told: dict) -> None:
    assert told['ckd']['ranks'] == pytest.approx(told['ckd']['mean'], abs=1e-6)
    assert told['ckd']['ranks'][0] != pytest.approx(told['ckd']['joined'][0], abs=1e-2)  # negatives are a process's own


def test_ckd_with_the_negatives_of_all_ranks_is_ckd_of_the_joined_rows(told: dict) -> None:
    assert told['all_ranks']['ranks'] == pytest.approx(told['all_ranks']['joined'], abs=1e-6)


def test_a_training_takes_the_negatives_of_all_ranks(told: dict) -> None:
    """What is learned is equal on both, though one of them has no rows of that alignment."""
    first, second = (rank[1] for rank in told['runs'])
    assert all(step['roi.loss_ckd'] > 0 for step in first['losses'])
    assert all(step['roi.loss_ckd'] == 0 for step in second['losses'])
