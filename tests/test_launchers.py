"""The scripts that start several processes, with the launcher replaced by one that says how it was called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from ckd_mmdet.hook import DistillHook
from mmengine.runner import FlexibleRunner

from tests.small_runs import ROOT


def called(folder: Path, script: str, *arguments: str, **environment: str) -> list[str]:
    """Words of the command that the script ends in."""
    for name in ('python', 'srun'):
        (folder / name).write_text(f'#!/bin/sh\nprintf "%s\\n" {name} "$@"\n')
        (folder / name).chmod(0o755)
    ours = ('NNODES', 'NODE_RANK', 'MASTER_ADDR', 'PORT', 'GPUS', 'GPUS_PER_NODE', 'CPUS_PER_TASK', 'SRUN_ARGS')
    clean = {key: value for key, value in os.environ.items() if key not in ours}
    done = subprocess.run([str(ROOT / 'tools' / script), *arguments], capture_output=True, text=True,
                          env={**clean, **environment, 'PATH': f'{folder}:{os.environ["PATH"]}'})
    return done.stdout.splitlines() if done.returncode == 0 else [done.stderr]


def test_several_machines_are_started_as_mmdets_are(tmp_path: Path) -> None:
    words = called(tmp_path, 'dist_train.sh', 'my.py', '8', '--amp', NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    assert words == ['python', '-m', 'torch.distributed.run', '--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1',
                     '--master_port=29500', '--nproc_per_node=8', str(ROOT / 'tools/train.py'), 'my.py', '--launcher',
                     'pytorch', '--amp']


@pytest.mark.parametrize(('environment', 'gpus', 'per_node'), [
    ({}, '8', '8'), (dict(GPUS='64'), '64', '8'), (dict(GPUS='4'), '4', '4'),
    (dict(GPUS='8', GPUS_PER_NODE='4'), '8', '4')])
def test_slurm_starts_a_process_for_each_gpu(environment: dict, gpus: str, per_node: str, tmp_path: Path) -> None:
    words = called(tmp_path, 'slurm_train.sh', 'gpu', 'distil', 'my.py', 'out', '--resume', **environment,
                   SRUN_ARGS='--mem 64G')
    assert words[:9] == ['srun', '-p', 'gpu', '--job-name=distil', f'--gres=gpu:{per_node}', f'--ntasks={gpus}',
                         f'--ntasks-per-node={per_node}', '--cpus-per-task=5', '--kill-on-bad-exit=1']
    assert words[9:] == ['--mem', '64G', 'python', '-u', str(ROOT / 'tools/train.py'), 'my.py', '--work-dir', 'out',
                         '--launcher', 'slurm', '--resume']


def test_a_missing_argument_is_told(tmp_path: Path) -> None:
    assert 'usage: slurm_train.sh PARTITION JOB CONFIG WORK_DIR' in called(tmp_path, 'slurm_train.sh', 'gpu')[0]


def test_another_runner_than_mmengines_is_refused() -> None:
    """Built without its arguments: it is refused by its kind, before anything of it is looked at."""
    with pytest.raises(ValueError, match='`FlexibleRunner`.*leave `runner_type` and `strategy` out'):
        DistillHook().before_run(object.__new__(FlexibleRunner))
    with pytest.raises(AttributeError):  # what stands in for a Runner in tests goes on
        DistillHook().before_run(SimpleNamespace())
