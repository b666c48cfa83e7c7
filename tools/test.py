"""Test a detector's or classifier's checkpoint; of a distilled one, the student alone: the teacher is never needed."""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from ckd_mmdet.compat.loading import trusting
from ckd_mmdet.config import open_config, plain_student
from ckd_mmdet.data_files import check_data
from ckd_mmdet.files import check_writable
from ckd_mmdet.fit_checkpoint import FitCheckpoint
from ckd_mmdet.options import OptionsAction
from ckd_mmdet.versions import versions
from mmengine.config import Config, ConfigDict
from mmengine.registry import METRICS
from mmengine.runner import Runner


def detectors_pictures(cfg: Config, folder: str) -> dict:
    return dict(type='DetVisualizationHook', draw=True, test_out_dir=folder)


def classifiers_pictures(cfg: Config, folder: str) -> dict:
    # unlike mmdet's, it does not look for the work dir itself
    return dict(type='VisualizationHook', enable=True, interval=1, out_dir=os.path.join(cfg.work_dir, folder))


@dataclass(frozen=True)
class Package:
    """What OpenMMLab's packages call the parts that a test may take."""

    dump: str
    visualizer: str
    pictures: Callable[[Config, str], dict]
    """The hook that draws the predictions into a folder."""
    tta: str
    """Where test-time augmentation is shown."""


PACKAGES = {
    'mmdet': Package('mmdet.DumpDetResults', 'DetLocalVisualizer', detectors_pictures,
                     "mmdet's configs/_base_ and retinanet_tta.py show both"),
    'mmpretrain': Package('DumpResults', 'UniversalVisualizer', classifiers_pictures,
                          "mmpretrain's `AverageClsScoreTTA` is such a model, `TestTimeAug` the transform"),
}
"""By a config's ``default_scope``."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)  # --show is not --show-dir
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('config', help='plain or distilled; also mmdet::... or mmpretrain::...')
    parser.add_argument('checkpoint', help='of the student, or of a training')
    parser.add_argument('--work-dir', help='where the metrics go')
    parser.add_argument('--out', help='write all predictions to this .pkl file')
    parser.add_argument('--show-dir', help='write pictures with the predictions to this folder under the work dir')
    parser.add_argument('--tta', action='store_true', help="test-time augmentation, with the config's `tta_model`")
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read a checkpoint that could run code; only if you trust whoever made it')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help='override settings, key=value')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out needs a file that ends in .pkl, got {args.out}')
    if args.out:
        try:
            check_writable(Path(args.out).absolute().parent, '--out')
        except ValueError as error:
            parser.error(str(error))
    if not os.path.isfile(args.checkpoint) and '://' not in args.checkpoint:
        parser.error(f'checkpoint needs a file that exists, {args.checkpoint} does not')
    return args


def main() -> None:
    args = parse_args()
    cfg = open_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    cfg.load_from, cfg.resume = args.checkpoint, False
    plain_student(cfg)
    package = PACKAGES.get(cfg.get('default_scope'), PACKAGES['mmdet'])
    if args.show_dir:
        cfg.setdefault('visualizer', dict(type=package.visualizer, vis_backends=[dict(type='LocalVisBackend')]))
        cfg.setdefault('default_hooks', {})
        cfg.default_hooks.visualization = package.pictures(cfg, args.show_dir)
    if args.tta:
        if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
            raise SystemExit(f'--tta needs `tta_model` and `tta_pipeline` in the config; {package.tta}')
        cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
        cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    check_data(cfg, ('test_dataloader',))
    prepare_cpu_launcher(cfg)
    with trusting(args.trust_checkpoint):
        runner = Runner.from_cfg(cfg)
        runner.register_hook(FitCheckpoint(args.checkpoint))
        if args.out:
            runner.test_evaluator.metrics.append(METRICS.build(dict(type=package.dump, out_file_path=args.out)))
        runner.test()


if __name__ == '__main__':
    main()
