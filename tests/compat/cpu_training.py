"""Two iterations of a small Runner, for torchrun; prints what each process ends with."""

import sys

import ckd_mmdet.compat  # noqa: F401
import torch
from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from mmengine.runner import Runner
from torch import Tensor, distributed


@DATASETS.register_module()
class Ranks(torch.utils.data.Dataset):
    """Four numbers; without shuffling, process 0 gets the first and third."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {'inputs': torch.tensor([float(index)])}


@MODELS.register_module()
class Slope(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> dict[str, Tensor]:
        return {'loss': (self.slope * inputs).mean()}


def main(work_dir: str) -> None:
    cfg = Config({
        'launcher': 'pytorch',
        'work_dir': work_dir,
        'model': {'type': 'Slope'},
        'train_cfg': {'by_epoch': True, 'max_epochs': 1},
        'train_dataloader': {
            'batch_size': 1,
            'num_workers': 0,
            'dataset': {'type': 'Ranks'},
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
            'collate_fn': {'type': 'default_collate'},
        },
        'optim_wrapper': {'optimizer': {'type': 'SGD', 'lr': 1.0}},
        'env_cfg': {'dist_cfg': {'backend': 'nccl', 'timeout': 60}},
        'log_level': 'ERROR',
    })
    prepare_cpu_launcher(cfg)
    runner = Runner.from_cfg(cfg)
    runner.train()
    wrapper = type(runner.model).__name__
    # One string and one write: two processes share this output.
    print(f'{runner.rank} of {runner.world_size} {wrapper} {runner.model.module.slope.item()}\n',
          end='', flush=True)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main(sys.argv[1])
