"""Train a detector or a classifier, distilled or not: mmdet's own habits, thin over the Runner."""

import argparse
import importlib.util
import os
import shlex

from ckd_mmdet.auto import distill_config, run_name
from ckd_mmdet.cached.teacher import is_cached
from ckd_mmdet.compat.gloo import prepare_cpu_launcher
from ckd_mmdet.compat.loading import trusting
from ckd_mmdet.config import DISTILLER, add_hook, open_config
from ckd_mmdet.data_check import check_boxes
from ckd_mmdet.data_files import check_data
from ckd_mmdet.labels import check_config_names
from ckd_mmdet.method_options import CLASS_MAP, parse_method, read_class_map, read_weight
from ckd_mmdet.options import OptionsAction, check_numbers
from ckd_mmdet.recipes import AUTO, METHODS, RECIPES, SAYS
from ckd_mmdet.saving import checkpoint_to_resume
from ckd_mmdet.speed import PRECISIONS
from ckd_mmdet.versions import versions
from ckd_mmdet.work_dir import held, is_first, refuse_a_training, remove_training
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.runner import Runner

OF_HEADS = dict(RoIAligner='two-stage detectors', DenseAligner='one-stage detectors with equal anchors or points',
                QueryAligner='DETR and its like', ObjectAligner='any two detectors of these kinds',
                NeckAligner='any two models, by feature maps', ImageAligner='classifiers of MMPretrain')
