"""Train a detector or a classifier, distilled or not: mmdet's own habits, thin over the Runner."""

import argparse
import os

from ckd_mmdet.attach import (
    METHODS,
    class_map_option,
    distill_config,
    parse_method,
    read_weight,
    run_name,
    student_options,
)
from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from ckd_mmdet.compat.loading import trusting
from ckd_mmdet.config import add_hook, check_data, open_config
from ckd_mmdet.data_check import check_boxes
from ckd_mmdet.labels import check_config_names
from ckd_mmdet.options import OptionsAction, check_numbers, merge_options
from ckd_mmdet.saving import checkpoint_to_resume
from ckd_mmdet.work_dir import held, is_first, refuse_a_training, remove_training
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.runner import Runner


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or mmdet::... and mmpretrain::... for an installed one')
    parser.add_argument('--teacher', help='distil a plain config: the config of a model that teaches it')
    parser.add_argument('--teacher-checkpoint', help="its weights, a file or an address; by default the model zoo's")
    parser.add_argument('--method', help=f'how, ckd by default: {", ".join(METHODS)}, or several, ckd:0.5+pkd for '
                                         'example; none trains it alone')
    parser.add_argument('--loss-weight', type=read_weight, help="instead of the method's own: a number, or balance:0.5")
    parser.add_argument('--selector', help='which rows, TeacherTopK:512 for example; several in turn joined by +')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument('--resume', nargs='?', const='auto', help='a checkpoint, or the latest in the work dir')
    parser.add_argument('--overwrite', action='store_true',
                        help='train anew in a work dir that holds a training: its checkpoints are removed')
    parser.add_argument('--trust-checkpoint', action='store_true',
                        help='read checkpoints that could run code; only if you trust whoever made them')
    parser.add_argument('--allow-missing-classes', action='store_true',
                        help='train although the annotations lack some of the names in `metainfo.classes`')
    parser.add_argument('--check-images', action='store_true',
                        help='open every image before training, not just a sample')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision; needs a GPU')
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate with the batch size')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, help='override settings, key=value')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    if args.amp and not is_cuda_available():
        parser.error('--amp needs a GPU, and none is here; train without it')
    if args.overwrite and args.resume:
        parser.error('--overwrite trains anew and --resume goes on; give one of them')
    if args.resume not in (None, 'auto') and '://' not in args.resume and not os.path.isfile(args.resume):
        parser.error(f'--resume needs a checkpoint that exists, {args.resume} does not; without a name it takes the '
                     'latest in the work dir')
    if args.method:
        try:
            parse_method(args.method)
        except ValueError as error:
            parser.error(str(error))
    of_teacher = ('method', 'teacher_checkpoint', 'loss_weight', 'selector')
    lonely = [f'--{name.replace("_", "-")}' for name in of_teacher if getattr(args, name) is not None]
    if not args.teacher and args.method != 'none' and lonely:
        parser.error(f'{", ".join(lonely)} needs --teacher, the config of the detector that teaches')
    return args


def read_config(args: argparse.Namespace) -> Config:
    if not args.teacher and not args.method:
        return open_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    method = args.method or 'ckd'
    # the student's own work_dir, if its config has one, would mix the runs of all methods
    work_dir = args.work_dir or os.path.join('work_dirs', run_name(args.config, method, args.teacher))
    options = args.cfg_options or {}
    of_student = options if method == 'none' else student_options(options)  # classes and heads, before the choice
    student = open_config(args.config, of_student, work_dir, args.launcher)
    cfg = distill_config(student, args.teacher, method, teacher_checkpoint=args.teacher_checkpoint,
                         loss_weight=args.loss_weight, selector=args.selector,
                         class_map=class_map_option(options))
    merge_options(cfg, options)
    return cfg


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise SystemExit('--auto-scale-lr needs `auto_scale_lr.base_batch_size` in the config; add '
                             '`auto_scale_lr = dict(base_batch_size=16)`, the batch its learning rate was made for')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        newest = checkpoint_to_resume(cfg.work_dir) if args.resume == 'auto' else args.resume
        cfg.load_from, cfg.resume = newest and str(newest), newest is not None
    if args.allow_missing_classes:
        cfg.allow_missing_classes = True
    if args.check_images:
        cfg.check_images = True
    check_numbers(cfg)
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    check_boxes(cfg, ('train_dataloader', 'val_dataloader'), say=is_first(cfg))
    check_config_names(cfg, allow_missing=cfg.get('allow_missing_classes', False))
    add_hook(cfg)
    prepare_cpu_launcher(cfg)
    with trusting(args.trust_checkpoint), held(cfg):
        if not cfg.get('resume'):
            refuse_a_training(cfg, overwrite=args.overwrite)
        runner = Runner.from_cfg(cfg)
        if args.overwrite:
            remove_training(cfg)
        runner.train()


if __name__ == '__main__':
    main()
