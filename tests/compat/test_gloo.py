import os
import subprocess
import sys
from pathlib import Path

import pytest
from ckd_mmdet.compat import gloo
from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from mmengine.config import Config
from mmengine.device import get_device
from torch import distributed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list:
    """The arguments with which a process group is opened, on a machine without a GPU."""
    calls = []
    monkeypatch.setattr(gloo, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(distributed, 'init_process_group',
                        lambda backend, timeout: calls.append((backend, timeout)))
    return calls


@pytest.mark.skipif(get_device() != 'cpu', reason='needs a machine without a GPU')
def test_two_processes_train_one_model_on_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2',
         str(Path(__file__).with_name('cpu_training.py')), str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env=os.environ | {'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})
    # Gradients are averaged over processes: -(0 + 1) / 2 - (2 + 3) / 2.
    lines = sorted(line for line in done.stdout.splitlines() if 'DistributedDataParallel' in line)
    assert lines == [f'{rank} of 2 MMDistributedDataParallel -3.0' for rank in (0, 1)], done.stderr


def test_the_wrapper_keeps_the_configs_find_unused_parameters(opened: list) -> None:
    cfg = Config({'launcher': 'pytorch', 'find_unused_parameters': True})
    prepare_cpu_launcher(cfg)
    assert opened == [('gloo', None)]
    assert cfg.model_wrapper_cfg.find_unused_parameters
    assert cfg.model_wrapper_cfg.device_ids is None


def test_the_configs_timeout_is_in_seconds(opened: list) -> None:
    prepare_cpu_launcher(Config({'launcher': 'pytorch', 'env_cfg': {'dist_cfg': {'timeout': 90}}}))
    assert opened[0][1].total_seconds() == 90


def test_a_wrapper_of_the_users_own_is_kept(opened: list) -> None:
    cfg = Config({'launcher': 'pytorch', 'model_wrapper_cfg': {'type': 'Own'}})
    prepare_cpu_launcher(cfg)
    assert cfg.model_wrapper_cfg == {'type': 'Own'}


@pytest.mark.parametrize('launcher', ['none', 'slurm'])
def test_another_launcher_changes_nothing(opened: list, launcher: str) -> None:
    cfg = Config({'launcher': launcher})
    prepare_cpu_launcher(cfg)
    assert opened == []
    assert 'model_wrapper_cfg' not in cfg


def test_a_gpu_changes_nothing(opened: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gloo, 'get_device', lambda: 'cuda')
    cfg = Config({'launcher': 'pytorch'})
    prepare_cpu_launcher(cfg)
    assert opened == []
    assert 'model_wrapper_cfg' not in cfg