EPILOG = '\n'.join([
    'methods:', *(f'  {name:<12} {text}' for name, text in SAYS.items()),
    '', 'for which heads (what is taken is printed, and why):',
    *(f'  {text}: {", ".join(RECIPES[aligner])}' for aligner, text in OF_HEADS.items()),
    '  one class on both sides, and a sigmoid on one: kd, or a method of feature maps',
    '', 'selectors, of rows: All, Foreground, NearObjects, TeacherTopK:K, ForegroundPlus:K, Random:K,',
    '                       PerImageCap:K, PerLevelCap:K',
    '', 'options of a distilled config:',
    "  --cfg-options model.student.bbox_head.num_classes=5        the student's own config, its `model.` written",
    '                                                             `model.student.`',
    "  --cfg-options model.teacher.check_accuracy=False           the teacher's: class_map, check_accuracy,",
    '                                                             check_preprocessing, trusted, precision,',
    '                                                             channels_last, fuse, compile, cache',
    '  --cfg-options model.alignments.neck.aligner.resize=True    what was chosen, as it is printed',
    '', 'examples:',
    '  python tools/train.py mmdet::retinanet/retinanet_r18_fpn_1x_coco.py \\',
    '      --teacher mmdet::retinanet/retinanet_r50_fpn_2x_coco.py --explain',
    '  python tools/train.py my_faster_rcnn.py --teacher its_teacher.py --teacher-checkpoint best.pth --method kd+pkd',
    "  python tools/train.py my_yolox.py --teacher coco_model.py --teacher-checkpoint coco.pth "
    "--class-map light='traffic light'"])


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--version', action='version', version=versions())
    parser.add_argument('config', help='a config file, or mmdet::... and mmpretrain::... for an installed one')
    parser.add_argument('--teacher', help='distil a plain config: the config of a model that teaches it')
    parser.add_argument('--teacher-checkpoint', help="its weights, a file or a URL (default: the model zoo's)")
    parser.add_argument('--teacher-precision', choices=[choice for choice in PRECISIONS if choice],
                        help='how the teacher alone computes; auto is bf16 where the device does so natively, else '
                             "fp32; by default as the student's step")
    parser.add_argument('--method', help=f'how: {", ".join(METHODS)}, or several, ckd:0.5+pkd for example; by '
                                         'default auto, what gave most between such heads; none trains it alone; '
                                         "+inherit beside any starts it from the teacher's neck and head")
    parser.add_argument('--loss-weight', type=read_weight,
                        help="instead of the method's own: a number, balance:0.5, or a schedule by epochs, "
                             "'{value: 1, warm_up: 20}'")
    parser.add_argument('--selector', help='which rows, TeacherTopK:512 for example; several in turn joined by +')
    parser.add_argument('--class-map', nargs='+', metavar='OURS=THEIRS',
                        help="the teacher's class for each of yours, light='traffic light' 3=three for example, or a "
                             '.json or .yaml file; by default equal names are paired')
    parser.add_argument('--explain', action='store_true',
                        help='print what is chosen, what was refused and why, and the number of rows; train nothing')
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
    check_args(parser, args)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def check_args(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, and read the class map."""
    if args.amp and not is_cuda_available():
        parser.error('--amp needs a GPU, and none is here; train without it')
    if args.overwrite and args.resume:
        parser.error('--overwrite trains anew and --resume goes on; give one of them')
    if args.resume not in (None, 'auto') and '://' not in args.resume and not os.path.isfile(args.resume):
        parser.error(f'--resume needs a checkpoint that exists, {args.resume} does not; without a name it takes the '
                     'latest in the work dir')
    try:
        if args.method:
            parse_method(args.method)
        if args.class_map:
            args.class_map = read_class_map(args.class_map)
    except ValueError as error:
        parser.error(str(error))
    of_teacher = ('method', 'teacher_checkpoint', 'loss_weight', 'selector', 'class_map', 'explain')
    lonely = [f'--{name.replace("_", "-")}' for name in of_teacher if getattr(args, name)]
    if not args.teacher and args.method != 'none' and lonely:
        parser.error(f'{", ".join(lonely)} needs --teacher, the config of the detector that teaches')


def read_config(args: argparse.Namespace) -> Config:
    if not args.teacher and not args.method:
        return open_config(args.config, args.cfg_options, args.work_dir, args.launcher)
    method = args.method or AUTO
    # the student's own work_dir, if its config has one, would mix the runs of all methods
    work_dir = args.work_dir or os.path.join('work_dirs', run_name(args.config, method, args.teacher))
    student = open_config(args.config, None, work_dir, args.launcher)
    class_map = {CLASS_MAP: args.class_map} if args.class_map and method != 'none' else {}
    return distill_config(student, args.teacher, method, teacher_checkpoint=args.teacher_checkpoint,
                          loss_weight=args.loss_weight, selector=args.selector,
                          options={**(args.cfg_options or {}), **class_map})


def set_precision(cfg: Config, precision: str) -> None:
    """Let every teacher of a distilled config compute in that precision."""
    teacher = cfg.model.get('teacher') if cfg.model.get('type') == DISTILLER else None
    if not teacher:
        raise SystemExit('--teacher-precision needs a teacher, and this trains a student alone; give --teacher, or a '
                         'distilled config')
    if is_cached(teacher):
        raise SystemExit('--teacher-precision is that of a live teacher, and this one is cached; leave it out')
    for one in [teacher] if 'config' in teacher else teacher.values():
        one.precision = precision


def main() -> None:
    args = parse_args()
    cfg = read_config(args)
    if args.teacher_precision:
        set_precision(cfg, args.teacher_precision)
    if args.explain:
        return
    if cfg.get('runner_type', 'Runner') != 'Runner' or cfg.get('strategy'):
        raise SystemExit("this trains with MMEngine's `Runner`, and the config asks for "
                         f'{cfg.get("runner_type", "a `strategy`")}; leave `runner_type` and `strategy` out: FSDP and '
                         'its like cannot be used here, docs/scaling.md says why')
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
    if is_first(cfg) and importlib.util.find_spec('jinja2') and importlib.util.find_spec('pandas'):  # the extra `lab`
        print(f'Curves, photographs and errors on one page: python -m ckd_mmdet report {shlex.quote(cfg.work_dir)}')


if __name__ == '__main__':
    main()
