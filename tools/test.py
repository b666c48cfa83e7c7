"""Test a detector's checkpoint; of a distilled one, the student alone: the teacher is never needed."""

import argparse
import os

from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from ckd_mmdet.config import check_data, open_config, plain_student
from mmengine.config import ConfigDict, DictAction
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the plain config or the distillation config; mmdet::... too')
    parser.add_argument('checkpoint')
    parser.add_argument('--work-dir', help='where the metrics go')
    parser.add_argument('--out', help='write all predictions to this .pkl file')
    parser.add_argument('--show-dir', help='write pictures with the predictions to this folder under the work dir')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, with the config's `tta_model`")
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings, key=value')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out needs a file that ends in .pkl, got {args.out}')
    if not os.path.isfile(args.checkpoint) and '://' not in args.checkpoint:
        parser.error(f'checkpoint needs a file that exists, {args.checkpoint} does not')
    return args


def main() -> None:
    args = parse_args()
    cfg = open_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    cfg.load_from = args.checkpoint
    plain_student(cfg)
    if args.show_dir:
        cfg.setdefault('visualizer', dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')]))
        cfg.default_hooks.visualization = dict(type='DetVisualizationHook', draw=True, test_out_dir=args.show_dir)
    if args.tta:
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise SystemExit('--tta needs `tta_model` and `tta_pipeline` in the config; '
                             "mmdet's configs/_base_ and retinanet_tta.py show both")
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    check_data(cfg, ('test_dataloader',))
    prepare_cpu_launcher(cfg)
    runner = Runner.from_cfg(cfg)
    if args.out:
        from mmdet.evaluation import DumpDetResults
        runner.test_evaluator.metrics.append(DumpDetResults(out_file_path=args.out))
    runner.test()


if __name__ == '__main__':
    main()
