"""Train a detector, distilled or not: mmdet's own habits, thin over the Runner."""

import argparse
import os

from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from ckd_mmdet.config import add_hook, check_data, open_config
from mmengine.config import DictAction
from mmengine.device import is_cuda_available
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or mmdet::... for one of the installed mmdet')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument('--resume', nargs='?', const='auto', help='a checkpoint, or the latest in the work dir')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; needs a GPU')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, key=value')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.amp and not is_cuda_available():
        parser.error('--amp needs a GPU, and none is here; train without it')
    return args


def main() -> None:
    args = parse_args()
    cfg = open_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit('--auto-scale-lr needs `auto_scale_lr.base_batch_size` in the config; add '
                             '`auto_scale_lr = dict(base_batch_size=16)`, the batch its learning rate was made for')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    add_hook(cfg)
    prepare_cpu_launcher(cfg)
    Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    main()
